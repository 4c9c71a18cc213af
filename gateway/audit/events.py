"""Audit events: one decision about an identified request, or one act of an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from gateway.errors import Reason


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One decision about an identified request, or one operator's act.

    `event` is dotted and closed: `enrollment.opened`, `enrollment.issued`, `enrollment.rejected`, `enrollment.pending`,
    `enrollment.unknown`, `certificate.revoked`, `challenge.created`, `crl.published`, … `decision` is `granted`,
    `refused`, `pending` or `done`. `actor` is the requester's identity or `uid:0 (root)`.
    Digests are lower-case hex. Nothing here is ever a secret.
    """

    event: str
    at: datetime
    actor: str
    decision: str
    source: str = ""
    protocol: str = ""
    profile: str = ""
    operation: str = ""
    transaction_id: str = ""
    request_id: str = ""
    request_sha256: str = ""
    public_key_sha256: str = ""
    upstream_ca: str = ""
    serial: str = ""
    subject: str = ""
    sans: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str = ""
    generation: int = 0
    count: int = 1
    """More than one for counted floods: so many in the minute that began at `at`."""


def _write_time(at: datetime) -> str:
    return f'"{at.isoformat()}"'


def _write_texts(texts: tuple[str, ...]) -> str:
    return f"[{','.join(map(encode_basestring_ascii, texts))}]"


_NAMES = tuple(sorted(AuditEvent.__dataclass_fields__))
_WRITERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {"at": _write_time, "sans": _write_texts, "generation": str, "count": str}
)
"""How a field is written that is no text."""
_FIELDS = tuple((f'"{name}":', _WRITERS.get(name, encode_basestring_ascii)) for name in _NAMES)
_values = attrgetter(*_NAMES)


def canonical_body(event: AuditEvent) -> str:
    """Return the event as canonical JSON: sorted keys, no spaces, empty fields left out."""
    # The names are sorted once, here and not by `json`; false is exactly what is empty: a text, None, no names, nought.
    fields = [key + write(value) for (key, write), value in zip(_FIELDS, _values(event), strict=True) if value]
    return f"{{{','.join(fields)}}}"
