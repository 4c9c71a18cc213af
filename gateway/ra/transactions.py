"""Ledger rows: what makes two requests the same (RFC 8894 §5.2), how a row begins, and what answer it holds."""

from __future__ import annotations

import hashlib
import math
import secrets
from datetime import datetime, timedelta

from gateway.audit import AuditEvent
from gateway.ca.interfaces import IssueRequest
from gateway.errors import Reason
from gateway.model import (
    Allowance,
    CertificateRequest,
    EnrollmentRequest,
    Grant,
    Issued,
    Outcome,
    Pending,
    Rejected,
    Requester,
    RequestId,
    RevocationReason,
    SubjectAltName,
)
from gateway.pki.certificate import Certificate
from gateway.pki.names import format_name, parse_name
from gateway.ra.devices import digest_of_names
from gateway.ra.profile import Profile, Quota
from gateway.ra.timing import Timing
from gateway.ra.upstream import destination
from gateway.store.interfaces import InventoryRow, LedgerRow, LedgerState, Opening, QuotaTake, WaitingFor

NOBODY = ""
"""The worker of a row that rests: whoever finds its time come may claim it."""

DELIVERABLE = frozenset({LedgerState.DELIVERED, LedgerState.CONFIRMED})

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
"""Two characters for ten bits."""
_RANDOM_BYTES = 10


def new_request_id(now: datetime) -> RequestId:
    """Return a ULID: 48 bits of milliseconds and 80 random bits in 26 characters that sort by time."""
    number = int(now.timestamp() * 1000) << 8 * _RANDOM_BYTES | int.from_bytes(secrets.token_bytes(_RANDOM_BYTES), "big")
    return RequestId("".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)]))


def request_key(request: EnrollmentRequest, requester: Requester) -> bytes:
    """Return the 32 bytes that the same request by the same requester always has, and no other.

    A self-signed signer certificate says nothing beyond its key, and clients make a new one on each start: there the
    authenticated identity stands alone. Each part is preceded by its length, so that no two lists of parts run together.
    """
    signer = request.signer
    parts = (
        request.profile,
        request.protocol,
        request.operation,
        request.transaction_id,
        requester.identity,
        signer.sha256.hex() if signer and not signer.self_signed else "",
        request.requester_key.hex(),
        request.csr.digest.hex(),
    )
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def new_row(
    request: EnrollmentRequest,
    requester: Requester,
    profile: Profile,
    grant: Grant,
    *,
    key: bytes,
    generation: int,
    worker: str,
    now: datetime,
    lease: timedelta,
) -> LedgerRow:
    """Return the row that step 4 writes: already `sent`, unless an approver has to see it first.

    Marking it sent here and not in a write of its own saves one durable write an enrollment. The price is that a crash in the
    instant between this write and the first byte leaves a doubt that `find` or an operator ends; no second write could
    remove that instant, only move it.
    """
    approval = profile.manual_approval
    return LedgerRow(
        id=new_request_id(now),
        request_key=key,
        profile=request.profile,
        protocol=request.protocol,
        operation=request.operation,
        transaction_id=request.transaction_id,
        requester=requester.identity,
        requester_key=request.requester_key,
        owner=requester.owner,
        source=request.source,
        form=request.csr.form,
        request=request.csr.der,
        public_key=request.csr.public_key.der,
        public_key_sha256=request.csr.public_key.sha256,
        subject=subject_text(grant.subject_der),
        sans=san_texts(grant.sans),
        grant=grant,
        upstream_ca=profile.upstream_ca.name,
        serial=profile.upstream_ca.new_serial(),
        generation=generation,
        renews=requester.renews,
        state=LedgerState.PENDING if approval else LedgerState.OPEN,
        waiting_for=WaitingFor.APPROVAL if approval else WaitingFor.NOTHING,
        sent=not approval,
        worker=NOBODY if approval else worker,
        lease_until=now + lease,
        poll_at=None,
        upstream_reference=destination(profile.upstream_ca),
        attempts=0 if approval else 1,
        created_at=now,
        updated_at=now,
        confirm_by=request.proof.confirm_by if request.proof else None,
    )


def new_opening(row: LedgerRow, request: EnrollmentRequest, requester: Requester, profile: Profile, audit: AuditEvent) -> Opening:
    """Return all that step 4 takes: reservations, quotas, request key and row."""
    return Opening(
        row=row,
        reservations=requester.reservations,
        quotas=_quotas(profile, requester, request.csr),
        retransmission_until=row.created_at + profile.retransmission_window,
        audit=audit,
    )


def _quotas(profile: Profile, requester: Requester, asked: CertificateRequest) -> tuple[QuotaTake, ...]:
    """Return the profile's quotas and the credential's own; a device has one of each profile, whatever it proves itself by."""
    quotas = []
    if profile.per_requester is not None:
        device = requester.device or digest_of_names(asked)
        quotas.append(_quota(f"device:{profile.name}:{device}", profile.per_requester))
    if profile.per_profile is not None:
        quotas.append(_quota(f"profile:{profile.name}", profile.per_profile))
    return (*quotas, *[_quota(allowance.key, allowance) for allowance in requester.allowances])


