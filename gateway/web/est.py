"""The EST endpoint: its paths, what it gives to everybody, and the operations that ask for certificates (RFC 7030 §3.2, §4)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime
from time import perf_counter

import structlog
from aiohttp import web

from gateway.errors import MalformedMessage, Reason
from gateway.metrics import worker as metrics
from gateway.model import Issued, Pending, Protocol, Rejected, Unavailable
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.requests import RenewalWindow, RenewalWindowRequest
from gateway.tracing import Tracer, request_span
from gateway.web.border import TOO_MANY, Border
from gateway.web.est_cmc import FullCmc
from gateway.web.est_enrollment import EstEnrollment, Reply, Sent, outcome_of
from gateway.web.est_operations import EstOperation, SimpleEnroll
from gateway.web.est_server_keygen import ServerKeygen
from gateway.web.failures import PROOF_REFUSED
from gateway.web.floods import FloodCounter
from gateway.web.generation import EstService, Generation
from gateway.web.middleware import BODY
from gateway.web.peer import TlsClient, see_client, source_address
from gateway.wire.est import errors, messages, renewal_info

log = structlog.get_logger(__name__)

PATH = "/.well-known/est/{operation}"
LABELLED_PATH = "/.well-known/est/{label}/{operation}"
RENEWAL_INFO_PATH = f"/.well-known/est/{messages.RENEWAL_INFO}/{{certificate}}"
LABELLED_RENEWAL_INFO_PATH = f"/.well-known/est/{{label}}/{messages.RENEWAL_INFO}/{{certificate}}"
RENEWAL_INFO_AGE = 21600
"""Seconds after which a client should ask again when to renew (RFC 9773 §4.3 takes six hours)."""
_NO_STORE = {"Cache-Control": "no-store"}
RETRY_WHEN_LIMITED = 10
"""Seconds after which a client that asked too much may ask again."""


class EstEndpoint:
    """`/.well-known/est/{operation}` for the default profile and `/.well-known/est/{label}/{operation}` for all."""

    def __init__(
        self,
        current: Callable[[], Generation],
        authority: RegistrationAuthority,
        floods: FloodCounter,
        executor: Executor,
        clock: Callable[[], datetime],
        tracer: Tracer | None = None,
    ) -> None:
        self._current = current
        self._floods = floods
        self._clock = clock
        self._border = Border(Protocol.EST, floods)
        self._tracer = tracer
        self._authority = authority
        self._enrollment = EstEnrollment(authority, floods)
        operations: tuple[EstOperation, ...] = (
            SimpleEnroll(messages.SIMPLEENROLL),
            SimpleEnroll(messages.SIMPLEREENROLL),
            ServerKeygen(executor, clock),
            FullCmc(executor, clock),
        )
        self._operations = {operation.name: operation for operation in operations}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        # no label may have the name of an operation, so the first path means one thing only
        paths = (RENEWAL_INFO_PATH, LABELLED_RENEWAL_INFO_PATH, PATH, LABELLED_PATH)
        return [web.route("*", path, self.handle) for path in paths]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under the generation that is in force when it comes, to its end."""
        generation = self._current()
        with generation.snapshot.occupancy:
            return await self._answer(generation, request)

    async def _answer(self, generation: Generation, request: web.Request) -> web.Response:
        service = generation.est.get(request.match_info.get("label", ""))
        if service is None:
            self._border.count_unknown()
            return _refuse(404, "there is no such EST service")
        source = generation.proxies.client_address(source_address(request), request.headers)
        if (wait := self._border.wait_of(service, source)) is not None:
            return _refuse(429, TOO_MANY, wait)
        try:
            client = see_client(request, generation.proxies)
            if not client.encrypted:
                return self._refuse_unread(service, client.source, Reason.ENDPOINT_CLOSED, 403, "EST is spoken over TLS only")
            return await self._dispatch(generation, service, request, client)
        except MalformedMessage as error:
            self._border.note_failure(service, source)
            return self._refuse_unread(service, source, error.reason, errors.HTTP_STATUS[error.reason], error.detail, error.cause)

    async def _dispatch(
        self, generation: Generation, service: EstService, request: web.Request, client: TlsClient
    ) -> web.Response:
        """Answer by operation; one that the profile does not offer is not found (RFC 7030 §4.3.2, §4.4.2)."""
        if "certificate" in request.match_info:
            return await self._renewal_info(generation, service, request, client)
        name = request.match_info["operation"]
        if name in _PUBLISHED:
            return _publish(request, service, name)
        operation = self._operations.get(name)
        if operation is None or not operation.is_offered(service):
            return _refuse(404, "there is no such EST operation here")
        if (misfit := _find_misfit(request, operation)) is not None:
            return misfit
        if _keeps_back(request) and (schemes := service.challenges(self._clock())):
            return self._invite(service, client, schemes)
        with request_span(self._tracer, f"est.{name}", request.headers.get("traceparent")):
            reply = await self._enrollment.reply(generation, service, operation, _sent(request, service), client)
        return self._spell(service, request, client, reply)

    async def _renewal_info(
        self, generation: Generation, service: EstService, request: web.Request, client: TlsClient
    ) -> web.Response:
        """Say when a certificate should be renewed (draft-ietf-lamps-est-renewal-info); raises MalformedMessage."""
        if not service.renewal_info:
            return _refuse(404, "there is no such EST operation here")
        if request.method not in {"GET", "HEAD"}:
            return _refuse_method("GET, HEAD")
        begun, operation = perf_counter(), messages.RENEWAL_INFO
        key_id, serial = renewal_info.parse_certificate_id(request.match_info["certificate"])
        asked = RenewalWindowRequest(service.profile, Protocol.EST, operation, key_id, serial, client.source)
        found = await self._authority.look_up_renewal(generation.snapshot, asked)
        metrics.count_answer(Protocol.EST, service.profile, operation, found, perf_counter() - begun)
        match found:
            case RenewalWindow(start, end):
                headers = {"Content-Type": renewal_info.MEDIA_JSON, "Retry-After": str(RENEWAL_INFO_AGE), **_NO_STORE}
                return web.Response(body=renewal_info.encode_window(start, end), headers=headers)
            case Unavailable(_, retry_after):
                return _refuse(503, "not available now, try again", retry_after)
            case Rejected():
                self._floods.count(Protocol.EST, service.profile, found.reason)
                self._border.note_failure(service, client.source)
                return _refuse(404, "there is no such certificate to renew")

    def _spell(self, service: EstService, request: web.Request, client: TlsClient, reply: Reply) -> web.Response:
        """Return what HTTP says of an answer: 200, 202 + Retry-After, or a refusal in a plain sentence (RFC 7030 §4.2.3)."""
        spelled, outcome = reply.spelled, outcome_of(reply.answer)
        match outcome:
            case Issued() if spelled is not None:
                return _content(spelled.body, spelled.media_type)
            case Pending(_, retry_after):
                # without a body: Bouncy Castle does not read it, and fails if there is any
                response = web.Response(status=202, headers={"Retry-After": str(retry_after), **_NO_STORE})
            case Unavailable(_, retry_after):
                response = _refuse(503, "not available now, try again", retry_after)
            case Rejected():
                response = self._reject(service, request, client, outcome, unread=reply.unread)
            case _:
                raise TypeError(f"{type(outcome).__name__} has no EST body")
        if spelled is not None:
            response.body = spelled.body
            response.headers.update(_content_headers(spelled.media_type))
        return response

    def _invite(self, service: EstService, client: TlsClient, schemes: tuple[str, ...]) -> web.Response:
        """Answer a client that keeps its request back until it knows how to log in."""
        metrics.count_refusal(Protocol.EST, service.profile, Reason.CREDENTIAL_MISSING)
        if self._floods.count(Protocol.EST, service.profile, Reason.CREDENTIAL_MISSING):
            log.info("asked how to log in", profile=service.profile, source=client.source)
        return _ask_to_log_in(schemes)

    def _reject(
        self, service: EstService, request: web.Request, client: TlsClient, refused: Rejected, *, unread: bool
    ) -> web.Response:
        """Spell a refusal and count it against its address, whatever it is when nobody has proved anything yet."""
        schemes = service.challenges(self._clock())
        if _invites(refused, request, schemes):
            return _ask_to_log_in(schemes)
        if unread or refused.reason in PROOF_REFUSED:
            self._border.note_failure(service, client.source)
        status = errors.http_status(refused.reason, schemes=bool(schemes))
        response = _refuse(status, refused.detail, RETRY_WHEN_LIMITED if status in {429, 503} else None)
        if status == 401:
            _add_schemes(response, schemes)
        return response

    def _refuse_unread(
        self, service: EstService, source: str, reason: Reason, status: int, detail: str, cause: str = ""
    ) -> web.Response:
        """Answer a request that came by a way on which it is not read."""
        self._border.count_unread(service, source, reason, cause or detail)
        return _refuse(status, detail)


