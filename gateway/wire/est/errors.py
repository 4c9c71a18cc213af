"""From Reason to HTTP status, and the sentence that stands in the body (RFC 7030 §4.2.3, RFC 8951 §5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.errors import Reason

HTTP_STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        # 400: the request is not what it should be
        Reason.MALFORMED: 400,
        Reason.UNSUPPORTED_MESSAGE: 400,
        Reason.UNSUPPORTED_ALGORITHM: 400,
        Reason.BAD_SIGNATURE: 400,
        Reason.DECRYPTION_FAILED: 400,
        Reason.BAD_PROOF_OF_POSSESSION: 400,
        Reason.BAD_TIME: 400,
        Reason.CREDENTIAL_MALFORMED: 400,
        # 401: another credential may do (RFC 7030 §3.2.3)
        Reason.CREDENTIAL_MISSING: 401,
        Reason.CREDENTIAL_INVALID: 401,
        Reason.CREDENTIAL_EXPIRED: 401,
        Reason.CREDENTIAL_USED: 401,
        Reason.CREDENTIAL_SIGNATURE: 401,
        Reason.CREDENTIAL_NOT_YET_VALID: 401,
        Reason.CREDENTIAL_AUDIENCE: 401,
        Reason.CREDENTIAL_VERSION: 401,
        # 403: it is known who asks, and the answer is no
        Reason.CREDENTIAL_REVOKED: 403,
        Reason.UNKNOWN_CERTIFICATE: 403,
        Reason.NAME_NOT_BOUND: 403,
        Reason.RENEWAL_REFUSED: 403,
        Reason.NOT_AUTHORIZED: 403,
        Reason.NOT_COMPLIANT: 403,
        Reason.SIGNER_NOT_TRUSTED: 403,
        Reason.POLICY_KEY: 403,
        Reason.POLICY_SUBJECT: 403,
        Reason.POLICY_SAN: 403,
        Reason.POLICY_KEY_USAGE: 403,
        Reason.POLICY_EKU: 403,
        Reason.POLICY_VALIDITY: 403,
        Reason.POLICY_EXTENSION: 403,
        Reason.DENIED: 403,
        Reason.UPSTREAM_REJECTED: 403,
        # 404: nothing is served there
        Reason.UNKNOWN_PROFILE: 404,
        Reason.ENDPOINT_CLOSED: 404,
        Reason.UNKNOWN_TRANSACTION: 404,
        # how much
        Reason.TOO_LARGE: 413,
        Reason.RATE_LIMITED: 429,
        # beyond the client
        Reason.INTERNAL: 500,
        Reason.UPSTREAM_MISMATCH: 502,
        Reason.OVERLOADED: 503,
        Reason.UPSTREAM_UNAVAILABLE: 503,
        Reason.UPSTREAM_TIMEOUT: 503,
        Reason.STORE_UNAVAILABLE: 503,
        # ACME's own, which no request of this protocol comes to
        Reason.BAD_NONCE: 403,
        Reason.UNKNOWN_ACCOUNT: 403,
        Reason.ACCOUNT_DEACTIVATED: 403,
        Reason.ACCOUNT_KEY: 403,
        Reason.ACCOUNT_KEY_IN_USE: 403,
        Reason.EXTERNAL_ACCOUNT_REQUIRED: 403,
        Reason.TERMS_NOT_AGREED: 403,
        Reason.CONTACT_INVALID: 403,
        Reason.CONTACT_UNSUPPORTED: 403,
        Reason.UNSUPPORTED_IDENTIFIER: 403,
        Reason.UNKNOWN_ACME_PROFILE: 403,
        Reason.ORDER_NOT_READY: 403,
        Reason.ALREADY_REPLACED: 403,
        Reason.ALREADY_REVOKED: 403,
        Reason.BAD_REVOCATION_REASON: 403,
        Reason.BAD_CSR: 403,
        Reason.VALIDATION_DNS: 403,
        Reason.VALIDATION_CONNECTION: 403,
        Reason.VALIDATION_TLS: 403,
        Reason.VALIDATION_INCORRECT: 403,
        Reason.VALIDATION_UNAUTHORIZED: 403,
        Reason.VALIDATION_CAA: 403,
        Reason.BAD_ATTESTATION: 403,
        # CMP's own, which no request of this protocol comes to
        Reason.BAD_MESSAGE_CHECK: 403,
        Reason.WRONG_INTEGRITY: 403,
        Reason.BAD_RECIPIENT_NONCE: 403,
        Reason.UNSUPPORTED_VERSION: 403,
        Reason.BAD_TEMPLATE: 403,
        Reason.INFORMATION_MISSING: 403,
        Reason.TRANSACTION_IN_USE: 403,
        Reason.ALREADY_CONFIRMED: 403,
    }
)

MEDIA_TEXT = "text/plain"
MAX_SENTENCE = 500
"""Characters: header and body of a refusal fit into one read of a small client."""


def http_status(reason: Reason, *, schemes: bool) -> int:
    """Return the status for `reason`; `schemes`: the answer names a scheme in WWW-Authenticate.

    Without one it must not be 401 (RFC 9110 §15.5.2) and is 403.
    """
    status = HTTP_STATUS[reason]
    return 403 if status == 401 and not schemes else status


def sentence(detail: str) -> bytes:
    """Return a refusal's public `detail` as one line of plain text (RFC 8951 §5.1)."""
    text = "".join(c if c.isprintable() else " " for c in detail)
    return f"{text[:MAX_SENTENCE]}\n".encode()
