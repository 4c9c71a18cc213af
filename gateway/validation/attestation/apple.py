"""Apple's managed device attestation, format `apple` (Apple Platform Deployment; draft-ietf-acme-device-attest §5)."""

from __future__ import annotations

import hashlib
import hmac

from gateway.asn1.attestation import (
    OID_APPLE_LLB_VERSION,
    OID_APPLE_NONCE,
    OID_APPLE_OS_VERSION,
    OID_APPLE_SEPOS_VERSION,
    OID_APPLE_SERIAL_NUMBER,
    OID_APPLE_UDID,
)
from gateway.errors import Reason, Rejection
from gateway.pki.trust import TrustAnchors
from gateway.validation.attestation.chain import extension, text_extension, verify_certificates
from gateway.validation.attestation.evidence import Evidence, described
from gateway.validation.attestation.statement import Claim, Statement

_CLAIMS = {
    "serial": OID_APPLE_SERIAL_NUMBER,
    "udid": OID_APPLE_UDID,
    "os_version": OID_APPLE_OS_VERSION,
    "sepos_version": OID_APPLE_SEPOS_VERSION,
    "llb_version": OID_APPLE_LLB_VERSION,
}


def judge_apple(statement: Statement, anchors: TrustAnchors, claim: Claim) -> Evidence:
    """Return what Apple attests: the certificate's own key is the device's, its serial number and UDID name it.

    The freshness code, SHA-256 of the token, must be there: without it a certificate of another day would pass (Apple attests
    before the account's key could take part, so the token alone is signed). Raises Rejection.
    """
    leaf = verify_certificates(anchors, statement.certificates, claim.now)
    nonce = extension(leaf, OID_APPLE_NONCE)
    if nonce is None:
        raise Rejection(Reason.BAD_ATTESTATION, "the attestation has no freshness code")
    if not hmac.compare_digest(nonce, hashlib.sha256(claim.task.token.encode("ascii")).digest()):
        raise Rejection(Reason.BAD_ATTESTATION, "the attestation was made for another challenge")
    claims = {name: value for name, oid in _CLAIMS.items() if (value := text_extension(leaf, oid)) is not None}
    identifiers = frozenset(claims[name] for name in ("serial", "udid") if name in claims)
    return Evidence(leaf.public_key.sha256, described(leaf) | claims, permanent=identifiers)
