"""Everything that only SQLite knows: how a file is opened, committed, checkpointed, copied and checked."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.errors import StoreRefused, StoreUnavailable

Row = tuple[Any, ...]


class LockedError(Exception):
    """Another program has locked the database, and does not know the flock."""


BUSY_SECONDS = 5.0
"""How long a writer waits for what does not know the flock: recovery after a crash, or somebody's sqlite3 shell."""
_RETRY_SECONDS = 0.005

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def open_writer(path: Path) -> sqlite3.Connection:
    """Open for writing: WAL, every commit synced, no checkpoint of its own. The caller holds the flock.

    Raises StoreUnavailable where the file or its folder cannot be written, StoreRefused where it is no database.
    """
    try:
        connection = _connect(path, "rw", BUSY_SECONDS)
        try:
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "wal_autocheckpoint=0",
                "cache_size=-16384",
                "foreign_keys=ON",
                "trusted_schema=OFF",
                "busy_timeout=0",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            _require_wal(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return connection


def open_reader(path: Path, busy_seconds: float = 0.25) -> sqlite3.Connection:
    """Open for reading only; each statement sees the newest commit. Raises as `open_writer`."""
    try:
        connection = _connect(path, "ro", busy_seconds)
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA trusted_schema=OFF")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return connection


def create(path: Path) -> None:
    """Create an empty database file that only its owner may read; SQLite gives the WAL the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)


def identify(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a database file, None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once a group: pathlib doubles its cost
    except OSError:
        return None
    return status.st_dev, status.st_ino


def begin(connection: sqlite3.Connection, patience: float = BUSY_SECONDS) -> None:
    """Begin a transaction that may write; raises LockedError when that takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() >= deadline:
                raise LockedError("another program has locked the database: end it") from error
            time.sleep(_RETRY_SECONDS)
        else:
            return


@contextlib.contextmanager
def unsynced(connection: sqlite3.Connection) -> Iterator[None]:
    """Have what is committed inside reach the file, and so every other process, without waiting for the disk.

    The next commit outside takes it along: the WAL is synced whole. A process that dies loses nothing of it, a machine that fails
    before that does.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        roll_back(connection)
        connection.execute("PRAGMA synchronous=FULL")


def begin_reading(connection: sqlite3.Connection) -> None:
    """Begin a transaction in which every read sees the same commit."""
    connection.execute("BEGIN")


def commit(connection: sqlite3.Connection) -> None:
    """Make the transaction durable: returns after the WAL was synced."""
    connection.execute("COMMIT")


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo the transaction if SQLite has not done so itself after a disk fault."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def set_savepoint(connection: sqlite3.Connection) -> None:
    """Begin what may be undone by itself."""
    connection.execute("SAVEPOINT operation")


def release_savepoint(connection: sqlite3.Connection) -> None:
    """Keep what was done since the savepoint."""
    connection.execute("RELEASE operation")


def return_to_savepoint(connection: sqlite3.Connection) -> None:
    """Undo what was done since the savepoint."""
    connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")


def checkpoint(connection: sqlite3.Connection, *, truncate: bool) -> bool:
    """Move the WAL into the database as far as readers let it; the caller holds the flock.

    `truncate` also empties the WAL file. It never waits for a reader: False says that one was in the way.
    """
    rows = connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchall()
    return bool(rows and rows[0][0] == 0)


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """Write a compact copy of one commit to the new file `target`, without WAL; `connection` may be read-only."""
    connection.execute("PRAGMA query_only=OFF")  # it would forbid to write the copy too
    connection.execute("VACUUM INTO :target", {"target": str(target)})


def find_damage(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return what `PRAGMA integrity_check` finds."""
    try:
        lines = tuple(row[0] for row in connection.execute("PRAGMA integrity_check(20)").fetchall())
    except sqlite3.DatabaseError as error:
        return (str(error),)
    return () if lines == ("ok",) else lines


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a table exists."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name", {"name": name}).fetchall()
    return bool(found)


def explain(error: sqlite3.Error, path: Path) -> StoreUnavailable | StoreRefused:
    """Turn a fault of SQLite into the store's own: what is damaged is refused, all else is unavailable."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    if code in DAMAGED:
        return StoreRefused(f"{path} is damaged or no SQLite database ({name}: {error}); restore it from a backup")
    return StoreUnavailable(f"{path}: {name}: {error}")


def sync_folder(folder: Path) -> None:
    """Make a created or renamed file name durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Statements:
    """Runs SQL with named parameters on one connection; every cursor is read to its end, so no read stays open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement that changes rows; returns how many."""
        return self.connection.execute(sql, parameters).rowcount

    def one(self, sql: str, parameters: Mapping[str, Any]) -> Row | None:
        """Return the first row, or None."""
        rows = self.connection.execute(sql, parameters).fetchall()
        return rows[0] if rows else None

    def all(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        """Return every row."""
        return self.connection.execute(sql, parameters).fetchall()


def _require_wal(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA journal_mode").fetchall() != [("wal",)]:
        raise StoreUnavailable(f"{path} is on a file system where SQLite cannot keep a WAL; move it to a local disk")


def _connect(path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
    )
