"""Orders from `ready` to their end: begun once, walked through the corridor, followed whatever happens (RFC 8555 §7.4).

Theory of operation. An order becomes `processing` by one compare-and-swap that stores its CSR, so that one CSR wins. From then on
one tracked task of one worker has it, by a lease: it enrolls, and writes what came of that. What the corridor opened is found by
the order's ID, however long ago that was, so whoever takes an order up after a crash first looks whether its certificate exists
or is on its way, and enrolls only where nothing was ever opened or all of it was given back. Should two workers come to enroll
all the same, the ledger takes one request of them: the request key is the same, and each order is reserved for one row for good.

A refusal of the CSR that comes while its client waits leaves the order ready for another one. What the client cannot help (a CA
or a store that is down) never is a refusal: the order stays `processing` and is tried again until its time is over.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog

from gateway.acme import Account, Order, OrderStatus, Problem
from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.metrics.registry import Result
from gateway.model import CertificateRequest, Issued, Outcome, Pending, Protocol, Rejected, RequestId, Unavailable
from gateway.ra.acme import journal
from gateway.ra.acme.csr import read_csr
from gateway.ra.acme.orders import Orders
from gateway.ra.acme.proofs import OPERATION, Proofs
from gateway.ra.acme.terms import AcmeTiming, Busy, Means, RateLimited, Recorded, check_account, directory
from gateway.ra.leases import done_within
from gateway.ra.profile import Profile, Snapshot
from gateway.ra.transactions import outcome_of
from gateway.store.acme import OrderChange
from gateway.store.interfaces import LedgerRow, LedgerState

log = structlog.get_logger(__name__)

AT_ONCE = 32
"""Orders that one worker takes up at the same time, beside those whose clients wait."""
FOLLOWED_FOR = 120.0
"""Seconds for which a row that is worked on is looked at again and again; later only as often as orders are taken up."""
STORE_PATIENCE = 30.0
"""Seconds for which an end is kept in hand while the store refuses writes; below the lease."""

_PROCESSING = frozenset({OrderStatus.PROCESSING})
_READY = frozenset({OrderStatus.READY})
_BEGUN = frozenset({OrderStatus.PROCESSING, OrderStatus.VALID})
_GIVEN_BACK = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.OVERLOADED})
"""Why a row was rejected of which nothing was issued and never will be."""


@dataclass(slots=True)
class _Work:
    """One order in hand. `alone` once its client was told to come back: what is refused then is refused for good.

    `digest` is the CSR's; `window` after how many seconds a quota that is full has room again.
    """

    digest: bytes
    generation: int
    window: int = 60
    alone: bool = False
    began: float = field(default_factory=monotonic)
    task: asyncio.Task[Order] | None = None

    def count(self, order: Order, result: Result, reason: Reason | None) -> None:
        """Count the end of an order whose client was answered before; of others whoever answers them counts it."""
        if self.alone:
            metrics.count_result(Protocol.ACME, order.directory, OPERATION, result, reason, monotonic() - self.began)


class Finalization:
    """Finalizes the orders of all directories, as one worker sees them."""

    def __init__(self, means: Means, orders: Orders, proofs: Proofs) -> None:
        self._means = means
        self._orders = orders
        self._proofs = proofs
        self._works: dict[str, _Work] = {}
        self._draining = False

    async def finalize(self, snapshot: Snapshot, account: Account, id: str, csr: bytes, source: str) -> Order:
        """Begin an order with this CSR, or return how far it is; waits a while for its end (RFC 8555 §7.4).

        Raises Rejection ORDER_NOT_READY, BAD_CSR and what policy says of the CSR, with which the order stays ready; Busy.
        """
        check_account(account, account.profile)
        _, terms = directory(snapshot, account.profile)
        order = await self._orders.find(account, id)
        if order.status not in _BEGUN and order.status is not OrderStatus.READY:
            raise _not_ready(order)
        request = read_csr(csr)
        work = self._works.get(id)
        if work is None and order.status is OrderStatus.READY:
            profile, _ = directory(snapshot, order.profile)
            if self._draining:
                raise Busy(Reason.OVERLOADED, self._means.timing.retry)
            work = _Work(request.digest, snapshot.generation, _window(profile))
            begin = self._begin(work, snapshot, account, order, request, csr, source)
            self._start(id, work, snapshot, begin)
        elif request.digest != (order.csr_sha256 if work is None else work.digest):
            raise Rejection(Reason.ORDER_NOT_READY, "this order is being, or was, finalized with another CSR")
        return await self._wait(account, order, work, terms.config.finalize_wait.total_seconds())

    async def follow(self, account: Account, order: Order, seconds: float | None = None) -> Order:
        """Wait a while for an order that is processing, where somebody is at it or will be; returns it as it is then."""
        timing = self._means.timing
        until = monotonic() + (timing.poll_wait if seconds is None else seconds)
        if (work := self._works.get(order.id)) is not None and work.task is not None:
            if not await done_within(work.task, until - monotonic()):
                work.alone = True
            return await self._orders.find(account, order.id)
        pause = timing.look_every
        while order.status is OrderStatus.PROCESSING and monotonic() + pause < until and self._is_near(order, until):
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)
            order = await self._orders.find(account, order.id)
        return order

    async def run_due(self, snapshot: Snapshot) -> int:
        """Begin to take up orders that are due and that nobody works on; returns how many. Raises StoreUnavailable."""
        room = AT_ONCE - sum(work.alone for work in self._works.values())
        if self._draining or room <= 0:
            return 0
        due = await self._means.records.find_due_orders(self._means.clock(), room)
        started = 0
        for order in due:
            if order.id not in self._works and not self._draining:
                work = _Work(order.csr_sha256 or b"", snapshot.generation, alone=True)
                self._start(order.id, work, snapshot, self._take_up(work, snapshot, order))
                started += 1
        return started

    async def drain(self, seconds: float) -> int:
        """Begin nothing more, let what runs end for `seconds`, cancel the rest; returns how many were cancelled.

        An order whose task was cancelled is taken up by another worker when its lease ends.
        """
        self._draining = True
        tasks = {work.task for work in self._works.values() if work.task is not None}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    def _is_near(self, order: Order, until: float) -> bool:
        """Whether the order may end before this moment: somebody has it, or will soon."""
        left = timedelta(seconds=max(0.0, until - monotonic()))
        return bool(order.worker) or order.next_at is None or order.next_at <= self._means.clock() + left

    def _start(self, id: str, work: _Work, snapshot: Snapshot, steps: Coroutine[Any, Any, Order]) -> None:
        task = asyncio.get_running_loop().create_task(steps, name=f"order-{id[:8]}")
        work.task = task
        self._works[id] = work
        task.add_done_callback(lambda done: self._finish(id, done))
        snapshot.occupancy.extend(task)

    def _finish(self, id: str, task: asyncio.Task[Order]) -> None:
        del self._works[id]
        # Retrieved here, because the client that waited may be gone.
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreUnavailable):
            log.warning("the store is down; the order is taken up again", order=id, cause=str(error))
        elif error is not None and not isinstance(error, Rejection | Busy):
            log.error("an order failed inside and is taken up again", order=id, exc_info=error)

    async def _wait(self, account: Account, order: Order, work: _Work | None, seconds: float) -> Order:
        """Return an order as soon as it has ended, or as it is after this time."""
        until = monotonic() + seconds
        if work is None or work.task is None:
            return order if order.status is OrderStatus.VALID else await self.follow(account, order, seconds)
        if not await done_within(work.task, seconds):
            work.alone = True
        elif not work.task.cancelled():
            ended = work.task.result()
            # Somebody else may have begun it, or a CA that was down may be back in a moment.
            return await self.follow(account, ended, max(0.0, until - monotonic()))
        current = await self._orders.find(account, order.id)
        if current.status is OrderStatus.READY:
            # The store has not even taken note of it: the client must ask again, and finds whatever there is then.
            raise Busy(Reason.STORE_UNAVAILABLE, self._means.timing.retry)
        return current

    async def _begin(
        self,
        work: _Work,
        snapshot: Snapshot,
        account: Account,
        order: Order,
        csr: CertificateRequest,
        der: bytes,
        source: str,
    ) -> Order:
        """Make a ready order processing, and go on with it; nothing has changed where this raises Rejection or Busy."""
        proved = await self._proofs.prove(snapshot, account, order, csr)
        now = self._means.clock()
        change = OrderChange(
            id=order.id,
            expected=_READY,
            to=OrderStatus.PROCESSING,
            at=now,
            audit=self._event("acme.order.processing", work, order, now, "pending", source=source, key=csr.public_key.sha256),
            new_worker=self._means.worker,
            lease_until=now + self._means.timing.lease,
            attempts=0,
            csr=der,
            csr_sha256=csr.digest,
            public_key_sha256=csr.public_key.sha256,
            external_account=proved.external_account,
        )
        begun = await self._means.records.change_order(change)
        if isinstance(begun, Reason):
            raise _uncounted(begun)
        if begun is None:
            return await self._overtaken(account, order, csr)
        outcome = await self._means.authority.enroll(snapshot, proved.enrollment)
        return await self._settle(work, begun, outcome)

    async def _overtaken(self, account: Account, order: Order, csr: CertificateRequest) -> Order:
        """Return an order that somebody else has begun with the same CSR. Raises Rejection ORDER_NOT_READY for any other."""
        current = await self._orders.find(account, order.id)
        if current.status not in _BEGUN or current.csr_sha256 != csr.digest:
            raise _not_ready(current)
        return current

    async def _take_up(self, work: _Work, snapshot: Snapshot, order: Order) -> Order:
        """Go on with an order that nobody holds, or that its worker left; another may be first."""
        now = self._means.clock()
        claim = self._hold(order, now, attempts=order.attempts + 1)
        mine = await self._means.records.change_order(claim)
        if not isinstance(mine, Order):
            return order
        try:
            return await self._settle(work, mine, await self._resume(snapshot, mine))
        except Busy as busy:
            return await self._postpone(mine, Unavailable(busy.reason, busy.retry_after))

    async def _resume(self, snapshot: Snapshot, order: Order) -> Outcome:
        """Return what became of an order; it is enrolled only where nothing of it is in the ledger, or all was given back."""
        row = await self._row(order)
        known = None if row is None else _known(row, self._means.clock(), self._means.timing)
        if known is not None:
            return known
        if self._draining:
            return Unavailable(Reason.OVERLOADED, self._means.timing.retry)
        if order.expires_at <= self._means.clock():
            return Rejected(Reason.UPSTREAM_UNAVAILABLE, "the CA could not be reached before the order's time was over")
        account = await self._means.records.find_account(order.account)
        if account is None or order.csr is None:
            return Rejected(Reason.NOT_AUTHORIZED, "the account of this order is not there any more")
        try:
            proved = await self._proofs.prove(snapshot, account, order, read_csr(order.csr), begun=True)
        except Rejection as refusal:
            return Rejected(refusal.reason, refusal.detail)
        return await self._means.authority.enroll(snapshot, proved.enrollment)

    async def _row(self, order: Order) -> LedgerRow | None:
        """Return the newest ledger row of an order, however old."""
        return await self._means.ledger.find_transaction(order.profile, Protocol.ACME, order.id, order.public_key_sha256 or b"")

    async def _settle(self, work: _Work, order: Order, outcome: Outcome) -> Order:
        """Write what became of an order; while a worker is at its ledger row, that is followed for a while."""
        timing = self._means.timing
        until = monotonic() + FOLLOWED_FOR
        pause = timing.look_every
        while isinstance(outcome, Pending) and not self._draining and monotonic() < until:
            row = await self._means.ledger.get_row(outcome.request_id)
            now = self._means.clock()
            current = None if row is None else outcome_of(row, now, timing.longest_retry)
            if row is None or current is not None:
                outcome = current or outcome
                break
            if order.lease_until is None or order.lease_until - now < timing.lease / 2:
                kept = await self._means.records.change_order(self._hold(order, now))
                if not isinstance(kept, Order):
                    return await self._as_it_stands(order)
                order = kept
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)
        match outcome:
            case Issued():
                return await self._valid(work, order, outcome)
            case Rejected():
                return await self._refused(work, order, outcome)
            case _:
                return await self._postpone(order, outcome)

    async def _valid(self, work: _Work, order: Order, issued: Issued) -> Order:
        """Give an order its certificate, whoever holds the order by now: what the ledger says is so for all of them."""
        now = self._means.clock()
        change = OrderChange(
            id=order.id,
            expected=_PROCESSING,
            to=OrderStatus.VALID,
            at=now,
            audit=self._event("acme.order.valid", work, order, now, "granted", request_id=issued.request_id),
            request_id=issued.request_id,
            certificate=hashlib.sha256(issued.certificate).digest(),
            release=True,
            forget_csr=True,
        )
        done = await self._commit(change)
        if done is not None:
            work.count(order, Result.ISSUED, None)
            return done
        current = await self._as_it_stands(order)
        if current.status is not OrderStatus.VALID:
            log.warning("a certificate was issued for an order that is over", order=order.id, request_id=issued.request_id)
        return current

    async def _refused(self, work: _Work, order: Order, refusal: Rejected) -> Order:
        """End an order, or leave it ready where nothing was opened for it and its client waits for the answer.

        A quota that is full for an order whose client was told to come back has room again some day. Raises Rejection.
        """
        opened = await self._row(order) is not None
        if work.alone and refusal.reason is Reason.RATE_LIMITED and not opened:
            return await self._postpone(order, Unavailable(refusal.reason, self._means.timing.longest_retry))
        stays = not opened and not work.alone
        now = self._means.clock()
        event = "acme.order.refused" if stays else "acme.order.invalid"
        change = OrderChange(
            id=order.id,
            expected=_PROCESSING,
            to=OrderStatus.READY if stays else OrderStatus.INVALID,
            at=now,
            audit=self._event(event, work, order, now, "refused", reason=refusal.reason, detail=refusal.detail),
            worker=self._means.worker,
            error=None if stays else Problem(refusal.reason, refusal.detail),
            release=True,
            forget_csr=True,
        )
        done = await self._commit(change)
        if done is None:
            return await self._as_it_stands(order)
        if not stays:
            work.count(order, Result.REJECTED, refusal.reason)
            return done
        if refusal.reason is Reason.RATE_LIMITED:
            raise RateLimited(refusal.detail, work.window)
        raise Recorded(refusal.reason, refusal.detail)

    async def _postpone(self, order: Order, outcome: Outcome) -> Order:
        """Let an order go until somebody is to look at it again: soon at first, then less and less often."""
        timing = self._means.timing
        now = self._means.clock()
        seconds = min(timing.longest_retry, timing.retry * 2 ** min(order.attempts, 10))
        if isinstance(outcome, Unavailable):
            seconds = min(timing.longest_retry, max(seconds, outcome.retry_after))
        change = OrderChange(
            id=order.id,
            expected=_PROCESSING,
            to=OrderStatus.PROCESSING,
            at=now,
            audit=None,
            worker=self._means.worker,
            next_at=now if self._draining else now + timedelta(seconds=seconds),
            request_id=outcome.request_id if isinstance(outcome, Pending) else None,
            release=True,
        )
        return await self._commit(change) or await self._as_it_stands(order)

    async def _as_it_stands(self, order: Order) -> Order:
        """Return an order that somebody else has, as it is now."""
        return await self._means.records.find_order(order.id) or order

    async def _commit(self, change: OrderChange) -> Order | None:
        """Apply a change, trying again while the store is down; None where the order was not as expected."""
        until = monotonic() + STORE_PATIENCE
        pause = self._means.timing.look_every
        while True:
            try:
                changed = await self._means.records.change_order(change)
            except StoreUnavailable:
                if monotonic() + pause > until:
                    raise
            else:
                return changed if isinstance(changed, Order) else None
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    def _hold(self, order: Order, now: datetime, *, attempts: int | None = None) -> OrderChange:
        """Return the change by which an order that is as it was read becomes, or stays, ours."""
        return OrderChange(
            id=order.id,
            expected=_PROCESSING,
            to=OrderStatus.PROCESSING,
            at=now,
            audit=None,
            worker=order.worker,
            new_worker=self._means.worker,
            lease_until=now + self._means.timing.lease,
            attempts=attempts,
        )

    def _event(
        self,
        event: str,
        work: _Work,
        order: Order,
        at: datetime,
        decision: str,
        *,
        source: str | None = None,
        request_id: RequestId | None = None,
        key: bytes | None = None,
        reason: Reason | None = None,
        detail: str = "",
    ) -> AuditEvent:
        return journal.change(
            event,
            order.account,
            order.profile,
            at,
            source=order.source if source is None else source,
            decision=decision,
            operation=OPERATION,
            transaction_id=order.id,
            request_id=request_id,
            identifiers=order.identifiers,
            public_key_sha256=order.public_key_sha256 if key is None else key,
            reason=reason,
            detail=detail,
            generation=work.generation,
        )


def _known(row: LedgerRow, now: datetime, timing: AcmeTiming) -> Outcome | None:
    """Return what a ledger row says of its order; None where all of it was given back, so that it may begin anew."""
    outcome = outcome_of(row, now, timing.longest_retry)
    if row.state is LedgerState.REJECTED and row.reason in _GIVEN_BACK:
        return None
    return outcome or Pending(row.id, timing.retry)


def _not_ready(order: Order) -> Rejection:
    said = {
        OrderStatus.PENDING: "not every identifier of this order is authorized yet",
        OrderStatus.INVALID: "this order is invalid: order anew",
    }
    return Rejection(Reason.ORDER_NOT_READY, said.get(order.status, "this order is being, or was, finalized with another CSR"))


def _uncounted(reason: Reason) -> Rejection:
    """Return the refusal of an order that its external account may not have certified any more."""
    if reason is Reason.RATE_LIMITED:
        return Rejection(Reason.NOT_AUTHORIZED, "the external account has all the certificates that it may have")
    return Rejection(reason, "the external account of this account was revoked")


def _window(profile: Profile) -> int:
    """Return after how many seconds a quota of certificates has room again, at the latest."""
    quotas = [quota for quota in (profile.per_requester, profile.per_profile) if quota is not None]
    return max([int(quota.window.total_seconds()) for quota in quotas], default=60)
