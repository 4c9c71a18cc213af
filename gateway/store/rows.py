"""Rows of the store as columns and back, the same for every database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Table

from gateway.errors import Reason, StoreRefused, StoreUnavailable
from gateway.model import Grant, ProfileName, RequestForm, RequestId, RevocationReason, SanKind, UpstreamCAName
from gateway.store import tables
from gateway.store.interfaces import (
    ChallengeRow,
    CRLRow,
    InventoryRow,
    LedgerRow,
    LedgerState,
    PendingRevocation,
    WaitingFor,
)
from gateway.store.keys import KeyRing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Columns = dict[str, Any]


def to_micros(at: datetime) -> int:
    """Return microseconds since 1970; exact, unlike a float timestamp. A naive time raises TypeError."""
    return (at - EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """Return the moment that `to_micros` wrote."""
    return EPOCH + timedelta(microseconds=value)


def columns(table: Table, alias: str) -> str:
    """Return the table's columns for a SELECT, in the order of its definition."""
    return ", ".join(f"{alias}.{column.name}" for column in table.columns)


def insert(table: Table, conflict: str = "") -> str:
    """Return an INSERT of one whole row with named parameters."""
    names = [column.name for column in table.columns]
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)}) {conflict}"  # noqa: S608


LEDGER_SELECT = (
    f"SELECT {columns(tables.ledger, 'l')}, i.der, c.certificates FROM ledger l "  # noqa: S608
    "LEFT JOIN inventory i ON i.request_id = l.id LEFT JOIN chains c ON c.sha256 = l.chain_sha256 "
)
INVENTORY_SELECT = f"SELECT {columns(tables.inventory, 'i')} FROM inventory i "  # noqa: S608
CHALLENGE_SELECT = (
    "SELECT h.id, h.profile, h.mac, h.created_at, h.expires_at, h.created_by, h.subject, h.sans, h.owner, h.revoked_at, "
    "r.request_id FROM challenges h "
    "LEFT JOIN reservations r ON r.kind = 'one_time' AND r.name = h.id "
)
PENDING_SELECT = f"SELECT {columns(tables.pending_revocations, 'p')} FROM pending_revocations p "  # noqa: S608
CRL_SELECT = "SELECT upstream_ca, number, der, this_update, next_update FROM crls "


REQUEST = "request"
"""The purpose under which requests are sealed: a CSR may carry its challengePassword, and upstream CAs need it whole."""


def seal_request(keys: KeyRing, request: bytes) -> bytes:
    """Return a request as its column holds it."""
    return keys.encrypt(REQUEST, request)


def open_request(keys: KeyRing, sealed: bytes) -> bytes:
    """Return a request as it was received; raises StoreUnavailable where no key of the ring opens it."""
    try:
        return keys.decrypt(REQUEST, sealed)
    except StoreRefused as error:
        raise StoreUnavailable(str(error)) from error


def ledger_columns(row: LedgerRow, sealed_request: bytes) -> Columns:
    """Return the columns of a new ledger row, given its sealed request; its certificate is never part of them."""
    return {
        "id": row.id,
        "request_key": row.request_key,
        "profile": row.profile,
        "protocol": row.protocol,
        "operation": row.operation,
        "transaction_id": row.transaction_id,
        "requester": row.requester,
        "requester_key": row.requester_key,
        "owner": row.owner,
        "source": row.source,
        "form": row.form.value,
        "request": sealed_request,
        "public_key": row.public_key,
        "public_key_sha256": row.public_key_sha256,
        "subject": row.subject,
        "sans": json.dumps(row.sans),
        "granted": row.grant.to_json(),
        "upstream_ca": row.upstream_ca,
        "serial": to_serial(row.serial),
        "generation": row.generation,
        "renews": row.renews,
        "state": row.state.value,
        "waiting_for": row.waiting_for.value,
        "sent": int(row.sent),
        "worker": row.worker,
        "lease_until": to_micros(row.lease_until),
        "poll_at": _micros_or_none(row.poll_at),
        "upstream_reference": row.upstream_reference,
        "attempts": row.attempts,
        "created_at": to_micros(row.created_at),
        "updated_at": to_micros(row.updated_at),
        "reason": row.reason.value if row.reason else None,
        "detail": row.detail,
        "chain_sha256": None,
        "quota_slots": "[]",
        "queued_at": _micros_or_none(row.queued_at),
        "sent_at": _micros_or_none(row.sent_at),
        "confirm_by": _micros_or_none(row.confirm_by),
    }


