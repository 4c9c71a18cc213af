"""What every request passes before its endpoint: a bounded body, a free place, and errors that name nothing inside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

log = structlog.get_logger(__name__)

BODY = web.RequestKey("body", bytes)
"""The request's whole body, read under `BodyLimits` before any endpoint runs."""

SERVER_NAME = "pki-gateway"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a body may be, and how long all of it may take."""

    max_bytes: int
    deadline: timedelta


class InFlight:
    """Counts the requests that one worker works on; more than `limit` get 503 at once instead of a queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def enter(self) -> bool:
        """Take a place; False when all are taken."""
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._count -= 1

    @property
    def count(self) -> int:
        """Places taken now."""
        return self._count


def plain(status: int, text: str, retry_after: int | None = None) -> web.Response:
    """Return a plain text answer of one line; `retry_after` in seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.Response(status=status, text=f"{text}\n", headers=headers)


def refusal(status: int, text: str) -> web.Response:
    """Return a plain text answer to a request whose body was not read to its end; the connection is closed after it."""
    response = plain(status, text)
    response.force_close()
    return response


def hide_internals() -> Middleware:
    """Return the outermost middleware: whatever fails inside becomes a plain answer that names nothing of it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            response = plain(error.status, error.reason.lower() if error.reason else "refused")
            if allow := error.headers.get("Allow"):
                response.headers["Allow"] = allow
            return response
        except Exception:
            log.exception("a request failed inside; its client got 500", method=request.method, path=request.path[:200])
            return plain(500, "internal error")

    return middleware


def bound_body(limits: BodyLimits) -> Middleware:
    """Return a middleware that reads the body under its limits and stores it as `request[BODY]`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if any(coding.strip().lower() != "identity" for coding in request.headers.getall("Content-Encoding", ())):
            return refusal(415, "content encodings are not accepted")
        if not request.body_exists:
            request[BODY] = b""
            return await handler(request)
        body = await read_body(request, limits)
        if isinstance(body, web.Response):
            return body
        request[BODY] = body
        return await handler(request)

    return middleware


async def read_body(request: web.BaseRequest, limits: BodyLimits) -> bytes | web.Response:
    """Return the body, or the answer that refuses it: 413 too large, 408 too slow, 400 broken off."""
    if (request.content_length or 0) > limits.max_bytes:
        return _too_large(limits)
    body = bytearray()
    try:
        if request.content.is_eof():  # it came with its header, as what is small does: there is nothing to wait for
            whole = request.content.read_nowait()
            return whole if len(whole) <= limits.max_bytes else _too_large(limits)
        async with asyncio.timeout(limits.deadline.total_seconds()):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limits.max_bytes:
                    return _too_large(limits)
    except TimeoutError:
        return refusal(408, "the body took too long")
    except web.RequestPayloadError:
        return refusal(400, "the body is broken")
    return bytes(body)


def _too_large(limits: BodyLimits) -> web.Response:
    return refusal(413, f"a body may have at most {limits.max_bytes} bytes")


def bound_in_flight(places: InFlight, exempt: frozenset[str]) -> Middleware:
    """Return a middleware that answers 503 with Retry-After while every place is taken, except on `exempt` paths."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in exempt:
            return await handler(request)
        if not places.enter():
            return plain(503, "busy, try again", retry_after=1)
        try:
            return await handler(request)
        finally:
            places.leave()

    return middleware


class Ending:
    """Makes every answer the last one of its connection, once it has begun (RFC 9112 §9.6)."""

    def __init__(self) -> None:
        self.has_begun = False

    async def say_so(self, _request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Close the connection after this answer (an `on_response_prepare` signal)."""
        if self.has_begun:
            # aiohttp has written its own Connection header already.
            response.headers["Connection"] = "close"
            response.force_close()


async def name_server(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Set headers that every answer carries (an `on_response_prepare` signal)."""
    response.headers["Server"] = SERVER_NAME
    response.headers["X-Content-Type-Options"] = "nosniff"
