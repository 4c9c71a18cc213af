"""SCEP's signed attributes and their codes (RFC 8894 §3.2.1)."""

from __future__ import annotations

from enum import IntEnum

OID_MESSAGE_TYPE = "2.16.840.1.113733.1.9.2"
OID_PKI_STATUS = "2.16.840.1.113733.1.9.3"
OID_FAIL_INFO = "2.16.840.1.113733.1.9.4"
OID_SENDER_NONCE = "2.16.840.1.113733.1.9.5"
OID_RECIPIENT_NONCE = "2.16.840.1.113733.1.9.6"
OID_TRANSACTION_ID = "2.16.840.1.113733.1.9.7"
OID_FAIL_INFO_TEXT = "1.3.6.1.5.5.7.24.1"
OID_SIGNING_TIME = "1.2.840.113549.1.9.5"
"""CMS signingTime (RFC 5652 §11.3), which badTime is about."""


class MessageType(IntEnum):
    """The message types in use (RFC 8894 §3.2.1.2); 18 (UpdateReq) is obsolete and deliberately absent."""

    CERT_REP = 3
    RENEWAL_REQ = 17
    PKCS_REQ = 19
    CERT_POLL = 20
    GET_CERT = 21
    GET_CRL = 22


class PkiStatus(IntEnum):
    """What a CertRep says (RFC 8894 §3.2.1.3)."""

    SUCCESS = 0
    FAILURE = 2
    PENDING = 3


class FailInfo(IntEnum):
    """Why a CertRep says FAILURE (RFC 8894 §3.2.1.4)."""

    BAD_ALG = 0
    """Unrecognized or unsupported algorithm."""
    BAD_MESSAGE_CHECK = 1
    """Integrity check (CMS signature or decryption) failed."""
    BAD_REQUEST = 2
    """Transaction not permitted or supported; the catch-all."""
    BAD_TIME = 3
    """signingTime was not close enough to the system time."""
    BAD_CERT_ID = 4
    """No certificate could be identified matching the provided criteria."""