CHANGING = (
    "state, waiting_for, sent, worker, lease_until, poll_at, upstream_reference, attempts, updated_at, reason, detail, serial, "
    "queued_at, sent_at, confirm_by"
)
"""The columns of a ledger row that change after it was opened, beside its certificate and chain."""


def read_changed(r: Sequence[Any], opened: LedgerRow, certificate: bytes, chain: tuple[bytes, ...]) -> LedgerRow:
    """Return a ledger row from its columns CHANGING and from itself as it was opened: nothing else has changed."""
    return LedgerRow(
        id=opened.id,
        request_key=opened.request_key,
        profile=opened.profile,
        protocol=opened.protocol,
        operation=opened.operation,
        transaction_id=opened.transaction_id,
        requester=opened.requester,
        requester_key=opened.requester_key,
        owner=opened.owner,
        source=opened.source,
        form=opened.form,
        request=opened.request,
        public_key=opened.public_key,
        public_key_sha256=opened.public_key_sha256,
        subject=opened.subject,
        sans=opened.sans,
        grant=opened.grant,
        upstream_ca=opened.upstream_ca,
        generation=opened.generation,
        renews=opened.renews,
        created_at=opened.created_at,
        state=LedgerState(r[0]),
        waiting_for=WaitingFor(r[1]),
        sent=bool(r[2]),
        worker=r[3],
        lease_until=from_micros(r[4]),
        poll_at=_moment_or_none(r[5]),
        upstream_reference=r[6],
        attempts=r[7],
        updated_at=from_micros(r[8]),
        reason=Reason(r[9]) if r[9] else None,
        detail=r[10],
        serial=_serial_or_none(r[11]),
        queued_at=_moment_or_none(r[12]),
        sent_at=_moment_or_none(r[13]),
        confirm_by=_moment_or_none(r[14]),
        certificate=certificate,
        chain=chain,
    )


def read_ledger(r: Sequence[Any], keys: KeyRing) -> LedgerRow:
    """Read one row of LEDGER_SELECT; raises StoreUnavailable where no key opens its request."""
    return LedgerRow(
        id=RequestId(r[0]),
        request_key=r[1],
        profile=ProfileName(r[2]),
        protocol=r[3],
        operation=r[4],
        transaction_id=r[5],
        requester=r[6],
        requester_key=r[7],
        owner=r[8],
        source=r[9],
        form=RequestForm(r[10]),
        request=open_request(keys, r[11]),
        public_key=r[12],
        public_key_sha256=r[13],
        subject=r[14],
        sans=tuple(json.loads(r[15])),
        grant=Grant.from_json(r[16]),
        upstream_ca=UpstreamCAName(r[17]),
        serial=_serial_or_none(r[18]),
        generation=r[19],
        renews=r[20],
        state=LedgerState(r[21]),
        waiting_for=WaitingFor(r[22]),
        sent=bool(r[23]),
        worker=r[24],
        lease_until=from_micros(r[25]),
        poll_at=_moment_or_none(r[26]),
        upstream_reference=r[27],
        attempts=r[28],
        created_at=from_micros(r[29]),
        updated_at=from_micros(r[30]),
        reason=Reason(r[31]) if r[31] else None,
        detail=r[32],
        queued_at=_moment_or_none(r[35]),
        sent_at=_moment_or_none(r[36]),
        confirm_by=_moment_or_none(r[37]),
        certificate=r[38],
        chain=unpack_chain(r[39]) if r[39] is not None else (),
    )


def inventory_columns(row: InventoryRow) -> Columns:
    """Return the columns of one certificate."""
    return {
        "sha256": row.sha256,
        "der": row.der,
        "upstream_ca": row.upstream_ca,
        "issuer_der": row.issuer_der,
        "serial": to_serial(row.serial),
        "profile": row.profile,
        "protocol": row.protocol,
        "requester": row.requester,
        "owner": row.owner,
        "request_id": row.request_id,
        "request_sha256": row.request_sha256,
        "public_key_sha256": row.public_key_sha256,
        "subject": row.subject,
        "sans": json.dumps(row.sans),
        "not_before": to_micros(row.not_before),
        "not_after": to_micros(row.not_after),
        "issued_at": to_micros(row.issued_at),
        "revoked_at": _micros_or_none(row.revoked_at),
        "revocation_reason": row.revocation_reason.value if row.revocation_reason is not None else None,
        "renews": row.renews,
        "renewed_by": row.renewed_by,
    }


