"""What a CSR should hold, told before it is made: RFC 7030's list and RFC 9908's template (RFC 7030 §4.5, RFC 9908 §3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["template", "legacy", "both", "off"]


@dataclass(frozen=True, slots=True)
class KeyDemand:
    """The one kind of key that is accepted; `curve` for EC, `bits` for RSA."""

    algorithm: str
    """As in model.PublicKey."""
    curve: str | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Demands:
    """What a profile's policy wants to find in a CSR."""

    subject: tuple[tuple[str, str | None], ...] = ()
    """Attributes that the subject must have: dotted OID, and the value where the policy sets it."""
    key: KeyDemand | None = None
    """None: the client chooses."""
    key_usage: tuple[str, ...] = ()
    """Bits by name."""
    ekus: tuple[str, ...] = ()
    """Dotted OIDs."""
    san: bool = False
    """A subject alternative name must be there."""
    linking: bool = False
    """Proof of possession must be linked to the connection."""


def encode_csrattrs(demands: Demands, form: Form) -> bytes | None:
    """Return CsrAttrs, DER; None where there is nothing to tell (RFC 7030 §4.5.2)."""
    raise NotImplementedError
