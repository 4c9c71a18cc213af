"""What is done to a store as a file: create or migrate it, back it up, change its keys, read its audit trail."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.audit import AuditEvent
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.store.acme_rows import CHALLENGE_PAYLOAD, EXTERNAL_ACCOUNT_KEY, ORDER_CSR, unseal
from gateway.store.acme_rows import seal as seal_value
from gateway.store.cmp_rows import CMP_SECRET
from gateway.store.interfaces import AuditRow
from gateway.store.keys import KeyRing
from gateway.store.rows import REQUEST, from_micros, to_micros
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.access import (
    LOCK_SECONDS,
    SEALED,
    check_keys,
    check_schema,
    no_store,
    read_revision,
    reading,
    refuse_unknown,
    seal,
    seal_checks,
    writing,
)
from gateway.store.sqlite.heads import read_audit
from gateway.store.sqlite.transaction import Transaction
from gateway.store.tables import SCHEMA

AUDIT_PAGE = 5000
RESEAL_PAGE = 500
"""Values that one transaction of `rekey` seals anew: enrollments wait for it."""
_SEALED_COLUMNS = (
    ("ledger", "id", "request", REQUEST),
    ("acme_external_accounts", "kid", "secret", EXTERNAL_ACCOUNT_KEY),
    ("acme_orders", "id", "csr", ORDER_CSR),
    ("acme_authorizations", "id", "payload", CHALLENGE_PAYLOAD),
    ("cmp_secrets", "id", "secret", CMP_SECRET),
)
"""Table, its key, the sealed column, and the purpose that it is sealed for."""


@dataclass(frozen=True, slots=True)
class RekeyReport:
    """How many values were sealed anew, and what still needs older keys: so many challenges, the last until a time."""

    resealed: int
    older_challenges: int
    older_until: datetime | None


def migrate(path: Path, keys: KeyRing, audit_key: bytes, timeout: float = LOCK_SECONDS) -> tuple[str | None, str]:
    """Create the store, or bring it to this program's schema; returns the revision before (None: new) and after.

    Raises StoreRefused for a store of a newer program or other keys, and StoreUnavailable.
    """
    try:
        sqlite.create(path)
    except OSError as error:
        raise StoreUnavailable(f"cannot create {path}: {error.strerror}") from error
    with writing(path, timeout) as connection:
        before = read_revision(connection)
        if before is not None:
            refuse_unknown(path, before)
            check_keys(path, connection, keys, audit_key)
        if before != SCHEMA:
            from gateway.store.sqlite.upgrade import upgrade  # alembic takes long to import, and serving needs none of it

            upgrade(connection, lambda: seal_checks(connection, keys, audit_key) if before is None else None)
    return before, SCHEMA


def new_store(keys: KeyRing, audit_key: bytes) -> bytes:
    """Return the database file of an empty store, for whoever puts it in its place with other files."""
    with tempfile.TemporaryDirectory(prefix="pki-gateway-") as folder:
        path = Path(folder, "gateway.db")
        migrate(path, keys, audit_key)
        return path.read_bytes()


def check_usable(path: Path, keys: KeyRing, audit_key: bytes, timeout: float = LOCK_SECONDS) -> None:
    """Raise StoreRefused unless the store exists, has this program's schema, one of these store keys and this audit key."""
    if not path.exists():
        raise StoreRefused(no_store(path))
    with writing(path, timeout) as connection:
        check_schema(path, connection)
        check_keys(path, connection, keys, audit_key)


def backup(path: Path, target: Path, timeout: float = LOCK_SECONDS) -> int:
    """Write a consistent copy to the new file `target`, durable when this returns; returns its size in bytes.

    It is the store as it was at one moment; writers go on. Raises StoreRefused where `target` exists or the store does not,
    and StoreUnavailable.
    """
    if not path.exists():
        raise StoreRefused(no_store(path))
    if target.exists():
        raise StoreRefused(f"{target} exists already; a backup never overwrites")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with reading(path, timeout) as connection:
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


def rekey(path: Path, keys: KeyRing, audit_key: bytes, audit: AuditEvent, timeout: float = LOCK_SECONDS) -> RekeyReport:
    """Seal every recoverable value under the newest key: columns in portions, then the rest with the audit row.

    The key check is sealed anew with the last, so that the ring must hold the older keys until all is done; cut short, it
    is simply run again. Whatever writes meanwhile must write under the same newest key. HMACs cannot be made anew:
    challenges made under an older key need it until they expire; the report says how long.
    Raises StoreRefused where the ring lacks a key that is needed, and StoreUnavailable.
    """
    check_usable(path, keys, audit_key, timeout)
    values = sum(_reseal_column(path, keys, timeout, *column) for column in _SEALED_COLUMNS)
    with writing(path, timeout) as connection:
        sql = sqlite.Statements(connection)
        sqlite.begin(connection)
        rows = sql.all(SEALED, {})
        for purpose, name, value in rows:
            seal(sql, keys, purpose, name, keys.decrypt(purpose, value))
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
    return RekeyReport(values + len(rows), count, from_micros(until) if until is not None else None)


@contextlib.contextmanager
def audit_trail(path: Path, after: int = 0, timeout: float = LOCK_SECONDS) -> Iterator[Iterator[AuditRow]]:
    """Every audit row after number `after` in order, without stopping the writers; raises StoreRefused and StoreUnavailable."""
    with reading(path, timeout) as connection:
        yield read_all_audit(sqlite.Statements(connection), after)


def read_all_audit(sql: sqlite.Statements, after: int = 0) -> Iterator[AuditRow]:
    """Return the audit rows after number `after` in order, a page at a time."""
    while page := read_audit(sql, after, AUDIT_PAGE):
        yield from page
        after = page[-1].seq


def _reseal_column(path: Path, keys: KeyRing, timeout: float, table: str, key: str, column: str, purpose: str) -> int:
    page = f"SELECT {key}, {column} FROM {table} WHERE {key} > :after AND {column} IS NOT NULL ORDER BY {key} LIMIT :limit"  # noqa: S608
    update = f"UPDATE {table} SET {column} = :sealed WHERE {key} = :key"  # noqa: S608 - constants
    count, after = 0, ""
    while True:
        with writing(path, timeout) as connection:
            sql = sqlite.Statements(connection)
            sqlite.begin(connection)
            rows = sql.all(page, {"after": after, "limit": RESEAL_PAGE})
            old = [(name, sealed) for name, sealed in rows if not keys.is_newest(sealed)]
            for name, sealed in old:
                sql.execute(update, {"key": name, "sealed": seal_value(keys, purpose, unseal(keys, purpose, sealed))})
            sqlite.commit(connection)
            sqlite.checkpoint(connection, truncate=False)
        count += len(old)
        if len(rows) < RESEAL_PAGE:
            return count
        after = rows[-1][0]


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
