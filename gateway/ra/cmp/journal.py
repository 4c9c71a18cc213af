"""Audit events of CMP: one for each refusal of a message that the registration authority's verbs have not recorded."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gateway.audit import AuditEvent
from gateway.cmp import Message
from gateway.errors import Rejection
from gateway.model import ProfileName, Protocol

UNAUTHENTICATED = "unauthenticated"


def refusal(
    message: Message, profile: ProfileName, actor: str, refused: Rejection, source: str, generation: int, at: datetime
) -> AuditEvent:
    """Return the event of a refusal; `actor` is empty where nobody proved who he is."""
    return _event(message, profile, actor, source, generation, at, "cmp.rejected", "refused", refused)


def client_error(
    message: Message, profile: ProfileName, actor: str, text: str, source: str, generation: int, at: datetime
) -> AuditEvent:
    """Return the event of an error that a client reports, in its own words."""
    return _event(message, profile, actor, source, generation, at, "cmp.error", "done", None, f"the client says: {text}")


def forwarded(
    message: Message, profile: ProfileName, actor: str, inner: Iterable[Message], source: str, generation: int, at: datetime
) -> AuditEvent:
    """Return the event of messages that a registration authority sends on, by their transactions; each has its own rows too."""
    ids = [(one.header.transaction_id or one.digest[:16]).hex() for one in inner]
    return _event(message, profile, actor, source, generation, at, "cmp.forwarded", "done", None, f"transactions {' '.join(ids)}")


def _event(
    message: Message,
    profile: ProfileName,
    actor: str,
    source: str,
    generation: int,
    at: datetime,
    event: str,
    decision: str,
    refused: Rejection | None,
    detail: str = "",
) -> AuditEvent:
    return AuditEvent(
        event=event,
        at=at,
        actor=actor or UNAUTHENTICATED,
        decision=decision,
        source=source,
        protocol=Protocol.CMP,
        profile=profile,
        operation=message.type.operation,
        transaction_id=(message.header.transaction_id or b"").hex(),
        request_sha256=message.digest.hex(),
        reason=refused.reason if refused else None,
        detail=refused.cause if refused else detail,
        generation=generation,
    )
