"""The TLS client's certificate, judged on every request by the profile that was asked (RFC 5280 §6.1)."""

from __future__ import annotations

from datetime import datetime

from gateway.errors import Reason, Rejection
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.names import format_name
from gateway.pki.trust import TrustAnchors
from gateway.store.interfaces import Ledger

_CLIENT_AUTH = eku_oid("clientAuth")


class ClientTrust:
    """Demands a client certificate below the profile's anchors.

    TLS has proved only that the client holds the key. `own_keys` are the SHA-256 of the SubjectPublicKeyInfo of the gateway's RA,
    TLS and CA keys: they authenticate nobody.
    """

    def __init__(self, anchors: TrustAnchors, ledger: Ledger, own_keys: frozenset[bytes]) -> None:
        self._anchors = anchors
        self._ledger = ledger
        self._own_keys = own_keys

    async def check(self, certificate: bytes | None, now: datetime) -> str:
        """Return who the client is, for the audit trail, when it may speak here.

        Raises Rejection CREDENTIAL_MISSING, NOT_AUTHORIZED, CREDENTIAL_EXPIRED or CREDENTIAL_REVOKED, and StoreUnavailable.
        """
        if certificate is None:
            raise Rejection(Reason.CREDENTIAL_MISSING, "a TLS client certificate is required")
        try:
            parsed = parse_certificate(certificate)
        except Rejection as error:
            raise _refused(f"it cannot be read: {error.cause}") from None
        self._check_purpose(parsed)
        self._anchors.verify(parsed, now)
        # By issuer and serial number: the bytes of a signature can be changed so that it still verifies.
        row = await self._ledger.find_issued(parsed.issuer_der, parsed.serial)
        if row is not None and row.revoked_at is not None:
            raise Rejection(
                Reason.CREDENTIAL_REVOKED,
                "the TLS client certificate has been revoked",
                f"serial {parsed.serial:x} was revoked at {row.revoked_at.isoformat()}",
            )
        return f"TLS client {format_name(parsed.subject)}, serial {parsed.serial:x}"

    def _check_purpose(self, certificate: Certificate) -> None:
        if certificate.is_ca:
            raise _refused("it is a CA certificate")
        if certificate.public_key.sha256 in self._own_keys:
            raise _refused("its key is the gateway's own")
        if certificate.ekus is not None and _CLIENT_AUTH not in certificate.ekus:
            raise _refused("its extended key usage lacks clientAuth")


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.NOT_AUTHORIZED, "the TLS client certificate is not accepted here", cause)
