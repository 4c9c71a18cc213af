"""One refusal vocabulary: each protocol spells it once, in `wire/<protocol>/errors.py`."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused; a closed set, fit for a metric label."""

    # the message
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MESSAGE = "unsupported_message"
    UNSUPPORTED_ALGORITHM = "unsupported_algorithm"
    BAD_SIGNATURE = "bad_signature"
    DECRYPTION_FAILED = "decryption_failed"
    BAD_PROOF_OF_POSSESSION = "bad_proof_of_possession"
    BAD_TIME = "bad_time"
    BAD_MESSAGE_CHECK = "bad_message_check"
    """The protection of a CMP message is wrong: who sent it is not known."""
    WRONG_INTEGRITY = "wrong_integrity"
    """It is protected in another way than such a message must be."""
    BAD_RECIPIENT_NONCE = "bad_recipient_nonce"
    UNSUPPORTED_VERSION = "unsupported_version"
    BAD_TEMPLATE = "bad_template"
    INFORMATION_MISSING = "information_missing"
    # where it was addressed to
    UNKNOWN_PROFILE = "unknown_profile"
    ENDPOINT_CLOSED = "endpoint_closed"
    UNKNOWN_TRANSACTION = "unknown_transaction"
    TRANSACTION_IN_USE = "transaction_in_use"
    UNKNOWN_CERTIFICATE = "unknown_certificate"
    # who asked
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_INVALID = "credential_invalid"
    CREDENTIAL_EXPIRED = "credential_expired"
    CREDENTIAL_USED = "credential_used"
    CREDENTIAL_REVOKED = "credential_revoked"
    CREDENTIAL_MALFORMED = "credential_malformed"
    CREDENTIAL_SIGNATURE = "credential_signature"
    CREDENTIAL_NOT_YET_VALID = "credential_not_yet_valid"
    CREDENTIAL_AUDIENCE = "credential_audience"
    CREDENTIAL_VERSION = "credential_version"
    NAME_NOT_BOUND = "name_not_bound"
    RENEWAL_REFUSED = "renewal_refused"
    NOT_AUTHORIZED = "not_authorized"
    NOT_COMPLIANT = "not_compliant"
    SIGNER_NOT_TRUSTED = "signer_not_trusted"
    BAD_NONCE = "bad_nonce"
    UNKNOWN_ACCOUNT = "unknown_account"
    ACCOUNT_DEACTIVATED = "account_deactivated"
    ACCOUNT_KEY = "account_key"
    """The key of an account, which is too weak or of a kind that is not taken."""
    ACCOUNT_KEY_IN_USE = "account_key_in_use"
    EXTERNAL_ACCOUNT_REQUIRED = "external_account_required"
    TERMS_NOT_AGREED = "terms_not_agreed"
    CONTACT_INVALID = "contact_invalid"
    CONTACT_UNSUPPORTED = "contact_unsupported"
    # what an ACME client must prove or may name
    UNSUPPORTED_IDENTIFIER = "unsupported_identifier"
    UNKNOWN_ACME_PROFILE = "unknown_acme_profile"
    ORDER_NOT_READY = "order_not_ready"
    ALREADY_REPLACED = "already_replaced"
    ALREADY_REVOKED = "already_revoked"
    ALREADY_CONFIRMED = "already_confirmed"
    BAD_REVOCATION_REASON = "bad_revocation_reason"
    BAD_CSR = "bad_csr"
    VALIDATION_DNS = "validation_dns"
    VALIDATION_CONNECTION = "validation_connection"
    VALIDATION_TLS = "validation_tls"
    VALIDATION_INCORRECT = "validation_incorrect"
    VALIDATION_UNAUTHORIZED = "validation_unauthorized"
    VALIDATION_CAA = "validation_caa"
    BAD_ATTESTATION = "bad_attestation"
    # what was asked for
    POLICY_KEY = "policy_key"
    POLICY_SUBJECT = "policy_subject"
    POLICY_SAN = "policy_san"
    POLICY_KEY_USAGE = "policy_key_usage"
    POLICY_EKU = "policy_eku"
    POLICY_VALIDITY = "policy_validity"
    POLICY_EXTENSION = "policy_extension"
    DENIED = "denied"
    # how much
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    # beyond us
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """The CA could not be reached for as long as the request could wait."""
    UPSTREAM_MISMATCH = "upstream_mismatch"
    STORE_UNAVAILABLE = "store_unavailable"
    INTERNAL = "internal"


AUTHENTICATION_REASONS = frozenset(
    {
        Reason.CREDENTIAL_MISSING,
        Reason.CREDENTIAL_INVALID,
        Reason.CREDENTIAL_EXPIRED,
        Reason.CREDENTIAL_USED,
        Reason.CREDENTIAL_REVOKED,
        Reason.CREDENTIAL_MALFORMED,
        Reason.CREDENTIAL_SIGNATURE,
        Reason.CREDENTIAL_NOT_YET_VALID,
        Reason.CREDENTIAL_AUDIENCE,
        Reason.CREDENTIAL_VERSION,
        Reason.NAME_NOT_BOUND,
        Reason.RENEWAL_REFUSED,
        Reason.NOT_AUTHORIZED,
        Reason.NOT_COMPLIANT,
        Reason.SIGNER_NOT_TRUSTED,
    }
)
"""Reasons that concern who asked, and neither the message nor what was asked for."""


class Rejection(Exception):
    """A definite refusal.

    `detail` is public text that a client may be told; `cause` is for log and audit only. Neither holds a secret.
    """

    def __init__(self, reason: Reason, detail: str, cause: str = "") -> None:
        super().__init__(f"{reason}: {cause or detail}")
        self.reason = reason
        self.detail = detail
        self.cause = cause or detail


class MalformedMessage(Rejection):
    """Input that is not what its protocol or encoding says it must be; the parse border raises nothing else."""

    def __init__(self, detail: str, cause: str = "", reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(reason, detail, cause)


class StoreUnavailable(Exception):
    """The store could not answer or could not make a write durable; nothing may be granted without it."""


class StoreRefused(Exception):
    """The store may not be used as it is: another schema, another key, a damaged file. The text says what to do."""


class KeyUnavailable(Exception):
    """A private key outside of this process cannot be used at present; the text names the token. Nothing was signed."""

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""


class ConfigurationError(Exception):
    """The configuration cannot be put in force; `problems` are whole sentences, each with file, line and field."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
