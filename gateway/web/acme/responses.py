"""What ACME answers have beside their bodies: nonce, links, cross-origin headers; and refusals as problems (RFC 8555 §6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from aiohttp import hdrs, web

from gateway.acme import IdentifiersRejected
from gateway.errors import Reason, Rejection
from gateway.metrics.registry import Result
from gateway.ra.acme.terms import KeyInUse, RateLimited
from gateway.tracing import Fact
from gateway.web.generation import AcmeService
from gateway.wire.acme.jws import UnsupportedAlgorithm
from gateway.wire.acme.objects import MEDIA_JSON
from gateway.wire.acme.problems import MEDIA_PROBLEM, encode_problem
from gateway.wire.acme.urls import Urls

REPLAY_NONCE = "Replay-Nonce"
EXPOSED = "Link, Replay-Nonce, Location, Retry-After"
"""Headers that a script of another origin may read (RFC 8555 §6.1)."""
PREFLIGHT_SECONDS = 86400
RETRY_WHEN_LIMITED = 10
"""Seconds after which a client that asked too much may ask again, where nothing says when."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_FACTS: Mapping[str, Fact] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer before the headers that all have; `links` are (URL, relation), `retry_after` in whole seconds.

    No date ever stands in Retry-After: acme.sh reads digits alone.
    """

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    media_type: str = MEDIA_JSON
    location: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    retry_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    is_directory: bool = False
    """It has no link to the directory, which is the directory itself (§7.1)."""
    result: Result = Result.FOUND
    """What became of the request, for metrics and log."""
    changed: bool = False
    """Something was changed, which a log line tells."""
    facts: Mapping[str, Fact] = field(default_factory=lambda: NO_FACTS)
    """What the log line says beside."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom an answer goes to: below which URLs, and for a script of which origin."""

    service: AcmeService
    urls: Urls
    origin: str | None


def refuse(
    reason: Reason,
    detail: str,
    *,
    status: int | None = None,
    retry_after: int | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Reply:
    """Return a problem document; `status` stands in place of the reason's own."""
    code, body = encode_problem(reason, detail, status=status)
    return Reply(code, body, MEDIA_PROBLEM, retry_after=retry_after, headers=headers)


def spell_rejection(error: Rejection, service: AcmeService) -> Reply:
    """Return the problem document of a refusal, with what its kind has to say beside (§6.2, §6.6, §6.7.1, §7.3.3, §7.3.5)."""
    terms = service.terms_of_service if error.reason is Reason.TERMS_NOT_AGREED else None
    status, body = encode_problem(
        error.reason,
        error.detail,
        identifiers=error.problems if isinstance(error, IdentifiersRejected) else (),
        algorithms=error.algorithms if isinstance(error, UnsupportedAlgorithm) else (),
        instance=terms,
    )
    links = [] if terms is None else [(terms, "terms-of-service")]
    if status == 429 and service.help is not None:
        links.append((service.help, "help"))
    return Reply(
        status,
        body,
        MEDIA_PROBLEM,
        location=Urls(service.base).account(error.account) if isinstance(error, KeyInUse) else None,
        links=tuple(links),
        retry_after=_retry_after(error, status),
    )


def _retry_after(error: Rejection, status: int) -> int | None:
    if isinstance(error, RateLimited):
        return error.retry_after
    return RETRY_WHEN_LIMITED if status in {429, 503} else None


def respond(reply: Reply, audience: Audience, nonce: str | None) -> web.Response:
    """Return an answer; `nonce` is for every one to a POST, and for every refusal (§6.5)."""
    response = web.Response(status=reply.status, body=reply.body or None, headers=reply.headers)
    headers = response.headers
    if reply.body:
        headers[hdrs.CONTENT_TYPE] = reply.media_type
    elif hdrs.CONTENT_TYPE in headers:
        del headers[hdrs.CONTENT_TYPE]
    headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    if nonce is not None:
        headers[REPLAY_NONCE] = nonce
    if reply.location is not None:
        headers[hdrs.LOCATION] = reply.location
    if reply.retry_after is not None:
        headers[hdrs.RETRY_AFTER] = str(max(1, reply.retry_after))
    if not reply.is_directory:
        _add_link(response, audience.urls.directory, "index")
    for url, relation in reply.links:
        _add_link(response, url, relation)
    add_cross_origin(response, audience)
    return response


def _add_link(response: web.Response, url: str, relation: str) -> None:
    response.headers.add(hdrs.LINK, f'<{url}>;rel="{relation}"')


def add_cross_origin(response: web.Response, audience: Audience) -> None:
    """Let scripts of permitted origins read an answer; nothing here is authenticated by a cookie (§6.1)."""
    allowed = _allowed_origin(audience)
    if allowed is None:
        return
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
    if allowed != "*":
        response.headers[hdrs.VARY] = "Origin"


def _allowed_origin(audience: Audience) -> str | None:
    origins = audience.service.cors_origins
    if audience.origin is None:
        return None
    if "*" in origins:
        return "*"
    return audience.origin if audience.origin in origins else None


def answer_options(methods: tuple[str, ...], asked: str | None, audience: Audience) -> web.Response:
    """Answer OPTIONS; a preflight for a method that there is learns that it may be used (Fetch §3.2.2)."""
    allow = ", ".join((*methods, "OPTIONS"))
    response = web.Response(status=204, headers={hdrs.ALLOW: allow, hdrs.CACHE_CONTROL: "no-store"})
    _add_link(response, audience.urls.directory, "index")
    if asked in methods and _allowed_origin(audience) is not None:
        add_cross_origin(response, audience)
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(methods)
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Content-Type"
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(PREFLIGHT_SECONDS)
    return response
