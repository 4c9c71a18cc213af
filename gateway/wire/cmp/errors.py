"""From Reason to PKIFailureInfo (RFC 9810 §5.2.3, RFC 9483 §3.6.4)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.asn1.cmp import FailInfo
from gateway.errors import Reason

FAIL_INFO: Mapping[Reason, FailInfo] = MappingProxyType(
    {
        # badAlg: unrecognized or unsupported algorithm
        Reason.UNSUPPORTED_ALGORITHM: FailInfo.BAD_ALG,
        # badMessageCheck: the protection does not prove who sent it
        Reason.BAD_MESSAGE_CHECK: FailInfo.BAD_MESSAGE_CHECK,
        Reason.BAD_SIGNATURE: FailInfo.BAD_MESSAGE_CHECK,
        Reason.DECRYPTION_FAILED: FailInfo.BAD_MESSAGE_CHECK,
        Reason.CREDENTIAL_INVALID: FailInfo.BAD_MESSAGE_CHECK,
        Reason.CREDENTIAL_SIGNATURE: FailInfo.BAD_MESSAGE_CHECK,
        # wrongIntegrity: protected in another way than such a message must be
        Reason.WRONG_INTEGRITY: FailInfo.WRONG_INTEGRITY,
        # badTime
        Reason.BAD_TIME: FailInfo.BAD_TIME,
        # badDataFormat
        Reason.MALFORMED: FailInfo.BAD_DATA_FORMAT,
        Reason.TOO_LARGE: FailInfo.BAD_DATA_FORMAT,
        Reason.CREDENTIAL_MALFORMED: FailInfo.BAD_DATA_FORMAT,
        # badSenderNonce, badRecipientNonce
        Reason.BAD_NONCE: FailInfo.BAD_SENDER_NONCE,
        Reason.BAD_RECIPIENT_NONCE: FailInfo.BAD_RECIPIENT_NONCE,
        # unsupportedVersion
        Reason.UNSUPPORTED_VERSION: FailInfo.UNSUPPORTED_VERSION,
        # transactionIdInUse
        Reason.TRANSACTION_IN_USE: FailInfo.TRANSACTION_ID_IN_USE,
        # badPOP
        Reason.BAD_PROOF_OF_POSSESSION: FailInfo.BAD_POP,
        # badCertTemplate: what stands in the template cannot be certified
        Reason.BAD_TEMPLATE: FailInfo.BAD_CERT_TEMPLATE,
        Reason.BAD_CSR: FailInfo.BAD_CERT_TEMPLATE,
        Reason.POLICY_KEY: FailInfo.BAD_CERT_TEMPLATE,
        Reason.POLICY_SUBJECT: FailInfo.BAD_CERT_TEMPLATE,
        Reason.POLICY_SAN: FailInfo.BAD_CERT_TEMPLATE,
        Reason.POLICY_VALIDITY: FailInfo.BAD_CERT_TEMPLATE,
        # unacceptedExtension
        Reason.POLICY_KEY_USAGE: FailInfo.UNACCEPTED_EXTENSION,
        Reason.POLICY_EKU: FailInfo.UNACCEPTED_EXTENSION,
        Reason.POLICY_EXTENSION: FailInfo.UNACCEPTED_EXTENSION,
        # badCertId: no certificate matches
        Reason.UNKNOWN_CERTIFICATE: FailInfo.BAD_CERT_ID,
        # certRevoked: revoked already, or replaced by an update
        Reason.ALREADY_REVOKED: FailInfo.CERT_REVOKED,
        Reason.ALREADY_REPLACED: FailInfo.CERT_REVOKED,
        Reason.CREDENTIAL_REVOKED: FailInfo.CERT_REVOKED,
        # certConfirmed
        Reason.ALREADY_CONFIRMED: FailInfo.CERT_CONFIRMED,
        # addInfoNotAvailable
        Reason.INFORMATION_MISSING: FailInfo.ADD_INFO_NOT_AVAILABLE,
        # signerNotTrusted, where that is all that is wrong with its signature
        Reason.SIGNER_NOT_TRUSTED: FailInfo.SIGNER_NOT_TRUSTED,
        # notAuthorized: it is known who asks, and the answer is no
        Reason.CREDENTIAL_MISSING: FailInfo.NOT_AUTHORIZED,
        Reason.CREDENTIAL_EXPIRED: FailInfo.NOT_AUTHORIZED,
        Reason.CREDENTIAL_USED: FailInfo.NOT_AUTHORIZED,
        Reason.CREDENTIAL_NOT_YET_VALID: FailInfo.NOT_AUTHORIZED,
        Reason.CREDENTIAL_AUDIENCE: FailInfo.NOT_AUTHORIZED,
        Reason.CREDENTIAL_VERSION: FailInfo.NOT_AUTHORIZED,
        Reason.NAME_NOT_BOUND: FailInfo.NOT_AUTHORIZED,
        Reason.RENEWAL_REFUSED: FailInfo.NOT_AUTHORIZED,
        Reason.NOT_AUTHORIZED: FailInfo.NOT_AUTHORIZED,
        Reason.NOT_COMPLIANT: FailInfo.NOT_AUTHORIZED,
        Reason.BAD_ATTESTATION: FailInfo.NOT_AUTHORIZED,
        Reason.DENIED: FailInfo.NOT_AUTHORIZED,
        # systemUnavail: the same request may be granted later
        Reason.RATE_LIMITED: FailInfo.SYSTEM_UNAVAIL,
        Reason.OVERLOADED: FailInfo.SYSTEM_UNAVAIL,
        Reason.UPSTREAM_UNAVAILABLE: FailInfo.SYSTEM_UNAVAIL,
        Reason.UPSTREAM_TIMEOUT: FailInfo.SYSTEM_UNAVAIL,
        Reason.STORE_UNAVAILABLE: FailInfo.SYSTEM_UNAVAIL,
        # systemFailure
        Reason.UPSTREAM_MISMATCH: FailInfo.SYSTEM_FAILURE,
        Reason.INTERNAL: FailInfo.SYSTEM_FAILURE,
        # badRequest: transaction not permitted or supported
        Reason.UNSUPPORTED_MESSAGE: FailInfo.BAD_REQUEST,
        Reason.UNKNOWN_PROFILE: FailInfo.BAD_REQUEST,
        Reason.ENDPOINT_CLOSED: FailInfo.BAD_REQUEST,
        Reason.UNKNOWN_TRANSACTION: FailInfo.BAD_REQUEST,
        Reason.BAD_REVOCATION_REASON: FailInfo.BAD_REQUEST,
        Reason.UPSTREAM_REJECTED: FailInfo.BAD_REQUEST,
        # ACME's own, which no request of this protocol comes to
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
        Reason.VALIDATION_DNS: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_CONNECTION: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_TLS: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_INCORRECT: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_UNAUTHORIZED: FailInfo.BAD_REQUEST,
        Reason.VALIDATION_CAA: FailInfo.BAD_REQUEST,
    }
)
"""Refusals that a PKIStatusInfo carries, under HTTP 200."""

MALFORMED_STATUS = 400
"""HTTP's answer to bytes in which no PKIHeader can be read: nobody could be answered (RFC 9811 §3.3)."""


def fail_info_text(info: FailInfo) -> str:
    """Return its name in the RFC, as `badMessageCheck`."""
    first, *others = info.name.lower().split("_")
    joined = first + "".join(map(str.capitalize, others))
    return {"badPop": "badPOP"}.get(joined, joined)
