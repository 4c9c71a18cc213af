"""The audit chain inside the store, expiry, and the store's own life, the same over every store."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from gateway.audit import AuditHead, verify_chain
from gateway.errors import Reason, StoreUnavailable
from gateway.model import UpstreamCAName
from gateway.store.interfaces import LedgerState, Opened, OpeningRefused, QuotaTake, Store, Tally, WaitingFor
from tests.contract.store.conftest import AUDIT_KEY, Open
from tests.contract.store.rows import (
    NOW,
    WINDOW,
    audit_events,
    audit_rows,
    challenge,
    event,
    issued,
    ledger_row,
    opened,
    opening,
    pending_revocation,
    reservation,
    transition,
)

DAY = timedelta(days=1)


async def test_audit_chain_verifies_over_two_writers(open_store: Open, heads: list[AuditHead]) -> None:
    stores = [await open_store("w1"), await open_store("w2")]
    await asyncio.gather(*(opened(stores[n % 2]) for n in range(60)))
    await stores[0].append_audit([event("enrollment.rejected", "refused", reason=Reason.POLICY_KEY) for _ in range(100)])
    rows = audit_rows(stores[1])
    assert [row.seq for row in rows] == list(range(1, 161))
    for store in stores:
        await store.close()
    assert max(head.seq for head in heads) == 160
    report = verify_chain(rows, AUDIT_KEY, heads)
    assert report.problems == ()
    assert report.rows == 160


async def test_audit_rows_begin_after_a_number(store: Store) -> None:
    await store.append_audit([event(detail=str(n)) for n in range(5)])
    assert [row.seq for row in audit_rows(store, 3)] == [4, 5]
    assert [row.seq for row in audit_rows(store, 5)] == []


async def test_no_events_write_nothing(store: Store) -> None:
    await store.append_audit([])
    assert audit_events(store) == []


async def test_refused_opening_leaves_no_gap_in_the_chain(open_store: Open) -> None:
    store = await open_store("w1")
    await store.open(opening(ledger_row(), (reservation(),)))
    work = [store.open(opening(ledger_row(), (reservation(f"n{n}"), reservation("c1")))) for n in range(10)]
    good = [opened(store) for _ in range(10)]
    answers = await asyncio.gather(*work, *good)
    assert answers[:10] == [OpeningRefused(Reason.CREDENTIAL_USED)] * 10
    rows = audit_rows(store)
    assert len(rows) == 11
    assert verify_chain(rows, AUDIT_KEY).problems == ()


class TestExpiry:
    async def test_removes_only_what_ran_out(self, store: Store) -> None:
        row, certificate = await issued(store)
        pending = await opened(store)
        await store.transition(transition(pending, LedgerState.PENDING))
        await store.add_challenge(challenge(), event())
        await store.open(opening(ledger_row(), (reservation(),), (QuotaTake("q", 1, 3600),)))
        assert await store.expire(NOW) == 0
        assert await store.expire(NOW + 3 * DAY) > 0
        assert await store.find_challenge(challenge().mac) is None
        assert await store.find_request(row.request_key, NOW) is None
        assert await store.find_request(pending.request_key, NOW + 3 * DAY) is not None
        assert await store.get_row(row.id) == row
        assert await store.find_certificate(certificate.sha256) == certificate
        assert len(audit_events(store)) == 6
        assert await store.expire(NOW + 3 * DAY) == 0

    async def test_keeps_a_used_challenge_used_as_long_as_it_is_known(self, store: Store) -> None:
        await store.add_challenge(challenge(), event())
        await store.open(opening(ledger_row(), (reservation(expires_at=NOW),)))
        await store.expire(NOW + WINDOW + timedelta(hours=23))
        found = await store.find_challenge(challenge().mac)
        assert found is not None
        assert found.used_by is not None
        assert await store.open(opening(ledger_row(), (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_USED)

    async def test_goes_in_portions(self, store: Store) -> None:
        quota = [QuotaTake(f"q{n}", 1, 1) for n in range(1200)]
        await store.open(opening(quotas=tuple(quota)))
        assert await store.expire(NOW + DAY + timedelta(seconds=2)) == 1200

    async def test_of_a_quota_opens_it(self, store: Store) -> None:
        quota = (QuotaTake("q", 1, 60),)
        await store.open(opening(quotas=quota))
        await store.expire(NOW + timedelta(hours=23))
        assert await store.open(opening(quotas=quota)) == OpeningRefused(Reason.RATE_LIMITED), "a clock ran ahead for a while"
        await store.expire(NOW + DAY + timedelta(seconds=60))
        assert isinstance(await store.open(opening(quotas=quota)), Opened)


async def test_ping_proves_a_write(store: Store) -> None:
    await store.ping()
    await store.ping()


async def test_closed_store_is_unavailable(store: Store) -> None:
    await store.close()
    await store.close()
    for call in (store.ping(), store.get_row(ledger_row().id), store.open(opening())):
        with pytest.raises(StoreUnavailable):
            await call


async def test_what_was_written_is_there_after_reopening(open_store: Open) -> None:
    store = await open_store("w1")
    row, certificate = await issued(store)
    await store.close()
    again = await open_store("w1")
    assert await again.get_row(row.id) == row
    assert await again.find_certificate(certificate.sha256) == certificate


async def test_close_finishes_what_is_queued(open_store: Open) -> None:
    store = await open_store("w1")
    rows = [ledger_row() for _ in range(20)]
    tasks = [asyncio.create_task(store.open(opening(row))) for row in rows]
    await asyncio.sleep(0)
    await store.close()
    assert all(isinstance(answer, Opened) for answer in await asyncio.gather(*tasks))
    again = await open_store("w1")
    assert [await again.get_row(row.id) for row in rows] == rows


async def test_a_tally_counts_what_waits_and_what_is_reserved(store: Store) -> None:
    assert await store.tally(("one_time", "other")) == Tally(0, 0, 0, {"one_time": 0, "other": 0})
    for number in range(3):
        await store.open(opening(ledger_row(state=LedgerState.PENDING, waiting_for=WaitingFor.APPROVAL, worker="")))
        await store.open(opening(ledger_row(), (reservation(f"r{number}"),)))
    for to, waiting_for in ((LedgerState.UNKNOWN, WaitingFor.NOTHING), (LedgerState.PENDING, WaitingFor.UPSTREAM)):
        row = await opened(store)
        assert await store.transition(transition(row, to, waiting_for=waiting_for, new_worker="")) is not None
    postponed = await opened(store)
    assert await store.transition(transition(postponed, LedgerState.OPEN, new_worker="")) is not None
    done = await opened(store)
    assert await store.transition(transition(done, LedgerState.REJECTED)) is not None
    kind = reservation().kind
    assert await store.tally((kind,)) == Tally(approval=3, upstream=2, doubt=1, reserved={kind: 3})


async def test_tally_tells_what_waits_in_the_queue_of_a_ca(store: Store) -> None:
    await opened(store, worker="", waiting_for=WaitingFor.QUEUE)
    await opened(store, worker="w1", waiting_for=WaitingFor.QUEUE)
    await opened(store, worker="")
    for number in range(3):
        await store.queue_revocation(pending_revocation(upstream_ca=UpstreamCAName("far"), sha256=bytes([number])))
    await store.queue_revocation(pending_revocation(upstream_ca=UpstreamCAName("near")))
    found = await store.tally(())
    assert (found.queue, found.upstream) == (2, 1)
    assert found.revocations == {"far": 3, "near": 1}
