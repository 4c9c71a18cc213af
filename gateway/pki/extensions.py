"""Contents of the extensions that the gateway reads and writes: names, usages, constraints and pointers (RFC 5280 §4.2)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from gateway.errors import MalformedMessage
from gateway.model import Extension, SanKind, SubjectAltName
from gateway.pki import der
from gateway.pki.device_names import encode_device_name, read_device_name
from gateway.pki.names import format_name, parse_name, parse_name_text

SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
KEY_USAGE = "2.5.29.15"
SUBJECT_ALT_NAME = "2.5.29.17"
BASIC_CONSTRAINTS = "2.5.29.19"
CRL_NUMBER = "2.5.29.20"
CRL_REASON = "2.5.29.21"
CRL_DISTRIBUTION_POINTS = "2.5.29.31"
AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"
EXTENDED_KEY_USAGE = "2.5.29.37"
AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1"

MAX_EXTENSIONS = 64
MAX_GENERAL_NAMES = 1024
_MAX_CACHED_BYTES = 128
"""Most extensions are the same in all that one CA issues: usages, constraints, pointers."""

UPN_OID = "1.3.6.1.4.1.311.20.2.3"
SID_PREFIX = "tag:microsoft.com,2022-09-14:sid:"

KEY_USAGE_BITS: tuple[str, ...] = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
"""Names by bit number (RFC 5280 §4.2.1.3)."""

EKU_OIDS: Mapping[str, str] = MappingProxyType(
    {
        "anyExtendedKeyUsage": "2.5.29.37.0",
        "serverAuth": "1.3.6.1.5.5.7.3.1",
        "clientAuth": "1.3.6.1.5.5.7.3.2",
        "codeSigning": "1.3.6.1.5.5.7.3.3",
        "emailProtection": "1.3.6.1.5.5.7.3.4",
        "ipsecEndSystem": "1.3.6.1.5.5.7.3.5",
        "ipsecTunnel": "1.3.6.1.5.5.7.3.6",
        "ipsecUser": "1.3.6.1.5.5.7.3.7",
        "timeStamping": "1.3.6.1.5.5.7.3.8",
        "OCSPSigning": "1.3.6.1.5.5.7.3.9",
        "eapOverPPP": "1.3.6.1.5.5.7.3.13",
        "eapOverLAN": "1.3.6.1.5.5.7.3.14",
        "ipsecIKE": "1.3.6.1.5.5.7.3.17",
        "secureShellClient": "1.3.6.1.5.5.7.3.21",
        "secureShellServer": "1.3.6.1.5.5.7.3.22",
        "cmcCA": "1.3.6.1.5.5.7.3.27",
        "cmcRA": "1.3.6.1.5.5.7.3.28",
        "cmcArchive": "1.3.6.1.5.5.7.3.29",
        "cmKGA": "1.3.6.1.5.5.7.3.32",
        "documentSigning": "1.3.6.1.5.5.7.3.36",
        "pkInitClientAuth": "1.3.6.1.5.2.3.4",
        "pkInitKdc": "1.3.6.1.5.2.3.5",
        "ipsecIkeIntermediate": "1.3.6.1.5.5.8.2.2",
        "encryptingFileSystem": "1.3.6.1.4.1.311.10.3.4",
        "certificateRequestAgent": "1.3.6.1.4.1.311.20.2.1",
        "smartcardLogon": "1.3.6.1.4.1.311.20.2.2",
        "documentEncryption": "1.3.6.1.4.1.311.80.1",
    }
)
"""Short name to dotted OID of extended key usages."""

_EKU_NAMES = MappingProxyType({oid: name for name, oid in EKU_OIDS.items()})
_EKU_BY_LOWER_CASE = MappingProxyType({name.lower(): oid for name, oid in EKU_OIDS.items()})
_KEY_USAGE_NUMBERS = MappingProxyType({name: number for number, name in enumerate(KEY_USAGE_BITS)})


# Extensions


def parse_extensions(data: bytes) -> tuple[Extension, ...]:
    """Decode a SEQUENCE OF Extension, such as extensionRequest's value; a repeated extension is refused (RFC 5280 §4.2)."""
    body = der.content(der.SEQUENCE, data)
    extensions = tuple([_parse_extension(body, element) for element in der.elements(body, limit=MAX_EXTENSIONS)])
    if len({e.oid for e in extensions}) != len(extensions):
        raise MalformedMessage("an extension is repeated")
    return extensions


