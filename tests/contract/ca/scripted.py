"""A server over HTTP that answers as a test says, path by path, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = tuple[int, object] | tuple[int, object, dict[str, str]]


@dataclass
class Scripted:
    """Answers by path: status and JSON (or bytes, as they are), one after the other; the last one stays."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    port: int = 0
    before: Callable[[str], None] = lambda _: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[Any]:
        """Return what was sent to a path."""
        return [body for asked, body in self.asked if asked == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.path, json.loads(body) if body else None))
        self.before(request.path)
        listed = self.answers.get(request.path, [(404, b"404 page not found")])
        status, content, *headers = listed.pop(0) if len(listed) > 1 else listed[0]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(content, bytes):
            return web.Response(
                status=status or 200, body=content, content_type="text/html", headers=headers[0] if headers else None
            )
        return web.json_response(content, status=status or 200, headers=headers[0] if headers else None)


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """Run a server while the block does; an answer of status 0 breaks the connection."""
    found = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()
