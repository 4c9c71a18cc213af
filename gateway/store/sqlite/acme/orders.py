"""Statements of ACME orders: compare-and-swap of their status, and what an authorization decides about them (RFC 8555 §7.1.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from gateway.acme import Authorization, AuthorizationStatus, Order, OrderStatus, Problem
from gateway.errors import Reason
from gateway.store import tables
from gateway.store.acme import NewOrder, OrderChange
from gateway.store.acme_rows import KEPT, ORDER_SELECT, micros, read_order, write_problem
from gateway.store.keys import KeyRing
from gateway.store.rows import Columns, to_micros
from gateway.store.sqlite import quotas as quota_uses
from gateway.store.sqlite.acme.statements import insert_many, listing, numbered
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

_KEPT = KEPT // timedelta(microseconds=1)
_COLUMNS = [column.name for column in tables.acme_orders.columns]
_INSERT = (
    f"INSERT INTO acme_orders ({', '.join(_COLUMNS)}) SELECT {', '.join(':' + name for name in _COLUMNS)} "  # noqa: S608
    "WHERE EXISTS (SELECT 1 FROM acme_accounts a LEFT JOIN acme_external_accounts e ON e.kid = a.external_account "
    "WHERE a.id = :account AND a.status = 'valid' "
    "AND (a.external_account IS NULL OR (e.kid IS NOT NULL AND e.revoked_at IS NULL)))"
)
"""Only for an account that is in force, and whose external account is."""
_REPLACED = (
    "SELECT id, status IN ('pending', 'ready') AND expires_at <= :now FROM acme_orders "
    "WHERE replaces_sha256 = :sha256 AND replaces_sha256 IS NOT NULL AND status <> 'invalid'"
)
_EXPIRE = "UPDATE acme_orders SET status = 'invalid', error = :error WHERE id = :id"
_STATUS = "SELECT status FROM acme_accounts WHERE id = :account"
_VALIDITY = "SELECT id, status, expires_at FROM acme_authorizations WHERE id IN (%s)"
_NEED = "id IN (SELECT order_id FROM acme_order_authorizations WHERE authorization_id = :authorization)"
_ROLL_UP = (
    f"UPDATE acme_orders SET status = 'ready' WHERE status = 'pending' AND {_NEED} "  # noqa: S608 - constants
    "AND NOT EXISTS (SELECT 1 FROM acme_order_authorizations l LEFT JOIN acme_authorizations z ON z.id = l.authorization_id "
    "WHERE l.order_id = acme_orders.id AND (z.id IS NULL OR z.status <> 'valid'))"
)
"""Writers come one after another, so that of two authorizations that become valid at once the later sees the other."""
_FAIL = (
    "UPDATE acme_orders SET status = 'invalid', error = :error, kept_until = :kept_until "  # noqa: S608 - a constant
    f"WHERE status IN ('pending', 'ready') AND {_NEED}"
)
_CANCEL = (
    "UPDATE acme_orders SET status = 'invalid', error = :error, kept_until = :kept_until "
    "WHERE account = :account AND status IN ('pending', 'ready')"
)
_CHANGE = (
    "UPDATE acme_orders SET status = :to, worker = CASE WHEN :release = 1 THEN '' ELSE COALESCE(:new_worker, worker) END, "  # noqa: S608
    "lease_until = CASE WHEN :release = 1 THEN NULL ELSE COALESCE(:lease_until, lease_until) END, "
    "next_at = CASE WHEN :release = 1 THEN :next_at ELSE COALESCE(:next_at, next_at) END, "
    "attempts = COALESCE(:attempts, attempts), error = COALESCE(:error, error), "
    "csr = CASE WHEN :forget_csr = 1 THEN NULL ELSE COALESCE(:csr, csr) END, csr_sha256 = COALESCE(:csr_sha256, csr_sha256), "
    "public_key_sha256 = COALESCE(:public_key_sha256, public_key_sha256), request_id = COALESCE(:request_id, request_id), "
    "certificate = COALESCE(:certificate, certificate), expires_at = COALESCE(:expires_at, expires_at), "
    "counted_for = CASE WHEN :to IN ('invalid', 'ready') THEN NULL ELSE COALESCE(:external_account, counted_for) END, "
    "kept_until = CASE WHEN :to = 'valid' THEN COALESCE((SELECT not_after + :kept FROM inventory WHERE sha256 = :certificate), "
    "kept_until) WHEN :to = 'invalid' THEN :at + :kept ELSE kept_until END "
    "WHERE id = :id AND status IN (%s) AND (:worker IS NULL OR worker = :worker) RETURNING " + ", ".join(_COLUMNS)
)
_COUNT = (
    "UPDATE acme_external_accounts SET certificates = certificates + 1 WHERE kid = :kid AND revoked_at IS NULL "
    "AND (max_certificates IS NULL OR certificates < max_certificates)"
)
_GIVE_BACK = "UPDATE acme_external_accounts SET certificates = certificates - 1 WHERE kid = :kid AND certificates > 0"
_COUNTED = "SELECT counted_for FROM acme_orders WHERE id = :id"
LONGEST_HOLD = timedelta(minutes=10)
"""No worker holds an order, or lets it wait, for so long: what ends later was written under a clock that ran ahead."""
DUE = ORDER_SELECT + (
    "WHERE o.status = 'processing' AND (o.next_at IS NULL OR o.next_at <= :now OR o.next_at > :beyond) "
    "AND (o.worker = '' OR o.lease_until IS NULL OR o.lease_until <= :now OR o.lease_until > :beyond) "
    "ORDER BY o.next_at, o.id LIMIT :limit"
)
_FIRST_PAGE = (
    "SELECT id FROM acme_orders WHERE account = :account AND status <> 'invalid' ORDER BY created_at DESC, id DESC LIMIT :limit"
)
NEXT_PAGE = (
    "SELECT id FROM acme_orders WHERE account = :account AND (created_at, id) < (:created_at, :after) AND status <> 'invalid' "
    "ORDER BY created_at DESC, id DESC LIMIT :limit"
)
_ENDED = frozenset({AuthorizationStatus.INVALID, AuthorizationStatus.DEACTIVATED, AuthorizationStatus.REVOKED})
_EXPIRED = Problem(Reason.MALFORMED, "the order has expired")
EXPIRED_ERROR = write_problem(_EXPIRED)


def add(tx: Transaction, new: NewOrder, columns: Columns, authorizations: list[Columns]) -> Order | Reason:
    """Add an order with its new authorizations, both given as columns too; anything that stands against it undoes it all."""
    order = new.order
    if order.replaces_sha256 is not None:
        _replace(tx, order.replaces_sha256, order.created_at)
    if quota_uses.take(tx, new.quotas, order.created_at) is None:
        raise Undo(Reason.RATE_LIMITED)
    status, error = _judge(tx, order, new.authorizations)
    if tx.execute(_INSERT, columns | {"status": status.value, "error": write_problem(error)}) != 1:
        raise Undo(_refusal(tx, order.account))
    if authorizations:
        insert_many(tx, tables.acme_authorizations, authorizations)
    links = [{"authorization_id": id, "order_id": order.id} for id in order.authorizations]
    insert_many(tx, tables.acme_order_authorizations, links)
    tx.audit(new.audit)
    return replace(order, status=status, error=error)


def find(sql: Queries, keys: KeyRing, id: str) -> Order | None:
    """Return one order."""
    row = sql.one(ORDER_SELECT + "WHERE o.id = :id", {"id": id})
    return read_order(row, keys) if row else None


def list_ids(sql: Queries, account: str, after: str | None, limit: int) -> tuple[str, ...]:
    """Return a page of an account's orders, newest first (RFC 8555 §7.1.2.1)."""
    if after is None:
        return tuple(row[0] for row in sql.all(_FIRST_PAGE, {"account": account, "limit": limit}))
    last = sql.one("SELECT created_at FROM acme_orders WHERE id = :id AND account = :account", {"id": after, "account": account})
    if last is None:
        return ()
    page = {"account": account, "created_at": last[0], "after": after, "limit": limit}
    return tuple(row[0] for row in sql.all(NEXT_PAGE, page))


