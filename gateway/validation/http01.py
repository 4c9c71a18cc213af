"""http-01: the client's web server shows the key authorization (RFC 8555 §8.3); what it says beside that is nobody's business."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from hmac import compare_digest
from urllib.parse import urljoin, urlsplit

from gateway.errors import Reason
from gateway.validation.interfaces import ValidationFailed, ValidationTask
from gateway.validation.reach import Connection, Reach, as_address, unverified
from gateway.wire.acme.challenges import HTTP_PATH, key_authorization

MAX_REDIRECTS = 10
MAX_PATH = 2000
MAX_BODY = 128
"""A key authorization has 66 characters; what follows more than this is not read."""
MAX_HEADERS = 64
SECONDS = 20.0
"""The whole attempt, with all redirects."""
USER_AGENT = "pki-gateway (ACME http-01)"

_FOLLOWED = frozenset({301, 302, 307, 308})
_MAX_INTERIM = 4
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_TARGET = re.compile(r"[!-~]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask next; `path` begins with a slash and holds the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL, for messages and for what a Location is relative to."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What counts of a response."""

    status: int
    location: str
    body: bytes


class Http01:
    """Makes attempts as one profile may."""

    def __init__(self, reach: Reach, port: int = 80, ports: frozenset[int] = frozenset()) -> None:
        """`ports` may be redirected to beside 80 and 443."""
        self._reach = reach
        self._port = port
        self._ports = frozenset({80, 443, port}) | ports
        self._tls: ssl.SSLContext | None = None

    async def check(self, task: ValidationTask) -> None:
        """Fetch the resource and compare; raises ValidationFailed."""
        expected = key_authorization(task.token, task.thumbprint).encode("ascii")
        host = task.identifier.value
        target = Target("http", host, self._port, f"{HTTP_PATH}{task.token}")
        try:
            async with asyncio.timeout(SECONDS):
                answer, last = await self._fetch(target)
        except TimeoutError:
            raise ValidationFailed(Reason.VALIDATION_CONNECTION, f"{target.url} was not answered in time") from None
        if answer.status != 200:
            raise ValidationFailed(
                Reason.VALIDATION_INCORRECT,
                f"{_describe(target, last)} answered with status {answer.status}, not 200",
            )
        if not compare_digest(answer.body.rstrip(b" \t\r\n\v\f"), expected):
            raise ValidationFailed(
                Reason.VALIDATION_INCORRECT, f"{_describe(target, last)} did not answer with the key authorization"
            )

    async def _fetch(self, target: Target) -> tuple[Answer, Target]:
        """Return the first answer that is no redirect, and where it came from."""
        seen: set[Target] = set()
        for _ in range(MAX_REDIRECTS + 1):
            if target in seen:
                raise ValidationFailed(Reason.VALIDATION_CONNECTION, "the redirects go in a circle")
            seen.add(target)
            answer = await (self._get(target) if len(seen) == 1 else self._get_after_redirect(target))
            if answer.status not in _FOLLOWED:
                return answer, target
            target = self._follow(target, answer.location)
        raise ValidationFailed(Reason.VALIDATION_CONNECTION, f"there are more than {MAX_REDIRECTS} redirects")

    def _follow(self, target: Target, location: str) -> Target:
        """Judge a redirect: http or https, a port of ours, no user, no long path (RFC 8555 §8.3, §10.4)."""
        try:
            parts = urlsplit(urljoin(target.url, location))
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _bad_redirect("is no URL") from None
        if parts.scheme not in {"http", "https"} or not host or not location:
            raise _bad_redirect("names no http or https URL")
        if "@" in parts.netloc:
            raise _bad_redirect("names a user")
        port = port or (80 if parts.scheme == "http" else 443)
        if port not in self._ports:
            raise _bad_redirect("names a port that is neither 80 nor 443")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if len(path) > MAX_PATH:
            raise _bad_redirect(f"names a path of more than {MAX_PATH} characters")
        if _TARGET.fullmatch(path) is None or not path.startswith("/"):
            raise _bad_redirect("names a path with characters that no URL has")
        return Target(parts.scheme, host.rstrip(".") if as_address(host) is None else host, port, path)

    async def _get_after_redirect(self, target: Target) -> Answer:
        """As `_get`, where the client learns nothing about a host that it may be unable to look up or to reach itself."""
        try:
            return await self._get(target)
        except ValidationFailed as failure:
            raise ValidationFailed(
                failure.reason, "what a redirect led to could not be fetched", f"{target.url}: {failure.cause}"
            ) from None

    async def _get(self, target: Target) -> Answer:
        async with self._reach.connect(target.host, target.port, self._context(target)) as connection:
            try:
                return await _exchange(connection, target)
            except (OSError, EOFError, ValueError) as error:
                text = f"{target.scheme} at {connection.address} port {target.port} did not answer as an HTTP/1.1 server does"
                raise ValidationFailed(Reason.VALIDATION_CONNECTION, text, f"{text}: {type(error).__name__}: {error}") from None

    def _context(self, target: Target) -> ssl.SSLContext | None:
        if target.scheme == "http":
            return None
        if self._tls is None:
            self._tls = unverified()
        return self._tls


async def _exchange(connection: Connection, target: Target) -> Answer:
    """Ask and read what counts; ValueError and EOFError for what is no HTTP/1.1 (RFC 9112)."""
    head = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n"
    connection.writer.write(f"{head}Connection: close\r\n\r\n".encode("ascii"))
    await connection.writer.drain()
    for _ in range(_MAX_INTERIM + 1):
        status, headers = await _read_head(connection.reader)
        if status >= 200:
            break
    else:
        raise ValueError("too many interim responses")
    body = await _read_body(connection.reader, headers) if status == 200 else b""
    return Answer(status, headers.get("location", ""), body)


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    match = _STATUS.fullmatch(await reader.readline())
    if match is None:
        raise ValueError("the status line")
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS + 1):
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the end of the headers")
        if line in {b"\r\n", b"\n"}:
            return int(match.group(1)), headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise ValueError("a header")
        headers.setdefault(name.strip().lower(), value.strip())
    raise ValueError("too many headers")


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read one octet more than may be right, at most."""
    coding = headers.get("transfer-encoding", "").lower()
    if coding == "chunked":
        return await _read_chunks(reader)
    if coding:
        raise ValueError("a transfer coding")
    length = headers.get("content-length")
    if length is None:
        return await _read_up_to(reader, MAX_BODY + 1)
    if not length.isascii() or not length.isdigit() or len(length) > 19:
        raise ValueError("Content-Length")
    return await _read_up_to(reader, min(int(length), MAX_BODY + 1))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while len(body) <= MAX_BODY:
        match = _CHUNK.fullmatch(await reader.readline())
        if match is None:
            raise ValueError("a chunk")
        size = int(match.group(1), 16)
        if size == 0:
            break
        part = await _read_up_to(reader, min(size, MAX_BODY + 1 - len(body)))
        body += part
        if len(part) < size:
            break
        await reader.readline()
    return body


async def _read_up_to(reader: asyncio.StreamReader, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := await reader.read(size - len(data))):
        data += part
    return data


def _describe(first: Target, last: Target) -> str:
    """Say what was asked, and never where a redirect led to: a client learns nothing about hosts that it cannot reach itself."""
    return first.url if last == first else f"{first.url}, after redirects,"


def _bad_redirect(what: str) -> ValidationFailed:
    return ValidationFailed(Reason.VALIDATION_CONNECTION, f"a redirect {what}")
