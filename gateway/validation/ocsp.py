"""Asks OCSP responders whether TLS clients' certificates are revoked; answers are kept as long as they speak (RFC 6960)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import aiohttp
import structlog

from gateway.config.credentials import Ocsp
from gateway.errors import Reason, Rejection
from gateway.pki.certificate import Certificate
from gateway.pki.names import format_name
from gateway.pki.ocsp import (
    MAX_RESPONSE_BYTES,
    CertificateStatus,
    OcspAnswer,
    build_ocsp_request,
    ocsp_url,
    read_ocsp_response,
)
from gateway.pki.path_building import Path

log = structlog.get_logger(__name__)

MAX_ANSWERS = 8192
"""Answers that are kept."""
KEPT_FOR = timedelta(hours=1)
"""Longest that an answer is kept, whatever its nextUpdate: a revocation is not to be missed for days."""
ASKED_AGAIN_AFTER = timedelta(seconds=10)
"""How long a responder that cannot be reached is left alone, and a question that got no good answer is not asked again."""
MAX_QUESTIONS = 64
"""Questions that are under way at once."""

_MAX_CONNECTIONS = 16
_HEADERS = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, or why there is none, and until when that is not asked again."""

    status: CertificateStatus | None
    cause: str
    since: datetime
    until: datetime

    def speaks(self, now: datetime) -> bool:
        return self.since <= now < self.until


_Key = tuple[str, bytes, int]
"""Responder, SHA-256 of the issuer's certificate, serial number."""


class OcspClient:
    """Asks each question once, whoever waits for the answer; one instance serves a process, whatever generation is in force.

    Redirections are not followed, and no URL is taken from a certificate before its path was verified.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._answers: dict[_Key, _Kept] = {}
        self._silent: dict[str, datetime] = {}
        self._questions: dict[_Key, asyncio.Task[_Kept]] = {}

    def source(self, config: Ocsp) -> OcspSource:
        """Return the check that a credential makes as `config` says."""
        return OcspSource(self, config)

    async def status(
        self, url: str, certificate: Certificate, issuer: Certificate, now: datetime, within: timedelta
    ) -> tuple[CertificateStatus | None, str]:
        """Return what the responder says, or None and why it says nothing that counts; kept answers come at once."""
        key = (url, issuer.sha256, certificate.serial)
        kept = self._answers.get(key)
        if kept is not None and kept.speaks(now):
            return kept.status, kept.cause
        silent_until = self._silent.get(url)
        if silent_until is not None and silent_until - ASKED_AGAIN_AFTER <= now < silent_until:
            return None, f"{url} did not answer a moment ago"
        task = self._questions.get(key)
        if task is None:
            if len(self._questions) >= MAX_QUESTIONS:
                return None, "too many questions are under way"
            task = self._start(key, self._ask(url, certificate, issuer, now, within))
        kept = await asyncio.shield(task)
        return kept.status, kept.cause

    def _start(self, key: _Key, question: Coroutine[None, None, _Kept]) -> asyncio.Task[_Kept]:
        task = self._questions[key] = asyncio.create_task(question)

        def end(done: asyncio.Task[_Kept]) -> None:
            del self._questions[key]
            if not done.cancelled() and done.exception() is None:
                self._keep(key, done.result())

        task.add_done_callback(end)
        return task

    def _keep(self, key: _Key, answer: _Kept) -> None:
        self._answers.pop(key, None)
        while len(self._answers) >= MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = answer

    async def _ask(self, url: str, certificate: Certificate, issuer: Certificate, now: datetime, within: timedelta) -> _Kept:
        try:
            data = await self._post(url, build_ocsp_request(certificate, issuer), within)
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            self._leave_alone(url, now)
            return _nothing(f"{url}: {type(error).__name__}", now)
        except (aiohttp.ClientError, ValueError) as error:
            # An answer to this one question: one certificate must not silence a responder for all others.
            return _nothing(f"{url}: {type(error).__name__}", now)
        try:
            answer = read_ocsp_response(data, certificate, issuer, now)
        except Rejection as refusal:
            return _nothing(f"{url}: {refusal.cause}", now)
        return _something(answer, now)

    def _leave_alone(self, url: str, now: datetime) -> None:
        while len(self._silent) >= MAX_QUESTIONS:
            del self._silent[next(iter(self._silent))]
        self._silent[url] = now + ASKED_AGAIN_AFTER

    async def _post(self, url: str, body: bytes, within: timedelta) -> bytes:
        """Return the body of a 200; ValueError for another status and for more than is read."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_MAX_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        limit = aiohttp.ClientTimeout(total=within.total_seconds())
        async with self._session.post(url, data=body, headers=_HEADERS, allow_redirects=False, timeout=limit) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_RESPONSE_BYTES:
                    raise ValueError("the answer is too large")
            return bytes(data)

    async def close(self) -> None:
        """End what is under way and the connections."""
        for task in tuple(self._questions.values()):
            task.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None


class OcspSource:
    """Asks about a client's certificate and the CAs between it and its trust anchor, as one credential is configured."""

    def __init__(self, client: OcspClient, config: Ocsp) -> None:
        self._client = client
        self._config = config

    async def check(self, leaf: Certificate, path: Path, now: datetime) -> None:
        """Return when no responder calls one of them revoked or unknown, and each is vouched for where that is demanded.

        The configured responder is asked about the leaf; a CA's own comes first, since another CA has issued it. Raises Rejection
        CREDENTIAL_REVOKED, NOT_AUTHORIZED for one that its responder does not know, and UPSTREAM_UNAVAILABLE.
        """
        for certificate, issuer in zip((leaf, *path), path, strict=False):
            named = ocsp_url(certificate)
            url = self._config.url or named if certificate is leaf else named or self._config.url
            if url is None:
                status, cause = None, "no responder is known: it names none, and none is configured"
            elif not _can_be_asked(url):
                status, cause = None, "the responder's URL cannot be used"
            else:
                status, cause = await self._client.status(url, certificate, issuer, now, self._config.timeout)
            self._judge(status, cause, certificate)

    def _judge(self, status: CertificateStatus | None, cause: str, certificate: Certificate) -> None:
        name = f"{format_name(certificate.subject)}, serial {certificate.serial:x}"
        match status:
            case CertificateStatus.GOOD:
                return
            case CertificateStatus.REVOKED:
                raise Rejection(Reason.CREDENTIAL_REVOKED, "the certificate has been revoked", f"{name}, says OCSP")
            case CertificateStatus.UNKNOWN:
                text = "the certificate is not trusted here"
                raise Rejection(Reason.NOT_AUTHORIZED, text, f"{name} is not known to its OCSP responder")
            case None:
                if self._config.if_unavailable == "accept":
                    log.warning("a certificate was accepted that no OCSP responder vouches for", certificate=name, cause=cause)
                    return
                text = "it cannot be found out now whether the certificate is revoked"
                raise Rejection(Reason.UPSTREAM_UNAVAILABLE, text, f"{name}: {cause}")


def _can_be_asked(url: str) -> bool:
    """Say whether a URL has a host and, if any, a port that is a number; a certificate may hold whatever its CA wrote."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _something(answer: OcspAnswer, now: datetime) -> _Kept:
    return _Kept(answer.status, "", now, min(answer.until, now + KEPT_FOR))


def _nothing(cause: str, now: datetime) -> _Kept:
    return _Kept(None, cause, now, now + ASKED_AGAIN_AFTER)
