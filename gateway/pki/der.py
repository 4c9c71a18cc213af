"""DER readers and writers, and the normalisation that every input passes first (ITU-T X.690)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from struct import Struct

from gateway.errors import MalformedMessage
from gateway.pki.ber import Bounds, encode_length, long_length, normalize

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "GENERALIZED_TIME",
    "INTEGER",
    "MAX_OID_BYTES",
    "NULL",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "SEQUENCE",
    "SET",
    "UTC_TIME",
    "Bounds",
    "bit_string",
    "boolean",
    "content",
    "context",
    "decode_bits",
    "decode_integer",
    "decode_oid",
    "decode_time",
    "directory_string",
    "elements",
    "generalized_time",
    "integer",
    "is_printable",
    "normalize",
    "null",
    "octet_string",
    "oid",
    "printable_string",
    "read",
    "read_as",
    "sequence",
    "set_of",
    "time",
    "tlv",
]

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

MAX_OID_BYTES = 64

# Readers


def read(data: bytes, offset: int = 0) -> tuple[int, int, int]:
    """Return tag byte, content start and content end of the definite-length element at `offset`.

    Raises MalformedMessage when it is cut short, indefinite, or has a tag number above 30.
    """
    try:
        tag = data[offset]
        length = data[offset + 1]
        start = offset + 2
        if length >= 0x80:
            if length == 0x82:
                length = data[start] << 8 | data[start + 1]
                start += 2
            elif length == 0x80:
                raise MalformedMessage("message is not DER", f"indefinite length at {offset}")
            else:
                start, length = long_length(data, start, length)
    except IndexError:
        raise MalformedMessage("message is truncated") from None
    end = start + length
    if end > len(data) or tag & 0x1F == 0x1F:
        raise MalformedMessage("message is truncated or not DER", f"element at {offset}")
    return tag, start, end


def read_as(expected: int, data: bytes, offset: int = 0) -> tuple[int, int]:
    """Return content start and end of the element at `offset`; MalformedMessage when its tag is not `expected`."""
    # As in `elements`, what is short and as expected is read without another call.
    if len(data) > offset + 1 and data[offset] == expected and data[offset + 1] < 0x80 and expected & 0x1F != 0x1F:
        end = offset + 2 + data[offset + 1]
        if end <= len(data):
            return offset + 2, end
    tag, start, end = read(data, offset)
    if tag != expected:
        raise MalformedMessage("message has another structure", f"tag {tag:#04x} at {offset} where {expected:#04x} belongs")
    return start, end


def content(expected: int, data: bytes) -> bytes:
    """Return the content of `data`, one whole element of tag `expected`; MalformedMessage otherwise."""
    # Whole values of the two commonest forms are read here: the calls below would triple what they cost.
    size = len(data)
    if size > 3 and data[0] == expected and expected & 0x1F != 0x1F:
        length = data[1]
        if length == size - 2 and length < 0x80:
            return data[2:]
        if length == 0x82 and (data[2] << 8 | data[3]) == size - 4:
            return data[4:]
    start, end = read_as(expected, data)
    if end != size:
        raise MalformedMessage("bytes follow the value")
    return data[start:end]


def elements(data: bytes, start: int = 0, end: int | None = None, limit: int = 4096) -> list[tuple[int, int, int, int]]:
    """Return (tag, element start, content start, content end) of every element between `start` and `end`.

    MalformedMessage when one is broken or reaches over `end`, or when there are more than `limit`.
    """
    found: list[tuple[int, int, int, int]] = []
    stop = len(data) if end is None else end
    while start < stop:
        # The commonest forms are read here: a call for each element would double the cost of a certificate.
        tag = data[start]
        length = data[start + 1] if start + 1 < stop and tag & 0x1F != 0x1F else -1
        if 0 <= length < 0x80:
            content_start = start + 2
            content_end = content_start + length
        elif length == 0x82 and start + 3 < stop:
            content_start = start + 4
            content_end = content_start + (data[start + 2] << 8 | data[start + 3])
        else:
            tag, content_start, content_end = read(data, start)
        if content_end > stop:
            raise MalformedMessage("message is truncated", f"element at {start} runs over its container")
        if len(found) >= limit:
            raise MalformedMessage("message has too many elements", f"more than {limit} in one list")
        found.append((tag, start, content_start, content_end))
        start = content_end
    return found


@lru_cache(maxsize=1024)
def decode_oid(content: bytes) -> str:
    """Return the dotted form of an OBJECT IDENTIFIER's content of at most 64 bytes (X.690 §8.19)."""
    if not 0 < len(content) <= MAX_OID_BYTES or content[-1] & 0x80:
        raise MalformedMessage("object identifier is broken")
    arcs, value, fresh = [], 0, True
    for byte in content:
        if fresh and byte == 0x80:
            raise MalformedMessage("object identifier is broken", "arc padded with zeros")
        value = value << 7 | byte & 0x7F
        fresh = byte < 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def decode_integer(content: bytes) -> int:
    """Return an INTEGER's content as int; MalformedMessage when empty."""
    if not content:
        raise MalformedMessage("integer is empty")
    return int.from_bytes(content, signed=True)


def decode_bits(content: bytes) -> bytes:
    """Return the octets of a BIT STRING's content that has no unused bits, such as a signature or a key."""
    if not content or content[0]:
        raise MalformedMessage("bit string is not whole octets")
    return content[1:]


_TIME = re.compile(rb"(\d{12}|\d{14}|\d{10})(?:Z|([+-])(\d\d)(\d\d))", re.ASCII)


