"""Nonces, incidents and what is forgotten of ACME in time, the same over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.acme import AuthorizationStatus, Incident, OrderStatus
from gateway.errors import Reason
from gateway.model import ProfileName, RevocationReason, UpstreamCAName
from gateway.store.acme import Affected
from gateway.store.interfaces import InventoryRow, Store
from gateway.store.sqlite.acme import incidents
from tests.contract.store.acme_rows import (
    DAY,
    SECOND,
    WEEK,
    authorization,
    begun,
    made_ready,
    new_order,
    order,
    order_change,
    ordered,
    registered,
    validated,
)
from tests.contract.store.conftest import Open
from tests.contract.store.rows import GRANT, NOW, audit_events, event, issued

HOUR = timedelta(hours=1)
DECLARED = event("incident.declared", "done")
WITHDRAWN = event("incident.withdrawn", "done")


class TestNonces:
    async def test_serve_once(self, store: Store) -> None:
        assert await store.redeem_nonce(b"n1", datetime.now(UTC))
        assert not await store.redeem_nonce(b"n1", datetime.now(UTC))
        assert await store.redeem_nonce(b"n2", datetime.now(UTC))

    async def test_serve_once_across_workers_and_restarts(self, open_store: Open) -> None:
        stores = [await open_store("w1"), await open_store("w2")]
        found = await asyncio.gather(*(stores[number % 2].redeem_nonce(b"n", datetime.now(UTC)) for number in range(20)))
        assert found.count(True) == 1
        for store in stores:
            await store.close()
        again = await open_store("w1")
        assert not await again.redeem_nonce(b"n", datetime.now(UTC))
        assert await again.redeem_nonce(b"unused", datetime.now(UTC))


class TestExpiry:
    async def test_ends_orders_whose_time_is_over(self, store: Store) -> None:
        of = await registered(store)
        pending, (needed,) = await ordered(store, of)
        ready, processing = await made_ready(store, of), await made_ready(store, of)
        later, _ = await ordered(store, of, expires_at=NOW + 2 * WEEK)
        await store.change_order(order_change(processing, OrderStatus.PROCESSING))
        assert await store.expire_acme(NOW + WEEK - SECOND) == 0
        assert await store.expire_acme(NOW + WEEK) == 2
        found = [await store.find_order(row.id) for row in (pending, ready, processing, later)]
        assert [row and row.status for row in found] == [
            OrderStatus.INVALID,
            OrderStatus.INVALID,
            OrderStatus.PROCESSING,
            OrderStatus.PENDING,
        ]
        assert found[0] is not None
        assert found[0].error is not None
        assert await store.find_authorization(needed.id) == needed

    async def test_forgets_what_was_over_for_thirty_days(self, store: Store) -> None:
        of = await registered(store)
        row, (needed,) = await ordered(store, of)
        other, (their,) = await ordered(store, of, expires_at=NOW + 2 * WEEK)
        await store.expire_acme(NOW + WEEK + timedelta(days=30) - SECOND)
        assert await store.find_order(row.id) is not None
        await store.expire_acme(NOW + WEEK + timedelta(days=30))
        assert await store.find_order(row.id) is None
        assert await store.find_authorization(needed.id) is None
        assert await store.find_order(other.id) is not None
        assert await store.find_authorization(their.id) is None
        assert await store.list_orders(of.id, None, 10) == ()
        assert await store.find_account(of.id) == of

    async def test_never_makes_an_order_ready(self, store: Store) -> None:
        """An authorization that was forgotten is not one that is valid."""
        of = await registered(store)
        short, long = authorization(of, "a.example"), authorization(of, "b.example", expires_at=NOW + 100 * DAY)
        row = order(of, short, long, expires_at=NOW + 100 * DAY)
        await store.add_order(new_order(row, short, long))
        await validated(store, short, expires_at=NOW + DAY)
        await store.expire_acme(NOW + 40 * DAY)
        assert await store.find_authorization(short.id) is None
        await validated(store, long)
        assert (await store.find_order(row.id) or row).status is OrderStatus.PENDING

    async def test_keeps_a_valid_order_as_long_as_its_certificate(self, store: Store) -> None:
        of = await registered(store)
        _, certificate = await issued(store)
        row = await made_ready(store, of)
        await store.change_order(order_change(row, OrderStatus.VALID, certificate=certificate.sha256))
        await store.expire_acme(GRANT.not_after + timedelta(days=30) - SECOND)
        assert await store.find_order(row.id) is not None
        await store.expire_acme(GRANT.not_after + timedelta(days=30))
        assert await store.find_order(row.id) is None

    async def test_keeps_an_order_that_is_being_finalized(self, store: Store) -> None:
        row = await made_ready(store, await registered(store))
        await store.change_order(order_change(row, OrderStatus.PROCESSING))
        await store.expire_acme(NOW + 1000 * DAY)
        assert (await store.find_order(row.id) or row).status is OrderStatus.PROCESSING


def incident(id: str = "i1", **fields: object) -> Incident:
    base = Incident(id, "https://pki.example/why", NOW, "uid:0 (root)")
    return replace(base, **fields)  # type: ignore[arg-type]


class TestIncidents:
    @pytest.fixture
    async def certificates(self, store: Store) -> list[InventoryRow]:
        kinds: list[dict[str, object]] = [
            {"serial": 0xA0, "subject": "CN=first"},
            {"serial": 0xA1, "subject": "CN=second", "profile": ProfileName("other")},
            {"serial": 0xA2, "subject": "CN=third", "upstream_ca": UpstreamCAName("ca2")},
            {"serial": 0xA3, "subject": "CN=fourth", "public_key_sha256": b"k" * 32},
            {"serial": 0xA4, "subject": "CN=revoked"},
        ]
        found = [(await issued(store, **fields))[1] for fields in kinds]
        await store.mark_revoked(found[4].sha256, NOW, RevocationReason.SUPERSEDED, event("certificate.revoked", "done"))
        return found

    @pytest.mark.parametrize(
        ("affected", "expected"),
        [
            pytest.param(Affected(), [0, 1, 2, 3], id="all"),
            pytest.param(Affected(profile="demo"), [0, 2, 3], id="profile"),
            pytest.param(Affected(upstream_ca="ca2"), [2], id="CA"),
            pytest.param(Affected(public_key_sha256=b"k" * 32), [3], id="key"),
            pytest.param(Affected(serials=frozenset({0xA0, 0xA2, 0xA4, 0xFF})), [0, 2], id="serials, one revoked, one unknown"),
            pytest.param(Affected(serials=frozenset()), [], id="no serials"),
            pytest.param(Affected(serials=frozenset(range(0x1000))), [0, 1, 2, 3], id="many serials"),
            pytest.param(Affected(profile="other", serials=frozenset({0xA0, 0xA1})), [1], id="profile and serials"),
            pytest.param(Affected(profile="other", upstream_ca="ca2"), [], id="profile and CA that do not meet"),
        ],
    )
    async def test_concern_what_fits(
        self, store: Store, certificates: list[InventoryRow], affected: Affected, expected: list[int]
    ) -> None:
        number, subjects = await store.count_affected(affected, NOW)
        assert number == len(expected)
        assert sorted(subjects) == sorted(certificates[index].subject for index in expected)
        declared = await store.declare_incident(incident(), affected, NOW, DECLARED)
        assert declared == incident(certificates=len(expected))
        found = [await store.find_incident(certificate.sha256) for certificate in certificates]
        assert found == [declared if index in expected else None for index in range(5)]
        assert await store.list_incidents(10) == (declared,)

    async def test_concern_nothing_that_expired(self, store: Store, certificates: list[InventoryRow]) -> None:
        assert certificates
        assert await store.count_affected(Affected(), GRANT.not_after) == (0, ())

    async def test_newest_comes_first(self, store: Store, certificates: list[InventoryRow]) -> None:
        old = await store.declare_incident(incident(), Affected(), NOW, DECLARED)
        new = await store.declare_incident(incident("i2", created_at=NOW + DAY), Affected(profile="other"), NOW, DECLARED)
        assert await store.list_incidents(10) == (new, old)
        assert await store.list_incidents(1) == (new,)
        assert await store.find_incident(certificates[1].sha256) == new
        assert await store.find_incident(certificates[0].sha256) == old

    async def test_goes_in_portions(
        self, store: Store, certificates: list[InventoryRow], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(incidents, "PAGE", 3)
        declared = await store.declare_incident(incident(), Affected(), NOW, DECLARED)
        assert declared.certificates == 4
        assert await store.list_incidents(10) == (declared,)
        assert [await store.find_incident(row.sha256) for row in certificates] == [declared] * 4 + [None]

    async def test_withdrawn_is_forgotten(self, store: Store, certificates: list[InventoryRow]) -> None:
        declared = await store.declare_incident(incident(explanation_url=None), Affected(), NOW, DECLARED)
        assert await store.list_incidents(10) == (declared,)
        assert await store.withdraw_incident("i1", WITHDRAWN)
        assert not await store.withdraw_incident("i1", WITHDRAWN)
        assert await store.find_incident(certificates[0].sha256) is None
        assert await store.list_incidents(10) == ()
        assert audit_events(store)[-2:] == ["incident.declared", "incident.withdrawn"]

    async def test_names_what_has_no_subject_by_an_alternative_name(self, store: Store) -> None:
        await issued(store, subject="", sans=("dns:a.example", "dns:b.example"))
        await issued(store, subject="", sans=(), created_at=NOW - SECOND)
        assert await store.count_affected(Affected(), NOW) == (2, ("dns:a.example", ""))

    async def test_names_ten_subjects(self, store: Store) -> None:
        for number in range(12):
            await issued(store, subject=f"CN={number}", created_at=NOW + number * SECOND)
        number, subjects = await store.count_affected(Affected(), NOW)
        assert (number, subjects) == (12, tuple(f"CN={n}" for n in range(11, 1, -1)))


async def test_a_tally_counts_what_is_unfinished(store: Store) -> None:
    of = await registered(store)
    for _ in range(3):
        await made_ready(store, of)
    for status in (OrderStatus.PROCESSING, OrderStatus.PROCESSING, OrderStatus.VALID, OrderStatus.INVALID):
        await store.change_order(order_change(await made_ready(store, of), status))
    _, (needed,) = await ordered(store, of)
    await begun(store, needed)
    tally = await store.tally(())
    assert (tally.acme_orders, tally.acme_finalizations, tally.acme_challenges) == (4, 2, 1)


async def test_an_ended_account_is_kept(store: Store) -> None:
    of = await registered(store)
    await store.expire_acme(NOW + 1000 * DAY)
    assert await store.find_account(of.id) == of


async def test_reasons_of_expiry_are_public(store: Store) -> None:
    _, (needed,) = await ordered(store, await registered(store))
    assert needed.status is AuthorizationStatus.PENDING
    await store.expire_acme(NOW + WEEK)
    [row] = await store.search_orders(None, OrderStatus.INVALID, 10)
    assert row.error is not None
    assert row.error.reason is Reason.MALFORMED
