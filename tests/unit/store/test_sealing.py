"""Requests are sealed: a CSR may carry its challengePassword, and no file of the store holds it in clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.acme import ChallengeStatus, OrderStatus
from gateway.errors import StoreUnavailable
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, backup, connection, migrate
from tests.contract.store.acme_rows import attempt, begun, external_account, made_ready, order_change, ordered, registered
from tests.contract.store.cmp_rows import shared_secret
from tests.contract.store.rows import CHAIN, certificate_of, event, opened, transition

KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32
CHALLENGE = "aVerySecretChallenge0123456789"
CSR = build_csr(generate_private_key("ec-p256"), parse_name_text("CN=device-1").der, (), challenge_password=CHALLENGE)


@pytest.fixture
async def store(tmp_path: Path) -> SqliteStore:
    migrate(tmp_path / "gateway.db", KEYS, AUDIT_KEY)
    store = SqliteStore(tmp_path / "gateway.db", KEYS, AUDIT_KEY, "w1", lambda _: None)
    await store.start()
    return store


def columns_that_hold(path: Path, secret: bytes) -> list[str]:
    reader = connection.open_reader(path)
    found = []
    for (table,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in reader.execute(f"SELECT * FROM {table}").fetchall():
            values = [value.encode() if isinstance(value, str) else value for value in row]
            found += [table for value in values if isinstance(value, bytes) and secret in value]
    reader.close()
    return found


async def test_no_file_holds_the_challenge_of_an_enrollment(store: SqliteStore, tmp_path: Path) -> None:
    assert parse_csr(CSR).challenge_password == CHALLENGE
    path, copy = tmp_path / "gateway.db", tmp_path / "copy.db"
    row = await opened(store, request=CSR)
    answer = await store.transition(transition(row, certificate=certificate_of(row), chain=CHAIN))
    assert answer is not None
    assert answer.request == CSR
    secret = CHALLENGE.encode()
    assert columns_that_hold(path, secret) == []
    assert (tmp_path / "gateway.db-wal").stat().st_size > 0
    backup(path, copy)
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes(), file
    await store.close()
    assert secret not in path.read_bytes()


async def test_no_file_holds_the_secrets_of_acme(store: SqliteStore, tmp_path: Path) -> None:
    path, key, device = tmp_path / "gateway.db", b"a key of an external account", "a serial number of a device"
    await store.add_external_account(external_account(key=key), event())
    of = await registered(store)
    await store.change_order(order_change(await made_ready(store, of), OrderStatus.PROCESSING, csr=CSR))
    _, (needed,) = await ordered(store, of)
    await begun(store, needed, payload={"attObj": device})
    for secret in (key, CHALLENGE.encode(), device.encode()):
        assert columns_that_hold(path, secret) == []
        for file in tmp_path.iterdir():
            assert secret not in file.read_bytes(), file
    await store.close()


async def test_no_file_holds_the_shared_secrets_of_cmp(store: SqliteStore, tmp_path: Path) -> None:
    secret = b"a shared secret of CMP"
    await store.add_secret(shared_secret(secret=secret), event())
    assert columns_that_hold(tmp_path / "gateway.db", secret) == []
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes(), file
    await store.close()


async def test_what_came_with_a_challenge_is_forgotten_with_its_end(store: SqliteStore, tmp_path: Path) -> None:
    _, (needed,) = await ordered(store, await registered(store))
    await begun(store, needed, payload={"attObj": "AAAA"})
    await store.end_attempt(attempt(needed, ChallengeStatus.VALID))
    reader = connection.open_reader(tmp_path / "gateway.db")
    assert reader.execute("SELECT payload FROM acme_authorizations").fetchall() == [(None,)]
    reader.close()
    await store.close()


async def test_every_look_up_returns_the_request_as_it_came(store: SqliteStore) -> None:
    row = await opened(store, request=CSR)
    found = (
        await store.get_row(row.id),
        await store.find_request(row.request_key, row.created_at),
        await store.find_transaction(row.profile, row.protocol, row.transaction_id, row.requester_key),
        *await store.find_lapsed(row.lease_until, 10),
        *await store.list_rows(frozenset({row.state}), None, 10),
    )
    assert [one and one.request for one in found] == [CSR] * 5
    await store.close()


async def test_changed_request_makes_the_store_unavailable(store: SqliteStore, tmp_path: Path) -> None:
    row = await opened(store, request=CSR)
    reader = connection.open_reader(tmp_path / "gateway.db")
    [(sealed,)] = reader.execute("SELECT request FROM ledger").fetchall()
    reader.close()
    await store.close()
    writer = connection.open_writer(tmp_path / "gateway.db")
    writer.execute("UPDATE ledger SET request = :request", {"request": sealed[:-1] + bytes([sealed[-1] ^ 1])})
    writer.close()
    store = SqliteStore(tmp_path / "gateway.db", KEYS, AUDIT_KEY, "w1", lambda _: None)
    await store.start()
    with pytest.raises(StoreUnavailable, match="was changed and cannot be opened"):
        await store.get_row(row.id)
    await store.close()
