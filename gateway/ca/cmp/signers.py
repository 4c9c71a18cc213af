"""Whose signature an answer of a CMP server may bear (RFC 9810 §5.1.3.3, RFC 9483 §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from gateway.asn1.cmp import OID_CMC_CA, OID_CMC_RA
from gateway.errors import Reason, Rejection
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.path_building import find_paths
from gateway.pki.trust import TrustAnchors

_AUTHORITIES = frozenset({OID_CMC_RA, OID_CMC_CA})


@dataclass(frozen=True, slots=True)
class AnswerSigners:
    """Certificates whose own keys may sign answers, DER, and CAs below which an authority's certificate may.

    That one of those CAs issued a certificate is not enough: each device has such. Its extended key usage says an authority's.
    """

    pinned: tuple[bytes, ...] = field(repr=False)
    anchors: TrustAnchors | None = field(repr=False)

    @classmethod
    def create(cls, certificates: Iterable[bytes]) -> AnswerSigners:
        """Take certificates, DER; those of CAs stand for what is below them, too. ValueError where a CA may issue nothing."""
        pinned = tuple(certificates)
        authorities = tuple(certificate for certificate in map(parse_certificate, pinned) if certificate.is_ca)
        return cls(pinned, TrustAnchors(authorities) if authorities else None)

    def authorize(self, signer: Certificate, sent: tuple[bytes, ...], now: datetime) -> bool:
        """Return True for a certificate that may sign answers at `now`; `sent` are those that came with it, DER.

        Raises Rejection SIGNER_NOT_TRUSTED, NOT_AUTHORIZED or CREDENTIAL_EXPIRED for another.
        """
        if not signer.not_before <= now <= signer.not_after:
            raise Rejection(Reason.CREDENTIAL_EXPIRED, "the certificate that signed the answer is not valid at this time")
        if signer.der in self.pinned:
            return True
        if self.anchors is None:
            raise _not_trusted("is not pinned")
        find_paths(self.anchors, signer, sent, now)
        if _AUTHORITIES.isdisjoint(signer.ekus or ()):
            raise _not_trusted("is no authority's (id-kp-cmcRA, id-kp-cmcCA), and not pinned")
        if signer.key_usage is not None and "digitalSignature" not in signer.key_usage:
            raise _not_trusted("may not sign: its key usage lacks digitalSignature")
        return True


def _not_trusted(why: str) -> Rejection:
    return Rejection(Reason.SIGNER_NOT_TRUSTED, f"the certificate that signed the answer {why}")