def search(sql: Queries, keys: KeyRing, profile: str | None, status: OrderStatus | None, limit: int) -> tuple[Order, ...]:
    """Return orders of all accounts, newest first."""
    asked = {"profile": profile, "status": None if status is None else status.value}
    conditions = [f"o.{name} = :{name}" for name, value in asked.items() if value is not None]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    query = ORDER_SELECT + where + "ORDER BY o.created_at DESC, o.id DESC LIMIT :limit"
    return tuple(read_order(row, keys) for row in sql.all(query, asked | {"limit": limit}))


def find_due(sql: Queries, keys: KeyRing, now: datetime, limit: int) -> tuple[Order, ...]:
    """Return orders in processing that somebody is to go on with."""
    times = {"now": to_micros(now), "beyond": to_micros(now + LONGEST_HOLD)}
    return tuple(read_order(row, keys) for row in sql.all(DUE, times | {"limit": limit}))


def change(tx: Transaction, keys: KeyRing, change: OrderChange, sealed_csr: bytes | None) -> Order | Reason | None:
    """Apply a change by compare-and-swap; None when the order is not as expected."""
    if not change.expected:
        return None
    counted = None
    if change.external_account is not None or change.to in {OrderStatus.INVALID, OrderStatus.READY}:
        row = tx.one(_COUNTED, {"id": change.id})
        counted = row[0] if row else None
    changed = tx.returning(_change_statement(change.expected), _change_columns(change, sealed_csr))
    if changed is None:
        return None
    if change.to in {OrderStatus.INVALID, OrderStatus.READY}:
        if counted is not None:
            tx.execute(_GIVE_BACK, {"kid": counted})
    elif change.external_account is not None and counted is None:
        _count_certificate(tx, change.external_account)
    if change.audit is not None:
        tx.audit(change.audit)
    return read_order(changed, keys)


