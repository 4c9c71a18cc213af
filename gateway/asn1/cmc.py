"""CMC's content types, controls and codes (RFC 5272 §3.2.1, §4.2.1, §6; RFC 6402 §2.2)."""

from __future__ import annotations

from enum import IntEnum

OID_PKI_DATA = "1.3.6.1.5.5.7.12.2"
OID_PKI_RESPONSE = "1.3.6.1.5.5.7.12.3"

_CONTROL = "1.3.6.1.5.5.7.7."
OID_IDENTIFICATION = f"{_CONTROL}2"
OID_IDENTITY_PROOF = f"{_CONTROL}3"
OID_DATA_RETURN = f"{_CONTROL}4"
OID_TRANSACTION_ID = f"{_CONTROL}5"
OID_SENDER_NONCE = f"{_CONTROL}6"
OID_RECIPIENT_NONCE = f"{_CONTROL}7"
OID_ADD_EXTENSIONS = f"{_CONTROL}8"
OID_ENCRYPTED_POP = f"{_CONTROL}9"
OID_DECRYPTED_POP = f"{_CONTROL}10"
OID_LRA_POP_WITNESS = f"{_CONTROL}11"
OID_GET_CERT = f"{_CONTROL}15"
OID_GET_CRL = f"{_CONTROL}16"
OID_REVOKE_REQUEST = f"{_CONTROL}17"
OID_REG_INFO = f"{_CONTROL}18"
OID_QUERY_PENDING = f"{_CONTROL}21"
OID_POP_LINK_RANDOM = f"{_CONTROL}22"
OID_POP_LINK_WITNESS = f"{_CONTROL}23"
OID_CONFIRM_CERT_ACCEPTANCE = f"{_CONTROL}24"
OID_STATUS_INFO_V2 = f"{_CONTROL}25"
OID_AUTH_DATA = f"{_CONTROL}27"
OID_BATCH_REQUESTS = f"{_CONTROL}28"
OID_PUBLISH_CERT = f"{_CONTROL}30"
OID_MOD_CERT_TEMPLATE = f"{_CONTROL}31"
OID_CONTROL_PROCESSED = f"{_CONTROL}32"
OID_POP_LINK_WITNESS_V2 = f"{_CONTROL}33"
OID_IDENTITY_PROOF_V2 = f"{_CONTROL}34"
OID_RA_IDENTITY_WITNESS = f"{_CONTROL}35"


class CmcStatus(IntEnum):
    """CMCStatus (RFC 5272 §6.1.3)."""

    SUCCESS = 0
    FAILED = 2
    PENDING = 3
    NO_SUPPORT = 4


class CmcFailInfo(IntEnum):
    """CMCFailInfo (RFC 5272 §6.1.4)."""

    BAD_ALG = 0
    """Unrecognized or unsupported algorithm."""
    BAD_MESSAGE_CHECK = 1
    """Integrity check failed."""
    BAD_REQUEST = 2
    """Transaction was not permitted or supported; the catch-all."""
    BAD_TIME = 3
    BAD_CERT_ID = 4
    """No certificate could be identified matching the provided criteria."""
    UNSUPPORTED_EXT = 5
    """A requested X.509 extension is not supported."""
    MUST_ARCHIVE_KEYS = 6
    BAD_IDENTITY = 7
    """Identification failed to verify."""
    POP_REQUIRED = 8
    POP_FAILED = 9
    """Proof of possession failed."""
    NO_KEY_REUSE = 10
    INTERNAL_CA_ERROR = 11
    TRY_LATER = 12
    AUTH_DATA_FAIL = 13
