"""Certificates, revocation, challenges, CRLs and named leases, the same over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.errors import StoreUnavailable
from gateway.model import UNLIMITED_NOT_AFTER, RevocationReason, SanKind
from gateway.store.interfaces import CertificateFilter, CRLRow, LedgerState, Opened, RevokedEntry, Store
from tests.contract.store.conftest import Open
from tests.contract.store.rows import (
    CA,
    CHAIN,
    GRANT,
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
DAY = timedelta(days=1)
REVOKED = event("certificate.revoked", "done")
CREATED = event("challenge.created", "done")
PUBLISHED = event("crl.published", "done")


def crl(number: int, **fields: object) -> CRLRow:
    return replace(CRLRow(CA, number, b"crl%d" % number, NOW, NOW + DAY), **fields)  # type: ignore[arg-type]


class TestCertificates:
    async def test_are_found_by_hash_and_by_serial(self, store: Store) -> None:
        _, certificate = await issued(store, serial=0x0F00)
        assert await store.find_certificate(certificate.sha256) == certificate
        assert await store.find_serial(CA, 0x0F00) == certificate
        assert await store.find_serial(CA, 0xF) is None
        assert await store.find_certificate(b"?" * 32) is None

    async def test_are_found_by_the_issuer_that_they_name_and_serial(self, store: Store) -> None:
        assert await store.find_issued(b"issuer", 0x0F00) is None
        _, certificate = await issued(store, serial=0x0F00)
        for upstream_ca in ("a", "another", "z"):
            await issued(store, serial=0x0F01, upstream_ca=upstream_ca)
        assert await store.find_issued(b"issuer", 0x0F00) == certificate
        assert await store.find_issued(b"issuer of another name", 0x0F00) is None
        assert await store.find_issued(b"issuer", 0xF) is None

    async def test_of_two_cas_of_one_name_are_found_revoked(self, store: Store) -> None:
        names = ("first", "second", "third")
        found = [(await issued(store, serial=0x0F00, upstream_ca=upstream_ca))[1] for upstream_ca in names]
        revoked = await store.mark_revoked(found[1].sha256, NOW, RevocationReason.SUPERSEDED, REVOKED)
        assert await store.find_issued(b"issuer", 0x0F00) == revoked

    async def test_without_end_keep_their_end(self, store: Store) -> None:
        row = await opened(store)
        await store.transition(transition(row, certificate=certificate_of(row, not_after=UNLIMITED_NOT_AFTER), chain=CHAIN))
        found = await store.find_serial(CA, row.serial or 0)
        assert found is not None
        assert found.not_after == UNLIMITED_NOT_AFTER

    @pytest.mark.parametrize(
        ("filter", "expected"),
        [
            pytest.param(CertificateFilter(), [3, 2, 1, 0], id="all, newest first"),
            pytest.param(CertificateFilter(limit=2, offset=1), [2, 1], id="a page"),
            pytest.param(CertificateFilter(profile="b"), [1], id="profile"),
            pytest.param(CertificateFilter(upstream_ca="ca2"), [2], id="CA"),
            pytest.param(CertificateFilter(serial=0xA0), [0], id="serial"),
            pytest.param(CertificateFilter(subject_contains="ROUTER"), [3], id="subject, any case"),
            pytest.param(CertificateFilter(subject_contains="100%"), [2], id="per cent is no wildcard"),
            pytest.param(CertificateFilter(subject_contains="_"), [1], id="underscore is no wildcard"),
            pytest.param(CertificateFilter(subject_contains="!"), [], id="escape character"),
            pytest.param(CertificateFilter(expires_before=NOW + 2 * DAY), [0], id="expiry"),
            pytest.param(CertificateFilter(revoked=True), [1], id="revoked"),
            pytest.param(CertificateFilter(revoked=False, profile="demo"), [3, 2, 0], id="valid ones of a profile"),
        ],
    )
    async def test_are_listed_by_filter(self, store: Store, filter: CertificateFilter, expected: list[int]) -> None:
        kinds: list[dict[str, object]] = [
            {"serial": 0xA0, "subject": "CN=a"},
            {"profile": "b", "subject": "CN=b_1"},
            {"upstream_ca": "ca2", "subject": "CN=100% c"},
            {"subject": "CN=Router 7"},
        ]
        hashes = []
        for number, fields in enumerate(kinds):
            row = await opened(store, **fields)
            end = NOW + (DAY if number == 0 else 30 * DAY)
            certificate = certificate_of(row, issued_at=NOW + number * SECOND, not_after=end)
            await store.transition(transition(row, certificate=certificate, chain=CHAIN))
            hashes.append(certificate.sha256)
        await store.mark_revoked(hashes[1], NOW, RevocationReason.SUPERSEDED, REVOKED)
        assert [hashes.index(row.sha256) for row in await store.list_certificates(filter)] == expected


class TestRevocation:
    @pytest.mark.parametrize("reason", list(RevocationReason))
    async def test_marks_certificate_and_ledger(self, store: Store, reason: RevocationReason) -> None:
        row, certificate = await issued(store)
        revoked = await store.mark_revoked(certificate.sha256, NOW + DAY, reason, REVOKED)
        assert revoked == replace(certificate, revoked_at=NOW + DAY, revocation_reason=reason)
        assert await store.find_certificate(certificate.sha256) == revoked
        found = await store.get_row(row.id)
        assert found is not None
        assert found.state is LedgerState.REVOKED
        assert (audit_events(store))[-1] == "certificate.revoked"

    async def test_again_changes_nothing(self, store: Store) -> None:
        _, certificate = await issued(store)
        first = await store.mark_revoked(certificate.sha256, NOW, RevocationReason.KEY_COMPROMISE, REVOKED)
        again = await store.mark_revoked(certificate.sha256, NOW + DAY, RevocationReason.SUPERSEDED, REVOKED)
        assert again == first
        assert (audit_events(store)).count("certificate.revoked") == 1

    async def test_of_an_unknown_certificate_is_none(self, store: Store) -> None:
        assert await store.mark_revoked(b"?" * 32, NOW, RevocationReason.UNSPECIFIED, REVOKED) is None
        assert audit_events(store) == []

    async def test_ends_retransmission(self, store: Store) -> None:
        row, certificate = await issued(store)
        await store.mark_revoked(certificate.sha256, NOW, RevocationReason.SUPERSEDED, REVOKED)
        assert await store.find_request(row.request_key, NOW) is None
        again = ledger_row(request_key=row.request_key)
        assert await store.open(opening(again)) == Opened(again)

    async def test_list_for_a_crl(self, store: Store) -> None:
        entries = []
        for number in range(3):
            row = await opened(store)
            certificate = certificate_of(row, not_after=NOW + (number + 1) * DAY)
            await store.transition(transition(row, certificate=certificate, chain=CHAIN))
            await store.mark_revoked(certificate.sha256, NOW + number * SECOND, RevocationReason.CA_COMPROMISE, REVOKED)
            entries.append(RevokedEntry(row.serial or 0, NOW + number * SECOND, RevocationReason.CA_COMPROMISE))
        await issued(store)
        other = await opened(store, upstream_ca="other")
        theirs = certificate_of(other)
        await store.transition(transition(other, certificate=theirs, chain=CHAIN))
        await store.mark_revoked(theirs.sha256, NOW, RevocationReason.UNSPECIFIED, REVOKED)
        assert await store.list_revoked(CA, NOW) == tuple(entries)
        assert await store.list_revoked(CA, NOW + 2 * DAY) == tuple(entries[1:])


class TestCRL:
    async def test_numbers_follow_each_other(self, store: Store) -> None:
        assert await store.newest_crl(CA) is None
        assert await store.put_crl(crl(7), PUBLISHED)
        assert not await store.put_crl(crl(7), PUBLISHED)
        assert not await store.put_crl(crl(9), PUBLISHED)
        assert await store.put_crl(crl(8), PUBLISHED)
        assert await store.newest_crl(CA) == crl(8)
        assert audit_events(store) == ["crl.published"] * 2

    async def test_only_one_holder_publishes_a_number(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        answers = await asyncio.gather(*(store.put_crl(crl(1), PUBLISHED) for store in stores * 5))
        assert answers.count(True) == 1

    async def revoke(self, store: Store) -> None:
        _, certificate = await issued(store)
        await store.mark_revoked(certificate.sha256, NOW - DAY, RevocationReason.SUPERSEDED, REVOKED)

    async def test_is_stale_from_the_revocation_on_whatever_the_clocks_say(self, store: Store) -> None:
        assert await store.crl_is_stale(CA)
        await store.list_revoked(CA, NOW)
        await store.put_crl(crl(1), PUBLISHED)
        assert not await store.crl_is_stale(CA)
        await self.revoke(store)
        assert await store.crl_is_stale(CA)
        await store.list_revoked(CA, NOW)
        await store.put_crl(crl(2), PUBLISHED)
        assert not await store.crl_is_stale(CA)

    async def test_revocation_between_list_and_publication_keeps_it_stale(self, open_store: Open) -> None:
        store, other = await open_store("w1"), await open_store("w2")
        await store.list_revoked(CA, NOW)
        await self.revoke(other)
        await store.put_crl(crl(1), PUBLISHED)
        assert await store.crl_is_stale(CA)
        assert await other.crl_is_stale(CA)

    async def test_later_list_does_not_vouch_for_an_earlier_one(self, store: Store) -> None:
        await store.list_revoked(CA, NOW)
        await self.revoke(store)
        await store.list_revoked(CA, NOW)
        await store.put_crl(crl(1), PUBLISHED)
        assert await store.crl_is_stale(CA)

    async def test_each_ca_has_its_own(self, store: Store) -> None:
        await store.put_crl(crl(1), PUBLISHED)
        await store.put_crl(crl(5, upstream_ca="other"), PUBLISHED)
        newest = await store.newest_crl(CA)
        assert newest is not None
        assert newest.number == 1


class TestChallenges:
    async def test_come_back_as_they_were(self, store: Store) -> None:
        row = challenge(subject="CN=a", sans=frozenset({(SanKind.DNS, "a.example"), (SanKind.IP, "192.0.2.1")}), owner="alice")
        await store.add_challenge(row, CREATED)
        assert await store.find_challenge(row.mac) == row
        assert await store.find_challenge(b"?" * 32) is None
        assert audit_events(store) == ["challenge.created"]

    @pytest.mark.parametrize("sans", [None, frozenset()])
    async def test_no_binding_and_binding_to_no_name_differ(
        self, store: Store, sans: frozenset[tuple[SanKind, str]] | None
    ) -> None:
        await store.add_challenge(challenge(sans=sans), CREATED)
        found = await store.find_challenge(challenge().mac)
        assert found is not None
        assert found.sans == sans

    async def test_say_which_request_used_them(self, store: Store) -> None:
        await store.add_challenge(challenge(), CREATED)
        row = ledger_row()
        await store.open(opening(row, (reservation(),)))
        found = await store.find_challenge(challenge().mac)
        assert found is not None
        assert found.used_by == row.id

    async def test_that_exist_are_not_replaced(self, store: Store) -> None:
        await store.add_challenge(challenge(), CREATED)
        for row in (challenge(mac=b"m" * 32), challenge("c2", mac=challenge().mac)):
            with pytest.raises(StoreUnavailable):
                await store.add_challenge(row, CREATED)
        assert await store.find_challenge(challenge().mac) == challenge()
        assert audit_events(store) == ["challenge.created"]

    async def test_are_listed_until_they_expire(self, store: Store) -> None:
        rows = [challenge(f"c{n}", created_at=NOW + n * SECOND, expires_at=NOW + (n + 1) * DAY) for n in range(3)]
        for row in (*rows, challenge("x", profile="other", expires_at=NOW + DAY)):
            await store.add_challenge(row, CREATED)
        assert [row.id for row in await store.list_challenges(rows[0].profile, NOW, 10)] == ["c2", "c1", "c0"]
        assert [row.id for row in await store.list_challenges(None, NOW + DAY, 10)] == ["c2", "c1"]
        assert len(await store.list_challenges(None, NOW, 2)) == 2

    async def test_revocation_of_an_unused_one(self, store: Store) -> None:
        await store.add_challenge(challenge(), CREATED)
        revoked = event("challenge.revoked", "done")
        assert await store.revoke_challenge("c1", NOW + SECOND, revoked)
        assert await store.find_challenge(challenge().mac) == challenge(revoked_at=NOW + SECOND)
        assert not await store.revoke_challenge("c1", NOW + DAY, revoked)
        assert not await store.revoke_challenge("c9", NOW, revoked)
        assert (audit_events(store)).count("challenge.revoked") == 1

    async def test_used_one_is_not_revoked(self, store: Store) -> None:
        await store.add_challenge(challenge(), CREATED)
        await store.open(opening(ledger_row(), (reservation(),)))
        assert not await store.revoke_challenge("c1", NOW, event("challenge.revoked", "done"))


class TestNamedLeases:
    async def test_one_holder_at_a_time(self, open_store: Open) -> None:
        store, other = await open_store("w1"), await open_store("w2")
        assert await store.take_lease("crl:local", "w1", NOW, NOW + DAY)
        assert not await other.take_lease("crl:local", "w2", NOW, NOW + DAY)
        assert await store.take_lease("crl:local", "w1", NOW + SECOND, NOW + 2 * DAY)
        assert await other.take_lease("crl:other", "w2", NOW, NOW + DAY)
        assert not await other.take_lease("crl:local", "w2", NOW + DAY, NOW + 3 * DAY)
        assert await other.take_lease("crl:local", "w2", NOW + 2 * DAY, NOW + 3 * DAY)

    async def test_lease_of_a_clock_that_ran_ahead_is_free(self, open_store: Open) -> None:
        store, other = await open_store("w1"), await open_store("w2")
        assert await store.take_lease("crl:local", "w1", NOW + 365 * DAY, NOW + 366 * DAY)
        assert not await other.take_lease("crl:local", "w2", NOW, NOW), "giving back takes nothing"
        assert await other.take_lease("crl:local", "w2", NOW, NOW + DAY)
        assert not await store.take_lease("crl:local", "w1", NOW, NOW + DAY)

    async def test_race_has_one_winner(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        takes = [store.take_lease("x", f"holder {n}", NOW, NOW + DAY) for n, store in enumerate(stores * 10)]
        assert (await asyncio.gather(*takes)).count(True) == 1


def test_grant_survives_its_column() -> None:
    assert type(GRANT).from_json(GRANT.to_json()) == GRANT