def read_inventory(r: Sequence[Any]) -> InventoryRow:
    """Read one row of INVENTORY_SELECT."""
    return InventoryRow(
        sha256=r[0],
        der=r[1],
        upstream_ca=UpstreamCAName(r[2]),
        issuer_der=r[3],
        serial=int(r[4], 16),
        profile=ProfileName(r[5]),
        protocol=r[6],
        requester=r[7],
        owner=r[8],
        request_id=RequestId(r[9]) if r[9] is not None else None,
        request_sha256=r[10],
        public_key_sha256=r[11],
        subject=r[12],
        sans=tuple(json.loads(r[13])),
        not_before=from_micros(r[14]),
        not_after=from_micros(r[15]),
        issued_at=from_micros(r[16]),
        revoked_at=_moment_or_none(r[17]),
        revocation_reason=RevocationReason(r[18]) if r[18] is not None else None,
        renews=r[19],
        renewed_by=r[20],
    )


def challenge_columns(row: ChallengeRow, key_id: str) -> Columns:
    """Return the columns of one challenge whose HMAC the key `key_id` made."""
    names = None if row.sans is None else json.dumps(sorted([kind.value, value] for kind, value in row.sans))
    return {
        "id": row.id,
        "profile": row.profile,
        "mac": row.mac,
        "key_id": key_id,
        "created_at": to_micros(row.created_at),
        "expires_at": to_micros(row.expires_at),
        "created_by": row.created_by,
        "subject": row.subject,
        "sans": names,
        "owner": row.owner,
        "revoked_at": _micros_or_none(row.revoked_at),
    }


def read_challenge(r: Sequence[Any]) -> ChallengeRow:
    """Read one row of CHALLENGE_SELECT."""
    return ChallengeRow(
        id=r[0],
        profile=ProfileName(r[1]),
        mac=r[2],
        created_at=from_micros(r[3]),
        expires_at=from_micros(r[4]),
        created_by=r[5],
        subject=r[6],
        sans=None if r[7] is None else frozenset((SanKind(kind), value) for kind, value in json.loads(r[7])),
        owner=r[8],
        revoked_at=_moment_or_none(r[9]),
        used_by=RequestId(r[10]) if r[10] is not None else None,
    )


def read_crl(r: Sequence[Any]) -> CRLRow:
    """Read one row of CRL_SELECT."""
    return CRLRow(UpstreamCAName(r[0]), r[1], r[2], from_micros(r[3]), from_micros(r[4]))


def pending_columns(row: PendingRevocation) -> Columns:
    """Return the columns of a revocation that a CA is to be told of."""
    return {
        "sha256": row.sha256,
        "der": row.der,
        "upstream_ca": row.upstream_ca,
        "serial": to_serial(row.serial),
        "reason": row.reason.value,
        "revoked_at": to_micros(row.revoked_at),
        "not_after": to_micros(row.not_after),
        "next_at": to_micros(row.next_at),
        "attempts": row.attempts,
        "cause": row.cause,
    }


def read_pending(r: Sequence[Any]) -> PendingRevocation:
    """Read one row of PENDING_SELECT."""
    return PendingRevocation(
        sha256=r[0],
        der=r[1],
        upstream_ca=UpstreamCAName(r[2]),
        serial=int(r[3], 16),
        reason=RevocationReason(r[4]),
        revoked_at=from_micros(r[5]),
        not_after=from_micros(r[6]),
        next_at=from_micros(r[7]),
        attempts=r[8],
        cause=r[9],
    )


def to_serial(serial: int | None) -> str | None:
    """Return a serial number as its column holds it."""
    return None if serial is None else format(serial, "x")


@lru_cache(maxsize=64)
def pack_chain(chain: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Return the SHA-256 and the packed form of a chain: there are few, and one comes with every certificate."""
    packed = b"".join(len(der).to_bytes(4, "big") + der for der in chain)
    return hashlib.sha256(packed).digest(), packed


@lru_cache(maxsize=64)
def unpack_chain(packed: bytes) -> tuple[bytes, ...]:
    """Read what `pack_chain` wrote."""
    ders, offset = [], 0
    while offset < len(packed):
        end = offset + 4 + int.from_bytes(packed[offset : offset + 4], "big")
        ders.append(packed[offset + 4 : end])
        offset = end
    return tuple(ders)


def _serial_or_none(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def _micros_or_none(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def _moment_or_none(value: int | None) -> datetime | None:
    return None if value is None else from_micros(value)
