"""Audit events of ACME's state machines: one for each change, in the same transaction, and for each refusal of an account."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Identifier, ProfileName, Protocol, RequestId
from gateway.ra.credentials.acme_order import identity_of


def change(
    event: str,
    account: str,
    profile: ProfileName,
    at: datetime,
    *,
    source: str,
    decision: str = "done",
    operation: str = "",
    transaction_id: str = "",
    request_id: RequestId | None = None,
    identifiers: Iterable[Identifier] = (),
    public_key_sha256: bytes | None = None,
    reason: Reason | None = None,
    detail: str = "",
    generation: int = 0,
) -> AuditEvent:
    """Return the event of an account's act, or of what became of one; `transaction_id` is the order's or authorization's ID."""
    return AuditEvent(
        event=event,
        at=at,
        actor=identity_of(account) if account else "unauthenticated",
        decision=decision,
        source=source,
        protocol=Protocol.ACME,
        profile=profile,
        operation=operation,
        transaction_id=transaction_id,
        request_id=request_id or "",
        public_key_sha256=public_key_sha256.hex() if public_key_sha256 else "",
        sans=texts(identifiers),
        reason=reason,
        detail=detail,
        generation=generation,
    )


def texts(identifiers: Iterable[Identifier]) -> tuple[str, ...]:
    """Return identifiers as `type:value`."""
    return tuple([f"{identifier.type}:{identifier.value}" for identifier in identifiers])
