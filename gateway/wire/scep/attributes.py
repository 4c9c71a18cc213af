"""SCEP's signed attributes, read leniently and written in the form of the standard (RFC 8894 §3.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gateway.errors import MalformedMessage
from gateway.pki import cms, der

MAX_TEXT = 256
MAX_NONCE = 64

_ENCODINGS = {0x13: "ascii", 0x0C: "utf-8", 0x16: "ascii"}
"""PrintableString as the standard says; UTF8String and IA5String as some clients send."""

Attributes = Mapping[str, tuple[bytes, ...]]


def read_text(attributes: Attributes, oid: str) -> tuple[str, bytes] | None:
    """Return an attribute's text and its element as received, None when it is absent.

    Raises MalformedMessage for text that is empty, over 256 characters, or could break a log line.
    """
    element = cms.single_value(attributes, oid)
    if element is None:
        return None
    tag, start, end = der.read(element)
    if tag not in _ENCODINGS or end - start > 4 * MAX_TEXT:
        raise MalformedMessage("attribute is not a short text", oid)
    try:
        text = element[start:end].decode(_ENCODINGS[tag])
    except UnicodeDecodeError:
        raise MalformedMessage("attribute is not text", oid) from None
    if not 0 < len(text) <= MAX_TEXT or not text.isprintable():
        raise MalformedMessage("attribute is empty, too long or not printable", oid)
    return text, element


def read_number(attributes: Attributes, oid: str) -> int | None:
    """Return a code that is decimal text, or an INTEGER as some clients send; None when absent or not a small number."""
    element = cms.single_value(attributes, oid)
    if element is None:
        return None
    tag, start, end = der.read(element)
    if tag == der.INTEGER:
        return der.decode_integer(element[start:end]) if end - start <= 4 else None
    digits = element[start:end]
    return int(digits) if tag in _ENCODINGS and digits.isdigit() and len(digits) <= 4 else None


def read_nonce(attributes: Attributes, oid: str) -> bytes:
    """Return a nonce, empty when it is absent; old clients send 8 bytes instead of 16. MalformedMessage over 64 bytes."""
    element = cms.single_value(attributes, oid)
    if element is None:
        return b""
    nonce = der.content(der.OCTET_STRING, element)
    if len(nonce) > MAX_NONCE:
        raise MalformedMessage("nonce is too long", f"{len(nonce)} bytes")
    return nonce


def read_time(attributes: Attributes, oid: str) -> datetime | None:
    """Return a UTCTime or GeneralizedTime, None when it is absent; MalformedMessage for one that cannot be read."""
    element = cms.single_value(attributes, oid)
    if element is None:
        return None
    tag, start, end = der.read(element)
    return der.decode_time(tag, element[start:end])


def code(oid: str, value: int) -> bytes:
    """Return an Attribute whose value is a number as decimal PrintableString."""
    return cms.attribute(oid, der.printable_string(str(int(value))))


def nonce(oid: str, value: bytes) -> bytes:
    """Return an Attribute whose value is a nonce."""
    return cms.attribute(oid, der.octet_string(value))
