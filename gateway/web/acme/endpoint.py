"""The ACME endpoint: from a request to its resource and back, counted and logged (RFC 8555, RFC 9773)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

import structlog
from aiohttp import hdrs, web

from gateway.errors import MalformedMessage, Reason, Rejection, StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.metrics.registry import Result
from gateway.model import Protocol
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.acme.terms import Busy, RateLimited
from gateway.tracing import Tracer, note, request_span, span
from gateway.web.acme import resources
from gateway.web.acme.accounts import Accounts
from gateway.web.acme.authorizations import Authorizations
from gateway.web.acme.certificates import Certificates
from gateway.web.acme.directory import new_nonce, show_directory
from gateway.web.acme.orders import Orders
from gateway.web.acme.renewal_info import RenewalInformation
from gateway.web.acme.requests import Addressed, Asked, RequestReader, is_jose
from gateway.web.acme.resources import Folders, Resource, Target
from gateway.web.acme.responses import REPLAY_NONCE, Audience, Reply, answer_options, refuse, respond, spell_rejection
from gateway.web.border import TOO_MANY, Border
from gateway.web.failures import PROOF_REFUSED
from gateway.web.floods import FloodCounter
from gateway.web.generation import Generation
from gateway.web.middleware import BODY
from gateway.web.peer import see_client, source_address
from gateway.wire.acme.jws import MEDIA_JOSE
from gateway.wire.acme.problems import MEDIA_PROBLEM, encode_problem
from gateway.wire.acme.requests import check_empty

log = structlog.get_logger(__name__)

RETRY_WITHOUT_STORE = 10
"""Seconds after which a client should come again when the store does not answer."""
FAILURES = (PROOF_REFUSED | {Reason.ACCOUNT_DEACTIVATED, Reason.ACCOUNT_KEY}) - {Reason.UNKNOWN_CERTIFICATE}
"""Refusals that count against an address; who asks when to renew another CA's certificate does nothing wrong."""
_UNMEASURED = frozenset({resources.DIRECTORY.name, resources.NEW_NONCE.name})
Answer = Callable[[Asked], Awaitable[Reply]]


@dataclass(slots=True)
class Handling:
    """One request on its way: what is known of it so far, for metrics and log."""

    at: Addressed
    resource: Resource
    source: str
    begun: float
    account: str | None = None
    """Its sender, once the signature was good."""


