"""Certificates that an upstream CA made and that nobody may get: recorded as revoked, revoked at the CA, reported."""

from __future__ import annotations

import base64
from datetime import datetime

import structlog

from gateway.ca.interfaces import Capability, UpstreamCA, UpstreamRejected
from gateway.errors import Rejection, StoreUnavailable
from gateway.metrics.registry import UpstreamOperation
from gateway.model import RevocationReason
from gateway.pki.certificate import Certificate
from gateway.ra import journal
from gateway.ra.revocation_queue import new_pending
from gateway.ra.transactions import NOBODY, inventory_row
from gateway.ra.upstream import ask
from gateway.store.interfaces import Ledger, LedgerRow, LedgerState, Transition, WaitingFor

log = structlog.get_logger(__name__)

REASON = RevocationReason.CESSATION_OF_OPERATION
"""It never came into use; nothing is said about the key (RFC 5280 §5.3.1)."""


def rejection(row: LedgerRow, certificate: Certificate, error: Rejection, now: datetime, worker: str) -> Transition:
    """Return the change that ends `row` and puts the certificate into the inventory, revoked; nothing is released."""
    serial = certificate.serial
    log.error(
        "the CA returned a certificate that is not what was granted: it was not delivered; correct the CA's profile or template",
        request_id=row.id,
        upstream_ca=row.upstream_ca,
        serial=format(serial, "x"),
        cause=error.cause,
        command=f"pki-gateway certs show {certificate.sha256.hex()}",
    )
    return Transition(
        id=row.id,
        expected=frozenset({LedgerState.OPEN, LedgerState.PENDING, LedgerState.UNKNOWN}),
        worker=worker,
        to=LedgerState.REJECTED,
        at=now,
        audit=journal.change(row, "enrollment.rejected", "refused", now, serial=serial, reason=error.reason, detail=error.cause),
        new_worker=NOBODY,
        waiting_for=WaitingFor.NOTHING,
        reason=error.reason,
        detail=error.detail,
        certificate=inventory_row(row, certificate, now, revoked=REASON),
    )


async def revoke(
    row: LedgerRow, upstream: UpstreamCA, certificate: Certificate, now: datetime, ledger: Ledger, within: float
) -> None:
    """Revoke at the CA a certificate that nobody got, within these seconds; a CA that has a queue is told later.

    Any other failure is logged with what to do.
    """
    told = {"request_id": row.id, "upstream_ca": row.upstream_ca, "serial": format(certificate.serial, "x")}
    if Capability.REVOKE not in upstream.capabilities:
        log.error("this backend cannot revoke: revoke the certificate at the CA", **told)
        return
    cause = ""
    try:
        question = upstream.revoke(certificate.der, certificate.serial, REASON, now)
        await ask(upstream, UpstreamOperation.REVOKE, question, within)
    except UpstreamRejected as refusal:
        cause = str(refusal) or "it refuses"
    except Exception as error:  # noqa: BLE001  whatever went wrong, it has to be revoked
        cause = str(error) or type(error).__name__
        if upstream.queue and await _queue(row, certificate, now, ledger, cause):
            log.warning("the CA did not revoke and is told later", **told, cause=cause)
            return
    if cause:
        log.error("the CA did not revoke: revoke the certificate there", **told, cause=cause)


async def _queue(row: LedgerRow, certificate: Certificate, now: datetime, ledger: Ledger, cause: str) -> bool:
    pending = new_pending(
        certificate.der,
        certificate.sha256,
        row.upstream_ca,
        certificate.serial,
        certificate.not_after,
        REASON,
        now,
        cause,
    )
    try:
        await ledger.queue_revocation(pending)
    except StoreUnavailable:
        return False
    return True


def report_foreign(row: LedgerRow, certificate: Certificate, cause: str) -> None:
    """Keep in the log what the CA returned though it is another request's."""
    log.error(
        "the CA returned another request's certificate: it was neither delivered nor revoked; look into the CA for both",
        cause=cause,
        request_id=row.id,
        upstream_ca=row.upstream_ca,
        serial=format(certificate.serial, "x"),
        certificate=base64.b64encode(certificate.der).decode("ascii"),
    )
