"""A TLS client certificate of another CA, a maker's device identity say, for a first enrollment (RFC 7030 §3.3.2)."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import Literal

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, NameBinding, Requester
from gateway.pki.certificate import Certificate
from gateway.pki.names import format_name
from gateway.ra.client_path import ClientCertificates, certificate_id, client_certificate
from gateway.ra.credentials.own_names import Sans
from gateway.ra.policy.subject import SERIAL_NUMBER

Names = Literal["same", "serial_number", "any"]


class TlsCertificateCredential:
    """Recognises TLS clients whose certificates another CA issued.

    A certificate that was issued here is not such a one, whatever the anchors say: it renews under the renewal rule, once, and
    enrolls nothing else. `names` says what may be asked for: exactly the certificate's names, any subject with its serialNumber
    (and, with `sans` "bound", no alternative names but the certificate's), or any that policy lets through. A SID is never
    vouched for.
    """

    kind = CredentialKind.TLS_CERTIFICATE

    def __init__(self, clients: ClientCertificates, names: Names, sans: Sans = "bound") -> None:
        self._clients = clients
        self._names = names
        self._sans = sans

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the holder of the certificate.

        None without one. Raises Rejection NOT_AUTHORIZED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, UPSTREAM_UNAVAILABLE or
        NAME_NOT_BOUND, and StoreUnavailable.
        """
        certificate = client_certificate(request)
        if certificate is None:
            return None
        client = await self._clients.recognise(certificate, request.client_chain, now)
        if client.row is not None:
            cause = f"it was issued here under profile {client.row.profile}: it can be renewed, under a renewal rule, and no more"
            raise Rejection(Reason.NOT_AUTHORIZED, "the TLS client certificate is not accepted for a first enrollment", cause)
        return self._requester(certificate)

    def _requester(self, certificate: Certificate) -> Requester:
        name = format_name(certificate.subject)
        identifier = certificate_id(certificate)
        return Requester(
            identity=f"{self.kind}:{identifier}",
            kind=self.kind,
            binding=self._binding(certificate),
            owner=name or None,
            device=None if self._names == "same" else identifier[:32],
            claims=MappingProxyType({"certificate": name, "serial": f"{certificate.serial:x}"}),
        )

    def _binding(self, certificate: Certificate) -> NameBinding:
        sans = frozenset((name.kind, name.value) for name in certificate.sans)
        match self._names:
            case "same":
                return NameBinding(format_name(certificate.subject), sans)
            case "serial_number":
                number = _serial_number(certificate)
                allowed = sans if self._sans == "bound" else None
                return NameBinding(serial_number=number, allowed_sans=allowed, certified=True)
            case "any":
                return NameBinding()


def _serial_number(certificate: Certificate) -> str:
    """Return the one serialNumber of a certificate's subject; Rejection NAME_NOT_BOUND when it has none, or several."""
    held = certificate.subject.values(SERIAL_NUMBER)
    if len(held) != 1 or not held[0]:
        text = "the TLS client certificate does not have one serialNumber in its subject"
        raise Rejection(Reason.NAME_NOT_BOUND, text)
    return held[0]