class AcmeEndpoint:
    """`/acme/{profile}/directory` and all that is linked from there, on connections that are encrypted."""

    def __init__(
        self,
        current: Callable[[], Generation],
        authority: AcmeAuthority,
        floods: FloodCounter,
        clock: Callable[[], datetime],
        tracer: Tracer | None = None,
    ) -> None:
        self._current = current
        self._authority = authority
        self._floods = floods
        self._tracer = tracer
        self._border = Border(Protocol.ACME, floods)
        self._reader = RequestReader(authority)
        self._folders = Folders({})
        self._certificates = Certificates(authority)
        self._renewal = RenewalInformation(authority)
        accounts, orders = Accounts(authority), Orders(authority)
        authorizations = Authorizations(authority, clock)
        self._answers: dict[str, Answer] = {
            resources.DIRECTORY.name: _read_directory,
            resources.NEW_NONCE.name: _read_nonce,
            resources.NEW_ACCOUNT.name: accounts.new_account,
            resources.ACCOUNT.name: accounts.account,
            resources.ORDERS.name: accounts.orders,
            resources.KEY_CHANGE.name: accounts.change_key,
            resources.NEW_ORDER.name: orders.new_order,
            resources.ORDER.name: orders.order,
            resources.FINALIZE.name: orders.finalize,
            resources.NEW_AUTHORIZATION.name: authorizations.new_authorization,
            resources.AUTHORIZATION.name: authorizations.authorization,
            resources.CHALLENGE.name: authorizations.challenge,
            resources.REVOKE_CERT.name: self._certificates.revoke,
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.route("*", path, self.handle) for path in resources.PATHS]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under the generation that is in force when it comes, to its end."""
        generation = self._current()
        with generation.snapshot.occupancy:
            return await self._answer(generation, request)

    def spell(self, request: web.Request, refused: web.Response) -> web.Response:
        """Word what was refused before it came here as a problem, with a nonce: clients stop at one without (RFC 8555 §6.5)."""
        target = self._find(self._current(), request)
        if target is None or refused.status < 400:
            return refused
        text = (refused.text or "").strip()
        status, body = encode_problem(_reason_of(refused.status), text, status=refused.status)
        wait = refused.headers.get(hdrs.RETRY_AFTER)
        refusal = Reply(status, body, MEDIA_PROBLEM, retry_after=int(wait) if wait else None)
        response = respond(refusal, _audience(target.at, request), self._authority.new_nonce())
        if not refused.keep_alive and refused.keep_alive is not None:
            response.force_close()
        return response

    def _find(self, generation: Generation, request: web.BaseRequest) -> Target | None:
        if self._folders.services is not generation.acme:
            self._folders = Folders(generation.acme)
        return self._folders.find(request)

    async def _answer(self, generation: Generation, request: web.Request) -> web.Response:
        target = self._find(generation, request)
        if target is None:
            self._border.count_unknown()
            status, body = encode_problem(Reason.UNKNOWN_PROFILE, "there is no such ACME directory")
            headers = {hdrs.CONTENT_TYPE: MEDIA_PROBLEM, REPLAY_NONCE: self._authority.new_nonce()}
            return web.Response(status=status, body=body, headers=headers)
        audience = _audience(target.at, request)
        if request.method == hdrs.METH_OPTIONS and target.resource is not None:
            asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
            return answer_options(target.resource.methods, asked, audience)
        reply = await self._reply(generation, request, target)
        fresh = request.method == "POST" or reply.status >= 400 or target.resource is resources.NEW_NONCE
        return respond(reply, audience, self._authority.new_nonce() if fresh else None)

    async def _reply(self, generation: Generation, request: web.Request, target: Target) -> Reply:
        """Answer what came by a way on which it is read at all."""
        at, service = target.at, target.at.service
        source = generation.proxies.client_address(source_address(request), request.headers)
        if (wait := self._border.wait_of(service, source)) is not None:
            return spell_rejection(RateLimited(TOO_MANY, wait), service)
        try:
            client = see_client(request, generation.proxies)
        except MalformedMessage as error:
            self._border.note_failure(service, source)
            self._border.count_unread(service, source, error.reason, error.cause)
            return refuse(error.reason, error.detail)
        if not client.encrypted:
            closed = "ACME is spoken over TLS only"
            self._border.count_unread(service, client.source, Reason.ENDPOINT_CLOSED, closed)
            return refuse(Reason.ENDPOINT_CLOSED, closed, status=403)
        if target.resource is None:
            return refuse(Reason.UNKNOWN_TRANSACTION, f"there is nothing here; the directory is at {at.urls.directory}")
        if (misfit := _find_misfit(request, target.resource)) is not None:
            return misfit
        handling = Handling(at, target.resource, client.source, perf_counter())
        with request_span(self._tracer, f"acme.{target.resource.name}", request.headers.get("traceparent")):
            return await self._serve(generation, request, handling)

    async def _serve(self, generation: Generation, request: web.Request, handling: Handling) -> Reply:
        """Answer, and turn what may be raised into the problem that says it."""
        service = handling.at.service
        try:
            reply = await self._perform(generation, request, handling)
        except Rejection as error:
            return self._reject(handling, error)
        except Busy as error:
            return self._send_away(handling, error.reason, error.retry_after, str(error))
        except StoreUnavailable as error:
            return self._send_away(handling, Reason.STORE_UNAVAILABLE, RETRY_WITHOUT_STORE, str(error))
        seconds = perf_counter() - handling.begun
        if handling.resource.name not in _UNMEASURED:
            metrics.count_result(Protocol.ACME, service.profile, handling.resource.name, reply.result, None, seconds)
        _tell(handling, reply, seconds)
        return reply

    async def _perform(self, generation: Generation, request: web.Request, handling: Handling) -> Reply:
        """Answer a request that has the form of its resource; raises what `AcmeAuthority` does."""
        at, resource = handling.at, handling.resource
        if request.method != "POST":
            if resource is resources.RENEWAL_INFO:
                return await self._renewal.show(generation.snapshot, at)
            return show_directory(at) if resource is resources.DIRECTORY else new_nonce(request.method)
        with span("decode"):
            asked = await self._reader.read(generation, at, resource.signer, request[BODY], handling.source)
        handling.account = "" if asked.account is None else asked.account.id
        if resource is resources.CERTIFICATE:
            return await self._certificates.certificate(asked, request.headers.get(hdrs.ACCEPT, ""))
        return await self._answers[resource.name](asked)

    def _reject(self, handling: Handling, error: Rejection) -> Reply:
        """Spell a refusal, and count it against its address where it was an attempt to be somebody."""
        service, name = handling.at.service, handling.resource.name
        if error.reason in FAILURES:
            self._border.note_failure(service, handling.source)
        told = self._floods.count(Protocol.ACME, service.profile, error.reason)
        seconds = perf_counter() - handling.begun
        if handling.account is None:
            metrics.count_refusal(Protocol.ACME, service.profile, error.reason)
        else:
            metrics.count_result(Protocol.ACME, service.profile, name, Result.REJECTED, error.reason, seconds)
        reply = spell_rejection(error, service)
        _tell_refusal(handling, Result.REJECTED, error.reason, error.cause, seconds, told=told)
        return reply

    def _send_away(self, handling: Handling, reason: Reason, retry_after: int, cause: str) -> Reply:
        """Answer what may succeed later; no client may take it for a refusal of what it asked."""
        service, seconds = handling.at.service, perf_counter() - handling.begun
        metrics.count_result(Protocol.ACME, service.profile, handling.resource.name, Result.UNAVAILABLE, reason, seconds)
        told = self._floods.count(Protocol.ACME, service.profile, reason)
        _tell_refusal(handling, Result.UNAVAILABLE, reason, cause, seconds, told=told)
        return refuse(Reason.OVERLOADED, "not available now, try again", retry_after=retry_after)


async def _read_directory(asked: Asked) -> Reply:
    check_empty(asked.signed)
    return show_directory(asked.at)


async def _read_nonce(asked: Asked) -> Reply:
    check_empty(asked.signed)
    return new_nonce("POST")


def _audience(at: Addressed, request: web.BaseRequest) -> Audience:
    return Audience(at.service, at.urls, request.headers.get(hdrs.ORIGIN))


def _find_misfit(request: web.Request, resource: Resource) -> Reply | None:
    """Return the answer to a request that is not of its resource's form (RFC 8555 §6.2, §6.3)."""
    if request.method not in resource.methods:
        allow = ", ".join((*resource.methods, hdrs.METH_OPTIONS))
        return refuse(Reason.MALFORMED, f"this is asked for by {allow}", status=405, headers={hdrs.ALLOW: allow})
    if request.method == "POST" and not is_jose(request.headers.get(hdrs.CONTENT_TYPE)):
        return refuse(Reason.MALFORMED, f"Content-Type must be {MEDIA_JOSE}", status=415)
    return None


