"""Liveness and readiness for load balancers and supervisors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import structlog
from aiohttp import web

from gateway.web.middleware import plain
from gateway.web.reminder import Reminder

log = structlog.get_logger(__name__)

KEPT_SECONDS = 5.0
"""How long a probe's answer is kept: a prober must not be able to make the store write at will."""
PROBE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that must work before this worker is given requests; `check` raises when it does not."""

    name: str
    check: Callable[[], Awaitable[None]]


class Readiness:
    """Whether this worker can take requests: every probe passes and it is not draining.

    An upstream CA is not probed: its outage concerns its own profiles and must not take every node out of service.
    """

    def __init__(self, probes: tuple[Probe, ...]) -> None:
        self._probes = probes
        self._lock = asyncio.Lock()
        self._checked_at = float("-inf")
        self._failed: tuple[str, ...] = ()
        self._reminder = Reminder()
        self.draining = False

    async def failures(self) -> tuple[str, ...]:
        """Return the names of what does not work; empty when ready."""
        if self.draining:
            return ("draining",)
        async with self._lock:
            if monotonic() - self._checked_at >= KEPT_SECONDS:
                self._failed = tuple([p.name for p in self._probes if not await self._passes(p)])
                self._checked_at = monotonic()
        return self._failed

    async def _passes(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await probe.check()
        except Exception as error:  # noqa: BLE001  whatever a probe raises means not ready
            cause = str(error) or type(error).__name__
            if self._reminder.is_due(probe.name, cause):
                log.error("not ready", probe=probe.name, cause=cause)  # noqa: TRY400
            return False
        self._reminder.forget(probe.name)
        return True


class OpsEndpoint:
    """`/livez` and `/readyz`: one word each, no detail for strangers."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/livez", self.livez), web.get("/readyz", self.readyz)]

    async def livez(self, _request: web.Request) -> web.Response:
        """The event loop turns."""
        return plain(200, "ok")

    async def readyz(self, _request: web.Request) -> web.Response:
        """200, or 503 when this worker should get no requests."""
        if await self._readiness.failures():
            return plain(503, "not ready", retry_after=int(KEPT_SECONDS))
        return plain(200, "ok")
