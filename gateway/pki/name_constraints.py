"""Name constraints of CA certificates: which names may stand below them (RFC 5280 §4.2.1.10)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from gateway.errors import MalformedMessage
from gateway.model import Name, SanKind, SubjectAltName
from gateway.pki import der
from gateway.pki.names import ATTRIBUTE_OIDS, format_name, normalize_name, parse_name

NAME_CONSTRAINTS = "2.5.29.30"
MAX_SUBTREES = 512

_NormalName = tuple[tuple[tuple[str, str], ...], ...]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_OTHER_NAMES = frozenset({SanKind.UPN, SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE})
_KINDS = {0x81: SanKind.EMAIL, 0x82: SanKind.DNS, 0x86: SanKind.URI, 0x87: SanKind.IP, 0xA4: SanKind.DIRECTORY_NAME}


@dataclass(frozen=True, slots=True)
class Subtree:
    """One GeneralSubtree: text in lower case, a network, or the leading RDNs of a directory name; OTHER is not judged."""

    kind: SanKind
    base: str | _Network | _NormalName


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """Subtrees that are permitted, where a kind is listed at all, and excluded."""

    permitted: tuple[Subtree, ...]
    excluded: tuple[Subtree, ...]

    def violation(self, subject: Name, sans: tuple[SubjectAltName, ...]) -> str | None:
        """Return the first name that the constraints do not allow, as text, or None."""
        if subject.rdns and not self._allows(SanKind.DIRECTORY_NAME, normalize_name(subject)):
            return format_name(subject)
        for address in subject.values(ATTRIBUTE_OIDS["emailAddress"]):
            if not any(s.kind is SanKind.EMAIL for s in sans) and not self._allows(SanKind.EMAIL, address):
                return address
        for san in sans:
            kind = SanKind.URI if san.kind is SanKind.SID else san.kind
            directory = kind is SanKind.DIRECTORY_NAME
            if not self._allows(kind, normalize_name(parse_name(der.content(0xA4, san.der))) if directory else san.value):
                return san.value
        return None

    def _allows(self, kind: SanKind, value: str | _NormalName) -> bool:
        kind = SanKind.OTHER if kind in _OTHER_NAMES else kind
        permitted = [s for s in self.permitted if s.kind is kind]
        excluded = [s for s in self.excluded if s.kind is kind]
        if not permitted and not excluded:
            return True
        if kind is SanKind.OTHER or (kind is SanKind.URI and not _has_host_name(str(value))):
            return False  # constrained, and whether it is inside cannot be told
        if permitted and not any(_within(s, value) for s in permitted):
            return False
        return not any(_within(s, value) or _covers(value, s.base) for s in excluded)


def parse_name_constraints(extn_value: bytes) -> NameConstraints:
    """Decode the content of a nameConstraints extension; MalformedMessage when it is broken."""
    body = der.content(der.SEQUENCE, extn_value)
    lists: dict[int, tuple[Subtree, ...]] = {0xA0: (), 0xA1: ()}
    for tag, _, start, end in der.elements(body):
        subtrees = der.elements(body, start, end, MAX_SUBTREES)
        if tag not in lists:
            raise MalformedMessage("name constraints are broken")
        lists[tag] = tuple(_parse_subtree(body, *subtree) for subtree in subtrees)
    return NameConstraints(lists[0xA0], lists[0xA1])


def _parse_subtree(body: bytes, tag: int, _: int, start: int, end: int) -> Subtree:
    base_tag, base_start, base_end = der.read(body, start)
    kind = _KINDS.get(base_tag, SanKind.OTHER)
    if tag != der.SEQUENCE or base_end != end:  # minimum and maximum must not be used
        raise MalformedMessage("name constraints are broken")
    content = body[base_start:base_end]
    if kind is SanKind.OTHER:
        return Subtree(kind, "")
    if kind is SanKind.DIRECTORY_NAME:
        return Subtree(kind, normalize_name(parse_name(content)))
    if kind is SanKind.IP:
        return Subtree(kind, _network(content))
    try:
        return Subtree(kind, content.decode("ascii").lower())
    except UnicodeDecodeError:
        raise MalformedMessage("name constraints are broken") from None


def _network(content: bytes) -> _Network:
    half = len(content) // 2
    if len(content) not in {8, 32}:
        raise MalformedMessage("name constraints are broken", "address and mask have another length")
    mask = int.from_bytes(content[half:])
    prefix = mask.bit_count()
    if mask != ((1 << prefix) - 1) << (half * 8 - prefix):
        raise MalformedMessage("name constraints are broken", "network mask with holes")
    return ipaddress.ip_network((content[:half], prefix), strict=False)


def _within(subtree: Subtree, value: str | _NormalName) -> bool:
    base = subtree.base
    if isinstance(value, tuple):
        return isinstance(base, tuple) and value[: len(base)] == base
    if isinstance(base, str):
        text = value.lower()
        if subtree.kind is SanKind.DNS:
            return _is_subdomain(text, base)
        if subtree.kind is SanKind.EMAIL:
            return _is_mailbox_within(text, base)
        return _is_host_within(_uri_host(text), base)
    return not isinstance(base, tuple) and ipaddress.ip_address(value) in base


def _is_subdomain(name: str, base: str) -> bool:
    """Whether labels can be added on the left of `base` to make `name`; a leading dot, as OpenSSL writes it, is tolerated."""
    base = base.lstrip(".")
    return not base or name == base or name.endswith("." + base)


def _covers(value: str | _NormalName, base: str | _Network | _NormalName) -> bool:
    """Whether the wildcard DNS name `value` stands for the excluded name `base` too."""
    if not isinstance(value, str) or not isinstance(base, str) or not value.startswith("*."):
        return False
    label, dot, rest = base.partition(".")
    return bool(label and dot) and rest == value[2:].lower()


def _is_mailbox_within(address: str, base: str) -> bool:
    if "@" in base:
        return address == base
    return _is_host_within(address.rpartition("@")[2], base)


def _is_host_within(host: str, base: str) -> bool:
    """A leading dot means every host below, otherwise the one host is meant (RFC 5280 §4.2.1.10)."""
    return host.endswith(base) if base.startswith(".") else host == base


def _has_host_name(uri: str) -> bool:
    """Whether `uri` names a host by a DNS name; others must be refused under constraints (RFC 5280 §4.2.1.10)."""
    host = _uri_host(uri)
    return bool(host) and host[0] != "[" and not host.rpartition(".")[2].isdigit()


def _uri_host(uri: str) -> str:
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
    return authority.rpartition("@")[2].partition(":")[0]
