"""Statements of revocations that CAs are to be told of."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache

from gateway.audit import AuditEvent
from gateway.store import tables
from gateway.store.interfaces import PendingRevocation
from gateway.store.rows import PENDING_SELECT, insert, pending_columns, read_pending, to_micros
from gateway.store.sqlite.transaction import Queries, Transaction

_ADD = insert(tables.pending_revocations, "ON CONFLICT (sha256) DO NOTHING")
_BEGIN = "UPDATE pending_revocations SET next_at = :until WHERE sha256 = :sha256 AND next_at = :seen"
_PUT_OFF = (
    "UPDATE pending_revocations SET next_at = :until, attempts = attempts + 1, cause = :cause "
    "WHERE sha256 = :sha256 AND next_at = :seen"
)


def add(tx: Transaction, pending: PendingRevocation) -> None:
    """Remember a revocation; one that is remembered already stays as it is."""
    tx.execute(_ADD, pending_columns(pending))


def find_due(sql: Queries, now: datetime, limit: int, resting: Collection[str]) -> tuple[PendingRevocation, ...]:
    """Return what is due, the longest due first."""
    named = {f"r{number}": name for number, name in enumerate(sorted(resting))}
    rows = sql.all(due(len(named)), {"now": to_micros(now), "limit": limit} | named)
    return tuple(read_pending(row) for row in rows)


@lru_cache(maxsize=64)
def due(resting: int) -> str:
    """Return the query of `find_due`, which leaves out so many CAs."""
    names = ", ".join(f":r{number}" for number in range(resting))
    others = f"AND p.upstream_ca NOT IN ({names}) " if resting else ""
    return f"{PENDING_SELECT} WHERE p.next_at <= :now {others}ORDER BY p.next_at LIMIT :limit"


def put_off(tx: Transaction, seen: PendingRevocation, until: datetime, cause: str | None) -> bool:
    """Let one wait, by compare-and-swap on the time that was seen."""
    parameters = {"sha256": seen.sha256, "seen": to_micros(seen.next_at), "until": to_micros(until), "cause": cause}
    return tx.execute(_BEGIN if cause is None else _PUT_OFF, parameters) == 1


def end(tx: Transaction, sha256: bytes, audit: AuditEvent) -> bool:
    """Forget one."""
    if tx.execute("DELETE FROM pending_revocations WHERE sha256 = :sha256", {"sha256": sha256}) != 1:
        return False
    tx.audit(audit)
    return True


def list_pending(sql: Queries, limit: int, offset: int) -> tuple[PendingRevocation, ...]:
    """Return a page of them, the oldest first."""
    query = PENDING_SELECT + "ORDER BY p.revoked_at, p.sha256 LIMIT :limit OFFSET :offset"
    return tuple(read_pending(row) for row in sql.all(query, {"limit": limit, "offset": offset}))


def find(sql: Queries, sha256: bytes) -> PendingRevocation | None:
    """Return one."""
    row = sql.one(PENDING_SELECT + "WHERE p.sha256 = :sha256", {"sha256": sha256})
    return read_pending(row) if row else None
