"""One EST request for a certificate through the registration authority and back: read, asked, answered, logged (RFC 7030)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter

import structlog

from gateway.errors import Rejection
from gateway.metrics import worker as metrics
from gateway.model import (
    EnrollmentRequest,
    IssuedWithKey,
    Outcome,
    Protocol,
    Rejected,
    Remarks,
    SignerCertificate,
    Unavailable,
)
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.names import format_name
from gateway.ra.authority import RegistrationAuthority
from gateway.tracing import note, span
from gateway.web.est_operations import Asked, EstAnswer, EstBody, EstOperation
from gateway.web.floods import FloodCounter
from gateway.web.generation import EstService, Generation
from gateway.web.peer import TlsClient
from gateway.wire.est import messages

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 4096
"""Bytes of a certificate that is remembered with what was read from it, so that large ones cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one request brought beside its path."""

    body: bytes = field(repr=False)
    authorization: str | None = field(repr=False)
    wrap: bool
    """Its client wants base64 in lines."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request, and how that is spelled; None where HTTP alone says it."""

    answer: EstAnswer
    spelled: EstBody | None = field(repr=False)
    unread: bool
    """It was refused as it was read, before anybody had proved who he is."""


class EstEnrollment:
    """Answers requests of every profile, for the whole life of one worker."""

    def __init__(self, authority: RegistrationAuthority, floods: FloodCounter) -> None:
        self._authority = authority
        self._floods = floods

    async def reply(
        self, generation: Generation, service: EstService, operation: EstOperation, sent: Sent, client: TlsClient
    ) -> Reply:
        """Answer one request, whatever it is."""
        begun = perf_counter()
        asked: Asked | Rejection
        try:
            with span("decode"):
                asked = await operation.decode(service, sent.body, client.shown.certificate)
                request = _enrollment(service, operation.name, asked, sent, client)
        except Rejection as error:
            asked = error.with_traceback(None)
            # Nobody has proved anything yet: strangers must not be able to write a row and a line for each request.
            told = self._floods.count(Protocol.EST, service.profile, error.reason)
            answer: EstAnswer = Rejected(error.reason, error.detail, Remarks(cause=error.cause))
        else:
            answer = await operation.ask(self._authority, generation.snapshot, request, asked)
            told = self._count(service, answer)
        with span("encode"):
            spelled = await operation.encode(service, asked, answer, wrap=sent.wrap)
        reply = Reply(answer, spelled, isinstance(asked, Rejection))
        seconds = perf_counter() - begun
        outcome = outcome_of(answer)
        _note(service, operation.name, outcome)
        metrics.count_answer(Protocol.EST, service.profile, operation.name, outcome, seconds)
        if told:
            _log_answer(service, operation.name, asked, outcome, client.source, seconds)
        return reply

    def _count(self, service: EstService, answer: EstAnswer) -> bool:
        """Count an answer that has no audit row of its own; True when it is worth a log line."""
        if not (isinstance(answer, Rejected | Unavailable) and answer.remarks.counted):
            return True
        return self._floods.count(Protocol.EST, service.profile, answer.reason)


def outcome_of(answer: EstAnswer) -> Outcome:
    """Return what became of a request, without a key that was drawn for it."""
    return answer.issued if isinstance(answer, IssuedWithKey) else answer


def _enrollment(service: EstService, operation: str, asked: Asked, sent: Sent, client: TlsClient) -> EnrollmentRequest:
    """Put a request into the registration authority's words. Raises MalformedMessage for a client certificate that is none."""
    challenge, linking = messages.read_secrets(asked.csr, asked.attributes, client.binding, client.unbound)
    renews = operation == messages.SIMPLEREENROLL
    return EnrollmentRequest(
        profile=service.profile,
        protocol=Protocol.EST,
        operation=operation,
        transaction_id="",
        csr=asked.csr,
        challenge=challenge,
        signer=_renewed(client.shown.certificate) if renews else None,
        source=client.source,
        is_renewal=renews,
        client_certificate=client.shown.certificate,
        client_chain=client.shown.chain,
        authorization=sent.authorization,
        linking=linking,
    )


def _renewed(leaf: bytes | None) -> SignerCertificate | None:
    """Return the certificate that is to be renewed: the one that the client showed (RFC 7030 §3.3.2)."""
    if leaf is None:
        return None
    return _remember_signer(leaf) if len(leaf) <= MAX_REMEMBERED else _parse_signer(leaf)


def _parse_signer(leaf: bytes) -> SignerCertificate:
    return to_signer(parse_certificate(leaf))


_remember_signer = lru_cache(maxsize=1024)(_parse_signer)


def _note(service: EstService, operation: str, outcome: Outcome) -> None:
    """Say in the request's span what its log line says, but for names."""
    note(
        failed=isinstance(outcome, Unavailable),
        profile=service.profile,
        operation=operation,
        outcome=type(outcome).__name__.lower(),
        reason=outcome.reason.value if isinstance(outcome, Rejected | Unavailable) else None,
        request_id=getattr(outcome, "request_id", None),
    )


def _log_answer(
    service: EstService, operation: str, asked: Asked | Rejection, outcome: Outcome, source: str, seconds: float
) -> None:
    """Write one line an answer: what was asked by whom, what became of it and why."""
    remarks = outcome.remarks
    log.info(
        "est",
        profile=service.profile,
        operation=operation,
        outcome=type(outcome).__name__.lower(),
        reason=outcome.reason.value if isinstance(outcome, Rejected | Unavailable) else None,
        cause=remarks.cause or getattr(outcome, "detail", None),
        warnings=remarks.warnings or None,
        challenge=remarks.label or None,
        subject=format_name(asked.csr.subject) if isinstance(asked, Asked) else None,
        requester=remarks.requester or None,
        request_id=getattr(outcome, "request_id", None),
        source=source,
        ms=round(seconds * 1000, 1),
    )
