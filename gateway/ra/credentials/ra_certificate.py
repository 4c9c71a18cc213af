"""A registration authority that asks for others, with their proof of possession (id-kp-cmcRA: RFC 6402 §2.10, RFC 7030 §3.7)."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from gateway.model import CredentialKind, EnrollmentRequest, Name, Protocol, Requester
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.client_path import ClientCertificates, certificate_id, client_certificate
from gateway.ra.policy.subject import same_subject

_CMC_RA = eku_oid("cmcRA")


class RaCertificateCredential:
    """Recognises registration authorities by their certificate: below the anchors, for cmcRA, one of `subjects`.

    By EST it is the TLS client's, by SCEP the one that signed the message: whose connection that came by says nothing.
    It asks for the names that the policy of this profile lets through, and for renewals of others' certificates, which are judged
    as first enrollments are. Which profiles it serves is said by those that list it.
    """

    kind = CredentialKind.RA_CERTIFICATE

    def __init__(self, clients: ClientCertificates, subjects: tuple[str, ...]) -> None:
        """Take the subjects as RFC 4514 text; raises ValueError for none, and for one that is empty or cannot be read."""
        self._clients = clients
        self._subjects: tuple[Name, ...] = tuple(map(parse_name_text, subjects))
        if not self._subjects or not all(name.rdns for name in self._subjects):
            raise ValueError("registration authorities are named by at least one subject, and none is empty")

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the registration authority.

        None for a certificate that is none of those named, or none at all: it may be known otherwise. Raises Rejection
        NOT_AUTHORIZED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED or UPSTREAM_UNAVAILABLE, and StoreUnavailable.
        """
        certificate = _shown(request)
        if certificate is None or not self._is_named(certificate):
            return None
        await self._clients.recognise(certificate, request.client_chain, now)
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
    return parse_certificate(request.signer.der) if request.signer is not None else None
