"""Audit events: one decision about an identified request, or one act of an operator."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

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


_NAMES = tuple(sorted(AuditEvent.__dataclass_fields__))
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def canonical_body(event: AuditEvent) -> str:
    """Return the event as canonical JSON: sorted keys, no spaces, empty fields left out."""
    # Sorted names, and false is exactly what is empty: a text, None, no names, nought.
    raw = {name: value for name in _NAMES if (value := getattr(event, name))}
    raw["at"] = event.at.isoformat()
    return _encode(raw)