def roll_up(tx: Transaction, authorization: str) -> int:
    """Make orders ready that waited for this authorization alone; returns how many."""
    return tx.execute(_ROLL_UP, {"authorization": authorization})


def fail(tx: Transaction, authorization: str, error: str | None, at: datetime) -> int:
    """End pending and ready orders that need an authorization which is over; returns how many."""
    return tx.execute(_FAIL, {"authorization": authorization, "error": error, "kept_until": to_micros(at + KEPT)})


def cancel_of_account(tx: Transaction, account: str, error: str | None, at: datetime) -> int:
    """End pending and ready orders of an account; returns how many."""
    return tx.execute(_CANCEL, {"account": account, "error": error, "kept_until": to_micros(at + KEPT)})


def _replace(tx: Transaction, sha256: bytes, now: datetime) -> None:
    """Let another order replace a certificate, unless one does already (RFC 9773 §5); one whose time is over does not."""
    for id, expired in tx.all(_REPLACED, {"sha256": sha256, "now": to_micros(now)}):
        if not expired:
            raise Undo(Reason.ALREADY_REPLACED)
        tx.execute(_EXPIRE, {"id": id, "error": EXPIRED_ERROR})


def _judge(tx: Transaction, order: Order, new: Iterable[Authorization]) -> tuple[OrderStatus, Problem | None]:
    """Return what the order is, by its authorizations as they are in this moment."""
    states = {row.id: row.status for row in new}
    known = [id for id in order.authorizations if id not in states]
    if known:
        names = numbered("id", known)
        for id, status, expires_at in tx.all(_VALIDITY % listing("id", len(names)), names):
            is_over = expires_at <= to_micros(order.created_at)
            states[id] = AuthorizationStatus.INVALID if is_over else AuthorizationStatus(status)
    found = [states.get(id, AuthorizationStatus.INVALID) for id in order.authorizations]
    if any(status in _ENDED for status in found):
        return OrderStatus.INVALID, Problem(Reason.VALIDATION_UNAUTHORIZED, "an authorization of this order is over")
    if found and all(status is AuthorizationStatus.VALID for status in found):
        return OrderStatus.READY, order.error
    return OrderStatus.PENDING, order.error


def _refusal(tx: Transaction, account: str) -> Reason:
    row = tx.one(_STATUS, {"account": account})
    return Reason.CREDENTIAL_REVOKED if row == ("valid",) else Reason.ACCOUNT_DEACTIVATED


def _count_certificate(tx: Transaction, kid: str) -> None:
    if tx.execute(_COUNT, {"kid": kid}) == 1:
        return
    row = tx.one("SELECT revoked_at FROM acme_external_accounts WHERE kid = :kid", {"kid": kid})
    raise Undo(Reason.CREDENTIAL_REVOKED if row is None or row[0] is not None else Reason.RATE_LIMITED)


@lru_cache(maxsize=32)
def _change_statement(expected: frozenset[OrderStatus]) -> str:
    return _CHANGE % ", ".join(f"'{status.value}'" for status in sorted(expected))


def _change_columns(change: OrderChange, sealed_csr: bytes | None) -> dict[str, Any]:
    return {
        "id": change.id,
        "to": change.to.value,
        "at": to_micros(change.at),
        "kept": _KEPT,
        "worker": change.worker,
        "new_worker": change.new_worker,
        "lease_until": micros(change.lease_until),
        "next_at": micros(change.next_at),
        "attempts": change.attempts,
        "error": write_problem(change.error),
        "csr": sealed_csr,
        "csr_sha256": change.csr_sha256,
        "public_key_sha256": change.public_key_sha256,
        "request_id": change.request_id,
        "certificate": change.certificate,
        "expires_at": micros(change.expires_at),
        "external_account": change.external_account,
        "release": int(change.release),
        "forget_csr": int(change.forget_csr),
    }
