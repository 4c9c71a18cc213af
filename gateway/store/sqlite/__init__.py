"""The store in one SQLite file, shared by the workers of one machine."""

from gateway.store.sqlite.files import CheckReport, backup, check, migrate, rekey
from gateway.store.sqlite.store import SqliteStore

__all__ = ["CheckReport", "SqliteStore", "backup", "check", "migrate", "rekey"]
