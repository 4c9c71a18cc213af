"""Log lines that ask an operator to act: each names the request and the command that ends it."""

from __future__ import annotations

import base64

import structlog

from gateway.store.interfaces import LedgerRow

log = structlog.get_logger(__name__)


def resolve_command(row: LedgerRow) -> str:
    """Return the command that ends a request in doubt."""
    return f"pki-gateway requests resolve {row.id} --attach CERT | --reissue | --fail"


def alert_held(row: LedgerRow, cause: str) -> None:
    """Say that a request is held: the CA may have issued a certificate and cannot be asked."""
    log.error(
        "a request is held: look at the CA whether it issued a certificate, then end it",
        request_id=row.id,
        profile=row.profile,
        upstream_ca=row.upstream_ca,
        subject=row.subject,
        serial=None if row.serial is None else format(row.serial, "x"),
        cause=cause,
        command=resolve_command(row),
    )


def alert_resting(row: LedgerRow, cause: str, seconds: int) -> None:
    """Say that the CA is asked again about a request in doubt."""
    log.warning(
        "a request is in doubt and the CA will be asked again",
        request_id=row.id,
        profile=row.profile,
        upstream_ca=row.upstream_ca,
        cause=cause,
        again_in=seconds,
        command=resolve_command(row),
    )


def alert_unrecorded(row: LedgerRow, certificate: bytes, cause: str) -> None:
    """Write a certificate that could not be recorded for its request into the log, the last place that takes it."""
    log.error(
        "a certificate was issued and is not recorded for its request: attach it where the request is in doubt, else revoke it",
        request_id=row.id,
        upstream_ca=row.upstream_ca,
        cause=cause,
        certificate=base64.b64encode(certificate).decode("ascii"),
        command=resolve_command(row),
    )


def alert_unconfigured(row: LedgerRow) -> None:
    """Say that a request waits for an upstream CA that the configuration does not name any more."""
    log.error(
        "a request waits for an upstream CA that is not configured any more: configure it again, or end the request",
        request_id=row.id,
        upstream_ca=row.upstream_ca,
        command=resolve_command(row),
    )
