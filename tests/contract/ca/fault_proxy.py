"""Stands between the gateway and a CA over HTTP, and spoils what passes: what is lost on the way back has happened at the CA."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

BUSY = ("busy 429", "busy 503")
"""The CA never sees the request, and the gateway can know that."""
LOST_BEFORE = ("reset before", "page before", "redirect")
"""The CA never sees the request, and the gateway cannot know that."""
LOST_AFTER = ("reset after", "stall", "cut", "page", "bad gateway", "endless", "garbled", "empty")
"""The CA did what was asked, and its answer is lost."""
HARMLESS = ("slow", "short chain")
"""The answer is worth something all the same."""
FOREIGN = "another's answer"
TWICE = "delivered twice"
_PAGE = b"<!DOCTYPE html><html><title>Please sign in</title><body>The network wants to know who you are.</body></html>"
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer"})
_CHAINS = ("ca_chain", "certChain")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class FaultProxy:
    """One proxy; `faults` befall the next requests that `acts` is true of, one each; all else passes unharmed."""

    target: str
    acts: Callable[[web.Request], bool]
    faults: deque[str] = field(default_factory=deque)
    passed: int = 0
    """How many requests that act reached the CA."""
    earlier: _Answer | None = None
    """What the CA answered when it last acted and nothing was spoilt."""
    port: int = 0
    session: aiohttp.ClientSession | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    runner: web.AppRunner | None = field(default=None, repr=False)
    _site: web.TCPSite | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"{'https://localhost' if self.tls else 'http://127.0.0.1'}:{self.port}"

    async def listen(self) -> None:
        """Take connections, at the same port as before."""
        assert self.runner is not None
        self._site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await self._site.start()
        self.port = self.runner.addresses[0][1]

    async def leave(self) -> None:
        """Refuse connections."""
        assert self._site is not None
        await self._site.stop()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request a connection: what a client meets is the fault, and no connection that ended meanwhile."""
        answer = await self._serve(request)
        answer.force_close()
        return answer

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        acts = self.acts(request)
        fault = self.faults.popleft() if acts and self.faults else ""
        body = await request.read()
        match fault:
            case "busy 429" | "busy 503":
                return web.Response(status=int(fault[-3:]), text="busy", headers={"Retry-After": "7"})
            case "reset before":
                return _abort(request)
            case "page before":
                return web.Response(body=_PAGE, content_type="text/html")
            case "redirect":
                return web.Response(status=307, headers={"Location": f"{self.url}{request.rel_url}"})
            case _:
                pass
        answer = await self._forward(request, body, acts)
        if fault == TWICE:
            answer = await self._forward(request, body, acts)
        if acts and not fault:
            self.earlier = answer
        return await self._spoil(fault, request, answer)

    async def _forward(self, request: web.Request, body: bytes, acts: bool) -> _Answer:
        assert self.session is not None
        self.passed += acts
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        sent = self.session.request(
            request.method, f"{self.target}{request.rel_url}", data=body or None, headers=headers, allow_redirects=False
        )
        async with sent as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return _Answer(answer.status, kept, await answer.read())

    async def _spoil(self, fault: str, request: web.Request, answer: _Answer) -> web.StreamResponse:
        body = answer.body
        match fault:
            case "reset after":
                return _abort(request)
            case "stall":
                await asyncio.sleep(60)
            case "slow":
                await asyncio.sleep(0.5)
            case "cut":
                return await _cut(request, answer)
            case "page":
                return web.Response(body=_PAGE, content_type="text/html")
            case "bad gateway":
                return web.Response(status=502, body=_PAGE, content_type="text/html")
            case "endless":
                body = body + b" " * 1_000_000
            case "garbled":
                body = body[: len(body) // 2] + b"\x00" * (len(body) - len(body) // 2)
            case "empty":
                body = b""
            case "short chain":
                body = _without_chain(body)
            case "another's answer":
                assert self.earlier is not None
                return web.Response(status=self.earlier.status, headers=self.earlier.headers, body=self.earlier.body)
            case _:
                pass
        return web.Response(status=answer.status, headers=answer.headers, body=body)


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


async def _cut(request: web.Request, answer: _Answer) -> web.Response:
    """Break the connection in the middle of the body."""
    begun = web.StreamResponse(status=answer.status, headers=answer.headers)
    begun.content_length = len(answer.body)
    await begun.prepare(request)
    await begun.write(answer.body[: len(answer.body) // 2])
    return _abort(request)


def _without_chain(body: bytes) -> bytes:
    """Leave the leaf alone, where an answer is JSON that names a chain."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    for place in (document, document.get("data", {})):
        for name in _CHAINS:
            if name in place:
                place[name] = place[name][:1] if name == "certChain" else []
    return json.dumps(document).encode()


@asynccontextmanager
async def between(
    target: str,
    acts: Callable[[web.Request], bool],
    *,
    tls: ssl.SSLContext | None = None,
    anchors: Path | None = None,
    pair: tuple[Path, Path] | None = None,
) -> AsyncIterator[FaultProxy]:
    """Serve while the block runs; with `tls` as a server, towards the CA by its `anchors`, known by the certificate of `pair`."""
    context = ssl.create_default_context(cafile=anchors) if anchors else None
    if context is not None and pair is not None:
        context.load_cert_chain(*pair)
    proxy = FaultProxy(target, acts, tls=tls)
    app = web.Application(client_max_size=2**22)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1, keepalive_timeout=0)
    await runner.setup()
    try:
        connector = aiohttp.TCPConnector(force_close=True, ssl=context if context is not None else True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as proxy.session:
            proxy.runner = runner
            await proxy.listen()
            yield proxy
    finally:
        await runner.cleanup()
