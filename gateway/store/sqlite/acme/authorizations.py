"""Statements of ACME authorizations and of the attempts at their challenges, which are held by leases (RFC 8555 §7.1.4, §8)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.acme import Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Problem
from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType, ProfileName
from gateway.store import tables
from gateway.store.acme import Attempt, Crowded
from gateway.store.acme_rows import (
    AUTHORIZATION_SELECT,
    KEPT,
    micros,
    read_authorization,
    write_challenges,
    write_claims,
    write_problem,
)
from gateway.store.interfaces import QuotaTake
from gateway.store.keys import KeyRing
from gateway.store.rows import Columns, insert, to_micros
from gateway.store.sqlite import quotas as quota_uses
from gateway.store.sqlite.acme import orders
from gateway.store.sqlite.acme.statements import listing, numbered
from gateway.store.sqlite.transaction import Queries, Transaction, Undo

_INSERT = insert(tables.acme_authorizations)
_SEVERAL = AUTHORIZATION_SELECT + "WHERE z.id IN (%s)"
VALID = AUTHORIZATION_SELECT + (
    "WHERE z.account = :account AND z.identifier IN (%s) AND z.profile = :profile AND z.status = 'valid' AND z.expires_at > :now "
    "ORDER BY z.expires_at DESC, z.id"
)
_DEACTIVATE = (
    "UPDATE acme_authorizations SET status = 'deactivated', trying = NULL, next_at = NULL, worker = '', lease_until = NULL, "
    "payload = NULL, kept_until = :kept_until WHERE id = :id AND status IN ('pending', 'valid')"
)
_BEGIN = (
    "UPDATE acme_authorizations SET challenges = :challenges, trying = :trying, attempts = 0, next_at = :at, worker = :worker, "
    "lease_until = :lease_until, source = :source, payload = :payload WHERE id = :id"
)
_HURRY = "UPDATE acme_authorizations SET next_at = :at WHERE id = :id"
_FREE = "(z.worker = '' OR z.lease_until IS NULL OR z.lease_until <= :now)"
DUE = AUTHORIZATION_SELECT + (
    "WHERE z.trying IS NOT NULL AND z.next_at <= :now AND z.status = 'pending' AND z.expires_at > :now "
    f"AND {_FREE} %s ORDER BY z.next_at, z.id LIMIT :limit"
)
_CLAIM = (
    "UPDATE acme_authorizations SET worker = :worker, lease_until = :until WHERE id = :id AND trying IS NOT NULL "
    "AND worker = :seen_worker AND COALESCE(lease_until, 0) = :seen_lease"
)
_HELD = AUTHORIZATION_SELECT + "WHERE z.id = :id AND z.trying = :challenge AND z.worker = :worker AND z.status = 'pending'"
_END = (
    "UPDATE acme_authorizations SET status = :status, challenges = :challenges, trying = :trying, attempts = :attempts, "
    "next_at = :next_at, worker = '', lease_until = NULL, expires_at = :expires_at, payload = CASE WHEN :trying IS NULL "
    "THEN NULL ELSE payload END, attested_key = :attested_key, claims = :claims, caa_checked_at = :caa_checked_at, "
    "kept_until = :kept_until WHERE id = :id"
)
_AUTHORIZATION_OF = {
    ChallengeStatus.VALID: AuthorizationStatus.VALID,
    ChallengeStatus.INVALID: AuthorizationStatus.INVALID,
}


def add(tx: Transaction, columns: Columns, quotas: Sequence[QuotaTake], at: datetime, audit: AuditEvent) -> Reason | None:
    """Add one, given as columns, that no order needs yet."""
    if quota_uses.take(tx, quotas, at) is None:
        raise Undo(Reason.RATE_LIMITED)
    tx.execute(_INSERT, columns)
    tx.audit(audit)
    return None


def find(sql: Queries, keys: KeyRing, id: str) -> Authorization | None:
    """Return one authorization."""
    row = sql.one(AUTHORIZATION_SELECT + "WHERE z.id = :id", {"id": id})
    return read_authorization(row, keys) if row else None


def find_several(sql: Queries, keys: KeyRing, ids: Collection[str]) -> tuple[Authorization, ...]:
    """Return those of several that there are, in the order of `ids`."""
    if not ids:
        return ()
    names = numbered("id", tuple(ids))
    rows = sql.all(_SEVERAL % listing("id", len(names)), names)
    found = {row[0]: read_authorization(row, keys) for row in rows}
    return tuple(found[id] for id in ids if id in found)


def find_valid(
    sql: Queries, keys: KeyRing, account: str, profile: ProfileName, identifiers: Collection[Identifier], now: datetime
) -> tuple[Authorization, ...]:
    """Return valid authorizations of these identifiers and, of domains above them, those that cover subdomains (RFC 9444)."""
    exact = {(one.type, one.value) for one in identifiers}
    above = {
        (IdentifierType.DNS, domain) for one in identifiers if one.type is IdentifierType.DNS for domain in _above(one.value)
    }
    values = sorted({value for _, value in exact | above})
    if not values:
        return ()
    names = numbered("name", values)
    parameters = names | {"account": account, "profile": profile, "now": to_micros(now)}
    rows = sql.all(VALID % listing("name", len(names)), parameters)
    found = (read_authorization(row, keys) for row in rows)
    return tuple(row for row in found if _key(row) in exact or (row.subdomains and _key(row) in above))


def deactivate(tx: Transaction, keys: KeyRing, id: str, at: datetime, audit: AuditEvent) -> Authorization | None:
    """End an authorization that is not over, and the orders that need it (RFC 8555 §7.5.2)."""
    if tx.execute(_DEACTIVATE, {"id": id, "kept_until": to_micros(at + KEPT)}) != 1:
        return None
    row = find(tx, keys, id)
    if row is not None:
        _fail_orders(tx, row, Problem(Reason.VALIDATION_UNAUTHORIZED, "the authorization was deactivated"), at)
    tx.audit(audit)
    return row


def begin(
    tx: Transaction,
    keys: KeyRing,
    id: str,
    challenge: str,
    payload: tuple[Mapping[str, object], bytes | None],
    source: str,
    worker: str,
    lease_until: datetime,
    at: datetime,
    audit: AuditEvent,
) -> Authorization | None:
    """Begin to try a challenge; of the one that is being tried, let the next attempt come now (RFC 8555 §7.5.1, §8.2)."""
    row = find(tx, keys, id)
    if row is None or row.status is not AuthorizationStatus.PENDING or row.expires_at <= at:
        return None
    if row.trying is not None:
        if row.trying != challenge:
            return None
        tx.execute(_HURRY, {"id": id, "at": to_micros(at)})
        return replace(row, next_at=at)
    if not _may_begin(row, challenge, at):
        return None
    begun = replace(
        row,
        challenges=_with(row.challenges, challenge, status=ChallengeStatus.PROCESSING),
        trying=challenge,
        attempts=0,
        next_at=at,
        worker=worker,
        lease_until=lease_until,
        source=source,
        payload=payload[0],
    )
    columns = {"id": id, "challenges": write_challenges(begun.challenges), "trying": challenge, "at": to_micros(at)}
    lease = {"worker": worker, "lease_until": to_micros(lease_until), "source": source, "payload": payload[1]}
    tx.execute(_BEGIN, columns | lease)
    tx.audit(audit)
    return begun


def find_due(sql: Queries, keys: KeyRing, now: datetime, limit: int, without: Crowded) -> tuple[Authorization, ...]:
    """Return authorizations of which a challenge is to be tried now, those that waited longest first."""
    names: dict[str, Any] = {}
    conditions = ""
    for column, left_out in (("account", without.accounts), ("source", without.sources)):
        if left_out:
            numbers = numbered(column, tuple(sorted(left_out)))
            names |= numbers
            conditions += f"AND z.{column} NOT IN ({listing(column, len(numbers))}) "
    rows = sql.all(DUE % conditions, names | {"now": to_micros(now), "limit": limit})
    return tuple(read_authorization(row, keys) for row in rows)


def claim(tx: Transaction, id: str, seen_worker: str, seen_lease: datetime | None, worker: str, until: datetime) -> bool:
    """Take an authorization from whoever left it."""
    seen = {"seen_worker": seen_worker, "seen_lease": micros(seen_lease) or 0}
    return tx.execute(_CLAIM, seen | {"id": id, "worker": worker, "until": to_micros(until)}) == 1


def end_attempt(tx: Transaction, keys: KeyRing, attempt: Attempt) -> Authorization | None:
    """Record what an attempt came to, with all that follows from it for orders."""
    held = {"id": attempt.authorization, "challenge": attempt.challenge, "worker": attempt.worker}
    found = tx.one(_HELD, held)
    if found is None:
        return None
    return _record(tx, read_authorization(found, keys), attempt)


def settle(tx: Transaction, keys: KeyRing, attempt: Attempt) -> Authorization | None:
    """Record an attempt at a challenge that nobody has begun."""
    row = find(tx, keys, attempt.authorization)
    if row is None or row.trying is not None or not _may_begin(row, attempt.challenge, attempt.at):
        return None
    return _record(tx, row, attempt)


def _may_begin(row: Authorization, challenge: str, at: datetime) -> bool:
    """Whether an authorization is open at this time, and has this challenge, which is too."""
    if row.status is not AuthorizationStatus.PENDING or row.expires_at <= at:
        return False
    return any(one.id == challenge and one.status is ChallengeStatus.PENDING for one in row.challenges)


def _record(tx: Transaction, before: Authorization, attempt: Attempt) -> Authorization:
    row = _after(before, attempt)
    tx.execute(_END, _end_columns(row))
    if row.status is AuthorizationStatus.VALID:
        orders.roll_up(tx, row.id)
    elif row.status is AuthorizationStatus.INVALID:
        _fail_orders(tx, row, attempt.error, attempt.at)
    quota_uses.count(tx, attempt.quotas, attempt.at)
    if attempt.audit is not None:
        tx.audit(attempt.audit)
    return row


def _after(row: Authorization, attempt: Attempt) -> Authorization:
    """Return an authorization as an attempt leaves it: held by nobody, and tried again or over."""
    valid, ended = attempt.status is ChallengeStatus.VALID, attempt.status in _AUTHORIZATION_OF
    return replace(
        row,
        status=_AUTHORIZATION_OF.get(attempt.status, row.status),
        challenges=_with(
            row.challenges,
            attempt.challenge,
            status=attempt.status,
            error=None if valid else attempt.error,
            validated_at=attempt.at if valid else None,
        ),
        trying=None if ended else row.trying,
        attempts=row.attempts + 1,
        next_at=None if ended else attempt.next_at or attempt.at,
        worker="",
        lease_until=None,
        expires_at=attempt.expires_at or row.expires_at if valid else row.expires_at,
        payload={} if ended else row.payload,
        attested_key=attempt.attested_key if valid else row.attested_key,
        claims=attempt.claims if valid else row.claims,
        caa_checked_at=attempt.at if valid and attempt.by_challenge else row.caa_checked_at,
    )


def _end_columns(row: Authorization) -> Columns:
    return {
        "id": row.id,
        "status": row.status.value,
        "challenges": write_challenges(row.challenges),
        "trying": row.trying,
        "attempts": row.attempts,
        "next_at": micros(row.next_at),
        "expires_at": to_micros(row.expires_at),
        "attested_key": row.attested_key,
        "claims": write_claims(row.claims),
        "caa_checked_at": micros(row.caa_checked_at),
        "kept_until": to_micros(row.expires_at + KEPT),
    }


def _fail_orders(tx: Transaction, row: Authorization, problem: Problem | None, at: datetime) -> None:
    """End the orders that need an authorization, saying which name it was (RFC 8555 §6.7.1)."""
    why = problem or Problem(Reason.VALIDATION_UNAUTHORIZED, "an authorization of this order failed")
    name = Identifier(row.identifier.type, f"*.{row.identifier.value}") if row.wildcard else row.identifier
    named = Problem(why.reason, why.detail, ((name, why.reason, why.detail),))
    orders.fail(tx, row.id, write_problem(named), at)


def _with(challenges: tuple[Challenge, ...], id: str, **fields: Any) -> tuple[Challenge, ...]:
    return tuple(replace(one, **fields) if one.id == id else one for one in challenges)


def _key(row: Authorization) -> tuple[IdentifierType, str]:
    return row.identifier.type, row.identifier.value


def _above(domain: str) -> list[str]:
    """Return the domains above a domain, without the last label of all."""
    labels = domain.split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels))]