def _find_misfit(request: web.Request, operation: EstOperation) -> web.Response | None:
    """Return the answer to a request that is not of the operation's form."""
    if request.method != "POST":
        return _refuse_method("POST")
    if not messages.is_media_type(request.headers.get("Content-Type"), operation.media_type):
        return _refuse(415, f"Content-Type must be {operation.media_type}")
    return None


def _keeps_back(request: web.Request) -> bool:
    """Whether a client sends its request only when it has been asked to log in, as curl --digest does."""
    return not request[BODY] and "Authorization" not in request.headers


def _sent(request: web.Request, service: EstService) -> Sent:
    wrap = messages.wrap_for(service.base64_wrap, request.headers.get("User-Agent"))
    return Sent(request[BODY], request.headers.get("Authorization"), wrap)


def _invites(refused: Rejected, request: web.Request, schemes: tuple[str, ...]) -> bool:
    """Whether a refusal only asks a client for its password, and is no failure of its address."""
    return refused.reason is Reason.CREDENTIAL_MISSING and bool(schemes) and "Authorization" not in request.headers


_PUBLISHED = {messages.CACERTS: messages.MEDIA_CACERTS, messages.CSRATTRS: messages.MEDIA_CSRATTRS}


def _publish(request: web.Request, service: EstService, name: str) -> web.Response:
    """Answer what is the same for everybody."""
    if request.method not in {"GET", "HEAD"}:
        return _refuse_method("GET, HEAD")
    prepared = service.ca_certificates if name == messages.CACERTS else service.csr_attributes
    if prepared is None:
        return _refuse(404, "there is nothing of this kind to tell")
    wrap = messages.wrap_for(service.base64_wrap, request.headers.get("User-Agent"))
    return _content(prepared.body(wrap=wrap), _PUBLISHED[name])


