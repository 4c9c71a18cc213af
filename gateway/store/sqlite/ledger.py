"""Statements of the ledger: opening, transitions, leases and look-ups, in SQL that every database understands."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, RequestId, Reservation
from gateway.store import tables
from gateway.store.interfaces import (
    DIGEST,
    RENEWAL,
    SUPERSEDED,
    TRANSACTION,
    AlreadyOpen,
    InventoryRow,
    LedgerRow,
    LedgerState,
    Opened,
    Opening,
    OpeningRefused,
    Transition,
)
from gateway.store.keys import KeyRing
from gateway.store.rows import (
    CHANGING,
    LEDGER_SELECT,
    insert,
    inventory_columns,
    ledger_columns,
    pack_chain,
    read_changed,
    read_ledger,
    to_micros,
    to_serial,
)
from gateway.store.sqlite import quotas
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

UNFINISHED = "('open', 'pending', 'unknown', 'held')"
"""States whose request key never runs out: the request is being worked on, and one request has one certificate."""

_ANSWERED = f"(l.updated_at + k.answer_kept > :now OR k.kept_until > :now OR l.state IN {UNFINISHED})"
_REQUEST = LEDGER_SELECT + f"JOIN request_keys k ON k.request_id = l.id WHERE k.request_key = :key AND {_ANSWERED}"
_ANSWERS = (
    "SELECT k.request_id FROM request_keys k JOIN ledger l ON l.id = k.request_id "  # noqa: S608 - constants
    f"WHERE k.request_key = :key AND {_ANSWERED}"
)
_IS_KNOWN = "SELECT 1 FROM request_keys WHERE request_key = :key"
"""Most requests are new ones, of which a join of whole rows is more than has to be asked."""
_TRANSACTION = (
    LEDGER_SELECT + "WHERE l.profile = :profile AND l.protocol = :protocol AND l.transaction_id = :transaction "
    "AND l.requester_key = :key ORDER BY l.created_at DESC, l.id DESC LIMIT 1"
)
_WAITING_STATES = frozenset({LedgerState.OPEN, LedgerState.PENDING, LedgerState.UNKNOWN})
_WAITING = "l.state IN ('open', 'pending', 'unknown')"
"""Word for word the condition of the partial index, which serves only queries that repeat it."""
_STRANDED = "(l.worker <> '' AND l.lease_until > :beyond)"
_UNHELD = "(l.worker = '' OR l.lease_until <= :now)"
"""A worker may ask the CA about a pending row for longer than until the next question is due."""
_LAPSED = LEDGER_SELECT + (
    f"WHERE {_WAITING} AND ((l.state IN ('open', 'unknown') AND (l.lease_until <= :now OR {_STRANDED})) OR "
    f"(l.state = 'pending' AND l.waiting_for = 'upstream' AND (({_UNHELD} AND l.poll_at <= :now) OR {_STRANDED}))) "
)
_OLDEST_LEASE = "ORDER BY l.lease_until, l.id LIMIT :limit"

_INSERT_LEDGER = insert(tables.ledger)
_ADD_CERTIFICATE = insert(tables.inventory, "ON CONFLICT DO NOTHING")
_HOLD_KEY = insert(
    tables.request_keys,
    "ON CONFLICT (request_key) DO UPDATE SET request_id = excluded.request_id, answer_kept = excluded.answer_kept, "  # noqa: S608 - a constant
    "kept_until = excluded.kept_until "
    "WHERE NOT EXISTS (SELECT 1 FROM request_keys k JOIN ledger l ON l.id = k.request_id "
    f"WHERE k.request_key = excluded.request_key AND {_ANSWERED})",
)
_RESERVE = insert(tables.reservations, "ON CONFLICT (kind, name) DO NOTHING")
_HEIR = (
    "SELECT l.public_key_sha256 FROM reservations r JOIN ledger l ON l.id = r.request_id WHERE r.kind = :kind AND r.name = :name"
)
_SHARED = "SELECT name FROM reservations WHERE request_id = :id AND kind = :kind"
_HOLDER = "SELECT request_id FROM reservations WHERE kind = :kind AND name = :name"
_TAKE_KEY_OVER = (
    "DELETE FROM request_keys WHERE request_key = :key AND request_id = :superseded AND EXISTS "
    "(SELECT 1 FROM ledger WHERE id = :superseded AND state IN ('delivered', 'confirmed'))"
)
"""Only from the row that answers for the request with a good certificate: a revoked one gives its holder nothing back."""
_GIVE_KEY_BACK = (
    "UPDATE request_keys SET request_id = :superseded WHERE request_id = :id "
    "AND request_key = (SELECT request_key FROM ledger WHERE id = :id) "
    "AND EXISTS (SELECT 1 FROM ledger WHERE id = :superseded AND state IN ('delivered', 'confirmed'))"
)
_BEQUEATH = (
    "UPDATE reservations SET request_id = :heir WHERE request_id = :holder "  # noqa: S608 - constants
    f"AND kind NOT IN ('{DIGEST}', '{SUPERSEDED}')"
)
_IS_OVER = "SELECT 1 FROM inventory WHERE request_id = :id AND revocation_reason = 4"
"""4 is superseded: who revokes for another reason means that the request shall have nothing more."""
_PREDECESSOR = f"SELECT name FROM reservations WHERE request_id = :id AND kind = '{SUPERSEDED}'"  # noqa: S608 - a constant
_INHERIT = (
    "UPDATE reservations SET name = :name WHERE kind = :kind AND name = "
    "(SELECT MIN(name) FROM reservations WHERE kind = :kind AND name > :name || '/' AND name < :name || '0')"
)
"""Compared by bytes, 0 follows /: between the two lie all names that begin with `name` and /."""
_GIVE_RENEWAL_BACK = (
    "UPDATE inventory SET renewed_by = NULL WHERE sha256 = :renews AND renewed_by = :key AND NOT EXISTS "
    "(SELECT 1 FROM ledger WHERE renews = :renews AND id <> :id AND state <> 'rejected')"
)
_RENEWAL_UNTAKEN = (
    "UPDATE inventory SET renewed_by = NULL WHERE sha256 = :renews AND renewed_by = :key AND NOT EXISTS "
    "(SELECT 1 FROM ledger WHERE renews = :renews AND public_key_sha256 = :key AND id <> :id "
    "AND state NOT IN ('rejected', 'revoked'))"
)
_COMPROMISED = "SELECT 1 FROM inventory WHERE public_key_sha256 = :key AND revocation_reason = 1 LIMIT 1"
"""1 is keyCompromise, a literal so that the partial index serves the query."""
SECRET_REQUESTER = "cmp_secret:"  # noqa: S105 - what names begin with
"""What the name of a requester begins with that proved a shared secret; its ID follows."""
_SECRET = "SELECT revoked_at FROM cmp_secrets WHERE id = :id"  # noqa: S105 - a query
_RENEW = (
    "UPDATE inventory SET renewed_by = :key WHERE sha256 = :renews AND revoked_at IS NULL "
    "AND (renewed_by IS NULL OR renewed_by = :key)"
)
_CLAIM = (
    "UPDATE ledger SET state = CASE WHEN sent = 1 THEN 'unknown' ELSE state END, worker = :worker, lease_until = :until, "
    "updated_at = :now, attempts = attempts + 1 WHERE id = :id AND state IN ('open', 'unknown') "
    "AND worker = :seen_worker AND lease_until = :seen_lease"
)


def find_request(sql: Queries, keys: KeyRing, request_key: bytes, now: datetime) -> LedgerRow | None:
    """Return the row of the same request inside its window, or not yet answered."""
    if sql.one(_IS_KNOWN, {"key": request_key}) is None:
        return None
    row = sql.one(_REQUEST, {"key": request_key, "now": to_micros(now)})
    return read_ledger(row, keys) if row else None


def get_row(sql: Queries, keys: KeyRing, id: RequestId) -> LedgerRow | None:
    """Return one row."""
    row = sql.one(LEDGER_SELECT + "WHERE l.id = :id", {"id": id})
    return read_ledger(row, keys) if row else None


def find_transaction(
    sql: Queries, keys: KeyRing, profile: ProfileName, protocol: str, transaction_id: str, requester_key: bytes
) -> LedgerRow | None:
    """Return the newest row of a transaction that this key opened."""
    row = sql.one(_TRANSACTION, {"profile": profile, "protocol": protocol, "transaction": transaction_id, "key": requester_key})
    return read_ledger(row, keys) if row else None


def find_lapsed(
    sql: Queries, keys: KeyRing, now: datetime, limit: int, beyond: datetime | None, resting: Collection[str] = ()
) -> tuple[LedgerRow, ...]:
    """Return rows that need looking after, the longest lapsed first."""
    parameters = {"now": to_micros(now), "limit": limit, "beyond": None if beyond is None else to_micros(beyond)}
    named = {f"r{number}": name for number, name in enumerate(sorted(resting))}
    return tuple(read_ledger(row, keys) for row in sql.all(lapsed(len(named)), parameters | named))


@lru_cache(maxsize=64)
def lapsed(resting: int) -> str:
    """Return the query of `find_lapsed`, which leaves out the queues of so many CAs."""
    if not resting:
        return _LAPSED + _OLDEST_LEASE
    names = ", ".join(f":r{number}" for number in range(resting))
    return f"{_LAPSED} AND NOT (l.waiting_for = 'queue' AND l.upstream_ca IN ({names})) {_OLDEST_LEASE}"


def list_rows(
    sql: Queries, keys: KeyRing, states: frozenset[LedgerState], profile: str | None, limit: int, offset: int
) -> tuple[LedgerRow, ...]:
    """Return rows in these states, newest first."""
    if not states:
        return ()
    parameters = {"profile": profile, "limit": limit, "offset": offset}
    return tuple(read_ledger(row, keys) for row in sql.all(listing(states, profile), parameters))


def listing(states: frozenset[LedgerState], profile: str | None) -> str:
    """Return the query of `list_rows`; identifiers sort by time."""
    conditions = [f"l.state IN ({_literals(states)})"]
    if states <= _WAITING_STATES:
        conditions.append(_WAITING)
    if profile is not None:
        conditions.append("l.profile = :profile")
    return f"{LEDGER_SELECT} WHERE {' AND '.join(conditions)} ORDER BY l.id DESC LIMIT :limit OFFSET :offset"


def open_row(tx: Transaction, keys: KeyRing, opening: Opening, sealed_request: bytes) -> Opened | AlreadyOpen | OpeningRefused:
    """Take everything that `opening` names and write its row; what is already taken undoes it all.

    The commonest refusal, a used challenge, comes first: undoing nothing is cheap. `sealed_request` is the row's request as
    `seal_request` made it, before the writer's turn came.
    """
    row = opening.row
    if tx.one(_COMPROMISED, {"key": row.public_key_sha256}):
        raise Undo(OpeningRefused(Reason.POLICY_KEY))
    if row.requester.startswith(SECRET_REQUESTER):
        _look_at_secret(tx, row)
    if opening.supersedes is not None:
        _supersede(tx, opening, opening.supersedes)
    for reservation in opening.reservations:
        _reserve(tx, keys, reservation, row)
    slots = quotas.take(tx, opening.quotas, row.created_at)
    if slots is None:
        _refuse(tx, keys, row, Reason.RATE_LIMITED)
    if not _hold_key(tx, opening):
        _refuse(tx, keys, row, Reason.INTERNAL)
    if row.renews is not None and tx.execute(_RENEW, {"renews": row.renews, "key": row.public_key_sha256}) != 1:
        raise Undo(OpeningRefused(Reason.RENEWAL_REFUSED))
    tx.execute(_INSERT_LEDGER, ledger_columns(row, sealed_request) | {"quota_slots": json.dumps(slots)})
    tx.audit(opening.audit)
    return Opened(row)


def _look_at_secret(tx: Transaction, row: LedgerRow) -> None:
    """Refuse what a shared secret asks for that was revoked since it proved the request."""
    secret = tx.one(_SECRET, {"id": row.requester.removeprefix(SECRET_REQUESTER)})
    if secret is not None and secret[0] is not None:
        raise Undo(OpeningRefused(Reason.CREDENTIAL_REVOKED))


def foresee(sql: Queries, opening: Opening) -> Reason | None:
    """Return for which of its reservations or quotas an opening would be refused now; the same request is no refusal."""
    row = opening.row
    answers = sql.one(_ANSWERS, {"key": row.request_key, "now": to_micros(row.created_at)})
    if answers is not None and answers[0] != opening.supersedes:
        return None
    for reservation in opening.reservations:
        holder = sql.one(_HOLDER, {"kind": reservation.kind, "name": reservation.key})
        inherits = reservation.kind != DIGEST and holder == (opening.supersedes,)
        if holder is not None and not inherits and reservation.kind != RENEWAL:
            return _taken(reservation)
    roomy = all(quotas.has_room(sql, quota, row.created_at) for quota in opening.quotas)
    return None if roomy else Reason.RATE_LIMITED


def change_row(tx: Transaction, keys: KeyRing, change: Transition) -> LedgerRow | None:
    """Apply a transition by compare-and-swap; None when the row is not as expected.

    Raises Rejection UPSTREAM_MISMATCH for a certificate that belongs to another request, or a second one for this.
    """
    if not change.expected:
        return None
    chain_sha256, packed = (None, None) if change.chain is None else pack_chain(change.chain)
    if chain_sha256 is not None and packed is not None:
        tx.add_chain(chain_sha256, packed)
    changes = _change_columns(change, chain_sha256)
    opened = change.opened
    statement = _change_statement(change.expected, tuple(changes))
    changed = tx.returning(statement, changes | {"id": change.id, "holder": change.worker})
    if changed is None:
        raise Undo(None)
    if change.certificate is not None:
        add_certificate(tx, change.certificate, change.id)
    if change.release:
        _release(tx, change.id)
    elif change.to is LedgerState.REVOKED:
        forget_request_key(tx, change.id)
    tx.audit(change.audit)
    if opened is not None and opened.id == change.id:
        certificate = opened.certificate if change.certificate is None else change.certificate.der
        if certificate is not None and (change.chain is not None or opened.certificate is not None):
            return read_changed(changed, opened, certificate, opened.chain if change.chain is None else change.chain)
    return get_row(tx, keys, change.id)


def renew_leases(tx: Transaction, worker: str, ids: Sequence[RequestId], until: datetime) -> None:
    """Let leases of rows that `worker` still holds end at `until`, also earlier than before: clocks are put right."""
    for held in ids:
        tx.execute(
            "UPDATE ledger SET lease_until = :until WHERE id = :id AND worker = :worker",
            {"until": to_micros(until), "id": held, "worker": worker},
        )


def take_over(
    tx: Transaction,
    keys: KeyRing,
    id: RequestId,
    seen_worker: str,
    seen_lease: datetime,
    worker: str,
    until: datetime,
    audit: AuditEvent,
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
    return get_row(tx, keys, id)


def add_certificate(tx: Transaction, row: InventoryRow, id: RequestId) -> None:
    """Put the certificate of a request into the inventory; the same one again changes nothing."""
    if tx.execute(_ADD_CERTIFICATE, inventory_columns(row) | {"request_id": id}) == 1:
        return
    known = tx.one("SELECT request_id FROM inventory WHERE sha256 = :sha256", {"sha256": row.sha256})
    if known != (id,):
        raise Rejection(
            Reason.UPSTREAM_MISMATCH,
            "the CA returned a certificate that is not for this request",
            "the certificate or its serial is in the inventory under another request, or this request has another certificate",
        )


def forget_request_key(tx: Transaction, id: RequestId) -> None:
    """Let the same request begin anew."""
    tx.execute(
        "DELETE FROM request_keys WHERE request_key = (SELECT request_key FROM ledger WHERE id = :id) AND request_id = :id",
        {"id": id},
    )


def _supersede(tx: Transaction, opening: Opening, superseded: RequestId) -> None:
    """Take the place of another row of this request; of one that was revoked or superseded meanwhile nothing passes on."""
    row = opening.row
    if tx.execute(_TAKE_KEY_OVER, {"key": row.request_key, "superseded": superseded}) != 1:
        return
    tx.execute(_BEQUEATH, {"holder": superseded, "heir": row.id})
    until = to_micros(opening.retransmission_until)
    tx.execute(_RESERVE, {"kind": SUPERSEDED, "name": superseded, "request_id": row.id, "expires_at": until})


def _reinstate(tx: Transaction, id: RequestId) -> None:
    """Let the row answer again whose place `id` took; its certificate was not revoked for that after all."""
    superseded = tx.one(_PREDECESSOR, {"id": id})
    if superseded is None or tx.one(_IS_OVER, {"id": superseded[0]}):
        return
    tx.execute(_GIVE_KEY_BACK, {"id": id, "superseded": superseded[0]})
    tx.execute(_BEQUEATH, {"holder": id, "heir": superseded[0]})


def _hold_key(tx: Transaction, opening: Opening) -> bool:
    """Take the request key unless another row has it and still answers for it."""
    created, until = to_micros(opening.row.created_at), to_micros(opening.retransmission_until)
    key = {"request_key": opening.row.request_key, "request_id": opening.row.id, "kept_until": until, "now": created}
    return tx.execute(_HOLD_KEY, key | {"answer_kept": until - created}) == 1


def _refuse(tx: Transaction, keys: KeyRing, row: LedgerRow, reason: Reason) -> NoReturn:
    """End the opening: with the row of the same request if it was first, else with the reason."""
    found = find_request(tx, keys, row.request_key, row.created_at)
    raise Undo(OpeningRefused(reason) if found is None else AlreadyOpen(found))


def _reserve(tx: Transaction, keys: KeyRing, reservation: Reservation, row: LedgerRow) -> None:
    taken = {
        "kind": reservation.kind,
        "name": reservation.key,
        "request_id": row.id,
        "expires_at": to_micros(reservation.expires_at),
    }
    if tx.execute(_RESERVE, taken) != 1 and tx.one(_HOLDER, taken) != (row.id,):
        if reservation.kind != RENEWAL:
            _refuse(tx, keys, row, _taken(reservation))
        _share(tx, keys, taken, row)
    if reservation.kind == "one_time" and tx.one(
        "SELECT 1 FROM challenges WHERE id = :name AND revoked_at IS NOT NULL", {"name": reservation.key}
    ):
        raise Undo(OpeningRefused(Reason.CREDENTIAL_REVOKED))


def _taken(reservation: Reservation) -> Reason:
    """Return what it means that another request has this reservation."""
    return Reason.TRANSACTION_IN_USE if reservation.kind == TRANSACTION else Reason.CREDENTIAL_USED


def _share(tx: Transaction, keys: KeyRing, taken: dict[str, Any], row: LedgerRow) -> None:
    """Take the reservation of a renewed certificate beside another request for the same public key; no other key has it."""
    heir = tx.one(_HEIR, {"kind": RENEWAL, "name": taken["name"]})
    if heir != (row.public_key_sha256,):
        _refuse(tx, keys, row, Reason.RENEWAL_REFUSED)
    tx.execute(_RESERVE, taken | {"name": f"{taken['name']}/{row.id}"})


def give_renewal_back(tx: Transaction, row: LedgerRow) -> None:
    """Let the certificate that a request renews be renewed by any key again: the one that was issued for it is revoked."""
    held = {"id": row.id, "kind": RENEWAL}
    shared = tx.one(_SHARED, held)
    tx.execute("DELETE FROM reservations WHERE request_id = :id AND kind = :kind", held)
    if shared is not None:
        tx.execute(_INHERIT, {"kind": RENEWAL, "name": shared[0]})
    tx.execute(_RENEWAL_UNTAKEN, {"renews": row.renews, "key": row.public_key_sha256, "id": row.id})


def _give_reservations_back(tx: Transaction, id: RequestId) -> None:
    """Free what a request reserved; what it shares goes on to the next that holds it."""
    shared = tx.one(_SHARED, {"id": id, "kind": RENEWAL})
    tx.execute("DELETE FROM reservations WHERE request_id = :id", {"id": id})
    if shared is not None:
        tx.execute(_INHERIT, {"kind": RENEWAL, "name": shared[0]})


def _release(tx: Transaction, id: RequestId) -> None:
    """Give back what the opening took: only when nothing was sent or the refusal is definite."""
    _reinstate(tx, id)
    forget_request_key(tx, id)
    _give_reservations_back(tx, id)
    row = tx.one("SELECT quota_slots, renews, public_key_sha256 FROM ledger WHERE id = :id", {"id": id})
    slots, renews, key = row or ("[]", None, None)
    quotas.give_back(tx, json.loads(slots))
    tx.execute("UPDATE ledger SET quota_slots = '[]' WHERE id = :id", {"id": id})
    if renews is not None:
        tx.execute(_GIVE_RENEWAL_BACK, {"renews": renews, "key": key, "id": id})


@lru_cache(maxsize=256)
def _change_statement(expected: frozenset[LedgerState], columns: tuple[str, ...]) -> str:
    """Return the compare-and-swap that sets these columns; what is not changed costs nothing."""
    return (
        f"UPDATE ledger SET {', '.join(f'{column} = :{column}' for column in columns)} WHERE id = :id "  # noqa: S608 - column names
        f"AND state IN ({_literals(expected)}) AND (:holder IS NULL OR worker = :holder) RETURNING {CHANGING}"
    )


def _change_columns(change: Transition, chain_sha256: bytes | None) -> dict[str, Any]:
    """Return the columns that change."""
    given = {
        "state": change.to.value,
        "updated_at": to_micros(change.at),
        "worker": change.new_worker,
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
        "queued_at": None if change.queued_at is None else to_micros(change.queued_at),
        "sent_at": None if change.sent_at is None else to_micros(change.sent_at),
        "confirm_by": None if change.confirm_by is None else to_micros(change.confirm_by),
    }
    changes: dict[str, Any] = {column: value for column, value in given.items() if value is not None}
    return changes | {"confirm_by": None} if change.to is LedgerState.CONFIRMED else changes


def _literals(states: Iterable[LedgerState]) -> str:
    """States as literals, sorted, so that the same question is the same statement."""
    return ", ".join(f"'{state.value}'" for state in sorted(states))
