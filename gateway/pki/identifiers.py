"""Identifiers of ACME orders and subject alternative names: which name proves which (RFC 8555 §7.4, RFC 8738 §3)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType

from gateway.model import Identifier, IdentifierType, SanKind, SubjectAltName
from gateway.pki.extensions import make_san

_KINDS: Mapping[IdentifierType, SanKind] = MappingProxyType(
    {
        IdentifierType.DNS: SanKind.DNS,
        IdentifierType.IP: SanKind.IP,
        IdentifierType.PERMANENT_IDENTIFIER: SanKind.PERMANENT_IDENTIFIER,
        IdentifierType.HARDWARE_MODULE: SanKind.HARDWARE_MODULE,
    }
)
_TYPES = MappingProxyType({kind: type_ for type_, kind in _KINDS.items()})


def to_san(identifier: Identifier) -> SubjectAltName:
    """Return the name that a certificate for `identifier` holds; ValueError says what is wrong with it."""
    return make_san(_KINDS[identifier.type], identifier.value)


def to_identifier(san: SubjectAltName) -> Identifier | None:
    """Return the identifier that proves a name, in its comparable form; None for kinds of names that no order has."""
    type_ = _TYPES.get(san.kind)
    match type_:
        case None:
            return None
        case IdentifierType.DNS:
            return Identifier(type_, san.value.lower())
        case IdentifierType.IP:
            return Identifier(type_, str(ipaddress.ip_address(san.value)))
        case _:
            return Identifier(type_, san.value)