def _content(body: bytes, media_type: str) -> web.Response:
    return web.Response(body=body, headers=_content_headers(media_type))


def _content_headers(media_type: str) -> dict[str, str]:
    """Return the headers of a body; one of several parts is no base64 itself (RFC 2045 §6.4)."""
    headers = {"Content-Type": media_type, **_NO_STORE}
    if not media_type.startswith("multipart/"):
        headers[messages.TRANSFER_ENCODING_HEADER] = messages.TRANSFER_ENCODING
    return headers


def _refuse(status: int, detail: str, retry_after: int | None = None) -> web.Response:
    """Return a sentence in plain text (RFC 8951 §5.1); `retry_after` in seconds, since strongSwan reads no dates."""
    headers = {"Content-Type": errors.MEDIA_TEXT, **_NO_STORE}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return web.Response(status=status, body=errors.sentence(detail), headers=headers)


def _ask_to_log_in(schemes: tuple[str, ...]) -> web.Response:
    """Return 401 without a body: Bouncy Castle closes it unread before it sends its password, and fails if there was any."""
    response = web.Response(status=401, headers=_NO_STORE)
    _add_schemes(response, schemes)
    return response


def _add_schemes(response: web.Response, schemes: tuple[str, ...]) -> None:
    """Say how to log in: a header for each scheme (RFC 9110 §11.6.1)."""
    for scheme in schemes:
        response.headers.add("WWW-Authenticate", scheme)


def _refuse_method(allowed: str) -> web.Response:
    response = _refuse(405, f"this operation is asked for by {allowed}")
    response.headers["Allow"] = allowed
    return response
