"""CmpRecords over one SQLite file: shared secrets, transactions that enroll nothing, certificates that wait to be confirmed."""

from __future__ import annotations

from datetime import datetime

from gateway.audit import AuditEvent
from gateway.cmp import SharedSecret
from gateway.model import ProfileName, Reservation
from gateway.store import tables
from gateway.store.cmp_rows import SECRET_SELECT, read_secret, secret_columns, stand_in
from gateway.store.interfaces import LedgerRow
from gateway.store.keys import KeyRing
from gateway.store.rows import LEDGER_SELECT, Columns, columns, insert, read_ledger, to_micros
from gateway.store.sqlite.base import OpenFile
from gateway.store.sqlite.expiry import GRACE
from gateway.store.sqlite.ledger import SECRET_REQUESTER
from gateway.store.sqlite.transaction import Queries, Transaction

_INSERT = insert(tables.cmp_secrets)
_IN_FORCE = "revoked_at IS NULL AND expires_at > :now"
_SAME = f"SELECT 1 FROM cmp_secrets WHERE profile = :profile AND reference = :reference AND {_IN_FORCE}"  # noqa: S608
FIND = SECRET_SELECT + ("WHERE s.profile = :profile AND s.reference = :reference ORDER BY s.created_at DESC, s.id DESC LIMIT 1")
_USES = (
    "(SELECT COUNT(*) FROM reservations r WHERE r.kind = 'cmp_secret' AND r.name = s.id) "  # noqa: S608 - constants
    f"+ (SELECT COALESCE(SUM(q.uses), 0) FROM quota_uses q WHERE q.name = '{SECRET_REQUESTER}' || s.id)"
)
"""One that is good for one certificate is taken as a reservation, any other is counted like a quota."""
_LIST = f"SELECT {columns(tables.cmp_secrets, 's')}, {_USES} FROM cmp_secrets s WHERE {_IN_FORCE} "  # noqa: S608
_REVOKE = f"UPDATE cmp_secrets SET revoked_at = :now WHERE id = :id AND {_IN_FORCE}"  # noqa: S608
_TAKE = insert(
    tables.reservations,
    "ON CONFLICT (kind, name) DO UPDATE SET request_id = excluded.request_id, expires_at = excluded.expires_at "
    "WHERE reservations.expires_at <= :grace",
)
_WAITS = "state = 'delivered' AND confirm_by IS NOT NULL"
"""Word for word the condition of the partial index, which serves only queries that repeat it."""
UNCONFIRMED = LEDGER_SELECT + (
    "WHERE l.state = 'delivered' AND l.confirm_by IS NOT NULL AND l.confirm_by <= :now ORDER BY l.confirm_by LIMIT :limit"
)
_END = f"UPDATE ledger SET confirm_by = NULL, updated_at = :at WHERE id = :id AND {_WAITS}"  # noqa: S608


class CmpFile(OpenFile):
    """What CMP needs, in the file of the store; secrets are sealed before the writer's turn comes."""

    async def add_secret(self, secret: SharedSecret, audit: AuditEvent) -> bool:
        """Keep a secret, sealed; False when the profile has one of this reference that is neither revoked nor expired."""
        row = secret_columns(secret, self._keys)
        return await self._write(lambda tx: _add(tx, row, audit))

    async def find_secret(self, profile: ProfileName, reference: bytes) -> SharedSecret | None:
        """Return the newest secret of this reference, opened, also when it is revoked or has expired."""
        return self._read(lambda sql: _find(sql, self._keys, profile, reference))

    async def list_secrets(self, profile: str | None, now: datetime, limit: int) -> tuple[SharedSecret, ...]:
        """Return those in force, newest first, `secret` empty in each and `uses` counted."""
        return await self._read_aside(lambda sql: _list(sql, profile, now, limit))

    async def revoke_secret(self, id: str, at: datetime, audit: AuditEvent) -> bool:
        """End a secret; False when there is none, or it has ended."""
        return await self._write(lambda tx: _audited(tx, _REVOKE, {"id": id, "now": to_micros(at)}, audit))

    async def take(self, reservation: Reservation, now: datetime) -> bool:
        """Take a reservation by itself; False when it is taken (a transaction that enrolls nothing: rr, genm)."""
        return await self._write(lambda tx: _take(tx, reservation, now))

    async def find_unconfirmed(self, now: datetime, limit: int) -> tuple[LedgerRow, ...]:
        """Return DELIVERED rows whose `confirm_by` has passed, oldest first."""
        return self._read(lambda sql: _find_unconfirmed(sql, self._keys, now, limit))

    async def end_confirmation(self, row: LedgerRow, audit: AuditEvent) -> bool:
        """Clear `confirm_by` of a delivered row that keeps its certificate; False when it was cleared or confirmed meanwhile."""
        return await self._write(lambda tx: _audited(tx, _END, {"id": row.id, "at": to_micros(audit.at)}, audit))


def _add(tx: Transaction, row: Columns, audit: AuditEvent) -> bool:
    if tx.one(_SAME, {"profile": row["profile"], "reference": row["reference"], "now": row["created_at"]}):
        return False
    tx.execute(_INSERT, row)
    tx.audit(audit)
    return True


def _find(sql: Queries, keys: KeyRing, profile: ProfileName, reference: bytes) -> SharedSecret | None:
    row = sql.one(FIND, {"profile": profile, "reference": reference})
    found = read_secret(row or stand_in(keys), keys)
    return found if row else None


def _list(sql: Queries, profile: str | None, now: datetime, limit: int) -> tuple[SharedSecret, ...]:
    where = "AND s.profile = :profile " if profile is not None else ""
    query = f"{_LIST}{where}ORDER BY s.created_at DESC, s.id DESC LIMIT :limit"
    rows = sql.all(query, {"profile": profile, "now": to_micros(now), "limit": limit})
    return tuple(read_secret(row, None, row[-1]) for row in rows)


def _audited(tx: Transaction, statement: str, parameters: Columns, audit: AuditEvent) -> bool:
    if tx.execute(statement, parameters) != 1:
        return False
    tx.audit(audit)
    return True


def _take(tx: Transaction, reservation: Reservation, now: datetime) -> bool:
    """Take it, also from whoever had it until long ago: what has run out is only deleted now and then."""
    taken = {
        "kind": reservation.kind,
        "name": reservation.key,
        "request_id": "",
        "expires_at": to_micros(reservation.expires_at),
        "grace": to_micros(now - GRACE),
    }
    return tx.execute(_TAKE, taken) == 1


def _find_unconfirmed(sql: Queries, keys: KeyRing, now: datetime, limit: int) -> tuple[LedgerRow, ...]:
    rows = sql.all(UNCONFIRMED, {"now": to_micros(now), "limit": limit})
    return tuple(read_ledger(row, keys) for row in rows)
