"""Statements of the inventory: certificates, challenges, CRLs and named leases, in SQL that every database understands."""

from __future__ import annotations

from datetime import datetime

from gateway.audit import AuditEvent
from gateway.model import RevocationReason, UpstreamCAName
from gateway.store import tables
from gateway.store.interfaces import (
    CertificateFilter,
    ChallengeRow,
    CRLRow,
    InventoryRow,
    LedgerRow,
    PendingRevocation,
    RevokedEntry,
)
from gateway.store.rows import (
    CHALLENGE_SELECT,
    CRL_SELECT,
    INVENTORY_SELECT,
    Columns,
    challenge_columns,
    from_micros,
    insert,
    read_challenge,
    read_crl,
    read_inventory,
    to_micros,
    to_serial,
)
from gateway.store.sqlite import revocations
from gateway.store.sqlite.ledger import forget_request_key, give_renewal_back
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

_ADD_CHALLENGE = insert(tables.challenges)
_PUT_CRL = insert(
    tables.crls,
    "ON CONFLICT (upstream_ca) DO UPDATE SET number = excluded.number, der = excluded.der, this_update = excluded.this_update, "
    "next_update = excluded.next_update, covers = excluded.covers WHERE crls.number = excluded.number - 1",
)
_KEEP_CRL = insert(
    tables.crls,
    "ON CONFLICT (upstream_ca) DO UPDATE SET number = excluded.number, der = excluded.der, this_update = excluded.this_update, "
    "next_update = excluded.next_update, covers = excluded.covers WHERE crls.der = :seen",
)
_TAKE_LEASE = insert(
    tables.leases,
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until "
    "WHERE leases.holder = excluded.holder OR leases.held_until <= :now OR leases.held_until > :beyond",
)
_COUNT_REVOCATION = insert(tables.revocations, "ON CONFLICT (upstream_ca) DO UPDATE SET revoked = revocations.revoked + 1")
_CA_NAMES = (
    "WITH RECURSIVE ca (name) AS (SELECT MIN(upstream_ca) FROM inventory UNION ALL "
    "SELECT (SELECT MIN(upstream_ca) FROM inventory WHERE upstream_ca > ca.name) FROM ca WHERE ca.name IS NOT NULL) "
)
"""Steps from one CA's name to the next, so that the index over CA and serial number serves what joins it."""
_ISSUED = "JOIN ca ON i.upstream_ca = ca.name WHERE i.serial = :serial AND i.issuer_der = :issuer_der "
FIND_ISSUED = _CA_NAMES + INVENTORY_SELECT + _ISSUED + "ORDER BY i.revoked_at IS NULL LIMIT 1"
_UNCONFIRMED = "SELECT i.sha256 FROM ledger l JOIN inventory i ON i.request_id = l.id WHERE l.id = :id AND l.state = 'delivered'"
_REVIVE = (
    "UPDATE inventory SET revoked_at = NULL, revocation_reason = NULL WHERE sha256 = :sha256 AND revocation_reason = 6 "
    "AND NOT EXISTS (SELECT 1 FROM pending_revocations WHERE sha256 = :sha256)"
)
"""6 is certificateHold, the only reason that does not last (RFC 5280 §5.3.1)."""
_REVIVE_ROW = "UPDATE ledger SET state = 'delivered', confirm_by = NULL, updated_at = :at WHERE id = :id AND state = 'revoked'"
_CONDITIONS = (
    ("profile", "i.profile = :profile"),
    ("upstream_ca", "i.upstream_ca = :upstream_ca"),
    ("serial", "i.serial = :serial"),
    ("subject_contains", "LOWER(i.subject) LIKE :subject_contains ESCAPE '!'"),
    ("expires_before", "i.not_after < :expires_before"),
)


def list_certificates(sql: Queries, filter: CertificateFilter) -> tuple[InventoryRow, ...]:
    """Return the rows that match, newest first."""
    parameters = {
        "profile": filter.profile,
        "upstream_ca": filter.upstream_ca,
        "serial": to_serial(filter.serial),
        "subject_contains": None if filter.subject_contains is None else f"%{_escape_like(filter.subject_contains)}%",
        "expires_before": None if filter.expires_before is None else to_micros(filter.expires_before),
    }
    conditions = [condition for name, condition in _CONDITIONS if parameters[name] is not None]
    if filter.revoked is not None:
        conditions.append(f"i.revoked_at IS {'NOT ' if filter.revoked else ''}NULL")
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    query = INVENTORY_SELECT + where + "ORDER BY i.issued_at DESC, i.sha256 LIMIT :limit OFFSET :offset"
    rows = sql.all(query, parameters | {"limit": filter.limit, "offset": filter.offset})
    return tuple(read_inventory(row) for row in rows)


