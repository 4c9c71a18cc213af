"""What is done to a store as a file: migrate, check, back up, change keys; each holds the flock while it works."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.audit import AuditEvent, AuditHead, AuditReport, verify_chain
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.store.interfaces import AuditRow
from gateway.store.keys import KeyRing
from gateway.store.rows import from_micros, to_micros
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.heads import read_audit
from gateway.store.sqlite.lock import locked
from gateway.store.sqlite.transaction import Transaction
from gateway.store.tables import REVISIONS, SCHEMA

LOCK_SECONDS = 60.0
AUDIT_PAGE = 5000
_KEY_CHECK = ("key-check", "store")
_KEY_CHECK_VALUE = b"pki-gateway store"
_SEALED = "SELECT purpose, name, value FROM sealed ORDER BY purpose, name"
_SEAL = (
    "INSERT INTO sealed (purpose, name, value) VALUES (:purpose, :name, :value) "
    "ON CONFLICT (purpose, name) DO UPDATE SET value = excluded.value"
)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found; `problems` are whole sentences, and empty when all is well."""

    schema: str
    ledger_rows: int
    certificates: int
    audit: AuditReport
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RekeyReport:
    """How many values were sealed anew, and what still needs older keys: so many challenges, the last until a time."""

    resealed: int
    older_challenges: int
    older_until: datetime | None


def migrate(path: Path, keys: KeyRing, timeout: float = LOCK_SECONDS) -> tuple[str | None, str]:
    """Create the store, or bring it to this program's schema; returns the revision before (None: new) and after.

    Raises StoreRefused for a store of a newer program or another key, and StoreUnavailable.
    """
    try:
        sqlite.create(path)
    except OSError as error:
        raise StoreUnavailable(f"cannot create {path}: {error.strerror}") from error
    with _writing(path, timeout) as connection:
        before = _read_revision(connection)
        if before is not None:
            _refuse_unknown(path, before)
            _check_key(path, connection, keys)
        if before != SCHEMA:
            from gateway.store.sqlite.upgrade import upgrade  # alembic takes long to import, and serving needs none of it

            upgrade(connection, lambda: _seal_new(connection, keys) if before is None else None)
    return before, SCHEMA


def check_usable(path: Path, keys: KeyRing, timeout: float = LOCK_SECONDS) -> None:
    """Raise StoreRefused unless the store exists, has this program's schema and one of these keys."""
    if not path.exists():
        raise StoreRefused(f"there is no store at {path}; `pki-gateway store migrate` creates it")
    with _writing(path, timeout) as connection:
        _check_schema(path, connection)
        _check_key(path, connection, keys)


def backup(path: Path, target: Path, timeout: float = LOCK_SECONDS) -> int:
    """Write a consistent copy to the new file `target`, durable when this returns; returns its size in bytes.

    Raises StoreRefused where `target` exists or the store does not, and StoreUnavailable.
    """
    if not path.exists():
        raise StoreRefused(f"there is no store at {path}")
    if target.exists():
        raise StoreRefused(f"{target} exists already; a backup never overwrites")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with _writing(path, timeout) as connection:
            sqlite.copy_to(connection, unfinished)
        _sync_file(unfinished)
        os.link(unfinished, target)
        unfinished.unlink()
        sqlite.sync_folder(target.parent)
    except FileExistsError as error:
        raise StoreRefused(f"{target} exists already; a backup never overwrites") from error
    except OSError as error:
        raise StoreUnavailable(f"cannot write the backup {target}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def check(
    path: Path, keys: KeyRing, audit_key: bytes, heads: Iterable[AuditHead] = (), timeout: float = LOCK_SECONDS
) -> CheckReport:
    """Check the file, its schema, its key and the whole audit chain; raises StoreRefused where it cannot be read at all."""
    if not path.exists():
        raise StoreRefused(f"there is no store at {path}")
    with _writing(path, timeout) as connection:
        damage = sqlite.find_damage(connection)
        if damage:
            raise StoreRefused(f"{path} is damaged: {'; '.join(damage)}; restore it from a backup")
        problems = []
        _check_schema(path, connection)
        try:
            _check_key(path, connection, keys)
        except StoreRefused as error:
            problems.append(str(error))
        audit = verify_chain(_read_all_audit(connection), audit_key, heads)
        sql = sqlite.Statements(connection)
        counts = [sql.one(f"SELECT COUNT(*) FROM {table}", {}) for table in ("ledger", "inventory")]  # noqa: S608
        rows, certificates = (int(count[0]) if count else 0 for count in counts)
        return CheckReport(_read_revision(connection) or "", rows, certificates, audit, (*problems, *audit.problems))


