"""Commands on the store as a file: creation, refusals, backup, check and change of keys."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.acme import OrderStatus
from gateway.audit import AuditHead
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.model import RevocationReason
from gateway.store.keys import KeyRing
from gateway.store.sqlite import (
    CheckReport,
    SqliteStore,
    access,
    audit_trail,
    backup,
    check,
    check_usable,
    connection,
    files,
    locked,
    migrate,
    rekey,
)
from gateway.store.sqlite.upgrade import upgrade
from gateway.store.tables import REVISIONS, SCHEMA
from tests.contract.store.acme_rows import begun, external_account, made_ready, order_change, ordered, registered
from tests.contract.store.cmp_rows import shared_secret
from tests.contract.store.rows import CHAIN, NOW, certificate_of, challenge, event, issued, opened, transition

OLD, NEW, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
KEYS = KeyRing((OLD,))
AUDIT_KEY = b"a" * 32
REKEYED = event("store.rekeyed", "done")

Change = Callable[[sqlite3.Connection], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "gateway.db", KEYS, AUDIT_KEY)
    return tmp_path / "gateway.db"


def start(path: Path, keys: KeyRing = KEYS, heads: list[AuditHead] | None = None) -> SqliteStore:
    return SqliteStore(path, keys, AUDIT_KEY, "w1", ([] if heads is None else heads).append)


def change(path: Path, sql: str) -> None:
    writer = connection.open_writer(path)
    writer.execute(sql)
    writer.close()


async def fill(path: Path, count: int = 3, keys: KeyRing = KEYS) -> list[AuditHead]:
    heads: list[AuditHead] = []
    store = start(path, keys, heads)
    await store.start()
    for _ in range(count):
        await issued(store)
    await store.close()
    return heads


class TestMigrate:
    def test_creates_and_then_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "er" / "gateway.db"
        assert migrate(path, KEYS, AUDIT_KEY) == (None, SCHEMA)
        assert migrate(path, KEYS, AUDIT_KEY) == (SCHEMA, SCHEMA)
        check_usable(path, KEYS, AUDIT_KEY)

    def test_that_failed_half_way_can_be_repeated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "gateway.db"

        def fail(*_: object) -> bytes:
            raise RuntimeError("cut short")

        with monkeypatch.context() as patch:
            patch.setattr(KeyRing, "encrypt", fail)
            with pytest.raises(RuntimeError, match="cut short"):
                migrate(path, KEYS, AUDIT_KEY)
        with pytest.raises(StoreRefused, match="store migrate"):
            check_usable(path, KEYS, AUDIT_KEY)
        assert migrate(path, KEYS, AUDIT_KEY) == (None, SCHEMA)

    def test_refuses_another_key(self, path: Path) -> None:
        with pytest.raises(StoreRefused, match=r"another store\.key"):
            migrate(path, KeyRing((OTHER,)), AUDIT_KEY)

    def test_waits_for_the_lock(self, path: Path) -> None:
        with locked(path, 1.0), pytest.raises(StoreUnavailable, match="held by another process"):
            migrate(path, KEYS, AUDIT_KEY, timeout=0.1)

    def test_upgrade_that_fails_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "gateway.db"
        connection.create(path)
        writer = connection.open_writer(path)

        def fail() -> None:
            raise RuntimeError("cut short")

        with pytest.raises(RuntimeError, match="cut short"):
            upgrade(writer, fail)
        assert writer.execute("SELECT name FROM sqlite_master").fetchall() == []
        writer.close()

    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailable, match="cannot create"):
            migrate(tmp_path / "file" / "gateway.db", KEYS, AUDIT_KEY)


class TestRefusals:
    @pytest.mark.parametrize(
        ("sql", "sentence"),
        [
            pytest.param("UPDATE alembic_version SET version_num = '9999'", "newer pki-gateway wrote", id="newer schema"),
            pytest.param("DELETE FROM alembic_version", "holds no store", id="no schema"),
            pytest.param("DELETE FROM sealed", "no key check", id="no key check"),
            pytest.param("DELETE FROM sealed WHERE name = 'audit'", "no key check", id="no check of the audit key"),
            pytest.param("UPDATE sealed SET value = x'00'", r"another store\.key", id="key check of no key"),
        ],
    )
    async def test_changed_store(self, path: Path, sql: str, sentence: str) -> None:
        change(path, sql)
        with pytest.raises(StoreRefused, match=sentence):
            await start(path).start()

    async def test_older_schema(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access, "SCHEMA", "9999")
        monkeypatch.setattr(access, "REVISIONS", (*REVISIONS, "9999"))
        with pytest.raises(
            StoreRefused, match=f"has schema {SCHEMA} and this program needs 9999; run `pki-gateway store backup`"
        ):
            await start(path).start()

    async def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreRefused, match="restore a backup; only for a new installation, `pki-gateway store migrate`"):
            await start(tmp_path / "gateway.db").start()
        assert not list(tmp_path.iterdir())

    async def test_other_key(self, path: Path) -> None:
        with pytest.raises(StoreRefused, match=r"written under another store\.key"):
            await start(path, KeyRing((OTHER,))).start()

    async def test_other_audit_key(self, path: Path) -> None:
        await fill(path)
        stranger = SqliteStore(path, KEYS, b"b" * 32, "w1", lambda _: None)
        for use in (stranger.start(), asyncio.to_thread(rekey, path, KEYS, b"b" * 32, REKEYED)):
            with pytest.raises(StoreRefused, match=r"under another audit\.key; put back the key"):
                await use
        with pytest.raises(StoreRefused, match=r"another audit\.key"):
            migrate(path, KEYS, b"b" * 32)
        assert "another audit.key" in check(path, KEYS, b"b" * 32).problems[0]
        assert check(path, KEYS, AUDIT_KEY).problems == ()

    @pytest.mark.parametrize("content", [pytest.param(b"no database" * 100, id="text"), pytest.param(bytes(4096), id="zeros")])
    async def test_no_database(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(StoreRefused):
            await start(path).start()

    async def test_damaged_pages_are_found(self, path: Path) -> None:
        await fill(path, 20)
        data = bytearray(path.read_bytes())
        for page in range(4096, len(data), 4096):
            data[page : page + 100] = bytes(100)
        path.write_bytes(data)
        with pytest.raises(StoreRefused, match="damaged"):
            check(path, KEYS, AUDIT_KEY)


class TestBesideWriters:
    """What only reads leaves the flock alone: nobody's enrollment waits for it."""

    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[SqliteStore]:
        await fill(path, 20)
        store = start(path)
        await store.start()
        yield store
        await store.close()

    async def test_check_sees_one_moment_and_stops_nobody(
        self, path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop, find_damage = asyncio.get_running_loop(), connection.find_damage

        def write_meanwhile(reader: sqlite3.Connection) -> tuple[str, ...]:
            found = find_damage(reader)
            asyncio.run_coroutine_threadsafe(issued(store), loop).result(timeout=5)
            return found

        monkeypatch.setattr(connection, "find_damage", write_meanwhile)
        report = await asyncio.to_thread(check, path, KEYS, AUDIT_KEY)
        assert (report.problems, report.ledger_rows, report.audit.rows) == ((), 20, 40)
        assert check_later(path).audit.rows == 42

    async def test_backup_is_one_moment_and_stops_nobody(
        self, path: Path, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop, copy_to = asyncio.get_running_loop(), connection.copy_to

        def write_meanwhile(reader: sqlite3.Connection, target: Path) -> None:
            asyncio.run_coroutine_threadsafe(issued(store), loop).result(timeout=5)
            copy_to(reader, target)

        monkeypatch.setattr(connection, "copy_to", write_meanwhile)
        await asyncio.to_thread(backup, path, tmp_path / "copy.db")
        assert check_later(tmp_path / "copy.db").problems == ()


def check_later(path: Path) -> CheckReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "find_damage", lambda _: ())
        return check(path, KEYS, AUDIT_KEY)


class TestBackup:
    async def test_is_the_store(self, path: Path, tmp_path: Path) -> None:
        await fill(path)
        target = tmp_path / "copy.db"
        assert backup(path, target) == target.stat().st_size
        assert oct(target.stat().st_mode & 0o777) == "0o600"
        report = check(target, KEYS, AUDIT_KEY)
        assert (report.problems, report.ledger_rows, report.certificates, report.audit.rows) == ((), 3, 3, 6)
        store = start(target)
        await store.start()
        await issued(store)
        await store.close()

    async def test_while_the_store_is_written(self, path: Path, tmp_path: Path) -> None:
        store = start(path)
        await store.start()

        async def write() -> None:
            for _ in range(40):
                await issued(store)

        copies = [asyncio.to_thread(backup, path, tmp_path / f"copy{n}.db") for n in range(3)]
        await asyncio.gather(write(), *copies)
        await store.close()
        for number in range(3):
            report = check(tmp_path / f"copy{number}.db", KEYS, AUDIT_KEY)
            assert report.problems == ()
            assert report.audit.rows >= report.ledger_rows + report.certificates

    def test_never_overwrites(self, path: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy.db"
        target.write_text("precious")
        with pytest.raises(StoreRefused, match="never overwrites"):
            backup(path, target)
        assert target.read_text() == "precious"

    def test_that_fails_leaves_nothing(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "copies"
        folder.mkdir()
        with locked(path, 1.0), pytest.raises(StoreUnavailable):
            backup(path, folder / "copy.db", timeout=0.1)
        assert list(folder.iterdir()) == []
        with pytest.raises(StoreUnavailable, match="cannot write the backup"):
            backup(path, tmp_path / "nowhere" / "copy.db")

    def test_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreRefused, match="no store"):
            backup(tmp_path / "gateway.db", tmp_path / "copy.db")


class TestCheck:
    async def test_finds_a_changed_audit_row(self, path: Path) -> None:
        await fill(path)
        change(path, "UPDATE audit SET body = REPLACE(body, 'one_time', 'static') WHERE seq = 2")
        assert check(path, KEYS, AUDIT_KEY).problems == ("row 2 was changed, or written under another audit key",)

    async def test_finds_a_cut_tail_against_heads(self, path: Path) -> None:
        heads = await fill(path)
        change(path, "DELETE FROM audit WHERE seq > 4")
        assert check(path, KEYS, AUDIT_KEY).problems == ()
        [problem] = check(path, KEYS, AUDIT_KEY, heads).problems
        assert "the chain ends at row 4: rows were cut off" in problem

    @pytest.mark.parametrize(
        ("sql", "problem"),
        [
            pytest.param("DELETE FROM inventory", "audit row 2 says enrollment.issued of serial", id="certificate taken out"),
            pytest.param(
                "DELETE FROM inventory", "but the inventory holds no certificate of it", id="answer without certificate"
            ),
            pytest.param(
                "UPDATE inventory SET revoked_at = NULL", "was revoked, but the inventory says that it is not", id="revocation"
            ),
            pytest.param("UPDATE inventory SET serial = '1' || serial", "the inventory does not hold it", id="serial"),
        ],
    )
    async def test_holds_inventory_and_ledger_against_the_audit_trail(self, path: Path, sql: str, problem: str) -> None:
        store = start(path)
        await store.start()
        row = await opened(store)
        certificate = certificate_of(row)
        named: dict[str, Any] = {"upstream_ca": row.upstream_ca, "serial": format(row.serial or 0, "x")}
        granted = event("enrollment.issued", "granted", **named)
        await store.transition(transition(row, certificate=certificate, chain=CHAIN, audit=granted))
        revoked = event("certificate.revoked", "done", **named)
        await store.mark_revoked(certificate.sha256, NOW, RevocationReason.KEY_COMPROMISE, revoked)
        await store.close()
        assert check(path, KEYS, AUDIT_KEY).problems == ()
        change(path, sql)
        report = check(path, KEYS, AUDIT_KEY)
        assert report.audit.problems == ()
        assert any(problem in found for found in report.problems), report.problems

    async def test_of_another_key_says_so(self, path: Path) -> None:
        [problem] = check(path, KeyRing((OTHER,)), AUDIT_KEY).problems
        assert "another store.key" in problem

    async def test_hold_that_was_taken_off_is_no_fault(self, path: Path) -> None:
        store = start(path)
        await store.start()
        row, certificate = await issued(store)
        named: dict[str, Any] = {"upstream_ca": row.upstream_ca, "serial": format(row.serial or 0, "x")}
        for _ in range(2):
            held = event("certificate.revoked", "done", **named)
            await store.mark_revoked(certificate.sha256, NOW, RevocationReason.CERTIFICATE_HOLD, held)
            await store.revive(certificate.sha256, NOW, event("certificate.revived", "done", **named))
        await store.close()
        assert check(path, KEYS, AUDIT_KEY).problems == ()

    async def test_trail_is_read_while_others_write(self, path: Path) -> None:
        store = start(path)
        await store.start()
        await issued(store)
        with audit_trail(path) as rows:
            await issued(store)
            assert [row.seq for row in rows] == [1, 2, 3, 4]
        with audit_trail(path, after=3) as rows:
            assert [row.seq for row in rows] == [4]
        await store.close()

    @pytest.mark.parametrize("command", [check_usable, check, lambda path, *_: audit_trail(path).__enter__()])
    def test_of_nothing(self, tmp_path: Path, command: Callable[[Path, KeyRing, bytes], object]) -> None:
        with pytest.raises(StoreRefused, match="no store"):
            command(tmp_path / "gateway.db", KEYS, AUDIT_KEY)


class TestRekey:
    def seal(self, path: Path, keys: KeyRing) -> None:
        writer = connection.open_writer(path)
        sql = "INSERT INTO sealed (purpose, name, value) VALUES ('eab', 'k1', :value)"
        writer.execute(sql, {"value": keys.encrypt("eab", b"the secret")})
        writer.close()

    def sealed(self, path: Path) -> bytes:
        reader = connection.open_reader(path)
        [(value,)] = reader.execute("SELECT value FROM sealed WHERE purpose = 'eab'").fetchall()
        reader.close()
        return bytes(value)

    def test_seals_everything_under_the_newest_key(self, path: Path) -> None:
        self.seal(path, KEYS)
        report = rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED)
        assert (report.resealed, report.older_challenges, report.older_until) == (3, 0, None)
        assert KeyRing((NEW,)).decrypt("eab", self.sealed(path)) == b"the secret"
        check_usable(path, KeyRing((NEW,)), AUDIT_KEY)
        with pytest.raises(StoreRefused, match="another"):
            check_usable(path, KEYS, AUDIT_KEY)
        with audit_trail(path) as rows:
            assert ["store.rekeyed" in row.body for row in rows] == [True]
        assert check(path, KeyRing((NEW,)), AUDIT_KEY).problems == ()

    async def test_requests_are_sealed_anew_in_portions(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "RESEAL_PAGE", 2)
        store = start(path)
        await store.start()
        rows = [await opened(store, request=b"request %d" % number) for number in range(5)]
        await store.close()
        assert rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED).resealed == 5 + 2
        store = start(path, KeyRing((NEW,)))
        await store.start()
        found = [await store.get_row(row.id) for row in rows]
        assert [row and row.request for row in found] == [b"request %d" % number for number in range(5)]
        await store.close()
        assert rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED).resealed == 2

    async def test_acme_secrets_are_sealed_anew(self, path: Path) -> None:
        bound = external_account(key=b"the key of an external account")
        store = start(path)
        await store.start()
        await store.add_external_account(bound, event())
        of = await registered(store)
        ready = await made_ready(store, of)
        processing = await store.change_order(order_change(ready, OrderStatus.PROCESSING, csr=b"the csr"))
        _, (needed,) = await ordered(store, of)
        trying = await begun(store, needed, payload={"attObj": "AAAA"})
        await store.close()
        assert rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED).resealed == 3 + 2
        store = start(path, KeyRing((NEW,)))
        await store.start()
        assert await store.find_external_account(bound.kid) == bound
        assert await store.find_order(ready.id) == processing
        assert await store.find_authorization(needed.id) == trying
        await store.close()

    async def test_shared_secrets_are_sealed_anew(self, path: Path) -> None:
        store = start(path)
        await store.start()
        secrets = [shared_secret() for _ in range(3)]
        for one in secrets:
            await store.add_secret(one, event())
        await store.close()
        assert rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED).resealed == 3 + 2
        store = start(path, KeyRing((NEW,)))
        await store.start()
        assert [await store.find_secret(one.profile, one.reference) for one in secrets] == secrets
        await store.close()

    async def test_request_of_a_lost_key_stops_it_and_the_old_key_stays_good(self, path: Path) -> None:
        await fill(path, 1)
        change(path, "UPDATE ledger SET request = x'0100'")
        with pytest.raises(StoreUnavailable, match="does not hold"):
            rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED)
        check_usable(path, KEYS, AUDIT_KEY)

    async def test_challenges_of_older_keys_are_still_recognised(self, path: Path) -> None:
        store = start(path)
        await store.start()
        await store.add_challenge(challenge(mac=KEYS.mac("challenge", b"secret")), event())
        await store.close()
        ring = KeyRing((NEW, OLD))
        report = rekey(path, ring, AUDIT_KEY, REKEYED)
        assert (report.older_challenges, report.older_until) == (1, NOW + timedelta(hours=1))
        store = start(path, ring)
        await store.start()
        found = [await store.find_challenge(mac) for mac in ring.macs("challenge", b"secret")]
        assert [row.id if row else None for row in found] == [None, "c1"]
        await store.close()

    def test_without_the_old_key_is_refused_and_changes_nothing(self, path: Path) -> None:
        with pytest.raises(StoreRefused, match="another store"):
            rekey(path, KeyRing((NEW,)), AUDIT_KEY, REKEYED)
        check_usable(path, KEYS, AUDIT_KEY)

    def test_value_of_a_lost_key_stops_it_and_changes_nothing(self, path: Path) -> None:
        self.seal(path, KeyRing((OTHER,)))
        with pytest.raises(StoreRefused, match="does not hold"):
            rekey(path, KeyRing((NEW, OLD)), AUDIT_KEY, REKEYED)
        check_usable(path, KEYS, AUDIT_KEY)
        with audit_trail(path) as rows:
            assert list(rows) == []

    def test_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreRefused, match="no store"):
            rekey(tmp_path / "gateway.db", KEYS, AUDIT_KEY, REKEYED)
