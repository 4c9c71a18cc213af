"""CRLs over the real store: numbers stay unique between processes, and a revocation is published by whoever sees it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit import AuditEvent
from gateway.ca import crl
from gateway.ca.bootstrap import Hierarchy
from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.interfaces import IssueRequest, UpstreamIssued
from gateway.ca.local import CaUrls, LocalCA
from gateway.model import RevocationReason, UpstreamCAName
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.keys import load_private_key
from gateway.store.interfaces import InventoryRow, LedgerRow, LedgerState, Opened, Opening, Transition, WaitingFor
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, migrate
from tests.contract.ca.conftest import NewRequest, openssl
from tests.contract.store.rows import audit_rows

NAME = UpstreamCAName("local")
KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32
SCHEDULE = CrlSchedule(timedelta(days=7), timedelta(days=1))
WORKER = Path(__file__).parent / "crl_worker.py"


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    """One store, opened as two worker processes do."""
    path = tmp_path / "gateway.db"
    migrate(path, KEYS, AUDIT_KEY)
    opened = [SqliteStore(path, KEYS, AUDIT_KEY, f"w{n}", lambda _: None) for n in range(2)]
    for store in opened:
        await store.start()
    yield opened
    for store in opened:
        await store.close()


@pytest.fixture
async def ca(hierarchy: Hierarchy, chain: tuple[bytes, ...]) -> AsyncIterator[LocalCA]:
    made = LocalCA(NAME, load_private_key(hierarchy.issuing.key), chain, CaUrls())
    yield made
    await made.close()


def now() -> datetime:
    return datetime.now(UTC)


def event(name: str) -> AuditEvent:
    return AuditEvent(event=name, at=now(), actor="test", decision="done")


async def record(store: SqliteStore, request: IssueRequest, issued: UpstreamIssued) -> bytes:
    """Put one certificate into ledger and inventory, as the registration authority does."""
    leaf = parse_certificate(issued.certificate)
    lease = now() + timedelta(minutes=1)
    row = LedgerRow(
        id=request.request_id, request_key=leaf.sha256, profile=request.profile, protocol="scep", operation="PKCSReq",
        transaction_id="t", requester="r", requester_key=b"k" * 32, owner=None, source="127.0.0.1", form=request.form,
        request=request.request, public_key=request.public_key, public_key_sha256=leaf.public_key.sha256, subject="CN=x",
        sans=(), grant=request.grant, upstream_ca=NAME, serial=request.serial, generation=1, renews=None, state=LedgerState.OPEN,
        waiting_for=WaitingFor.NOTHING, sent=False, worker="w0", lease_until=lease, poll_at=None, upstream_reference=None,
        attempts=0, created_at=now(), updated_at=now(),
    )  # fmt: skip
    assert isinstance(await store.open(Opening(row, (), (), lease, event("enrollment.opened"))), Opened)
    held = InventoryRow(
        sha256=leaf.sha256, der=leaf.der, upstream_ca=NAME, issuer_der=leaf.issuer_der, serial=leaf.serial,
        profile=request.profile, protocol="scep", requester="r", owner=None, request_id=request.request_id,
        request_sha256=b"d" * 32, public_key_sha256=leaf.public_key.sha256, subject="CN=x", sans=(),
        not_before=leaf.not_before, not_after=leaf.not_after, issued_at=now(),
    )  # fmt: skip
    change = Transition(
        request.request_id,
        frozenset({LedgerState.OPEN}),
        "w0",
        LedgerState.ISSUED,
        now(),
        event("enrollment.issued"),
        certificate=held,
    )
    assert await store.transition(change) is not None
    return leaf.sha256


async def issue(store: SqliteStore, ca: LocalCA, request: IssueRequest) -> tuple[bytes, UpstreamIssued]:
    request = replace(request, serial=ca.new_serial())
    issued = await ca.issue(request)
    return await record(store, request, issued), issued


def publisher(store: SqliteStore, ca: LocalCA, holder: str) -> CrlPublisher:
    return CrlPublisher(store, ca, now, holder, SCHEDULE)


async def test_revocation_reaches_openssl(
    stores: list[SqliteStore], ca: LocalCA, new_request: NewRequest, hierarchy: Hierarchy, tmp_path: Path
) -> None:
    first = publisher(stores[0], ca, "w0")
    _, good = await issue(stores[0], ca, new_request())
    revoked, bad = await issue(stores[0], ca, new_request())
    assert (await first.publish()).number == 1
    assert (await first.publish()).number == 1
    await stores[0].mark_revoked(revoked, now(), RevocationReason.KEY_COMPROMISE, event("certificate.revoked"))
    row = await first.publish()
    assert row.number == 2
    assert parse_crl(row.der).entries[0][0] == parse_certificate(bad.certificate).serial
    assert parse_crl(row.der).entries[0][2] is RevocationReason.KEY_COMPROMISE
    (tmp_path / "crl.pem").write_bytes(der_to_pem(row.der, "X509 CRL"))
    (tmp_path / "root.pem").write_bytes(hierarchy.root.certificate)
    (tmp_path / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    for name, issued in (("good", good), ("bad", bad)):
        (tmp_path / name).write_bytes(der_to_pem(issued.certificate))
    check = ("verify", "-crl_check", "-CRLfile", f"{tmp_path}/crl.pem", "-CAfile", f"{tmp_path}/root.pem")
    openssl(*check, "-untrusted", f"{tmp_path}/issuing.pem", f"{tmp_path}/good")
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(*check, "-untrusted", f"{tmp_path}/issuing.pem", f"{tmp_path}/bad")


async def test_every_revocation_is_listed_however_the_workers_race(
    stores: list[SqliteStore], ca: LocalCA, new_request: NewRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl, "CHECK_SECONDS", 0.01)
    publishers = [publisher(store, ca, f"w{n}") for n, store in enumerate(stores)]
    loops = [asyncio.create_task(it.run()) for it in publishers]
    issued = [await issue(stores[0], ca, new_request()) for _ in range(8)]
    for number, (sha256, _) in enumerate(issued):
        await stores[number % 2].mark_revoked(sha256, now(), RevocationReason.SUPERSEDED, event("certificate.revoked"))
        await asyncio.gather(*(it.publish(force=number % 3 == 0) for it in publishers))
    expected = {parse_certificate(one.certificate).serial for _, one in issued}
    for store in stores:
        row = await store.newest_crl(NAME)
        assert row is not None
        assert parse_crl(row.der).serials == expected
        assert not await store.crl_is_stale(NAME)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert_consecutive(await published(stores[0]))


async def test_processes_never_publish_two_crls_with_one_number(
    stores: list[SqliteStore], hierarchy: Hierarchy, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(hierarchy.issuing.certificate)
    (tmp_path / "ca.key").write_bytes(hierarchy.issuing.key)
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), *(str(tmp_path / name) for name in ("gateway.db", "ca.pem", "ca.key")), f"p{n}", "8"
        )
        for n in range(3)
    ]
    assert [await worker.wait() for worker in workers] == [0, 0, 0]
    rows = await published(stores[0])
    assert_consecutive(rows)
    assert 8 <= len(rows) <= 24
    newest = await stores[0].newest_crl(NAME)
    assert newest is not None
    assert parse_crl(newest.der).number == newest.number == len(rows)


async def published(store: SqliteStore) -> list[str]:
    """The audit trail's word on each CRL that was ever stored."""
    bodies = [json.loads(row.body) for row in audit_rows(store)]
    return [body["detail"] for body in bodies if body["event"] == "crl.published"]


def assert_consecutive(details: list[str]) -> None:
    assert [int(detail.split()[1]) for detail in details] == list(range(1, len(details) + 1))
