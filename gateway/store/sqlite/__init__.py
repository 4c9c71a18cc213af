"""The store in one SQLite file, shared by the workers of one machine."""

from gateway.store.sqlite.check import CheckReport, check
from gateway.store.sqlite.files import RekeyReport, audit_trail, backup, check_usable, migrate, new_store, rekey
from gateway.store.sqlite.lock import locked
from gateway.store.sqlite.store import SqliteStore

__all__ = [
    "CheckReport",
    "RekeyReport",
    "SqliteStore",
    "audit_trail",
    "backup",
    "check",
    "check_usable",
    "locked",
    "migrate",
    "new_store",
    "rekey",
]
