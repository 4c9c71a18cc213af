"""ACME authorizations and the attempts at their challenges, the same over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.acme import Authorization, AuthorizationStatus, ChallengeStatus, Problem
from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType, ProfileName
from gateway.store.acme import Crowded
from gateway.store.interfaces import QuotaTake, Store
from tests.contract.store.acme_rows import (
    BEGUN,
    CHANGED,
    DAY,
    SECOND,
    WEEK,
    attempt,
    authorization,
    begun,
    dns,
    ordered,
    registered,
    validated,
)
from tests.contract.store.conftest import Open
from tests.contract.store.rows import LEASE, NOW, audit_events

PROBLEM = Problem(Reason.VALIDATION_CONNECTION, "the connection was refused")


@pytest.fixture
async def row(store: Store) -> Authorization:
    _, (needed,) = await ordered(store, await registered(store))
    return needed


class TestPreAuthorization:
    """RFC 8555 §7.4.1."""

    async def test_comes_back_as_it_was_stored(self, store: Store) -> None:
        of = await registered(store)
        row = authorization(of, subdomains=True, source="192.0.2.7", status=AuthorizationStatus.VALID)
        assert await store.add_authorization(row, (), CHANGED) is None
        assert await store.find_authorization(row.id) == row
        assert await store.find_authorization("?") is None

    async def test_beyond_a_quota_is_refused(self, store: Store) -> None:
        of = await registered(store)
        quotas = (QuotaTake("q", 1, 60),)
        assert await store.add_authorization(authorization(of), quotas, CHANGED) is None
        late = authorization(of)
        assert await store.add_authorization(late, quotas, CHANGED) is Reason.RATE_LIMITED
        assert await store.find_authorization(late.id) is None

    async def test_several_come_in_the_order_that_was_asked(self, store: Store) -> None:
        of = await registered(store)
        rows = [authorization(of) for _ in range(5)]
        for row in rows:
            await store.add_authorization(row, (), CHANGED)
        assert await store.find_authorizations([row.id for row in reversed(rows)]) == tuple(reversed(rows))
        assert await store.find_authorizations([rows[3].id, "?", rows[1].id]) == (rows[3], rows[1])
        assert await store.find_authorizations(()) == ()


class TestValidOnes:
    async def add(self, store: Store, of: Any, name: str, **fields: Any) -> Authorization:
        row = authorization(of, name, **({"status": AuthorizationStatus.VALID} | fields))
        assert await store.add_authorization(row, (), CHANGED) is None
        return row

    @pytest.mark.parametrize(
        ("fields", "found"),
        [
            pytest.param({}, True, id="valid"),
            pytest.param({"wildcard": True}, True, id="of a wildcard"),
            pytest.param({"status": AuthorizationStatus.PENDING}, False, id="pending"),
            pytest.param({"status": AuthorizationStatus.DEACTIVATED}, False, id="deactivated"),
            pytest.param({"expires_at": NOW}, False, id="expired"),
            pytest.param({"account": "another"}, False, id="another account's"),
            pytest.param({"profile": ProfileName("other")}, False, id="another profile's"),
            pytest.param({"identifier": dns("b.example")}, False, id="another name"),
            pytest.param({"identifier": Identifier(IdentifierType.PERMANENT_IDENTIFIER, "a.example")}, False, id="another type"),
        ],
    )
    async def test_are_found_by_name(self, store: Store, fields: dict[str, Any], found: bool) -> None:
        of = await registered(store)
        row = await self.add(store, of, "a.example", **fields)
        asked = [dns("a.example"), dns("c.example")]
        assert await store.find_valid_authorizations(of.id, of.profile, asked, NOW) == ((row,) if found else ())

    @pytest.mark.parametrize(
        ("name", "subdomains", "found"),
        [
            pytest.param("example.com", True, True, id="two above"),
            pytest.param("b.example.com", True, True, id="one above"),
            pytest.param("a.b.example.com", True, True, id="itself"),
            pytest.param("b.example.com", False, False, id="without subdomains"),
            pytest.param("x.a.b.example.com", True, False, id="below"),
            pytest.param("b.example", True, False, id="beside"),
            pytest.param("ample.com", True, False, id="end of a label"),
        ],
    )
    async def test_of_domains_above_cover_subdomains(self, store: Store, name: str, subdomains: bool, found: bool) -> None:
        of = await registered(store)
        row = await self.add(store, of, name, subdomains=subdomains)
        wanted = await store.find_valid_authorizations(of.id, of.profile, [dns("a.b.example.com")], NOW)
        assert wanted == ((row,) if found else ())

    async def test_of_no_names_are_none(self, store: Store) -> None:
        of = await registered(store)
        await self.add(store, of, "a.example")
        assert await store.find_valid_authorizations(of.id, of.profile, [], NOW) == ()

    async def test_that_last_longest_come_first(self, store: Store) -> None:
        of = await registered(store)
        rows = [await self.add(store, of, "a.example", expires_at=NOW + number * DAY) for number in (1, 3, 2)]
        found = await store.find_valid_authorizations(of.id, of.profile, [dns("a.example")], NOW)
        assert found == (rows[1], rows[2], rows[0])


class TestBeginning:
    async def test_makes_the_challenge_ours(self, store: Store, row: Authorization) -> None:
        found = await begun(store, row, payload={"attObj": "AAAA", "n": 1})
        first = replace(row.challenges[0], status=ChallengeStatus.PROCESSING)
        assert found == replace(
            row,
            challenges=(first, row.challenges[1]),
            trying=first.id,
            next_at=NOW,
            worker="w1",
            lease_until=LEASE,
            source="192.0.2.9",
            payload={"attObj": "AAAA", "n": 1},
        )
        assert await store.find_authorization(row.id) == found
        assert audit_events(store)[-1] == "acme.validation.begun"

    async def test_again_means_now_and_changes_nothing_else(self, store: Store, row: Authorization) -> None:
        first = await begun(store, row, payload={"a": 1})
        events = audit_events(store)
        again = await begun(store, row, worker="w2", payload={"a": 2}, at=NOW + SECOND, lease_until=LEASE + DAY)
        assert again == replace(first, next_at=NOW + SECOND)
        assert await store.find_authorization(row.id) == again
        assert audit_events(store) == events

    async def test_of_another_challenge_meanwhile_is_none(self, store: Store, row: Authorization) -> None:
        first = await begun(store, row)
        other = row.challenges[1].id
        assert await store.begin_validation(row.id, other, {}, "", "w2", LEASE, NOW, BEGUN) is None
        assert await store.find_authorization(row.id) == first

    @pytest.mark.parametrize("status", [ChallengeStatus.VALID, ChallengeStatus.INVALID])
    async def test_of_what_is_over_is_none(self, store: Store, row: Authorization, status: ChallengeStatus) -> None:
        ended = await validated(store, row, status)
        for one in row.challenges:
            assert await store.begin_validation(row.id, one.id, {}, "", "w1", LEASE, NOW, BEGUN) is None
        assert await store.find_authorization(row.id) == ended

    async def test_of_what_expired_is_none(self, store: Store, row: Authorization) -> None:
        assert await store.begin_validation(row.id, row.challenges[0].id, {}, "", "w1", LEASE, row.expires_at, BEGUN) is None

    async def test_of_what_is_not_there_is_none(self, store: Store, row: Authorization) -> None:
        assert await store.begin_validation("?", row.challenges[0].id, {}, "", "w1", LEASE, NOW, BEGUN) is None
        assert await store.begin_validation(row.id, "?", {}, "", "w1", LEASE, NOW, BEGUN) is None
        assert await store.find_authorization(row.id) == row

    async def test_of_two_challenges_at_once_begins_one(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        _, (row,) = await ordered(stores[0], await registered(stores[0]))
        found = await asyncio.gather(
            *(
                store.begin_validation(row.id, one.id, {}, "", worker, LEASE, NOW, BEGUN)
                for store, worker, one in zip(stores, ("w1", "w2"), row.challenges, strict=True)
            )
        )
        assert [one is None for one in found].count(True) == 1


class TestSettling:
    async def test_ends_what_nobody_has_begun(self, store: Store, row: Authorization) -> None:
        found = await store.settle(attempt(row, ChallengeStatus.VALID))
        assert found is not None
        assert (found.status, found.challenges[0].status) == (AuthorizationStatus.VALID, ChallengeStatus.VALID)
        assert await store.find_authorization(row.id) == found
        assert await store.settle(attempt(row, ChallengeStatus.VALID)) is None

    async def test_leaves_what_somebody_has_begun(self, store: Store, row: Authorization) -> None:
        first = await begun(store, row)
        assert await store.settle(attempt(row, ChallengeStatus.VALID)) is None
        assert await store.find_authorization(row.id) == first

    async def test_of_what_is_over_or_not_there_is_none(self, store: Store, row: Authorization) -> None:
        assert await store.settle(replace(attempt(row, ChallengeStatus.VALID), at=row.expires_at)) is None
        assert await store.settle(replace(attempt(row, ChallengeStatus.VALID), authorization="?")) is None
        assert await store.settle(replace(attempt(row, ChallengeStatus.VALID), challenge="?")) is None
        assert await store.find_authorization(row.id) == row


class TestDueOnes:
    async def test_are_those_that_nobody_holds(self, store: Store, row: Authorization) -> None:
        assert await store.find_due_validations(NOW + DAY, 10) == ()
        found = await begun(store, row)
        assert await store.find_due_validations(LEASE - SECOND, 10) == ()
        assert await store.find_due_validations(LEASE, 10) == (found,)

    async def test_wait_until_their_time(self, store: Store, row: Authorization) -> None:
        await begun(store, row)
        waiting = await store.end_attempt(attempt(row, ChallengeStatus.PROCESSING, next_at=NOW + DAY, error=PROBLEM))
        assert await store.find_due_validations(NOW + DAY - SECOND, 10) == ()
        assert await store.find_due_validations(NOW + DAY, 10) == (waiting,)
        hurried = await begun(store, row, at=NOW + SECOND)
        assert await store.find_due_validations(NOW + SECOND, 10) == (hurried,)

    async def test_are_never_expired(self, store: Store, row: Authorization) -> None:
        await begun(store, row)
        assert await store.find_due_validations(row.expires_at, 10) == ()

    async def test_come_longest_waiting_first_a_few_at_a_time_and_without_some_accounts(self, store: Store) -> None:
        rows, accounts = [], []
        for number in range(4):
            of = await registered(store)
            _, (one,) = await ordered(store, of)
            accounts.append(of.id)
            rows.append(await begun(store, one, worker="", at=NOW - number * SECOND))
        assert await store.find_due_validations(NOW, 3) == (rows[3], rows[2], rows[1])
        assert await store.find_due_validations(NOW, 10, Crowded(accounts=frozenset(accounts[1:]))) == (rows[0],)
        assert await store.find_due_validations(NOW, 10, Crowded(accounts=frozenset({accounts[3]}))) == (
            rows[2],
            rows[1],
            rows[0],
        )


class TestClaims:
    async def test_take_what_was_left(self, store: Store, row: Authorization) -> None:
        left = await begun(store, row)
        assert await store.claim_validation(row.id, "w1", LEASE, "w2", LEASE + DAY)
        assert await store.find_authorization(row.id) == replace(left, worker="w2", lease_until=LEASE + DAY)
        assert not await store.claim_validation(row.id, "w1", LEASE, "w3", LEASE + DAY)

    async def test_take_what_nobody_held(self, store: Store, row: Authorization) -> None:
        await begun(store, row)
        await store.end_attempt(attempt(row, ChallengeStatus.PROCESSING))
        assert await store.claim_validation(row.id, "", None, "w2", LEASE)

    async def test_have_one_winner(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        _, (row,) = await ordered(stores[0], await registered(stores[0]))
        await begun(stores[0], row)
        claims = (stores[n % 2].claim_validation(row.id, "w1", LEASE, f"w{n}", LEASE + DAY) for n in range(2, 12))
        assert (await asyncio.gather(*claims)).count(True) == 1

    async def test_of_what_is_over_fail(self, store: Store, row: Authorization) -> None:
        await validated(store, row)
        assert not await store.claim_validation(row.id, "", None, "w2", LEASE)
        assert not await store.claim_validation("?", "", None, "w2", LEASE)


class TestAttempts:
    async def test_that_succeed_end_it(self, store: Store, row: Authorization) -> None:
        before = await begun(store, row, payload={"attObj": "AAAA"})
        done = await store.end_attempt(
            attempt(
                row,
                ChallengeStatus.VALID,
                expires_at=NOW + 2 * WEEK,
                attested_key=b"k" * 32,
                claims={"serial": "C02"},
                error=PROBLEM,
            )
        )
        valid = replace(row.challenges[0], status=ChallengeStatus.VALID, validated_at=NOW + SECOND)
        assert done == replace(
            before,
            status=AuthorizationStatus.VALID,
            challenges=(valid, row.challenges[1]),
            expires_at=NOW + 2 * WEEK,
            trying=None,
            attempts=1,
            next_at=None,
            worker="",
            lease_until=None,
            payload={},
            attested_key=b"k" * 32,
            claims={"serial": "C02"},
            caa_checked_at=NOW + SECOND,
        )
        assert await store.find_authorization(row.id) == done
        assert audit_events(store)[-1] == "acme.validation.ended"

    async def test_that_fail_end_it(self, store: Store, row: Authorization) -> None:
        done = await validated(store, row, ChallengeStatus.INVALID, error=PROBLEM, expires_at=NOW + 2 * WEEK)
        failed = replace(row.challenges[0], status=ChallengeStatus.INVALID, error=PROBLEM)
        assert (done.status, done.challenges[0], done.expires_at) == (AuthorizationStatus.INVALID, failed, row.expires_at)
        assert (done.trying, done.caa_checked_at) == (None, None)
        assert await store.find_authorization(row.id) == done

    async def test_that_are_to_be_repeated_leave_it_to_whoever_comes(self, store: Store, row: Authorization) -> None:
        before = await begun(store, row, payload={"a": 1})
        waiting = await store.end_attempt(attempt(row, ChallengeStatus.PROCESSING, next_at=NOW + DAY, error=PROBLEM))
        tried = replace(before.challenges[0], error=PROBLEM)
        assert waiting == replace(
            before,
            challenges=(tried, before.challenges[1]),
            attempts=1,
            next_at=NOW + DAY,
            worker="",
            lease_until=None,
        )
        assert await store.find_authorization(row.id) == waiting
        assert await store.claim_validation(row.id, "", None, "w2", LEASE)
        again = await store.end_attempt(attempt(row, ChallengeStatus.VALID, worker="w2"))
        assert again is not None
        assert (again.attempts, again.challenges[0].error) == (2, None)

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"worker": "w2"}, id="another worker"),
            pytest.param({"worker": ""}, id="nobody"),
            pytest.param({"challenge": "?"}, id="another challenge"),
            pytest.param({"authorization": "?"}, id="another authorization"),
        ],
    )
    async def test_of_who_does_not_hold_it_change_nothing(self, store: Store, row: Authorization, fields: dict[str, Any]) -> None:
        before = await begun(store, row)
        quotas = (QuotaTake("failed", 1, 60),)
        assert await store.end_attempt(attempt(row, ChallengeStatus.VALID, quotas=quotas, **fields)) is None
        assert await store.find_authorization(row.id) == before
        assert await store.has_room(quotas, NOW)

    async def test_after_deactivation_change_nothing(self, store: Store, row: Authorization) -> None:
        await begun(store, row)
        ended = await store.deactivate_authorization(row.id, NOW, CHANGED)
        assert await store.end_attempt(attempt(row, ChallengeStatus.VALID)) is None
        assert await store.find_authorization(row.id) == ended

    async def test_that_fail_are_counted_whatever_the_limit(self, store: Store) -> None:
        quotas = (QuotaTake("failed", 2, 60),)
        of = await registered(store)
        for number in range(3):
            assert await store.has_room(quotas, NOW + SECOND) is (number < 2)
            _, (one,) = await ordered(store, of)
            done = await validated(store, one, ChallengeStatus.INVALID, quotas=quotas)
            assert done.status is AuthorizationStatus.INVALID
