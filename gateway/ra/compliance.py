"""Whether a device is fit to have a certificate, by the word of a system beside this one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from gateway.errors import Reason, Rejection
from gateway.model import EnrollmentRequest, Requester

log = structlog.get_logger(__name__)


class ComplianceCheck(Protocol):
    """Asks whatever knows the device; it is asked after policy and before anything is reserved."""

    async def find_fault(self, request: EnrollmentRequest, requester: Requester, now: datetime) -> str | None:
        """Return None for a compliant device, else what is wrong with it, for log and audit; an exception denies as well."""


async def check_compliance(
    checks: Sequence[ComplianceCheck], request: EnrollmentRequest, requester: Requester, now: datetime, patience: float
) -> None:
    """Ask each check in turn; Rejection NOT_COMPLIANT where one finds fault or fails, or all take over `patience` seconds."""
    if not checks:
        return
    try:
        async with asyncio.timeout(patience):
            fault = await _first_fault(checks, request, requester, now)
    except Exception as error:  # noqa: BLE001  whatever it is, nobody has said that the device is fit
        # Only the type: a text or traceback may hold the check's own credentials.
        log.error("a compliance check failed; the request is denied", error=type(error).__name__)  # noqa: TRY400
        fault = f"the check failed: {type(error).__name__}"
    if fault is not None:
        raise Rejection(Reason.NOT_COMPLIANT, "the device is not compliant", fault)


async def _first_fault(
    checks: Iterable[ComplianceCheck], request: EnrollmentRequest, requester: Requester, now: datetime
) -> str | None:
    for check in checks:
        fault = await check.find_fault(request, requester, now)
        if fault is not None:
            return fault
    return None
