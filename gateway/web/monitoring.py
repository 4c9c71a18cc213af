"""The monitoring listener: `/livez`, `/readyz` and `/metrics`, served by the supervisor (Prometheus exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.web.middleware import plain
from gateway.web.ops import KEPT_SECONDS, Readiness

MEDIA_METRICS = "text/plain; version=0.0.4; charset=utf-8"

Exposition = Callable[[bool], Awaitable[bytes]]
"""Returns all metrics as text, told whether the service is ready."""


class MonitoringEndpoint:
    """Answers for all workers at once: one word, or every metric."""

    def __init__(self, is_alive: Callable[[], bool], readiness: Readiness, exposition: Exposition) -> None:
        self._is_alive = is_alive
        self._readiness = readiness
        self._exposition = exposition

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/livez", self.livez), web.get("/readyz", self.readyz), web.get("/metrics", self.metrics)]

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while this process and at least one worker turn, else 503."""
        return plain(200, "ok") if self._is_alive() else plain(503, "no worker turns")

    async def readyz(self, _request: web.Request) -> web.Response:
        """200, or 503 when the service should get no requests."""
        if await self._readiness.failures():
            return plain(503, "not ready", retry_after=int(KEPT_SECONDS))
        return plain(200, "ok")

    async def metrics(self, _request: web.Request) -> web.Response:
        """Every metric of the supervisor and the workers, those of ended ones included."""
        body = await self._exposition(not await self._readiness.failures())
        return web.Response(body=body, headers={"Content-Type": MEDIA_METRICS})
