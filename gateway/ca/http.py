"""One CA's HTTP interface: bounded requests whose failures say whether the CA may have acted (RFC 9110)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamRejected
from gateway.errors import MalformedMessage
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

_CERTIFICATE_ALERTS = (
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
)
"""TLS alerts by which a server ends a handshake for want of a good client certificate (RFC 8446 §6.2)."""
_USER_AGENT = "pki-gateway"
_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How a CA is reached; times in seconds. `tls` is None for http."""

    base_url: str
    tls: ssl.SSLContext | None = field(repr=False)
    connect_timeout: float
    timeout: float
    concurrency: int
    reuse: bool = True
    """Whether a connection serves several requests, one after the other."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    failed: type[NotSent] | type[UnknownResult] = UnknownResult
    """What it means when this is no answer that makes sense."""

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, in lower case; empty where there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> dict[str, Any]:
        """Return the JSON object that the body is; raises `failed` for anything else, such as a proxy's page."""
        try:
            return parse_json_object(self.body)
        except MalformedMessage as error:
            cause = f"the CA answered {self.status} with what is no JSON object ({self.media_type or 'no type'})"
            raise self.failed(cause) from error

    def retry_after(self, otherwise: int) -> int:
        """Return Retry-After in seconds, within an hour; dates count as `otherwise`."""
        text = self.headers.get("retry-after", "").strip()
        seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise
        return max(1, min(seconds, LONGEST_RETRY))


@dataclass(slots=True)
class _Progress:
    """How far one request has come."""

    began: bool = False
    """Whether a byte of it may have left."""


class HttpClient:
    """Asks one CA; `open` before the first request, `close` at the end. Redirects are not followed, cookies not kept.

    Proxies of the environment are not used: who may read requests to a CA is said in the configuration.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._places = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_private(self) -> bool:
        """Whether TLS says who answers."""
        return self.settings.tls is not None

    async def open(self) -> None:
        """Make the pool of connections; nothing is connected yet."""
        connector = aiohttp.TCPConnector(
            limit=self.settings.concurrency,
            ssl=self.settings.tls if self.settings.tls is not None else True,
            ttl_dns_cache=30,
            keepalive_timeout=KEPT_ALIVE if self.settings.reuse else None,
            force_close=not self.settings.reuse,
        )
        progress = aiohttp.TraceConfig()
        progress.on_request_headers_sent.append(_note_begin)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trace_configs=[progress],
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

        `within` bounds it, waiting for a place included, below the settings' own timeout. A server that takes no certificate
        of ours has read nothing: AuthFailed. POST only: what HTTP calls idempotent would be sent twice where a connection breaks.
        """
        if method != "POST":
            raise ValueError(f"{method} may be sent twice")
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
            body = _to_json(json_body).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        budget = min(self.settings.timeout, within) if within is not None else self.settings.timeout
        loop = asyncio.get_running_loop()
        until = loop.time() + budget
        url = path if path.startswith(("http://", "https://")) else self.settings.base_url + path
        progress = _Progress()
        await self._take_place(budget)
        try:
            left = max(0.001, until - loop.time())
            timeout = aiohttp.ClientTimeout(total=left, connect=min(left, self.settings.connect_timeout))
            try:
                async with self._session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    trace_request_ctx=progress,
                ) as answer:
                    content = await _read_bounded(answer, limit, failed)
                    return Response(answer.status, _join_headers(answer.headers.items()), content, failed)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                if _is_certificate_refused(error):
                    raise AuthFailed("the CA's server does not take the client certificate, or demands one") from error
                if not progress.began:
                    raise NotSent(f"the CA cannot be reached: {_describe(error)}") from error
                raise failed(f"the CA gave no whole answer: {_describe(error)}") from error
        finally:
            self._places.release()

    async def _take_place(self, seconds: float) -> None:
        """Take one of the places, waited for no longer than the request itself may take."""
        if not self._places.locked():
            await self._places.acquire()  # at once
            return
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise NotSent(f"all {self.settings.concurrency} connections to the CA were busy", BUSY_RETRY) from None


def refuse_unavailable(response: Response, *, otherwise: int = 30) -> None:
    """Raise Unavailable for the statuses by which a server says that it did nothing; 502 and 504 say nothing of the kind."""
    if response.status in {429, 503}:
        raise Unavailable(f"the CA answered {response.status}", response.retry_after(otherwise))


_NOT_THERE = frozenset({404, 405, 501})
_REFUSED = frozenset({400, 411, 413, 414, 415})


def check_status(response: Response, protocol: str, *, believed: bool) -> None:
    """Raise what an HTTP status means in a protocol whose own refusals come with 200 (RFC 8894 §4.3, RFC 9811 §3.5).

    Without TLS anybody on the way could have written it, after the CA did what it was asked: no refusal is `believed` then.
    """
    refuse_unavailable(response)
    status = response.status
    if status in {401, 403}:
        raise AuthFailed(f"the {protocol} server answered {status}: it does not let the gateway in")
    if status in _NOT_THERE or 300 <= status < 400:
        raise NotSent(
            f"the {protocol} server answered {status}: there is no {protocol} service at `url`, or none that takes POST"
        )
    if believed and status in _REFUSED and response.failed is UnknownResult:
        raise UpstreamRejected(f"the CA refused the request ({status})")
    if status != 200:
        raise response.failed(f"the {protocol} server answered {status}")


async def _note_begin(_session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceRequestHeadersSentParams) -> None:
    """Note that a request is about to be written."""
    context.trace_request_ctx.began = True


def _join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by their names in lower case; those that came twice are one, with commas (RFC 9110 §5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        low = name.lower()
        found[low] = f"{found[low]}, {value}" if low in found else value
    return found


async def _read_bounded(answer: aiohttp.ClientResponse, limit: int, failed: type[NotSent] | type[UnknownResult]) -> bytes:
    """Return the body; one that is longer than `limit` bytes is no answer."""
    pieces: list[bytes] = []
    size = 0
    while piece := await answer.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise failed(f"the CA answered with more than {limit} bytes")
    return b"".join(pieces)


def _is_certificate_refused(error: BaseException | None) -> bool:
    """Say whether a server ended the TLS handshake because of our certificate; in TLS 1.3 a request may have left by then."""
    while error is not None:
        reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
        if isinstance(reason, str) and "ALERT" in reason and reason.endswith(_CERTIFICATE_ALERTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _describe(error: BaseException) -> str:
    """Return what failed, without what the request held."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its TLS certificate does not chain to the configured anchors, or is for another name"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "TLS cannot be agreed upon: another version, or a client certificate that is demanded"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientSSLError):
        return error.strerror or type(error).__name__
    return type(error).__name__
