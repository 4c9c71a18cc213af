"""One CA's HTTP interface: bounded requests whose failures say whether the CA may have acted (RFC 9110)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.ca.interfaces import NotSent, Unavailable, UnknownResult, UpstreamError
from gateway.pki.jws import parse_json_object

MAX_BODY = 262_144
"""Bytes of an answer that are read; a CRL may be longer."""
MAX_CRL = 16_777_216
KEPT_ALIVE = 4.0
"""Seconds that an idle connection is kept: less than servers do, since a request on one that they just closed leaves a doubt."""
BUSY_RETRY = 15
"""Seconds after which a request that found no free place may come again."""
LONGEST_RETRY = 3600
"""Seconds; whatever a CA asks for beyond is taken as this."""

_NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Name, connection and TLS handshake: no byte of the request has left."""
_USER_AGENT = "pki-gateway"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How a CA is reached; times in seconds. `tls` is None for http."""

    base_url: str
    tls: ssl.SSLContext | None = field(repr=False)
    connect_timeout: float
    timeout: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, in lower case; empty where there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> dict[str, Any]:
        """Return the JSON object that the body is; raises UnknownResult for anything else, such as a proxy's page."""
        try:
            return parse_json_object(self.body)
        except Exception as error:
            cause = f"the CA answered {self.status} with what is no JSON object ({self.media_type or 'no type'})"
            raise UnknownResult(cause) from error

    def retry_after(self, otherwise: int) -> int:
        """Return Retry-After in seconds, within an hour; dates count as `otherwise`."""
        text = self.headers.get("retry-after", "").strip()
        seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise
        return max(1, min(seconds, LONGEST_RETRY))


class HttpClient:
    """Asks one CA; `open` before the first request, `close` at the end. Redirects are not followed, cookies not kept.

    Proxies of the environment are not used: who may read requests to a CA is said in the configuration.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._places = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool of connections; nothing is connected yet."""
        connector = aiohttp.TCPConnector(
            limit=self.settings.concurrency,
            ssl=self.settings.tls if self.settings.tls is not None else True,
            ttl_dns_cache=30,
            keepalive_timeout=KEPT_ALIVE,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close every connection; a second call does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def change(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json_body: Mapping[str, Any] | None = None,
        within: float | None = None,
    ) -> Response:
        """Send a request by which the CA may act; whatever fails once a byte may have left raises UnknownResult, else NotSent.

        `within` bounds it, waiting for a place included, below the settings' own timeout.
        """
        return await self._send(method, path, headers, body, json_body, within, MAX_BODY, UnknownResult)

    async def read(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json_body: Mapping[str, Any] | None = None,
        within: float | None = None,
        limit: int = MAX_BODY,
    ) -> Response:
        """Send a request that changes nothing; every failure raises NotSent."""
        return await self._send(method, path, headers, body, json_body, within, limit, NotSent)

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        json_body: Mapping[str, Any] | None,
        within: float | None,
        limit: int,
        failed: type[NotSent] | type[UnknownResult],
    ) -> Response:
        if self._session is None:
            raise NotSent("the connections to the CA are closed")
        if json_body is not None:
            body = json.dumps(json_body, separators=(",", ":")).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        budget = min(self.settings.timeout, within) if within is not None else self.settings.timeout
        loop = asyncio.get_running_loop()
        until = loop.time() + budget
        url = path if path.startswith(("http://", "https://")) else self.settings.base_url + path
        async with self._place(budget):
            timeout = aiohttp.ClientTimeout(total=max(0.001, until - loop.time()), connect=self.settings.connect_timeout)
            try:
                async with self._session.request(
                    method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                ) as answer:
                    content = await _read_bounded(answer, limit, failed)
                    return Response(answer.status, {name.lower(): text for name, text in answer.headers.items()}, content)
            except _NOTHING_SENT as error:
                raise NotSent(f"the CA cannot be reached: {_describe(error)}") from error
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise failed(f"the CA gave no whole answer: {_describe(error)}") from error

    @asynccontextmanager
    async def _place(self, seconds: float) -> AsyncIterator[None]:
        """Hold one of the places, waited for no longer than the request itself may take."""
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise NotSent(f"all {self.settings.concurrency} connections to the CA were busy", BUSY_RETRY) from None
        try:
            yield
        finally:
            self._places.release()


def refuse_unavailable(response: Response, *, otherwise: int = 30) -> None:
    """Raise Unavailable for the statuses by which a server says that it did nothing; 502 and 504 say nothing of the kind."""
    if response.status in {429, 503}:
        raise Unavailable(f"the CA answered {response.status}", response.retry_after(otherwise))


async def _read_bounded(answer: aiohttp.ClientResponse, limit: int, failed: type[NotSent] | type[UnknownResult]) -> bytes:
    """Return the body; one that is longer than `limit` bytes is no answer."""
    content = b""
    async for piece in answer.content.iter_chunked(65_536):
        content += piece
        if len(content) > limit:
            raise failed(f"the CA answered with more than {limit} bytes")
    return content


def _describe(error: BaseException) -> str:
    """Return what failed, without what the request held."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its TLS certificate does not chain to the configured anchors, or is for another name"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, UpstreamError | OSError) and not isinstance(error, aiohttp.ClientSSLError):
        return getattr(error, "strerror", None) or type(error).__name__
    return type(error).__name__
