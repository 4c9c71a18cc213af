"""ACME's objects as operators see them: JSON-like, secrets left out."""

from __future__ import annotations

from typing import Any

from gateway.acme import Account, ExternalAccount, Incident, Order
from gateway.config.durations import format_duration
from gateway.pki.base64url import encode


def external_account(row: ExternalAccount) -> dict[str, Any]:
    """Return an external account without its key."""
    policy = row.policy
    return {
        "kid": row.kid,
        "profile": row.profile,
        "owner": row.owner,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "accounts": row.accounts,
        "max_accounts": policy.max_accounts,
        "certificates": row.certificates,
        "max_certificates": policy.max_certificates,
        "dns": policy.dns,
        "ip": policy.ip,
        "wildcards": policy.wildcards,
        "key_types": None if policy.key_types is None else sorted(policy.key_types),
        "challenges": None if policy.challenges is None else sorted(policy.challenges),
        "mode": policy.mode,
        "max_validity": None if policy.max_validity is None else format_duration(policy.max_validity),
        "max_identifiers": policy.max_identifiers,
    }


def new_external_account(row: ExternalAccount) -> dict[str, Any]:
    """Return a new external account with its key, base64url as clients take it: shown this once."""
    return {"kid": row.kid, "hmac_key": encode(row.key), **{k: v for k, v in external_account(row).items() if k != "kid"}}


def account(row: Account) -> dict[str, Any]:
    """Return an account."""
    return {
        "id": row.id,
        "profile": row.profile,
        "status": row.status,
        "contact": row.contact,
        "external_account": row.external_account,
        "terms": row.terms,
        "thumbprint": row.thumbprint,
        "source": row.source,
        "created_at": row.created_at,
    }


def order(row: Order) -> dict[str, Any]:
    """Return an order."""
    return {
        "id": row.id,
        "account": row.account,
        "directory": row.directory,
        "profile": row.profile,
        "status": row.status,
        "identifiers": [f"{one.type}:{one.value}" for one in row.identifiers],
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "next_at": row.next_at,
        "attempts": row.attempts,
        "request_id": row.request_id,
        "certificate": row.certificate,
        "replaces": row.replaces,
        "source": row.source,
        "reason": None if row.error is None else row.error.reason,
        "detail": None if row.error is None else row.error.detail,
    }


def incident(row: Incident) -> dict[str, Any]:
    """Return an incident."""
    return {
        "id": row.id,
        "certificates": row.certificates,
        "explanation_url": row.explanation_url,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
