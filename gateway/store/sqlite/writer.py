"""Group commit: what is asked for while one group is being made durable forms the next, and shares its sync of the disk.

The event loop runs the statements of a group itself: each would otherwise hand the interpreter to a thread and back, which costs
more than the statement. A thread waits where waiting has no bound: for the disk, and for a flock that stays taken.

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
from dataclasses import dataclass, field
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

MAX_GROUP = 128
"""Operations of one group: a few milliseconds of the loop."""
RETRY_SECONDS = 0.0005
MAX_TRIES = 40
"""How often the loop looks for a free flock before the thread waits for it."""
CHECKPOINT_OPERATIONS = 500
"""About 4,000 pages of WAL: small enough that a read never looks through a long one."""
IDLE_SECONDS = 2.0
MAX_KNOWN_CHAINS = 1000
_OWN_FAULTS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
"""Faults of one operation; every other fault of SQLite is one of the file or the disk."""
log = structlog.get_logger(__name__)


class _Operation:
    """One queued write. Whoever takes the latch first, writer or departing caller, decides whether it runs."""

    __slots__ = ("error", "future", "is_long", "latch", "result", "synced", "work")

    def __init__(self, work: Callable[[Transaction], Any], future: asyncio.Future[Any], *, is_long: bool, synced: bool) -> None:
        self.work = work
        self.future = future
        self.is_long = is_long
        self.synced = synced
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


@dataclass(slots=True)
class _Group:
    """What becomes durable together: its statements have run in `transaction`, or met `error`; with neither the thread runs them.

    A group of no operations lets the thread do what there is time for when nothing is written.
    """

    operations: list[_Operation]
    begun: float = field(default_factory=perf_counter)
    transaction: Transaction | None = None
    error: Exception | None = None


class GroupWriter:
    """The writing side of one process.

    Flock, connection and transaction belong to one group at a time, and pass with it from the loop to the thread.
    """

    def __init__(self, path: Path, audit_key: bytes, timeout: float, on_commit: Callable[[Link | None], None]) -> None:
        """`on_commit` is called on the writer's thread after each group, with the last audit row that it wrote, and when idle."""
        self._path = path
        self._audit_key = audit_key
        self._timeout = timeout
        self._on_commit = on_commit
        self._arrived: list[_Operation] = []
        self._writing = False
        """Whether a group is on its way, from its turn on until it is settled."""
        self._tries = 0
        self._groups: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._lock = StoreLock(path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._since_checkpoint = 0
        self._known_chains: set[bytes] = set()
        self._unsynced_head: Link | None = None
        """The last audit row that is committed and that the disk may not have."""
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._closing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def submit(self, work: Callable[[Transaction], T], *, is_long: bool = False, synced: bool = True) -> T:
        """Run `work` in a transaction and return its answer once that is durable; what `is_long` runs on the thread.

        What is not `synced` is answered once every process sees it: a machine that fails may forget it, but nothing that was
        written before what it remembers.
        Raises what `work` raises (then nothing of it was written), or StoreUnavailable: then nothing was written either,
        unless the disk took longer than the timeout over a group that had begun.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        return await self._queue(work, is_long=is_long, synced=synced)

    async def close(self, before_closing: Callable[[], None]) -> None:
        """Finish what is queued, checkpoint and close; `before_closing` runs under the flock."""
        if self._closing:
            return
        self._closing = True
        try:
            with contextlib.suppress(StoreUnavailable):
                await self._queue(lambda _: None, is_long=True)  # all that was asked for before comes before it
        finally:
            if self._idle is not None:
                self._idle.cancel()
            self._groups.put(None)
        await asyncio.to_thread(self._thread.join, self._timeout + IDLE_SECONDS)
        await asyncio.to_thread(self._close_files, before_closing)

    # On the loop

    async def _queue(self, work: Callable[[Transaction], T], *, is_long: bool, synced: bool = True) -> T:
        operation = _Operation(work, self._loop.create_future(), is_long=is_long, synced=synced)
        self._arrived.append(operation)
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._take_turn)  # after all that this turn of the loop brings
        timer = self._loop.call_later(self._timeout, operation.give_up, self._timeout)
        try:
            return await operation.future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            operation.claim()
            raise
        finally:
            timer.cancel()

    def _take_turn(self) -> None:
        """Begin the next group, here or on the thread; while another process writes, try again a little later.

        One of which nobody waits for the disk begins and ends here.
        """
        operations = self._arrived[:MAX_GROUP]
        group = _Group(operations)
        try:
            here = self._connection is not None and self._tries < MAX_TRIES and not any(o.is_long for o in operations)
            if here and not self._lock.take():
                self._tries += 1
                self._loop.call_later(RETRY_SECONDS, self._take_turn)
                return
            if here and self._may_stay_unsynced(operations) and self._write_unsynced(group):
                return
            if here:
                with contextlib.suppress(sqlite.LockedError):  # the thread waits for who does not know the flock
                    group.transaction = self._prepare(operations, patience=0.0)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            group.error = error
        self._tries = 0
        del self._arrived[:MAX_GROUP]
        self._groups.put(group)

    def _may_stay_unsynced(self, operations: list[_Operation]) -> bool:
        """Whether nobody waits for the disk; now and then the thread writes even so, because the WAL has to be kept short."""
        return not any(o.synced for o in operations) and self._since_checkpoint < CHECKPOINT_OPERATIONS

    def _write_unsynced(self, group: _Group) -> bool:
        """Commit a group here and give back the flock; False, and nothing is written, while somebody else has the database."""
        try:
            with sqlite.unsynced(self._connect()):
                transaction = self._prepare(group.operations, patience=0.0)
                sqlite.commit(self._connect())
        except sqlite.LockedError:
            return False
        self._lock.release()
        self._known_chains |= transaction.new_chains
        self._unsynced_head = transaction.head or self._unsynced_head
        self._since_checkpoint += len(group.operations)
        self._tries = 0
        del self._arrived[: len(group.operations)]
        self._end_turn(group)
        return True

    def _end_turn(self, group: _Group) -> None:
        """Settle a group that the thread is done with, and begin the next."""
        for operation in group.operations:
            operation.settle()
        self._writing = bool(self._arrived)
        if self._arrived:
            self._take_turn()
        elif not self._closing:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self._loop.call_later(IDLE_SECONDS, self._rest)

    def _rest(self) -> None:
        """Have the thread do what waits for a pause, again and again until there is something to write."""
        if not self._writing and not self._closing:
            self._writing = True
            self._groups.put(_Group([]))

    # On the thread

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            head = self._write(group) if group.operations else self._empty_wal()
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
                self._loop.call_soon_threadsafe(self._end_turn, group)
            self._on_commit(head)

    def _write(self, group: _Group) -> Link | None:
        """Make one group durable and give back the flock; every operation has its result or error afterwards."""
        try:
            transaction = self._make_durable(group)
            if transaction is None:
                return None
            self._note_durable(group, transaction)
            head, self._unsynced_head = transaction.head or self._unsynced_head, None
            return head
        finally:
            self._lock.release()

    def _make_durable(self, group: _Group) -> Transaction | None:
        """Commit a group; None where it failed as a whole."""
        try:
            transaction = self._prepared(group)
            sqlite.commit(self._connect())
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            metrics.observe_commit(CommitResult.FAILED, perf_counter() - group.begun)
            self._fail(group.operations, error)
            return None
        return transaction

    def _prepared(self, group: _Group) -> Transaction:
        """Return the transaction of a group whose statements have run, here if they have not; raises what they met."""
        if group.error is not None:
            raise group.error
        if group.transaction is None:
            self._lock.wait()
            group.begun = perf_counter()  # what was waited for is another's work
            return self._prepare(group.operations, patience=sqlite.BUSY_SECONDS)
        return group.transaction

    def _note_durable(self, group: _Group, transaction: Transaction) -> None:
        metrics.observe_commit(CommitResult.DURABLE, perf_counter() - group.begun)
        if len(self._known_chains) > MAX_KNOWN_CHAINS:
            self._known_chains.clear()
        self._known_chains |= transaction.new_chains
        self._since_checkpoint += len(group.operations)
        if self._since_checkpoint >= CHECKPOINT_OPERATIONS:
            self._checkpoint(truncate=False)

    # On either

    def _check_file(self) -> None:
        """Raise StoreUnavailable when another file took the place of the one that this process began with.

        A store that was moved or restored under a running server would go on beside the new one: each would grant alone.
        """
        found = sqlite.identify(self._path)
        self._file = self._file or found
        if found is None or found != self._file:
            raise StoreUnavailable(f"{self._path} is gone or was replaced while in use: stop all that uses it, then start again")

    def _prepare(self, operations: list[_Operation], patience: float) -> Transaction:
        """Run every statement of a group, under the flock; only the commit is left.

        Raises LockedError, and has claimed none of them, when a program that does not know the flock has locked the database for
        longer than `patience` seconds.
        """
        self._check_file()
        connection = self._connect()
        sqlite.begin(connection, patience)
        transaction = self._run_group(connection, [operation for operation in operations if operation.claim()])
        transaction.finish()
        return transaction

    def _connect(self) -> sqlite3.Connection:
        self._connection = self._connection or sqlite.open_writer(self._path)
        return self._connection

    def _run_group(self, connection: sqlite3.Connection, group: list[_Operation]) -> Transaction:
        """Run a group without savepoints, which cost as much as the work; once more with them if one must be undone."""
        transaction = Transaction(sqlite.Statements(connection), self._audit_key, self._known_chains)
        for operation in group:
            before = transaction.changes
            if not _perform(transaction, operation) and transaction.changes != before:
                break
        else:
            return transaction
        sqlite.roll_back(connection)
        self._begin_again(connection)
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

    @staticmethod
    def _begin_again(connection: sqlite3.Connection) -> None:
        try:
            sqlite.begin(connection, patience=0.0)
        except sqlite.LockedError as error:  # too late to hand the group to the thread: its operations are claimed
            raise StoreUnavailable(str(error)) from error

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

    def _empty_wal(self) -> Link | None:
        """Have the disk take all that was committed; returns the last audit row of which that was not certain before."""
        if self._since_checkpoint:
            with contextlib.suppress(StoreUnavailable), self._lock.hold(timeout=0.0):
                self._checkpoint(truncate=True)
        if self._since_checkpoint:
            return None
        head, self._unsynced_head = self._unsynced_head, None
        return head

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
