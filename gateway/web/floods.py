"""What is counted instead of written: one audit row a reason for refusals, or a legacy algorithm in use, profile and minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from gateway.audit import AuditEvent
from gateway.errors import Reason, StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.model import Protocol

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 60.0
LOGGED_A_MINUTE = 5

Append = Callable[[Sequence[AuditEvent]], Awaitable[None]]


class _Counted(NamedTuple):
    """What shares one row: refusals for one reason, or accepted messages that use one legacy algorithm."""

    protocol: Protocol
    profile: str
    reason: Reason | None
    algorithm: str = ""


class FloodCounter:
    """Counts in memory, writes to the audit trail once a minute and at the end.

    Profiles must be configured names or empty, so that a client cannot make keys.
    """

    def __init__(self, append: Append, clock: Callable[[], datetime]) -> None:
        self._append = append
        self._clock = clock
        self._counts: dict[_Counted, int] = {}
        self._since = clock()

    def count(self, protocol: Protocol, profile: str, reason: Reason) -> bool:
        """Count one refusal; True for the first few of their kind in a minute, which are worth a log line of their own."""
        return self._add(_Counted(protocol, profile, reason)) <= LOGGED_A_MINUTE

    def count_algorithm(self, protocol: Protocol, profile: str, algorithm: str) -> None:
        """Count one accepted message that used a legacy algorithm, which must be a name from a closed set."""
        metrics.count_legacy_algorithm(protocol, profile, algorithm)
        self._add(_Counted(protocol, profile, None, algorithm))

    def _add(self, what: _Counted) -> int:
        count = self._counts[what] = self._counts.get(what, 0) + 1
        return count

    async def flush(self) -> None:
        """Write what was counted; it is kept when the store cannot take it."""
        counts, since = self._counts, self._since
        self._counts, self._since = {}, self._clock()
        if not counts:
            return
        try:
            await self._append([_event(what, count, since) for what, count in counts.items()])
        except StoreUnavailable as error:
            for what, count in counts.items():
                self._counts[what] = self._counts.get(what, 0) + count
            self._since = since
            metrics.count_audit_write_failure()
            log.warning("counts could not be written to the audit trail and are kept", cause=str(error))
            return
        for what, count in counts.items():
            _log_count(what, count)

    async def run(self) -> None:
        """Flush every minute until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()


def _log_count(what: _Counted, count: int) -> None:
    if what.reason is None:
        log.info("legacy algorithm used", protocol=what.protocol, profile=what.profile, algorithm=what.algorithm, count=count)
    else:
        log.info("requests refused", protocol=what.protocol, profile=what.profile, reason=what.reason, count=count)


def _event(what: _Counted, count: int, since: datetime) -> AuditEvent:
    return AuditEvent(
        event="request.refused" if what.reason else "algorithm.legacy",
        at=since.astimezone(UTC),
        actor="anonymous",
        decision="refused" if what.reason else "done",
        protocol=what.protocol,
        profile=what.profile,
        reason=what.reason,
        detail=what.algorithm,
        count=count,
    )
