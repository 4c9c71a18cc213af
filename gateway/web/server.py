"""The HTTP server of one worker: routes, middleware, limits, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.web.listener import Admission, Listener
from gateway.web.middleware import BodyLimits, InFlight, LastWords, Spell, as_it_is, guard

KEEPALIVE_SECONDS = 75.0
"""How long an idle connection, or one with half a header, stays open: longer than a reverse proxy keeps it (60 s)."""
LINGER_SECONDS = 1.0
"""How long the rest of a refused body is read away, so that its sender sees the answer."""
GRACE_SECONDS = 5.0
"""How long idle connections stay open at the end: what a client is sending at this moment is still answered."""
LOOK_SECONDS = 0.02
"""How often it is looked whether all connections are gone, at the end."""
MAX_HEADERS = 64
UNCOUNTED = frozenset({"/livez", "/readyz"})
"""Answered however busy the worker is: a probe must not take a loaded worker for a dead one."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes in bytes; all are checked before an endpoint runs."""

    request_line: int
    header: int
    body: BodyLimits
    in_flight: int


def _quiet_refusals(record: logging.LogRecord) -> bool:
    """Drop what aiohttp logs with a traceback for every request that is not HTTP: clients could fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def build_app(
    routes: Sequence[web.RouteDef], body: BodyLimits, places: InFlight, last: LastWords, spell: Spell = as_it_is
) -> web.Application:
    """Return an application whose requests pass every limit before their endpoint; `spell` words what the limits refuse."""
    app = web.Application(middlewares=[guard(body, places, UNCOUNTED.intersection(route.path for route in routes), spell)])
    app.on_response_prepare.append(last.add)
    app.add_routes(routes)
    return app


class HttpServer:
    """Serves routes on sockets that the caller bound."""

    def __init__(self, routes: Sequence[web.RouteDef], limits: HttpLimits, drain_seconds: float, spell: Spell = as_it_is) -> None:
        logger = logging.getLogger("gateway.http")
        logger.addFilter(_quiet_refusals)
        self._places = InFlight(limits.in_flight)
        self._last = LastWords()
        self._grace = min(GRACE_SECONDS, drain_seconds / 2)
        self._runner = web.AppRunner(
            build_app(routes, limits.body, self._places, self._last, spell),
            handle_signals=False,
            access_log=None,
            logger=logger,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=limits.request_line,
            max_field_size=limits.header,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            # aiohttp waits twice as long for requests in flight, the second time after it has broken off their bodies.
            shutdown_timeout=(drain_seconds - self._grace) / 2,
        )
        self._listeners: list[Listener] = []
        self._sites: list[web.BaseSite] = []

    @property
    def in_flight(self) -> int:
        """How many requests are worked on now."""
        return self._places.count

    async def start(self) -> None:
        """Prepare; nothing is accepted before `listen`."""
        await self._runner.setup()

    def listen(self, sock: socket.socket, admission: Admission, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Accept connections on `sock`, which stays the caller's; `tls` is asked for the context of each connection."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("start() comes before listen()")
        listener = Listener(sock, server, admission, tls)
        listener.start()
        self._listeners.append(listener)

    async def listen_unix(self, sock: socket.socket) -> None:
        """Accept connections of local users on a unix socket, without caps: its file mode says who may."""
        site = web.SockSite(self._runner, sock)
        await site.start()
        self._sites.append(site)

    async def stop_accepting(self) -> None:
        """Take no further connection; other workers still may. Every answer from now on is the last one of its connection."""
        self._last.ending = True
        for listener in self._listeners:
            listener.stop()
        while self._sites:
            await self._sites.pop().stop()

    async def stop(self) -> None:
        """Take no further connection, keep idle ones for a grace, let requests in flight finish; all within `drain_seconds`."""
        await self.stop_accepting()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace
        while loop.time() < until and self._has_connections():  # noqa: ASYNC110 - aiohttp tells nobody when one ends
            await asyncio.sleep(LOOK_SECONDS)
        await self._runner.cleanup()

    def _has_connections(self) -> bool:
        server = self._runner.server
        return bool(server and server.connections) or any(listener.is_connecting for listener in self._listeners)
