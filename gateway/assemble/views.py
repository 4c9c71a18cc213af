"""Rows of the store as operators see them: JSON-like, secrets left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from gateway.pki.certificate import der_to_pem
from gateway.pki.extensions import eku_name
from gateway.pki.names import format_name, parse_name
from gateway.store.interfaces import ChallengeRow, CRLRow, InventoryRow, LedgerRow, PendingRevocation


def certificate(row: InventoryRow) -> dict[str, Any]:
    """Return what a list shows of a certificate."""
    return {
        "sha256": row.sha256,
        "serial": format(row.serial, "x"),
        "subject": row.subject,
        "sans": row.sans,
        "profile": row.profile,
        "protocol": row.protocol,
        "requester": row.requester,
        "owner": row.owner,
        "upstream_ca": row.upstream_ca,
        "not_before": row.not_before,
        "not_after": row.not_after,
        "issued_at": row.issued_at,
        "revoked_at": row.revoked_at,
        "revocation_reason": row.revocation_reason.name.lower() if row.revocation_reason else None,
    }


def whole_certificate(row: InventoryRow) -> dict[str, Any]:
    """Return all that is known of a certificate."""
    return {
        **certificate(row),
        "request_id": row.request_id,
        "request_sha256": row.request_sha256,
        "public_key_sha256": row.public_key_sha256,
        "renews": row.renews,
        "renewed_by": row.renewed_by,
        "pem": der_to_pem(row.der).decode("ascii"),
    }


def request(row: LedgerRow) -> dict[str, Any]:
    """Return what a list shows of an enrollment."""
    return {
        "id": row.id,
        "state": row.state,
        "waiting_for": row.waiting_for or None,
        "profile": row.profile,
        "subject": row.subject,
        "sans": row.sans,
        "requester": row.requester,
        "upstream_ca": row.upstream_ca,
        "serial": None if row.serial is None else format(row.serial, "x"),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "reason": row.reason,
        "detail": row.detail,
    }


def whole_request(row: LedgerRow) -> dict[str, Any]:
    """Return all that is known of an enrollment, with what was granted."""
    grant = row.grant
    return {
        **request(row),
        "protocol": row.protocol,
        "operation": row.operation,
        "transaction_id": row.transaction_id,
        "source": row.source,
        "owner": row.owner,
        "attempts": row.attempts,
        "generation": row.generation,
        "upstream_reference": row.upstream_reference,
        "confirm_by": row.confirm_by,
        "granted": {
            "subject": format_name(parse_name(grant.subject_der)),
            "sans": [f"{san.kind}:{san.value}" for san in grant.sans],
            "key_usage": grant.key_usage,
            "ekus": [eku_name(oid) for oid in grant.ekus],
            "not_before": grant.not_before,
            "not_after": grant.not_after,
        },
        "request_pem": der_to_pem(row.request, "CERTIFICATE REQUEST").decode("ascii") if row.form == "pkcs10" else None,
        "certificate_pem": der_to_pem(row.certificate).decode("ascii") if row.certificate else None,
    }


def challenge(row: ChallengeRow) -> dict[str, Any]:
    """Return a one-time challenge without the secret, which is not known here."""
    return {
        "id": row.id,
        "profile": row.profile,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "subject": row.subject,
        "sans": sorted(f"{kind}:{value}" for kind, value in row.sans) if row.sans is not None else None,
        "owner": row.owner,
        "revoked_at": row.revoked_at,
        "used_by": row.used_by,
    }


def revocation(row: PendingRevocation) -> dict[str, Any]:
    """Return a revocation that a CA has not been told of."""
    return {
        "sha256": row.sha256,
        "serial": format(row.serial, "x"),
        "upstream_ca": row.upstream_ca,
        "reason": row.reason.name.lower(),
        "revoked_at": row.revoked_at,
        "not_after": row.not_after,
        "attempts": row.attempts,
        "next_at": row.next_at,
        "cause": row.cause,
    }


def crl(row: CRLRow) -> dict[str, Any]:
    """Return a CRL without its entries."""
    return {
        "upstream_ca": row.upstream_ca,
        "number": row.number,
        "this_update": row.this_update,
        "next_update": row.next_update,
        "bytes": len(row.der),
    }


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: times in ISO 8601, bytes in hex."""
    match value:
        case datetime():
            return value.isoformat(timespec="seconds")
        case bytes():
            return value.hex()
        case Enum():
            return value.value
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return value