def rekey(path: Path, keys: KeyRing, audit_key: bytes, audit: AuditEvent, timeout: float = LOCK_SECONDS) -> RekeyReport:
    """Seal every recoverable value under the newest key, in one transaction with its audit row.

    HMACs cannot be made anew: challenges made under an older key need it until they expire; the report says how long.
    Raises StoreRefused where the ring lacks a key that is needed, and StoreUnavailable.
    """
    if not path.exists():
        raise StoreRefused(f"there is no store at {path}")
    with _writing(path, timeout) as connection:
        _check_schema(path, connection)
        _check_key(path, connection, keys)
        sql = sqlite.Statements(connection)
        sqlite.begin(connection)
        rows = sql.all(_SEALED, {})
        for purpose, name, value in rows:
            _seal(sql, keys, purpose, name, keys.decrypt(purpose, value))
        transaction = Transaction(sql, audit_key)
        transaction.audit(audit)
        transaction.finish()
        sqlite.commit(connection)
        older = sql.one(
            "SELECT COUNT(*), MAX(expires_at) FROM challenges "
            "WHERE key_id <> :newest AND expires_at > :now AND revoked_at IS NULL",
            {"newest": keys.newest_id, "now": to_micros(audit.at)},
        )
    count, until = older or (0, None)
    return RekeyReport(len(rows), count, from_micros(until) if until is not None else None)


@contextlib.contextmanager
def audit_trail(path: Path, after: int = 0, timeout: float = LOCK_SECONDS) -> Iterator[Iterator[AuditRow]]:
    """Every audit row after number `after` in order, without stopping the writers; raises StoreRefused and StoreUnavailable."""
    if not path.exists():
        raise StoreRefused(f"there is no store at {path}")
    with locked(path, timeout):
        connection = sqlite.open_reader(path, sqlite.BUSY_SECONDS)
    try:
        _check_schema(path, connection)
        yield _read_all_audit(connection, after)
    except sqlite3.Error as error:
        raise sqlite.explain(error, path) from error
    finally:
        with locked(path, timeout):
            connection.close()


@contextlib.contextmanager
def _writing(path: Path, timeout: float) -> Iterator[sqlite3.Connection]:
    """A connection under the flock, closed under it too: the last to close empties the WAL."""
    with locked(path, timeout):
        connection = sqlite.open_writer(path)
        try:
            yield connection
        except sqlite3.Error as error:
            raise sqlite.explain(error, path) from error
        finally:
            with contextlib.suppress(sqlite3.Error):
                sqlite.roll_back(connection)
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _read_revision(connection: sqlite3.Connection) -> str | None:
    if not sqlite.has_table(connection, "alembic_version"):
        return None
    row = sqlite.Statements(connection).one("SELECT version_num FROM alembic_version", {})
    return str(row[0]) if row else None


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    revision = _read_revision(connection)
    if revision is None:
        raise StoreRefused(f"{path} holds no store yet; `pki-gateway store migrate` creates it")
    _refuse_unknown(path, revision)
    if revision != SCHEMA:
        raise StoreRefused(
            f"{path} has schema {revision} and this program needs {SCHEMA}; "
            "run `pki-gateway store backup`, then `pki-gateway store migrate`"
        )


def _refuse_unknown(path: Path, revision: str) -> None:
    if revision not in REVISIONS:
        raise StoreRefused(
            f"{path} has schema {revision}, which a newer pki-gateway wrote; this one knows up to {SCHEMA}: "
            "install the newer program, or restore the backup from before the upgrade"
        )


def _check_key(path: Path, connection: sqlite3.Connection, keys: KeyRing) -> None:
    purpose, name = _KEY_CHECK
    row = sqlite.Statements(connection).one(
        "SELECT value FROM sealed WHERE purpose = :purpose AND name = :name", {"purpose": purpose, "name": name}
    )
    if row is None:
        raise StoreRefused(
            f"{path} has no key check: it was changed by hand or its creation was cut short; restore it from a backup"
        )
    try:
        keys.decrypt(purpose, row[0])
    except StoreRefused:
        raise StoreRefused(
            f"{path} was written under another store.key; give the key that it was written under as a line of the key file"
        ) from None


def _seal_new(connection: sqlite3.Connection, keys: KeyRing) -> None:
    _seal(sqlite.Statements(connection), keys, *_KEY_CHECK, _KEY_CHECK_VALUE)


def _seal(sql: sqlite.Statements, keys: KeyRing, purpose: str, name: str, value: bytes) -> None:
    sql.execute(_SEAL, {"purpose": purpose, "name": name, "value": keys.encrypt(purpose, value)})


def _read_all_audit(connection: sqlite3.Connection, after: int = 0) -> Iterator[AuditRow]:
    sql = sqlite.Statements(connection)
    while page := read_audit(sql, after, AUDIT_PAGE):
        yield from page
        after = page[-1].seq


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
