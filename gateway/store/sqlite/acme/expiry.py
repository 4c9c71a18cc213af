"""What ACME only had to keep for a time, ended or deleted in portions."""

from __future__ import annotations

from datetime import datetime

from gateway.store.rows import to_micros
from gateway.store.sqlite.acme.orders import EXPIRED_ERROR
from gateway.store.sqlite.transaction import Transaction

PORTION = 1000
"""Rows of each kind that one transaction deletes or ends."""

_OPEN = "status IN ('pending', 'ready')"
"""Word for word the condition of the partial index, which serves only queries that repeat it."""
_END = (
    f"UPDATE acme_orders SET status = 'invalid', error = :error WHERE {_OPEN} AND id IN "  # noqa: S608 - constants
    f"(SELECT id FROM acme_orders WHERE {_OPEN} AND expires_at <= :now LIMIT :portion)"
)
_OVER = "SELECT id FROM acme_orders WHERE kept_until <= :now AND status <> 'processing' ORDER BY kept_until LIMIT :portion"
_LINKS = f"DELETE FROM acme_order_authorizations WHERE order_id IN ({_OVER})"  # noqa: S608 - constants
_ORDERS = f"DELETE FROM acme_orders WHERE id IN ({_OVER})"  # noqa: S608 - constants
_AUTHORIZATIONS = (
    "DELETE FROM acme_authorizations WHERE id IN "
    "(SELECT id FROM acme_authorizations WHERE kept_until <= :now ORDER BY kept_until LIMIT :portion)"
)


def expire_portion(tx: Transaction, now: datetime) -> int:
    """End and delete up to a portion of each kind; returns how many rows it touched."""
    parameters = {"now": to_micros(now), "portion": PORTION, "error": EXPIRED_ERROR}
    return sum(tx.execute(statement, parameters) for statement in (_END, _LINKS, _ORDERS, _AUTHORIZATIONS))
