"""Identifiers of orders: how they are written, and the one form in which they are compared (RFC 8555 §7.1.4, RFC 8738 §3)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import idna

from gateway.acme import IdentifiersRejected
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Identifier, IdentifierType

MAX_VALUE = 255
MAX_DNS = 253
MAX_REQUESTED = 1000
"""Identifiers of one request that are looked at; profiles allow fewer."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
"""Machines of Windows have underscores: patterns of the policy say whether they are certified."""
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,38})){1,40}", re.ASCII)


def parse_identifiers(raw: object) -> tuple[Identifier, ...]:
    """Return the identifiers of a newOrder in their comparable form, each once and in the order that they came.

    Raises MalformedMessage; IdentifiersRejected where single names are wrong, with all of them; Rejection UNSUPPORTED_IDENTIFIER.
    """
    if not isinstance(raw, list) or not raw:
        raise MalformedMessage("the order does not name any identifiers")
    if len(raw) > MAX_REQUESTED:
        raise MalformedMessage(f"the order names more than {MAX_REQUESTED} identifiers")
    found: dict[Identifier, None] = {}
    problems: list[tuple[Identifier, Reason, str]] = []
    for entry in raw:
        identifier = read_identifier(entry)
        try:
            found[compare(identifier)] = None
        except MalformedMessage as error:
            problems.append((identifier, Reason.MALFORMED, error.detail))
    if problems:
        raise IdentifiersRejected(Reason.MALFORMED, _sentence(problems), tuple(problems))
    return tuple(found)


def _sentence(problems: list[tuple[Identifier, Reason, str]]) -> str:
    first, _, text = problems[0]
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{printable(first.value)!r}: {text}{more}"


def read_identifier(raw: object) -> Identifier:
    """Return an identifier as it was written; raises MalformedMessage, or Rejection UNSUPPORTED_IDENTIFIER for its type."""
    if not isinstance(raw, Mapping):
        raise MalformedMessage("an identifier is an object of type and value")
    kind, value = _text(raw, "type"), _text(raw, "value")
    try:
        return Identifier(IdentifierType(kind), value)
    except ValueError:
        text = f"identifiers of type {printable(kind)!r} are not supported"
        raise Rejection(Reason.UNSUPPORTED_IDENTIFIER, text) from None


def _text(raw: Mapping[Any, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_VALUE:
        raise MalformedMessage(f"the {name} of an identifier is absent, too long or no text")
    return value


def compare(identifier: Identifier) -> Identifier:
    """Return the comparable form; raises MalformedMessage, whose detail is fit to stand beside the name."""
    return Identifier(identifier.type, _COMPARABLE[identifier.type](identifier.value))


def domain(value: str) -> str:
    """Return a DNS name, not a wildcard, in its comparable form; raises MalformedMessage."""
    if value.startswith("*."):
        raise MalformedMessage("a wildcard does not belong here")
    return _dns(value)


def _dns(value: str) -> str:
    if not value.isascii():
        raise MalformedMessage("international names are written as A-labels (xn--)")
    name = value.lower()
    if len(name) > MAX_DNS:
        raise MalformedMessage(f"the name has more than {MAX_DNS} characters")
    labels = name.removeprefix("*.").split(".")
    if labels[-1].isdigit():
        raise MalformedMessage("this is no DNS name; addresses are identifiers of type ip")
    for label in labels:
        _check_label(label)
    return name


def _check_label(label: str) -> None:
    if _LABEL.fullmatch(label) is None:
        raise MalformedMessage("a label is empty, too long, or has characters that DNS names of hosts do not have")
    if label[2:4] != "--":
        return
    try:
        if not label.startswith("xn--") or idna.alabel(idna.ulabel(label)) != label.encode("ascii"):
            raise MalformedMessage("a label is no A-label")
    except UnicodeError:
        raise MalformedMessage("a label is no A-label") from None


def _address(value: str) -> str:
    """RFC 8738 §3; a zone (`%eth0`) means nothing to others."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise MalformedMessage("this is no IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise MalformedMessage("an address with a zone cannot be certified")
    return str(address)


def _permanent(value: str) -> str:
    """`identifierValue`, or `identifierValue/assigner`, octet for octet (draft-ietf-acme-device-attest §3)."""
    text, slash, assigner = value.partition("/")
    if not text.isprintable() or not text or (slash and _OID.fullmatch(assigner) is None):
        raise MalformedMessage("a permanent identifier is a text without '/', and may be followed by '/' and its assigner's OID")
    return value


def _hardware(value: str) -> str:
    """`hwSerialNum/hwType`, octet for octet (draft-ietf-acme-device-attest §4)."""
    text, _, kind = value.partition("/")
    if not text.isprintable() or not text or _OID.fullmatch(kind) is None:
        raise MalformedMessage("a hardware module is its serial number, '/' and the OID of its type")
    return value


_COMPARABLE: Mapping[IdentifierType, Callable[[str], str]] = MappingProxyType(
    {
        IdentifierType.DNS: _dns,
        IdentifierType.IP: _address,
        IdentifierType.PERMANENT_IDENTIFIER: _permanent,
        IdentifierType.HARDWARE_MODULE: _hardware,
    }
)


def printable(text: str, most: int = 100) -> str:
    """Return what a client wrote, fit to be repeated to it in a sentence."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])
