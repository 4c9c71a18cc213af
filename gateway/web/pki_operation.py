"""One PKIMessage through the registration authority and back: verified, decrypted, asked, answered, logged (RFC 8894 §4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TypeVar, TypeVarTuple

import structlog

from gateway.errors import Reason, Rejection
from gateway.metrics import worker as metrics
from gateway.model import (
    CertificateRequest,
    EnrollmentRequest,
    Issued,
    Outcome,
    Pending,
    Protocol,
    Rejected,
    Remarks,
    Unavailable,
)
from gateway.pki.names import format_name
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.requests import Found, LookUpRequest, PollRequest, Sought
from gateway.ra.strangers import source_network
from gateway.tracing import is_traced, note, span
from gateway.web.derivations import Derivations
from gateway.web.floods import FloodCounter
from gateway.web.generation import Generation, ScepService
from gateway.wire.scep import errors, pkimessage
from gateway.wire.scep.pkimessage import CertificateQuery, MessageType, PkiMessage

log = structlog.get_logger(__name__)

LONG_CRL = 65536
"""Bytes from which on a CRL is encrypted off the event loop."""
RETRY_WHEN_BUSY = 1
"""Seconds after which a client should come again when too many password derivations wait."""

Asked = CertificateRequest | CertificateQuery | None
"""What was decrypted; None for a CertPoll, which is not, and for what could not be read."""
Answer = Outcome | Found
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a message came from."""

    source: str
    client_certificate: bytes | None = field(default=None, repr=False)
    """The TLS client's certificate, DER."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a message, and the CertRep that says so; None where HTTP alone can."""

    answer: Answer
    cert_rep: bytes | None = field(repr=False)


