"""InfoTypeAndValue: lists of them, in headers, genm and genp (RFC 9810 §5.1.1, §5.3.19)."""

from __future__ import annotations

from gateway.cmp import GeneralInfo
from gateway.errors import MalformedMessage
from gateway.pki import der

MAX_INFOS = 64


def decode_infos(element: bytes) -> tuple[GeneralInfo, ...]:
    """Read a SEQUENCE OF InfoTypeAndValue; MalformedMessage where it is something else or has more than 64."""
    body = der.content(der.SEQUENCE, element)
    return tuple([_decode_info(body, *found) for found in der.elements(body, limit=MAX_INFOS)])


def _decode_info(body: bytes, tag: int, _: int, start: int, end: int) -> GeneralInfo:
    oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, body, start)
    if tag != der.SEQUENCE or oid_end > end:
        raise MalformedMessage("information of the message is broken")
    if oid_end < end and der.read(body, oid_end)[2] != end:
        raise MalformedMessage("information of the message is broken")
    return GeneralInfo(der.decode_oid(body[oid_start:oid_end]), body[oid_end:end] or None)


def encode_infos(infos: tuple[GeneralInfo, ...]) -> bytes:
    """Return a SEQUENCE OF InfoTypeAndValue."""
    return der.sequence(*(der.sequence(der.oid(info.oid), info.value or b"") for info in infos))
