"""The SCEP endpoint: HTTP to PKIMessage, through the registration authority, and back (RFC 8894 §4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter
from typing import TypeVar, TypeVarTuple, assert_never

import structlog
from aiohttp import web

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import (
    CertificateRequest,
    EnrollmentRequest,
    Issued,
    Outcome,
    Pending,
    ProfileName,
    Protocol,
    Rejected,
    Remarks,
    Unavailable,
)
from gateway.pki.names import format_name
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.requests import PollRequest
from gateway.web.floods import FloodCounter
from gateway.web.generation import Generation, ScepService
from gateway.web.middleware import BODY, plain
from gateway.web.peer import source_address
from gateway.wire.scep import errors, operations, pkimessage
from gateway.wire.scep.pkimessage import MessageType, PkiMessage

log = structlog.get_logger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATH_SUFFIXES = "/pkiclient.exe|/cgi-bin/pkiclient.exe"
"""Windows and Cisco IOS append one of these to the URL that they were given."""


class ScepEndpoint:
    """`/scep/{profile}`: GetCACaps, GetCACert and PKIOperation, by GET and POST."""

    def __init__(
        self,
        current: Callable[[], Generation],
        authority: RegistrationAuthority,
        floods: FloodCounter,
        executor: Executor,
    ) -> None:
        self._current = current
        self._authority = authority
        self._floods = floods
        self._executor = executor

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        path = f"/scep/{{profile}}{{suffix:(?:{PATH_SUFFIXES})?}}"
        return [web.get(path, self.handle, allow_head=False), web.post(path, self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        generation = self._current()
        service = generation.scep.get(ProfileName(request.match_info["profile"]))
        if service is None:
            self._floods.count(Protocol.SCEP, "", Reason.UNKNOWN_PROFILE)
            return plain(404, "there is no such SCEP profile")
        try:
            operation = operations.parse_query(request.raw_path.partition("?")[2])
            if operation.name == operations.GET_CA_CAPS:
                return _answer(service.capabilities, operations.MEDIA_CAPS)
            if operation.name == operations.GET_CA_CERT:
                return _answer(service.ca_certificates, service.ca_media_type)
            if operation.name not in {operations.PKI_OPERATION, ""} or (not operation.name and request.method == "GET"):
                return plain(501, "this SCEP operation is not supported")
            data = operations.decode_body(request[BODY]) if request.method == "POST" else operation.message
            message = pkimessage.decode_pki_message(data)
        except MalformedMessage as error:
            return self._refuse_malformed(service, request, error)
        return await self._answer_message(generation, service, request, message)

    def _refuse_malformed(self, service: ScepService, request: web.Request, error: MalformedMessage) -> web.Response:
        """Answer what no CertRep can be made for: there is nobody to sign it to."""
        if self._floods.count(Protocol.SCEP, service.profile, error.reason):
            log.info("malformed", profile=service.profile, source=source_address(request), cause=error.cause)
        return plain(errors.HTTP_STATUS.get(error.reason, errors.MALFORMED_STATUS), error.detail)

    async def _answer_message(
        self, generation: Generation, service: ScepService, request: web.Request, message: PkiMessage
    ) -> web.Response:
        begun = perf_counter()
        source = source_address(request)
        asked: CertificateRequest | None = None
        try:
            pkimessage.verify_signature(message, service.identity)
            asked = await self._run(service, pkimessage.decode_request, message, service.identity)
        except Rejection as error:
            # Nobody has proved anything yet: strangers must not be able to write a row and a line for each message.
            told = self._floods.count(Protocol.SCEP, service.profile, error.reason)
            outcome: Outcome = Rejected(error.reason, error.detail, Remarks(cause=error.cause))
        else:
            outcome = await self._ask_authority(generation, service, message, asked, source)
            told = self._count(service, outcome)
        response = await self._reply(service, message, outcome)
        if told:
            _log_outcome(service, message, asked, outcome, source, perf_counter() - begun)
        return response

    def _count(self, service: ScepService, outcome: Outcome) -> bool:
        """Count an answer that has no audit row of its own; True when it is worth a log line."""
        if not (isinstance(outcome, Rejected | Unavailable) and outcome.remarks.counted):
            return True
        return self._floods.count(Protocol.SCEP, service.profile, outcome.reason)

    async def _ask_authority(
        self,
        generation: Generation,
        service: ScepService,
        message: PkiMessage,
        asked: CertificateRequest | None,
        source: str,
    ) -> Outcome:
        if asked is not None:
            enrollment = EnrollmentRequest(
                profile=service.profile,
                protocol=Protocol.SCEP,
                operation=message.operation,
                transaction_id=message.transaction_id,
                csr=asked,
                challenge=asked.challenge_password,
                signer=message.signer,
                source=source,
                is_renewal=message.message_type is MessageType.RENEWAL_REQ,
            )
            outcome = await self._authority.enroll(generation.snapshot, enrollment)
        else:
            poll = PollRequest(
                profile=service.profile,
                protocol=Protocol.SCEP,
                operation=message.operation,
                transaction_id=message.transaction_id,
                requester_key=message.signer.public_key.sha256,
                source=source,
            )
            outcome = await self._authority.poll(generation.snapshot, poll)
        return outcome

    async def _reply(self, service: ScepService, message: PkiMessage, outcome: Outcome) -> web.Response:
        """Spell the outcome in SCEP (RFC 8894 §3.2.1.3), or in HTTP where a CertRep would say too much or too little."""
        match outcome:
            case Issued():
                certificates = (outcome.certificate, *(outcome.chain if service.reply_chain else ()))
                body = await self._run(service, pkimessage.encode_success, message, service.identity, certificates)
            case Pending():
                body = await self._run(service, pkimessage.encode_pending, message, service.identity)
            case Rejected(reason, detail):
                if status := errors.HTTP_STATUS.get(reason):
                    return plain(status, detail)
                body = await self._run(service, pkimessage.encode_failure, message, service.identity, reason, detail)
            case Unavailable():
                return plain(503, "not available now, try again", retry_after=outcome.retry_after)
            case _:
                assert_never(outcome)
        return _answer(body, operations.MEDIA_PKI_MESSAGE)

    async def _run(self, service: ScepService, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do private-key work: in this thread when it is short, else in the executor so that the loop goes on."""
        if not service.offload:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _answer(body: bytes, media_type: str) -> web.Response:
    """Return 200; the media type stands alone, since Apple and certmonger compare it with no parameters."""
    return web.Response(body=body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _log_outcome(
    service: ScepService,
    message: PkiMessage,
    asked: CertificateRequest | None,
    outcome: Outcome,
    source: str,
    seconds: float,
) -> None:
    """Write one line an answer: what was asked by whom, what became of it and why."""
    reason = outcome.reason if isinstance(outcome, Rejected | Unavailable) else None
    log.info(
        "scep",
        profile=service.profile,
        operation=message.operation,
        transaction_id=message.transaction_id,
        outcome=type(outcome).__name__.lower(),
        reason=reason and reason.value,
        cause=outcome.remarks.cause or getattr(outcome, "detail", None),
        warnings=outcome.remarks.warnings or None,
        subject=format_name(asked.subject) if asked else None,
        requester=outcome.remarks.requester or None,
        request_id=getattr(outcome, "request_id", None),
        source=source,
        ms=round(seconds * 1000, 1),
    )
