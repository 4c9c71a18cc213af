"""Rows that a store test needs, each different from the last, every field overridable."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.audit import AuditEvent
from gateway.model import (
    Extension,
    Grant,
    ProfileName,
    RequestForm,
    RequestId,
    Reservation,
    RevocationReason,
    SanKind,
    SubjectAltName,
    UpstreamCAName,
)
from gateway.store.interfaces import (
    AuditRow,
    ChallengeRow,
    InventoryRow,
    LedgerRow,
    LedgerState,
    Opened,
    Opening,
    PendingRevocation,
    QuotaTake,
    Store,
    Transition,
    WaitingFor,
)
from gateway.store.sqlite import SqliteStore, audit_trail

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = NOW + timedelta(seconds=60)
WINDOW = timedelta(hours=1)
PROFILE = ProfileName("demo")
CA = UpstreamCAName("local")
CHAIN = (b"issuing ca" * 60, b"root ca" * 60)
OPEN_ONLY = frozenset({LedgerState.OPEN})

GRANT = Grant(
    subject_der=b"0\x0b1\t0\x07\x06\x03U\x04\x03\x0c\x00",
    sans=(SubjectAltName(SanKind.DNS, "device.example", b"\x82\x0edevice.example"),),
    key_usage=("digitalSignature",),
    ekus=("1.3.6.1.5.5.7.3.2",),
    not_before=NOW.replace(microsecond=0),
    not_after=NOW.replace(microsecond=0) + timedelta(days=365),
    extensions=(Extension("1.2.3.4", False, b"\x05\x00"),),
    modified=True,
)

_numbers = itertools.count(1)


def event(name: str = "enrollment.opened", decision: str = "pending", at: datetime = NOW, **fields: Any) -> AuditEvent:
    return AuditEvent(name, at, fields.pop("actor", "one_time:c1"), decision, **fields)


def ledger_row(**fields: Any) -> LedgerRow:
    number = next(_numbers)
    base: dict[str, Any] = {
        "id": RequestId(f"01{number:024d}"),
        "request_key": secrets.token_bytes(32),
        "profile": PROFILE,
        "protocol": "scep",
        "operation": "PKCSReq",
        "transaction_id": f"transaction-{number}",
        "requester": "one_time:c1",
        "requester_key": b"k" * 32,
        "owner": None,
        "source": "192.0.2.1",
        "form": RequestForm.PKCS10,
        "request": b"request" + number.to_bytes(4, "big"),
        "public_key": b"key" + number.to_bytes(4, "big"),
        "public_key_sha256": hashlib.sha256(number.to_bytes(4, "big")).digest(),
        "subject": "CN=device.example",
        "sans": ("dns:device.example",),
        "grant": GRANT,
        "upstream_ca": CA,
        "serial": secrets.randbits(158) | 1 << 158,
        "generation": 1,
        "renews": None,
        "state": LedgerState.OPEN,
        "waiting_for": WaitingFor.NOTHING,
        "sent": False,
        "worker": "w1",
        "lease_until": LEASE,
        "poll_at": None,
        "upstream_reference": None,
        "attempts": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return LedgerRow(**(base | fields))


def opening(
    row: LedgerRow | None = None, reservations: tuple[Reservation, ...] = (), quotas: tuple[QuotaTake, ...] = (), **fields: Any
) -> Opening:
    opened = row or ledger_row(**fields)
    return Opening(opened, reservations, quotas, opened.created_at + WINDOW, event(at=opened.created_at, request_id=opened.id))


def reservation(key: str = "c1", kind: str = "one_time", expires_at: datetime = NOW + timedelta(hours=2)) -> Reservation:
    return Reservation(kind, key, expires_at)


def certificate_of(row: LedgerRow, **fields: Any) -> InventoryRow:
    der = b"certificate" + secrets.token_bytes(16)
    base: dict[str, Any] = {
        "sha256": hashlib.sha256(fields.get("der", der)).digest(),
        "der": der,
        "upstream_ca": row.upstream_ca,
        "issuer_der": b"issuer",
        "serial": row.serial,
        "profile": row.profile,
        "protocol": row.protocol,
        "requester": row.requester,
        "owner": row.owner,
        "request_id": row.id,
        "request_sha256": hashlib.sha256(row.request).digest(),
        "public_key_sha256": row.public_key_sha256,
        "subject": row.subject,
        "sans": row.sans,
        "not_before": GRANT.not_before,
        "not_after": GRANT.not_after,
        "issued_at": row.created_at,
        "renews": row.renews,
    }
    return InventoryRow(**(base | fields))


def transition(row: LedgerRow, to: LedgerState = LedgerState.DELIVERED, **fields: Any) -> Transition:
    base: dict[str, Any] = {
        "id": row.id,
        "expected": OPEN_ONLY,
        "worker": row.worker,
        "to": to,
        "at": NOW + timedelta(seconds=1),
        "audit": event("enrollment.issued", "granted", request_id=row.id),
    }
    return Transition(**(base | fields))


def challenge(id: str = "c1", **fields: Any) -> ChallengeRow:
    base: dict[str, Any] = {
        "id": id,
        "profile": PROFILE,
        "mac": hashlib.sha256(id.encode()).digest(),
        "created_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
        "created_by": "uid:0 (root)",
    }
    return ChallengeRow(**(base | fields))


def pending_revocation(**fields: Any) -> PendingRevocation:
    """A revocation that its CA is to be told of, due at once."""
    der = b"certificate" + secrets.token_bytes(16)
    base: dict[str, Any] = {
        "sha256": hashlib.sha256(der).digest(),
        "der": der,
        "upstream_ca": CA,
        "serial": secrets.randbits(158) | 1 << 158,
        "reason": RevocationReason.KEY_COMPROMISE,
        "revoked_at": NOW,
        "not_after": NOW + timedelta(days=365),
        "next_at": NOW,
    }
    return PendingRevocation(**(base | fields))


async def opened(store: Store, **fields: Any) -> LedgerRow:
    """Open one row that nothing stands against."""
    answer = await store.open(opening(**fields))
    assert isinstance(answer, Opened)
    return answer.row


async def issued(store: Store, **fields: Any) -> tuple[LedgerRow, InventoryRow]:
    """Open a row and deliver its certificate."""
    row = await opened(store, **fields)
    certificate = certificate_of(row)
    answer = await store.transition(transition(row, certificate=certificate, chain=CHAIN))
    assert answer is not None
    return answer, certificate


def audit_rows(store: Store, after: int = 0) -> list[AuditRow]:
    """All audit rows after a number, as the commands read them."""
    assert isinstance(store, SqliteStore)
    with audit_trail(store.path, after) as rows:
        return list(rows)


def audit_events(store: Store) -> list[str]:
    """The names of all audit events, in order."""
    return [json.loads(row.body)["event"] for row in audit_rows(store)]