def find_certificate(sql: Queries, sha256: bytes) -> InventoryRow | None:
    """Return one certificate by the SHA-256 of its DER."""
    row = sql.one(INVENTORY_SELECT + "WHERE i.sha256 = :sha256", {"sha256": sha256})
    return read_inventory(row) if row else None


def find_serial(sql: Queries, upstream_ca: UpstreamCAName, serial: int) -> InventoryRow | None:
    """Return one certificate by issuer and serial."""
    where = "WHERE i.upstream_ca = :upstream_ca AND i.serial = :serial"
    row = sql.one(INVENTORY_SELECT + where, {"upstream_ca": upstream_ca, "serial": to_serial(serial)})
    return read_inventory(row) if row else None


def find_issued(sql: Queries, issuer_der: bytes, serial: int) -> InventoryRow | None:
    """Return one certificate by the issuer that it names and its serial; a revoked one where several CAs have that name."""
    row = sql.one(FIND_ISSUED, {"issuer_der": issuer_der, "serial": to_serial(serial)})
    return read_inventory(row) if row else None


def mark_revoked(
    tx: Transaction,
    sha256: bytes,
    at: datetime,
    reason: RevocationReason,
    audit: AuditEvent,
    pending: PendingRevocation | None = None,
) -> InventoryRow | None:
    """Revoke a certificate and its ledger row, and let a retransmission of its request begin anew."""
    row = find_certificate(tx, sha256)
    if row is None or row.revoked_at is not None:
        return row
    tx.execute(
        "UPDATE inventory SET revoked_at = :at, revocation_reason = :reason WHERE sha256 = :sha256",
        {"at": to_micros(at), "reason": reason.value, "sha256": sha256},
    )
    if row.request_id is not None:
        forget_request_key(tx, row.request_id)
        tx.execute(
            "UPDATE ledger SET state = 'revoked', updated_at = :at WHERE id = :id", {"at": to_micros(at), "id": row.request_id}
        )
    tx.execute(_COUNT_REVOCATION, {"upstream_ca": row.upstream_ca, "revoked": 1})
    if pending is not None:
        revocations.add(tx, pending)
    tx.audit(audit)
    return find_certificate(tx, sha256)


def revoke_unconfirmed(
    tx: Transaction,
    row: LedgerRow,
    at: datetime,
    reason: RevocationReason,
    audit: AuditEvent,
    pending: PendingRevocation | None,
) -> bool:
    """Revoke the certificate of a delivered row, by compare-and-swap, and let what it renewed be renewed anew."""
    found = tx.one(_UNCONFIRMED, {"id": row.id})
    if found is None:
        return False
    marked = mark_revoked(tx, found[0], at, reason, audit, pending)
    if marked is None or marked.revoked_at != at:
        raise Undo(False)
    if row.renews is not None:
        give_renewal_back(tx, row)
    return True


def revive(tx: Transaction, sha256: bytes, at: datetime, audit: AuditEvent) -> InventoryRow | None:
    """Take a certificate off hold; its next CRL does not have it any more."""
    if tx.execute(_REVIVE, {"sha256": sha256}) != 1:
        return None
    row = find_certificate(tx, sha256)
    if row is None:
        raise Undo(None)
    if row.request_id is not None:
        tx.execute(_REVIVE_ROW, {"id": row.request_id, "at": to_micros(at)})
    tx.execute(_COUNT_REVOCATION, {"upstream_ca": row.upstream_ca, "revoked": 1})
    tx.audit(audit)
    return row


def add_challenge(tx: Transaction, row: ChallengeRow, key_id: str, audit: AuditEvent) -> None:
    """Store one challenge whose HMAC the store key `key_id` made."""
    tx.execute(_ADD_CHALLENGE, challenge_columns(row, key_id))
    tx.audit(audit)


