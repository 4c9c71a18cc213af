"""ACME accounts, their keys and external accounts, the same over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.acme import AccountStatus, AuthorizationStatus, ExternalAccountPolicy, OrderStatus
from gateway.errors import Reason, StoreUnavailable
from gateway.model import ChallengeType, ProfileName
from gateway.store.interfaces import QuotaTake, Store
from tests.contract.store.acme_rows import (
    BOUND,
    CHANGED,
    CREATED,
    DAY,
    FINALIZED,
    account,
    authorization,
    begun,
    external_account,
    made_ready,
    new_order,
    order,
    order_change,
    ordered,
    registered,
)
from tests.contract.store.conftest import Open
from tests.contract.store.rows import NOW, PROFILE, audit_events, event

OTHER = ProfileName("other")


class TestAccounts:
    async def test_are_found_by_id_and_by_key(self, store: Store) -> None:
        row = await registered(
            store, terms="v1", binding='{"payload":""}', contact=("mailto:a@example.com", "mailto:b@example.com")
        )
        assert await store.find_account(row.id) == row
        assert await store.find_account_by_key(PROFILE, row.thumbprint) == row
        assert await store.find_account_by_key(OTHER, row.thumbprint) is None
        assert await store.find_account_by_key(PROFILE, "?") is None
        assert await store.find_account("?") is None

    async def test_of_a_known_key_is_returned_as_it_is(self, store: Store) -> None:
        row = await registered(store)
        again = account(thumbprint=row.thumbprint, contact=("mailto:other@example.com",))
        assert await store.add_account(again, (QuotaTake("q", 0, 60),), CREATED) == row
        assert audit_events(store) == ["acme.account.created"]

    async def test_of_one_key_may_be_in_two_profiles(self, store: Store) -> None:
        row = await registered(store)
        assert await registered(store, thumbprint=row.thumbprint, profile=OTHER) != row

    async def test_of_one_key_is_one_whoever_asks_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        rows = [account(thumbprint="same") for _ in range(20)]
        found = await asyncio.gather(*(stores[n % 2].add_account(row, (), CREATED) for n, row in enumerate(rows)))
        assert len(set(found)) == 1
        assert audit_events(stores[0]) == ["acme.account.created"]

    async def test_beyond_a_quota_is_refused_and_leaves_nothing(self, store: Store) -> None:
        quota = (QuotaTake("q", 1, 60),)
        assert await store.add_account(account(), quota, CREATED) is not Reason.RATE_LIMITED
        late = account()
        assert await store.add_account(late, quota, CREATED) is Reason.RATE_LIMITED
        assert await store.find_account(late.id) is None
        assert len(audit_events(store)) == 1

    async def test_are_listed_newest_first(self, store: Store) -> None:
        rows = [await registered(store, created_at=NOW + number * DAY) for number in range(3)]
        other = await registered(store, created_at=NOW - DAY, profile=OTHER)
        assert await store.list_accounts(None, 10) == (*reversed(rows), other)
        assert await store.list_accounts(None, 2, 1) == (rows[1], rows[0])
        assert await store.list_accounts("other", 10) == (other,)


class TestUpdate:
    async def test_changes_what_is_given(self, store: Store) -> None:
        row = await registered(store, contact=("mailto:a@example.com",))
        assert await store.update_account(row.id, CHANGED) == row
        changed = await store.update_account(row.id, CHANGED, contact=("mailto:b@example.com",), terms="v2")
        assert changed == replace(row, contact=("mailto:b@example.com",), terms="v2")
        assert await store.update_account(row.id, CHANGED, contact=()) == replace(row, contact=(), terms="v2")
        assert await store.find_account(row.id) == replace(row, contact=(), terms="v2")

    @pytest.mark.parametrize("status", [AccountStatus.DEACTIVATED, AccountStatus.REVOKED])
    async def test_that_ends_an_account_is_the_last(self, store: Store, status: AccountStatus) -> None:
        row = await registered(store)
        ended = replace(row, status=status)
        assert await store.update_account(row.id, CHANGED, status=status) == ended
        assert await store.update_account(row.id, CHANGED, contact=()) is None
        assert await store.update_account(row.id, CHANGED, status=AccountStatus.VALID) is None
        assert await store.find_account(row.id) == ended
        assert await store.change_account_key(row.id, row.thumbprint, "new", "{}", CHANGED) is None

    async def test_of_an_unknown_account_is_none(self, store: Store) -> None:
        assert await store.update_account("?", CHANGED) is None
        assert audit_events(store) == []

    async def test_that_ends_an_account_cancels_what_is_pending(self, store: Store) -> None:
        row, bystander = await registered(store), await registered(store)
        pending, (needed,) = await ordered(store, row)
        ready = await made_ready(store, row)
        processing = await made_ready(store, row)
        await store.change_order(order_change(processing, OrderStatus.PROCESSING))
        theirs, _ = await ordered(store, bystander)
        await begun(store, needed)
        await store.update_account(row.id, CHANGED, status=AccountStatus.DEACTIVATED)
        found = [await store.find_order(one.id) for one in (pending, ready, processing, theirs)]
        assert [one and one.status for one in found] == [
            OrderStatus.INVALID,
            OrderStatus.INVALID,
            OrderStatus.PROCESSING,
            OrderStatus.PENDING,
        ]
        assert found[0] is not None
        assert found[0].error is not None
        assert found[0].error.reason is Reason.ACCOUNT_DEACTIVATED
        cancelled = await store.find_authorization(needed.id)
        assert cancelled is not None
        assert (cancelled.status, cancelled.trying) == (AuthorizationStatus.DEACTIVATED, None)
        assert await store.find_due_validations(NOW + DAY, 10) == ()

    async def test_that_ended_an_account_lets_it_order_nothing(self, store: Store) -> None:
        row = await registered(store)
        await store.update_account(row.id, CHANGED, status=AccountStatus.DEACTIVATED)
        needed = authorization(row)
        wanted = order(row, needed)
        assert await store.add_order(new_order(wanted, needed)) is Reason.ACCOUNT_DEACTIVATED
        assert await store.find_order(wanted.id) is None
        assert await store.find_authorization(needed.id) is None


class TestKeyChange:
    async def test_gives_the_account_the_key(self, store: Store) -> None:
        row = await registered(store)
        changed = await store.change_account_key(row.id, row.thumbprint, "new", '{"kty":"EC"}', CHANGED)
        assert changed == replace(row, thumbprint="new", jwk='{"kty":"EC"}')
        assert await store.find_account_by_key(PROFILE, "new") == changed
        assert await store.find_account_by_key(PROFILE, row.thumbprint) is None

    async def test_to_the_key_of_another_returns_that(self, store: Store) -> None:
        row, other = await registered(store), await registered(store)
        assert await store.change_account_key(row.id, row.thumbprint, other.thumbprint, "{}", CHANGED) == other
        assert await store.find_account(row.id) == row

    async def test_to_the_key_of_another_profile_is_done(self, store: Store) -> None:
        row, other = await registered(store), await registered(store, profile=OTHER)
        changed = await store.change_account_key(row.id, row.thumbprint, other.thumbprint, "{}", CHANGED)
        assert changed == replace(row, thumbprint=other.thumbprint, jwk="{}")

    async def test_from_a_key_that_it_has_no_more_is_none(self, store: Store) -> None:
        row = await registered(store)
        assert await store.change_account_key(row.id, "older", "new", "{}", CHANGED) is None
        assert await store.change_account_key("?", "older", "new", "{}", CHANGED) is None

    async def test_of_two_accounts_to_one_key_happens_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        rows = [await registered(stores[0]) for _ in range(2)]
        changes = (
            store.change_account_key(row.id, row.thumbprint, "new", "{}", CHANGED)
            for store, row in zip(stores, rows, strict=True)
        )
        found = await asyncio.gather(*changes)
        assert found[0] == found[1]
        assert audit_events(stores[0]).count("acme.account.changed") == 1


POLICY = ExternalAccountPolicy(
    dns=("*.example.com",),
    ip=("192.0.2.0/24",),
    wildcards=False,
    key_types=frozenset({"ec", "P-256"}),
    challenges=frozenset({ChallengeType.DNS_01, ChallengeType.HTTP_01}),
    mode="none",
    max_validity=timedelta(days=30),
    max_identifiers=3,
    max_accounts=None,
    max_certificates=7,
)


class TestExternalAccounts:
    @pytest.mark.parametrize("policy", [ExternalAccountPolicy(), POLICY])
    async def test_come_back_as_they_were_stored(self, store: Store, policy: ExternalAccountPolicy) -> None:
        row = external_account(policy=policy, owner="team", expires_at=NOW + DAY)
        await store.add_external_account(row, BOUND)
        assert await store.find_external_account(row.kid) == row
        assert await store.find_external_account("?") is None

    async def test_of_one_kid_is_one(self, store: Store) -> None:
        row = external_account()
        await store.add_external_account(row, BOUND)
        with pytest.raises(StoreUnavailable):
            await store.add_external_account(external_account(kid=row.kid), BOUND)
        assert await store.find_external_account(row.kid) == row

    async def test_are_listed_newest_first(self, store: Store) -> None:
        rows = [external_account(created_at=NOW + number * DAY) for number in range(3)]
        rows.append(external_account(profile=OTHER))
        for row in rows:
            await store.add_external_account(row, BOUND)
        assert await store.list_external_accounts(PROFILE, 10) == (rows[2], rows[1], rows[0])
        assert await store.list_external_accounts(None, 2) == (rows[2], rows[1])

    async def test_bind_one_account_whoever_asks_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        bound = external_account()
        await stores[0].add_external_account(bound, BOUND)
        rows = [account(external_account=bound.kid) for _ in range(10)]
        found = await asyncio.gather(*(stores[n % 2].add_account(row, (), CREATED) for n, row in enumerate(rows)))
        assert sorted(str(one) for one in found if isinstance(one, Reason)) == [Reason.CREDENTIAL_USED] * 9
        assert await stores[1].find_external_account(bound.kid) == replace(bound, accounts=1)

    async def test_that_are_bound_know_their_account_again(self, store: Store) -> None:
        bound = external_account()
        await store.add_external_account(bound, BOUND)
        row = await registered(store, external_account=bound.kid)
        again = account(thumbprint=row.thumbprint, external_account=bound.kid)
        assert await store.add_account(again, (), CREATED) == row

    async def test_bind_as_many_accounts_as_they_may(self, store: Store) -> None:
        bound = external_account(policy=ExternalAccountPolicy(max_accounts=2))
        free = external_account(policy=ExternalAccountPolicy(max_accounts=None))
        for row in (bound, free):
            await store.add_external_account(row, BOUND)
        for _ in range(2):
            await registered(store, external_account=bound.kid)
        assert await store.add_account(account(external_account=bound.kid), (), CREATED) is Reason.CREDENTIAL_USED
        for _ in range(5):
            await registered(store, external_account=free.kid)

    async def test_are_not_used_up_by_an_account_that_a_quota_refuses(self, store: Store) -> None:
        bound = external_account()
        await store.add_external_account(bound, BOUND)
        refused = account(external_account=bound.kid)
        assert await store.add_account(refused, (QuotaTake("q", 0, 60),), CREATED) is Reason.RATE_LIMITED
        assert await store.find_external_account(bound.kid) == bound

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            pytest.param({"expires_at": NOW}, Reason.CREDENTIAL_EXPIRED, id="expired"),
            pytest.param({"revoked_at": NOW}, Reason.CREDENTIAL_REVOKED, id="revoked"),
            pytest.param({"revoked_at": NOW, "expires_at": NOW}, Reason.CREDENTIAL_REVOKED, id="both"),
            pytest.param({"accounts": 1}, Reason.CREDENTIAL_USED, id="used"),
        ],
    )
    async def test_that_are_over_bind_nothing(self, store: Store, fields: dict[str, object], reason: Reason) -> None:
        over = external_account(**fields)
        await store.add_external_account(over, BOUND)
        row = account(external_account=over.kid)
        assert await store.add_account(row, (), CREATED) is reason
        assert await store.find_account(row.id) is None

    async def test_unknown_binds_nothing(self, store: Store) -> None:
        assert await store.add_account(account(external_account="?"), (), CREATED) is Reason.CREDENTIAL_REVOKED

    async def test_revoked_is_revoked_once(self, store: Store) -> None:
        row = external_account()
        await store.add_external_account(row, BOUND)
        revoked = replace(row, revoked_at=NOW + DAY)
        assert await store.revoke_external_account(row.kid, NOW + DAY, event("eab.revoked", "done")) == revoked
        assert await store.revoke_external_account(row.kid, NOW + 2 * DAY, event("eab.revoked", "done")) is None
        assert await store.revoke_external_account("?", NOW, event("eab.revoked", "done")) is None
        assert await store.find_external_account(row.kid) == revoked
        assert audit_events(store).count("eab.revoked") == 1

    async def test_revoked_lets_its_accounts_order_and_finalize_nothing(self, store: Store) -> None:
        bound = external_account(policy=ExternalAccountPolicy(max_accounts=None))
        await store.add_external_account(bound, BOUND)
        row = await registered(store, external_account=bound.kid)
        ready = await made_ready(store, row)
        await store.revoke_external_account(bound.kid, NOW, event("eab.revoked", "done"))
        needed = authorization(row)
        assert await store.add_order(new_order(order(row, needed), needed)) is Reason.CREDENTIAL_REVOKED
        finalize = order_change(ready, OrderStatus.PROCESSING, external_account=bound.kid)
        assert await store.change_order(finalize) is Reason.CREDENTIAL_REVOKED
        assert await store.find_order(ready.id) == ready


class TestCertificatesOfAnExternalAccount:
    async def bound(self, store: Store, **policy: int | None) -> tuple[str, list[str]]:
        bound = external_account(policy=ExternalAccountPolicy(max_accounts=None, **policy))  # type: ignore[arg-type]
        await store.add_external_account(bound, BOUND)
        rows = [await registered(store, external_account=bound.kid) for _ in range(2)]
        return bound.kid, [(await made_ready(store, row)).id for row in rows]

    async def finalize(self, store: Store, kid: str, id: str) -> object:
        found = await store.find_order(id)
        assert found is not None
        return await store.change_order(order_change(found, OrderStatus.PROCESSING, external_account=kid, worker=None))

    async def used(self, store: Store, kid: str) -> int:
        found = await store.find_external_account(kid)
        assert found is not None
        return found.certificates

    async def test_are_counted_for_all_its_accounts_together(self, store: Store) -> None:
        kid, orders = await self.bound(store, max_certificates=1)
        assert await self.finalize(store, kid, orders[0]) is not Reason.RATE_LIMITED
        assert await self.finalize(store, kid, orders[1]) is Reason.RATE_LIMITED
        found = await store.find_order(orders[1])
        assert found is not None
        assert found.status is OrderStatus.READY
        assert await self.used(store, kid) == 1

    async def test_are_one_whoever_finalizes_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        kid, orders = await self.bound(stores[0], max_certificates=1)
        found = await asyncio.gather(*(self.finalize(store, kid, id) for store, id in zip(stores, orders, strict=True)))
        assert [one for one in found if isinstance(one, Reason)] == [Reason.RATE_LIMITED]

    @pytest.mark.parametrize("to", [OrderStatus.INVALID, OrderStatus.READY])
    async def test_are_given_back_once(self, store: Store, to: OrderStatus) -> None:
        kid, orders = await self.bound(store, max_certificates=1)
        await self.finalize(store, kid, orders[0])
        found = await store.find_order(orders[0])
        assert found is not None
        ended = await store.change_order(order_change(found, to))
        assert ended is not None
        assert not isinstance(ended, Reason)
        assert await self.used(store, kid) == 0
        await store.change_order(order_change(ended, OrderStatus.INVALID))
        assert await self.used(store, kid) == 0
        assert await self.finalize(store, kid, orders[1]) is not Reason.RATE_LIMITED

    async def test_stay_counted_when_valid_and_however_often_it_is_tried(self, store: Store) -> None:
        kid, orders = await self.bound(store)
        for _ in range(3):
            await self.finalize(store, kid, orders[0])
        assert await self.used(store, kid) == 1
        found = await store.find_order(orders[0])
        assert found is not None
        await store.change_order(order_change(found, OrderStatus.VALID, audit=FINALIZED))
        assert await self.used(store, kid) == 1
