"""What strangers may cost: refusals counted into one audit row a reason, profile and minute, and a brake on guessing."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from math import ceil
from time import monotonic

import structlog

from gateway.audit import AuditEvent
from gateway.errors import Reason, StoreUnavailable
from gateway.model import Protocol

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 60.0
LOGGED_A_MINUTE = 5
FAILURES_A_MINUTE = 60
MAX_SOURCES = 4096

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


class FailureBrake:
    """Counts failed authentications by profile and source address, so that nobody guesses on, or fills the audit trail, for ever.

    After sixty of them in a minute an address is refused before its messages are worked on, until the minute is over. Successes
    do not count: a proxy enrolls many devices from one address. Where more addresses fail in a minute than are kept, those that
    came too late share one count a profile.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._until = 0.0

    def retry_after(self, profile: str, source: str) -> int | None:
        """Return in how many seconds this address may try again; None when it may now."""
        left = self._until - self._clock()
        if left <= 0 or self._counts.get(self._key(profile, source), 0) < FAILURES_A_MINUTE:
            return None
        return ceil(left)

    def count(self, profile: str, source: str) -> None:
        """Count one failed authentication."""
        now = self._clock()
        if now >= self._until:
            self._counts.clear()
            self._until = now + FLUSH_SECONDS
        key = self._key(profile, source)
        self._counts[key] = self._counts.get(key, 0) + 1

    def _key(self, profile: str, source: str) -> tuple[str, str]:
        key = (profile, _network(source))
        return key if key in self._counts or len(self._counts) < MAX_SOURCES else (profile, "")


def _network(source: str) -> str:
    """Return the address, of IPv6 the /64 that one host may use as it likes."""
    if ":" not in source:
        return source
    try:
        return str(ipaddress.ip_network((source.partition("%")[0], 64), strict=False))
    except ValueError:
        return source


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
