"""ACME orders: made with what they need, changed by compare-and-swap, decided by authorizations; the same over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.acme import AuthorizationStatus, ChallengeStatus, Order, OrderStatus, Problem
from gateway.errors import Reason
from gateway.model import ProfileName, RequestId
from gateway.store.interfaces import QuotaTake, Store
from tests.contract.store.acme_rows import (
    CHANGED,
    DAY,
    SECOND,
    WEEK,
    attempt,
    authorization,
    begun,
    dns,
    made_ready,
    new_order,
    order,
    order_change,
    ordered,
    registered,
    validated,
)
from tests.contract.store.conftest import Open
from tests.contract.store.rows import LEASE, NOW, audit_events

PROBLEM = Problem(Reason.BAD_CSR, "the key is too short", ((dns("a.example"), Reason.POLICY_SAN, "no"),))
REPLACED = b"r" * 32


async def statuses(store: Store, *rows: Order) -> list[OrderStatus | None]:
    found = [await store.find_order(row.id) for row in rows]
    return [one.status if one else None for one in found]


class TestNewOrders:
    async def test_come_back_as_they_were_stored(self, store: Store) -> None:
        of = await registered(store)
        fields = {
            "profile": ProfileName("sub"),
            "asked_profile": "short",
            "not_before": NOW,
            "not_after": NOW + DAY,
            "replaces": "AAAA.BBBB",
            "replaces_sha256": REPLACED,
        }
        row, needed = await ordered(store, of, "a.example", "b.example", "c.example", **fields)
        assert await store.find_order(row.id) == row
        assert await store.find_authorizations(row.authorizations) == needed
        assert await store.find_order("?") is None
        assert audit_events(store)[-1] == "acme.order.created"

    async def test_of_a_hundred_names_are_whole(self, store: Store) -> None:
        of = await registered(store)
        row, needed = await ordered(store, of, *(f"n{number}.example" for number in range(100)))
        assert await store.find_order(row.id) == row
        assert await store.find_authorizations(row.authorizations) == needed

    async def test_beyond_a_quota_leave_nothing(self, store: Store) -> None:
        of = await registered(store)
        quotas = (QuotaTake("account", 5, 60), QuotaTake("profile", 1, 60))
        first = authorization(of)
        assert isinstance(await store.add_order(new_order(order(of, first), first, quotas=quotas)), Order)
        late = authorization(of)
        row = order(of, late)
        assert await store.add_order(new_order(row, late, quotas=quotas)) is Reason.RATE_LIMITED
        assert await store.find_order(row.id) is None
        assert await store.find_authorization(late.id) is None
        assert await store.has_room((QuotaTake("account", 2, 60),), NOW)
        assert not await store.has_room((QuotaTake("account", 5, 60), QuotaTake("profile", 1, 60)), NOW)
        assert await store.has_room(quotas, NOW + timedelta(minutes=2))

    async def test_of_valid_authorizations_are_ready(self, store: Store) -> None:
        of = await registered(store)
        _, (known,) = await ordered(store, of)
        await validated(store, known, expires_at=NOW + DAY)
        reused = order(of, known)
        assert await store.add_order(new_order(reused)) == replace(reused, status=OrderStatus.READY)
        assert await statuses(store, reused) == [OrderStatus.READY]

    async def test_of_names_that_need_no_proof_are_ready(self, store: Store) -> None:
        of = await registered(store)
        trusted = authorization(of, status=AuthorizationStatus.VALID)
        row = order(of, trusted, status=OrderStatus.READY)
        assert await store.add_order(new_order(row, trusted)) == row

    async def test_of_one_valid_and_one_new_wait_for_the_new_one(self, store: Store) -> None:
        of = await registered(store)
        _, (known,) = await ordered(store, of)
        await validated(store, known)
        needed = authorization(of, "b.example")
        row = order(of, known, needed, status=OrderStatus.READY)
        assert await store.add_order(new_order(row, needed)) == replace(row, status=OrderStatus.PENDING)
        await validated(store, needed)
        assert await statuses(store, row) == [OrderStatus.READY]

    @pytest.mark.parametrize("how", ["expired", "deactivated", "failed", "deleted"])
    async def test_of_an_authorization_that_is_over_are_over(self, store: Store, how: str) -> None:
        of = await registered(store)
        _, (known,) = await ordered(store, of)
        at = NOW
        if how == "failed":
            await validated(store, known, ChallengeStatus.INVALID, error=PROBLEM)
        else:
            await validated(store, known, expires_at=NOW + DAY)
        if how == "deactivated":
            await store.deactivate_authorization(known.id, NOW, CHANGED)
        if how == "deleted":
            await store.expire_acme(NOW + timedelta(days=60))
        if how == "expired":
            at = NOW + DAY
        row = order(of, known, created_at=at)
        answer = await store.add_order(new_order(row))
        assert isinstance(answer, Order)
        assert answer.status is OrderStatus.INVALID
        assert await statuses(store, row) == [OrderStatus.INVALID]


class TestReplacement:
    """A certificate is replaced by one order that is not invalid (RFC 9773 §5)."""

    async def replacing(self, store: Store, **fields: Any) -> Order | Reason:
        of = await registered(store)
        needed = authorization(of)
        row = order(of, needed, replaces="a.b", replaces_sha256=REPLACED, **fields)
        return await store.add_order(new_order(row, needed))

    async def test_happens_once(self, store: Store) -> None:
        assert isinstance(await self.replacing(store), Order)
        assert await self.replacing(store) is Reason.ALREADY_REPLACED

    async def test_happens_once_whoever_asks_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        found = await asyncio.gather(*(self.replacing(stores[number % 2]) for number in range(10)))
        assert [one for one in found if isinstance(one, Reason)] == [Reason.ALREADY_REPLACED] * 9

    async def test_is_free_again_when_the_order_ends_invalid(self, store: Store) -> None:
        first = await self.replacing(store)
        assert isinstance(first, Order)
        await store.change_order(order_change(first, OrderStatus.INVALID, error=PROBLEM))
        assert isinstance(await self.replacing(store), Order)

    async def test_is_free_again_when_the_time_of_the_order_is_over(self, store: Store) -> None:
        first = await self.replacing(store)
        assert isinstance(first, Order)
        assert isinstance(await self.replacing(store, created_at=NOW + WEEK, expires_at=NOW + 2 * WEEK), Order)
        assert await statuses(store, first) == [OrderStatus.INVALID]

    async def test_that_is_refused_counts_for_no_quota(self, store: Store) -> None:
        await self.replacing(store)
        of = await registered(store)
        needed = authorization(of)
        quotas = (QuotaTake("q", 1, 60),)
        row = order(of, needed, replaces_sha256=REPLACED)
        assert await store.add_order(new_order(row, needed, quotas=quotas)) is Reason.ALREADY_REPLACED
        assert await store.has_room(quotas, NOW)


class TestLists:
    async def test_are_pages_newest_first_without_invalid_ones(self, store: Store) -> None:
        of, other = await registered(store), await registered(store)
        rows = [(await ordered(store, of, created_at=NOW + number * SECOND))[0] for number in range(7)]
        theirs, _ = await ordered(store, other)
        await store.change_order(order_change(rows[3], OrderStatus.INVALID))
        wanted = [row.id for row in reversed(rows) if row is not rows[3]]
        first = await store.list_orders(of.id, None, 4)
        second = await store.list_orders(of.id, first[-1], 4)
        assert (list(first), list(second)) == (wanted[:4], wanted[4:])
        assert await store.list_orders(of.id, second[-1], 4) == ()
        assert await store.list_orders(of.id, theirs.id, 4) == ()
        assert await store.list_orders(of.id, "?", 4) == ()
        assert await store.list_orders("?", None, 4) == ()

    async def test_lose_none_of_the_same_moment(self, store: Store) -> None:
        of = await registered(store)
        rows = [(await ordered(store, of))[0].id for _ in range(5)]
        found: list[str] = []
        while page := await store.list_orders(of.id, found[-1] if found else None, 2):
            found += page
        assert sorted(found) == sorted(rows)

    async def test_are_searched_by_profile_and_status(self, store: Store) -> None:
        of = await registered(store)
        ready = await made_ready(store, of)
        pending, _ = await ordered(store, of, created_at=NOW + SECOND)
        other, _ = await ordered(store, of, created_at=NOW - SECOND, profile=ProfileName("other"))
        assert [row.id for row in await store.search_orders(None, None, 10)] == [pending.id, ready.id, other.id]
        assert [row.id for row in await store.search_orders(None, None, 1)] == [pending.id]
        assert [row.id for row in await store.search_orders(None, OrderStatus.PENDING, 10)] == [pending.id, other.id]
        assert [row.id for row in await store.search_orders("other", OrderStatus.PENDING, 10)] == [other.id]
        assert await store.search_orders("other", OrderStatus.READY, 10) == ()


class TestChanges:
    async def test_set_what_they_name_and_keep_the_rest(self, store: Store) -> None:
        ready = await made_ready(store, await registered(store))
        change = order_change(
            ready,
            OrderStatus.PROCESSING,
            new_worker="w1",
            lease_until=LEASE,
            csr=b"a csr",
            csr_sha256=b"c" * 32,
            public_key_sha256=b"k" * 32,
            attempts=1,
        )
        processing = replace(
            ready,
            status=OrderStatus.PROCESSING,
            worker="w1",
            lease_until=LEASE,
            csr=b"a csr",
            csr_sha256=b"c" * 32,
            public_key_sha256=b"k" * 32,
            attempts=1,
        )
        assert await store.change_order(change) == processing
        later = order_change(
            processing, OrderStatus.PROCESSING, worker="w1", request_id=RequestId("01"), next_at=LEASE, release=True
        )
        waiting = replace(processing, request_id=RequestId("01"), next_at=LEASE, worker="", lease_until=None)
        assert await store.change_order(later) == waiting
        done = order_change(
            waiting, OrderStatus.VALID, certificate=b"l" * 32, expires_at=NOW + DAY, forget_csr=True, release=True
        )
        valid = replace(waiting, status=OrderStatus.VALID, certificate=b"l" * 32, expires_at=NOW + DAY, csr=None, next_at=None)
        assert await store.change_order(done) == valid
        assert await store.find_order(ready.id) == valid

    async def test_remember_why_an_order_failed(self, store: Store) -> None:
        ready = await made_ready(store, await registered(store))
        failed = await store.change_order(order_change(ready, OrderStatus.INVALID, error=PROBLEM))
        assert failed == replace(ready, status=OrderStatus.INVALID, error=PROBLEM)
        assert await store.find_order(ready.id) == failed

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"expected": frozenset({OrderStatus.PENDING, OrderStatus.VALID})}, id="another status"),
            pytest.param({"expected": frozenset()}, id="no status"),
            pytest.param({"worker": "w2"}, id="another worker"),
            pytest.param({"id": "?"}, id="no such order"),
        ],
    )
    async def test_of_an_unexpected_order_change_nothing(self, store: Store, fields: dict[str, Any]) -> None:
        ready = await made_ready(store, await registered(store))
        events = audit_events(store)
        change = order_change(ready, OrderStatus.PROCESSING, csr=b"csr", **fields)
        assert await store.change_order(change) is None
        assert await store.find_order(ready.id) == ready
        assert audit_events(store) == events

    async def test_without_an_audit_row_write_none(self, store: Store) -> None:
        ready = await made_ready(store, await registered(store))
        events = audit_events(store)
        assert await store.change_order(order_change(ready, OrderStatus.PROCESSING, audit=None)) is not None
        assert audit_events(store) == events

    async def test_to_processing_have_one_winner(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        ready = await made_ready(stores[0], await registered(stores[0]))
        changes = [
            stores[number % 2].change_order(
                order_change(ready, OrderStatus.PROCESSING, new_worker=f"w{number}", lease_until=LEASE, csr=b"csr %d" % number)
            )
            for number in range(10)
        ]
        winners = [one for one in await asyncio.gather(*changes) if one is not None]
        assert len(winners) == 1
        assert await stores[1].find_order(ready.id) == winners[0]


class TestDueOrders:
    @pytest.mark.parametrize(
        ("fields", "due_at"),
        [
            pytest.param({}, NOW, id="nobody's"),
            pytest.param({"new_worker": "w1", "lease_until": LEASE}, LEASE, id="held"),
            pytest.param({"next_at": NOW + DAY}, NOW + DAY, id="waits"),
            pytest.param({"new_worker": "w1", "lease_until": LEASE, "next_at": NOW + DAY}, NOW + DAY, id="held and waits"),
        ],
    )
    async def test_are_those_in_processing_whose_time_has_come(self, store: Store, fields: dict[str, Any], due_at: Any) -> None:
        of = await registered(store)
        await ordered(store, of)
        ready = await made_ready(store, of)
        processing = await store.change_order(order_change(ready, OrderStatus.PROCESSING, **fields))
        assert await store.find_due_orders(due_at - SECOND, 10) == (() if due_at > NOW else (processing,))
        assert await store.find_due_orders(due_at, 10) == (processing,)
        assert isinstance(processing, Order)
        await store.change_order(order_change(processing, OrderStatus.VALID))
        assert await store.find_due_orders(NOW + 2 * DAY, 10) == ()

    async def test_come_a_few_at_a_time(self, store: Store) -> None:
        of = await registered(store)
        for number in range(3):
            row = await made_ready(store, of)
            await store.change_order(order_change(row, OrderStatus.PROCESSING, next_at=NOW + number * SECOND))
        found = await store.find_due_orders(NOW + DAY, 2)
        assert [row.next_at for row in found] == [NOW, NOW + SECOND]


class TestRollUp:
    async def test_makes_an_order_ready_with_its_last_authorization(self, store: Store) -> None:
        row, needed = await ordered(store, await registered(store), "a.example", "b.example", "c.example")
        for one, expected in zip(needed, (OrderStatus.PENDING, OrderStatus.PENDING, OrderStatus.READY), strict=True):
            await validated(store, one)
            assert await statuses(store, row) == [expected]

    async def test_of_two_authorizations_at_once_is_never_lost(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        of = await registered(stores[0])
        made = [await ordered(stores[0], of, "a.example", "b.example") for _ in range(20)]
        for _, needed in made:
            for one in needed:
                await begun(stores[0], one)
        attempts = [
            store.end_attempt(attempt(one, ChallengeStatus.VALID))
            for _, needed in made
            for store, one in zip(stores, needed, strict=True)
        ]
        assert None not in await asyncio.gather(*attempts)
        assert await statuses(stores[0], *(row for row, _ in made)) == [OrderStatus.READY] * 20

    async def test_reaches_every_order_that_needs_the_authorization(self, store: Store) -> None:
        of = await registered(store)
        first, (shared,) = await ordered(store, of)
        second = order(of, shared)
        assert await store.add_order(new_order(second)) == second
        more = authorization(of, "b.example")
        third = order(of, shared, more)
        assert await store.add_order(new_order(third, more)) == third
        await validated(store, shared)
        assert await statuses(store, first, second, third) == [OrderStatus.READY, OrderStatus.READY, OrderStatus.PENDING]

    async def test_of_a_failure_ends_every_order_that_needs_it(self, store: Store) -> None:
        of = await registered(store)
        row, (good, bad) = await ordered(store, of, "a.example", "b.example")
        bystander, _ = await ordered(store, of)
        await validated(store, good)
        problem = Problem(Reason.VALIDATION_DNS, "no such name")
        await validated(store, bad, ChallengeStatus.INVALID, error=problem)
        assert await statuses(store, row, bystander) == [OrderStatus.INVALID, OrderStatus.PENDING]
        found = await store.find_order(row.id)
        assert found is not None
        named = ((dns("b.example"), Reason.VALIDATION_DNS, "no such name"),)
        assert found.error == Problem(Reason.VALIDATION_DNS, "no such name", named)

    async def test_names_a_wildcard_as_it_was_ordered(self, store: Store) -> None:
        of = await registered(store)
        wild = authorization(of, "example.com", wildcard=True)
        row = order(of, wild, identifiers=(dns("*.example.com"),))
        await store.add_order(new_order(row, wild))
        await validated(store, wild, ChallengeStatus.INVALID)
        found = await store.find_order(row.id)
        assert found is not None
        assert found.error is not None
        assert found.error.identifiers[0][0] == dns("*.example.com")

    async def test_of_a_deactivation_ends_ready_orders_and_none_that_is_finalized(self, store: Store) -> None:
        of = await registered(store)
        ready, processing = await made_ready(store, of), await made_ready(store, of)
        await store.change_order(order_change(processing, OrderStatus.PROCESSING))
        for row in (ready, processing):
            ended = await store.deactivate_authorization(row.authorizations[0], NOW, CHANGED)
            assert ended is not None
            assert ended.status is AuthorizationStatus.DEACTIVATED
        assert await statuses(store, ready, processing) == [OrderStatus.INVALID, OrderStatus.PROCESSING]
        assert await store.deactivate_authorization(ready.authorizations[0], NOW, CHANGED) is None
