"""Quotas: uses counted in slots of time, in SQL that every database understands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from gateway.store.interfaces import QuotaTake
from gateway.store.rows import to_micros
from gateway.store.sqlite.transaction import Queries, Transaction

QUOTAS = 16
"""Quotas that one statement takes; no profile and credential have so many."""
_PARAMETERS = tuple((f"name{n}", f"slot{n}", f"expires_at{n}", f"since{n}", f"most{n}") for n in range(QUOTAS))
"""The names of each quota's parameters in that statement."""

EXACT_LIMIT = 256
"""Quotas up to this size are counted to the microsecond, larger ones in slots of a 64th of their window."""

_UNBOUNDED = (1 << 63) - 1
_USED = "SELECT COALESCE(SUM(uses), 0) FROM quota_uses WHERE name = :name AND slot > :since"
_TAKE = (
    "INSERT INTO quota_uses (name, slot, uses, expires_at) SELECT q.name, q.slot, 1, q.expires_at FROM (%s) q "
    "WHERE (SELECT COALESCE(SUM(u.uses), 0) FROM quota_uses u WHERE u.name = q.name AND u.slot > q.since) < q.most "
    "ON CONFLICT (name, slot) DO UPDATE SET uses = quota_uses.uses + 1"
)
"""Counts and takes every quota of a request at once; a quota that is full is not among the rows that it changes."""
_QUOTA = "SELECT :name{0} AS name, :slot{0} AS slot, :expires_at{0} AS expires_at, :since{0} AS since, :most{0} AS most"


def take(tx: Transaction, quotas: Sequence[QuotaTake], at: datetime) -> list[tuple[str, int]] | None:
    """Count one use of each quota; returns the slots that counted it, so that they can be given back.

    None where one is full: then the operation is to be undone, because others may have counted.
    """
    return _count(tx, quotas, to_micros(at), bounded=True)


def count(tx: Transaction, quotas: Sequence[QuotaTake], at: datetime) -> None:
    """Count one use of each quota, full or not."""
    _count(tx, quotas, to_micros(at), bounded=False)


def give_back(tx: Transaction, slots: Sequence[tuple[str, int]]) -> None:
    """Take back what `take` counted."""
    for name, slot in slots:
        tx.execute("UPDATE quota_uses SET uses = uses - 1 WHERE name = :name AND slot = :slot", {"name": name, "slot": slot})


def has_room(sql: Queries, quota: QuotaTake, at: datetime) -> bool:
    """Whether a quota has room for one more use."""
    used = sql.one(_USED, {"name": quota.key, "since": to_micros(at) - quota.window * 1_000_000})
    return used is None or bool(used[0] < quota.limit)


def _count(tx: Transaction, quotas: Sequence[QuotaTake], now: int, *, bounded: bool) -> list[tuple[str, int]] | None:
    slots = []
    for some in (quotas[start : start + QUOTAS] for start in range(0, len(quotas), QUOTAS)):
        uses: dict[str, Any] = {}
        for quota, (name, slot_name, expires_at, since, most) in zip(some, _PARAMETERS, strict=False):
            window = quota.window * 1_000_000
            width = 1 if quota.limit <= EXACT_LIMIT else max(window // 64, 1)
            slot = (now // width + 1) * width - 1
            uses[name], uses[slot_name], uses[expires_at] = quota.key, slot, slot + window
            uses[since], uses[most] = now - window, quota.limit if bounded else _UNBOUNDED
            slots.append((quota.key, slot))
        if tx.execute(_take_statement(len(some)), uses) != len(some):
            return None
    return slots


@lru_cache(maxsize=QUOTAS)
def _take_statement(quotas: int) -> str:
    return _TAKE % " UNION ALL ".join(_QUOTA.format(number) for number in range(quotas))
