"""Takes up what no worker holds any more: rows whose lease ran out, and rows that their upstream CA asked to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import Outcome, UpstreamCAName
from gateway.ra import journal
from gateway.ra.alerts import alert_unconfigured
from gateway.ra.leases import Leases
from gateway.ra.profile import Snapshot
from gateway.ra.reach import Reach
from gateway.ra.timing import Timing
from gateway.ra.transactions import NOBODY, is_due, latest_lease
from gateway.ra.walk import Walk
from gateway.store.interfaces import Ledger, LedgerRow, LedgerState, Transition, WaitingFor

log = structlog.get_logger(__name__)

ROWS_A_PASS = 100
AT_ONCE = 8
"""How many rows one worker takes up at the same time: recovery must not crowd out clients that wait."""


def taken_back(row: LedgerRow, now: datetime, reason: Reason, detail: str) -> Transition:
    """Return the change that ends a row of which its worker has sent nothing, and gives back all that it took."""
    return Transition(
        id=row.id,
        expected=frozenset({row.state}),
        worker=row.worker,
        to=LedgerState.REJECTED,
        at=now,
        audit=journal.change(row, "enrollment.rejected", "refused", now, reason=reason, detail=detail),
        new_worker=NOBODY,
        waiting_for=WaitingFor.NOTHING,
        reason=reason,
        detail=detail,
        release=True,
    )


class Recovery:
    """One worker's part in looking after the ledger; several may pass over it at once.

    A row is claimed by compare-and-swap on the worker and the lease that were read, so that exactly one of them gets it.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], datetime],
        worker: str,
        walk: Walk,
        leases: Leases[Outcome | LedgerRow],
        timing: Timing,
        reach: Reach,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._worker = worker
        self._walk = walk
        self._leases = leases
        self._timing = timing
        self._reach = reach

    async def pass_over(self, snapshot: Snapshot) -> int:
        """Take up every row that is due, wait until each is ended or rests again; returns how many were taken up.

        What waits for a CA that rests is left alone, but for one row when its time has come; when that has an answer, the others
        follow at once. Raises StoreUnavailable when the ledger cannot be read.
        """
        taken = 0
        while not self._leases.draining:
            count, waiting = await self._round(snapshot)
            taken += count
            if not count or not any(self._reach.is_reached(ca) for ca in waiting):
                break
        return taken

    async def _round(self, snapshot: Snapshot) -> tuple[int, frozenset[UpstreamCAName]]:
        """Take up what is due; returns how many rows, and the CAs in whose queues some were left."""
        now = self._clock()
        beyond = latest_lease(now, self._timing.lease)
        rows = await self._ledger.find_lapsed(now, ROWS_A_PASS, beyond, self._reach.resting())
        gate = asyncio.Semaphore(AT_ONCE)

        async def take(row: LedgerRow) -> bool:
            async with gate:
                return await self._finish(snapshot, row)

        done = await asyncio.gather(*(take(row) for row in rows))
        left = (row for row, taken in zip(rows, done, strict=True) if not taken and row.waiting_for is WaitingFor.QUEUE)
        return sum(done), frozenset(row.upstream_ca for row in left)

    async def _finish(self, snapshot: Snapshot, row: LedgerRow) -> bool:
        task = self.resume(snapshot, row)
        if task is None:
            return False
        await asyncio.wait({task})
        if task.cancelled():
            return False
        error = task.exception()
        if isinstance(error, StoreUnavailable | Rejection):
            log.warning("a request could not be finished and is taken up again", request_id=row.id, cause=str(error))
        return error is None

    def resume(self, snapshot: Snapshot, row: LedgerRow) -> asyncio.Task[Outcome | LedgerRow] | None:
        """Start work on a row that is due; None when this worker is at it, or its CA rests."""
        due = is_due(row, self._clock(), self._timing.lease)
        if self._leases.draining or self._leases.find(row.request_key) is not None or not due:
            return None
        if row.waiting_for is WaitingFor.QUEUE and not self._reach.admit(row.upstream_ca):
            return None
        task = self._leases.start(row.request_key, self._take_up(snapshot, row))
        snapshot.occupancy.extend(task)
        return task

    async def _take_up(self, snapshot: Snapshot, row: LedgerRow) -> Outcome | LedgerRow:
        upstream = snapshot.upstream_cas.get(row.upstream_ca)
        mine = await (self._claim_poll(row) if row.state is LedgerState.PENDING else self._take_over(row))
        if mine is None:
            return await self._ledger.get_row(row.id) or row
        if mine.waiting_for is WaitingFor.PREDECESSOR:
            return await self._give_up(mine)
        if upstream is None:
            return await self._set_aside(mine)
        self._leases.hold(row.request_key, row.id)
        match mine.state:
            case LedgerState.PENDING:
                return await self._walk.poll(mine, upstream)
            case LedgerState.UNKNOWN:
                return await self._walk.settle(mine, upstream)
            case _:
                sent = await self._ledger.transition(self._walk.sending(mine, upstream))
                return mine if sent is None else await self._walk.issue(sent, upstream)

    async def _give_up(self, row: LedgerRow) -> LedgerRow:
        """End a row for which nothing was sent and whose key is lost: the certificate that it was to replace stays."""
        detail = "the worker ended before the first certificate was revoked"
        given_back = taken_back(row, self._clock(), Reason.UPSTREAM_UNAVAILABLE, detail)
        return await self._ledger.transition(given_back) or row

    async def _set_aside(self, row: LedgerRow) -> LedgerRow:
        """Let a row rest whose upstream CA is not configured any more, so that it does not stand before others."""
        now = self._clock()
        until = now + self._timing.hold
        detail = f"the upstream CA {row.upstream_ca} is not configured any more"
        aside = Transition(
            id=row.id,
            expected=frozenset({row.state}),
            worker=self._worker,
            to=row.state,
            at=now,
            audit=journal.change(row, "enrollment.set_aside", "pending", now, actor=self._worker, detail=detail),
            new_worker=NOBODY,
            lease_until=until,
            poll_at=until if row.state is LedgerState.PENDING else None,
        )
        alert_unconfigured(row)
        return await self._ledger.transition(aside) or row

    async def _take_over(self, row: LedgerRow) -> LedgerRow | None:
        now = self._clock()
        event = journal.change(row, "enrollment.taken_over", "pending", now, actor=self._worker)
        return await self._ledger.take_over(row.id, row.worker, row.lease_until, self._worker, now + self._timing.lease, event)

    async def _claim_poll(self, row: LedgerRow) -> LedgerRow | None:
        now = self._clock()
        claim = Transition(
            id=row.id,
            expected=frozenset({LedgerState.PENDING}),
            worker=row.worker,
            to=LedgerState.PENDING,
            at=now,
            audit=journal.change(row, "enrollment.polled", "pending", now, actor=self._worker),
            new_worker=self._worker,
            lease_until=now + self._timing.lease,
            poll_at=now + self._timing.lease,
        )
        return await self._ledger.transition(claim)
