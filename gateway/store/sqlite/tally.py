"""Counts of what the store holds, for those who watch it."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.store.interfaces import Tally
from gateway.store.sqlite.transaction import Queries

_UNFINISHED = (
    "SELECT COALESCE(SUM(state = 'pending' AND waiting_for = 'approval'), 0), "
    "COALESCE(SUM((state = 'pending' AND waiting_for = 'upstream') "
    "OR (state = 'open' AND worker = '' AND waiting_for <> 'queue')), 0), "
    "COALESCE(SUM(state = 'unknown'), 0), COALESCE(SUM(waiting_for = 'queue'), 0) "
    "FROM ledger l WHERE l.state IN ('open', 'pending', 'unknown')"
)
"""The condition is the partial index's."""
_ORDERS = "SELECT COUNT(*) FROM acme_orders WHERE status IN ('pending', 'ready')"
_FINALIZATIONS = "SELECT COUNT(*) FROM acme_orders WHERE status = 'processing'"
_CHALLENGES = "SELECT COUNT(*) FROM acme_authorizations WHERE trying IS NOT NULL"
_CONFIRMATIONS = "SELECT COUNT(*) FROM ledger WHERE state = 'delivered' AND confirm_by IS NOT NULL"
_REVOCATIONS = "SELECT upstream_ca, COUNT(*) FROM pending_revocations GROUP BY upstream_ca"
_RESERVED = "SELECT kind, COUNT(*) FROM reservations WHERE kind = :kind"


def take(sql: Queries, kinds: Iterable[str]) -> Tally:
    """Count unfinished requests, reservations of the given kinds, and revocations that CAs are to be told of."""
    [(approval, upstream, doubt, queue)] = sql.all(_UNFINISHED, {})
    reserved = {kind: sql.all(_RESERVED, {"kind": kind})[0][1] for kind in kinds}
    counted = tuple(sql.all(statement, {})[0][0] for statement in (_ORDERS, _FINALIZATIONS, _CHALLENGES, _CONFIRMATIONS))
    return Tally(approval, upstream, doubt, reserved, queue, dict(sql.all(_REVOCATIONS, {})), *counted)