def decode_time(tag: int, content: bytes) -> datetime:
    """Return a UTCTime or GeneralizedTime as UTC (RFC 5280 §4.1.2.5); old encoders' missing seconds and offsets are read too."""
    if tag == UTC_TIME and len(content) == 13 and content[12:] == b"Z" and content[:12].isdigit():
        return _utc_time(content.decode("ascii"))
    match = _TIME.fullmatch(content)
    if match is None or tag not in {UTC_TIME, GENERALIZED_TIME}:
        raise MalformedMessage("time is broken")
    digits = match[1].decode("ascii")
    if tag == UTC_TIME:
        digits = ("20" if digits < "50" else "19") + digits
    digits = digits.ljust(14, "0")
    try:
        year, rest = int(digits[:4]), [int(digits[i : i + 2]) for i in range(4, 14, 2)]
        if len(digits) != 14:
            raise MalformedMessage("time is broken")
        if match[2] is None:
            return datetime(year, *rest, tzinfo=UTC)  # type: ignore[arg-type,misc]
        offset = timedelta(hours=int(match[3]), minutes=int(match[4]))
        zone = timezone(offset if match[2] == b"+" else -offset)
        return datetime(year, *rest, tzinfo=zone).astimezone(UTC)  # type: ignore[arg-type,misc]
    except (ValueError, OverflowError):
        raise MalformedMessage("time is broken") from None


def _utc_time(text: str) -> datetime:
    """Return a UTCTime of the one form that DER has, `YYMMDDhhmmssZ` in ASCII."""
    if text[6:8] > "23":  # fromisoformat of later Pythons takes 24:00 for the next day
        raise MalformedMessage("time is broken")
    try:
        return datetime.fromisoformat(f"{'20' if text < '50' else '19'}{text[:6]}T{text[6:]}")
    except ValueError:
        raise MalformedMessage("time is broken") from None


# Writers


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return one element of the single-byte tag `tag` whose content is the concatenated `parts`."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return _SHORT(tag, size) + body
    if 0xFF < size <= 0xFFFF:
        return _LONG(tag, 0x82, size) + body
    return bytes((tag,)) + encode_length(size) + body


_SHORT, _LONG = Struct(">BB").pack, Struct(">BBH").pack


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of encoded `parts`."""
    body = b"".join(parts)
    if len(body) < 0x80:  # half of all that is written are short SEQUENCEs
        return _SHORT(SEQUENCE, len(body)) + body
    return tlv(SEQUENCE, body)


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF with its elements in DER order (X.690 §11.6)."""
    return tlv(SET, *sorted(parts))


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    return tlv(INTEGER, value.to_bytes((value.bit_length() if value >= 0 else (value + 1).bit_length()) // 8 + 1, signed=True))


@lru_cache(maxsize=1024)
def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER; ValueError when `dotted` is none."""
    arcs = [int(a) for a in dotted.split(".")] if re.fullmatch(r"[012](\.(0|[1-9]\d{0,38})){1,63}", dotted, re.ASCII) else []
    if not arcs or (arcs[0] < 2 and arcs[1] > 39):
        raise ValueError(f"not an object identifier: {dotted[:80]!r}")
    encoded = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        encoded += bytes(reversed(groups))
    return tlv(OBJECT_IDENTIFIER, bytes(encoded))


def null() -> bytes:
    """Return NULL."""
    return b"\x05\x00"


def boolean(value: bool) -> bytes:
    """Return a BOOLEAN."""
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def octet_string(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(OCTET_STRING, value)


def bit_string(value: bytes, unused: int = 0) -> bytes:
    """Return a BIT STRING whose last octet has `unused` unused bits (0-7)."""
    return tlv(BIT_STRING, bytes((unused,)), value)


def printable_string(value: str) -> bytes:
    """Return a PrintableString; ValueError when `value` is not ASCII."""
    return tlv(0x13, value.encode("ascii"))


def utf8_string(value: str) -> bytes:
    """Return a UTF8String."""
    return tlv(0x0C, value.encode())


_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")


def is_printable(value: str) -> bool:
    """Whether PrintableString can hold `value` (X.680 §41.4)."""
    return _PRINTABLE.fullmatch(value) is not None


def directory_string(value: str) -> bytes:
    """Return a PrintableString where it can hold `value`, else a UTF8String."""
    return printable_string(value) if is_printable(value) else utf8_string(value)


def ia5_string(value: str) -> bytes:
    """Return an IA5String; ValueError when `value` is not ASCII."""
    return tlv(0x16, value.encode("ascii"))


def time(value: datetime) -> bytes:
    """Return UTCTime through 2049 and GeneralizedTime from 2050 on, whole seconds (RFC 5280 §4.1.2.5); `value` must be aware."""
    if value.tzinfo is None:
        raise ValueError("a time without a zone cannot be encoded")
    moment = value.astimezone(UTC) if value.tzinfo is not UTC else value
    year, rest = moment.year, (moment.month, moment.day, moment.hour, moment.minute, moment.second)
    if 1950 <= year < 2050:
        return tlv(UTC_TIME, b"%02d%02d%02d%02d%02d%02dZ" % (year % 100, *rest))
    return generalized_time(moment)


def generalized_time(value: datetime) -> bytes:
    """Return a GeneralizedTime of whole seconds in UTC (RFC 5280 §4.1.2.5.2)."""
    moment = value.astimezone(UTC) if value.tzinfo is not UTC else value
    fields = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return tlv(GENERALIZED_TIME, b"%04d%02d%02d%02d%02d%02dZ" % fields)


def context(number: int, *parts: bytes, constructed: bool = True) -> bytes:
    """Return a context-specific element `[number]`, number below 31."""
    return tlv(0x80 | (0x20 if constructed else 0) | number, *parts)
