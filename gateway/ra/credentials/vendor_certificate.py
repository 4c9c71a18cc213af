"""A certificate that the maker gave the device, which signs its first CMP request (3GPP TS 33.310 clause 9)."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from gateway.config.credentials import VendorCertificateCredential as VendorConfig
from gateway.errors import Reason, Rejection
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    NameBinding,
    Protocol,
    Requester,
    SignerCertificate,
)
from gateway.pki.certificate import Certificate, recall_certificate
from gateway.pki.names import format_name
from gateway.ra.client_path import ClientCertificates, certificate_id
from gateway.ra.credentials.own_names import own_sans
from gateway.ra.policy.subject import COMMON_NAME, SERIAL_NUMBER


class VendorCertificateCredential:
    """Recognises devices by the certificates of their makers, one of `devices` where these are listed.

    A certificate that was issued here is not such a one, whatever the anchors say: it is updated under the renewal rule, and
    enrolls nothing else. Only ir and what else enrolls for the first time is proved by it, never an update; a SID is never
    vouched for.
    """

    kind = CredentialKind.VENDOR_CERTIFICATE

    def __init__(self, clients: ClientCertificates, config: VendorConfig, devices: frozenset[str] | None) -> None:
        """Take what knows the makers, and the devices that may enroll; None: all of them, where the profile says so."""
        if devices is None and not config.any_device:
            raise ValueError("makers' certificates need a list of devices, or any_device")
        self._clients = clients
        self._config = config
        self._devices = devices

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the device; None where no certificate signed the message.

        Raises Rejection NOT_AUTHORIZED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, UPSTREAM_UNAVAILABLE or NAME_NOT_BOUND, and
        StoreUnavailable.
        """
        signer, proof = request.signer, request.proof
        if request.protocol is not Protocol.CMP or signer is None or proof is None or proof.secret is not None:
            return None
        if request.is_renewal:
            return None
        return await self._device(recall_certificate(signer.der), proof.chain, now)

    async def recognise(self, signer: SignerCertificate, chain: tuple[bytes, ...], now: datetime) -> str:
        """Return the identity of the device that signed a message, whatever that asks for; raises as `authenticate` does."""
        return (await self._device(recall_certificate(signer.der), chain, now)).identity

    async def _device(self, certificate: Certificate, chain: tuple[bytes, ...], now: datetime) -> Requester:
        client = await self._clients.recognise(certificate, chain, now, signed=True)
        if client.row is not None:
            cause = f"it was issued here under profile {client.row.profile}: it can be updated, under a renewal rule, and no more"
            raise Rejection(Reason.NOT_AUTHORIZED, "the certificate is not accepted for a first enrollment", cause)
        name = self._identity(certificate)
        if self._devices is not None and name not in self._devices:
            raise Rejection(Reason.NOT_AUTHORIZED, "this device is not expected here", f"device {name!r} is not in the inventory")
        return Requester(
            identity=f"{self.kind}:{name}",
            kind=self.kind,
            binding=self._binding(certificate, name),
            owner=name,
            device=certificate_id(certificate)[:32],
            claims=MappingProxyType(
                {"vendor.id": name, "certificate": format_name(certificate.subject), "serial": f"{certificate.serial:x}"}
            ),
        )

    def _identity(self, certificate: Certificate) -> str:
        """Return what the maker calls the device; Rejection NAME_NOT_BOUND where its certificate says nothing, or several."""
        if self._config.identity_from == "subject":
            found: tuple[str, ...] = (format_name(certificate.subject),)
        else:
            found = certificate.subject.values(SERIAL_NUMBER if self._config.identity_from == "serial_number" else COMMON_NAME)
        if len(found) != 1 or not found[0]:
            text = f"the maker's certificate does not have one {self._config.identity_from.replace('_', ' ')} in its subject"
            raise Rejection(Reason.NAME_NOT_BOUND, text)
        return found[0]

    def _binding(self, certificate: Certificate, name: str) -> NameBinding:
        """Bind the names that may be asked for; a subject that is left out is the policy's to fill (3GPP TS 33.310 §9.5.4.2)."""
        match self._config.names:
            case "same":
                sans = frozenset((san.kind, san.value) for san in certificate.sans)
                return NameBinding(format_name(certificate.subject), sans)
            case "identity":
                return NameBinding(device=name, allowed_sans=own_sans(name), certified=True)
            case "any":
                return NameBinding()
