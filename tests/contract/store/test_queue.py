"""What waits for a CA that cannot be reached, requests and revocations, the same over every store."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from gateway.model import RevocationReason, UpstreamCAName
from gateway.store.interfaces import CRLRow, LedgerState, Store, WaitingFor
from tests.contract.store.conftest import Open
from tests.contract.store.rows import (
    CA,
    LEASE,
    NOW,
    audit_events,
    event,
    issued,
    opened,
    pending_revocation,
    transition,
)

FAR = UpstreamCAName("far")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


async def test_request_remembers_since_when_it_waits(store: Store) -> None:
    row = await opened(store)
    assert row.queued_at is None
    waits = transition(row, LedgerState.OPEN, waiting_for=WaitingFor.QUEUE, queued_at=NOW, new_worker="", attempts=0)
    queued = await store.transition(waits)
    assert queued is not None
    assert (queued.queued_at, queued.waiting_for, queued.attempts) == (NOW, WaitingFor.QUEUE, 0)
    sent = transition(queued, LedgerState.OPEN, worker="", waiting_for=WaitingFor.NOTHING, sent_at=NOW + MINUTE)
    again = await store.transition(sent)
    assert again is not None
    assert (again.queued_at, again.sent_at) == (NOW, NOW + MINUTE)
    assert await store.get_row(row.id) == again


async def test_queue_of_a_ca_that_rests_is_left_alone(store: Store) -> None:
    queued = await opened(store, waiting_for=WaitingFor.QUEUE, upstream_ca=FAR, worker="")
    other = await opened(store, waiting_for=WaitingFor.QUEUE, worker="")
    doubt = await opened(store, upstream_ca=FAR, sent=True)
    due = LEASE + SECOND

    async def found(*resting: UpstreamCAName) -> set[str]:
        return {row.id for row in await store.find_lapsed(due, 10, resting=resting)}

    assert await found() == {queued.id, other.id, doubt.id}
    assert await found(FAR) == {other.id, doubt.id}
    assert await found(CA, FAR) == {doubt.id}


async def test_revocation_is_recorded_and_remembered_in_one_step(store: Store) -> None:
    row, certificate = await issued(store)
    told = pending_revocation(
        sha256=certificate.sha256, der=certificate.der, serial=certificate.serial, upstream_ca=row.upstream_ca
    )
    marked = await store.mark_revoked(
        certificate.sha256, NOW, RevocationReason.KEY_COMPROMISE, event("certificate.revoked"), told
    )
    assert marked is not None
    assert marked.revoked_at == NOW
    assert await store.find_revocation(certificate.sha256) == told
    assert await store.list_revocations(10) == (told,)


async def test_revocation_of_what_is_revoked_or_unknown_is_not_remembered(store: Store) -> None:
    _, certificate = await issued(store)
    told = pending_revocation(sha256=certificate.sha256)
    await store.mark_revoked(certificate.sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked"))
    await store.mark_revoked(certificate.sha256, NOW, RevocationReason.KEY_COMPROMISE, event("certificate.revoked"), told)
    await store.mark_revoked(b"unknown", NOW, RevocationReason.KEY_COMPROMISE, event(), pending_revocation(sha256=b"unknown"))
    assert await store.list_revocations(10) == ()


async def test_revocation_that_is_remembered_already_stays(store: Store) -> None:
    first = pending_revocation()
    await store.queue_revocation(first)
    await store.queue_revocation(pending_revocation(sha256=first.sha256, reason=RevocationReason.SUPERSEDED))
    assert await store.list_revocations(10) == (first,)


async def test_due_revocations_come_longest_due_first(store: Store) -> None:
    later = pending_revocation(next_at=NOW + SECOND, upstream_ca=FAR)
    first = pending_revocation(next_at=NOW)
    not_due = pending_revocation(next_at=NOW + MINUTE)
    for one in (later, not_due, first):
        await store.queue_revocation(one)
    assert await store.find_due_revocations(NOW + SECOND, 10) == (first, later)
    assert await store.find_due_revocations(NOW + SECOND, 1) == (first,)
    assert await store.find_due_revocations(NOW + SECOND, 10, (FAR,)) == (first,)
    assert await store.find_due_revocations(NOW + SECOND, 10, (CA, FAR)) == ()


async def test_attempt_is_made_by_one_of_many_workers(open_store: Open) -> None:
    stores = [await open_store(f"w{number}") for number in range(4)]
    told = pending_revocation()
    await stores[0].queue_revocation(told)
    claims = await asyncio.gather(*(store.put_off_revocation(told, NOW + MINUTE) for store in stores))
    assert sorted(claims) == [False, False, False, True]
    [claimed] = await stores[1].list_revocations(10)
    assert (claimed.next_at, claimed.attempts, claimed.cause) == (NOW + MINUTE, 0, "")
    assert await stores[1].find_due_revocations(NOW, 10) == ()


async def test_failed_attempt_says_why(store: Store) -> None:
    told = pending_revocation()
    await store.queue_revocation(told)
    assert await store.put_off_revocation(told, NOW + MINUTE, "connection refused")
    [again] = await store.list_revocations(10)
    assert (again.next_at, again.attempts, again.cause) == (NOW + MINUTE, 1, "connection refused")


async def test_revocation_ends_once(store: Store) -> None:
    told = pending_revocation()
    await store.queue_revocation(told)
    assert await store.end_revocation(told.sha256, event("revocation.told", "done"))
    assert not await store.end_revocation(told.sha256, event("revocation.told", "done"))
    assert await store.find_revocation(told.sha256) is None
    assert not await store.put_off_revocation(told, NOW + MINUTE)
    assert audit_events(store) == ["revocation.told"]


async def test_pages_of_revocations_are_oldest_first(store: Store) -> None:
    rows = [pending_revocation(revoked_at=NOW + number * SECOND) for number in range(3)]
    for one in reversed(rows):
        await store.queue_revocation(one)
    assert await store.list_revocations(2) == (rows[0], rows[1])
    assert await store.list_revocations(2, 2) == (rows[2],)


def crl(number: int = 0, der: bytes = b"crl") -> CRLRow:
    return CRLRow(FAR, number, der, NOW, NOW + MINUTE)


async def test_crl_of_another_ca_replaces_the_one_that_was_seen(store: Store) -> None:
    first, second = crl(), crl(der=b"second")
    assert await store.keep_crl(first, None, 0)
    assert not await store.keep_crl(second, None, 0)
    assert not await store.keep_crl(second, crl(der=b"other"), 0)
    assert await store.keep_crl(second, first, 0)
    assert await store.newest_crl(FAR) == second


async def test_crl_of_another_ca_is_stale_after_a_revocation(store: Store) -> None:
    _, certificate = await issued(store, upstream_ca=FAR)
    assert await store.count_revocations(FAR) == 0
    assert await store.keep_crl(crl(), None, 0)
    assert not await store.crl_is_stale(FAR)
    await store.mark_revoked(certificate.sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked"))
    assert await store.crl_is_stale(FAR)
    assert await store.keep_crl(crl(der=b"second"), crl(), await store.count_revocations(FAR))
    assert not await store.crl_is_stale(FAR)
