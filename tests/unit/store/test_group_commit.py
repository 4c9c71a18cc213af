"""One group of writes: isolation of what fails, departing callers, faults of the disk, the flock."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.audit import AuditHead, verify_chain
from gateway.errors import StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, connection, migrate
from gateway.store.sqlite.lock import StoreLock, locked
from gateway.store.sqlite.transaction import Transaction, Undo
from gateway.store.sqlite.writer import CHECKPOINT_OPERATIONS, MAX_GROUP, MAX_TRIES, RETRY_SECONDS
from tests.contract.store.rows import NOW, audit_rows, event, ledger_row, opened, opening

KEYS = KeyRing((bytes(32),))
AUDIT_KEY = b"a" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "gateway.db", KEYS, AUDIT_KEY)
    return tmp_path / "gateway.db"


@pytest.fixture
def heads() -> list[AuditHead]:
    return []


@pytest.fixture
async def store(path: Path, heads: list[AuditHead]) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", heads.append, timeout=2.0)
    await store.start()
    yield store
    await store.close()


@contextlib.contextmanager
def stopped(path: Path) -> Iterator[None]:
    """Keep every writer waiting, so that what is queued meanwhile forms one group."""
    with locked(path, 5.0):
        yield


def put(store: SqliteStore, name: str, then: Exception | None = None) -> asyncio.Future[str]:
    """Queue a write of one lease and one audit row that fails afterwards if told so."""

    def work(tx: Transaction) -> str:
        tx.audit(event(detail=name))
        tx.execute("INSERT INTO leases (name, holder, held_until) VALUES (:name, 'w1', 0)", {"name": name})
        if then is not None:
            raise then
        return name

    return asyncio.ensure_future(store._write(work))


async def names(path: Path) -> list[str]:
    reader = connection.open_reader(path)
    try:
        return [row[0] for row in reader.execute("SELECT name FROM leases ORDER BY name").fetchall()]
    finally:
        reader.close()


async def chain_problems(store: SqliteStore) -> tuple[str, ...]:
    return verify_chain(audit_rows(store), AUDIT_KEY).problems


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(ValueError("mine"), ValueError, id="its own exception"),
        pytest.param(sqlite3.IntegrityError("twice"), StoreUnavailable, id="a broken constraint"),
        pytest.param(UnicodeEncodeError("utf-8", "x", 0, 1, "lone"), UnicodeEncodeError, id="text that is none"),
    ],
)
async def test_failing_operation_leaves_the_group_alone(
    store: SqliteStore, path: Path, fault: Exception, expected: type[Exception]
) -> None:
    with stopped(path):
        works = [put(store, f"n{n}", fault if n in {0, 3, 7} else None) for n in range(8)]
        await asyncio.sleep(0.05)
    answers = await asyncio.gather(*works, return_exceptions=True)
    assert [type(answer) for answer in answers] == [expected if n in {0, 3, 7} else str for n in range(8)]
    assert await names(path) == ["n1", "n2", "n4", "n5", "n6"]
    assert [row.seq for row in audit_rows(store)] == [1, 2, 3, 4, 5]
    assert await chain_problems(store) == ()


async def test_undone_operation_answers_and_leaves_nothing(store: SqliteStore, path: Path) -> None:
    with stopped(path):
        works = [put(store, "a"), put(store, "b", Undo("undone")), put(store, "c")]
        await asyncio.sleep(0.05)
    assert await asyncio.gather(*works) == ["a", "undone", "c"]
    assert await names(path) == ["a", "c"]
    assert await chain_problems(store) == ()


async def test_group_is_one_transaction(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    commit = connection.commit

    def counted(c: sqlite3.Connection) -> None:
        commits.append(1)
        commit(c)

    monkeypatch.setattr(connection, "commit", counted)
    with stopped(path):
        works = [put(store, f"n{n:03}") for n in range(100)]
        await asyncio.sleep(0.05)
    await asyncio.gather(*works)
    assert len(commits) <= 2
    assert MAX_GROUP >= 100


async def test_fault_of_the_disk_fails_the_whole_group_and_passes(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, "before")
    commit = connection.commit

    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(connection, "commit", fail)
    with stopped(path):
        works = [put(store, f"n{n}") for n in range(5)]
        await asyncio.sleep(0.05)
    answers = await asyncio.gather(*works, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
    assert await names(path) == ["before"]
    monkeypatch.setattr(connection, "commit", commit)
    assert await put(store, "after") == "after"
    assert await names(path) == ["after", "before"]
    assert await chain_problems(store) == ()


class TestWhereItRuns:
    """The loop runs statements; the thread waits for the disk, for a flock that stays taken, and for what is long."""

    @pytest.fixture
    def threads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        commit = connection.commit

        def watched(c: sqlite3.Connection) -> None:
            seen.append(f"commit: {threading.current_thread().name}")
            commit(c)

        monkeypatch.setattr(connection, "commit", watched)
        return seen

    @staticmethod
    def note(seen: list[str]) -> Callable[[Transaction], None]:
        return lambda _: seen.append(f"work: {threading.current_thread().name}")

    async def test_statements_on_the_loop_and_the_commit_on_the_thread(self, store: SqliteStore, threads: list[str]) -> None:
        await store._write(self.note(threads))
        assert threads == ["work: MainThread", "commit: store-writer"]

    async def test_what_is_long_on_the_thread(self, store: SqliteStore, threads: list[str]) -> None:
        await store._write(self.note(threads), is_long=True)
        assert threads == ["work: store-writer", "commit: store-writer"]

    async def test_all_on_the_thread_once_the_flock_stays_taken(self, store: SqliteStore, path: Path, threads: list[str]) -> None:
        with stopped(path):
            writing = asyncio.ensure_future(store._write(self.note(threads)))
            await asyncio.sleep(MAX_TRIES * RETRY_SECONDS * 10)
        await writing
        assert threads == ["work: store-writer", "commit: store-writer"]

    async def test_a_slow_disk_does_not_stop_the_loop(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        commit, synced = connection.commit, threading.Event()

        def slow(c: sqlite3.Connection) -> None:
            synced.wait(5)
            commit(c)

        monkeypatch.setattr(connection, "commit", slow)
        works = [put(store, "a"), put(store, "b")]
        await asyncio.sleep(0.05)
        works.append(put(store, "c"))
        await asyncio.sleep(0.05)
        assert not any(work.done() for work in works)
        synced.set()
        assert await asyncio.gather(*works) == ["a", "b", "c"]


class TestForeignLock:
    """Somebody's sqlite3 shell knows no flock and locks the database itself."""

    @pytest.fixture
    def shell(self, path: Path) -> Iterator[sqlite3.Connection]:
        foreign = sqlite3.connect(path, isolation_level=None)
        yield foreign
        foreign.close()

    async def test_is_waited_for_while_the_loop_goes_on(self, store: SqliteStore, path: Path, shell: sqlite3.Connection) -> None:
        shell.execute("BEGIN IMMEDIATE")
        works = [put(store, "a"), put(store, "b")]
        for _ in range(20):
            begun = asyncio.get_running_loop().time()
            await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - begun < 1
        shell.execute("ROLLBACK")
        assert await asyncio.gather(*works) == ["a", "b"]
        assert await names(path) == ["a", "b"]

    async def test_that_stays_makes_writes_fail_with_a_sentence(
        self, path: Path, shell: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "BUSY_SECONDS", 0.1)
        store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", lambda _: None, timeout=5.0)
        await store.start()
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program has locked the database"):
            await put(store, "a")
        shell.execute("ROLLBACK")
        assert await put(store, "b") == "b"
        await store.close()


