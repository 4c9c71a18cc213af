"""What the store keeps for CMP, the same over every store: secrets, transactions, certificates that wait to be confirmed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.cmp import SharedSecret
from gateway.errors import Reason
from gateway.model import NameBinding, ProfileName, Reservation, RevocationReason, SanKind
from gateway.store.interfaces import (
    TRANSACTION,
    AlreadyOpen,
    LedgerRow,
    LedgerState,
    Opened,
    OpeningRefused,
    QuotaTake,
    Store,
)
from gateway.store.keys import KeyRing
from tests.contract.store.cmp_rows import shared_secret
from tests.contract.store.conftest import Open
from tests.contract.store.rows import (
    NOW,
    PROFILE,
    audit_events,
    certificate_of,
    event,
    issued,
    ledger_row,
    opened,
    opening,
    pending_revocation,
    transition,
)

OTHER = ProfileName("other")
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
CREATED = event("cmp_secret.created", "done", actor="uid:0 (root)")
ENDED = event("cmp_secret.revoked", "done", actor="uid:0 (root)")
TIMED_OUT = event("certificate.revoked", "done", actor="w1", at=NOW + DAY)
KEPT = event("enrollment.unconfirmed", "done", actor="w1", at=NOW + DAY)
BOUND = NameBinding(
    subject="CN=device",
    sans=frozenset({(SanKind.DNS, "a.example"), (SanKind.IP, "192.0.2.1")}),
    common_name="device",
    san_kinds=frozenset({SanKind.DNS, SanKind.IP}),
    serial_number="",
    allowed_sans=frozenset(),
    certified=True,
)


async def added(store: Store, **fields: Any) -> SharedSecret:
    row = shared_secret(**fields)
    assert await store.add_secret(row, CREATED)
    return row


class TestSecrets:
    @pytest.mark.parametrize("binding", [NameBinding(), BOUND], ids=["unbound", "bound in every way"])
    async def test_are_found_by_profile_and_reference(self, store: Store, binding: NameBinding) -> None:
        row = await added(store, binding=binding, owner="fleet", max_uses=5, reference=bytes(range(256)))
        assert await store.find_secret(PROFILE, row.reference) == row
        assert await store.find_secret(OTHER, row.reference) is None
        assert await store.find_secret(PROFILE, row.reference + b"\0") is None
        assert audit_events(store) == ["cmp_secret.created"]

    async def test_one_that_there_is_not_takes_the_work_of_one_that_there_is(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row, opened_sizes = await added(store), []
        decrypt = KeyRing.decrypt

        def counting(self: KeyRing, purpose: str, sealed: bytes) -> bytes:
            opened_sizes.append((purpose, len(sealed)))
            return decrypt(self, purpose, sealed)

        monkeypatch.setattr(KeyRing, "decrypt", counting)
        assert await store.find_secret(PROFILE, row.reference) == row
        assert await store.find_secret(PROFILE, b"nobody's") is None
        [(known, _), (unknown, _)] = opened_sizes
        assert known == unknown

    async def test_of_a_reference_in_force_there_is_one(self, store: Store) -> None:
        row = await added(store)
        assert not await store.add_secret(shared_secret(reference=row.reference), CREATED)
        assert await added(store, reference=row.reference, profile=OTHER) != row
        assert await store.find_secret(PROFILE, row.reference) == row
        assert audit_events(store) == ["cmp_secret.created"] * 2

    async def test_of_a_reference_is_one_whoever_asks_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        rows = [shared_secret(reference=b"same") for _ in range(10)]
        done = await asyncio.gather(*(stores[n % 2].add_secret(row, CREATED) for n, row in enumerate(rows)))
        assert sum(done) == 1
        assert audit_events(stores[0]) == ["cmp_secret.created"]

    @pytest.mark.parametrize("end", ["revoked", "expired"])
    async def test_that_ended_may_be_replaced_and_the_newest_is_found(self, store: Store, end: str) -> None:
        old = await added(store, expires_at=NOW + MINUTE)
        if end == "revoked":
            assert await store.revoke_secret(old.id, NOW, ENDED)
        later = NOW if end == "revoked" else NOW + MINUTE
        new = await added(store, reference=old.reference, created_at=later, id=f"{old.id}-new")
        assert await store.find_secret(PROFILE, old.reference) == new

    async def test_that_ended_are_still_found(self, store: Store) -> None:
        row = await added(store)
        assert await store.revoke_secret(row.id, NOW + MINUTE, ENDED)
        assert await store.find_secret(PROFILE, row.reference) == replace(row, revoked_at=NOW + MINUTE)

    @pytest.mark.parametrize(
        ("revoked", "at"),
        [pytest.param(True, NOW, id="revoked"), pytest.param(False, NOW + DAY, id="expired")],
    )
    async def test_that_ended_are_not_revoked_again(self, store: Store, revoked: bool, at: Any) -> None:
        row = await added(store)
        if revoked:
            await store.revoke_secret(row.id, NOW, ENDED)
        before = audit_events(store)
        assert not await store.revoke_secret(row.id, at, ENDED)
        assert not await store.revoke_secret("?", NOW, ENDED)
        assert audit_events(store) == before

    async def test_in_force_are_listed_newest_first_without_what_is_secret(self, store: Store) -> None:
        rows = [await added(store, created_at=NOW + number * MINUTE) for number in range(3)]
        other = await added(store, created_at=NOW - DAY, profile=OTHER)
        gone = await added(store)
        await store.revoke_secret(gone.id, NOW, ENDED)
        await added(store, expires_at=NOW)
        shown = [replace(row, secret=b"") for row in (*reversed(rows), other)]
        assert list(await store.list_secrets(None, NOW, 10)) == shown
        assert list(await store.list_secrets(None, NOW, 2)) == shown[:2]
        assert list(await store.list_secrets("other", NOW, 10)) == shown[3:]

    async def test_are_listed_with_their_uses(self, store: Store) -> None:
        single = await added(store)
        several = await added(store, max_uses=5, created_at=NOW - MINUTE)
        fresh = await added(store, max_uses=5, created_at=NOW - 2 * MINUTE)
        await opened(store, reservations=(Reservation("cmp_secret", single.id, single.expires_at),))
        for _ in range(3):
            await opened(store, quotas=(QuotaTake(f"cmp_secret:{several.id}", 5, 86400),))
        assert [(row.id, row.uses) for row in await store.list_secrets(None, NOW, 10)] == [
            (single.id, 1),
            (several.id, 3),
            (fresh.id, 0),
        ]

    async def test_that_were_revoked_meanwhile_open_nothing(self, store: Store) -> None:
        row = await added(store)
        await opened(store, requester=f"cmp_secret:{row.id}")
        await store.revoke_secret(row.id, NOW, ENDED)
        refused = await store.open(opening(requester=f"cmp_secret:{row.id}"))
        assert refused == OpeningRefused(Reason.CREDENTIAL_REVOKED)

    async def test_are_forgotten_a_day_after_they_expired_and_their_use_with_them(self, store: Store) -> None:
        row = await added(store)
        taken = Reservation("cmp_secret", row.id, row.expires_at)
        await opened(store, reservations=(taken,))
        await store.expire(row.expires_at + DAY - MINUTE)
        assert await store.find_secret(PROFILE, row.reference) == row
        assert await store.open(opening(reservations=(taken,))) == OpeningRefused(Reason.CREDENTIAL_USED)
        await store.expire(row.expires_at + DAY)
        assert await store.find_secret(PROFILE, row.reference) is None
        assert (await store.tally(("cmp_secret",))).reserved == {"cmp_secret": 0}


class TestTransactions:
    TAKEN = Reservation(TRANSACTION, "aa" * 32, NOW + MONTH)

    async def test_serve_one_request(self, store: Store) -> None:
        await opened(store, reservations=(self.TAKEN,))
        second = opening(reservations=(self.TAKEN,))
        assert await store.foresee(second) is Reason.TRANSACTION_IN_USE
        assert await store.open(second) == OpeningRefused(Reason.TRANSACTION_IN_USE)
        assert await store.get_row(second.row.id) is None

    async def test_of_the_same_request_are_its_row(self, store: Store) -> None:
        row = await opened(store, reservations=(self.TAKEN,))
        again = opening(ledger_row(request_key=row.request_key), (self.TAKEN,))
        assert await store.foresee(again) is None
        assert await store.open(again) == AlreadyOpen(row)

    async def test_of_the_same_request_are_in_use_when_its_window_is_over(self, store: Store) -> None:
        row, _ = await issued(store, reservations=(self.TAKEN,))
        late = ledger_row(request_key=row.request_key, created_at=NOW + DAY)
        assert await store.open(opening(late, (self.TAKEN,))) == OpeningRefused(Reason.TRANSACTION_IN_USE)

    async def test_of_a_refused_request_are_free(self, store: Store) -> None:
        row = await opened(store, reservations=(self.TAKEN,))
        await store.transition(transition(row, LedgerState.REJECTED, release=True))
        assert isinstance(await store.open(opening(reservations=(self.TAKEN,))), Opened)

    async def test_are_taken_by_themselves_once(self, store: Store) -> None:
        assert await store.take(self.TAKEN, NOW)
        assert not await store.take(self.TAKEN, NOW)
        assert await store.take(replace(self.TAKEN, key="bb" * 32), NOW)
        assert await store.open(opening(reservations=(self.TAKEN,))) == OpeningRefused(Reason.TRANSACTION_IN_USE)

    async def test_of_a_request_are_taken(self, store: Store) -> None:
        await opened(store, reservations=(self.TAKEN,))
        assert not await store.take(self.TAKEN, NOW)

    async def test_are_taken_once_whoever_asks_at_once(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        done = await asyncio.gather(*(stores[n % 2].take(self.TAKEN, NOW) for n in range(10)))
        assert sum(done) == 1

    async def test_that_ran_out_long_ago_may_be_taken_again(self, store: Store) -> None:
        await store.take(self.TAKEN, NOW)
        assert not await store.take(self.TAKEN, self.TAKEN.expires_at + DAY - MINUTE)
        assert await store.take(self.TAKEN, self.TAKEN.expires_at + DAY)


async def delivered(store: Store, **fields: Any) -> LedgerRow:
    """A certificate that its client has not confirmed yet."""
    row, _ = await issued(store, **({"confirm_by": NOW + 10 * MINUTE} | fields))
    return row


class TestConfirmation:
    async def test_deadline_is_kept_with_the_row(self, store: Store) -> None:
        row = await opened(store, confirm_by=NOW + 10 * MINUTE)
        assert row.confirm_by == NOW + 10 * MINUTE
        assert await store.get_row(row.id) == row
        done = await store.transition(transition(row, certificate=certificate_of(row), chain=(b"ca",), opened=row))
        assert done is not None
        assert done.confirm_by == NOW + 10 * MINUTE
        assert await store.get_row(row.id) == done

    async def test_deadline_may_move_when_the_certificate_comes(self, store: Store) -> None:
        row = await opened(store, confirm_by=NOW + 10 * MINUTE)
        later = transition(row, certificate=certificate_of(row), chain=(b"ca",), opened=row, confirm_by=NOW + DAY)
        done = await store.transition(later)
        assert done is not None
        assert done.confirm_by == NOW + DAY
        assert await store.get_row(row.id) == done

    async def test_finds_those_that_are_over_the_oldest_first(self, store: Store) -> None:
        second = await delivered(store, confirm_by=NOW + 2 * MINUTE)
        first = await delivered(store, confirm_by=NOW + MINUTE)
        await delivered(store, confirm_by=NOW + DAY)
        await delivered(store, confirm_by=None)
        await opened(store, confirm_by=NOW + MINUTE)
        assert await store.find_unconfirmed(NOW, 10) == ()
        assert await store.find_unconfirmed(NOW + 2 * MINUTE, 10) == (first, second)
        assert await store.find_unconfirmed(NOW + 2 * MINUTE, 1) == (first,)

    async def test_is_counted_until_it_came(self, store: Store) -> None:
        await opened(store, confirm_by=NOW + MINUTE)
        rows = [await delivered(store) for _ in range(3)]
        assert (await store.tally(())).confirmation == 3
        await store.end_confirmation(rows[0], KEPT)
        assert (await store.tally(())).confirmation == 2

    @pytest.mark.parametrize("read_before", [False, True])
    async def test_ends_the_wait(self, store: Store, read_before: bool) -> None:
        row = await delivered(store)
        confirmed = transition(row, LedgerState.CONFIRMED, expected=frozenset({LedgerState.DELIVERED}), worker=None)
        confirmed = replace(confirmed, opened=row if read_before else None)
        done = await store.transition(confirmed)
        assert done is not None
        assert done.confirm_by is None
        assert await store.get_row(row.id) == done
        assert await store.find_unconfirmed(NOW + DAY, 10) == ()
        assert not await store.end_confirmation(row, KEPT)
        assert not await store.revoke_unconfirmed(row, NOW + DAY, RevocationReason.CESSATION_OF_OPERATION, TIMED_OUT, None)
        assert audit_events(store)[2:] == ["enrollment.issued"]

    async def test_that_never_came_may_keep_the_certificate(self, store: Store) -> None:
        row = await delivered(store)
        assert await store.end_confirmation(row, KEPT)
        assert not await store.end_confirmation(row, KEPT)
        kept = await store.get_row(row.id)
        assert kept == replace(row, confirm_by=None, updated_at=KEPT.at)
        assert audit_events(store)[2:] == ["enrollment.unconfirmed"]

    async def test_that_never_came_may_cost_the_certificate(self, store: Store) -> None:
        row, certificate = await issued(store, confirm_by=NOW + MINUTE)
        pending = pending_revocation(sha256=certificate.sha256)
        reason = RevocationReason.CESSATION_OF_OPERATION
        assert await store.revoke_unconfirmed(row, NOW + DAY, reason, TIMED_OUT, pending)
        assert not await store.revoke_unconfirmed(row, NOW + DAY, reason, TIMED_OUT, pending)
        found, held = await store.get_row(row.id), await store.find_certificate(certificate.sha256)
        assert found is not None
        assert found.state is LedgerState.REVOKED
        assert held == replace(certificate, revoked_at=NOW + DAY, revocation_reason=reason)
        assert await store.find_revocation(certificate.sha256) == pending
        assert await store.find_unconfirmed(NOW + DAY, 10) == ()
        assert audit_events(store)[2:] == ["certificate.revoked"]

    async def test_costs_a_certificate_that_somebody_revoked_nothing_more(self, store: Store) -> None:
        row, certificate = await issued(store, confirm_by=NOW + MINUTE)
        await store.mark_revoked(certificate.sha256, NOW, RevocationReason.KEY_COMPROMISE, TIMED_OUT)
        assert await store.find_unconfirmed(NOW + DAY, 10) == ()
        assert not await store.revoke_unconfirmed(row, NOW + DAY, RevocationReason.SUPERSEDED, TIMED_OUT, None)
        held = await store.find_certificate(certificate.sha256)
        assert held is not None
        assert held.revocation_reason is RevocationReason.KEY_COMPROMISE

    async def test_is_ended_by_one_of_many(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        row = await delivered(stores[0])
        reason = RevocationReason.CESSATION_OF_OPERATION
        done = await asyncio.gather(*(store.revoke_unconfirmed(row, NOW + DAY, reason, TIMED_OUT, None) for store in stores))
        assert sorted(done) == [False, True]

    async def test_that_never_came_lets_another_key_renew(self, store: Store) -> None:
        _, old = await issued(store)

        def heir(key: bytes) -> Any:
            held = (Reservation("renewal", old.sha256.hex(), NOW + MONTH),)
            row = ledger_row(renews=old.sha256, public_key_sha256=key * 32, confirm_by=NOW + MINUTE)
            return opening(row, held)

        for key in (b"1", b"2", b"3"):
            first = await store.open(heir(key))
            assert isinstance(first, Opened)
            done = await store.transition(transition(first.row, certificate=certificate_of(first.row), chain=(b"ca",)))
            assert done is not None
            assert await store.open(heir(b"x")) == OpeningRefused(Reason.RENEWAL_REFUSED)
            assert await store.revoke_unconfirmed(done, NOW + DAY, RevocationReason.SUPERSEDED, TIMED_OUT, None)
        held = await store.find_certificate(old.sha256)
        assert held is not None
        assert held.renewed_by is None

    async def test_that_never_came_leaves_the_renewal_to_who_shares_it(self, store: Store) -> None:
        _, old = await issued(store)
        held = (Reservation("renewal", old.sha256.hex(), NOW + MONTH),)
        rows = []
        for _ in range(2):
            row = ledger_row(renews=old.sha256, public_key_sha256=b"1" * 32, confirm_by=NOW + MINUTE)
            assert isinstance(await store.open(opening(row, held)), Opened)
            done = await store.transition(transition(row, certificate=certificate_of(row), chain=(b"ca",)))
            assert done is not None
            rows.append(done)
        assert await store.revoke_unconfirmed(rows[0], NOW + DAY, RevocationReason.SUPERSEDED, TIMED_OUT, None)
        stranger = ledger_row(renews=old.sha256, public_key_sha256=b"2" * 32)
        assert await store.open(opening(stranger, held)) == OpeningRefused(Reason.RENEWAL_REFUSED)
        kept = await store.find_certificate(old.sha256)
        assert kept is not None
        assert kept.renewed_by == b"1" * 32


class TestHold:
    HOLD = RevocationReason.CERTIFICATE_HOLD
    REVIVED = event("certificate.revived", "done", actor="ra", at=NOW + DAY)

    async def test_is_taken_off(self, store: Store) -> None:
        row, certificate = await issued(store, confirm_by=NOW + MINUTE)
        await store.mark_revoked(certificate.sha256, NOW, self.HOLD, TIMED_OUT)
        before = await store.count_revocations(certificate.upstream_ca)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) == certificate
        assert await store.find_certificate(certificate.sha256) == certificate
        assert await store.list_revoked(certificate.upstream_ca, NOW) == ()
        assert await store.count_revocations(certificate.upstream_ca) == before + 1
        found = await store.get_row(row.id)
        assert found == replace(row, confirm_by=None, updated_at=NOW + DAY)
        assert audit_events(store)[-1] == "certificate.revived"

    async def test_is_taken_off_once(self, store: Store) -> None:
        _, certificate = await issued(store)
        await store.mark_revoked(certificate.sha256, NOW, self.HOLD, TIMED_OUT)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) == certificate
        before = audit_events(store)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) is None
        assert audit_events(store) == before

    @pytest.mark.parametrize(
        "reason", [reason for reason in RevocationReason if reason is not RevocationReason.CERTIFICATE_HOLD], ids=str
    )
    async def test_is_all_that_is_taken_off(self, store: Store, reason: RevocationReason) -> None:
        _, certificate = await issued(store)
        held = await store.mark_revoked(certificate.sha256, NOW, reason, TIMED_OUT)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) is None
        assert await store.find_certificate(certificate.sha256) == held

    async def test_of_which_the_ca_was_not_told_stays(self, store: Store) -> None:
        _, certificate = await issued(store)
        pending = pending_revocation(sha256=certificate.sha256, reason=self.HOLD)
        await store.mark_revoked(certificate.sha256, NOW, self.HOLD, TIMED_OUT, pending)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) is None
        assert await store.end_revocation(certificate.sha256, ENDED)
        assert await store.revive(certificate.sha256, NOW + DAY, self.REVIVED) == certificate

    async def test_of_nothing(self, store: Store) -> None:
        assert await store.revive(b"?" * 32, NOW, self.REVIVED) is None
