"""A request that gets another certificate in place of its first one keeps what it had reserved, the same over every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.errors import Reason
from gateway.model import Reservation, RevocationReason
from gateway.store.interfaces import (
    DIGEST,
    AlreadyOpen,
    InventoryRow,
    LedgerRow,
    LedgerState,
    Opened,
    Opening,
    OpeningRefused,
    QuotaTake,
    Store,
)
from tests.contract.store.rows import (
    NOW,
    WINDOW,
    certificate_of,
    event,
    issued,
    ledger_row,
    opening,
    reservation,
    transition,
)

ONE = QuotaTake("device", 1, 60)
TWO = QuotaTake("device", 2, 60)
FULL = QuotaTake("device", 0, 60)


async def delivered(
    store: Store, *taken: Reservation, confirmed: bool = False, quotas: tuple[QuotaTake, ...] = ()
) -> tuple[LedgerRow, InventoryRow]:
    """A row that took a one-time challenge, or what is said, and its certificate."""
    row = ledger_row(operation="serverkeygen")
    assert await store.open(opening(row, taken or (reservation(),), quotas)) == Opened(row)
    certificate = certificate_of(row)
    state = LedgerState.CONFIRMED if confirmed else LedgerState.DELIVERED
    assert await store.transition(transition(row, state, certificate=certificate))
    return row, certificate


async def revoke(store: Store, certificate: InventoryRow, reason: RevocationReason = RevocationReason.SUPERSEDED) -> None:
    assert await store.mark_revoked(certificate.sha256, NOW, reason, event("certificate.revoked"))


def heir(first: LedgerRow, *taken: Reservation, quotas: tuple[QuotaTake, ...] = ()) -> Opening:
    """The same request again."""
    row = ledger_row(operation="serverkeygen", request_key=first.request_key)
    return replace(opening(row, taken or (reservation(),), quotas), supersedes=first.id)


async def answering(store: Store, row: LedgerRow) -> str | None:
    """Which row answers for a request."""
    found = await store.find_request(row.request_key, NOW)
    return None if found is None else found.id


async def give_back(store: Store, row: LedgerRow) -> None:
    assert await store.transition(transition(row, LedgerState.REJECTED, release=True))


@pytest.mark.parametrize("confirmed", [False, True])
async def test_the_same_request_inherits_what_it_had_reserved(store: Store, confirmed: bool) -> None:
    first, certificate = await delivered(store, confirmed=confirmed)
    asked = heir(first)
    assert await store.foresee(asked) is None
    assert await store.open(asked) == Opened(asked.row)
    assert await answering(store, first) == asked.row.id
    before = await store.get_row(first.id)
    assert before is not None
    assert before.state is (LedgerState.CONFIRMED if confirmed else LedgerState.DELIVERED), "it is good until it is revoked"
    await revoke(store, certificate)
    assert await answering(store, first) == asked.row.id


async def test_of_two_heirs_one_is_the_first(store: Store) -> None:
    first, _ = await delivered(store)
    one, other = heir(first), heir(first)
    assert await store.open(one) == Opened(one.row)
    assert await store.foresee(other) is None, "the same request is no refusal"
    assert await store.open(other) == AlreadyOpen(one.row)


async def test_an_heir_has_heirs(store: Store) -> None:
    first, certificate = await delivered(store)
    second = heir(first)
    await store.open(second)
    await revoke(store, certificate)
    delivered_again = certificate_of(second.row)
    assert await store.transition(transition(second.row, certificate=delivered_again))
    third = heir(second.row)
    assert await store.open(third) == Opened(third.row)
    await give_back(store, third.row)
    assert await answering(store, first) == second.row.id
    again = heir(second.row)
    assert await store.open(again) == Opened(again.row)


async def test_what_is_given_back_goes_to_the_first_while_it_is_good(store: Store) -> None:
    first, _ = await delivered(store, quotas=(TWO,))
    asked = heir(first, quotas=(TWO,))
    assert await store.open(asked) == Opened(asked.row)
    await give_back(store, asked.row)
    assert await answering(store, first) == first.id
    assert await store.open(opening(ledger_row(), (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_USED)
    again = heir(first, quotas=(TWO,))
    assert await store.open(again) == Opened(again.row), "challenge, request key and quota are as they were"


async def test_what_is_given_back_is_free_once_the_first_was_superseded(store: Store) -> None:
    first, certificate = await delivered(store)
    asked = heir(first)
    await store.open(asked)
    await revoke(store, certificate)
    await give_back(store, asked.row)
    assert await answering(store, first) is None
    other = opening(ledger_row(), (reservation(),))
    assert await store.open(other) == Opened(other.row)


async def test_what_is_given_back_is_nobodys_where_somebody_else_revoked_the_first(store: Store) -> None:
    first, certificate = await delivered(store)
    asked = heir(first)
    await store.open(asked)
    await revoke(store, certificate, RevocationReason.CESSATION_OF_OPERATION)
    await give_back(store, asked.row)
    assert await answering(store, first) is None
    for again in (heir(first), opening(ledger_row(), (reservation(),))):
        assert await store.open(again) == OpeningRefused(Reason.CREDENTIAL_USED)


async def test_what_is_refused_inherits_nothing(store: Store) -> None:
    first, _ = await delivered(store)
    asked = heir(first, quotas=(FULL,))
    assert await store.open(asked) == OpeningRefused(Reason.RATE_LIMITED)
    assert await answering(store, first) == first.id
    assert await store.open(opening(ledger_row(), (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_USED)
    assert await store.open(replace(asked, quotas=())) == Opened(asked.row)


@pytest.mark.parametrize("case", ["not named", "another request", "revoked", "superseded", "no such row", "another row"])
async def test_nobody_else_inherits(store: Store, case: str) -> None:
    first, certificate = await delivered(store)
    if case in {"revoked", "superseded"}:
        await revoke(store, certificate, RevocationReason.SUPERSEDED if case == "superseded" else RevocationReason.UNSPECIFIED)
    other, _ = await issued(store)
    second = ledger_row() if case == "another request" else ledger_row(request_key=first.request_key)
    named = {"not named": None, "no such row": ledger_row().id, "another row": other.id}.get(case, first.id)
    asked = replace(opening(second, (reservation(),)), supersedes=named)
    answer = await store.open(asked)
    assert answer == OpeningRefused(Reason.CREDENTIAL_USED) or (
        isinstance(answer, AlreadyOpen) and answer.row.id == first.id and case in {"not named", "no such row", "another row"}
    )
    assert await store.get_row(second.id) is None


@pytest.mark.parametrize("state", [LedgerState.OPEN, LedgerState.UNKNOWN, LedgerState.REJECTED])
async def test_a_row_without_a_certificate_is_not_superseded(store: Store, state: LedgerState) -> None:
    first = ledger_row()
    await store.open(opening(first, (reservation(),)))
    if state is not LedgerState.OPEN:
        assert await store.transition(transition(first, state))
    answer = await store.open(heir(first))
    assert isinstance(answer, AlreadyOpen)
    assert answer.row.id == first.id


async def test_one_sending_is_no_second_one(store: Store) -> None:
    """A response of HTTP Digest that somebody read along with its request draws no key."""
    sending, fresh = reservation("nonce:1", DIGEST), reservation("nonce:2", DIGEST)
    first, certificate = await delivered(store, sending)
    replayed = heir(first, sending)
    assert await store.foresee(replayed) is Reason.CREDENTIAL_USED
    assert await store.open(replayed) == OpeningRefused(Reason.CREDENTIAL_USED)
    asked = heir(first, fresh)
    assert await store.foresee(asked) is None
    assert await store.open(asked) == Opened(asked.row)
    await revoke(store, certificate)
    assert await store.foresee(opening(ledger_row(), (sending,))) is Reason.CREDENTIAL_USED


class TestForeseeing:
    async def test_takes_nothing(self, store: Store) -> None:
        asked = opening(ledger_row(), (reservation(),), (ONE,))
        assert [await store.foresee(asked) for _ in range(2)] == [None, None]
        assert await store.open(asked) == Opened(asked.row)

    async def test_of_a_reservation(self, store: Store) -> None:
        await delivered(store)
        assert await store.foresee(opening(ledger_row(), (reservation(),))) is Reason.CREDENTIAL_USED
        assert await store.foresee(opening(ledger_row(), (reservation("another"),))) is None
        assert await store.foresee(opening(ledger_row(), (reservation("free"), reservation()))) is Reason.CREDENTIAL_USED

    async def test_of_a_quota_says_what_opening_does(self, store: Store) -> None:
        await delivered(store, quotas=(TWO, QuotaTake("other", 1, 10)))
        for later, quota, full in (
            (0, TWO, False),
            (0, QuotaTake("other", 1, 10), True),
            (9, QuotaTake("other", 1, 10), True),
            (10, QuotaTake("other", 1, 10), False),
            (0, QuotaTake("third", 1, 10), False),
        ):
            asked = opening(ledger_row(created_at=NOW + timedelta(seconds=later)), (), (TWO, quota))
            assert await store.foresee(asked) is (Reason.RATE_LIMITED if full else None), (later, quota)
        await store.open(opening(quotas=(TWO,)))
        asked = opening(quotas=(QuotaTake("third", 1, 10), TWO))
        assert await store.foresee(asked) is Reason.RATE_LIMITED
        assert await store.open(asked) == OpeningRefused(Reason.RATE_LIMITED)

    async def test_of_the_same_request_is_left_to_opening(self, store: Store) -> None:
        first, _ = await delivered(store)
        same = opening(ledger_row(request_key=first.request_key), (reservation(),), (FULL,))
        assert await store.foresee(same) is None
        late = opening(ledger_row(request_key=first.request_key, created_at=NOW + 2 * WINDOW), (reservation(),))
        assert await store.foresee(late) is Reason.CREDENTIAL_USED, "it does not answer any more"
