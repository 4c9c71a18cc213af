"""Statements of the ledger: opening, transitions, leases and look-ups, in SQL that every database understands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, RequestId, Reservation
from gateway.store import tables
from gateway.store.interfaces import (
    AlreadyOpen,
    InventoryRow,
    LedgerRow,
    LedgerState,
    Opened,
    Opening,
    OpeningRefused,
    QuotaTake,
    Transition,
)
from gateway.store.rows import (
    LEDGER_SELECT,
    insert,
    inventory_columns,
    ledger_columns,
    pack_chain,
    read_ledger,
    to_micros,
    to_serial,
)
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

UNFINISHED = "('open', 'pending', 'unknown', 'held')"
"""States whose request key never runs out: the request is being worked on, and one request has one certificate."""

EXACT_LIMIT = 256
"""Quotas up to this size are counted to the microsecond, larger ones in slots of a 64th of their window."""

_REQUEST = (
    LEDGER_SELECT + "JOIN request_keys k ON k.request_id = l.id "
    f"WHERE k.request_key = :key AND (k.expires_at > :now OR l.state IN {UNFINISHED})"
)
_TRANSACTION = (
    LEDGER_SELECT + "WHERE l.profile = :profile AND l.protocol = :protocol AND l.transaction_id = :transaction "
    "AND l.requester_key = :key ORDER BY l.created_at DESC, l.id DESC LIMIT 1"
)
_LAPSED = LEDGER_SELECT + (
    "WHERE (l.state IN ('open', 'unknown') AND l.lease_until <= :now) "
    "OR (l.state = 'pending' AND l.waiting_for = 'upstream' AND l.poll_at <= :now) ORDER BY l.lease_until, l.id LIMIT :limit"
)

_INSERT_LEDGER = insert(tables.ledger)
_INSERT_CERTIFICATE = insert(tables.inventory)
_INSERT_KEY = insert(tables.request_keys)
_RESERVE = insert(tables.reservations, "ON CONFLICT (kind, name) DO NOTHING")
_TAKE = insert(tables.quota_uses, "ON CONFLICT (name, slot) DO UPDATE SET uses = quota_uses.uses + 1")
_ADD_CHAIN = insert(tables.chains, "ON CONFLICT (sha256) DO NOTHING")
_RENEW = (
    "UPDATE inventory SET renewed_by = :key WHERE sha256 = :renews AND revoked_at IS NULL "
    "AND (renewed_by IS NULL OR renewed_by = :key)"
)
_CHANGE = (
    "UPDATE ledger SET state = :to, updated_at = :at, worker = COALESCE(:new_worker, worker), "
    "lease_until = COALESCE(:lease_until, lease_until), waiting_for = COALESCE(:waiting_for, waiting_for), "
    "poll_at = COALESCE(:poll_at, poll_at), sent = COALESCE(:sent, sent), attempts = COALESCE(:attempts, attempts), "
    "serial = COALESCE(:serial, serial), upstream_reference = COALESCE(:upstream_reference, upstream_reference), "
    "reason = COALESCE(:reason, reason), detail = COALESCE(:detail, detail), "
    "chain_sha256 = COALESCE(:chain_sha256, chain_sha256) WHERE id = :id AND state = :seen_state AND worker = :seen_worker"
)
_CLAIM = (
    "UPDATE ledger SET state = CASE WHEN sent = 1 THEN 'unknown' ELSE state END, worker = :worker, lease_until = :until, "
    "updated_at = :now, attempts = attempts + 1 WHERE id = :id AND state IN ('open', 'unknown') "
    "AND worker = :seen_worker AND lease_until = :seen_lease"
)


def find_request(sql: Queries, request_key: bytes, now: datetime) -> LedgerRow | None:
    """Return the row of the same request inside its window, or not yet answered."""
    row = sql.one(_REQUEST, {"key": request_key, "now": to_micros(now)})
    return read_ledger(row) if row else None


def get_row(sql: Queries, id: RequestId) -> LedgerRow | None:
    """Return one row."""
    row = sql.one(LEDGER_SELECT + "WHERE l.id = :id", {"id": id})
    return read_ledger(row) if row else None


def find_transaction(
    sql: Queries, profile: ProfileName, protocol: str, transaction_id: str, requester_key: bytes
) -> LedgerRow | None:
    """Return the newest row of a transaction that this key opened."""
    row = sql.one(_TRANSACTION, {"profile": profile, "protocol": protocol, "transaction": transaction_id, "key": requester_key})
    return read_ledger(row) if row else None


def find_lapsed(sql: Queries, now: datetime, limit: int) -> tuple[LedgerRow, ...]:
    """Return rows that need looking after, the longest lapsed first."""
    return tuple(read_ledger(row) for row in sql.all(_LAPSED, {"now": to_micros(now), "limit": limit}))


def list_rows(
    sql: Queries, states: frozenset[LedgerState], profile: str | None, limit: int, offset: int
) -> tuple[LedgerRow, ...]:
    """Return rows in these states, newest first."""
    if not states:
        return ()
    query = LEDGER_SELECT + f"WHERE l.state IN ({_literals(states)}) "
    if profile is not None:
        query += "AND l.profile = :profile "
    query += "ORDER BY l.created_at DESC, l.id DESC LIMIT :limit OFFSET :offset"
    return tuple(read_ledger(row) for row in sql.all(query, {"profile": profile, "limit": limit, "offset": offset}))


def open_row(tx: Transaction, opening: Opening) -> Opened | AlreadyOpen | OpeningRefused:
    """Take everything that `opening` names and write its row; what is already taken undoes it all (Undo with OpeningRefused)."""
    row = opening.row
    found = find_request(tx, row.request_key, row.created_at)
    if found is not None:
        return AlreadyOpen(found)
    for reservation in opening.reservations:
        _reserve(tx, reservation, row.id)
    slots = [_take(tx, quota, row.created_at) for quota in opening.quotas]
    if row.renews is not None:
        renewal = {"renews": row.renews, "key": row.public_key_sha256}
        if tx.execute(_RENEW, renewal) != 1:
            raise Undo(OpeningRefused(Reason.RENEWAL_REFUSED))
    tx.execute(_INSERT_LEDGER, ledger_columns(row) | {"quota_slots": json.dumps(slots)})
    tx.execute("DELETE FROM request_keys WHERE request_key = :key", {"key": row.request_key})
    created, until = to_micros(row.created_at), to_micros(opening.retransmission_until)
    key = {"request_key": row.request_key, "request_id": row.id, "answer_kept": until - created, "expires_at": until}
    tx.execute(_INSERT_KEY, key)
    tx.audit(opening.audit)
    return Opened(row)


def change_row(tx: Transaction, change: Transition) -> LedgerRow | None:
    """Apply a transition by compare-and-swap; None when the row is not as expected.

    Raises Rejection UPSTREAM_MISMATCH for a certificate that belongs to another request, or a second one for this.
    """
    found = get_row(tx, change.id)
    if found is None or found.state not in change.expected or change.worker not in {None, found.worker}:
        return None
    chain_sha256 = _add_chain(tx, change.chain) if change.chain is not None else None
    seen = {"seen_state": found.state.value, "seen_worker": found.worker}
    if tx.execute(_CHANGE, _change_columns(change, chain_sha256) | seen) != 1:
        raise Undo(None)
    if change.certificate is not None:
        add_certificate(tx, change.certificate, change.id)
    if change.release:
        _release(tx, found)
    elif change.to is LedgerState.REVOKED:
        forget_request_key(tx, change.id)
    elif change.to is not found.state:
        _begin_window_again(tx, found, change.at)
    tx.audit(change.audit)
    return get_row(tx, change.id)


def renew_leases(tx: Transaction, worker: str, ids: Sequence[RequestId], until: datetime) -> None:
    """Extend leases of rows that `worker` still holds."""
    for held in ids:
        tx.execute(
            "UPDATE ledger SET lease_until = :until WHERE id = :id AND worker = :worker AND lease_until < :until",
            {"until": to_micros(until), "id": held, "worker": worker},
        )


def take_over(
    tx: Transaction, id: RequestId, seen_worker: str, seen_lease: datetime, worker: str, until: datetime, audit: AuditEvent
) -> LedgerRow | None:
    """Take a lapsed row by compare-and-swap on the worker and lease that were seen."""
    claim = {
        "id": id,
        "seen_worker": seen_worker,
        "seen_lease": to_micros(seen_lease),
        "worker": worker,
        "until": to_micros(until),
        "now": to_micros(audit.at),
    }
    if tx.execute(_CLAIM, claim) != 1:
        return None
    tx.audit(audit)
    return get_row(tx, id)


def add_certificate(tx: Transaction, row: InventoryRow, id: RequestId) -> None:
    """Put the certificate of a request into the inventory; the same one again changes nothing."""
    known = tx.all(
        "SELECT sha256, request_id FROM inventory WHERE sha256 = :sha256 OR request_id = :id "
        "OR (upstream_ca = :upstream_ca AND serial = :serial)",
        {"sha256": row.sha256, "id": id, "upstream_ca": row.upstream_ca, "serial": to_serial(row.serial)},
    )
    if known == [(row.sha256, id)]:
        return
    if known:
        raise Rejection(
            Reason.UPSTREAM_MISMATCH,
            "the CA returned a certificate that is not for this request",
            "the certificate or its serial is in the inventory under another request, or this request has another certificate",
        )
    tx.execute(_INSERT_CERTIFICATE, inventory_columns(row) | {"request_id": id})


def forget_request_key(tx: Transaction, id: RequestId) -> None:
    """Let the same request begin anew."""
    tx.execute(
        "DELETE FROM request_keys WHERE request_key = (SELECT request_key FROM ledger WHERE id = :id) AND request_id = :id",
        {"id": id},
    )


def _reserve(tx: Transaction, reservation: Reservation, id: RequestId) -> None:
    taken = {"kind": reservation.kind, "name": reservation.key, "request_id": id, "expires_at": to_micros(reservation.expires_at)}
    if tx.execute(_RESERVE, taken) != 1:
        raise Undo(OpeningRefused(Reason.CREDENTIAL_USED))
    if reservation.kind == "one_time" and tx.one(
        "SELECT 1 FROM challenges WHERE id = :name AND revoked_at IS NOT NULL", {"name": reservation.key}
    ):
        raise Undo(OpeningRefused(Reason.CREDENTIAL_REVOKED))


def _take(tx: Transaction, quota: QuotaTake, at: datetime) -> tuple[str, int]:
    """Count one use; returns the slot that counted it, so that a release can take it back."""
    now, window = to_micros(at), quota.window * 1_000_000
    width = 1 if quota.limit <= EXACT_LIMIT else max(window // 64, 1)
    slot = (now // width + 1) * width - 1
    used = tx.one(
        "SELECT COALESCE(SUM(uses), 0) FROM quota_uses WHERE name = :name AND slot > :since",
        {"name": quota.key, "since": now - window},
    )
    if used is None or used[0] >= quota.limit:
        raise Undo(OpeningRefused(Reason.RATE_LIMITED))
    tx.execute(_TAKE, {"name": quota.key, "slot": slot, "uses": 1, "expires_at": slot + window})
    return quota.key, slot


def _release(tx: Transaction, row: LedgerRow) -> None:
    """Give back what the opening took: only when nothing was sent or the refusal is definite."""
    forget_request_key(tx, row.id)
    tx.execute("DELETE FROM reservations WHERE request_id = :id", {"id": row.id})
    slots = tx.one("SELECT quota_slots FROM ledger WHERE id = :id", {"id": row.id})
    for name, slot in json.loads(slots[0]) if slots else ():
        tx.execute("UPDATE quota_uses SET uses = uses - 1 WHERE name = :name AND slot = :slot", {"name": name, "slot": slot})
    tx.execute("UPDATE ledger SET quota_slots = '[]' WHERE id = :id", {"id": row.id})
    if row.renews is not None:
        tx.execute(
            "UPDATE inventory SET renewed_by = NULL WHERE sha256 = :renews AND renewed_by = :key AND NOT EXISTS "
            "(SELECT 1 FROM ledger WHERE renews = :renews AND id <> :id AND state <> 'rejected')",
            {"renews": row.renews, "key": row.public_key_sha256, "id": row.id},
        )


def _begin_window_again(tx: Transaction, row: LedgerRow, at: datetime) -> None:
    """Count the retransmission window from the newest answer, not from the request."""
    tx.execute(
        "UPDATE request_keys SET expires_at = :at + answer_kept WHERE request_key = :key AND request_id = :id",
        {"at": to_micros(at), "key": row.request_key, "id": row.id},
    )


def _add_chain(tx: Transaction, chain: tuple[bytes, ...]) -> bytes:
    sha256, packed = pack_chain(chain)
    tx.execute(_ADD_CHAIN, {"sha256": sha256, "certificates": packed})
    return sha256


def _change_columns(change: Transition, chain_sha256: bytes | None) -> dict[str, Any]:
    return {
        "id": change.id,
        "to": change.to.value,
        "at": to_micros(change.at),
        "new_worker": change.new_worker,
        "lease_until": None if change.lease_until is None else to_micros(change.lease_until),
        "waiting_for": None if change.waiting_for is None else change.waiting_for.value,
        "poll_at": None if change.poll_at is None else to_micros(change.poll_at),
        "sent": None if change.sent is None else int(change.sent),
        "attempts": change.attempts,
        "serial": to_serial(change.serial),
        "upstream_reference": change.upstream_reference,
        "reason": None if change.reason is None else change.reason.value,
        "detail": change.detail,
        "chain_sha256": chain_sha256,
    }


def _literals(states: Iterable[LedgerState]) -> str:
    """States as literals: a partial index serves a query only if its condition can be read from the text."""
    return ", ".join(f"'{state.value}'" for state in sorted(states))
