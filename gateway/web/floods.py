"""Refusals that are counted instead of written: one audit row a reason, profile and minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog

from gateway.audit import AuditEvent
from gateway.errors import Reason, StoreUnavailable
from gateway.model import Protocol

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 60.0
LOGGED_A_MINUTE = 5

Append = Callable[[Sequence[AuditEvent]], Awaitable[None]]


class FloodCounter:
    """Counts in memory, writes to the audit trail once a minute and at the end.

    Profiles must be configured names or empty, so that a client cannot make keys.
    """

    def __init__(self, append: Append, clock: Callable[[], datetime]) -> None:
        self._append = append
        self._clock = clock
        self._counts: dict[tuple[Protocol, str, Reason], int] = {}
        self._since = clock()

    def count(self, protocol: Protocol, profile: str, reason: Reason) -> bool:
        """Count one refusal; True for the first few of their kind in a minute, which are worth a log line of their own."""
        key = (protocol, profile, reason)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= LOGGED_A_MINUTE

    async def flush(self) -> None:
        """Write what was counted; it is kept when the store cannot take it."""
        counts, since = self._counts, self._since
        self._counts, self._since = {}, self._clock()
        if not counts:
            return
        events = [_event(key, count, since) for key, count in counts.items()]
        try:
            await self._append(events)
        except StoreUnavailable as error:
            for key, count in counts.items():
                self._counts[key] = self._counts.get(key, 0) + count
            self._since = since
            log.warning("refusals could not be written to the audit trail and are kept", cause=str(error))
            return
        for event in events:
            log.info("requests refused", protocol=event.protocol, profile=event.profile, reason=event.reason, count=event.count)

    async def run(self) -> None:
        """Flush every minute until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


def _event(key: tuple[Protocol, str, Reason], count: int, since: datetime) -> AuditEvent:
    protocol, profile, reason = key
    return AuditEvent(
        event="request.refused",
        at=since.astimezone(UTC),
        actor="anonymous",
        decision="refused",
        protocol=protocol,
        profile=profile,
        reason=reason,
        count=count,
    )