def _reason_of(status: int) -> Reason:
    """Return why HTTP itself refused something."""
    if status == 413:
        return Reason.TOO_LARGE
    if status == 500:
        return Reason.INTERNAL
    return Reason.OVERLOADED if status > 500 else Reason.MALFORMED


def _tell(handling: Handling, reply: Reply, seconds: float) -> None:
    """Write one line for what was changed, and what reads found for who looks closer."""
    if handling.resource.name in _UNMEASURED:
        return
    outcome = reply.result.value if reply.result is not Result.FOUND or not reply.changed else "done"
    write = log.info if reply.changed else log.debug
    write("acme", **_line(handling, outcome, seconds), **{name: fact for name, fact in reply.facts.items() if fact is not None})
    note(profile=handling.at.service.profile, operation=handling.resource.name, outcome=outcome)


def _tell_refusal(handling: Handling, result: Result, reason: Reason, cause: str, seconds: float, *, told: bool) -> None:
    if told:
        log.info("acme", **_line(handling, result.value, seconds), reason=reason.value, cause=cause)
    note(
        failed=result is Result.UNAVAILABLE,
        profile=handling.at.service.profile,
        operation=handling.resource.name,
        outcome=result.value,
        reason=reason.value,
    )


def _line(handling: Handling, outcome: str, seconds: float) -> dict[str, object]:
    return {
        "profile": handling.at.service.profile,
        "operation": handling.resource.name,
        "outcome": outcome,
        "requester": f"acme:{handling.account}" if handling.account else None,
        "source": handling.source,
        "ms": round(seconds * 1000, 1),
    }
