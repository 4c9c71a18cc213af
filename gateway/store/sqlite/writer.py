"""Group commit: one thread drains a queue of operations into one durable transaction at a time.

Callers wait for the sync of the disk, and share it: what arrives while one group is being written forms the next.
An operation that fails leaves the others alone: the group is undone and run again with a savepoint for each. So an
operation does nothing but work on its transaction. A fault of the disk fails the whole group with StoreUnavailable, and
the connection is opened anew for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import structlog

from gateway.errors import StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.metrics.registry import CommitResult
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.lock import StoreLock
from gateway.store.sqlite.transaction import Link, Transaction, Undo

T = TypeVar("T")

MAX_GROUP = 256
PORTION = 32
"""Operations handed over at once; a busy loop would otherwise wake the thread for each, and both would fight for the GIL."""
CHECKPOINT_OPERATIONS = 500
"""About 4,000 pages of WAL: small enough that a read never looks through a long one."""
IDLE_SECONDS = 2.0
MAX_KNOWN_CHAINS = 1000
_OWN_FAULTS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
"""Faults of one operation; every other fault of SQLite is one of the file or the disk."""
log = structlog.get_logger(__name__)


class _Operation:
    """One queued write. Whoever takes the latch first, writer or departing caller, decides whether it runs."""

    __slots__ = ("error", "future", "latch", "result", "work")

    def __init__(self, work: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.latch = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None

    def claim(self) -> bool:
        return self.latch.acquire(blocking=False)

    def give_up(self, seconds: float) -> None:
        """Stop waiting: an operation that has not begun never will."""
        self.claim()
        if not self.future.done():
            self.future.set_exception(StoreUnavailable(f"the store did not make a write durable within {seconds:g} s"))

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupWriter:
    """The writing side of one process."""

    def __init__(self, path: Path, audit_key: bytes, timeout: float, on_commit: Callable[[Link | None], None]) -> None:
        """`on_commit` is called on the writer's thread after each group, with the last audit row that it wrote, and when idle."""
        self._path = path
        self._audit_key = audit_key
        self._timeout = timeout
        self._on_commit = on_commit
        self._arrived: list[_Operation] = []
        self._queue: queue.SimpleQueue[list[_Operation] | None] = queue.SimpleQueue()
        self._lock = StoreLock(path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._since_checkpoint = 0
        self._known_chains: set[bytes] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._closing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def submit(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return its answer once that is durable.

        Raises what `work` raises (then nothing of it was written), or StoreUnavailable: then nothing was written either,
        unless the disk took longer than the timeout over a group that had begun.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        operation = _Operation(work, self._loop.create_future())
        if not self._arrived:
            self._loop.call_soon(self._hand_over)
        self._arrived.append(operation)
        if len(self._arrived) >= PORTION:
            self._hand_over()
        timer = self._loop.call_later(self._timeout, operation.give_up, self._timeout)
        try:
            return await operation.future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            operation.claim()
            raise
        finally:
            timer.cancel()

    def _hand_over(self) -> None:
        """Hand the thread what one turn of the loop brought: a busy loop makes large groups, an idle one does not wait."""
        if self._arrived:
            self._queue.put(self._arrived)
            self._arrived = []

    async def close(self, before_closing: Callable[[], None]) -> None:
        """Finish what is queued, checkpoint and close; `before_closing` runs under the flock."""
        if self._closing:
            return
        self._closing = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, self._timeout + IDLE_SECONDS)
        await asyncio.to_thread(self._close_files, before_closing)

    def _run(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._rest()
                continue
            if first is None or self._write(first):
                return

    def _write(self, group: list[_Operation]) -> bool:
        """Write one group; True when the queue has ended."""
        ended, head = False, None
        try:
            with self._lock.hold():
                ended = self._gather(group)
                head = self._commit([operation for operation in group if operation.claim()])
                self._checkpoint_when_due(len(group))
        except StoreUnavailable as error:
            self._fail(group, error)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
            self._loop.call_soon_threadsafe(_settle, group)
        self._on_commit(head)
        return ended

    def _gather(self, group: list[_Operation]) -> bool:
        """Add what is queued by now; True when the queue has ended."""
        while len(group) < MAX_GROUP:
            try:
                arrived = self._queue.get_nowait()
            except queue.Empty:
                return False
            if arrived is None:
                return True
            group += arrived
        return False

    def _commit(self, group: list[_Operation]) -> Link | None:
        """Run and commit a group; every operation has its result or error afterwards."""
        begun = perf_counter()
        try:
            self._check_file()
            if self._connection is None:
                self._connection = sqlite.open_writer(self._path)
            transaction = self._run_group(self._connection, group)
            transaction.finish()
            sqlite.commit(self._connection)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            metrics.observe_commit(CommitResult.FAILED, perf_counter() - begun)
            self._fail(group, error)
            return None
        metrics.observe_commit(CommitResult.DURABLE, perf_counter() - begun)
        if len(self._known_chains) > MAX_KNOWN_CHAINS:
            self._known_chains.clear()
        self._known_chains |= transaction.new_chains
        return transaction.head

    def _check_file(self) -> None:
        """Raise StoreUnavailable when another file took the place of the one that this process began with.

        A store that was moved or restored under a running server would go on beside the new one: each would grant alone.
        """
        found = sqlite.identify(self._path)
        self._file = self._file or found
        if found is None or found != self._file:
            raise StoreUnavailable(f"{self._path} is gone or was replaced while in use: stop all that uses it, then start again")

    def _run_group(self, connection: sqlite3.Connection, group: list[_Operation]) -> Transaction:
        """Run a group without savepoints, which cost as much as the work; once more with them if one must be undone."""
        sqlite.begin(connection)
        transaction = Transaction(sqlite.Statements(connection), self._audit_key, self._known_chains)
        for operation in group:
            before = transaction.changes
            if not _perform(transaction, operation) and transaction.changes != before:
                break
        else:
            return transaction
        sqlite.roll_back(connection)
        sqlite.begin(connection)
        transaction = Transaction(sqlite.Statements(connection), self._audit_key, self._known_chains)
        for operation in group:
            mark = transaction.mark()
            sqlite.set_savepoint(connection)
            if _perform(transaction, operation):
                sqlite.release_savepoint(connection)
            else:
                sqlite.return_to_savepoint(connection)
                transaction.return_to(mark)
        return transaction

    def _fail(self, group: list[_Operation], error: Exception) -> None:
        """Nothing of the group was written: tell everyone, and let the next group begin with a new connection."""
        reason = sqlite.explain(error, self._path) if isinstance(error, sqlite3.Error) else error
        log.error("the store did not take a write", error=str(reason), path=str(self._path))
        self._drop_connection()
        for operation in group:
            operation.result, operation.error = None, StoreUnavailable(str(reason))

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                sqlite.roll_back(self._connection)
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _checkpoint_when_due(self, operations: int) -> None:
        self._since_checkpoint += operations
        if self._since_checkpoint >= CHECKPOINT_OPERATIONS:
            self._checkpoint(truncate=False)

    def _rest(self) -> None:
        """Nothing to do: empty the WAL, and let the audit head out."""
        self._on_commit(None)
        if self._since_checkpoint:
            with contextlib.suppress(StoreUnavailable), self._lock.hold(timeout=0.0):
                self._checkpoint(truncate=True)

    def _checkpoint(self, *, truncate: bool) -> None:
        if self._connection is not None:
            try:
                if sqlite.checkpoint(self._connection, truncate=truncate) or not truncate:
                    self._since_checkpoint = 0
            except sqlite3.Error as error:  # the WAL keeps what was committed, and grows
                log.warning("the WAL could not be moved into the database", error=str(error), path=str(self._path))

    def _close_files(self, before_closing: Callable[[], None]) -> None:
        with contextlib.suppress(StoreUnavailable), self._lock.hold(timeout=self._timeout):
            self._checkpoint(truncate=True)
            before_closing()
            self._drop_connection()
        self._lock.close()


def _perform(transaction: Transaction, operation: _Operation) -> bool:
    """Run one operation; False when what it wrote must be undone. Faults of file or disk leave by the exception."""
    operation.result = operation.error = None
    try:
        operation.result = operation.work(transaction)
    except Undo as undo:
        operation.result = undo.answer
    except _OWN_FAULTS as error:
        log.exception("a write broke a rule of the schema")
        operation.error = StoreUnavailable(f"{type(error).__name__}: {error}")
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to this caller alone
        operation.error = error
    else:
        return True
    return False


def _settle(group: list[_Operation]) -> None:
    for operation in group:
        operation.settle()
