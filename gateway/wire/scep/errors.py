"""From Reason to failInfo (RFC 8894 §3.2.1.4), and what HTTP alone must say (§4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.asn1.scep import FailInfo
from gateway.errors import Reason

FAIL_INFO: Mapping[Reason, FailInfo] = MappingProxyType(
    {
        # badAlg: unrecognized or unsupported algorithm
        Reason.UNSUPPORTED_ALGORITHM: FailInfo.BAD_ALG,
        # badMessageCheck: integrity check failed
        Reason.BAD_SIGNATURE: FailInfo.BAD_MESSAGE_CHECK,
        Reason.DECRYPTION_FAILED: FailInfo.BAD_MESSAGE_CHECK,
        Reason.BAD_PROOF_OF_POSSESSION: FailInfo.BAD_MESSAGE_CHECK,
        Reason.CREDENTIAL_SIGNATURE: FailInfo.BAD_MESSAGE_CHECK,
        # badTime
        Reason.BAD_TIME: FailInfo.BAD_TIME,
        # badCertId: no certificate or transaction matches
        Reason.UNKNOWN_TRANSACTION: FailInfo.BAD_CERT_ID,
        Reason.UNKNOWN_CERTIFICATE: FailInfo.BAD_CERT_ID,
        # badRequest: transaction not permitted or supported
        Reason.MALFORMED: FailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_MESSAGE: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_MISSING: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_INVALID: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_EXPIRED: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_USED: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_REVOKED: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_MALFORMED: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_NOT_YET_VALID: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_AUDIENCE: FailInfo.BAD_REQUEST,
        Reason.CREDENTIAL_VERSION: FailInfo.BAD_REQUEST,
        Reason.NAME_NOT_BOUND: FailInfo.BAD_REQUEST,
        Reason.RENEWAL_REFUSED: FailInfo.BAD_REQUEST,
        Reason.NOT_AUTHORIZED: FailInfo.BAD_REQUEST,
        Reason.NOT_COMPLIANT: FailInfo.BAD_REQUEST,
        Reason.SIGNER_NOT_TRUSTED: FailInfo.BAD_REQUEST,
        Reason.POLICY_KEY: FailInfo.BAD_REQUEST,
        Reason.POLICY_SUBJECT: FailInfo.BAD_REQUEST,
        Reason.POLICY_SAN: FailInfo.BAD_REQUEST,
        Reason.POLICY_KEY_USAGE: FailInfo.BAD_REQUEST,
        Reason.POLICY_EKU: FailInfo.BAD_REQUEST,
        Reason.POLICY_VALIDITY: FailInfo.BAD_REQUEST,
        Reason.POLICY_EXTENSION: FailInfo.BAD_REQUEST,
        Reason.DENIED: FailInfo.BAD_REQUEST,
        Reason.RATE_LIMITED: FailInfo.BAD_REQUEST,
        Reason.UPSTREAM_REJECTED: FailInfo.BAD_REQUEST,
        Reason.UPSTREAM_TIMEOUT: FailInfo.BAD_REQUEST,
        Reason.UPSTREAM_MISMATCH: FailInfo.BAD_REQUEST,
        # ACME's own, which no request of this protocol comes to
        Reason.BAD_NONCE: FailInfo.BAD_REQUEST,
        Reason.UNKNOWN_ACCOUNT: FailInfo.BAD_REQUEST,
        Reason.ACCOUNT_DEACTIVATED: FailInfo.BAD_REQUEST,
        Reason.ACCOUNT_KEY: FailInfo.BAD_REQUEST,
        Reason.ACCOUNT_KEY_IN_USE: FailInfo.BAD_REQUEST,
        Reason.EXTERNAL_ACCOUNT_REQUIRED: FailInfo.BAD_REQUEST,
        Reason.TERMS_NOT_AGREED: FailInfo.BAD_REQUEST,
        Reason.CONTACT_INVALID: FailInfo.BAD_REQUEST,
        Reason.CONTACT_UNSUPPORTED: FailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_IDENTIFIER: FailInfo.BAD_REQUEST,
        Reason.UNKNOWN_ACME_PROFILE: FailInfo.BAD_REQUEST,
        Reason.ORDER_NOT_READY: FailInfo.BAD_REQUEST,
        Reason.ALREADY_REPLACED: FailInfo.BAD_REQUEST,
        Reason.ALREADY_REVOKED: FailInfo.BAD_REQUEST,
        Reason.BAD_REVOCATION_REASON: FailInfo.BAD_REQUEST,
        Reason.BAD_CSR: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_DNS: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_CONNECTION: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_TLS: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_INCORRECT: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_UNAUTHORIZED: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_CAA: FailInfo.BAD_REQUEST,
        Reason.BAD_ATTESTATION: FailInfo.BAD_REQUEST,
        # CMP's own, which no request of this protocol comes to
        Reason.BAD_MESSAGE_CHECK: FailInfo.BAD_REQUEST,
        Reason.WRONG_INTEGRITY: FailInfo.BAD_REQUEST,
        Reason.BAD_RECIPIENT_NONCE: FailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_VERSION: FailInfo.BAD_REQUEST,
        Reason.BAD_TEMPLATE: FailInfo.BAD_REQUEST,
        Reason.INFORMATION_MISSING: FailInfo.BAD_REQUEST,
        Reason.TRANSACTION_IN_USE: FailInfo.BAD_REQUEST,
        Reason.ALREADY_CONFIRMED: FailInfo.BAD_REQUEST,
    }
)
"""Refusals that a signed CertRep carries, under HTTP 200."""

HTTP_STATUS: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.TOO_LARGE: 413,
        Reason.UNKNOWN_PROFILE: 404,
        Reason.ENDPOINT_CLOSED: 404,
        Reason.OVERLOADED: 503,
        Reason.UPSTREAM_UNAVAILABLE: 503,
        Reason.STORE_UNAVAILABLE: 503,
        Reason.INTERNAL: 500,
    }
)
"""Refusals that HTTP alone carries: nobody is addressed, or a signed FAILURE would make the client give up for good."""

MALFORMED_STATUS = 400
"""A message from which no CertRep can be made: no transactionID or signer to answer to."""


def fail_info(reason: Reason) -> FailInfo:
    """Return the failInfo for `reason`; badRequest, the standard's catch-all, where HTTP should have answered."""
    return FAIL_INFO.get(reason, FailInfo.BAD_REQUEST)
