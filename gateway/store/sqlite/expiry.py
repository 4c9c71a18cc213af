"""Deletes what only had to be kept for a time, in portions, so that nobody waits long behind it."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.store.rows import to_micros
from gateway.store.sqlite.ledger import UNFINISHED
from gateway.store.sqlite.transaction import Transaction

PORTION = 1000
"""Rows of each kind that one transaction deletes."""

GRACE = timedelta(days=1)
"""How long what has run out stays: a clock that ran ahead for a while, or was set back, must neither make a used challenge new,
nor have a retransmission signed twice, nor empty a quota; and operators ask why a challenge failed."""

_EXPIRED_KEYS = (
    "DELETE FROM request_keys WHERE request_key IN "  # noqa: S608 - a constant
    "(SELECT k.request_key FROM request_keys k JOIN ledger l ON l.id = k.request_id "
    "WHERE k.kept_until <= :grace AND l.updated_at + k.answer_kept <= :grace "
    f"AND l.state NOT IN {UNFINISHED} LIMIT :portion)"
)
_EXPIRED_QUOTAS = (
    "DELETE FROM quota_uses WHERE expires_at <= :grace AND (name, slot) IN "
    "(SELECT name, slot FROM quota_uses WHERE expires_at <= :grace LIMIT :portion)"
)
_EXPIRED_CHALLENGES = "DELETE FROM challenges WHERE id IN (SELECT id FROM challenges WHERE expires_at <= :grace LIMIT :portion)"
_EXPIRED_RESERVATIONS = (
    "DELETE FROM reservations WHERE (kind, name) IN (SELECT r.kind, r.name FROM reservations r WHERE r.expires_at <= :grace "
    "AND NOT EXISTS (SELECT 1 FROM challenges h WHERE r.kind = 'one_time' AND h.id = r.name) "
    "AND NOT EXISTS (SELECT 1 FROM cmp_secrets s WHERE r.kind = 'cmp_secret' AND s.id = r.name) LIMIT :portion)"
)
_EXPIRED_SECRETS = "DELETE FROM cmp_secrets WHERE id IN (SELECT id FROM cmp_secrets WHERE expires_at <= :grace LIMIT :portion)"
_LAPSED_LEASES = "DELETE FROM leases WHERE name IN (SELECT name FROM leases WHERE held_until <= :grace LIMIT :portion)"


def expire_portion(tx: Transaction, now: datetime) -> int:
    """Delete up to a portion of each kind; returns how many rows went. Ledger, inventory and audit always stay."""
    parameters = {"grace": to_micros(now - GRACE), "portion": PORTION}
    statements = (
        _EXPIRED_KEYS,
        _EXPIRED_QUOTAS,
        _EXPIRED_CHALLENGES,
        _EXPIRED_SECRETS,
        _EXPIRED_RESERVATIONS,
        _LAPSED_LEASES,
    )
    return sum(tx.execute(statement, parameters) for statement in statements)
