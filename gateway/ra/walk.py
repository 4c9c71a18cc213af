"""Steps 5 to 8 of an enrollment: issue, verify, record, and what to do when the upstream CA's answer is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

import structlog

from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    UpstreamCA,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.metrics.registry import UpstreamOperation
from gateway.model import Issued, Outcome, Pending, Rejected, Unavailable
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.ra import journal, quarantine
from gateway.ra.alerts import alert_held, alert_resting, alert_unrecorded
from gateway.ra.reach import Reach
from gateway.ra.timing import Timing, rest_for
from gateway.ra.transactions import NOBODY, confirmation_deadline, inventory_row, outcome_of, to_issue_request
from gateway.ra.upstream import ask, destination
from gateway.store.interfaces import Ledger, LedgerRow, LedgerState, Transition, WaitingFor

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]
IN_HAND = frozenset({LedgerState.OPEN, LedgerState.UNKNOWN, LedgerState.PENDING})
CAN_TELL = Capability.FIND | Capability.REPEATABLE
"""Either ends a doubt without an operator."""
EAGER_ATTEMPTS = 8
"""A row that was taken up so often is sent again only after a rest: its CA loses every request, or its workers die of it."""


class Verify(Protocol):
    """Judges what came back by the stored grant; raises Rejection UPSTREAM_MISMATCH."""

    def __call__(
        self,
        request: IssueRequest,
        leaf: Certificate,
        chain: tuple[bytes, ...],
        ca_chain: tuple[bytes, ...],
        now: datetime,
        capabilities: Capability,
        /,
    ) -> None:
        """Return when the certificate is what was granted."""


class Walk:
    """Brings a ledger row that this worker holds to an end, or to rest where the next one finds it.

    Every method takes a row as it was last written and returns the outcome for its client. Each change is a
    compare-and-swap that carries its audit event; when it no longer applies, the row belongs to somebody else, and what
    the ledger says then is the answer.

    In the foreground a client waits: a CA in doubt is asked for a while, and a request whose CA was not reached is put into that
    CA's queue, or given back where it has none. In the background the client has been told to come back: a CA in doubt is asked
    once, and a CA that was not reached is tried again later. With `queues` false nothing waits for its CA: whoever asked has a
    key that is kept nowhere.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        worker: str,
        verify: Verify,
        timing: Timing,
        reach: Reach | None = None,
        *,
        background: bool = False,
        queues: bool = True,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._worker = worker
        self._verify = verify
        self._timing = timing
        self._reach = reach or Reach(clock, timing)
        self._background = background
        self._queues = queues

    async def issue(self, row: LedgerRow, upstream: UpstreamCA) -> Outcome:
        """Send an OPEN row that is marked sent to its CA."""
        held = await self._still_ours(row, upstream)
        if held is None:
            return await self._as_it_stands(row)
        try:
            within = self._timing.issue_within
            question = upstream.issue(replace(to_issue_request(held, within), renews=await self._renewed(held, upstream)))
            answer = await ask(upstream, UpstreamOperation.ISSUE, question, within)
        except UpstreamRejected as refusal:
            self._reach.answer(upstream.name)
            return await self._refuse(held, upstream, refusal)
        except NotSent as error:
            return await self._withdraw(held, upstream, error)
        except Exception as error:  # noqa: BLE001  anything else that escapes a backend leaves the result unknown
            return await self._doubt(held, upstream, _cause(error))
        self._reach.answer(upstream.name)
        return await self._judge(held, upstream, answer)

    async def _renewed(self, row: LedgerRow, upstream: UpstreamCA) -> bytes | None:
        """Return the certificate, DER, that a row renews, for a CA that says when to renew: it may be told (RFC 9773 §5)."""
        if row.renews is None or Capability.RENEWAL_HINT not in upstream.capabilities:
            return None
        try:
            renewed = await self._ledger.find_certificate(row.renews)
        except StoreUnavailable:
            return None
        return renewed.der if renewed is not None and renewed.upstream_ca == row.upstream_ca else None

    async def settle(self, row: LedgerRow, upstream: UpstreamCA) -> Outcome:
        """Ask the CA what became of an UNKNOWN row; let it rest or hold it where the CA cannot say.

        A CA that answers the same request with the same certificate is asked by the request itself. The row stays UNKNOWN
        meanwhile: whatever becomes of the second sending, the first is in doubt until there is an answer.
        """
        if not upstream.capabilities & CAN_TELL:
            return await self._hold(row, row.detail or "the CA cannot be asked what it did")
        until = monotonic() + (0 if self._background else self._timing.find_for)
        pause = self._timing.find_pause
        while True:
            try:
                found = await self._ask_again(row, upstream)
            except UpstreamRejected as refusal:
                return await self._refuse(row, upstream, refusal)
            except Exception as error:  # noqa: BLE001  a question that failed is asked again
                if monotonic() + pause > until:
                    cause = f"the CA could not be asked what it did: {_cause(error)}"
                    return await (self._hold if _is_in_vain(row, upstream, error) else self._rest)(row, cause)
            else:
                return await (self._again(row, upstream) if found is None else self._judge(row, upstream, found))
            await asyncio.sleep(pause)
            pause *= 2

    async def _ask_again(self, row: LedgerRow, upstream: UpstreamCA) -> UpstreamIssued | UpstreamPending | None:
        """Return what the CA did about a row in doubt; None: nothing, and it never will."""
        within = self._timing.issue_within
        request = replace(to_issue_request(row, within), in_doubt_since=row.sent_at or row.created_at)
        if Capability.FIND in upstream.capabilities:
            return await ask(upstream, UpstreamOperation.FIND, upstream.find(request), within)
        return await ask(upstream, UpstreamOperation.ISSUE, upstream.issue(request), within)

    async def poll(self, row: LedgerRow, upstream: UpstreamCA) -> Outcome:
        """Ask the CA about a PENDING row that it accepted earlier."""
        if Capability.POLL_SENDS not in upstream.capabilities:
            return await self._poll(row, upstream)
        # the CA may issue by it: whoever takes the row up after us must find it in doubt
        sent = await self._commit(self.sending(row))
        return await self._as_it_stands(row) if sent is None else await self._poll(sent, upstream)

    async def _poll(self, row: LedgerRow, upstream: UpstreamCA) -> Outcome:
        try:
            within = self._timing.issue_within
            question = upstream.poll(to_issue_request(row, within), row.upstream_reference or "")
            answer = await ask(upstream, UpstreamOperation.POLL, question, within)
        except UpstreamRejected as refusal:
            return await self._refuse(row, upstream, refusal)
        except Exception as error:  # noqa: BLE001  most polls change nothing upstream, and are simply asked again
            if Capability.POLL_SENDS in upstream.capabilities and not isinstance(error, NotSent):
                return await self._doubt(row, upstream, _cause(error))
            log.warning("upstream poll failed", request_id=row.id, upstream_ca=row.upstream_ca, cause=_cause(error))
            return await self._wait(row, row.upstream_reference or "", self._pause_after_poll(row, error))
        self._reach.answer(upstream.name)
        return await self._judge(row, upstream, answer)

    def _pause_after_poll(self, row: LedgerRow, error: Exception) -> timedelta:
        """Return when to poll again after a failure: the older the row, the later, for each poll is on record."""
        rest = self._reach.fail(row.upstream_ca, error.retry_after) if isinstance(error, NotSent) else timedelta(0)
        return max(self._timing.rest, rest, min(self._timing.longest_rest, (self._clock() - row.created_at) / 8))

    async def _judge(self, row: LedgerRow, upstream: UpstreamCA, answer: UpstreamIssued | UpstreamPending) -> Outcome:
        if isinstance(answer, UpstreamPending):
            if Capability.POLL not in upstream.capabilities:
                return await self._hold(row, f"the CA answered pending ({answer.reference}), and this backend cannot poll")
            longest = int(self._timing.longest_poll.total_seconds())
            return await self._wait(row, answer.reference, timedelta(seconds=max(1, min(answer.retry_after, longest))))
        try:
            certificate = parse_certificate(answer.certificate)
        except Rejection as error:
            return await self._doubt(row, upstream, f"the CA returned what is no certificate: {error.cause}")
        try:
            request, now = to_issue_request(row, 0), self._clock()
            self._verify(request, certificate, answer.chain, upstream.chain(), now, upstream.capabilities)
            await upstream.inspect(answer.certificate)
        except Rejection as error:
            return await self._mismatch(row, upstream, certificate, error)
        return await self._record(row, upstream, answer, certificate)

    async def _record(self, row: LedgerRow, upstream: UpstreamCA, issued: UpstreamIssued, certificate: Certificate) -> Outcome:
        now = self._clock()
        recorded = Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.DELIVERED,
            at=now,
            audit=journal.change(row, "enrollment.issued", "granted", now, serial=certificate.serial),
            new_worker=NOBODY,
            waiting_for=WaitingFor.NOTHING,
            serial=certificate.serial,
            upstream_reference=issued.reference,
            certificate=inventory_row(row, certificate, now),
            chain=issued.chain or upstream.chain(),
            confirm_by=confirmation_deadline(row, now, self._timing),
            opened=row,
        )
        try:
            done = await self._commit(recorded) or await self._record_late(recorded, row, upstream, certificate)
        except StoreUnavailable:
            alert_unrecorded(row, certificate.der, "the store is down")
            raise
        except _NotThisRequests as error:
            return await self._foreign(row, upstream, certificate, error.cause)
        return Issued(done.certificate or certificate.der, done.chain or issued.chain, row.id, row.grant.modified)

    async def _record_late(self, recorded: Transition, row: LedgerRow, upstream: UpstreamCA, mine: Certificate) -> LedgerRow:
        """Record a certificate for a row that is ours no more, or take the one that it has by now.

        A worker that stood still past its lease comes here, and one whose first write was made durable though the store
        said that it was not. A row that rests in doubt is ended by what we have; a row that another worker holds is
        waited for, since that worker may be just about to lay it to rest.
        """
        until = monotonic() + self._timing.find_for
        pause = self._timing.look_every
        while True:
            now = await self._ledger.get_row(row.id)
            if now and now.certificate and now.state is not LedgerState.REJECTED:
                if now.certificate != mine.der:
                    await self._discard(now, upstream, mine)
                return now
            if now is None or now.state in {LedgerState.REJECTED, LedgerState.REVOKED} or monotonic() > until:
                alert_unrecorded(row, mine.der, f"the request is {now.state if now else 'gone'}")
                raise Rejection(Reason.DENIED, "the request was ended meanwhile")
            if now.state is LedgerState.UNKNOWN and now.worker == NOBODY:
                late = replace(recorded, worker=NOBODY, expected=frozenset({LedgerState.UNKNOWN}))
                if (done := await self._commit(late)) is not None:
                    return done
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def _discard(self, row: LedgerRow, upstream: UpstreamCA, mine: Certificate) -> None:
        """Revoke a second certificate; one with the serial of the first (a local CA signed it twice) must not be."""
        alert_unrecorded(row, mine.der, "another certificate was recorded for this request")
        if mine.serial != row.serial:
            await quarantine.revoke(row, upstream, mine, self._clock(), self._ledger, self._timing.revoke_within)

    async def _mismatch(self, row: LedgerRow, upstream: UpstreamCA, certificate: Certificate, error: Rejection) -> Outcome:
        """End a row whose CA certified something that was not granted; a foreign key leaves it in doubt instead.

        A certificate for our key is the CA's answer to this request, so there is no doubt left that holding the row as
        unknown could solve: the row is REJECTED, nothing is released, and the certificate is put into the inventory
        already revoked, where operators and the CRL see it and where it can prove nobody's identity. A certificate for
        another key, or one that another request has, may be good where it belongs (a CA that mixes up replies): it is
        neither recorded nor revoked, and what became of our own request stays unknown.
        """
        if certificate.public_key.sha256 != row.public_key_sha256:
            return await self._foreign(row, upstream, certificate, "it holds another key than the request")
        now = self._clock()
        try:
            ended = await self._commit(quarantine.rejection(row, certificate, error, now, self._worker))
        except _NotThisRequests as known:
            return await self._foreign(row, upstream, certificate, known.cause)
        if ended is None:
            return await self._as_it_stands(row)
        await quarantine.revoke(row, upstream, certificate, now, self._ledger, self._timing.revoke_within)
        return Rejected(error.reason, error.detail)

    async def _foreign(self, row: LedgerRow, upstream: UpstreamCA, certificate: Certificate, cause: str) -> Outcome:
        quarantine.report_foreign(row, certificate, cause)
        return await self._doubt(
            row, upstream, f"the CA returned another request's certificate, serial {certificate.serial:x}: {cause}"
        )

    async def _refuse(self, row: LedgerRow, upstream: UpstreamCA, refusal: UpstreamRejected) -> Outcome:
        outcome = Rejected(Reason.UPSTREAM_REJECTED, str(refusal) or "the CA refused the request")
        return await self._end(row, upstream, outcome, outcome.detail)

    async def _withdraw(self, row: LedgerRow, upstream: UpstreamCA, error: NotSent) -> Outcome:
        """Let a request wait that did not reach its CA; give it back where its CA has no queue and its client waits for it."""
        rest = self._reach.fail(upstream.name, error.retry_after)
        if self._queues and upstream.queue:
            return await self._queue(row, upstream, rest, str(error))
        if not self._background:
            seconds = max(1, min(error.retry_after, int(self._timing.longest_rest.total_seconds())))
            return await self._end(row, upstream, Unavailable(Reason.UPSTREAM_UNAVAILABLE, seconds), str(error))
        return await self._postpone(row, max(self._timing.rest, rest), str(error))

    async def _queue(self, row: LedgerRow, upstream: UpstreamCA, pause: timedelta, cause: str) -> Outcome:
        """Let a row wait of which nothing is at its CA, with all that it has reserved; end it when it has waited too long.

        This sending was none, so it does not count among the attempts: what was in doubt before is told by those that do.
        """
        now = self._clock()
        since = row.queued_at or now
        if now >= min(since + upstream.queue, row.grant.not_after):
            ended = Rejected(Reason.UPSTREAM_TIMEOUT, "the CA could not be reached for as long as the request could wait")
            return await self._end(row, upstream, ended, cause)
        queued = Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.OPEN,
            at=now,
            audit=journal.change(row, "enrollment.queued", "pending", now, reason=Reason.UPSTREAM_UNAVAILABLE, detail=cause),
            new_worker=NOBODY,
            lease_until=now + pause,
            waiting_for=WaitingFor.QUEUE,
            queued_at=since,
            sent=False,
            attempts=max(0, row.attempts - 1),
        )
        return await self._outcome(await self._commit(queued), row)

    async def _postpone(self, row: LedgerRow, pause: timedelta, cause: str) -> Outcome:
        """Let a row go of which nothing is at the CA; whoever takes it up after `pause` sends it."""
        now = self._clock()
        postponed = Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.OPEN,
            at=now,
            audit=journal.change(row, "enrollment.postponed", "pending", now, reason=Reason.UPSTREAM_UNAVAILABLE, detail=cause),
            new_worker=NOBODY,
            lease_until=now + pause,
            sent=False,
        )
        return await self._outcome(await self._commit(postponed), row)

    async def _end(self, row: LedgerRow, upstream: UpstreamCA, outcome: Rejected | Unavailable, cause: str) -> Outcome:
        """Reject a row for which nothing was issued and never will be, and give back what it had taken.

        Nothing is given back where an earlier sending is in doubt and cannot be asked about: an operator had it sent again, or it
        was repeated.
        """
        now = self._clock()
        ended = Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.REJECTED,
            at=now,
            audit=journal.change(row, "enrollment.rejected", "refused", now, reason=outcome.reason, detail=cause),
            new_worker=NOBODY,
            waiting_for=WaitingFor.NOTHING,
            reason=outcome.reason,
            detail=outcome.detail if isinstance(outcome, Rejected) else "the CA could not be reached",
            release=Capability.FIND in upstream.capabilities or (row.attempts <= 1 and row.state is not LedgerState.UNKNOWN),
        )
        return outcome if await self._commit(ended) is not None else await self._as_it_stands(row)

    async def _wait(self, row: LedgerRow, reference: str, pause: timedelta) -> Outcome:
        now = self._clock()
        waiting = Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.PENDING,
            at=now,
            audit=journal.change(row, "enrollment.pending", "pending", now, detail="the CA has accepted the request"),
            new_worker=NOBODY,
            waiting_for=WaitingFor.UPSTREAM,
            poll_at=now + pause,
            upstream_reference=reference,
        )
        return await self._outcome(await self._commit(waiting), row)

    async def _doubt(self, row: LedgerRow, upstream: UpstreamCA, cause: str) -> Outcome:
        """Mark a row unknown and ask the CA at once where it can be asked."""
        if not upstream.capabilities & CAN_TELL or row.state is LedgerState.UNKNOWN:
            return await self._hold(row, cause)
        unknown = await self._commit(self._unknown(row, cause, self._worker, self._clock() + self._timing.lease))
        if unknown is None:
            return await self._as_it_stands(row)
        return await self.settle(unknown, upstream)

    async def _again(self, row: LedgerRow, upstream: UpstreamCA) -> Outcome:
        """Send once more what the CA says it never saw; with the same row, serial and grant it is still one request."""
        cause = "the CA never processed the request"
        if self._background:
            pause = timedelta(0) if row.attempts < EAGER_ATTEMPTS else rest_for(self._timing, self._clock() - row.created_at)
            return await self._postpone(row, pause, cause)
        if row.attempts >= self._timing.attempts:
            if self._queues and upstream.queue:
                return await self._queue(row, upstream, self._timing.rest, cause)
            return await self._end(row, upstream, Unavailable(Reason.UPSTREAM_UNAVAILABLE, self._timing.hold_retry), cause)
        opened = await self._commit(self.sending(row, upstream, again=True))
        return await self._as_it_stands(row) if opened is None else await self.issue(opened, upstream)

    def sending(self, row: LedgerRow, upstream: UpstreamCA | None = None, *, again: bool = False) -> Transition:
        """Return the change that marks a row as sent, before the first byte goes to the CA.

        Sendings that never reached it do not count among the attempts: before the first that counts, nothing was sent. Without
        `upstream` the request goes where its reference says.
        """
        now = self._clock()
        attempts = row.attempts + 1 if again else max(1, row.attempts)
        return Transition(
            id=row.id,
            expected=frozenset({row.state}),
            worker=self._worker,
            to=LedgerState.OPEN,
            at=now,
            audit=journal.change(row, "enrollment.sent", "pending", now, detail=f"attempt {attempts}"),
            lease_until=now + self._timing.lease,
            waiting_for=WaitingFor.NOTHING,
            sent=True,
            sent_at=now if attempts <= 1 else None,
            attempts=attempts,
            upstream_reference=destination(upstream, row.upstream_reference if attempts > 1 else None) if upstream else None,
        )

    async def _rest(self, row: LedgerRow, cause: str) -> Outcome:
        """Let a row in doubt rest until the CA can be asked again."""
        now = self._clock()
        pause = rest_for(self._timing, now - row.created_at)
        resting = await self._commit(self._unknown(row, cause, NOBODY, now + pause))
        alert_resting(row, cause, int(pause.total_seconds()))
        return await self._outcome(resting, row)

    async def _hold(self, row: LedgerRow, cause: str) -> Outcome:
        """Hold a row that only an operator can end."""
        change = self._unknown(row, cause, NOBODY, self._clock() + self._timing.hold)
        held = await self._commit(change) or await self._ledger.get_row(row.id)
        if held is not None and held.state is LedgerState.UNKNOWN:
            alert_held(held, cause)
        return await self._outcome(held, row)

    def _unknown(self, row: LedgerRow, cause: str, worker: str, lease_until: datetime) -> Transition:
        now = self._clock()
        return Transition(
            id=row.id,
            expected=IN_HAND,
            worker=self._worker,
            to=LedgerState.UNKNOWN,
            at=now,
            audit=journal.change(row, "enrollment.unknown", "pending", now, detail=cause),
            new_worker=worker,
            lease_until=lease_until,
            waiting_for=WaitingFor.NOTHING,
            detail=cause,
        )

    async def _still_ours(self, row: LedgerRow, upstream: UpstreamCA) -> LedgerRow | None:
        """Return the row with a live lease: one that lapsed since it was written is renewed before anything is sent."""
        if self._clock() < row.lease_until:
            return row
        current = await self._ledger.get_row(row.id)
        if current is None or current.worker != self._worker or current.state is not LedgerState.OPEN:
            return None
        return current if self._clock() < current.lease_until else await self._commit(self.sending(current, upstream))

    async def _as_it_stands(self, row: LedgerRow) -> Outcome:
        """Answer from the ledger when our change no longer applied."""
        log.info("request was taken up elsewhere", request_id=row.id)
        return await self._outcome(await self._ledger.get_row(row.id), row)

    async def _outcome(self, current: LedgerRow | None, row: LedgerRow) -> Outcome:
        current = current or await self._ledger.get_row(row.id)
        outcome = outcome_of(current, self._clock(), self._timing.hold_retry) if current else None
        return outcome or Pending(row.id, self._timing.busy_retry)

    async def _commit(self, change: Transition) -> LedgerRow | None:
        """Apply a change, trying again while the store is down: what the CA said is only in our hands until then.

        Raises StoreUnavailable at last, and _NotThisRequests where the certificate is another request's.
        """
        until = monotonic() + self._timing.store_patience
        pause = self._timing.look_every
        while True:
            try:
                return await self._ledger.transition(change)
            except Rejection as refusal:
                raise _NotThisRequests(refusal.reason, refusal.detail, refusal.cause) from refusal
            except StoreUnavailable as error:
                if monotonic() + pause > until:
                    raise
                log.warning("the store refused a result of the CA; tried again", request_id=change.id, cause=str(error))
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)


class _NotThisRequests(Rejection):
    """The inventory holds the certificate, or its serial, under another request."""


def _is_in_vain(row: LedgerRow, upstream: UpstreamCA, error: Exception) -> bool:
    """Whether a request was repeated often enough: its CA was reached each time, and neither repeats its answer nor gives one."""
    repeats = Capability.FIND not in upstream.capabilities and not isinstance(error, NotSent)
    return repeats and row.attempts >= EAGER_ATTEMPTS


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
