"""The audit trail: one HMAC chain of events under `audit.key`, and signed heads that show a cut tail."""

from __future__ import annotations

import hashlib
import hmac
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


GENESIS = bytes(32)
"""What the first row of a chain follows."""


def canonical_body(event: AuditEvent) -> str:
    """Return the event as canonical JSON: sorted keys, no spaces, empty fields left out."""
    raw = {
        name: value
        for name in AuditEvent.__dataclass_fields__
        if (value := getattr(event, name)) not in ("", None, (), 0)
    }
    raw["at"] = event.at.isoformat()
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def link(key: bytes, seq: int, previous: bytes, body: str) -> bytes:
    """Return the hash of row `seq` that follows `previous`."""
    return hmac.digest(key, seq.to_bytes(8, "big") + previous + body.encode("ascii"), hashlib.sha256)
