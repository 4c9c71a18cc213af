"""One operation inside a group: its statements and the audit rows that it writes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.audit import GENESIS, AuditEvent, canonical_body, link
from gateway.store import tables
from gateway.store.rows import insert

CHAIN = "main"
"""The name of the only chain of a store with one file."""

_LAST = "SELECT seq, hash FROM audit WHERE chain = :chain ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO audit (chain, seq, previous, hash, body) VALUES "
_AUDIT_ROWS = 32
"""Audit rows of one INSERT."""
_ADD_CHAIN = insert(tables.chains, "ON CONFLICT (sha256) DO NOTHING")


class Queries(Protocol):
    """What runs SQL with named parameters."""

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement that changes rows; returns how many."""

    def one(self, sql: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row, or None."""

    def all(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return every row."""


class Undo(Exception):
    """Ends an operation without effect: what it wrote is undone, and `answer` is what its caller gets."""

    def __init__(self, answer: object) -> None:
        super().__init__("undone")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Link:
    """The last row of the chain."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a transaction stood before an operation."""

    head: Link | None
    rows: int
    changes: int


class Transaction:
    """What the operations of a group work with: SQL, and an audit chain that grows in the same transaction.

    Every statement costs more in Python than in SQLite. So audit rows are gathered and inserted many at a time by `finish`,
    and a chain that was stored before is not offered again.
    """

    def __init__(self, sql: Queries, audit_key: bytes, known_chains: Container[bytes] = ()) -> None:
        self.one = sql.one
        self.all = sql.all
        self.head: Link | None = None
        """None until the first audit row of this transaction."""
        self.new_chains: set[bytes] = set()
        self.changes = 0
        """How many rows were changed so far."""
        self._sql = sql
        self._audit_key = audit_key
        self._known_chains = known_chains
        self._audit_rows: list[tuple[int, bytes, bytes, str]] = []

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement that changes rows; returns how many."""
        count = self._sql.execute(sql, parameters)
        self.changes += count
        return count

    def returning(self, sql: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run a statement that changes at most one row and returns it."""
        row = self._sql.one(sql, parameters)
        self.changes += row is not None
        return row

    def add_chain(self, sha256: bytes, packed: bytes) -> None:
        """Store a certificate chain once."""
        if sha256 not in self._known_chains and sha256 not in self.new_chains:
            self.execute(_ADD_CHAIN, {"sha256": sha256, "certificates": packed})
            self.new_chains.add(sha256)

    def audit(self, *events: AuditEvent) -> None:
        """Append rows to the chain."""
        for event in events:
            last = self.head or self._read_last()
            body, seq = canonical_body(event), last.seq + 1
            row_hash = link(self._audit_key, seq, last.hash, body)
            self._audit_rows.append((seq, last.hash, row_hash, body))
            self.head = Link(seq, row_hash)
            self.changes += 1

    def mark(self) -> Mark:
        """Remember this point."""
        return Mark(self.head, len(self._audit_rows), self.changes)

    def return_to(self, mark: Mark) -> None:
        """Forget what was gathered since `mark`; the database itself undoes the rest."""
        self.head, self.changes = mark.head, mark.changes
        del self._audit_rows[mark.rows :]
        self.new_chains.clear()

    def finish(self) -> None:
        """Insert the gathered audit rows; the last thing before the commit."""
        for start in range(0, len(self._audit_rows), _AUDIT_ROWS):
            parameters: dict[str, Any] = {"chain": CHAIN}
            values = []
            for number, (seq, previous, row_hash, body) in enumerate(self._audit_rows[start : start + _AUDIT_ROWS]):
                parameters |= {f"s{number}": seq, f"p{number}": previous, f"h{number}": row_hash, f"b{number}": body}
                values.append(f"(:chain, :s{number}, :p{number}, :h{number}, :b{number})")
            self._sql.execute(_APPEND + ", ".join(values), parameters)
        self._audit_rows.clear()

    def _read_last(self) -> Link:
        row = self.one(_LAST, {"chain": CHAIN})
        return Link(row[0], row[1]) if row else Link(0, GENESIS)


Work = Callable[[Transaction], Any]
