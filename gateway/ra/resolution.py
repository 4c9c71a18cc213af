"""Ends what only a person can end: requests that wait for approval, and requests in doubt."""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import Reason, Rejection
from gateway.model import RequestId
from gateway.pki.certificate import parse_certificate
from gateway.ra import journal
from gateway.ra.profile import Snapshot
from gateway.ra.timing import Timing
from gateway.ra.transactions import NOBODY, confirmation_deadline, inventory_row, is_held, to_issue_request
from gateway.ra.walk import Clock, Verify
from gateway.store.interfaces import Ledger, LedgerRow, LedgerState, Transition, WaitingFor

IN_DOUBT = frozenset({LedgerState.UNKNOWN})
QUEUED = frozenset({LedgerState.OPEN})
ENDABLE = frozenset({LedgerState.UNKNOWN, LedgerState.PENDING})


class Resolution:
    """Changes rows by compare-and-swap on the worker that was seen: an operator never overtakes a worker that asks the CA.

    What goes to the CA is left to recovery, with no lease on it: any worker takes it up, though the one that was asked
    here dies in this moment.
    """

    def __init__(
        self,
        ledger: Ledger,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        verify: Verify,
        wake: Callable[[], None],
        timing: Timing | None = None,
    ) -> None:
        self._ledger = ledger
        self._snapshot = snapshot
        self._clock = clock
        self._verify = verify
        self._wake = wake
        self._lease = (timing or Timing()).lease

    async def find(self, id: RequestId) -> LedgerRow:
        """Return a row; raises Rejection UNKNOWN_TRANSACTION."""
        row = await self._ledger.get_row(id)
        if row is None:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no request with this ID")
        return row

    async def approve(self, id: RequestId, actor: str) -> LedgerRow:
        """Send a request on its way that waits for approval; raises Rejection when it does not, or when its validity is over."""
        row = await self._awaiting_approval(id)
        if row.grant.not_after <= self._clock():
            raise Rejection(
                Reason.POLICY_VALIDITY,
                "what was granted has expired while the request waited: deny it and let the client ask anew",
            )
        return await self._to_recovery(row, "request.approved", actor)

    async def deny(self, id: RequestId, actor: str, detail: str) -> LedgerRow:
        """Refuse a request that waits for approval.

        Nothing is released, although nothing was sent: the same request sent again gets this answer, and its challenge
        opens no second one.
        """
        return await self._end(await self._awaiting_approval(id), "request.denied", actor, detail or "denied by an operator")

    async def attach(self, id: RequestId, certificate: bytes, chain: tuple[bytes, ...], actor: str) -> LedgerRow:
        """Deliver the certificate that the CA did issue; raises Rejection with every fault when it is not what was granted."""
        row = await self._endable(id, ENDABLE)
        upstream = self._snapshot().upstream_cas.get(row.upstream_ca)
        if upstream is None:
            raise Rejection(Reason.UPSTREAM_UNAVAILABLE, f"the upstream CA {row.upstream_ca} is not configured any more")
        chain = chain or upstream.chain()
        now = self._clock()
        try:
            parsed = parse_certificate(certificate)
            self._verify(to_issue_request(row, 0), parsed, chain, upstream.chain(), now, upstream.capabilities)
            await upstream.inspect(certificate)
        except Rejection as error:
            raise Rejection(Reason.UPSTREAM_MISMATCH, f"this is not the certificate of this request: {error.cause}") from error
        event = journal.change(row, "request.attached", "granted", now, actor=actor, serial=parsed.serial)
        attached = Transition(
            id=row.id,
            expected=frozenset({row.state}),
            worker=row.worker,
            to=LedgerState.DELIVERED,
            at=now,
            audit=event,
            new_worker=NOBODY,
            waiting_for=WaitingFor.NOTHING,
            serial=parsed.serial,
            certificate=inventory_row(row, parsed, now),
            chain=chain,
            confirm_by=confirmation_deadline(row, now, Timing()),
        )
        return await self._apply(attached)

    async def reissue(self, id: RequestId, actor: str) -> LedgerRow:
        """Send a request in doubt once more: same row, same serial where we choose it, same grant."""
        return await self._to_recovery(await self._endable(id, IN_DOUBT), "request.reissued", actor)

    async def fail(self, id: RequestId, actor: str, detail: str) -> LedgerRow:
        """End a request without a certificate; what it had taken stays taken, since nobody knows what the CA did.

        So it does of one that waits in the queue of its CA: the same request sent again gets this answer.
        """
        row = await self.find(id)
        states = QUEUED if row.waiting_for is WaitingFor.QUEUE else ENDABLE
        return await self._end(await self._endable(id, states), "request.failed", actor, detail or "ended by an operator")

    async def _awaiting_approval(self, id: RequestId) -> LedgerRow:
        row = await self.find(id)
        if row.state is not LedgerState.PENDING or row.waiting_for is not WaitingFor.APPROVAL:
            raise Rejection(Reason.DENIED, f"this request does not wait for approval: it is {row.state}")
        return row

    async def _endable(self, id: RequestId, states: frozenset[LedgerState]) -> LedgerRow:
        row = await self.find(id)
        if row.waiting_for is WaitingFor.APPROVAL:
            raise Rejection(Reason.DENIED, "this request waits for approval: approve or deny it")
        if row.state not in states:
            raise Rejection(Reason.DENIED, f"this request cannot be ended so: it is {row.state}")
        now = self._clock()
        if is_held(row, now, self._lease):
            seconds = int((row.lease_until - now).total_seconds()) + 1
            raise Rejection(Reason.DENIED, f"a worker is asking the CA about this request just now: try again in {seconds} s")
        return row

    async def _to_recovery(self, row: LedgerRow, event: str, actor: str) -> LedgerRow:
        now = self._clock()
        freed = Transition(
            id=row.id,
            expected=frozenset({row.state}),
            worker=row.worker,
            to=LedgerState.OPEN,
            at=now,
            audit=journal.change(row, event, "done", now, actor=actor),
            new_worker=NOBODY,
            lease_until=now,
            waiting_for=WaitingFor.NOTHING,
            queued_at=None if row.queued_at is None else now,
            sent=False,
        )
        changed = await self._apply(freed)
        self._wake()
        return changed

    async def _end(self, row: LedgerRow, event: str, actor: str, detail: str) -> LedgerRow:
        now = self._clock()
        ended = Transition(
            id=row.id,
            expected=frozenset({row.state}),
            worker=row.worker,
            to=LedgerState.REJECTED,
            at=now,
            audit=journal.change(row, event, "refused", now, actor=actor, reason=Reason.DENIED, detail=detail),
            new_worker=NOBODY,
            waiting_for=WaitingFor.NOTHING,
            reason=Reason.DENIED,
            detail=detail,
        )
        return await self._apply(ended)

    async def _apply(self, change: Transition) -> LedgerRow:
        changed = await self._ledger.transition(change)
        if changed is None:
            raise Rejection(Reason.DENIED, "the request was changed in this very moment: look at it again")
        return changed
