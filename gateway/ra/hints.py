"""When CAs want their certificates renewed, asked for with little patience and kept for as long as they say (RFC 9773 §4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from gateway.ca.interfaces import Capability, RenewalHint, UpstreamCA
from gateway.metrics.registry import UpstreamOperation
from gateway.ra.leases import done_within
from gateway.ra.profile import Snapshot
from gateway.ra.upstream import ask
from gateway.store.interfaces import InventoryRow

log = structlog.get_logger(__name__)

WAIT = 2.0
"""Seconds that a client waits for a CA's hint; after them it gets the window that the gateway suggests."""
ASKED_WITHIN = 10.0
"""Seconds that the CA has, for the next client's sake."""
AT_ONCE = 8
"""Questions that one worker has open: everybody who can name a certificate can have one asked."""
KEPT = 10_000
"""Certificates whose hints one worker remembers."""
SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=1)
"""Bounds of what a CA may say about when to ask again."""
AFTER_FAILURE = timedelta(minutes=5)
WITHOUT_HINT = timedelta(hours=1)
STALE = timedelta(days=2)
"""How long a hint serves whose CA cannot be asked any more."""
_LONGEST_URL = 512
_MOMENT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Known:
    """A hint, or that there is none, heard at `at`; until `ask_at` the CA is not asked again."""

    hint: RenewalHint | None
    at: datetime
    ask_at: datetime


class Hints:
    """One worker's memory of hints; a CA that is slow or down costs its clients two seconds once, and no more."""

    def __init__(self, clock: Callable[[], datetime], wait: float = WAIT) -> None:
        self._clock = clock
        self._wait = wait
        self._known: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[None]] = {}

    async def find(self, snapshot: Snapshot, row: InventoryRow) -> RenewalHint | None:
        """Return when the CA wants a certificate renewed; None where it does not say, or not in time. Never raises."""
        upstream = snapshot.upstream_cas.get(row.upstream_ca)
        if upstream is None or Capability.RENEWAL_HINT not in upstream.capabilities:
            return None
        if not self._is_fresh(row.sha256):
            task = self._asking.get(row.sha256)
            if task is None and len(self._asking) < AT_ONCE:
                task = self._start(snapshot, upstream, row)
            if task is not None:
                await done_within(task, self._wait)
        known = self._known.get(row.sha256)
        return None if known is None or self._clock() - known.at > STALE else known.hint

    def close(self) -> None:
        """Give up what is being asked."""
        for task in tuple(self._asking.values()):
            task.cancel()

    def _is_fresh(self, sha256: bytes) -> bool:
        """Whether the CA need not be asked now; a time that was set under a clock that ran ahead does not count."""
        known, now = self._known.get(sha256), self._clock()
        return known is not None and now < known.ask_at <= now + LONGEST

    def _start(self, snapshot: Snapshot, upstream: UpstreamCA, row: InventoryRow) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._ask(upstream, row), name=f"hint-{row.sha256[:4].hex()}")
        self._asking[row.sha256] = task
        task.add_done_callback(lambda _: self._asking.pop(row.sha256, None))
        snapshot.occupancy.extend(task)
        return task

    async def _ask(self, upstream: UpstreamCA, row: InventoryRow) -> None:
        try:
            heard = await ask(upstream, UpstreamOperation.RENEWAL_HINT, upstream.renewal_hint(row.der), ASKED_WITHIN)
            hint = None if heard is None else _sound(heard, row)
        except Exception as error:  # noqa: BLE001  a hint is a kindness: without one the gateway suggests a window
            self._forgo(row, str(error) or type(error).__name__)
            return
        pause = WITHOUT_HINT if hint is None else timedelta(seconds=hint.retry_after)
        now = self._clock()
        self._remember(row.sha256, _Known(hint, now, now + pause))

    def _forgo(self, row: InventoryRow, cause: str) -> None:
        """Go on with what is known for a while."""
        log.info("the CA did not say when to renew", upstream_ca=row.upstream_ca, serial=format(row.serial, "x"), cause=cause)
        now = self._clock()
        known = self._known.get(row.sha256) or _Known(None, now, now)
        self._remember(row.sha256, replace(known, ask_at=now + AFTER_FAILURE))

    def _remember(self, sha256: bytes, known: _Known) -> None:
        """Keep what was heard, in place of what was heard longest ago where there is too much."""
        self._known.pop(sha256, None)
        self._known[sha256] = known
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]


def _sound(hint: RenewalHint, row: InventoryRow) -> RenewalHint | None:
    """Return a CA's hint within bounds; None for a window that has no length, or begins when the certificate has ended."""
    start = hint.start.replace(microsecond=0)
    end = min(hint.end, row.not_after).replace(microsecond=0)
    if hint.end <= hint.start or start >= row.not_after:
        log.warning("the CA's hint when to renew makes no sense", upstream_ca=row.upstream_ca, serial=format(row.serial, "x"))
        return None
    seconds = max(SHORTEST.total_seconds(), min(LONGEST.total_seconds(), hint.retry_after))
    return RenewalHint(start, max(end, start + _MOMENT), int(seconds), _sound_url(hint.explanation_url))


def _sound_url(url: str | None) -> str | None:
    """Return a URL that may be handed on to clients."""
    if url is None or len(url) > _LONGEST_URL or not url.startswith(("https://", "http://")):
        return None
    return url if url.isascii() and url.isprintable() and " " not in url else None
