"""The SCEP endpoint: its paths, the operations that need no message, and PKIOperation by GET and POST (RFC 8894 §4)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime

import structlog
from aiohttp import hdrs, web

from gateway.errors import MalformedMessage
from gateway.model import ProfileName, Protocol, Rejected, Unavailable
from gateway.ra.authority import RegistrationAuthority
from gateway.tracing import Tracer, request_span
from gateway.web.border import RETRY_OUT_OF_DATE, TOO_MANY, Border
from gateway.web.floods import FloodCounter
from gateway.web.generation import Generation, ScepService
from gateway.web.middleware import BODY, plain
from gateway.web.peer import see_client, source_address
from gateway.web.pki_operation import Peer, PkiOperation, Reply
from gateway.wire.scep import errors, operations, pkimessage

log = structlog.get_logger(__name__)

PATH = r"/{root:(?i:scep|scep-mtls)}/{profile}{suffix:(?i:/?/?(?:(?:cgi-bin/)?pkiclient\.exe/?)?)}"
"""Windows and Cisco IOS append `/pkiclient.exe` or `/cgi-bin/pkiclient.exe` to the URL that they know, or to its slash."""
MTLS_ROOT = "scep-mtls"
_POSTED_QUERY = "operation=PKIOperation"
_POSTED = operations.parse_query(_POSTED_QUERY)
"""What nearly every POST asks for: it need not be read again."""


class ScepEndpoint:
    """`/scep/{profile}` and, for profiles that ask for a TLS client certificate, `/scep-mtls/{profile}`."""

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
        self._border = Border(Protocol.SCEP, floods)
        self._tracer = tracer
        self._clock = clock
        self._pki_operation = PkiOperation(authority, floods, executor, clock)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(PATH, self.handle, allow_head=False), web.post(PATH, self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under the generation that is in force when it comes, to its end."""
        generation = self._current()
        with generation.snapshot.occupancy:
            return await self._answer(generation, request)

    async def _answer(self, generation: Generation, request: web.Request) -> web.Response:
        service = _find_service(generation, request)
        if service is None:
            self._border.count_unknown()
            return plain(404, "there is no such SCEP profile")
        source = generation.proxies.client_address(source_address(request), request.headers)
        if (wait := self._border.wait_of(service, source)) is not None:
            return plain(429, TOO_MANY, retry_after=wait)
        try:
            query = request.raw_path.partition("?")[2]
            operation = _POSTED if query == _POSTED_QUERY else operations.parse_query(query)
            if operation.name != operations.PKI_OPERATION and (operation.name or request.method == "GET"):
                return _publish(service, operation.name)
            if not service.is_valid(self._clock()):
                self._border.count_out_of_date(service, service.describe_end())
                return plain(503, "not available now, try again", retry_after=RETRY_OUT_OF_DATE)
            with request_span(self._tracer, "scep.PKIOperation", request.headers.get("traceparent")):
                return await self._operate(generation, service, request, operation, source)
        except MalformedMessage as error:
            return self._refuse_malformed(service, source, error)

    async def _operate(
        self, generation: Generation, service: ScepService, request: web.Request, operation: operations.Operation, source: str
    ) -> web.Response:
        """Answer a PKIMessage. Raises MalformedMessage for what is none."""
        data = operations.decode_body(request[BODY]) if request.method == "POST" else operation.message
        message = pkimessage.decode_pki_message(data)
        shown = see_client(request, generation.proxies).shown.certificate if service.requires_client_certificate else None
        reply = await self._pki_operation.reply(generation, service, message, Peer(source, shown))
        if isinstance(reply.answer, Rejected):
            self._border.note_failure(service, source)
        return _spell(reply)

    def _refuse_malformed(self, service: ScepService, source: str, error: MalformedMessage) -> web.Response:
        """Answer what no CertRep can be made for: there is nobody to sign it to."""
        self._border.note_failure(service, source)
        self._border.count_unread(service, source, error.reason, error.cause)
        return plain(errors.HTTP_STATUS.get(error.reason, errors.MALFORMED_STATUS), error.detail)


def _find_service(generation: Generation, request: web.Request) -> ScepService | None:
    """Return the service of a path, in upper or lower case; under the mTLS root only one that asks for a certificate."""
    found = generation.scep.get(ProfileName(request.match_info["profile"].lower()))
    if found is None or found.requires_client_certificate:
        return found
    return None if request.match_info["root"].lower() == MTLS_ROOT else found


def _publish(service: ScepService, operation: str) -> web.Response:
    """Answer an operation whose answer is prepared, the same for everybody."""
    match operation:
        case operations.GET_CA_CAPS:
            return _answer(service.capabilities, operations.MEDIA_CAPS)
        case operations.GET_CA_CERT:
            return _answer(service.ca_certificates, service.ca_media_type)
        case operations.GET_CA_CERT_CHAIN:
            return _answer(service.ca_chain, operations.MEDIA_CA_CHAIN)
        case operations.GET_NEXT_CA_CERT if service.next_ca is not None:
            return _answer(service.next_ca, operations.MEDIA_NEXT_CA_CERT)
        case _:
            return plain(501, "this SCEP operation is not supported")


def _spell(reply: Reply) -> web.Response:
    """Return the CertRep under 200 whatever it says (RFC 8894 §4.3), or what HTTP says in its place."""
    if reply.cert_rep is not None:
        return _answer(reply.cert_rep, operations.MEDIA_PKI_MESSAGE)
    match reply.answer:
        case Rejected(reason, detail):
            return plain(errors.HTTP_STATUS[reason], detail)
        case Unavailable(_, retry_after):
            return plain(503, "not available now, try again", retry_after=retry_after)
        case answer:
            raise TypeError(f"{type(answer).__name__} has no CertRep")


def _answer(body: bytes, media_type: str) -> web.Response:
    """Return 200; the media type stands alone, since Apple and certmonger compare it with no parameters."""
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: media_type, hdrs.CACHE_CONTROL: "no-store"})
