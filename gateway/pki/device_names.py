"""Names of devices and of their hardware modules as otherName, and as text (RFC 4043 §2, RFC 4108 §5).

The text is that of ACME's identifiers (draft-ietf-acme-device-attest §3, §4): `value` or `value/assigner`, and `serial/type`.
What cannot be written so, such as a serial number of bytes that are no text, has no text and so no kind of its own.
"""

from __future__ import annotations

import re

from gateway.asn1.acme import OID_HARDWARE_MODULE_NAME, OID_PERMANENT_IDENTIFIER
from gateway.errors import MalformedMessage
from gateway.model import SanKind
from gateway.pki import der

MAX_TEXT = 255
_UTF8_STRING = 0x0C
_OID = re.compile(r"[012](\.(0|[1-9][0-9]{0,38})){1,63}", re.ASCII)


def read_device_name(oid: str, value: bytes) -> tuple[SanKind, str] | None:
    """Return kind and text of an otherName's value, DER; None where it is another name or has no text."""
    if oid not in {OID_PERMANENT_IDENTIFIER, OID_HARDWARE_MODULE_NAME}:
        return None
    try:
        return _read_permanent(value) if oid == OID_PERMANENT_IDENTIFIER else _read_module(value)
    except (MalformedMessage, UnicodeDecodeError):
        return None


def _read_permanent(value: bytes) -> tuple[SanKind, str] | None:
    body = der.content(der.SEQUENCE, value)
    fields = der.elements(body)
    tags = [tag for tag, _, _, _ in fields]
    if tags not in ([_UTF8_STRING], [_UTF8_STRING, der.OBJECT_IDENTIFIER]):
        return None
    text = _text(body[fields[0][2] : fields[0][3]])
    if text is None:
        return None
    assigner = f"/{der.decode_oid(body[fields[1][2] : fields[1][3]])}" if len(fields) == 2 else ""
    return SanKind.PERMANENT_IDENTIFIER, text + assigner


def _read_module(value: bytes) -> tuple[SanKind, str] | None:
    body = der.content(der.SEQUENCE, value)
    fields = der.elements(body)
    if [tag for tag, _, _, _ in fields] != [der.OBJECT_IDENTIFIER, der.OCTET_STRING]:
        return None
    text = _text(body[fields[1][2] : fields[1][3]])
    return None if text is None else (SanKind.HARDWARE_MODULE, f"{text}/{der.decode_oid(body[fields[0][2] : fields[0][3]])}")


def _text(content: bytes) -> str | None:
    text = content.decode("utf-8")
    return text if 0 < len(text) <= MAX_TEXT and "/" not in text and text.isprintable() else None


def encode_device_name(kind: SanKind, text: str) -> bytes:
    """Return the otherName, a GeneralName, for the text of one of the two kinds; ValueError says what is wrong with it."""
    value, slash, oid = text.partition("/")
    if _text(value.encode()) is None or (slash and _OID.fullmatch(oid) is None):
        raise ValueError(f"{text[:80]!r} is no printable text that is followed by nothing, or by '/' and an OID")
    if kind is SanKind.PERMANENT_IDENTIFIER:
        content = der.sequence(der.utf8_string(value), der.oid(oid) if slash else b"")
        return der.context(0, der.oid(OID_PERMANENT_IDENTIFIER), der.context(0, content))
    if not slash:
        raise ValueError(f"{text[:80]!r} is no serial number of a module, '/' and the OID of its type")
    content = der.sequence(der.oid(oid), der.octet_string(value.encode()))
    return der.context(0, der.oid(OID_HARDWARE_MODULE_NAME), der.context(0, content))
