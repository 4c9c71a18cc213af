"""Leaves an upstream CA alone for a while when it fails again and again: clients are told at once, and it can recover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import TypeVar

import structlog

from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    ChainTeller,
    IssueRequest,
    NotSent,
    RenewalHint,
    Trial,
    Unavailable,
    UnknownResult,
    UpstreamCA,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.second_opinion import SecondOpinion
from gateway.config.defaults import UPSTREAM_CALL_SECONDS
from gateway.metrics import worker as metrics
from gateway.model import RevocationReason

T = TypeVar("T")

FAILURES = 5
"""Failures one after the other that open the circuit."""
FIRST_REST_SECONDS = 10.0
LONGEST_REST_SECONDS = 300.0
"""Each trial that fails doubles the rest, up to this."""
TRIAL_SECONDS = 120.0
"""After that a trial that has not ended counts for nothing, and another may be made."""

log = structlog.get_logger(__name__)


class Circuit:
    """Closed while a CA answers, open while it rests and for one trial at a time; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._rest = FIRST_REST_SECONDS
        self._resting_until: float | None = None
        self._on_trial = False

    @property
    def is_open(self) -> bool:
        """Whether the CA rests, or is tried."""
        return self._resting_until is not None

    def wait(self, now: float) -> float:
        """Return 0 where the CA may be asked, else the seconds until then; whoever may ask an open circuit makes the trial."""
        if self._resting_until is None:
            return 0.0
        if now < self._resting_until:
            return self._resting_until - now
        self._resting_until, self._on_trial = now + TRIAL_SECONDS, True
        return 0.0

    def succeed(self) -> None:
        """Note an answer, whatever it said."""
        self._failures, self._rest, self._resting_until, self._on_trial = 0, FIRST_REST_SECONDS, None, False

    def fail(self, now: float, least_rest: float = 0.0) -> None:
        """Note that no answer came; what had been asked before the circuit opened changes nothing any more.

        A circuit that opens by it stays open for `least_rest` seconds: what the CA itself asked for.
        """
        self._failures += 1
        if self._on_trial:
            self._rest = min(self._rest * 2, LONGEST_REST_SECONDS)
        if self._on_trial or (not self.is_open and self._failures >= FAILURES):
            rest = max(self._rest, min(least_rest, LONGEST_REST_SECONDS))
            self._resting_until, self._on_trial = now + rest, False


class GuardedCA:
    """An upstream CA beyond this process, with its circuit; each worker has its own, and keeps it over reloads.

    Only `issue` is refused while the circuit is open: the other questions are few, and their answers end a doubt. None of
    them takes longer than a call may, whatever the backend does.
    """

    def __init__(
        self, ca: UpstreamCA, clock: Callable[[], float] = monotonic, second_opinion: SecondOpinion | None = None
    ) -> None:
        self.name = ca.name
        self.accepts = ca.accepts
        self.queue = ca.queue
        self.start = ca.start
        self.close = ca.close
        self.new_serial = ca.new_serial
        self.chain = ca.chain
        self.not_after_limit = ca.not_after_limit
        self.ca = ca
        self._clock = clock
        self._second_opinion = second_opinion
        self._circuit = Circuit()
        self._refuses_us = False
        metrics.set_circuit(self.name, is_open=False)

    @property
    def capabilities(self) -> Capability:
        """What the backend can do, as far as it knows by now."""
        return self.ca.capabilities

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Issue one certificate; raises NotSent while the CA rests."""
        wait = self._circuit.wait(self._clock())
        if wait > 0:
            raise NotSent("the CA has failed again and again and is left alone for a while", max(1, round(wait)))
        return await self._watch(self.ca.issue(request))

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Ask about an earlier `UpstreamPending`."""
        return await self._watch(self.ca.poll(request, reference))

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Say what became of `request`."""
        return await self._watch(self.ca.find(request))

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke."""
        await self._watch(_bound(self.ca.revoke(certificate, serial, reason, when), UnknownResult))

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Take a certificate off hold."""
        await self._watch(_bound(self.ca.revive(certificate, serial, when), UnknownResult))

    async def crl(self) -> bytes | None:
        """Fetch the CRL, DER."""
        return await _bound(self.ca.crl(), NotSent)

    async def health(self) -> None:
        """Ask whether the CA works."""
        await _bound(self.ca.health(), NotSent)

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        """Ask when a certificate should be renewed."""
        return await _bound(self.ca.renewal_hint(certificate), NotSent)

    async def inspect(self, certificate: bytes) -> None:
        """Have a certificate that came back judged once more, where that is configured; raises Rejection UPSTREAM_MISMATCH."""
        if self._second_opinion is not None:
            await self._second_opinion.judge(certificate)

    async def check(self) -> tuple[Trial, ...]:
        """Try what can be tried; a backend that fails at that is a finding."""
        try:
            return await _bound(self.ca.check(), NotSent)
        except Exception as error:
            log.exception("an upstream CA could not be tried", upstream_ca=self.name)
            told = str(error) if isinstance(error, UpstreamError) else type(error).__name__
            return (Trial("trial", good=False, finding=f"broke off: {told}", advice="see the log"),)

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the chain that the CA itself tells; raises NotSent where it tells none."""
        if not isinstance(self.ca, ChainTeller):
            raise NotSent("a CA of this type does not tell its chain: have it from whoever runs the CA")
        return await _bound(self.ca.fetch_chain(), NotSent)

    async def _watch(self, question: Awaitable[T]) -> T:
        """Return the answer and note whether there was one; whoever stops waiting had none."""
        answered, least_rest = False, 0.0
        try:
            answer = await question
            answered = True
        except UpstreamRejected:
            answered = True
            raise
        except AuthFailed as error:
            self._note_refusal(error)
            raise
        except Unavailable as error:
            least_rest = error.retry_after
            raise
        finally:
            self._note(answered=answered, least_rest=least_rest)
        return answer

    def _note_refusal(self, error: AuthFailed) -> None:
        """Say once that an operator has to look."""
        if not self._refuses_us:
            log.error("the upstream CA does not take our credentials", upstream_ca=self.name, cause=str(error))
        self._refuses_us = True

    def _note(self, *, answered: bool, least_rest: float) -> None:
        was_open = self._circuit.is_open
        if answered:
            self._refuses_us = False
            self._circuit.succeed()
        else:
            self._circuit.fail(self._clock(), least_rest)
        if self._circuit.is_open != was_open:
            metrics.set_circuit(self.name, is_open=self._circuit.is_open)
            if answered:
                log.info("the upstream CA answers again", upstream_ca=self.name)
            else:
                log.error("the upstream CA fails again and again: requests are told to come later", upstream_ca=self.name)


async def _bound(question: Awaitable[T], failed: type[NotSent] | type[UnknownResult]) -> T:
    """Return the answer to what nobody else bounds; raises `failed` for one that does not come, and what a backend may raise."""
    try:
        async with asyncio.timeout(UPSTREAM_CALL_SECONDS):
            return await question
    except TimeoutError as error:
        raise failed(f"the CA did not answer within {UPSTREAM_CALL_SECONDS} seconds") from error
