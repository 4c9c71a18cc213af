"""The CMP endpoint: its paths, what HTTP itself refuses, and messages by POST (RFC 9811 §3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import datetime

import structlog
from aiohttp import hdrs, web

from gateway.errors import MalformedMessage, Reason
from gateway.model import Protocol, Rejected
from gateway.ra.cmp.authority import CmpAuthority
from gateway.tracing import Tracer, request_span, span
from gateway.web.border import RETRY_OUT_OF_DATE, TOO_MANY, Border
from gateway.web.cmp_exchange import FAILURES, CmpExchange
from gateway.web.cmp_paths import ALIASES, PATH, AliasRoute, Target, find_target
from gateway.web.floods import FloodCounter
from gateway.web.generation import CmpService, Generation
from gateway.web.middleware import BODY, plain
from gateway.web.peer import source_address
from gateway.wire.cmp.messages import decode_message

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/pkixcmp"
_HEADERS = {hdrs.CONTENT_TYPE: MEDIA_TYPE, hdrs.CACHE_CONTROL: "no-store"}


class CmpEndpoint:
    """`/.well-known/cmp`, `/.well-known/cmp/p/{profile}` and aliases, each with an operation behind it or without."""

    def __init__(
        self,
        current: Callable[[], Generation],
        authority: CmpAuthority,
        floods: FloodCounter,
        executor: Executor,
        clock: Callable[[], datetime],
        tracer: Tracer | None = None,
    ) -> None:
        self._current = current
        self._border = Border(Protocol.CMP, floods)
        self._clock = clock
        self._tracer = tracer
        self._exchange = CmpExchange(authority, floods, executor, clock)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; that of aliases comes last, since it is asked about every path that nobody else has."""
        return [web.route("*", PATH, self.handle), AliasRoute("*", ALIASES, self.handle, {"current": self._services})]

    def _services(self) -> Mapping[str, CmpService]:
        return self._current().cmp

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under the generation that is in force when it comes, to its end."""
        generation = self._current()
        with generation.snapshot.occupancy:
            return await self._answer(generation, request)

    async def _answer(self, generation: Generation, request: web.Request) -> web.Response:
        target = find_target(generation.cmp, request.rel_url.path_safe)
        if target is None:
            self._border.count_unknown()
            return plain(404, "there is no such CMP service")
        service = target.service
        source = generation.proxies.client_address(source_address(request), request.headers)
        if (wait := self._border.wait_of(service, source)) is not None:
            return plain(429, TOO_MANY, retry_after=wait)
        if (misfit := _find_misfit(request)) is not None:
            return misfit
        if not service.is_valid(self._clock()):
            self._border.count_out_of_date(service, service.describe_end())
            return plain(503, "not available now, try again", retry_after=RETRY_OUT_OF_DATE)
        try:
            with request_span(self._tracer, "cmp", request.headers.get("traceparent")):
                return await self._exchange_messages(generation, target, request[BODY], source)
        except MalformedMessage as error:
            return self._refuse_malformed(service, source, error)

    async def _exchange_messages(self, generation: Generation, target: Target, body: bytes, source: str) -> web.Response:
        """Answer a PKIMessage with one, under 200 whatever it says (RFC 9811 §3.2). Raises MalformedMessage for what is none."""
        service = target.service
        with span("decode"):
            message = decode_message(body)
        reply, outcome = await self._exchange.reply(generation, service, message, target.operation, source)
        if isinstance(outcome, Rejected) and outcome.reason in FAILURES:
            self._border.note_failure(service, source)
        return web.Response(body=reply, headers=_HEADERS)

    def _refuse_malformed(self, service: CmpService, source: str, error: MalformedMessage) -> web.Response:
        """Answer what has no header that an answer could be made for (RFC 9811 §3.2)."""
        self._border.note_failure(service, source)
        self._border.count_unread(service, source, error.reason, error.cause)
        return plain(413 if error.reason is Reason.TOO_LARGE else 400, error.detail)


def _find_misfit(request: web.Request) -> web.Response | None:
    """Return the answer to a request that carries no PKIMessage by its form (RFC 9811 §3.1)."""
    if request.method != hdrs.METH_POST:
        response = plain(405, "CMP messages come by POST")
        response.headers[hdrs.ALLOW] = hdrs.METH_POST
        return response
    media_type = request.headers.get(hdrs.CONTENT_TYPE, "")[:256].partition(";")[0]
    if media_type.strip().lower() != MEDIA_TYPE:
        return plain(415, f"Content-Type must be {MEDIA_TYPE}")
    return None