def _parse_extension(body: bytes, element: tuple[int, int, int, int]) -> Extension:
    _, start, _, end = element
    if end - start <= _MAX_CACHED_BYTES:
        try:
            return _parse_known(body[start:end])
        except MalformedMessage:
            pass  # said below, by where it stands
    return _parse_any(body, *element)


@lru_cache(maxsize=128)
def _parse_known(extension: bytes) -> Extension:
    [element] = der.elements(extension)
    return _parse_any(extension, *element)


def _parse_any(body: bytes, tag: int, _: int, start: int, end: int) -> Extension:
    if tag != der.SEQUENCE:
        raise MalformedMessage("extension is broken")
    fields = der.elements(body, start, end)
    if not 2 <= len(fields) <= 3 or fields[0][0] != der.OBJECT_IDENTIFIER or fields[-1][0] != der.OCTET_STRING:
        raise MalformedMessage("extension is broken")
    critical = False
    if len(fields) == 3:
        flag_tag, _, flag, flag_end = fields[1]
        if flag_tag != der.BOOLEAN or flag_end != flag + 1:
            raise MalformedMessage("extension is broken")
        critical = body[flag] != 0
    return Extension(der.decode_oid(body[fields[0][2] : fields[0][3]]), critical, body[fields[-1][2] : fields[-1][3]])


def encode_extension(oid: str, critical: bool, value: bytes) -> bytes:
    """Return one Extension; `value` is the content of extnValue."""
    flag = b"\x01\x01\xff" if critical else b""
    return der.sequence(der.oid(oid), flag, der.octet_string(value))


# Subject alternative names


def parse_sans(extn_value: bytes) -> tuple[SubjectAltName, ...]:
    """Decode the content of a subjectAltName extension (RFC 5280 §4.2.1.6); MalformedMessage also for control characters."""
    body = der.content(der.SEQUENCE, extn_value)
    found = der.elements(body, limit=MAX_GENERAL_NAMES)
    return tuple(_parse_general_name(tag, body[start:stop], body[content:stop]) for tag, start, content, stop in found)


