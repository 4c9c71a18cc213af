"""What every request passes before its endpoint: a bounded body, a free place, and errors that name nothing inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.errors import KeyUnavailable

log = structlog.get_logger(__name__)

BODY = web.RequestKey("body", bytes)
"""The request's whole body, read under `BodyLimits` before any endpoint runs."""

SERVER_NAME = "pki-gateway"
Spell = Callable[[web.Request, web.Response], web.Response]
"""Says a refusal in the words of the protocol that a path belongs to."""


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


def as_it_is(_request: web.Request, refused: web.Response) -> web.Response:
    """Leave a refusal in plain text."""
    return refused


def guard(limits: BodyLimits, places: InFlight, uncounted: frozenset[str], spell: Spell = as_it_is) -> Middleware:
    """Return the middleware of every request: stores its body as `request[BODY]`, takes a place, lets no failure show its inside.

    It answers 503 with Retry-After while every place is taken, except on `uncounted` paths. What it refuses itself goes through
    `spell`. One middleware does all of it, since each is a coroutine more.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            body = receive_at_once(request, limits)
            if body is None:
                body = await receive(request, limits)
            if not isinstance(body, bytes):
                return spell(request, body)
            request[BODY] = body
            if uncounted and request.path in uncounted:
                return await handler(request)
            if not places.enter():
                return spell(request, plain(503, "busy, try again", retry_after=1))
            try:
                return await handler(request)
            finally:
                places.leave()
        except web.HTTPException as error:
            refused = _in_our_words(error)
        except KeyUnavailable as error:
            log.warning("a private key cannot be used; its client got 503", path=request.path[:200], cause=str(error))
            refused = plain(503, "not available now, try again", retry_after=error.retry_after)
        except Exception:
            log.exception("a request failed inside; its client got 500", method=request.method, path=request.path[:200])
            refused = plain(500, "internal error")
        return spell(request, refused)

    return middleware


def _in_our_words(error: web.HTTPException) -> web.Response:
    """Return what aiohttp refused in our own words."""
    response = plain(error.status, error.reason.lower() if error.reason else "refused")
    if allow := error.headers.get("Allow"):
        response.headers["Allow"] = allow
    return response


def receive_at_once(request: web.BaseRequest, limits: BodyLimits) -> bytes | web.Response | None:
    """Return the body that came with its header, as what is small does, or what refuses it; None: it has to be waited for."""
    if hdrs.CONTENT_ENCODING in request.headers and not _is_plain(request):
        return refusal(415, "content encodings are not accepted")
    content = request.content
    if not content.is_eof():
        return None
    try:
        body = content.read_nowait()
    except web.RequestPayloadError:
        return _broken()
    return body if len(body) <= limits.max_bytes else _too_large(limits)


def _is_plain(request: web.BaseRequest) -> bool:
    return all(coding.strip().lower() == "identity" for coding in request.headers.getall(hdrs.CONTENT_ENCODING))


async def receive(request: web.BaseRequest, limits: BodyLimits) -> bytes | web.Response:
    """Return the body, or the answer that refuses it: 413 too large, 408 too slow, 400 broken off."""
    if (request.content_length or 0) > limits.max_bytes:
        return _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.deadline.total_seconds()):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limits.max_bytes:
                    return _too_large(limits)
    except TimeoutError:
        return refusal(408, "the body took too long")
    except web.RequestPayloadError:
        return _broken()
    return bytes(body)


def _broken() -> web.Response:
    return refusal(400, "the body is broken")


def _too_large(limits: BodyLimits) -> web.Response:
    return refusal(413, f"a body may have at most {limits.max_bytes} bytes")


class LastWords:
    """Sets headers that every answer carries, and makes it the last one of its connection once the end has begun."""

    def __init__(self) -> None:
        self.ending = False

    async def add(self, _request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Set them (an `on_response_prepare` signal)."""
        headers = response.headers
        headers[hdrs.SERVER] = SERVER_NAME
        headers["X-Content-Type-Options"] = "nosniff"
        if self.ending:
            # RFC 9112 §9.6; aiohttp has written its own Connection header already.
            headers[hdrs.CONNECTION] = "close"
            response.force_close()