def _quota(key: str, limit: Quota | Allowance) -> QuotaTake:
    return QuotaTake(key, limit.count, max(1, math.ceil(limit.window.total_seconds())))


def outcome_of(row: LedgerRow, now: datetime, hold_retry: int) -> Outcome | None:
    """Return the answer that a row holds, or None while somebody works on it.

    A row that nobody works on is Pending for its client: an operator or the next round takes it up, and a refusal would
    make the client ask anew for what may exist already. `hold_retry` is in seconds.
    """
    if row.state in DELIVERABLE and row.certificate is not None:
        return Issued(row.certificate, row.chain, row.id, row.grant.modified)
    if row.state is LedgerState.REVOKED:
        return Rejected(Reason.DENIED, "the certificate of this request was revoked")
    if row.state is LedgerState.REJECTED:
        return Rejected(row.reason or Reason.DENIED, row.detail or "the request was refused")
    if row.state is LedgerState.PENDING:
        return Pending(row.id, _retry_after(row, now, hold_retry))
    if row.state in {LedgerState.OPEN, LedgerState.UNKNOWN} and row.worker == NOBODY:
        return Pending(row.id, hold_retry)
    return None


def _retry_after(row: LedgerRow, now: datetime, hold_retry: int) -> int:
    if row.poll_at is None:
        return hold_retry
    return max(1, min(hold_retry, int((row.poll_at - now).total_seconds()) + 1))


def confirmation_deadline(row: LedgerRow, now: datetime, timing: Timing) -> datetime | None:
    """Return until when the certificate that comes now must be confirmed (RFC 9810 §5.1.1.2): as long as was granted, from now.

    Whoever was told to come back has it only when he does.
    """
    if row.confirm_by is None:
        return None
    waited = (now - row.created_at).total_seconds() > timing.answer_within
    return now + (row.confirm_by - row.created_at) + (timedelta(seconds=2 * timing.hold_retry) if waited else timedelta(0))


def latest_lease(now: datetime, lease: timedelta) -> datetime:
    """Return the time past which no lease of length `lease` can end that a worker took or renewed by now.

    A later one was taken under a clock that ran ahead and was put right. Twice the length, because two processes look at
    the clock at different moments.
    """
    return now + 2 * lease


def is_held(row: LedgerRow, now: datetime, lease: timedelta) -> bool:
    """Say whether a worker works on a row: its lease runs, and could have been taken under the present clock."""
    return row.worker != NOBODY and now < row.lease_until <= latest_lease(now, lease)


def is_due(row: LedgerRow, now: datetime, lease: timedelta) -> bool:
    """Say whether a row may be taken up now: its lease ran out, or its upstream CA wants to be asked again.

    So may a row whose worker took its lease under a clock that ran ahead. `lease` is the longest a worker takes.
    """
    stranded = row.worker != NOBODY and row.lease_until > latest_lease(now, lease)
    if row.state is LedgerState.PENDING:
        polled = row.waiting_for is WaitingFor.UPSTREAM and row.poll_at is not None
        # a worker that holds it asks the CA just now, and may do so for longer than until the next question is due
        return polled and (stranded or (not is_held(row, now, lease) and (row.poll_at or now) <= now))
    return row.state in {LedgerState.OPEN, LedgerState.UNKNOWN} and (stranded or row.lease_until <= now)


def to_issue_request(row: LedgerRow, timeout: float) -> IssueRequest:
    """Return what the upstream CA is asked, from the stored row alone: the same whoever asks and however often."""
    return IssueRequest(
        request_id=row.id,
        profile=row.profile,
        form=row.form,
        request=row.request,
        public_key=row.public_key,
        grant=row.grant,
        serial=row.serial,
        timeout=timeout,
        reference=row.upstream_reference,
    )


def inventory_row(
    row: LedgerRow, certificate: Certificate, now: datetime, revoked: RevocationReason | None = None
) -> InventoryRow:
    """Return the inventory row of a certificate that came back for `row`; `revoked` puts it there revoked."""
    return InventoryRow(
        sha256=certificate.sha256,
        der=certificate.der,
        upstream_ca=row.upstream_ca,
        issuer_der=certificate.issuer_der,
        serial=certificate.serial,
        profile=row.profile,
        protocol=row.protocol,
        requester=row.requester,
        owner=row.owner,
        request_id=row.id,
        request_sha256=hashlib.sha256(row.request).digest(),
        public_key_sha256=certificate.public_key.sha256,
        subject=row.subject if certificate.subject.der == row.grant.subject_der else format_name(certificate.subject),
        sans=san_texts(certificate.sans),
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        issued_at=now,
        revoked_at=now if revoked else None,
        revocation_reason=revoked,
        renews=None if revoked else row.renews,
    )


def subject_text(der: bytes) -> str:
    """Return a distinguished name, DER, as RFC 4514 text."""
    return format_name(parse_name(der))


def san_texts(sans: tuple[SubjectAltName, ...]) -> tuple[str, ...]:
    """Return subject alternative names as `kind:value`."""
    return tuple([f"{san.kind}:{san.value}" for san in sans])
