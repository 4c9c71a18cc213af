"""Statements of ACME accounts and of the external accounts that they are bound to (RFC 8555 §7.3)."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime

from gateway.acme import Account, AccountStatus, ExternalAccount, Problem
from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import ProfileName
from gateway.store import tables
from gateway.store.acme_rows import (
    ACCOUNT_SELECT,
    EXTERNAL_ACCOUNT_SELECT,
    account_columns,
    read_account,
    read_external_account,
    write_problem,
)
from gateway.store.interfaces import QuotaTake
from gateway.store.keys import KeyRing
from gateway.store.rows import Columns, insert, to_micros
from gateway.store.sqlite import quotas as quota_uses
from gateway.store.sqlite.acme import orders
from gateway.store.sqlite.acme.statements import listing, numbered
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

_INSERT = insert(tables.acme_accounts)
_BY_KEY = ACCOUNT_SELECT + "WHERE a.profile = :profile AND a.thumbprint = :thumbprint"
_HAS_KEY = "SELECT 1 FROM acme_accounts WHERE profile IN (%s) AND thumbprint = :thumbprint LIMIT 1"
_BIND = (
    "UPDATE acme_external_accounts SET accounts = accounts + 1 WHERE kid = :kid AND revoked_at IS NULL "
    "AND (expires_at IS NULL OR expires_at > :now) AND (max_accounts IS NULL OR accounts < max_accounts)"
)
_UPDATE = (
    "UPDATE acme_accounts SET contact = COALESCE(:contact, contact), terms = COALESCE(:terms, terms), "
    "status = COALESCE(:status, status) WHERE id = :id AND status = 'valid'"
)
_CHANGE_KEY = (
    "UPDATE acme_accounts SET thumbprint = :thumbprint, jwk = :jwk WHERE id = :id AND thumbprint = :old AND status = 'valid'"
)
_REVOKE_EXTERNAL = "UPDATE acme_external_accounts SET revoked_at = :at WHERE kid = :kid AND revoked_at IS NULL"
_CANCEL = (
    "UPDATE acme_authorizations SET status = 'deactivated', trying = NULL, next_at = NULL, worker = '', lease_until = NULL, "
    "payload = NULL WHERE account = :id AND status = 'pending'"
)
_INSERT_EXTERNAL = insert(tables.acme_external_accounts)


def add(tx: Transaction, row: Account, quotas: Sequence[QuotaTake], audit: AuditEvent) -> Account | Reason:
    """Add an account unless its key has one, within what its external account allows."""
    known = find_by_key(tx, row.profile, row.thumbprint)
    if known is not None:
        return known
    if row.external_account is not None:
        _bind(tx, row.external_account, row.created_at)
    if quota_uses.take(tx, quotas, row.created_at) is None:
        raise Undo(Reason.RATE_LIMITED)
    tx.execute(_INSERT, account_columns(row))
    tx.audit(audit)
    return row


def find(sql: Queries, id: str) -> Account | None:
    """Return one account."""
    row = sql.one(ACCOUNT_SELECT + "WHERE a.id = :id", {"id": id})
    return read_account(row) if row else None


def find_by_key(sql: Queries, profile: ProfileName, thumbprint: str) -> Account | None:
    """Return the account of a key."""
    row = sql.one(_BY_KEY, {"profile": profile, "thumbprint": thumbprint})
    return read_account(row) if row else None


def has_key(sql: Queries, thumbprint: str, profiles: Collection[ProfileName]) -> bool:
    """Say whether an account at one of these directories has a key."""
    names = numbered("profile", tuple(profiles))
    return bool(names) and sql.one(_HAS_KEY % listing("profile", len(names)), names | {"thumbprint": thumbprint}) is not None


def update(
    tx: Transaction,
    id: str,
    audit: AuditEvent,
    contact: tuple[str, ...] | None,
    terms: str | None,
    status: AccountStatus | None,
) -> Account | None:
    """Change a valid account; what is pending of one that ends is cancelled with it (RFC 8555 §7.3.6)."""
    columns = {
        "id": id,
        "contact": None if contact is None else json.dumps(contact),
        "terms": terms,
        "status": None if status is None else status.value,
    }
    if tx.execute(_UPDATE, columns) != 1:
        return None
    if status not in {None, AccountStatus.VALID}:
        tx.execute(_CANCEL, {"id": id})
        over = write_problem(Problem(Reason.ACCOUNT_DEACTIVATED, "the account was deactivated"))
        orders.cancel_of_account(tx, id, over, audit.at)
    tx.audit(audit)
    return find(tx, id)


def change_key(tx: Transaction, id: str, old: str, thumbprint: str, jwk: str, audit: AuditEvent) -> Account | None:
    """Give an account another key, unless an account of its profile has that one (RFC 8555 §7.3.5)."""
    account = find(tx, id)
    if account is None:
        return None
    holder = find_by_key(tx, account.profile, thumbprint)
    if holder is not None:
        return holder
    if tx.execute(_CHANGE_KEY, {"id": id, "old": old, "thumbprint": thumbprint, "jwk": jwk}) != 1:
        return None
    tx.audit(audit)
    return find(tx, id)


def list_rows(sql: Queries, profile: str | None, limit: int, offset: int) -> tuple[Account, ...]:
    """Return accounts, newest first."""
    where = "WHERE a.profile = :profile " if profile is not None else ""
    query = ACCOUNT_SELECT + where + "ORDER BY a.created_at DESC, a.id DESC LIMIT :limit OFFSET :offset"
    return tuple(read_account(row) for row in sql.all(query, {"profile": profile, "limit": limit, "offset": offset}))


def add_external(tx: Transaction, columns: Columns, audit: AuditEvent) -> None:
    """Store one external account, given as columns."""
    tx.execute(_INSERT_EXTERNAL, columns)
    tx.audit(audit)


def find_external(sql: Queries, keys: KeyRing, kid: str) -> ExternalAccount | None:
    """Return one external account with its key."""
    row = sql.one(EXTERNAL_ACCOUNT_SELECT + "WHERE e.kid = :kid", {"kid": kid})
    return read_external_account(row, keys) if row else None


def list_external(sql: Queries, keys: KeyRing, profile: str | None, limit: int) -> tuple[ExternalAccount, ...]:
    """Return external accounts, newest first."""
    where = "WHERE e.profile = :profile " if profile is not None else ""
    query = EXTERNAL_ACCOUNT_SELECT + where + "ORDER BY e.created_at DESC, e.kid LIMIT :limit"
    return tuple(read_external_account(row, keys) for row in sql.all(query, {"profile": profile, "limit": limit}))


def revoke_external(tx: Transaction, keys: KeyRing, kid: str, at: datetime, audit: AuditEvent) -> ExternalAccount | None:
    """Revoke one that was not revoked yet; None if there is none to revoke."""
    if tx.execute(_REVOKE_EXTERNAL, {"kid": kid, "at": to_micros(at)}) != 1:
        return None
    tx.audit(audit)
    return find_external(tx, keys, kid)


def _bind(tx: Transaction, kid: str, now: datetime) -> None:
    """Count one account for an external account; raises Undo with the reason where it takes no more."""
    moment = to_micros(now)
    if tx.execute(_BIND, {"kid": kid, "now": moment}) == 1:
        return
    row = tx.one("SELECT revoked_at, expires_at FROM acme_external_accounts WHERE kid = :kid", {"kid": kid})
    if row is None or row[0] is not None:
        raise Undo(Reason.CREDENTIAL_REVOKED)
    raise Undo(Reason.CREDENTIAL_EXPIRED if row[1] is not None and row[1] <= moment else Reason.CREDENTIAL_USED)
