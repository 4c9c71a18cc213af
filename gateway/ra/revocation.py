"""Revocation and confirmation: at the upstream CA first, then in the inventory (RFC 5280 §5.3, RFC 9810 §5.3.18)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from hmac import compare_digest

import structlog

from gateway.audit import AuditEvent
from gateway.ca.interfaces import Capability, NotSent, UnknownResult, UpstreamCA, UpstreamError, UpstreamRejected
from gateway.errors import Reason, Rejection
from gateway.metrics.registry import UpstreamOperation
from gateway.model import Issued, Rejected, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra import journal
from gateway.ra.journal import Trail
from gateway.ra.profile import Profile, Snapshot
from gateway.ra.requests import Acknowledged, AcknowledgeOutcome, ConfirmRequest, RevokeRequest
from gateway.ra.revocation_queue import new_pending
from gateway.ra.transactions import DELIVERABLE
from gateway.ra.upstream import ask
from gateway.store.interfaces import (
    Inventory,
    InventoryRow,
    Ledger,
    LedgerRow,
    LedgerState,
    PendingRevocation,
    Transition,
)

log = structlog.get_logger(__name__)

UPSTREAM_RETRY = 30
"""Retry-After when the upstream CA did not revoke, in seconds."""


async def revoke_certificate(
    inventory: Inventory,
    upstream: UpstreamCA | None,
    row: InventoryRow,
    reason: RevocationReason,
    at: datetime,
    audit: AuditEvent,
    within: float,
) -> InventoryRow:
    """Revoke one certificate at its CA, then in the inventory; the row as it is then is returned.

    In this order a failure leaves nothing half known: the CA takes the same revocation again as success. A CA with a queue that
    does not answer `within` these seconds, or fails, is told later: the inventory has the revocation at once. `upstream` is None
    where the CA is not configured any more. Raises UpstreamError and StoreUnavailable; Rejection UNKNOWN_CERTIFICATE.
    """
    pending = None
    if row.revoked_at is None:
        if upstream is not None and Capability.REVOKE in upstream.capabilities:
            pending = await _tell(upstream, row, reason, at, within)
        else:
            log.warning(
                "revoked in the inventory only: revoke the certificate at its CA as well",
                upstream_ca=row.upstream_ca,
                serial=format(row.serial, "x"),
            )
    if pending is not None:
        audit = replace(audit, detail=f"{audit.detail}; the CA is told later: {pending.cause}")
    marked = await inventory.mark_revoked(row.sha256, at, reason, audit, pending)
    if marked is None:
        raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate")
    return marked


async def revive_certificate(
    inventory: Inventory, upstream: UpstreamCA | None, row: InventoryRow, at: datetime, audit: AuditEvent, within: float
) -> InventoryRow:
    """Take one certificate off hold at its CA, then in the inventory; the row as it is then is returned (RFC 5280 §5.3.1).

    Raises Rejection for one that is not on hold, or whose CA takes nothing off hold; UpstreamError and StoreUnavailable.
    """
    if row.revocation_reason is not RevocationReason.CERTIFICATE_HOLD:
        reason = Reason.UNKNOWN_CERTIFICATE if row.revoked_at is None else Reason.ALREADY_REVOKED
        raise Rejection(reason, "this certificate is not on hold")
    if upstream is None or Capability.REVIVE not in upstream.capabilities:
        raise Rejection(Reason.UPSTREAM_REJECTED, "the CA of this certificate takes nothing off hold")
    if await inventory.find_revocation(row.sha256) is not None:
        raise NotSent("the CA has not been told of the hold yet")
    try:
        await ask(upstream, UpstreamOperation.REVOKE, upstream.revive(row.der, row.serial, at), within)
    except TimeoutError as error:
        raise UnknownResult("the CA did not answer in time") from error
    revived = await inventory.revive(row.sha256, at, audit)
    if revived is None:
        raise Rejection(Reason.ALREADY_REVOKED, "this certificate is not on hold any more")
    return revived


async def revoke_unconfirmed(
    inventory: Inventory, upstream: UpstreamCA | None, row: LedgerRow, at: datetime, audit: AuditEvent
) -> bool:
    """Revoke the certificate of a delivered row that its client did not take; False when it was confirmed or revoked meanwhile.

    The inventory decides, in one transaction, so that no confirmation can come between; the CA is told right afterwards by
    whoever tells CAs of revocations. `audit` says who and why. Raises StoreUnavailable.
    """
    reason = RevocationReason.CESSATION_OF_OPERATION
    certificate = parse_certificate(row.certificate or b"")
    event = replace(
        audit, event="certificate.revoked", decision="done", at=at, serial=format(certificate.serial, "x"), subject=row.subject
    )
    pending = None
    if upstream is not None and Capability.REVOKE in upstream.capabilities:
        names = certificate.der, certificate.sha256, row.upstream_ca, certificate.serial, certificate.not_after
        pending = new_pending(*names, reason, at, "it was not confirmed", attempts=0)
    revoked = await inventory.revoke_unconfirmed(row, at, reason, event, pending)
    if revoked and pending is None:
        log.warning(
            "revoked in the inventory only: revoke the certificate at its CA as well",
            upstream_ca=row.upstream_ca,
            serial=format(certificate.serial, "x"),
        )
    return revoked


async def _tell(
    upstream: UpstreamCA, row: InventoryRow, reason: RevocationReason, at: datetime, within: float
) -> PendingRevocation | None:
    """Revoke a certificate at its CA; what the CA is to be told later, where it could not be now, is returned."""
    try:
        await ask(upstream, UpstreamOperation.REVOKE, upstream.revoke(row.der, row.serial, reason, at), within)
    except UpstreamRejected:
        raise
    except (UpstreamError, TimeoutError) as error:
        cause = str(error) or "the CA did not answer in time"
        if not upstream.queue:
            raise UnknownResult(cause) if isinstance(error, TimeoutError) else error from error
        log.warning("revoked in the inventory; the CA is told later", upstream_ca=upstream.name, cause=cause)
        return new_pending(row.der, row.sha256, upstream.name, row.serial, row.not_after, reason, at, cause)
    return None


class Revocation:
    """What clients may do to their own certificates after they were issued."""

    def __init__(self, ledger: Ledger, inventory: Inventory, clock: Callable[[], datetime], within: float) -> None:
        self._ledger = ledger
        self._inventory = inventory
        self._clock = clock
        self._within = within

    async def confirm(self, profile: Profile, row: LedgerRow, request: ConfirmRequest, trail: Trail) -> AcknowledgeOutcome:
        """Confirm the certificate of `row`, or revoke it when the client refused it."""
        held = b"" if row.certificate is None else hashlib.sha256(row.certificate).digest()
        if held != request.certificate_sha256 or row.state not in DELIVERABLE:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "this transaction has no such certificate to confirm")
        now = self._clock()
        if not request.accepted:
            event = replace(trail.event, actor=row.requester, detail="its client does not want it")
            if not await revoke_unconfirmed(self._inventory, profile.upstream_ca, row, now, event):
                raise Rejection(Reason.ALREADY_CONFIRMED, "the certificate was confirmed already, or revoked")
            trail.recorded = True
            return Acknowledged(row.id, revoked=True)
        confirmed = Transition(
            id=row.id,
            expected=DELIVERABLE,
            worker=None,
            to=LedgerState.CONFIRMED,
            at=now,
            audit=journal.change(row, "enrollment.confirmed", "done", now),
            opened=row,
        )
        if await self._ledger.transition(confirmed) is None:
            raise Rejection(Reason.DENIED, "the certificate was revoked meanwhile")
        trail.recorded = True
        return Acknowledged(row.id, revoked=False)

    async def by_holder(self, snapshot: Snapshot, request: RevokeRequest, trail: Trail) -> AcknowledgeOutcome:
        """Revoke for whoever signed with the certified key, or is entitled; another profile's certificate is not known here."""
        row = await self._ledger.find_certificate(request.certificate_sha256)
        if row is None or row.profile != request.profile:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate of this key")
        if request.authorized is None and not compare_digest(row.public_key_sha256, request.requester_key):
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate of this key")
        _concern(trail, row, request.authorized)
        upstream = snapshot.upstream_cas.get(row.upstream_ca)
        if request.revive:
            # Whoever has stolen a key must not take its certificate off hold again.
            if request.authorized is None:
                raise Rejection(Reason.NOT_AUTHORIZED, "only a registration authority takes certificates off hold")
            return await self._revive(upstream, row, trail)
        return await self._revoke(upstream, row, request.reason, trail)

    async def supersede(self, snapshot: Snapshot, issued: Issued, begun: AuditEvent) -> Rejected | Unavailable | None:
        """Revoke a certificate whose key is lost, before the same request gets another; None when it is done.

        `begun` is the event of that request. Raises Rejection where somebody has revoked the certificate for a reason of his own.
        """
        row = await self._ledger.find_certificate(hashlib.sha256(issued.certificate).digest())
        if row is None:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "the certificate of this request is not known any more")
        if row.revocation_reason not in {None, RevocationReason.SUPERSEDED}:
            raise Rejection(Reason.DENIED, "the certificate of this request was revoked")
        trail = Trail(lambda: begun)
        _concern(trail, row)
        outcome = await self._revoke(snapshot.upstream_cas.get(row.upstream_ca), row, RevocationReason.SUPERSEDED, trail)
        return None if isinstance(outcome, Acknowledged) else outcome

    async def _revive(self, upstream: UpstreamCA | None, row: InventoryRow, trail: Trail) -> AcknowledgeOutcome:
        now = self._clock()
        audit = replace(trail.event, event="certificate.revived", decision="done", at=now, serial=format(row.serial, "x"))
        try:
            await revive_certificate(self._inventory, upstream, row, now, audit, self._within)
        except UpstreamRejected as error:
            return Rejected(Reason.UPSTREAM_REJECTED, str(error))
        except UpstreamError as error:
            log.warning("the upstream CA did not take a certificate off hold", upstream_ca=row.upstream_ca, cause=str(error))
            return Unavailable(Reason.UPSTREAM_UNAVAILABLE, UPSTREAM_RETRY)
        trail.recorded = True
        return Acknowledged(row.request_id, revoked=False)

    async def _revoke(
        self, upstream: UpstreamCA | None, row: InventoryRow, reason: RevocationReason, trail: Trail
    ) -> AcknowledgeOutcome:
        now = self._clock()
        audit = replace(
            trail.event,
            event="certificate.revoked",
            decision="done",
            at=now,
            serial=format(row.serial, "x"),
            detail=reason.name.lower(),
        )
        try:
            await revoke_certificate(self._inventory, upstream, row, reason, now, audit, self._within)
        except UpstreamRejected as error:
            return Rejected(Reason.UPSTREAM_REJECTED, str(error))
        except UpstreamError as error:
            log.warning("the upstream CA did not revoke", upstream_ca=row.upstream_ca, cause=str(error))
            return Unavailable(Reason.UPSTREAM_UNAVAILABLE, UPSTREAM_RETRY)
        trail.recorded = row.revoked_at is None
        return Acknowledged(row.request_id, revoked=True)


def _concern(trail: Trail, row: InventoryRow, authorized: str | None = None) -> None:
    """Name the certificate that is revoked, and who has it revoked."""
    trail.event = replace(
        trail.event,
        actor=authorized or row.requester,
        request_id=row.request_id or "",
        upstream_ca=row.upstream_ca,
        serial=format(row.serial, "x"),
        subject=row.subject,
        sans=row.sans,
    )