class TestFlock:
    async def test_held_by_another_makes_writes_fail_and_reads_work(self, store: SqliteStore, path: Path) -> None:
        row = await opened(store)
        other = ledger_row()
        with locked(path, 1.0):
            with pytest.raises(StoreUnavailable, match="within 2 s"):
                await store.open(opening(other))
            assert await store.get_row(row.id) == row
        await asyncio.sleep(0.05)
        await store.ping()
        assert await store.get_row(other.id) is None, "who was told that it failed finds that it did not happen"

    async def test_departed_caller_leaves_nothing(self, store: SqliteStore, path: Path) -> None:
        row = ledger_row()
        with stopped(path):
            task = asyncio.create_task(store.open(opening(row)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await store.ping()
        assert await store.get_row(row.id) is None

    async def test_every_commit_and_checkpoint_holds_it(
        self, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = []

        def note(name: str) -> None:
            original = getattr(connection, name)

            def watched(*args: object, **kwargs: object) -> object:
                fd = os.open(path.with_name("gateway.db.lock"), os.O_RDWR)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    free.append(name)
                except BlockingIOError:
                    pass
                finally:
                    os.close(fd)
                return original(*args, **kwargs)

            monkeypatch.setattr(connection, name, watched)

        for name in ("begin", "commit", "checkpoint", "open_writer"):
            note(name)
        for _ in range(20):
            await asyncio.gather(*(opened(store) for _ in range(30)))
        await store.close()
        assert free == []

    def test_waits_no_longer_than_told(self, path: Path) -> None:
        lock = StoreLock(path)
        with lock.hold(), pytest.raises(StoreUnavailable, match="held by another process"), locked(path, 0.1):
            pytest.fail("two held it")
        lock.close()

    def test_goes_with_its_holder(self, path: Path) -> None:
        pid = os.fork()
        if pid == 0:
            fd = os.open(path.with_name("gateway.db.lock"), os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            signal.pause()
        try:
            with contextlib.suppress(StoreUnavailable):
                while True:
                    with locked(path, 0.0):
                        pass
            os.kill(pid, signal.SIGKILL)
            with locked(path, 5.0):
                pass
        finally:
            os.waitpid(pid, 0)


class TestFullDisk:
    """RLIMIT_FSIZE stands for it: a write past the limit fails with EFBIG, which SQLite reports as any other failed write."""

    @pytest.fixture
    def limit(self) -> Iterator[object]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def set_limit(size: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

        yield set_limit
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    async def test_is_unavailable_never_success_and_recovers(self, store: SqliteStore, path: Path, limit: object) -> None:
        assert callable(limit)
        written = [await opened(store) for _ in range(3)]
        refused = []
        limit(path.with_name("gateway.db-wal").stat().st_size + 20_000)
        try:
            for _ in range(30):
                row = ledger_row(request=bytes(5000))
                try:
                    await store.open(opening(row))
                    written.append(row)
                except StoreUnavailable:
                    refused.append(row)
            with pytest.raises(StoreUnavailable):
                await store.open(opening(ledger_row(request=bytes(30000))))
        finally:
            limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        assert refused
        await store.ping()
        assert [await store.get_row(row.id) for row in written] == written
        assert [await store.get_row(row.id) for row in refused] == [None] * len(refused)
        assert await chain_problems(store) == ()


async def test_folder_that_nobody_may_write_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anything: a read-only open stands for the read-only file system."""
    opened_with = connection._connect
    monkeypatch.setattr(connection, "_connect", lambda p, mode, busy: opened_with(p, "ro", busy))
    store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", lambda _: None, timeout=1.0)
    with pytest.raises(StoreUnavailable, match="SQLITE_READONLY"):
        await store.start()


async def test_database_that_vanished_is_unavailable(store: SqliteStore, path: Path) -> None:
    await opened(store)
    store._writer._drop_connection()  # type: ignore[union-attr]
    path.rename(path.with_name("moved"))
    with pytest.raises(StoreUnavailable):
        await store.ping()
    path.with_name("moved").rename(path)
    await store.ping()


async def test_a_file_put_in_the_place_of_the_store_is_not_written(store: SqliteStore, path: Path) -> None:
    await opened(store)
    path.rename(path.with_name("moved"))
    path.write_bytes(path.with_name("moved").read_bytes())
    with pytest.raises(StoreUnavailable, match="replaced while in use"):
        await store.ping()
    path.with_name("moved").rename(path)
    await store.ping()


class TestHeads:
    async def test_come_at_intervals_and_at_the_end(self, path: Path, heads: list[AuditHead]) -> None:
        store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", heads.append, head_interval=3600, clock=lambda: NOW)
        await store.start()
        for _ in range(3):
            await opened(store)
        assert [head.seq for head in heads] == [1]
        await store.close()
        assert [head.seq for head in heads] == [1, 3]
        assert {head.at for head in heads} == {NOW}

    async def test_are_not_repeated(self, path: Path, heads: list[AuditHead]) -> None:
        store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", heads.append, head_interval=0)
        await store.start()
        await opened(store)
        await store.ping()
        await store.close()
        assert [head.seq for head in heads] == [1]

    async def test_come_in_a_quiet_time_too(self, path: Path, heads: list[AuditHead], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.store.sqlite.writer.IDLE_SECONDS", 0.05)
        store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", heads.append, head_interval=0.4)
        await store.start()
        await opened(store)
        await opened(store)
        assert [head.seq for head in heads] == [1]
        await asyncio.sleep(1)
        assert [head.seq for head in heads] == [1, 2]
        await store.close()

    async def test_whoever_fails_to_take_them_does_not_stop_the_writer(self, path: Path) -> None:
        def fail(_: AuditHead) -> None:
            raise OSError("no space")

        store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", fail, head_interval=0)
        await store.start()
        await opened(store)
        await opened(store)
        await store.close()


async def test_a_cancelled_close_ends_the_thread(path: Path) -> None:
    store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", lambda _: None, timeout=2.0)
    await store.start()
    writer = store._writer
    assert writer is not None
    with stopped(path):
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    await asyncio.to_thread(writer._thread.join, 5)
    assert not writer._thread.is_alive()


async def test_waiting_for_the_flock_is_no_slow_disk(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(metrics, "observe_commit", lambda _, seconds: seen.append(seconds))
    with stopped(path):
        writing = put(store, "a")
        await asyncio.sleep(1)
    await writing
    assert max(seen) < 0.9


async def test_idle_writer_empties_the_wal(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rested = threading.Event()
    checkpoint = connection.checkpoint

    def watched(c: sqlite3.Connection, *, truncate: bool) -> bool:
        done = checkpoint(c, truncate=truncate)
        if truncate and done:
            rested.set()
        return done

    monkeypatch.setattr(connection, "checkpoint", watched)
    await opened(store)
    assert await asyncio.to_thread(rested.wait, 10)
    assert path.with_name("gateway.db-wal").stat().st_size == 0


async def test_store_is_readable_by_its_owner_only(store: SqliteStore, path: Path) -> None:
    await opened(store)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert set(modes.values()) == {"0o600"}, modes


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `PRAGMA synchronous` says at each commit: 2 waits for the disk, 1 does not."""
    found: list[int] = []

    def commit(sql: sqlite3.Connection) -> None:
        found.append(sql.execute("PRAGMA synchronous").fetchone()[0])
        sql.execute("COMMIT")

    monkeypatch.setattr(connection, "commit", commit)
    return found


def lazily(store: SqliteStore, name: str) -> asyncio.Future[str]:
    """Queue a write that need not wait for the disk."""

    def work(tx: Transaction) -> str:
        tx.audit(event(detail=name))
        tx.execute("INSERT INTO leases (name, holder, held_until) VALUES (:name, 'w1', 0)", {"name": name})
        return name

    return asyncio.ensure_future(store._write(work, synced=False))


async def test_what_need_not_be_synced_does_not_wait_for_the_disk(store: SqliteStore, levels: list[int]) -> None:
    await put(store, "a")
    levels.clear()
    assert await lazily(store, "b") == "b"
    assert await put(store, "c") == "c"
    assert levels == [1, 2]


async def test_what_need_not_be_synced_is_seen_by_every_process(path: Path, store: SqliteStore, levels: list[int]) -> None:
    await put(store, "a")
    other = SqliteStore(path, KEYS, AUDIT_KEY, "w2", lambda _: None, timeout=2.0)
    await other.start()
    try:
        await put(other, "b")
        levels.clear()
        assert await lazily(store, "c") == "c"
        with pytest.raises(StoreUnavailable):
            await lazily(other, "c")
        assert levels[0] == 1
    finally:
        await other.close()


async def test_what_need_not_be_synced_does_not_let_the_wal_grow(store: SqliteStore, levels: list[int]) -> None:
    await put(store, "a")
    levels.clear()
    for number in range(CHECKPOINT_OPERATIONS + 2):
        await lazily(store, f"n{number}")
    assert levels.count(2) == 1


async def test_what_need_not_be_synced_is_so_with_what_must_be(store: SqliteStore, path: Path, levels: list[int]) -> None:
    assert await lazily(store, "a") == "a"
    assert list(await asyncio.gather(lazily(store, "b"), put(store, "c"))) == ["b", "c"]
    assert levels == [1, 2]
    assert await names(path) == ["a", "b", "c"]
    assert await chain_problems(store) == ()


async def test_heads_tell_only_what_the_disk_has(path: Path, heads: list[AuditHead]) -> None:
    store = SqliteStore(path, KEYS, AUDIT_KEY, "w1", heads.append, timeout=2.0, head_interval=0.0)
    await store.start()
    try:
        await put(store, "a")
        async with asyncio.timeout(5):
            while not heads:  # the writer's thread tells of a commit when its callers have their answers
                await asyncio.sleep(0.01)
        await lazily(store, "b")
        unsynced = audit_rows(store)[-1].seq
        assert heads[-1].seq < unsynced
    finally:
        await store.close()
    assert heads[-1].seq == unsynced


async def test_what_need_not_be_synced_is_refused_where_the_file_fails(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(connection, "commit", fail)
        for made in (lazily(store, "a"), put(store, "b")):
            with pytest.raises(StoreUnavailable):
                await made
        told = await asyncio.gather(lazily(store, "c"), put(store, "d"), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in told)
    assert await lazily(store, "e") == "e"
    assert await names(path) == ["e"]
