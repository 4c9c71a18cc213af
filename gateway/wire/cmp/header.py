"""PKIHeader: decode what a client says of itself, its transaction and its message (RFC 9810 §5.1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.asn1 import cmp as asn1
from gateway.cmp import GeneralInfo, Header
from gateway.errors import MalformedMessage, Reason
from gateway.model import Name
from gateway.pki import der
from gateway.pki.names import parse_name
from gateway.wire.cmp.general import decode_infos

MAX_OCTETS = 256
"""Of identifiers and nonces; 16 to 64 are in use."""
MAX_VERSION_BYTES = 4
MAX_CERT_PROFILES = 16
MAX_PROFILE_NAME = 256

_TIME, _ALGORITHM, _SENDER_KID, _RECIPIENT_KID, _TRANSACTION, _SENDER_NONCE, _RECIPIENT_NONCE, _TEXT, _INFO = range(0xA0, 0xA9)
_OCTETS = frozenset({_SENDER_KID, _RECIPIENT_KID, _TRANSACTION, _SENDER_NONCE, _RECIPIENT_NONCE})
_GENERAL_NAMES = frozenset({0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88})
_DIRECTORY_NAME = 0xA4


@dataclass(frozen=True, slots=True)
class DecodedHeader:
    """A header, its protectionAlg (DER, None where absent), and what is wrong with values that an answer can do without."""

    header: Header
    algorithm: bytes | None
    fault: MalformedMessage | None


def decode_header(body: bytes) -> DecodedHeader:
    """Read the content of a PKIHeader's SEQUENCE.

    Raises MalformedMessage where no answer could be addressed. A time that is none and a generalInfo that is broken are `fault`:
    the header is whole enough to say so.
    """
    found = der.elements(body, limit=12)
    if len(found) < 3 or found[0][0] != der.INTEGER or found[0][3] - found[0][2] > MAX_VERSION_BYTES:
        raise MalformedMessage("message header is broken")
    (_, _, version, version_end), sender, recipient = found[:3]
    fields = _optional_fields(body, found[3:])
    fault: MalformedMessage | None = None
    time: datetime | None = None
    infos: tuple[GeneralInfo, ...] = ()
    extras = _NO_EXTRAS
    try:
        time = _message_time(fields.get(_TIME))
        infos = decode_infos(fields[_INFO]) if _INFO in fields else ()
        extras = _read_extras(infos)
    except MalformedMessage as error:
        fault = error
    return DecodedHeader(
        Header(
            pvno=der.decode_integer(body[version:version_end]),
            sender=body[sender[1] : sender[3]],
            sender_name=_directory_name(body, sender),
            recipient=body[recipient[1] : recipient[3]],
            recipient_name=_directory_name(body, recipient),
            message_time=time,
            sender_kid=fields.get(_SENDER_KID),
            transaction_id=fields.get(_TRANSACTION),
            sender_nonce=fields.get(_SENDER_NONCE),
            recipient_nonce=fields.get(_RECIPIENT_NONCE),
            implicit_confirm=extras.implicit_confirm,
            confirm_wait_time=extras.confirm_wait_time,
            cert_profiles=extras.cert_profiles,
            general_info=infos,
        ),
        _algorithm(fields.get(_ALGORITHM)),
        fault,
    )


def _optional_fields(body: bytes, found: Iterable[tuple[int, int, int, int]]) -> dict[int, bytes]:
    """Return tag to content: of octet strings what they hold, of others the element inside of the explicit tag."""
    fields: dict[int, bytes] = {}
    previous = 0
    for tag, _, start, end in found:
        if tag <= previous or not _TIME <= tag <= _INFO:
            raise MalformedMessage("message header has another structure", f"tag {tag:#04x}")
        previous = tag
        fields[tag] = _octets(body[start:end]) if tag in _OCTETS else body[start:end]
    return fields


def _octets(element: bytes) -> bytes:
    value = der.content(der.OCTET_STRING, element)
    if len(value) > MAX_OCTETS:
        raise MalformedMessage("an identifier or nonce of the message header is too long", f"{len(value)} bytes")
    return value


def _directory_name(body: bytes, element: tuple[int, int, int, int]) -> Name | None:
    """Return the name that a GeneralName holds; None where it is of another kind."""
    tag, _, start, end = element
    if tag not in _GENERAL_NAMES:
        raise MalformedMessage("message header has another structure", f"tag {tag:#04x} where a GeneralName belongs")
    return parse_name(body[start:end]) if tag == _DIRECTORY_NAME else None


def _message_time(element: bytes | None) -> datetime | None:
    if element is None:
        return None
    try:
        return _generalized_time(element)
    except MalformedMessage:
        raise MalformedMessage("messageTime is not a GeneralizedTime", reason=Reason.BAD_TIME) from None


def _generalized_time(element: bytes) -> datetime:
    return der.decode_time(der.GENERALIZED_TIME, der.content(der.GENERALIZED_TIME, element))


def _algorithm(element: bytes | None) -> bytes | None:
    if element is not None:
        der.content(der.SEQUENCE, element)
    return element


@dataclass(frozen=True, slots=True)
class _Extras:
    """What generalInfo says that the gateway obeys."""

    implicit_confirm: bool | None = None
    confirm_wait_time: datetime | None = None
    cert_profiles: tuple[str, ...] = ()


_UNDERSTOOD = frozenset({asn1.OID_IMPLICIT_CONFIRM, asn1.OID_CONFIRM_WAIT_TIME, asn1.OID_CERT_PROFILE})


def _read_extras(infos: tuple[GeneralInfo, ...]) -> _Extras:
    values: dict[str, bytes | None] = {}
    for info in infos:
        if info.oid in _UNDERSTOOD:
            if info.oid in values:
                raise MalformedMessage("generalInfo repeats a type", info.oid)
            values[info.oid] = info.value
    if not values:
        return _NO_EXTRAS
    implicit = asn1.OID_IMPLICIT_CONFIRM
    return _Extras(
        implicit_confirm=values[implicit] == der.null() if implicit in values else None,
        confirm_wait_time=_confirm_wait_time(values),
        cert_profiles=_cert_profiles(values),
    )


_NO_EXTRAS = _Extras()


def _confirm_wait_time(values: dict[str, bytes | None]) -> datetime | None:
    """Read confirmWaitTime, a GeneralizedTime and nothing else (RFC 9810 §5.1.1.2)."""
    if asn1.OID_CONFIRM_WAIT_TIME not in values:
        return None
    try:
        return _generalized_time(values[asn1.OID_CONFIRM_WAIT_TIME] or b"")
    except MalformedMessage:
        raise MalformedMessage("confirmWaitTime is not a GeneralizedTime") from None


def _cert_profiles(values: dict[str, bytes | None]) -> tuple[str, ...]:
    """Read CertProfileValue, a SEQUENCE OF UTF8String (RFC 9810 §5.1.1.4)."""
    if asn1.OID_CERT_PROFILE not in values:
        return ()
    body = der.content(der.SEQUENCE, values[asn1.OID_CERT_PROFILE] or b"")
    found = der.elements(body, limit=MAX_CERT_PROFILES)
    if not found or any(tag != 0x0C or end - start > MAX_PROFILE_NAME for tag, _, start, end in found):
        raise MalformedMessage("certProfile is broken")
    try:
        return tuple([body[start:end].decode() for _, _, start, end in found])
    except UnicodeDecodeError:
        raise MalformedMessage("certProfile is broken") from None
