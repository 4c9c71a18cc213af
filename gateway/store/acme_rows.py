"""ACME's objects as columns and back, the same for every database; what nobody may read at rest is sealed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.acme import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    ExternalAccount,
    ExternalAccountPolicy,
    Incident,
    Order,
    OrderStatus,
    Problem,
)
from gateway.errors import Reason, StoreRefused, StoreUnavailable
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName, RequestId
from gateway.store import tables
from gateway.store.keys import KeyRing
from gateway.store.rows import Columns, columns, from_micros, to_micros

EXTERNAL_ACCOUNT_KEY = "acme external account"
"""The purpose under which keys of external accounts are sealed."""

ORDER_CSR = "acme csr"
"""The purpose under which CSRs of orders are sealed: one may carry a challengePassword."""

CHALLENGE_PAYLOAD = "acme payload"
"""The purpose under which what came with a challenge is sealed: an attestation names a device."""

KEPT = timedelta(days=30)
"""How long orders and authorizations are kept when they are over: clients and people ask what became of them."""

ACCOUNT_SELECT = f"SELECT {columns(tables.acme_accounts, 'a')} FROM acme_accounts a "  # noqa: S608
EXTERNAL_ACCOUNT_SELECT = f"SELECT {columns(tables.acme_external_accounts, 'e')} FROM acme_external_accounts e "  # noqa: S608
ORDER_SELECT = f"SELECT {columns(tables.acme_orders, 'o')} FROM acme_orders o "  # noqa: S608
AUTHORIZATION_SELECT = f"SELECT {columns(tables.acme_authorizations, 'z')} FROM acme_authorizations z "  # noqa: S608
INCIDENT_SELECT = f"SELECT {columns(tables.acme_incidents, 'n')} FROM acme_incidents n "  # noqa: S608

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def seal(keys: KeyRing, purpose: str, value: bytes | None) -> bytes | None:
    """Return a value as its column holds it."""
    return None if value is None else keys.encrypt(purpose, value)


def unseal(keys: KeyRing, purpose: str, sealed: bytes | None) -> bytes | None:
    """Return what was sealed; raises StoreUnavailable where no key of the ring opens it."""
    try:
        return None if sealed is None else keys.decrypt(purpose, sealed)
    except StoreRefused as error:
        raise StoreUnavailable(str(error)) from error


def account_columns(row: Account) -> Columns:
    """Return the columns of one account."""
    return {
        "id": row.id,
        "profile": row.profile,
        "status": row.status.value,
        "thumbprint": row.thumbprint,
        "jwk": row.jwk,
        "contact": json.dumps(row.contact),
        "terms": row.terms,
        "external_account": row.external_account,
        "binding": row.binding,
        "source": row.source,
        "created_at": to_micros(row.created_at),
    }


def read_account(r: Sequence[Any]) -> Account:
    """Read one row of ACCOUNT_SELECT."""
    return Account(
        id=r[0],
        profile=ProfileName(r[1]),
        status=AccountStatus(r[2]),
        thumbprint=r[3],
        jwk=r[4],
        contact=tuple(json.loads(r[5])),
        terms=r[6],
        external_account=r[7],
        binding=r[8],
        source=r[9],
        created_at=from_micros(r[10]),
    )


def external_account_columns(row: ExternalAccount, keys: KeyRing) -> Columns:
    """Return the columns of one external account, its key sealed."""
    return {
        "kid": row.kid,
        "profile": row.profile,
        "secret": seal(keys, EXTERNAL_ACCOUNT_KEY, row.key),
        "policy": _write_policy(row.policy),
        "max_accounts": row.policy.max_accounts,
        "max_certificates": row.policy.max_certificates,
        "owner": row.owner,
        "created_at": to_micros(row.created_at),
        "created_by": row.created_by,
        "expires_at": micros(row.expires_at),
        "revoked_at": micros(row.revoked_at),
        "accounts": row.accounts,
        "certificates": row.certificates,
    }


def read_external_account(r: Sequence[Any], keys: KeyRing) -> ExternalAccount:
    """Read one row of EXTERNAL_ACCOUNT_SELECT; raises StoreUnavailable where no key opens it."""
    return ExternalAccount(
        kid=r[0],
        profile=ProfileName(r[1]),
        key=unseal(keys, EXTERNAL_ACCOUNT_KEY, r[2]) or b"",
        policy=_read_policy(r[3], r[4], r[5]),
        owner=r[6],
        created_at=from_micros(r[7]),
        created_by=r[8],
        expires_at=_moment(r[9]),
        revoked_at=_moment(r[10]),
        accounts=r[11],
        certificates=r[12],
    )


def order_columns(row: Order, keys: KeyRing) -> Columns:
    """Return the columns of one order, its CSR sealed."""
    return {
        "id": row.id,
        "account": row.account,
        "directory": row.directory,
        "profile": row.profile,
        "asked_profile": row.asked_profile,
        "status": row.status.value,
        "identifiers": json.dumps([[one.type.value, one.value] for one in row.identifiers]),
        "authorizations": json.dumps(row.authorizations),
        "not_before": micros(row.not_before),
        "not_after": micros(row.not_after),
        "replaces": row.replaces,
        "replaces_sha256": row.replaces_sha256,
        "created_at": to_micros(row.created_at),
        "expires_at": to_micros(row.expires_at),
        "error": write_problem(row.error),
        "csr": seal(keys, ORDER_CSR, row.csr),
        "csr_sha256": row.csr_sha256,
        "public_key_sha256": row.public_key_sha256,
        "request_id": row.request_id,
        "certificate": row.certificate,
        "source": row.source,
        "worker": row.worker,
        "lease_until": micros(row.lease_until),
        "next_at": micros(row.next_at),
        "attempts": row.attempts,
        "counted_for": None,
        "kept_until": to_micros(row.expires_at + KEPT),
    }


def read_order(r: Sequence[Any], keys: KeyRing) -> Order:
    """Read one row of ORDER_SELECT; raises StoreUnavailable where no key opens its CSR."""
    return Order(
        id=r[0],
        account=r[1],
        directory=ProfileName(r[2]),
        profile=ProfileName(r[3]),
        asked_profile=r[4],
        status=OrderStatus(r[5]),
        identifiers=tuple(Identifier(IdentifierType(kind), value) for kind, value in json.loads(r[6])),
        authorizations=tuple(json.loads(r[7])),
        not_before=_moment(r[8]),
        not_after=_moment(r[9]),
        replaces=r[10],
        replaces_sha256=r[11],
        created_at=from_micros(r[12]),
        expires_at=from_micros(r[13]),
        error=_read_problem(r[14]),
        csr=unseal(keys, ORDER_CSR, r[15]),
        csr_sha256=r[16],
        public_key_sha256=r[17],
        request_id=RequestId(r[18]) if r[18] is not None else None,
        certificate=r[19],
        source=r[20],
        worker=r[21],
        lease_until=_moment(r[22]),
        next_at=_moment(r[23]),
        attempts=r[24],
    )


def authorization_columns(row: Authorization, keys: KeyRing) -> Columns:
    """Return the columns of one authorization, what its client sent sealed."""
    return {
        "id": row.id,
        "account": row.account,
        "profile": row.profile,
        "type": row.identifier.type.value,
        "identifier": row.identifier.value,
        "wildcard": int(row.wildcard),
        "subdomains": int(row.subdomains),
        "status": row.status.value,
        "challenges": write_challenges(row.challenges),
        "created_at": to_micros(row.created_at),
        "expires_at": to_micros(row.expires_at),
        "trying": row.trying,
        "attempts": row.attempts,
        "next_at": micros(row.next_at),
        "worker": row.worker,
        "lease_until": micros(row.lease_until),
        "source": row.source,
        "payload": seal_payload(keys, row.payload),
        "attested_key": row.attested_key,
        "claims": write_claims(row.claims),
        "caa_checked_at": micros(row.caa_checked_at),
        "kept_until": to_micros(row.expires_at + KEPT),
    }


def read_authorization(r: Sequence[Any], keys: KeyRing) -> Authorization:
    """Read one row of AUTHORIZATION_SELECT; raises StoreUnavailable where no key opens its payload."""
    payload = unseal(keys, CHALLENGE_PAYLOAD, r[17])
    return Authorization(
        id=r[0],
        account=r[1],
        profile=ProfileName(r[2]),
        identifier=Identifier(IdentifierType(r[3]), r[4]),
        wildcard=bool(r[5]),
        subdomains=bool(r[6]),
        status=AuthorizationStatus(r[7]),
        challenges=read_challenges(r[8]),
        created_at=from_micros(r[9]),
        expires_at=from_micros(r[10]),
        trying=r[11],
        attempts=r[12],
        next_at=_moment(r[13]),
        worker=r[14],
        lease_until=_moment(r[15]),
        source=r[16],
        payload=_NOTHING if payload is None else MappingProxyType(json.loads(payload)),
        attested_key=r[18],
        claims=_NOTHING if r[19] is None else MappingProxyType(json.loads(r[19])),
        caa_checked_at=_moment(r[20]),
    )


def seal_payload(keys: KeyRing, payload: Mapping[str, object]) -> bytes | None:
    """Return what came with a challenge as its column holds it; nothing for the usual `{}`."""
    return keys.encrypt(CHALLENGE_PAYLOAD, json.dumps(dict(payload)).encode()) if payload else None


def write_claims(claims: Mapping[str, str]) -> str | None:
    """Return what an attestation said as its column holds it."""
    return json.dumps(dict(claims)) if claims else None


def write_challenges(challenges: Iterable[Challenge]) -> str:
    """Return the challenges of an authorization as their column holds them."""
    return json.dumps(
        [
            [one.id, one.type.value, one.token, one.status.value, micros(one.validated_at), write_problem(one.error)]
            for one in challenges
        ]
    )


def read_challenges(text: str) -> tuple[Challenge, ...]:
    """Read what `write_challenges` wrote."""
    return tuple(
        Challenge(id, ChallengeType(kind), token, ChallengeStatus(status), _moment(at), _read_problem(error))
        for id, kind, token, status, at, error in json.loads(text)
    )


def write_problem(problem: Problem | None) -> str | None:
    """Return a problem as its column holds it."""
    if problem is None:
        return None
    names = [[name.type.value, name.value, reason.value, detail] for name, reason, detail in problem.identifiers]
    return json.dumps([problem.reason.value, problem.detail, names])


def read_incident(r: Sequence[Any]) -> Incident:
    """Read one row of INCIDENT_SELECT."""
    return Incident(id=r[0], explanation_url=r[1], created_at=from_micros(r[2]), created_by=r[3], certificates=r[4])


def incident_columns(row: Incident) -> Columns:
    """Return the columns of one incident."""
    return {
        "id": row.id,
        "explanation_url": row.explanation_url,
        "created_at": to_micros(row.created_at),
        "created_by": row.created_by,
        "certificates": row.certificates,
    }


def micros(at: datetime | None) -> int | None:
    """Return a time as its column holds it."""
    return None if at is None else to_micros(at)


def _moment(value: int | None) -> datetime | None:
    return None if value is None else from_micros(value)


def _read_problem(text: str | None) -> Problem | None:
    if text is None:
        return None
    reason, detail, names = json.loads(text)
    identifiers = tuple((Identifier(IdentifierType(kind), value), Reason(why), said) for kind, value, why, said in names)
    return Problem(Reason(reason), detail, identifiers)


def _write_policy(policy: ExternalAccountPolicy) -> str:
    raw = {
        "dns": policy.dns,
        "ip": policy.ip,
        "wildcards": policy.wildcards,
        "key_types": None if policy.key_types is None else sorted(policy.key_types),
        "challenges": None if policy.challenges is None else sorted(policy.challenges),
        "mode": policy.mode,
        "max_validity": None if policy.max_validity is None else policy.max_validity // timedelta(microseconds=1),
        "max_identifiers": policy.max_identifiers,
    }
    return json.dumps(raw)


def _read_policy(text: str, max_accounts: int | None, max_certificates: int | None) -> ExternalAccountPolicy:
    raw = json.loads(text)
    return ExternalAccountPolicy(
        dns=tuple(raw["dns"]),
        ip=tuple(raw["ip"]),
        wildcards=raw["wildcards"],
        key_types=None if raw["key_types"] is None else frozenset(raw["key_types"]),
        challenges=None if raw["challenges"] is None else frozenset(map(ChallengeType, raw["challenges"])),
        mode=raw["mode"],
        max_validity=None if raw["max_validity"] is None else timedelta(microseconds=raw["max_validity"]),
        max_identifiers=raw["max_identifiers"],
        max_accounts=max_accounts,
        max_certificates=max_certificates,
    )
