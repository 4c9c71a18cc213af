"""What a PKIHeader must be before its body is looked at (RFC 9810 §5.1.1, RFC 9483 §3.1, §3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from gateway.asn1 import cmp as asn1
from gateway.cmp import PATH_OPERATIONS, BodyType, General, Header, Message, Sender
from gateway.config.cmp import CmpEndpoint
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName
from gateway.ra.cmp.nonces import Nonces, Origin

_PATH_INFOS: Mapping[str, str] = MappingProxyType(
    {
        "getcacerts": asn1.OID_CA_CERTS,
        "getrootupdate": asn1.OID_ROOT_CA_CERT,
        "getcertreqtemplate": asn1.OID_CERT_REQ_TEMPLATE,
        "getcrls": asn1.OID_CRL_STATUS_LIST,
    }
)
"""What a genm must ask by these."""

ENROLLMENTS = frozenset({BodyType.IR, BodyType.CR, BodyType.KUR, BodyType.P10CR})
FOLLOWING = frozenset({BodyType.CERTCONF, BodyType.POLLREQ, BodyType.ERROR})
"""What goes on with a transaction that another message began, by the path of that one."""

MIN_NONCE, MAX_NONCE = 16, 64
MIN_TRANSACTION_ID, MAX_TRANSACTION_ID = 16, 64
_VERSIONS = (2, 3)


def check_version(header: Header) -> None:
    """Refuse pvno other than cmp2000 and cmp2021 (RFC 9810 §7)."""
    if header.pvno not in _VERSIONS:
        raise Rejection(Reason.UNSUPPORTED_VERSION, f"version {header.pvno} is not supported")


def named_profile(header: Header) -> str | None:
    """Return the certProfile of a message (RFC 9483 §3.1); Rejection UNSUPPORTED_MESSAGE for several: it has one request."""
    if len(header.cert_profiles) > 1:
        raise _bad_request("one request has one certProfile at most")
    return header.cert_profiles[0] if header.cert_profiles else None


def check_operation(message: Message, operation: str | None) -> None:
    """Refuse a body that its path does not announce (RFC 9483 §6.1)."""
    if operation is None or message.type in FOLLOWING:
        return
    if PATH_OPERATIONS.get(operation) is not message.type:
        raise _bad_request(f"{message.type.operation} is not what this path is for")
    wanted = _PATH_INFOS.get(operation)
    if wanted and isinstance(message.body, General) and any(info.oid != wanted for info in message.body.infos):
        raise _bad_request("the general message is not what this path is for")


def check_header(header: Header, type: BodyType, config: CmpEndpoint, now: datetime) -> None:
    """Refuse a header whose time, identifiers or nonces are not what they must be; the sender is known by now.

    Raises Rejection BAD_TIME, MALFORMED, BAD_NONCE, BAD_RECIPIENT_NONCE or UNSUPPORTED_MESSAGE.
    """
    lightweight = config.strictness == "lightweight"
    _check_time(header, config, now, lightweight=lightweight)
    _check_transaction(header, following=type in FOLLOWING, lightweight=lightweight)
    _check_nonces(header, following=type in FOLLOWING, lightweight=lightweight)
    if header.implicit_confirm is False:
        raise _bad_request("implicitConfirm has a value, which must be NULL")
    if header.implicit_confirm and header.confirm_wait_time is not None:
        raise _bad_request("implicitConfirm and confirmWaitTime exclude each other")


def check_recipient_nonce(header: Header, nonces: Nonces, profile: ProfileName, transaction: bytes, sender: Sender) -> None:
    """Refuse a message that does not go on with a transaction of ours, protected as it was begun (RFC 9483 §3.5)."""
    if header.recipient_nonce is None:
        raise Rejection(Reason.BAD_RECIPIENT_NONCE, "the recipNonce is missing")
    origin = nonces.origin(header.recipient_nonce, profile, transaction, sender)
    if origin is Origin.OTHER_PROTECTION:
        raise Rejection(Reason.WRONG_INTEGRITY, "a transaction is protected in one way from its beginning to its end")
    if origin is not Origin.OURS:
        raise Rejection(Reason.BAD_RECIPIENT_NONCE, "the recipNonce is none of this transaction")


def _check_time(header: Header, config: CmpEndpoint, now: datetime, *, lightweight: bool) -> None:
    if header.message_time is None:
        if lightweight:
            raise Rejection(Reason.BAD_TIME, "the messageTime is missing")
        return
    if abs(header.message_time - now) > config.message_time_skew:
        text = f"the messageTime is too far from ours, which is {now:%Y-%m-%dT%H:%M:%SZ}"
        raise Rejection(Reason.BAD_TIME, text, f"{text}; it is {header.message_time.isoformat()}")


def _check_transaction(header: Header, *, following: bool, lightweight: bool) -> None:
    id = header.transaction_id
    if id is None:
        if lightweight or following:
            raise Rejection(Reason.MALFORMED, "the transactionID is missing")
        return
    shortest = MIN_TRANSACTION_ID if lightweight else 1
    if not shortest <= len(id) <= MAX_TRANSACTION_ID:
        raise Rejection(Reason.MALFORMED, f"a transactionID has {shortest} to {MAX_TRANSACTION_ID} octets")


def _check_nonces(header: Header, *, following: bool, lightweight: bool) -> None:
    nonce = header.sender_nonce
    if nonce is None:
        if lightweight:
            raise Rejection(Reason.BAD_NONCE, "the senderNonce is missing")
    elif not MIN_NONCE <= len(nonce) <= MAX_NONCE:
        raise Rejection(Reason.BAD_NONCE, f"a senderNonce has {MIN_NONCE} to {MAX_NONCE} octets")
    if lightweight and not following and header.recipient_nonce is not None:
        raise Rejection(Reason.BAD_RECIPIENT_NONCE, "the first message of a transaction has no recipNonce")


def _bad_request(text: str) -> Rejection:
    return Rejection(Reason.UNSUPPORTED_MESSAGE, text)
