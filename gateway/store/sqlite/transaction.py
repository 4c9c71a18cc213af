"""One operation inside a group: its statements and the audit rows that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.audit import GENESIS, AuditEvent, canonical_body, link

CHAIN = "main"
"""The name of the only chain of a store with one file."""

_LAST = "SELECT seq, hash FROM audit WHERE chain = :chain ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO audit (chain, seq, previous, hash, body) VALUES (:chain, :seq, :previous, :hash, :body)"


class Queries(Protocol):
    """What runs SQL with named parameters."""

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement that changes rows; returns how many."""

    def one(self, sql: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row, or None."""

    def all(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return every row."""


class Undo(Exception):  # noqa: N818 - an outcome, no error
    """Ends an operation without effect: what it wrote is undone, and `answer` is what its caller gets."""

    def __init__(self, answer: object) -> None:
        super().__init__("undone")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Link:
    """The last row of the chain."""

    seq: int
    hash: bytes


class Transaction:
    """What an operation works with: SQL, and an audit chain that grows in the same transaction."""

    def __init__(self, sql: Queries, audit_key: bytes) -> None:
        self.execute = sql.execute
        self.one = sql.one
        self.all = sql.all
        self.head: Link | None = None
        """None until the first audit row of this transaction."""
        self._audit_key = audit_key

    def audit(self, *events: AuditEvent) -> None:
        """Append rows to the chain."""
        for event in events:
            last = self.head or self._read_last()
            body, seq = canonical_body(event), last.seq + 1
            row_hash = link(self._audit_key, seq, last.hash, body)
            self.execute(_APPEND, {"chain": CHAIN, "seq": seq, "previous": last.hash, "hash": row_hash, "body": body})
            self.head = Link(seq, row_hash)

    def _read_last(self) -> Link:
        row = self.one(_LAST, {"chain": CHAIN})
        return Link(row[0], row[1]) if row else Link(0, GENESIS)


Work = Callable[[Transaction], Any]
