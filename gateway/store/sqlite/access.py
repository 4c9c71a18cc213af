"""Who may open the store as a file: the flock to write, a snapshot to read, and the checks of schema and keys."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StoreRefused
from gateway.store.keys import KeyRing
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.lock import locked
from gateway.store.tables import REVISIONS, SCHEMA

LOCK_SECONDS = 60.0
SEALED = "SELECT purpose, name, value FROM sealed ORDER BY purpose, name"
_STORE_KEY = ("key-check", "store")
_STORE_KEY_VALUE = b"pki-gateway store"
_AUDIT_KEY = ("key-check", "audit")
_SEAL = (
    "INSERT INTO sealed (purpose, name, value) VALUES (:purpose, :name, :value) "
    "ON CONFLICT (purpose, name) DO UPDATE SET value = excluded.value"
)


@contextlib.contextmanager
def writing(path: Path, timeout: float) -> Iterator[sqlite3.Connection]:
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


@contextlib.contextmanager
def reading(path: Path, timeout: float) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a store of this program's schema, while others write.

    The flock is held only for the first read, which may have to rebuild the WAL index after a crash, and for closing.
    Between them it is not needed: what SQLite before 3.51.3 can do to a WAL takes two connections that write or checkpoint,
    and a reader does neither. Its open transaction only keeps checkpoints from reusing the WAL, which grows meanwhile.
    """
    if not path.exists():
        raise StoreRefused(no_store(path))
    with locked(path, timeout):
        connection = sqlite.open_reader(path, sqlite.BUSY_SECONDS)
        try:
            check_schema(path, connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise sqlite.explain(error, path) from error
            raise
    try:
        yield connection
    except sqlite3.Error as error:
        raise sqlite.explain(error, path) from error
    finally:
        with locked(path, timeout):
            connection.close()


def no_store(path: Path) -> str:
    """Return what is said where the file is missing: an empty store in its place would have forgotten every revocation."""
    return (
        f"there is no store at {path}: put it back, or restore a backup; "
        "only for a new installation, `pki-gateway store migrate` creates an empty one"
    )


def read_revision(connection: sqlite3.Connection) -> str | None:
    """Return the schema revision; None where the file holds no store."""
    if not sqlite.has_table(connection, "alembic_version"):
        return None
    row = sqlite.Statements(connection).one("SELECT version_num FROM alembic_version", {})
    return str(row[0]) if row else None


def check_schema(path: Path, connection: sqlite3.Connection) -> None:
    """Raise StoreRefused unless the file has this program's schema."""
    revision = read_revision(connection)
    if revision is None:
        raise StoreRefused(
            f"{path} holds no store: restore a backup; only for a new installation, `pki-gateway store migrate` creates one"
        )
    refuse_unknown(path, revision)
    if revision != SCHEMA:
        raise StoreRefused(
            f"{path} has schema {revision} and this program needs {SCHEMA}; "
            "run `pki-gateway store backup`, then `pki-gateway store migrate`"
        )


def refuse_unknown(path: Path, revision: str) -> None:
    """Raise StoreRefused for a schema of a newer program."""
    if revision not in REVISIONS:
        raise StoreRefused(
            f"{path} has schema {revision}, which a newer pki-gateway wrote; this one knows up to {SCHEMA}: "
            "install the newer program, or restore the backup from before the upgrade"
        )


def check_keys(path: Path, connection: sqlite3.Connection, keys: KeyRing, audit_key: bytes) -> None:
    """Raise StoreRefused unless both keys are those that the store was created under.

    A row of the audit chain that was written under another key could never be verified again.
    """
    try:
        keys.decrypt(_STORE_KEY[0], _read_check(path, connection, _STORE_KEY))
        fingerprint = keys.decrypt(_AUDIT_KEY[0], _read_check(path, connection, _AUDIT_KEY))
    except _MissingCheck:
        raise
    except StoreRefused:
        raise StoreRefused(
            f"{path} was written under another store.key; give the key that it was written under as a line of the key file"
        ) from None
    if not hmac.compare_digest(fingerprint, _fingerprint(audit_key)):
        raise StoreRefused(
            f"{path} keeps its audit chain under another audit.key; put back the key that the store was created with"
        )


def seal_checks(connection: sqlite3.Connection, keys: KeyRing, audit_key: bytes) -> None:
    """Remember in a new store which keys it belongs to."""
    sql = sqlite.Statements(connection)
    seal(sql, keys, *_STORE_KEY, _STORE_KEY_VALUE)
    seal(sql, keys, *_AUDIT_KEY, _fingerprint(audit_key))


def seal(sql: sqlite.Statements, keys: KeyRing, purpose: str, name: str, value: bytes) -> None:
    """Store a value that must be recovered."""
    sql.execute(_SEAL, {"purpose": purpose, "name": name, "value": keys.encrypt(purpose, value)})


class _MissingCheck(StoreRefused):
    """The store does not say which keys it belongs to."""


def _read_check(path: Path, connection: sqlite3.Connection, check: tuple[str, str]) -> bytes:
    row = sqlite.Statements(connection).one(
        "SELECT value FROM sealed WHERE purpose = :purpose AND name = :name", {"purpose": check[0], "name": check[1]}
    )
    if row is None:
        raise _MissingCheck(
            f"{path} has no key check: it was changed by hand or its creation was cut short; restore it from a backup"
        )
    return bytes(row[0])


def _fingerprint(audit_key: bytes) -> bytes:
    return hmac.digest(audit_key, b"pki-gateway audit key check", hashlib.sha256)
