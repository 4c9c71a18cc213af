"""Which names belong to whoever is called so: what a credential binds that knows its holder by one name."""

from __future__ import annotations

from typing import Literal

from gateway.model import NameBinding, SanKind

Sans = Literal["bound", "policy"]
"""Whose subject alternative names may be asked for: one's own, or any that policy lets through."""

_KINDS = (SanKind.DNS, SanKind.EMAIL, SanKind.UPN, SanKind.URI, SanKind.IP)


def own_sans(name: str) -> frozenset[tuple[SanKind, str]]:
    """Return the alternative names that are the name itself, of whatever kind it may be; never a SID."""
    return frozenset((kind, name) for kind in _KINDS)


def own_names(name: str, sans: Sans) -> NameBinding:
    """Bind CN to a name, in the request and in what is certified; alternative names too, unless policy is to judge them alone."""
    return NameBinding(common_name=name, allowed_sans=own_sans(name) if sans == "bound" else None, certified=True)