def find_challenge(sql: Queries, mac: bytes) -> ChallengeRow | None:
    """Return the challenge with this HMAC, and which request used it."""
    row = sql.one(CHALLENGE_SELECT + "WHERE h.mac = :mac", {"mac": mac})
    return read_challenge(row) if row else None


def list_challenges(sql: Queries, profile: str | None, now: datetime, limit: int) -> tuple[ChallengeRow, ...]:
    """Return challenges that have not expired, newest first."""
    where = "WHERE h.expires_at > :now " + ("AND h.profile = :profile " if profile is not None else "")
    query = CHALLENGE_SELECT + where + "ORDER BY h.created_at DESC, h.id DESC LIMIT :limit"
    return tuple(read_challenge(row) for row in sql.all(query, {"now": to_micros(now), "profile": profile, "limit": limit}))


def revoke_challenge(tx: Transaction, id: str, at: datetime, audit: AuditEvent) -> bool:
    """Revoke a challenge that no request has used."""
    changed = tx.execute(
        "UPDATE challenges SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM reservations WHERE kind = 'one_time' AND name = :id)",
        {"at": to_micros(at), "id": id},
    )
    if changed:
        tx.audit(audit)
    return bool(changed)


def take_lease(tx: Transaction, name: str, holder: str, now: datetime, until: datetime) -> bool:
    """Take a free or lapsed lease, one that was taken under a clock that ran ahead, or extend one's own."""
    beyond = to_micros(now + 2 * (until - now)) if until > now else None  # giving back never takes from another
    lease = {"name": name, "holder": holder, "held_until": to_micros(until), "now": to_micros(now), "beyond": beyond}
    return tx.execute(_TAKE_LEASE, lease) == 1


def list_revoked(sql: Queries, upstream_ca: UpstreamCAName, not_expired_at: datetime) -> tuple[int, tuple[RevokedEntry, ...]]:
    """Return how many revocations were counted before the list was read, and the list."""
    covered = count_revocations(sql, upstream_ca)
    rows = sql.all(
        "SELECT serial, revoked_at, revocation_reason FROM inventory WHERE upstream_ca = :ca AND revoked_at IS NOT NULL "
        "AND not_after >= :at ORDER BY revoked_at, serial",
        {"ca": upstream_ca, "at": to_micros(not_expired_at)},
    )
    return covered, tuple(RevokedEntry(int(row[0], 16), from_micros(row[1]), RevocationReason(row[2])) for row in rows)


def newest_crl(sql: Queries, upstream_ca: UpstreamCAName) -> CRLRow | None:
    """Return the newest CRL."""
    row = sql.one(CRL_SELECT + "WHERE upstream_ca = :ca", {"ca": upstream_ca})
    return read_crl(row) if row else None


def crl_is_stale(sql: Queries, upstream_ca: UpstreamCAName) -> bool:
    """Whether the newest CRL was made before the newest revocation was counted."""
    row = sql.one("SELECT covers FROM crls WHERE upstream_ca = :ca", {"ca": upstream_ca})
    return row is None or bool(row[0] < count_revocations(sql, upstream_ca))


def put_crl(tx: Transaction, row: CRLRow, covers: int, audit: AuditEvent) -> bool:
    """Store the next CRL; False when the newest is not the one before it. The first may have any number."""
    if tx.execute(_PUT_CRL, _crl_columns(row, covers)) != 1:
        return False
    tx.audit(audit)
    return True


def keep_crl(tx: Transaction, row: CRLRow, seen: CRLRow | None, covers: int) -> bool:
    """Store another CA's CRL; False when the newest is not the one that was seen."""
    before = {"seen": None if seen is None else seen.der}
    return tx.execute(_KEEP_CRL, _crl_columns(row, covers) | before) == 1


def _crl_columns(row: CRLRow, covers: int) -> Columns:
    return {
        "upstream_ca": row.upstream_ca,
        "number": row.number,
        "der": row.der,
        "this_update": to_micros(row.this_update),
        "next_update": to_micros(row.next_update),
        "covers": covers,
    }


def count_revocations(sql: Queries, upstream_ca: UpstreamCAName) -> int:
    """Return how many revocations were ever recorded for a CA."""
    row = sql.one("SELECT revoked FROM revocations WHERE upstream_ca = :ca", {"ca": upstream_ca})
    return int(row[0]) if row else 0


def _escape_like(text: str) -> str:
    return text.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
