"""A registration authority that asks for others, with their proof of possession (id-kp-cmcRA: RFC 6402 §2.10, RFC 7030 §3.7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, Name, Protocol, Requester, SignerCertificate
from gateway.pki.certificate import Certificate, recall_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.client_path import ClientCertificates, certificate_id, client_certificate
from gateway.ra.policy.subject import same_subject
from gateway.ra.renewal import RenewalCredential

_CMC_RA = eku_oid("cmcRA")


class RaCertificateCredential:
    """Recognises registration authorities by their certificate: below the anchors, for cmcRA, one of `subjects`.

    By EST it is the TLS client's, by SCEP and CMP the one that signed the message: whose connection that came by says nothing.
    It asks for the names that the policy of this profile lets through, and for renewals of others' certificates, which are judged
    as first enrollments are; by CMP it updates certificates of others as their holders may, where it `may` "update". Which
    profiles it serves is said by those that list it.
    """

    kind = CredentialKind.RA_CERTIFICATE

    def __init__(
        self,
        clients: ClientCertificates,
        subjects: tuple[str, ...],
        may: frozenset[str] = frozenset({"enroll"}),
        updates: RenewalCredential | None = None,
    ) -> None:
        """Take the subjects as RFC 4514 text, what they may do, and the profile's rule by which certificates are updated.

        Raises ValueError for no subject, and for one that is empty or cannot be read.
        """
        self._clients = clients
        self._subjects: tuple[Name, ...] = tuple(map(parse_name_text, subjects))
        if not self._subjects or not all(name.rdns for name in self._subjects):
            raise ValueError("registration authorities are named by at least one subject, and none is empty")
        self.may = may
        self._updates = updates

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the registration authority.

        None for a certificate that is none of those named, or none at all: it may be known otherwise. Raises Rejection
        NOT_AUTHORIZED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED or UPSTREAM_UNAVAILABLE, what the renewal rule says of a
        certificate that is updated, and StoreUnavailable.
        """
        if request.protocol is Protocol.CMP:
            return await self._by_message(request, now)
        certificate = _shown(request)
        if "enroll" not in self.may or certificate is None or not self._is_named(certificate):
            return None
        await self._clients.recognise(certificate, request.client_chain, now)
        return self._requester(certificate)

    async def recognise(self, signer: SignerCertificate, chain: tuple[bytes, ...], now: datetime) -> str | None:
        """Return the identity of the registration authority that signed a CMP message, whatever that asks for; None: it is none.

        Raises as `authenticate` does.
        """
        certificate = recall_certificate(signer.der)
        if not self._is_named(certificate):
            return None
        await self._clients.recognise(certificate, chain, now, signed=True)
        return self._requester(certificate).identity

    async def _by_message(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        signer, proof = request.signer, request.proof
        if signer is None or proof is None or proof.secret is not None:
            return None
        certificate = recall_certificate(signer.der)
        if not self._is_named(certificate):
            return None
        if request.is_renewal and proof.updates is None:
            # It updates its own certificate, as everybody does.
            return None
        await self._clients.recognise(certificate, proof.chain, now, signed=True)
        wanted = "update" if request.is_renewal else "enroll"
        if wanted not in self.may:
            cause = f"{format_name(certificate.subject)} may {', '.join(sorted(self.may))}"
            raise Rejection(Reason.NOT_AUTHORIZED, f"this registration authority may not {wanted}", cause)
        asking = self._requester(certificate)
        return asking if proof.updates is None else await self._updating(asking, request, proof.updates, now)

    async def _updating(
        self, asking: Requester, request: EnrollmentRequest, updated: SignerCertificate, now: datetime
    ) -> Requester:
        """Return the registration authority, in the place of the holder of a certificate that may be renewed here."""
        if self._updates is None:
            raise Rejection(Reason.RENEWAL_REFUSED, "certificates are not updated here", "the profile has no renewal rule")
        holder = await self._updates.authenticate(replace(request, signer=updated), now)
        if holder is None:
            raise Rejection(Reason.RENEWAL_REFUSED, "certificates are not updated here by such a message")
        return replace(
            asking,
            owner=holder.owner,
            vouches_for_sid=holder.vouches_for_sid,
            reservations=holder.reservations,
            renews=holder.renews,
            claims=MappingProxyType({**holder.claims, **asking.claims}),
        )

    def _requester(self, certificate: Certificate) -> Requester:
        name = format_name(certificate.subject)
        return Requester(
            identity=f"{self.kind}:{certificate_id(certificate)}",
            kind=self.kind,
            claims=MappingProxyType({"certificate": name, "serial": f"{certificate.serial:x}"}),
        )

    def _is_named(self, certificate: Certificate) -> bool:
        if certificate.ekus is None or _CMC_RA not in certificate.ekus:
            return False
        return any(same_subject(name, certificate.subject) for name in self._subjects)


def _shown(request: EnrollmentRequest) -> Certificate | None:
    """Return the certificate whose key the registration authority has proved; raises Rejection NOT_AUTHORIZED."""
    if request.protocol is not Protocol.SCEP:
        return client_certificate(request)
    return recall_certificate(request.signer.der) if request.signer is not None else None
