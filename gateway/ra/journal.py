"""Audit events of the registration authority: one for each decision about an identified request, never a secret in any."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    Issued,
    Outcome,
    Pending,
    Rejected,
    Remarks,
    Requester,
    Unavailable,
)
from gateway.pki.names import format_name
from gateway.ra.credentials.challenge_labels import challenge_label
from gateway.ra.requests import (
    Acknowledged,
    AnyOutcome,
    ConfirmRequest,
    LookUpRequest,
    PollRequest,
    PrecheckRequest,
    RenewalWindowRequest,
    RevokeRequest,
)
from gateway.ra.transactions import san_texts
from gateway.store.interfaces import LedgerRow

UNAUTHENTICATED = "unauthenticated"


class Trail:
    """What is known of one request while it walks; `recorded` once its answer is in the audit chain already."""

    def __init__(self, begin: Callable[[], AuditEvent]) -> None:
        """`begin` returns the event as it begins; most answers are recorded by a change of the ledger and never need it."""
        self._begin = begin
        self._event: AuditEvent | None = None
        self._actor = ""
        self.recorded = False
        self.warnings = ""
        self.signed_challenge = False
        """A signed challenge was judged: what became of it is remarked."""
        self.client = ""
        """The TLS client's certificate, where the profile demands one."""
        self._claims = ""

    @property
    def event(self) -> AuditEvent:
        """The event as far as it is known."""
        if self._event is None:
            begun = self._begin()
            self._event = replace(begun, actor=self._actor) if self._actor else begun
        return self._event

    @event.setter
    def event(self, event: AuditEvent) -> None:
        self._event, self._actor = event, event.actor

    def identify(self, requester: Requester) -> None:
        """Name the actor, now that the credential has proved good."""
        self._actor = requester.identity
        if self._event is not None:
            self._event = replace(self._event, actor=self._actor)
        self.signed_challenge = requester.kind is CredentialKind.INTUNE_JWS
        self._claims = ", ".join([f"{name} {value}" for name, value in requester.claims.items()])

    def tell(self, detail: str) -> str:
        """Return a detail with what credential and TLS client's certificate say of their holder, for log and audit."""
        return "; ".join(filter(None, (detail, self._claims, self.client)))

    def concern(self, row: LedgerRow) -> None:
        """Name the ledger row that the answer comes from."""
        self.event = replace(
            self.event,
            actor=row.requester,
            request_id=row.id,
            request_sha256=hashlib.sha256(row.request).hexdigest(),
            public_key_sha256=row.public_key_sha256.hex(),
            upstream_ca=row.upstream_ca,
            serial=_serial(row.serial),
            subject=row.subject,
            sans=row.sans,
        )

    def remarks(self, outcome: Outcome, cause: str, counted: bool) -> Remarks:
        """Return what the log may say beside the answer."""
        actor = self._actor or self.event.actor
        label = challenge_label(outcome) if self.signed_challenge else ""
        return Remarks("" if actor == UNAUTHENTICATED else actor, cause and self.tell(cause), self.warnings, counted, label)

    def answer(self, outcome: AnyOutcome, at: datetime, cause: str = "") -> AuditEvent:
        """Return the event of an answer that no change of the ledger has recorded."""
        name = self.event.event
        match outcome:
            case Issued():
                return replace(self.event, event=f"{name}.answered", decision="granted", at=at)
            case Pending():
                return replace(self.event, event=f"{name}.pending", decision="pending", at=at)
            case Rejected():
                return replace(
                    self.event,
                    event=f"{name}.rejected",
                    decision="refused",
                    at=at,
                    reason=outcome.reason,
                    detail=self.tell(cause or outcome.detail),
                )
            case Unavailable():
                return replace(
                    self.event, event=f"{name}.unavailable", decision="refused", at=at, reason=outcome.reason, detail=cause
                )
            case Acknowledged():
                return replace(
                    self.event, event=f"{name}.{'revoked' if outcome.revoked else 'confirmed'}", decision="done", at=at
                )
            case _:
                return replace(self.event, event=f"{name}.answered", decision="done", at=at)


def enrollment(request: EnrollmentRequest, generation: int, at: datetime) -> AuditEvent:
    """Return what is known of an enrollment before its credential is looked at."""
    return AuditEvent(
        event="enrollment",
        at=at,
        actor=UNAUTHENTICATED,
        decision="",
        source=request.source,
        protocol=request.protocol,
        profile=request.profile,
        operation=request.operation,
        transaction_id=request.transaction_id,
        request_sha256=hashlib.sha256(request.csr.der).hexdigest(),
        public_key_sha256=request.csr.public_key.sha256.hex(),
        subject=format_name(request.csr.subject),
        sans=san_texts(request.csr.sans),
        generation=generation,
    )


def verb(
    name: str,
    request: PollRequest | ConfirmRequest | RevokeRequest | PrecheckRequest | LookUpRequest | RenewalWindowRequest,
    generation: int,
    at: datetime,
) -> AuditEvent:
    """Return what is known of a request to any other verb."""
    return AuditEvent(
        event=name,
        at=at,
        actor=request.requester if isinstance(request, PrecheckRequest) else UNAUTHENTICATED,
        decision="",
        source=request.source,
        protocol=request.protocol,
        profile=request.profile,
        operation=request.operation,
        transaction_id="" if isinstance(request, PrecheckRequest) else request.transaction_id,
        sans=san_texts(request.sans) if isinstance(request, PrecheckRequest) else (),
        generation=generation,
    )


def change(
    row: LedgerRow,
    event: str,
    decision: str,
    at: datetime,
    *,
    actor: str = "",
    serial: int | None = None,
    reason: Reason | None = None,
    detail: str = "",
) -> AuditEvent:
    """Return the event of a change to a ledger row; `actor` is the requester unless somebody else acts."""
    return AuditEvent(
        event=event,
        at=at,
        actor=actor or row.requester,
        decision=decision,
        source=row.source,
        protocol=row.protocol,
        profile=row.profile,
        operation=row.operation,
        transaction_id=row.transaction_id,
        request_id=row.id,
        request_sha256=hashlib.sha256(row.request).hexdigest(),
        public_key_sha256=row.public_key_sha256.hex(),
        upstream_ca=row.upstream_ca,
        serial=_serial(row.serial if serial is None else serial),
        subject=row.subject,
        sans=row.sans,
        reason=reason,
        detail=detail,
        generation=row.generation,
    )


def _serial(serial: int | None) -> str:
    return "" if serial is None else format(serial, "x")
