"""Opening and looking up ledger rows, the same over every store."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.errors import Reason
from gateway.model import UNLIMITED_NOT_AFTER, RequestId, RevocationReason
from gateway.store.interfaces import RENEWAL, AlreadyOpen, LedgerState, Opened, OpeningRefused, QuotaTake, Store, WaitingFor
from tests.contract.store.conftest import Open
from tests.contract.store.rows import (
    CHAIN,
    LEASE,
    NOW,
    WINDOW,
    audit_events,
    certificate_of,
    challenge,
    event,
    issued,
    ledger_row,
    opened,
    opening,
    reservation,
    transition,
)

SECOND = timedelta(seconds=1)


async def test_opened_row_comes_back_as_it_was(store: Store) -> None:
    row = ledger_row(
        owner="alice",
        renews=None,
        poll_at=NOW + SECOND,
        upstream_reference="ref",
        waiting_for=WaitingFor.UPSTREAM,
        reason=Reason.OVERLOADED,
        detail="détail",
        sent=True,
        attempts=3,
        serial=(1 << 159) - 1,
    )
    assert await store.open(opening(row)) == Opened(row)
    assert await store.get_row(row.id) == row
    assert await store.find_request(row.request_key, NOW) == row
    assert await store.find_transaction(row.profile, "scep", row.transaction_id, row.requester_key) == row


async def test_serial_may_be_absent(store: Store) -> None:
    row = await opened(store, serial=None)
    found = await store.get_row(row.id)
    assert found is not None
    assert found.serial is None


async def test_unknown_ids_find_nothing(store: Store) -> None:
    assert await store.get_row(RequestId("nothing")) is None
    assert await store.find_request(b"x" * 32, NOW) is None
    assert await store.find_transaction(ledger_row().profile, "scep", "t", b"k" * 32) is None


async def test_same_request_is_already_open(store: Store) -> None:
    row = await opened(store)
    again = ledger_row(request_key=row.request_key)
    assert await store.open(opening(again)) == AlreadyOpen(row)
    assert await store.get_row(again.id) is None
    assert audit_events(store) == ["enrollment.opened"]


async def test_same_request_with_its_own_used_challenge_is_already_open(store: Store) -> None:
    row = ledger_row()
    await store.open(opening(row, (reservation(),)))
    again = ledger_row(request_key=row.request_key)
    assert await store.open(opening(again, (reservation(),))) == AlreadyOpen(row)


async def test_other_request_with_a_used_challenge_is_refused(store: Store) -> None:
    await store.open(opening(ledger_row(), (reservation(),)))
    other = ledger_row()
    assert await store.open(opening(other, (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_USED)
    assert await store.get_row(other.id) is None


async def test_revoked_challenge_is_refused_even_when_it_was_good_a_moment_ago(store: Store) -> None:
    await store.add_challenge(challenge(), event("challenge.created", "done"))
    assert await store.revoke_challenge("c1", NOW, event("challenge.revoked", "done"))
    assert await store.open(opening(ledger_row(), (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_REVOKED)


async def test_refused_opening_takes_nothing(store: Store) -> None:
    await store.open(opening(ledger_row(), (reservation("c2"),)))
    refused = opening(ledger_row(), (reservation("c1"), reservation("c2")), (QuotaTake("q", 1, 60),))
    assert await store.open(refused) == OpeningRefused(Reason.CREDENTIAL_USED)
    assert isinstance(await store.open(opening(ledger_row(), (reservation("c1"),), (QuotaTake("q", 1, 60),))), Opened)
    assert audit_events(store) == ["enrollment.opened"] * 2


async def test_reservations_of_different_kinds_do_not_meet(store: Store) -> None:
    assert isinstance(await store.open(opening(ledger_row(), (reservation("x", "one_time"),))), Opened)
    assert isinstance(await store.open(opening(ledger_row(), (reservation("x", "nonce"),))), Opened)


async def test_exactly_one_of_many_wins_a_challenge(open_store: Open) -> None:
    stores = [await open_store("w1"), await open_store("w2")]
    attempts = [stores[n % 2].open(opening(ledger_row(), (reservation(),))) for n in range(40)]
    answers = await asyncio.gather(*attempts)
    assert sum(isinstance(answer, Opened) for answer in answers) == 1
    assert answers.count(OpeningRefused(Reason.CREDENTIAL_USED)) == 39


async def test_exactly_one_of_many_same_requests_is_opened(open_store: Open) -> None:
    stores = [await open_store("w1"), await open_store("w2")]
    key = b"q" * 32
    answers = await asyncio.gather(*(stores[n % 2].open(opening(ledger_row(request_key=key))) for n in range(40)))
    [winner] = [answer.row for answer in answers if isinstance(answer, Opened)]
    assert [answer.row.id for answer in answers if isinstance(answer, AlreadyOpen)] == [winner.id] * 39


class TestRetransmissionWindow:
    async def test_begins_with_the_answer(self, store: Store) -> None:
        row = await opened(store)
        late = NOW + 3 * WINDOW
        done = await store.transition(transition(row, at=late, certificate=certificate_of(row), chain=CHAIN))
        assert await store.find_request(row.request_key, late + WINDOW - SECOND) == done
        assert await store.find_request(row.request_key, late + WINDOW) is None

    @pytest.mark.parametrize("state", [LedgerState.OPEN, LedgerState.PENDING, LedgerState.UNKNOWN, LedgerState.HELD])
    async def test_never_ends_before_there_is_an_answer(self, store: Store, state: LedgerState) -> None:
        row = await opened(store)
        await store.transition(transition(row, state))
        found = await store.find_request(row.request_key, NOW + 1000 * WINDOW)
        assert found is not None
        assert found.state is state
        late = ledger_row(request_key=row.request_key, created_at=NOW + 1000 * WINDOW)
        assert isinstance(await store.open(opening(late)), AlreadyOpen)

    async def test_after_it_the_same_request_is_new(self, store: Store) -> None:
        row, _ = await issued(store)
        later = ledger_row(request_key=row.request_key, created_at=NOW + 2 * WINDOW, updated_at=NOW + 2 * WINDOW)
        assert await store.open(opening(later)) == Opened(later)
        assert await store.find_request(row.request_key, NOW + 2 * WINDOW) == later
        assert await store.get_row(row.id) == row


class TestQuota:
    @pytest.mark.parametrize("limit", [pytest.param(1, id="one"), pytest.param(5, id="few"), pytest.param(300, id="in slots")])
    async def test_lets_exactly_the_limit_through(self, store: Store, limit: int) -> None:
        answers = [await store.open(opening(quotas=(QuotaTake("q", limit, 3600),))) for _ in range(min(limit, 5))]
        rest = await asyncio.gather(*(store.open(opening(quotas=(QuotaTake("q", limit, 3600),))) for _ in range(limit)))
        won = sum(isinstance(answer, Opened) for answer in (*answers, *rest))
        assert won == limit
        assert OpeningRefused(Reason.RATE_LIMITED) in rest

    async def test_small_one_slides_to_the_microsecond(self, store: Store) -> None:
        quota = (QuotaTake("q", 2, 60),)
        for at in (NOW, NOW + 30 * SECOND):
            assert isinstance(await store.open(opening(created_at=at, quotas=quota)), Opened)
        just_before = NOW + 60 * SECOND - timedelta(microseconds=1)
        assert await store.open(opening(created_at=just_before, quotas=quota)) == OpeningRefused(Reason.RATE_LIMITED)
        assert isinstance(await store.open(opening(created_at=NOW + 60 * SECOND, quotas=quota)), Opened)
        assert await store.open(opening(created_at=NOW + 61 * SECOND, quotas=quota)) == OpeningRefused(Reason.RATE_LIMITED)

    async def test_large_one_never_counts_a_use_too_short(self, store: Store) -> None:
        quota = (QuotaTake("q", 257, 64),)
        await asyncio.gather(*(store.open(opening(quotas=quota)) for _ in range(257)))
        assert await store.open(opening(created_at=NOW + 63 * SECOND, quotas=quota)) == OpeningRefused(Reason.RATE_LIMITED)
        assert isinstance(await store.open(opening(created_at=NOW + 65 * SECOND, quotas=quota)), Opened)

    async def test_keys_are_counted_apart(self, store: Store) -> None:
        assert isinstance(await store.open(opening(quotas=(QuotaTake("a", 1, 60),))), Opened)
        assert isinstance(await store.open(opening(quotas=(QuotaTake("b", 1, 60),))), Opened)

    async def test_one_refused_of_two_takes_neither(self, store: Store) -> None:
        await store.open(opening(quotas=(QuotaTake("full", 1, 60),)))
        both = (QuotaTake("free", 1, 60), QuotaTake("full", 1, 60))
        assert await store.open(opening(quotas=both)) == OpeningRefused(Reason.RATE_LIMITED)
        assert isinstance(await store.open(opening(quotas=(QuotaTake("free", 1, 60),))), Opened)


class TestRenewal:
    async def test_marks_the_old_certificate(self, store: Store) -> None:
        _, old = await issued(store)
        row = await opened(store, renews=old.sha256)
        found = await store.find_certificate(old.sha256)
        assert found is not None
        assert found.renewed_by == row.public_key_sha256

    async def test_by_the_same_key_may_be_repeated(self, store: Store) -> None:
        _, old = await issued(store)
        row = await opened(store, renews=old.sha256)
        assert await opened(store, renews=old.sha256, public_key_sha256=row.public_key_sha256)

    async def test_by_another_key_is_refused(self, store: Store) -> None:
        _, old = await issued(store)
        await opened(store, renews=old.sha256)
        assert await store.open(opening(renews=old.sha256)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_of_a_revoked_certificate_is_refused(self, store: Store) -> None:
        _, old = await issued(store)
        await store.mark_revoked(old.sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked", "done"))
        assert await store.open(opening(renews=old.sha256)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_of_a_compromised_key_is_refused_and_of_a_superseded_one_is_not(self, store: Store) -> None:
        for reason, answer in ((RevocationReason.KEY_COMPROMISE, OpeningRefused), (RevocationReason.SUPERSEDED, Opened)):
            _, old = await issued(store)
            await store.mark_revoked(old.sha256, NOW, reason, event("certificate.revoked", "done"))
            assert isinstance(await store.open(opening(public_key_sha256=old.public_key_sha256)), answer)

    async def test_of_an_unknown_certificate_is_refused(self, store: Store) -> None:
        assert await store.open(opening(renews=b"?" * 32)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_that_failed_lets_another_key_renew(self, store: Store) -> None:
        _, old = await issued(store)
        row = await opened(store, renews=old.sha256)
        await store.transition(transition(row, LedgerState.REJECTED, release=True))
        assert await opened(store, renews=old.sha256)

    async def test_that_failed_leaves_another_of_the_same_key_in_force(self, store: Store) -> None:
        _, old = await issued(store)
        first = await opened(store, renews=old.sha256)
        second = await opened(store, renews=old.sha256, public_key_sha256=first.public_key_sha256)
        await store.transition(transition(second, LedgerState.REJECTED, release=True))
        assert await store.open(opening(renews=old.sha256)) == OpeningRefused(Reason.RENEWAL_REFUSED)


HEIR = (reservation("certificate", RENEWAL, UNLIMITED_NOT_AFTER),)


class TestHeirs:
    """Renewals of certificates that are not in the inventory: a reservation says whose they are."""

    async def test_another_key_is_refused(self, store: Store) -> None:
        assert isinstance(await store.open(opening(ledger_row(), HEIR)), Opened)
        assert await store.open(opening(ledger_row(), HEIR)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_the_same_key_may_ask_again(self, store: Store) -> None:
        for _ in range(3):
            assert isinstance(await store.open(opening(ledger_row(public_key_sha256=b"n" * 32), HEIR)), Opened)
        assert await store.open(opening(ledger_row(), HEIR)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_the_same_request_is_already_open(self, store: Store) -> None:
        row = ledger_row()
        await store.open(opening(row, HEIR))
        again = ledger_row(request_key=row.request_key, public_key_sha256=row.public_key_sha256)
        assert await store.open(opening(again, HEIR)) == AlreadyOpen(row)

    async def test_a_failed_renewal_lets_another_key_renew(self, store: Store) -> None:
        row = ledger_row()
        await store.open(opening(row, HEIR))
        await store.transition(transition(row, LedgerState.REJECTED, release=True))
        assert isinstance(await store.open(opening(ledger_row(), HEIR)), Opened)

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
    async def test_the_last_failure_of_a_key_and_no_other_lets_another_key_renew(
        self, store: Store, order: tuple[int, ...]
    ) -> None:
        rows = [ledger_row(public_key_sha256=b"n" * 32) for _ in order]
        for row in rows:
            await store.open(opening(row, HEIR))
        for position in order:
            assert await store.open(opening(ledger_row(), HEIR)) == OpeningRefused(Reason.RENEWAL_REFUSED)
            await store.transition(transition(rows[position], LedgerState.REJECTED, release=True))
        assert isinstance(await store.open(opening(ledger_row(), HEIR)), Opened)

    async def test_a_failure_that_may_have_been_sent_gives_nothing_back(self, store: Store) -> None:
        row = ledger_row()
        await store.open(opening(row, HEIR))
        await store.transition(transition(row, LedgerState.REJECTED))
        assert await store.open(opening(ledger_row(), HEIR)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_certificates_whose_names_begin_alike_do_not_meet(self, store: Store) -> None:
        rows = [ledger_row(), ledger_row()]
        for row, name in zip(rows, ("certificate", "certificate2"), strict=True):
            await store.open(opening(row, (reservation(name, RENEWAL, UNLIMITED_NOT_AFTER),)))
        await store.transition(transition(rows[0], LedgerState.REJECTED, release=True))
        assert isinstance(await store.open(opening(ledger_row(), HEIR)), Opened)
        assert await store.open(opening(ledger_row(), (reservation("certificate2", RENEWAL),))) == OpeningRefused(
            Reason.RENEWAL_REFUSED
        )

    async def test_never_ends(self, store: Store) -> None:
        await store.open(opening(ledger_row(), HEIR))
        late = NOW + timedelta(days=10000)
        await store.expire(late)
        assert await store.open(opening(ledger_row(created_at=late), HEIR)) == OpeningRefused(Reason.RENEWAL_REFUSED)

    async def test_exactly_one_key_of_many_wins(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        answers = await asyncio.gather(*(stores[n % 2].open(opening(ledger_row(), HEIR)) for n in range(40)))
        assert sum(isinstance(answer, Opened) for answer in answers) == 1
        assert answers.count(OpeningRefused(Reason.RENEWAL_REFUSED)) == 39


class TestLookUps:
    async def test_transaction_is_found_by_the_key_that_opened_it_only(self, store: Store) -> None:
        row = await opened(store)
        assert await store.find_transaction(row.profile, "scep", row.transaction_id, b"other" * 6 + b"!!") is None
        assert await store.find_transaction(row.profile, "est", row.transaction_id, row.requester_key) is None

    async def test_newest_row_of_a_transaction(self, store: Store) -> None:
        first = await opened(store)
        second = await opened(store, transaction_id=first.transaction_id, created_at=NOW + SECOND)
        found = await store.find_transaction(first.profile, "scep", first.transaction_id, first.requester_key)
        assert found is not None
        assert found.id == second.id

    async def test_listing_is_newest_first_and_by_state_and_profile(self, store: Store) -> None:
        rows = [await opened(store, created_at=NOW + n * SECOND) for n in range(5)]
        other = await opened(store, profile="other", created_at=NOW + 9 * SECOND)
        await store.transition(transition(rows[0], LedgerState.PENDING))
        listed = await store.list_rows(frozenset({LedgerState.OPEN}), None, 10)
        assert [row.id for row in listed] == [other.id, *(row.id for row in reversed(rows[1:]))]
        assert [row.id for row in await store.list_rows(frozenset({LedgerState.OPEN}), rows[0].profile, 2, 1)] == [
            rows[3].id,
            rows[2].id,
        ]
        assert await store.list_rows(frozenset(), None, 10) == ()
        assert len(await store.list_rows(frozenset(LedgerState), None, 10)) == 6

    async def test_lapsed_rows(self, store: Store) -> None:
        lapsed = await opened(store)
        unknown = await opened(store)
        upstream = await opened(store)
        approval = await opened(store)
        done, _ = await issued(store)
        held = await opened(store, lease_until=LEASE + WINDOW)
        await store.transition(transition(unknown, LedgerState.UNKNOWN))
        await store.transition(
            transition(upstream, LedgerState.PENDING, waiting_for=WaitingFor.UPSTREAM, poll_at=NOW + 5 * SECOND, new_worker="")
        )
        await store.transition(transition(approval, LedgerState.PENDING, waiting_for=WaitingFor.APPROVAL))
        found = {row.id for row in await store.find_lapsed(LEASE, 10)}
        assert found == {lapsed.id, unknown.id, upstream.id}
        assert not found & {done.id, held.id, approval.id}
        assert len(await store.find_lapsed(LEASE, 2)) == 2
        assert [row.id for row in await store.find_lapsed(NOW + 5 * SECOND, 10)] == [upstream.id]

    async def test_a_row_that_a_worker_polls_is_no_others(self, store: Store) -> None:
        row = await opened(store)
        await store.transition(
            transition(row, LedgerState.PENDING, waiting_for=WaitingFor.UPSTREAM, poll_at=NOW, lease_until=LEASE, new_worker="w1")
        )
        assert await store.find_lapsed(LEASE - SECOND, 10) == ()
        assert [found.id for found in await store.find_lapsed(LEASE, 10)] == [row.id]


class TestLeases:
    async def test_are_extended_only_for_the_holder(self, store: Store) -> None:
        mine = await opened(store)
        theirs = await opened(store, worker="w2")
        until = LEASE + WINDOW
        await store.renew_leases("w1", [mine.id, theirs.id], until)
        assert await store.get_row(mine.id) == replace(mine, lease_until=until)
        assert await store.get_row(theirs.id) == theirs

    async def test_are_put_right_with_the_clock(self, store: Store) -> None:
        row = await opened(store, lease_until=LEASE + WINDOW)
        await store.renew_leases("w1", [row.id], LEASE)
        assert await store.get_row(row.id) == replace(row, lease_until=LEASE)

    async def test_of_a_clock_that_ran_ahead_has_lapsed_if_a_worker_holds_it(self, store: Store) -> None:
        held = await opened(store, lease_until=LEASE + WINDOW)
        polled = await opened(
            store,
            state=LedgerState.PENDING,
            waiting_for=WaitingFor.UPSTREAM,
            lease_until=LEASE + WINDOW,
            poll_at=LEASE + WINDOW,
        )
        await opened(store, lease_until=LEASE + WINDOW, worker="")
        await opened(store, lease_until=LEASE)
        assert {row.id for row in await store.find_lapsed(NOW, 10, LEASE)} == {held.id, polled.id}
        assert await store.find_lapsed(NOW, 10, LEASE + WINDOW) == ()

    @pytest.mark.parametrize(("sent", "state"), [(True, LedgerState.UNKNOWN), (False, LedgerState.OPEN)])
    async def test_take_over(self, store: Store, sent: bool, state: LedgerState) -> None:
        row = await opened(store, sent=sent)
        audit = event("enrollment.unknown", at=LEASE + SECOND)
        taken = await store.take_over(row.id, "w1", row.lease_until, "w2", LEASE + WINDOW, audit)
        assert taken is not None
        assert (taken.worker, taken.state, taken.lease_until) == ("w2", state, LEASE + WINDOW)
        assert audit_events(store) == ["enrollment.opened", "enrollment.unknown"]
        assert await store.transition(transition(row)) is None, "the old worker has lost it"

    async def test_only_one_takes_over(self, open_store: Open) -> None:
        stores = [await open_store("w2"), await open_store("w3")]
        row = await opened(stores[0])
        takes = [
            store.take_over(row.id, "w1", row.lease_until, f"w{n}", LEASE + WINDOW, event("enrollment.unknown"))
            for n, store in enumerate(stores * 5, start=2)
        ]
        assert sum(taken is not None for taken in await asyncio.gather(*takes)) == 1

    async def test_renewed_lease_is_not_taken_over(self, store: Store) -> None:
        row = await opened(store)
        await store.renew_leases("w1", [row.id], LEASE + WINDOW)
        assert await store.take_over(row.id, "w1", row.lease_until, "w2", LEASE + WINDOW, event()) is None

    async def test_finished_row_is_not_taken_over(self, store: Store) -> None:
        row, _ = await issued(store)
        assert await store.take_over(row.id, "w1", row.lease_until, "w2", LEASE + WINDOW, event()) is None
