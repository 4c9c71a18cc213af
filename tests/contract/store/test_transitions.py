"""Compare-and-swap of ledger rows, and what comes into the inventory by it, the same over every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import RequestId
from gateway.store.interfaces import LedgerState, Opened, OpeningRefused, QuotaTake, Store, WaitingFor
from tests.contract.store.rows import (
    CHAIN,
    LEASE,
    NOW,
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


async def test_delivers_the_certificate(store: Store) -> None:
    row = await opened(store)
    certificate = certificate_of(row)
    answer = await store.transition(transition(row, certificate=certificate, chain=CHAIN, upstream_reference="r"))
    expected = replace(
        row,
        state=LedgerState.DELIVERED,
        updated_at=NOW + SECOND,
        certificate=certificate.der,
        chain=CHAIN,
        upstream_reference="r",
    )
    assert answer == expected
    assert await store.get_row(row.id) == expected
    assert await store.find_request(row.request_key, NOW) == expected
    assert await store.find_certificate(certificate.sha256) == certificate
    assert audit_events(store) == ["enrollment.opened", "enrollment.issued"]


async def test_sets_what_is_given_and_leaves_the_rest(store: Store) -> None:
    row = await opened(store)
    change = transition(
        row,
        LedgerState.PENDING,
        new_worker="w9",
        lease_until=LEASE + SECOND,
        waiting_for=WaitingFor.UPSTREAM,
        poll_at=NOW + 5 * SECOND,
        sent=True,
        attempts=4,
        serial=77,
        upstream_reference="ref",
        reason=Reason.UPSTREAM_UNAVAILABLE,
        detail="later",
    )
    first = await store.transition(change)
    assert first == replace(
        row,
        state=LedgerState.PENDING,
        worker="w9",
        lease_until=LEASE + SECOND,
        waiting_for=WaitingFor.UPSTREAM,
        poll_at=NOW + 5 * SECOND,
        sent=True,
        attempts=4,
        serial=77,
        upstream_reference="ref",
        reason=Reason.UPSTREAM_UNAVAILABLE,
        detail="later",
        updated_at=NOW + SECOND,
    )
    assert first is not None
    second = await store.transition(
        transition(first, LedgerState.OPEN, expected=frozenset({LedgerState.PENDING}), at=NOW + 2 * SECOND)
    )
    assert second == replace(first, state=LedgerState.OPEN, updated_at=NOW + 2 * SECOND)
    assert await store.get_row(row.id) == second


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"expected": frozenset({LedgerState.PENDING})}, id="another state"),
        pytest.param({"expected": frozenset()}, id="no state"),
        pytest.param({"worker": "w2"}, id="another worker"),
        pytest.param({"id": RequestId("nothing")}, id="no such row"),
    ],
)
async def test_unexpected_row_changes_nothing(store: Store, fields: dict[str, Any]) -> None:
    row = await opened(store)
    certificate = certificate_of(row)
    assert await store.transition(transition(row, certificate=certificate, chain=CHAIN, **fields)) is None
    assert await store.get_row(row.id) == row
    assert await store.find_certificate(certificate.sha256) is None
    assert audit_events(store) == ["enrollment.opened"]


async def test_operator_needs_no_lease(store: Store) -> None:
    row = await opened(store)
    assert await store.transition(transition(row, LedgerState.REJECTED, worker=None)) is not None


async def test_certificate_and_chain_stay_with_the_row(store: Store) -> None:
    row, certificate = await issued(store)
    change = transition(row, LedgerState.CONFIRMED, expected=frozenset({LedgerState.DELIVERED}))
    confirmed = await store.transition(change)
    assert confirmed is not None
    assert (confirmed.certificate, confirmed.chain) == (certificate.der, CHAIN)


async def test_certificate_may_come_before_its_chain(store: Store) -> None:
    row = await opened(store)
    certificate = certificate_of(row)
    held = await store.transition(transition(row, LedgerState.ISSUED, certificate=certificate))
    assert held is not None
    assert (held.certificate, held.chain) == (certificate.der, ())
    change = transition(row, LedgerState.DELIVERED, expected=frozenset({LedgerState.ISSUED}), chain=CHAIN)
    delivered = await store.transition(change)
    assert delivered is not None
    assert (delivered.certificate, delivered.chain) == (certificate.der, CHAIN)


async def test_same_certificate_again_changes_nothing(store: Store) -> None:
    row, certificate = await issued(store)
    again = transition(row, LedgerState.CONFIRMED, expected=frozenset({LedgerState.DELIVERED}), certificate=certificate)
    assert await store.transition(again) is not None
    assert await store.find_certificate(certificate.sha256) == certificate


class TestForeignCertificate:
    async def check_refused(self, store: Store, change: object, row: object) -> None:
        events = audit_events(store)
        with pytest.raises(Rejection) as refused:
            await store.transition(change)  # type: ignore[arg-type]
        assert refused.value.reason is Reason.UPSTREAM_MISMATCH
        assert await store.get_row(row.id) == row  # type: ignore[attr-defined]
        assert audit_events(store) == events

    async def test_of_another_request_is_never_taken(self, store: Store) -> None:
        _, theirs = await issued(store)
        row = await opened(store)
        await self.check_refused(store, transition(row, certificate=theirs, chain=CHAIN), row)
        assert await store.find_certificate(theirs.sha256) == theirs

    async def test_with_the_serial_of_another_is_never_taken(self, store: Store) -> None:
        _, theirs = await issued(store)
        row = await opened(store)
        await self.check_refused(store, transition(row, certificate=certificate_of(row, serial=theirs.serial)), row)

    async def test_second_one_for_a_request_is_never_taken(self, store: Store) -> None:
        row, first = await issued(store)
        second = certificate_of(row, serial=5)
        change = transition(row, LedgerState.DELIVERED, expected=frozenset({LedgerState.DELIVERED}), certificate=second)
        await self.check_refused(store, change, row)
        assert await store.find_certificate(first.sha256) == first
        assert await store.find_certificate(second.sha256) is None

    async def test_same_serial_of_another_ca_is_no_conflict(self, store: Store) -> None:
        _, theirs = await issued(store)
        row = await opened(store, upstream_ca="other")
        assert await store.transition(transition(row, certificate=certificate_of(row, serial=theirs.serial))) is not None


class TestRelease:
    async def test_gives_challenge_quota_and_request_key_back(self, store: Store) -> None:
        await store.add_challenge(challenge(), event("challenge.created", "done"))
        quota = (QuotaTake("q", 1, 3600),)
        row = ledger_row()
        await store.open(opening(row, (reservation(),), quota))
        refused = await store.transition(transition(row, LedgerState.REJECTED, release=True, reason=Reason.UPSTREAM_REJECTED))
        assert refused is not None
        assert refused.state is LedgerState.REJECTED
        assert await store.find_request(row.request_key, NOW) is None
        found = await store.find_challenge(challenge().mac)
        assert found is not None
        assert found.used_by is None
        again = ledger_row(request_key=row.request_key)
        assert await store.open(opening(again, (reservation(),), quota)) == Opened(again)

    async def test_without_it_everything_stays_taken(self, store: Store) -> None:
        quota = (QuotaTake("q", 1, 3600),)
        row = ledger_row()
        await store.open(opening(row, (reservation(),), quota))
        refused = await store.transition(transition(row, LedgerState.REJECTED))
        assert await store.find_request(row.request_key, NOW) == refused
        assert await store.open(opening(ledger_row(), (reservation(),))) == OpeningRefused(Reason.CREDENTIAL_USED)
        assert await store.open(opening(ledger_row(), (), quota)) == OpeningRefused(Reason.RATE_LIMITED)

    async def test_twice_gives_back_once(self, store: Store) -> None:
        quota = (QuotaTake("q", 2, 3600),)
        row, other = ledger_row(), ledger_row()
        await store.open(opening(row, (), quota))
        await store.open(opening(other, (), quota))
        rejected = frozenset({LedgerState.OPEN, LedgerState.REJECTED})
        for _ in range(2):
            await store.transition(transition(row, LedgerState.REJECTED, expected=rejected, release=True))
        assert isinstance(await store.open(opening(ledger_row(), (), quota)), Opened)
        assert await store.open(opening(ledger_row(), (), quota)) == OpeningRefused(Reason.RATE_LIMITED)

    async def test_leaves_what_another_request_took(self, store: Store) -> None:
        row, other = ledger_row(), ledger_row()
        await store.open(opening(row, (reservation("c1"),)))
        await store.open(opening(other, (reservation("c2"),)))
        await store.transition(transition(row, LedgerState.REJECTED, release=True))
        assert await store.open(opening(ledger_row(), (reservation("c2"),))) == OpeningRefused(Reason.CREDENTIAL_USED)
        assert await store.find_request(other.request_key, NOW) == other
