"""Distinguished names: decode, encode, compare and write as text (RFC 5280 §4.1.2.4 and §7.1, RFC 4514)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from gateway.errors import MalformedMessage
from gateway.model import Name, NameAttribute
from gateway.pki import der

MAX_ATTRIBUTES = 64
"""More AttributeTypeAndValues in one name are refused."""
MAX_NAME_BYTES = 8192
"""Larger names are refused: they are compared, escaped and logged."""
MAX_MARKS = 30
"""Combining characters in a row that are normalised (Stream-Safe Text, UAX #15 §13); no orthography has a third of that."""
_MAX_CACHED_BYTES = 512
"""One request shows the same name several times: in its signer's certificate, its CSR and what is issued."""

ATTRIBUTE_OIDS: Mapping[str, str] = MappingProxyType(
    {
        "CN": "2.5.4.3",
        "SN": "2.5.4.4",
        "serialNumber": "2.5.4.5",
        "C": "2.5.4.6",
        "L": "2.5.4.7",
        "ST": "2.5.4.8",
        "STREET": "2.5.4.9",
        "O": "2.5.4.10",
        "OU": "2.5.4.11",
        "title": "2.5.4.12",
        "description": "2.5.4.13",
        "businessCategory": "2.5.4.15",
        "postalCode": "2.5.4.17",
        "telephoneNumber": "2.5.4.20",
        "name": "2.5.4.41",
        "GN": "2.5.4.42",
        "initials": "2.5.4.43",
        "generationQualifier": "2.5.4.44",
        "x500UniqueIdentifier": "2.5.4.45",
        "dnQualifier": "2.5.4.46",
        "pseudonym": "2.5.4.65",
        "organizationIdentifier": "2.5.4.97",
        "UID": "0.9.2342.19200300.100.1.1",
        "DC": "0.9.2342.19200300.100.1.25",
        "emailAddress": "1.2.840.113549.1.9.1",
        "unstructuredName": "1.2.840.113549.1.9.2",
        "unstructuredAddress": "1.2.840.113549.1.9.8",
        "jurisdictionL": "1.3.6.1.4.1.311.60.2.1.1",
        "jurisdictionST": "1.3.6.1.4.1.311.60.2.1.2",
        "jurisdictionC": "1.3.6.1.4.1.311.60.2.1.3",
    }
)
"""Short name to dotted OID; the first nine of RFC 4514 §3 and what PKIs use beside them."""

_ATTRIBUTE_NAMES = MappingProxyType({oid: name for name, oid in ATTRIBUTE_OIDS.items()})
_ALIASES = {
    "e": "emailAddress",
    "email": "emailAddress",
    "s": "ST",
    "surname": "SN",
    "givenname": "GN",
    "commonname": "CN",
    "countryname": "C",
    "organizationname": "O",
    "organizationalunitname": "OU",
    "localityname": "L",
    "stateorprovincename": "ST",
    "domaincomponent": "DC",
    "userid": "UID",
    "t": "title",
}
_BY_LOWER_CASE = MappingProxyType(
    {name.lower(): oid for name, oid in ATTRIBUTE_OIDS.items()} | {a: ATTRIBUTE_OIDS[n] for a, n in _ALIASES.items()}
)

UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 12, 19, 22
STRING_CODECS: Mapping[int, str] = MappingProxyType(
    {
        UTF8_STRING: "utf-8",
        18: "ascii",  # NumericString
        PRINTABLE_STRING: "ascii",
        20: "latin-1",  # T61String, which every writer used as Latin-1
        IA5_STRING: "ascii",
        26: "ascii",  # VisibleString
        27: "latin-1",  # GeneralString
        28: "utf-32-be",  # UniversalString
        30: "utf-16-be",  # BMPString; some writers put surrogate pairs in it
    }
)
"""Universal tag of a string type to the codec of its content."""
_TAGS = MappingProxyType(
    {ATTRIBUTE_OIDS[n]: PRINTABLE_STRING for n in ("C", "serialNumber", "dnQualifier", "jurisdictionC")}
    | {ATTRIBUTE_OIDS[n]: IA5_STRING for n in ("DC", "emailAddress", "unstructuredName")}
)
"""String types that RFC 5280 appendix A demands; everything else is UTF8String (§4.1.2.4)."""


def attribute_oid(name: str) -> str:
    """Return the dotted OID of a short name (any case), alias or dotted OID; ValueError for another word."""
    found = _BY_LOWER_CASE.get(name.lower())
    if found is not None:
        return found
    if name[:4].lower() == "oid.":
        name = name[4:]
    der.oid(name)
    return name


def attribute_name(oid: str) -> str:
    """Return the short name of a dotted OID, or the OID itself when it has none."""
    return _ATTRIBUTE_NAMES.get(oid, oid)


def parse_name(data: bytes) -> Name:
    """Decode a Name; string values become text, other values `#` and the hex of their DER (RFC 4514 §2.4).

    Raises MalformedMessage, also for more than `MAX_ATTRIBUTES` or `MAX_NAME_BYTES` and for text that its string type cannot
    hold.
    """
    return _parse_cached(data) if len(data) <= _MAX_CACHED_BYTES else _parse(data)


def _parse(data: bytes) -> Name:
    if len(data) > MAX_NAME_BYTES:
        raise MalformedMessage("name is too large", f"{len(data)} bytes")
    body = der.content(der.SEQUENCE, data)
    rdns, count = [], 0
    for tag, _, start, end in der.elements(body, limit=MAX_ATTRIBUTES):
        if tag != der.SET or start == end:
            raise MalformedMessage("name is broken", "an RDN is no SET or empty")
        rdn = tuple([_parse_attribute(body, *found) for found in der.elements(body, start, end, MAX_ATTRIBUTES)])
        count += len(rdn)
        if count > MAX_ATTRIBUTES:
            raise MalformedMessage("name has too many attributes")
        rdns.append(rdn)
    return Name(tuple(rdns), data)


_parse_cached = lru_cache(maxsize=256)(_parse)


def _parse_attribute(body: bytes, tag: int, _: int, start: int, end: int) -> NameAttribute:
    oid_start, oid_end = der.read_as(der.OBJECT_IDENTIFIER, body, start)
    value_tag, value_start, value_end = der.read(body, oid_end)
    if tag != der.SEQUENCE or value_end != end:
        raise MalformedMessage("name is broken", "an attribute is no type and value")
    oid = der.decode_oid(body[oid_start:oid_end])
    codec = STRING_CODECS.get(value_tag)
    if codec is None:
        return NameAttribute(oid, "#" + body[oid_end:value_end].hex(), value_tag)
    try:
        return NameAttribute(oid, body[value_start:value_end].decode(codec), value_tag)
    except UnicodeDecodeError:
        raise MalformedMessage("name holds text that its string type cannot hold", f"{attribute_name(oid)}, {codec}") from None


def encode_name(rdns: Iterable[Iterable[NameAttribute]]) -> bytes:
    """Encode RDNs as a Name, DER; ValueError when a value does not fit its string type."""
    return der.sequence(*(der.set_of(*(_encode_attribute(a) for a in rdn)) for rdn in rdns))


def _encode_attribute(attribute: NameAttribute) -> bytes:
    codec = STRING_CODECS.get(attribute.tag)
    if codec is not None:
        return der.sequence(der.oid(attribute.oid), der.tlv(attribute.tag, attribute.value.encode(codec)))
    if attribute.value[:1] != "#":
        raise ValueError(f"attribute {attribute.oid}: tag {attribute.tag} is no string type")
    return der.sequence(der.oid(attribute.oid), bytes.fromhex(attribute.value[1:]))


def make_attribute(type_name: str, value: str) -> NameAttribute:
    """Return an attribute of a short name or OID with the string type that RFC 5280 appendix A gives it.

    Falls back to UTF8String where the value does not fit that type. ValueError for an unknown type or empty value.
    """
    oid = attribute_oid(type_name)
    if not value:
        raise ValueError(f"{type_name} is empty")
    if oid == ATTRIBUTE_OIDS["C"] and not re.fullmatch(r"[A-Za-z]{2}", value):
        raise ValueError(f"C must be a country code of two letters, not {value[:40]!r}")
    tag = _TAGS.get(oid, UTF8_STRING)
    fits = der.is_printable(value) if tag == PRINTABLE_STRING else value.isascii()
    return NameAttribute(oid, value, tag if fits else UTF8_STRING)


# Text


def format_name(name: Name) -> str:
    """Write `name` as RFC 4514 text, last RDN first; control characters are escaped too, so that logs stay one line."""
    return ",".join("+".join(_format_attribute(a) for a in rdn) for rdn in reversed(name.rdns))


def _format_attribute(attribute: NameAttribute) -> str:
    value = attribute.value if attribute.tag not in STRING_CODECS else _escape(attribute.value)
    return f"{attribute_name(attribute.oid)}={value}"


_SPECIAL = re.compile(r'[,+"\\<>;=]|[^ -~]')


def _escape(text: str) -> str:
    """Escape a value (RFC 4514 §2.4)."""
    escaped = _SPECIAL.sub(_escape_match, text)
    if escaped[:1] in {"#", " "}:
        escaped = "\\" + escaped
    if text[-1:] == " " and len(text) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped


def _escape_match(match: re.Match[str]) -> str:
    character = match[0]
    if character in ',+"\\<>;=':
        return "\\" + character
    if unicodedata.category(character)[0] in "CZ":
        return "".join(f"\\{byte:02x}" for byte in character.encode("utf-8", "replace"))
    return character


def parse_name_text(text: str) -> Name:
    r"""Read RFC 4514 text, such as `CN=gate\, north+serialNumber=7,O=Example,C=CH`; ValueError says what is wrong.

    The last RDN stands first, as `format_name` writes it. Empty text is the empty name.
    """
    parts = _split(text, ",") if text.strip() else ()
    rdns = [tuple(_parse_pair(pair) for pair in _split(rdn, "+")) for rdn in parts]
    if sum(map(len, rdns)) > MAX_ATTRIBUTES:
        raise ValueError("the name has too many attributes")
    rdns.reverse()
    encoded = encode_name(rdns)
    if len(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"the name has more than {MAX_NAME_BYTES} bytes")
    return parse_name(encoded)


def _split(text: str, separator: str) -> Iterator[str]:
    """Split at `separator`s that no backslash stands before."""
    start = index = 0
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == separator:
            yield text[start:index]
            start = index + 1
        index += 1
    yield text[start:]


def _parse_pair(pair: str) -> NameAttribute:
    type_name, found, value = pair.partition("=")
    if not found or not type_name.strip():
        raise ValueError(f"{pair.strip()[:80]!r} is not TYPE=value")
    value = value.lstrip(" ")
    if value.startswith("#"):
        return _parse_hex(attribute_oid(type_name.strip()), value.rstrip(" "))
    return make_attribute(type_name.strip(), _unescape(value))


def _parse_hex(oid: str, value: str) -> NameAttribute:
    try:
        encoded = bytes.fromhex(value[1:])
        tag = encoded[0] if encoded else 0
        content = der.content(tag, encoded)
        codec = STRING_CODECS.get(tag)
        text = "#" + encoded.hex() if codec is None else content.decode(codec)
    except (ValueError, MalformedMessage):
        raise ValueError(f"{value[:80]!r} is not # and the hex of a DER value") from None
    return NameAttribute(oid, text, tag)


_ESCAPED = re.compile(r'(?:\\[0-9A-Fa-f]{2})+|\\([ "#+,;<=>\\])|(\\)|("|;|<|>)')


def _unescape(value: str) -> str:
    """Undo `_escape`; ValueError for a character that must not stand bare (RFC 4514 §3)."""
    bare = value.rstrip(" ")
    escapes = len(bare) - len(bare.rstrip("\\"))
    if escapes % 2 and len(bare) < len(value):
        bare += " "
    return _ESCAPED.sub(_unescape_match, bare)


def _unescape_match(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    if match[2] is not None or match[3] is not None:
        raise ValueError(f"{match[0]!r} must be escaped in a name")
    return bytes.fromhex(match[0].replace("\\", "")).decode()


# Comparison


def normalize_name(name: Name) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return what two names that match have in common (RFC 5280 §7.1): string types, case, and inner spaces do not count.

    Multi-valued RDNs compare as sets. The result is hashable.
    """
    return tuple(tuple(sorted((a.oid, _prepare(a)) for a in rdn)) for rdn in name.rdns)


def _prepare(attribute: NameAttribute) -> str:
    """Prepare a value for comparison: compatibility form, case folded, white space compressed (RFC 4518 §2).

    A value with more than `MAX_MARKS` combining characters in a row equals only what was written alike: putting them in order
    takes the square of their number, which strangers choose.
    """
    value = attribute.value
    if value.isascii():
        return " ".join(value.lower().split())
    if not _is_stream_safe(value):
        return value
    folded = unicodedata.normalize("NFKC", value).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


_STARTING_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""Characters of combining class 0 that decompose to combining characters alone."""


def _is_stream_safe(text: str) -> bool:
    """Whether no more than `MAX_MARKS` characters of `text` in a row decompose to combining characters alone."""
    if len(text) <= MAX_MARKS:
        return True
    run = 0
    for character in text:
        if unicodedata.combining(character) or character in _STARTING_MARKS:
            run += 1
            if run > MAX_MARKS:
                return False
        else:
            run = 0
    return True
