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

Exposition = Callable[[bool], Awaitable[bytes]]
"""Returns all metrics as text, told whether the service is ready."""


class MonitoringEndpoint:
    """Answers with one word, or with every metric.

    `is_alive` says that a worker's loop turned lately. `check` returns when every worker could take requests and raises
    otherwise; workers keep their own answers for a while, so that nobody can make them write at will. An upstream CA is part of
    neither: its outage concerns its own profiles.
    """

    def __init__(self, is_alive: Callable[[], bool], check: Callable[[], Awaitable[None]], exposition: Exposition) -> None:
        self._is_alive = is_alive
        self._check = check
        self._exposition = exposition
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/livez", self.livez), web.get("/readyz", self.readyz), web.get("/metrics", self.metrics)]

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while this process and at least one worker turn, else 503."""
        return plain(200, "ok") if self._is_alive() else plain(503, "no worker answers")

    async def readyz(self, _request: web.Request) -> web.Response:
        """200, or 503 when the service should get no requests."""
        return plain(200, "ok") if await self._is_ready() else plain(503, "not ready", retry_after=int(KEPT_SECONDS))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Every metric of the supervisor and the workers, those of ended ones included."""
        body = await self._exposition(await self._is_ready())
        return web.Response(body=body, headers={"Content-Type": MEDIA_METRICS})

    async def _is_ready(self) -> bool:
        if self.draining:
            return False
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._check()
        except Exception as error:  # noqa: BLE001  whatever it is, requests are better sent elsewhere
            # The worker whose probe failed has logged it as an error.
            log.debug("not ready", cause=str(error) or type(error).__name__)
            return False
        return True
