"""One PKIMessage through the registration authority and back: read, asked, answered, protected, logged (RFC 9810 §5.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime
from time import perf_counter
from typing import TypeVar, TypeVarTuple

import structlog

from gateway.cmp import Answer, Enrollment, ErrorAnswer, MacSender, Message
from gateway.errors import Reason
from gateway.metrics import worker as metrics
from gateway.model import Outcome, Protocol, Rejected, Remarks, Unavailable
from gateway.pki.names import format_name
from gateway.pki.password_mac import is_slow_mac
from gateway.ra.cmp.authority import CmpAuthority
from gateway.tracing import is_traced, note, span
from gateway.web.failures import PROOF_REFUSED
from gateway.web.floods import FloodCounter
from gateway.web.generation import CmpService, Generation
from gateway.wire.cmp.answers import encode_answer

log = structlog.get_logger(__name__)

FAILURES = PROOF_REFUSED | {
    Reason.BAD_MESSAGE_CHECK,
    Reason.WRONG_INTEGRITY,
    Reason.UNSUPPORTED_ALGORITHM,
    Reason.UNSUPPORTED_VERSION,
    Reason.BAD_NONCE,
    Reason.BAD_RECIPIENT_NONCE,
}
"""Refusals that count against an address."""
_NO_REMARKS = Remarks()

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class CmpExchange:
    """Answers messages of every profile, for the whole life of one worker."""

    def __init__(self, authority: CmpAuthority, floods: FloodCounter, executor: Executor, clock: Callable[[], datetime]) -> None:
        self._authority = authority
        self._clock = clock
        self._floods = floods
        self._executor = executor

    async def reply(
        self, generation: Generation, service: CmpService, message: Message, operation: str | None, source: str
    ) -> tuple[bytes, Outcome | None]:
        """Return the protected answer to a message, and what became of it; whatever it is, CMP has words for it."""
        begun = perf_counter()
        answer = await self._authority.answer(generation.snapshot, service.profile, message, operation, source)
        told = self._count(service, answer.outcome)
        with span("encode"):
            aside = service.offload or _derives(answer)
            encoded = await self._run(aside, encode_answer, message.header, answer, service.protector, self._clock())
        seconds = perf_counter() - begun
        metrics.count_answer(Protocol.CMP, service.profile, message.type.operation, answer.outcome, seconds)
        if is_traced():
            _note(service, message, answer)
        if told:
            _log_answer(service, message, answer, source, seconds)
        return encoded, answer.outcome

    def _count(self, service: CmpService, outcome: Outcome | None) -> bool:
        """Count an answer that has no audit row of its own; True when it is worth a log line."""
        if not (isinstance(outcome, Rejected | Unavailable) and outcome.remarks.counted):
            return True
        return self._floods.count(Protocol.CMP, service.profile, outcome.reason)

    async def _run(self, aside: bool, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Protect in this thread what is short, else in the executor so that the loop goes on."""
        if not aside:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _derives(answer: Answer) -> bool:
    """Whether a key is derived for the answer's MAC, which takes longer than the loop may stand still."""
    return isinstance(answer.protect_for, MacSender) and is_slow_mac(answer.protect_for.parameters)


def _word(answer: Answer) -> str:
    """Return what became of a message in the log's words; what is no enrollment is done."""
    if answer.outcome is not None:
        return type(answer.outcome).__name__.lower()
    return "rejected" if isinstance(answer.body, ErrorAnswer) else "done"


def _note(service: CmpService, message: Message, answer: Answer) -> None:
    """Say in the request's span what its log line says, but for names."""
    outcome = answer.outcome
    note(
        failed=isinstance(outcome, Unavailable),
        profile=service.profile,
        operation=message.type.operation,
        transaction_id=_transaction(message),
        outcome=_word(answer),
        reason=outcome.reason.value if isinstance(outcome, Rejected | Unavailable) else None,
        request_id=answer.request_id,
    )


def _log_answer(service: CmpService, message: Message, answer: Answer, source: str, seconds: float) -> None:
    """Write one line an answer: what was asked by whom, what became of it and why."""
    outcome = answer.outcome
    remarks = outcome.remarks if outcome is not None else _NO_REMARKS
    log.info(
        "cmp",
        profile=service.profile,
        operation=message.type.operation,
        transaction_id=_transaction(message),
        outcome=_word(answer),
        reason=outcome.reason.value if isinstance(outcome, Rejected | Unavailable) else None,
        cause=remarks.cause or getattr(outcome, "detail", None),
        warnings=remarks.warnings or None,
        subject=_subject(message),
        requester=remarks.requester or None,
        request_id=answer.request_id,
        source=source,
        ms=round(seconds * 1000, 1),
    )


def _transaction(message: Message) -> str | None:
    found = message.header.transaction_id
    return None if found is None else found.hex()


def _subject(message: Message) -> str | None:
    """Return the name that is asked for, where one is."""
    body = message.body
    if not isinstance(body, Enrollment) or not body.requests:
        return None
    return format_name(body.requests[0].request.subject)
