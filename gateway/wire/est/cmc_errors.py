"""From Reason to CMCFailInfo (RFC 5272 §6.1.4), and what becomes of controls that are not served (§6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.asn1 import cmc as asn1
from gateway.asn1.cmc import CmcFailInfo
from gateway.errors import Reason

FAIL_INFO: Mapping[Reason, CmcFailInfo] = MappingProxyType(
    {
        # badAlg: unrecognized or unsupported algorithm
        Reason.UNSUPPORTED_ALGORITHM: CmcFailInfo.BAD_ALG,
        # badMessageCheck: integrity check failed
        Reason.BAD_SIGNATURE: CmcFailInfo.BAD_MESSAGE_CHECK,
        Reason.DECRYPTION_FAILED: CmcFailInfo.BAD_MESSAGE_CHECK,
        # badTime
        Reason.BAD_TIME: CmcFailInfo.BAD_TIME,
        # badCertId: no certificate matches
        Reason.UNKNOWN_CERTIFICATE: CmcFailInfo.BAD_CERT_ID,
        # unsupportedExt: a requested extension is not granted
        Reason.POLICY_KEY_USAGE: CmcFailInfo.UNSUPPORTED_EXT,
        Reason.POLICY_EKU: CmcFailInfo.UNSUPPORTED_EXT,
        Reason.POLICY_EXTENSION: CmcFailInfo.UNSUPPORTED_EXT,
        # badIdentity: who asks has not proved it, or may not have these names
        Reason.CREDENTIAL_MISSING: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_INVALID: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_EXPIRED: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_USED: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_REVOKED: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_MALFORMED: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_SIGNATURE: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_NOT_YET_VALID: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_AUDIENCE: CmcFailInfo.BAD_IDENTITY,
        Reason.CREDENTIAL_VERSION: CmcFailInfo.BAD_IDENTITY,
        Reason.NAME_NOT_BOUND: CmcFailInfo.BAD_IDENTITY,
        Reason.NOT_AUTHORIZED: CmcFailInfo.BAD_IDENTITY,
        Reason.SIGNER_NOT_TRUSTED: CmcFailInfo.BAD_IDENTITY,
        # popFailed
        Reason.BAD_PROOF_OF_POSSESSION: CmcFailInfo.POP_FAILED,
        # internalCAError
        Reason.INTERNAL: CmcFailInfo.INTERNAL_CA_ERROR,
        Reason.UPSTREAM_MISMATCH: CmcFailInfo.INTERNAL_CA_ERROR,
        # tryLater
        Reason.RATE_LIMITED: CmcFailInfo.TRY_LATER,
        Reason.OVERLOADED: CmcFailInfo.TRY_LATER,
        Reason.UPSTREAM_UNAVAILABLE: CmcFailInfo.TRY_LATER,
        Reason.UPSTREAM_TIMEOUT: CmcFailInfo.TRY_LATER,
        Reason.STORE_UNAVAILABLE: CmcFailInfo.TRY_LATER,
        # badRequest: transaction not permitted or supported
        Reason.MALFORMED: CmcFailInfo.BAD_REQUEST,
        Reason.TOO_LARGE: CmcFailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_MESSAGE: CmcFailInfo.BAD_REQUEST,
        Reason.UNKNOWN_PROFILE: CmcFailInfo.BAD_REQUEST,
        Reason.ENDPOINT_CLOSED: CmcFailInfo.BAD_REQUEST,
        Reason.UNKNOWN_TRANSACTION: CmcFailInfo.BAD_REQUEST,
        Reason.RENEWAL_REFUSED: CmcFailInfo.BAD_REQUEST,
        Reason.NOT_COMPLIANT: CmcFailInfo.BAD_REQUEST,
        Reason.POLICY_KEY: CmcFailInfo.BAD_REQUEST,
        Reason.POLICY_SUBJECT: CmcFailInfo.BAD_REQUEST,
        Reason.POLICY_SAN: CmcFailInfo.BAD_REQUEST,
        Reason.POLICY_VALIDITY: CmcFailInfo.BAD_REQUEST,
        Reason.DENIED: CmcFailInfo.BAD_REQUEST,
        Reason.UPSTREAM_REJECTED: CmcFailInfo.BAD_REQUEST,
        # ACME's own, which no request of this protocol comes to
        Reason.BAD_NONCE: CmcFailInfo.BAD_REQUEST,
        Reason.UNKNOWN_ACCOUNT: CmcFailInfo.BAD_REQUEST,
        Reason.ACCOUNT_DEACTIVATED: CmcFailInfo.BAD_REQUEST,
        Reason.ACCOUNT_KEY: CmcFailInfo.BAD_REQUEST,
        Reason.ACCOUNT_KEY_IN_USE: CmcFailInfo.BAD_REQUEST,
        Reason.EXTERNAL_ACCOUNT_REQUIRED: CmcFailInfo.BAD_REQUEST,
        Reason.TERMS_NOT_AGREED: CmcFailInfo.BAD_REQUEST,
        Reason.CONTACT_INVALID: CmcFailInfo.BAD_REQUEST,
        Reason.CONTACT_UNSUPPORTED: CmcFailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_IDENTIFIER: CmcFailInfo.BAD_REQUEST,
        Reason.UNKNOWN_ACME_PROFILE: CmcFailInfo.BAD_REQUEST,
        Reason.ORDER_NOT_READY: CmcFailInfo.BAD_REQUEST,
        Reason.ALREADY_REPLACED: CmcFailInfo.BAD_REQUEST,
        Reason.ALREADY_REVOKED: CmcFailInfo.BAD_REQUEST,
        Reason.BAD_REVOCATION_REASON: CmcFailInfo.BAD_REQUEST,
        Reason.BAD_CSR: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_DNS: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_CONNECTION: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_TLS: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_INCORRECT: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_UNAUTHORIZED: CmcFailInfo.BAD_REQUEST,
        Reason.VALIDATION_CAA: CmcFailInfo.BAD_REQUEST,
        Reason.BAD_ATTESTATION: CmcFailInfo.BAD_REQUEST,
        # CMP's own, which no request of this protocol comes to
        Reason.BAD_MESSAGE_CHECK: CmcFailInfo.BAD_REQUEST,
        Reason.WRONG_INTEGRITY: CmcFailInfo.BAD_REQUEST,
        Reason.BAD_RECIPIENT_NONCE: CmcFailInfo.BAD_REQUEST,
        Reason.UNSUPPORTED_VERSION: CmcFailInfo.BAD_REQUEST,
        Reason.BAD_TEMPLATE: CmcFailInfo.BAD_REQUEST,
        Reason.INFORMATION_MISSING: CmcFailInfo.BAD_REQUEST,
        Reason.TRANSACTION_IN_USE: CmcFailInfo.BAD_REQUEST,
        Reason.ALREADY_CONFIRMED: CmcFailInfo.BAD_REQUEST,
    }
)

UNSERVED_CONTROLS: Mapping[str, CmcFailInfo] = MappingProxyType(
    {
        # who asks is proved to the EST server by TLS and HTTP (RFC 7030 §3.3)
        asn1.OID_IDENTIFICATION: CmcFailInfo.BAD_IDENTITY,
        asn1.OID_IDENTITY_PROOF: CmcFailInfo.BAD_IDENTITY,
        asn1.OID_IDENTITY_PROOF_V2: CmcFailInfo.BAD_IDENTITY,
        asn1.OID_RA_IDENTITY_WITNESS: CmcFailInfo.BAD_IDENTITY,
        # possession is proved by the signature of the request alone
        asn1.OID_ENCRYPTED_POP: CmcFailInfo.POP_FAILED,
        asn1.OID_DECRYPTED_POP: CmcFailInfo.POP_FAILED,
        asn1.OID_LRA_POP_WITNESS: CmcFailInfo.POP_FAILED,
        asn1.OID_POP_LINK_RANDOM: CmcFailInfo.POP_FAILED,
        asn1.OID_POP_LINK_WITNESS: CmcFailInfo.POP_FAILED,
        asn1.OID_POP_LINK_WITNESS_V2: CmcFailInfo.POP_FAILED,
        asn1.OID_ADD_EXTENSIONS: CmcFailInfo.UNSUPPORTED_EXT,
        asn1.OID_GET_CERT: CmcFailInfo.BAD_CERT_ID,
        asn1.OID_CONFIRM_CERT_ACCEPTANCE: CmcFailInfo.BAD_CERT_ID,
        asn1.OID_AUTH_DATA: CmcFailInfo.AUTH_DATA_FAIL,
    }
)
"""What a request may not have; every other control, known or not, is badRequest (RFC 5272 §3.2.1.1)."""
