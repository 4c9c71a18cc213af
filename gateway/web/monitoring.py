"""The monitoring listener: `/livez`, `/readyz` and `/metrics` of all workers at once (Prometheus text format 0.0.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from gateway.web.middleware import plain
from gateway.web.ops import KEPT_SECONDS, PROBE_TIMEOUT

log = structlog.get_logger(__name__)

MEDIA_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class NotReadyError(Exception):
    """Requests should be sent elsewhere; the text names what fails, in words that strangers may read."""


Exposition = Callable[[bool], Awaitable[bytes]]
"""Returns all metrics as text, told whether the service is ready."""


class MonitoringEndpoint:
    """Answers in a few words, or with every metric.

    `is_alive` says that a worker's loop turned lately. `check` returns when every worker could take requests and raises
    NotReadyError otherwise; workers keep their own answers for a while, so that nobody can make them write at will. An upstream
    CA is part of neither: its outage concerns its own profiles.
    """

    def __init__(self, is_alive: Callable[[], bool], check: Callable[[], Awaitable[None]], exposition: Exposition) -> None:
        self._is_alive = is_alive
        self._check = check
        self._exposition = exposition
        self._fault = ""
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/livez", self.livez), web.get("/readyz", self.readyz), web.get("/metrics", self.metrics)]

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while this process and at least one worker turn, else 503."""
        return plain(200, "ok") if self._is_alive() else plain(503, "no worker answers")

    async def readyz(self, _request: web.Request) -> web.Response:
        """200, or 503 when the service should get no requests; it names what fails, and the log says why."""
        fault = await self._find_fault()
        return plain(200, "ok") if not fault else plain(503, f"not ready: {fault}", retry_after=int(KEPT_SECONDS))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Every metric of the supervisor and the workers, those of ended ones included."""
        body = await self._exposition(not await self._find_fault())
        return web.Response(body=body, headers={"Content-Type": MEDIA_METRICS})

    async def _find_fault(self) -> str:
        """Return in a few words what keeps the service from taking requests, and log each change; empty when nothing does."""
        fault = await self._ask()
        if fault != self._fault:
            self._fault = fault
            log.warning("readiness has changed", ready=not fault, cause=fault or None)
        return fault

    async def _ask(self) -> str:
        if self.draining:
            return "the service ends"
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._check()
        except TimeoutError:
            return "workers do not answer"
        except NotReadyError as error:
            # The worker whose probe failed has logged the cause as an error.
            return str(error)
        except Exception:
            # Whatever it is, requests are better sent elsewhere.
            log.exception("readiness cannot be found out")
            return "unknown"
        return ""