_TEXT_KINDS = MappingProxyType({0x81: SanKind.EMAIL, 0x82: SanKind.DNS, 0x86: SanKind.URI})
_OTHER_KINDS = MappingProxyType({0xA3: "x400Address", 0xA5: "ediPartyName"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _parse_general_name(tag: int, element: bytes, content: bytes) -> SubjectAltName:
    if tag in _TEXT_KINDS:
        return _text_name(_TEXT_KINDS[tag], content, element)
    if tag == 0x87:
        return SubjectAltName(SanKind.IP, _address(content), element)
    if tag == 0xA0:
        return _parse_other_name(element, content)
    if tag == 0xA4:
        return SubjectAltName(SanKind.DIRECTORY_NAME, format_name(parse_name(content)), element)
    if tag == 0x88:
        return SubjectAltName(SanKind.OTHER, f"registeredID:{der.decode_oid(content)}", element)
    if tag in _OTHER_KINDS:
        return SubjectAltName(SanKind.OTHER, f"{_OTHER_KINDS[tag]}:#{content.hex()}", element)
    raise MalformedMessage("subject alternative name is broken", f"tag {tag:#04x}")


def _text_name(kind: SanKind, content: bytes, element: bytes) -> SubjectAltName:
    text = _clean_text(content, "ascii")
    if kind is SanKind.URI and text[: len(SID_PREFIX)].lower() == SID_PREFIX:
        # In any case: what a domain controller might read as a SID must meet the rule for SIDs (KB5014754).
        return SubjectAltName(SanKind.SID, text[len(SID_PREFIX) :], element)
    return SubjectAltName(kind, text, element)


def _clean_text(content: bytes, codec: str) -> str:
    try:
        text = content.decode(codec)
    except UnicodeDecodeError:
        raise MalformedMessage("subject alternative name holds text that its string type cannot hold") from None
    if not text or _CONTROL.search(text):
        raise MalformedMessage("subject alternative name is empty or holds control characters")
    return text


def _address(content: bytes) -> str:
    if len(content) not in {4, 16}:
        raise MalformedMessage("IP address is broken", f"{len(content)} bytes")
    return str(ipaddress.ip_address(content))


def _parse_other_name(element: bytes, content: bytes) -> SubjectAltName:
    """Decode an otherName: type-id and [0] EXPLICIT value."""
    start, end = der.read_as(der.OBJECT_IDENTIFIER, content)
    value_start, value_end = der.read_as(0xA0, content, end)
    oid = der.decode_oid(content[start:end])
    if value_end != len(content):
        raise MalformedMessage("otherName is broken")
    if oid == UPN_OID:
        text_start, text_end = der.read_as(0x0C, content, value_start)
        if text_end != value_end:
            raise MalformedMessage("user principal name is broken")
        return SubjectAltName(SanKind.UPN, _clean_text(content[text_start:text_end], "utf-8"), element)
    device = read_device_name(oid, content[value_start:value_end])
    if device is not None:
        return SubjectAltName(*device, element)
    return SubjectAltName(SanKind.OTHER, f"otherName:{oid}:#{content[value_start:value_end].hex()}", element)


_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SID = re.compile(r"S-1-\d{1,15}(-\d{1,10}){1,15}", re.ASCII)


def make_san(kind: SanKind, value: str) -> SubjectAltName:
    """Return the GeneralName of `kind` for text as policy and commands write it; ValueError says what is wrong with it.

    International names are given as A-labels. Kinds OTHER cannot be made from text.
    """
    if _CONTROL.search(value) or not value:
        raise ValueError(f"{kind.value} name is empty or holds control characters")
    if kind in {SanKind.DNS, SanKind.EMAIL, SanKind.URI}:
        tag = {SanKind.DNS: 0x82, SanKind.EMAIL: 0x81, SanKind.URI: 0x86}[kind]
        return SubjectAltName(kind, value, der.tlv(tag, _checked_text(kind, value).encode("ascii")))
    if kind is SanKind.IP:
        address = ipaddress.ip_address(value)
        return SubjectAltName(kind, str(address), der.tlv(0x87, address.packed))
    if kind is SanKind.UPN:
        return SubjectAltName(kind, value, der.context(0, der.oid(UPN_OID), der.context(0, der.utf8_string(value))))
    if kind is SanKind.SID:
        if not _SID.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not a security identifier such as S-1-5-21-1-2-3-1001")
        return SubjectAltName(kind, value, der.tlv(0x86, (SID_PREFIX + value).encode("ascii")))
    if kind in {SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE}:
        return SubjectAltName(kind, value, encode_device_name(kind, value))
    if kind is SanKind.DIRECTORY_NAME:
        name = parse_name_text(value)
        return SubjectAltName(kind, format_name(name), der.context(4, name.der))
    raise ValueError("a name of another kind cannot be made from text")


def _checked_text(kind: SanKind, value: str) -> str:
    if not value.isascii():
        raise ValueError(f"{kind.value} name {value[:80]!r} must be ASCII (A-labels for international names)")
    if kind is SanKind.DNS:
        labels = value.removeprefix("*.").split(".")
        if len(value) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise ValueError(f"{value[:80]!r} is not a DNS name")
    if kind is SanKind.EMAIL and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        raise ValueError(f"{value[:80]!r} is not an e-mail address")
    if kind is SanKind.URI and (not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S", value) or value.lower().startswith(SID_PREFIX)):
        raise ValueError(f"{value[:80]!r} is not a URI, or is a SID, which has a kind of its own")
    return value


def encode_sans(sans: Iterable[SubjectAltName]) -> bytes:
    """Return the content of a subjectAltName extension: the GeneralNames as they are."""
    return der.sequence(*(san.der for san in sans))


# Usages


def encode_key_usage(names: Iterable[str]) -> bytes:
    """Return KeyUsage, DER, trailing zero bits removed (X.690 §11.2.2); ValueError for a name that is no bit."""
    bits = 0
    for name in names:
        if name not in _KEY_USAGE_NUMBERS:
            raise ValueError(f"unknown key usage {name!r}; one of {', '.join(KEY_USAGE_BITS)}")
        bits |= 0x8000 >> _KEY_USAGE_NUMBERS[name]
    if not bits:
        return der.bit_string(b"")
    octets = bits.to_bytes(2) if bits & 0xFF else bytes((bits >> 8,))
    last = octets[-1]
    return der.bit_string(octets, (last & -last).bit_length() - 1)


@lru_cache(maxsize=64)
def parse_key_usage(extn_value: bytes) -> frozenset[str]:
    """Decode the content of a keyUsage extension into bit names; bits beyond the nine of RFC 5280 are refused."""
    content = der.content(der.BIT_STRING, extn_value)
    if not 1 <= len(content) <= 3 or content[0] > 7 or (content[0] and len(content) == 1):
        raise MalformedMessage("key usage is broken")
    bits = int.from_bytes(content[1:].ljust(2, b"\x00"))
    if bits & 0x7F:
        raise MalformedMessage("key usage has bits that do not exist")
    return frozenset(name for number, name in enumerate(KEY_USAGE_BITS) if bits & 0x8000 >> number)


def eku_oid(name: str) -> str:
    """Return the dotted OID of a short name (any case) or dotted OID; ValueError for another word."""
    found = _EKU_BY_LOWER_CASE.get(name.lower())
    if found is None:
        der.oid(name)
        return name
    return found


def eku_name(oid: str) -> str:
    """Return the short name of a dotted OID, or the OID itself when it has none."""
    return _EKU_NAMES.get(oid, oid)


def encode_ekus(oids: Iterable[str]) -> bytes:
    """Return ExtKeyUsageSyntax, DER, of dotted OIDs in the given order."""
    return der.sequence(*map(der.oid, oids))


def parse_ekus(extn_value: bytes) -> tuple[str, ...]:
    """Decode the content of an extendedKeyUsage extension into dotted OIDs (RFC 5280 §4.2.1.12)."""
    return _parse_ekus_cached(extn_value) if len(extn_value) <= _MAX_CACHED_BYTES else _parse_ekus(extn_value)


def _parse_ekus(extn_value: bytes) -> tuple[str, ...]:
    body = der.content(der.SEQUENCE, extn_value)
    found = der.elements(body, limit=MAX_EXTENSIONS)
    if any(f[0] != der.OBJECT_IDENTIFIER for f in found):
        raise MalformedMessage("extended key usage is broken")
    return tuple(der.decode_oid(body[start:end]) for _, _, start, end in found)


_parse_ekus_cached = lru_cache(maxsize=64)(_parse_ekus)


# Constraints and pointers


def encode_basic_constraints(is_ca: bool, path_length: int | None = None) -> bytes:
    """Return BasicConstraints, DER; the empty SEQUENCE for an end entity (RFC 5280 §4.2.1.9)."""
    if not is_ca:
        return der.sequence()
    return der.sequence(der.boolean(True), der.integer(path_length) if path_length is not None else b"")


def parse_basic_constraints(extn_value: bytes) -> tuple[bool, int | None]:
    """Decode the content of a basicConstraints extension: (cA, pathLenConstraint)."""
    body = der.content(der.SEQUENCE, extn_value)
    is_ca, path_length = False, None
    for tag, _, start, end in der.elements(body):
        if tag == der.BOOLEAN and start == 2 and end == 3:
            is_ca = body[2] != 0
        elif tag == der.INTEGER and path_length is None:
            path_length = der.decode_integer(body[start:end])
        else:
            raise MalformedMessage("basic constraints are broken")
    if path_length is not None and not 0 <= path_length <= 1000:
        raise MalformedMessage("path length constraint is out of range")
    return is_ca, path_length


def parse_authority_key_id(extn_value: bytes) -> bytes | None:
    """Return the keyIdentifier of an authorityKeyIdentifier extension's content, None when it names the issuer otherwise."""
    body = der.content(der.SEQUENCE, extn_value)
    return next((body[start:end] for tag, _, start, end in der.elements(body) if tag == 0x80), None)


def encode_crl_distribution_point(url: str) -> bytes:
    """Return CRLDistributionPoints, DER, with one full name (RFC 5280 §4.2.1.13)."""
    return der.sequence(der.sequence(der.context(0, der.context(0, der.tlv(0x86, url.encode("ascii"))))))


def encode_ca_issuers(url: str) -> bytes:
    """Return AuthorityInfoAccessSyntax, DER, with one caIssuers URL (RFC 5280 §4.2.2.1)."""
    return der.sequence(der.sequence(der.oid("1.3.6.1.5.5.7.48.2"), der.tlv(0x86, url.encode("ascii"))))
