"""Checks a whole store in one snapshot: file, schema, keys, audit chain, and whether audit, ledger and inventory agree."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.audit import MAX_PROBLEMS, AuditHead, AuditReport, verify_chain
from gateway.errors import StoreRefused
from gateway.store.interfaces import AuditRow
from gateway.store.keys import KeyRing
from gateway.store.sqlite import connection as sqlite
from gateway.store.sqlite.access import LOCK_SECONDS, check_keys, read_revision, reading
from gateway.store.sqlite.files import read_all_audit

ISSUED = frozenset({"enrollment.issued", "request.attached"})
REVOKED = "certificate.revoked"
REVIVED = "certificate.revived"
_WORDS = ("issued", "attached", "revoked", "revived")
_CERTIFICATE = "SELECT revoked_at FROM inventory WHERE upstream_ca = :upstream_ca AND serial = :serial"
_DELIVERED = (
    "SELECT l.id, l.state FROM ledger l WHERE l.state IN ('issued', 'held', 'delivered', 'confirmed', 'revoked') "
    "AND NOT EXISTS (SELECT 1 FROM inventory i WHERE i.request_id = l.id) ORDER BY l.id LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found; `problems` are whole sentences, and empty when all is well."""

    schema: str
    ledger_rows: int
    certificates: int
    audit: AuditReport
    problems: tuple[str, ...]


def check(
    path: Path, keys: KeyRing, audit_key: bytes, heads: Iterable[AuditHead] = (), timeout: float = LOCK_SECONDS
) -> CheckReport:
    """Check the store as it is at one moment, while others write; raises StoreRefused where it cannot be read at all."""
    with reading(path, timeout) as connection:
        sqlite.begin_reading(connection)
        damage = sqlite.find_damage(connection)
        if damage:
            raise StoreRefused(f"{path} is damaged: {'; '.join(damage)}; restore it from a backup")
        key_problems = _key_problems(path, connection, keys, audit_key)
        sql = sqlite.Statements(connection)
        comparison = _Comparison(sql)
        audit = verify_chain(comparison.follow(read_all_audit(sql)), audit_key, heads)
        comparison.look_at_ledger()
        counts = [sql.one(f"SELECT COUNT(*) FROM {table}", {}) for table in ("ledger", "inventory")]  # noqa: S608
        rows, certificates = (int(count[0]) if count else 0 for count in counts)
        problems = (*key_problems, *audit.problems, *comparison.problems)
        return CheckReport(read_revision(connection) or "", rows, certificates, audit, problems)


def _key_problems(path: Path, connection: sqlite3.Connection, keys: KeyRing, audit_key: bytes) -> tuple[str, ...]:
    try:
        check_keys(path, connection, keys, audit_key)
    except StoreRefused as error:
        return (str(error),)
    return ()


class _Comparison:
    """Holds the inventory and the ledger against what the audit trail says was issued and revoked.

    The chain proves that its own rows were not changed; this shows a certificate that was taken out of the inventory, or
    a revocation that was taken back, behind its back.
    """

    def __init__(self, sql: sqlite.Statements) -> None:
        self.problems: list[str] = []
        self._sql = sql
        self._taken_back: dict[tuple[str, str], int] = {}
        """Certificates that were revoked and are in force, with the row that says the former: one may have been on hold."""

    def follow(self, rows: Iterable[AuditRow]) -> Iterator[AuditRow]:
        """Hand the rows on, and look at each that names a certificate."""
        for row in rows:
            if any(word in row.body for word in _WORDS):
                self._look_at(row)
            yield row
        for (ca, serial), seq in self._taken_back.items():
            self._add(f"audit row {seq} says that serial {serial} of {ca} was revoked, but the inventory says that it is not")

    def look_at_ledger(self) -> None:
        """Look for requests that were answered with a certificate which is not in the inventory."""
        for id, state in self._sql.all(_DELIVERED, {"limit": MAX_PROBLEMS}):
            self._add(f"request {id} is {state}, but the inventory holds no certificate of it")

    def _look_at(self, row: AuditRow) -> None:
        try:
            event = json.loads(row.body)
            name, ca, serial = event["event"], event["upstream_ca"], event["serial"]
        except (ValueError, KeyError, TypeError):
            return
        if name == REVIVED:
            self._taken_back.pop((ca, serial), None)
        if name not in ISSUED and name != REVOKED:
            return
        found = self._sql.one(_CERTIFICATE, {"upstream_ca": ca, "serial": serial})
        if found is None:
            self._add(f"audit row {row.seq} says {name} of serial {serial} of {ca}, but the inventory does not hold it")
        elif name == REVOKED and found[0] is None:
            self._taken_back.setdefault((ca, serial), row.seq)

    def _add(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