class PkiOperation:
    """Answers messages of every profile, for the whole life of one worker."""

    def __init__(
        self,
        authority: RegistrationAuthority,
        floods: FloodCounter,
        executor: Executor,
        clock: Callable[[], datetime],
    ) -> None:
        self._authority = authority
        self._floods = floods
        self._executor = executor
        self._clock = clock
        self._derivations = Derivations(executor)

    async def reply(self, generation: Generation, service: ScepService, message: PkiMessage, peer: Peer) -> Reply:
        """Answer one message; what it was refused for is signed like everything else, as far as CertReps can say it."""
        begun = perf_counter()
        asked: Asked = None
        legacy: tuple[str, ...] = ()
        try:
            with span("decode"):
                pkimessage.verify_signature(message, service.identity, self._clock())
                asked = await self._decode(service, message, peer.source)
        except Rejection as error:
            # Nobody has proved anything yet: strangers must not be able to write a row and a line for each message.
            told = self._floods.count(Protocol.SCEP, service.profile, error.reason)
            answer: Answer = _refusal(error)
        else:
            legacy = message.legacy
            for algorithm in legacy:
                self._floods.count_algorithm(Protocol.SCEP, service.profile, algorithm)
            answer = await self._ask(generation, service, message, asked, peer)
            told = self._count(service, answer)
        with span("encode"):
            reply = Reply(answer, await self._encode(service, message, answer))
        if is_traced():
            _note(service, message, answer)
        seconds = perf_counter() - begun
        _measure(service, message, answer, seconds)
        if told:
            _log_answer(service, message, asked, answer, legacy, peer.source, seconds)
        return reply

    async def _decode(self, service: ScepService, message: PkiMessage, source: str) -> Asked:
        # a CertPoll is not even decrypted
        if _derives(service, message) and message.message_type is not MessageType.CERT_POLL:
            network = source_network(source)
            return await self._derivations.begin(network, pkimessage.decode_request, message, service.identity)
        return await self._run(service, pkimessage.decode_request, message, service.identity)

    def _count(self, service: ScepService, answer: Answer) -> bool:
        """Count an answer that has no audit row of its own; True when it is worth a log line."""
        if not (isinstance(answer, Rejected | Unavailable) and answer.remarks.counted):
            return True
        return self._floods.count(Protocol.SCEP, service.profile, answer.reason)

    async def _ask(self, generation: Generation, service: ScepService, message: PkiMessage, asked: Asked, peer: Peer) -> Answer:
        """Put what the message asks to the registration authority in its own words."""
        snapshot = generation.snapshot
        match asked:
            case CertificateRequest():
                return await self._authority.enroll(snapshot, _enrollment(service, message, asked, peer))
            case CertificateQuery():
                return await self._authority.look_up(snapshot, _look_up(service, message, asked, peer))
            case None:
                return await self._authority.poll(snapshot, _poll(service, message, peer))

    async def _encode(self, service: ScepService, message: PkiMessage, answer: Answer) -> bytes | None:
        """Return the CertRep (RFC 8894 §3.2.1.3); None where it would say too much or too little."""
        identity = service.identity
        match answer:
            case Issued():
                certificates = (answer.certificate, *(answer.chain if service.reply_chain else ()))
                return await self._encode_success(service, message, certificates, ())
            case Found(ders) if message.message_type is MessageType.GET_CRL:
                return await self._encode_success(service, message, (), ders)
            case Found(ders):
                return await self._encode_success(service, message, ders, ())
            case Pending():
                return await self._run(service, pkimessage.encode_pending, message, identity)
            case Rejected(reason, detail) if reason not in errors.HTTP_STATUS:
                return await self._run(service, pkimessage.encode_failure, message, identity, reason, detail)
            case _:
                return None

    async def _encode_success(
        self, service: ScepService, message: PkiMessage, certificates: tuple[bytes, ...], crls: tuple[bytes, ...]
    ) -> bytes:
        arguments = (message, service.identity, certificates, crls)
        if _derives(service, message):
            return await self._derivations.finish(pkimessage.encode_success, *arguments)
        if any(len(crl) > LONG_CRL for crl in crls):
            return await asyncio.get_running_loop().run_in_executor(self._executor, pkimessage.encode_success, *arguments)
        return await self._run(service, pkimessage.encode_success, *arguments)

    async def _run(self, service: ScepService, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do private-key work: in this thread when it is short, else in the executor so that the loop goes on."""
        if not service.offload:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _derives(service: ScepService, message: PkiMessage) -> bool:
    """Whether a key may have to be derived from the profile's password; no profile without one ever does."""
    return service.identity.password is not None and message.uses_password


def _refusal(error: Rejection) -> Rejected | Unavailable:
    """Return the answer to a message that the codec refused, or that came when there was no place for it."""
    remarks = Remarks(cause=error.cause)
    if error.reason is Reason.OVERLOADED:
        return Unavailable(error.reason, RETRY_WHEN_BUSY, remarks)
    return Rejected(error.reason, error.detail, remarks)


def _enrollment(service: ScepService, message: PkiMessage, csr: CertificateRequest, peer: Peer) -> EnrollmentRequest:
    return EnrollmentRequest(
        profile=service.profile,
        protocol=Protocol.SCEP,
        operation=message.operation,
        transaction_id=message.transaction_id,
        csr=csr,
        challenge=csr.challenge_password,
        signer=message.signer,
        source=peer.source,
        is_renewal=message.message_type is MessageType.RENEWAL_REQ,
        client_certificate=peer.client_certificate,
    )


def _poll(service: ScepService, message: PkiMessage, peer: Peer) -> PollRequest:
    return PollRequest(
        profile=service.profile,
        protocol=Protocol.SCEP,
        operation=message.operation,
        transaction_id=message.transaction_id,
        requester_key=message.signer.public_key.sha256,
        source=peer.source,
        client_certificate=peer.client_certificate,
    )


def _look_up(service: ScepService, message: PkiMessage, query: CertificateQuery, peer: Peer) -> LookUpRequest:
    return LookUpRequest(
        profile=service.profile,
        protocol=Protocol.SCEP,
        operation=message.operation,
        sought=Sought.CRL if message.message_type is MessageType.GET_CRL else Sought.CERTIFICATE,
        source=peer.source,
        issuer_der=query.issuer_der,
        serial=query.serial,
        signer=message.signer,
        transaction_id=message.transaction_id,
        client_certificate=peer.client_certificate,
    )


def _knows_previous_ra(service: ScepService, message: PkiMessage) -> bool:
    """Whether a message is encrypted to an RA certificate that is no longer shown: its device has yet to learn the new one."""
    identity = service.identity
    if len(identity.pairs) == 1:
        return False
    found = identity.find_pair(message.recipients)
    return found is not None and found[0].certificate.der not in identity.certificates


def _measure(service: ScepService, message: PkiMessage, answer: Answer, seconds: float) -> None:
    metrics.count_answer(Protocol.SCEP, service.profile, message.operation, answer, seconds)
    if not isinstance(answer, Found) and answer.remarks.label:
        metrics.count_signed_challenge(service.profile, answer.remarks.label)


def _note(service: ScepService, message: PkiMessage, answer: Answer) -> None:
    """Say in the request's span what its log line says, but for names."""
    note(
        failed=isinstance(answer, Unavailable),
        profile=service.profile,
        operation=message.operation,
        transaction_id=message.transaction_id,
        outcome=type(answer).__name__.lower(),
        reason=answer.reason.value if isinstance(answer, Rejected | Unavailable) else None,
        request_id=getattr(answer, "request_id", None),
    )


def _log_answer(
    service: ScepService,
    message: PkiMessage,
    asked: Asked,
    answer: Answer,
    legacy: tuple[str, ...],
    source: str,
    seconds: float,
) -> None:
    """Write one line an answer: what was asked by whom, what became of it and why."""
    remarks = Remarks() if isinstance(answer, Found) else answer.remarks
    log.info(
        "scep",
        profile=service.profile,
        operation=message.operation,
        transaction_id=message.transaction_id,
        outcome=type(answer).__name__.lower(),
        reason=answer.reason.value if isinstance(answer, Rejected | Unavailable) else None,
        cause=remarks.cause or getattr(answer, "detail", None),
        warnings=remarks.warnings or None,
        challenge=remarks.label or None,
        legacy=" ".join(legacy) or None,
        ra="previous" if _knows_previous_ra(service, message) else None,
        subject=format_name(asked.subject) if isinstance(asked, CertificateRequest) else None,
        requester=remarks.requester or None,
        request_id=getattr(answer, "request_id", None),
        source=source,
        ms=round(seconds * 1000, 1),
    )
