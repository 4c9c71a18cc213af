"""What every endpoint does with requests that it does not read: counted, remembered by address, and said a few times a minute."""

from __future__ import annotations

from typing import Protocol as Structure

import structlog

from gateway.errors import Reason
from gateway.metrics import worker as metrics
from gateway.model import ProfileName, Protocol
from gateway.web.failures import FailureCounter
from gateway.web.floods import FloodCounter
from gateway.web.generation import FailureLimit
from gateway.web.reminder import Reminder

log = structlog.get_logger(__name__)

TOO_MANY = "too many failed requests from this address, try again later"
"""What an address is told that has failed too often."""
RETRY_OUT_OF_DATE = 300
"""Seconds after which a client should come again when what signs answers has ended: somebody has to renew it."""


class Served(Structure):
    """One profile at one endpoint."""

    @property
    def profile(self) -> ProfileName:
        """Its profile."""

    @property
    def failure_limit(self) -> FailureLimit | None:
        """How often one address may fail."""


class Border:
    """One endpoint's, for the whole life of one worker."""

    def __init__(self, protocol: Protocol, floods: FloodCounter) -> None:
        self._protocol = protocol
        self._floods = floods
        self._failures = FailureCounter()
        self._reminder = Reminder()

    def count_unknown(self) -> None:
        """Count a request for what is not served."""
        metrics.count_refusal(self._protocol, None, Reason.UNKNOWN_PROFILE)
        self._floods.count(self._protocol, "", Reason.UNKNOWN_PROFILE)

    def wait_of(self, service: Served, source: str) -> int | None:
        """Return for how many seconds an address that has failed too often is not heard, which is counted; None: it is heard."""
        wait = self._failures.retry_after(service.profile, service.failure_limit, source)
        if wait is not None:
            metrics.count_refusal(self._protocol, service.profile, Reason.RATE_LIMITED)
            if self._floods.count(self._protocol, service.profile, Reason.RATE_LIMITED):
                log.info("too many failures of one address", profile=service.profile, source=source, retry_after=wait)
        return wait

    def note_failure(self, service: Served, source: str) -> None:
        """Count a failure against its address."""
        self._failures.count(service.profile, service.failure_limit, source)

    def count_unread(self, service: Served, source: str, reason: Reason, cause: str) -> None:
        """Count a request that is not read."""
        metrics.count_refusal(self._protocol, service.profile, reason)
        if self._floods.count(self._protocol, service.profile, reason):
            log.info("refused unread", profile=service.profile, source=source, reason=reason.value, cause=cause)

    def count_out_of_date(self, service: Served, text: str) -> None:
        """Count a request that comes while what signs answers has ended; `text` says so to the operator, once and every hour."""
        metrics.count_unavailable(self._protocol, service.profile, Reason.INTERNAL)
        self._floods.count(self._protocol, service.profile, Reason.INTERNAL)
        if self._reminder.is_due(service.profile, text):
            log.error("what signs answers is not valid", profile=service.profile, cause=text)
