"""The registration authority (RFC 4210 §3.1.1.3): seven verbs, behind every endpoint, for every protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import TypeGuard, TypeVar

import structlog

from gateway.ca.interfaces import RenewalHint
from gateway.config.durations import format_duration
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    Issued,
    IssuedWithKey,
    KeyOutcome,
    Outcome,
    Pending,
    Protocol,
    Rejected,
    Requester,
    Unavailable,
    Verdict,
)
from gateway.ra import journal
from gateway.ra.attestation import add_attested
from gateway.ra.authenticate import authenticate
from gateway.ra.compliance import check_compliance
from gateway.ra.credentials.intune_jws import ChallengeRefused
from gateway.ra.hints import Hints
from gateway.ra.journal import Trail
from gateway.ra.leases import Leases, done_within
from gateway.ra.look_up import LookUp
from gateway.ra.policy import decide, precheck_names
from gateway.ra.profile import Profile, Snapshot
from gateway.ra.reach import Reach
from gateway.ra.recovery import Recovery, taken_back
from gateway.ra.requests import (
    AcknowledgeOutcome,
    AnyOutcome,
    ConfirmRequest,
    LookUpOutcome,
    LookUpRequest,
    PollRequest,
    Prechecked,
    PrecheckOutcome,
    PrecheckRequest,
    RenewalWindow,
    RenewalWindowOutcome,
    RenewalWindowRequest,
    RevokeRequest,
    Sought,
)
from gateway.ra.revocation import Revocation
from gateway.ra.revocation_queue import RevocationQueue
from gateway.ra.server_keys import KeyMaker, ServerKey, place_of
from gateway.ra.strangers import Strangers
from gateway.ra.timing import Timing
from gateway.ra.transactions import DELIVERABLE, is_due, new_opening, new_row, outcome_of, request_key
from gateway.ra.walk import Clock, Verify, Walk
from gateway.store.interfaces import (
    AlreadyOpen,
    Inventory,
    InventoryRow,
    Ledger,
    LedgerRow,
    LedgerState,
    Opening,
    OpeningRefused,
    WaitingFor,
)
from gateway.tracing import span

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=AnyOutcome)
Work = Outcome | LedgerRow
"""What a tracked task ends with: an outcome that its own change recorded, or the row of another to be followed."""
MakeWay = Callable[[], Awaitable[Rejected | Unavailable | None]]
"""Revokes what a new certificate takes the place of; None when that is done."""
Addressed = EnrollmentRequest | PollRequest | ConfirmRequest | RevokeRequest | LookUpRequest
"""What comes to a profile over a connection that may have a client certificate."""

REFUSED_OPENINGS = {
    Reason.CREDENTIAL_USED: "this challenge was used for another request",
    Reason.POLICY_KEY: "this key was reported as compromised",
    Reason.RENEWAL_REFUSED: "this certificate was renewed with another key already",
    Reason.TRANSACTION_IN_USE: "this transactionID was used for another request",
    Reason.CREDENTIAL_REVOKED: "what proved this request was revoked meanwhile",
}

_SECRET = f"{CredentialKind.CMP_SECRET}:"
"""How requesters and allowances of CMP's shared secrets begin."""

GIVEN_BACK = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.UPSTREAM_TIMEOUT, Reason.STORE_UNAVAILABLE})
"""Why a request was ended of which nothing was issued."""


class RegistrationAuthority:
    """Walks every request through authentication, policy, ledger and upstream CA; nothing is answered without its audit row.

    One instance serves one worker for its whole life; a snapshot comes with each request. `worker` names this process
    in the ledger and must never be used again by another one.
    """

    def __init__(
        self,
        ledger: Ledger,
        inventory: Inventory,
        clock: Clock,
        worker: str,
        verify: Verify,
        timing: Timing | None = None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._worker = worker
        self._timing = timing or Timing()
        self._reach = Reach(clock, self._timing)
        self._walk = Walk(ledger, clock, worker, verify, self._timing, self._reach)
        self._key_walk = Walk(ledger, clock, worker, verify, self._timing, self._reach, queues=False)
        self._leases: Leases[Work] = Leases(ledger, clock, worker, self._timing)
        background = Walk(ledger, clock, worker, verify, self._timing, self._reach, background=True)
        self._recovery = Recovery(ledger, clock, worker, background, self._leases, self._timing, self._reach)
        self._revocation = Revocation(ledger, inventory, clock, self._timing.revoke_within)
        self._revocations = RevocationQueue(inventory, clock, worker, self._timing, self._reach)
        self._hints = Hints(clock)
        self._lookup = LookUp(ledger, inventory, clock, self._hints)
        self._strangers = Strangers()
        self._keys = KeyMaker()

    async def enroll(self, snapshot: Snapshot, request: EnrollmentRequest) -> Outcome:
        """Walk one request through all its steps and return its answer; never raises for anything that it met there.

        The caller may be cancelled at any time: from the moment the ledger row is opened the work goes on without it.
        """
        trail = Trail(partial(journal.enrollment, request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._enroll(snapshot, request, trail))

    async def generate(self, snapshot: Snapshot, request: EnrollmentRequest, kind: str) -> KeyOutcome:
        """Walk one request as `enroll` does, for a key of `kind` that is drawn here (RFC 7030 §4.4); never raises either.

        The key leaves with this answer or not at all: the same request again revokes the certificate that it got and gets
        another one with another key.
        """
        key = ServerKey(kind)
        trail = Trail(partial(journal.enrollment, request, snapshot.generation, self._clock()))
        outcome = await self._audited(trail, self._generate(snapshot, request, key, trail))
        return IssuedWithKey(outcome, key.pkcs8()) if isinstance(outcome, Issued) else outcome

    async def poll(self, snapshot: Snapshot, request: PollRequest) -> Outcome:
        """Return what became of an earlier request of the same key (RFC 8894 §3.3.3, §4.4)."""
        trail = Trail(partial(journal.verb, "poll", request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._poll(snapshot, request, trail))

    async def confirm(self, snapshot: Snapshot, request: ConfirmRequest) -> AcknowledgeOutcome:
        """Record that the client took its certificate, or revoke the one that it did not want (RFC 9810 §5.3.18)."""
        trail = Trail(partial(journal.verb, "confirm", request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._confirm(snapshot, request, trail))

    async def revoke(self, snapshot: Snapshot, request: RevokeRequest) -> AcknowledgeOutcome:
        """Revoke a certificate of this profile for the holder of its key."""
        trail = Trail(partial(journal.verb, "revoke", request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._revoke(snapshot, request, trail))

    async def precheck(self, snapshot: Snapshot, request: PrecheckRequest) -> PrecheckOutcome:
        """Judge names before there is a key (RFC 8555 §7.4)."""
        trail = Trail(partial(journal.verb, "precheck", request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._precheck(snapshot, request))

    async def look_up(self, snapshot: Snapshot, request: LookUpRequest) -> LookUpOutcome:
        """Return a CA chain, a CRL, or a certificate of the signer's own; unsigned, the first two leave no audit row."""
        trail = Trail(partial(journal.verb, "look_up", request, snapshot.generation, self._clock()))
        return await self._audited(trail, self._look_up(snapshot, request, trail))

    async def look_up_renewal(self, snapshot: Snapshot, request: RenewalWindowRequest) -> RenewalWindowOutcome:
        """Return when a certificate should be renewed (RFC 9773 §4.2); it leaves no audit row."""
        trail = Trail(partial(journal.verb, "look_up", request, snapshot.generation, self._clock()))
        trail.recorded = True
        return await self._audited(trail, self._look_up_renewal(snapshot, request))

    async def renewal_hint(self, snapshot: Snapshot, row: InventoryRow) -> RenewalHint | None:
        """Return when its CA wants a certificate renewed; None where it does not say. Never raises."""
        return await self._hints.find(snapshot, row)

    async def recover(self, snapshot: Snapshot) -> int:
        """Take up every ledger row that is due and that nobody works on; returns how many. Raises StoreUnavailable."""
        with snapshot.occupancy:
            return await self._recovery.pass_over(snapshot)

    async def tell_revocations(self, snapshot: Snapshot) -> int:
        """Tell CAs of revocations that they could not be told of at once; returns how many. Raises StoreUnavailable."""
        with snapshot.occupancy:
            return await self._revocations.pass_over(snapshot)

    async def drain(self, seconds: float) -> int:
        """Refuse new work, let what runs finish for `seconds`, cancel the rest; returns how many were cancelled."""
        self._hints.close()
        return await self._leases.drain(seconds)

    async def _audited(self, trail: Trail, work: Awaitable[A]) -> A | Rejected | Unavailable:
        """Run one verb, so that each way out of it passes here once and is on record before it is answered."""
        cause = ""
        outcome: A | Rejected | Unavailable
        try:
            outcome = await work
        except Rejection as refusal:
            outcome, cause = Rejected(refusal.reason, refusal.detail), refusal.cause
            trail.signed_challenge |= isinstance(refusal, ChallengeRefused)
        except StoreUnavailable as error:
            # The one answer without a row: there is nothing to write it in.
            log.error("the store is unavailable; nothing is granted", cause=str(error))  # noqa: TRY400
            metrics.count_audit_write_failure()
            return Unavailable(Reason.STORE_UNAVAILABLE, self._timing.busy_retry)
        except Exception:
            log.exception("a request failed for a reason that nobody foresaw")
            outcome, cause = Unavailable(Reason.INTERNAL, self._timing.hold_retry), "internal error"
        if isinstance(outcome, Outcome):
            counted = not isinstance(outcome, Issued) and self._strangers.only_counted(
                outcome, trail.event.profile, trail.event.source, self._clock()
            )
            outcome = replace(outcome, remarks=trail.remarks(outcome, cause, counted))
            if counted:
                return outcome
        if trail.recorded:
            return outcome
        try:
            await self._ledger.append_audit((trail.answer(outcome, self._clock(), cause),))
        except StoreUnavailable as error:
            log.error("an answer could not be recorded and was not given", cause=str(error))  # noqa: TRY400
            metrics.count_audit_write_failure()
            return Unavailable(Reason.STORE_UNAVAILABLE, self._timing.busy_retry)
        return outcome

    async def _admit(self, snapshot: Snapshot, request: Addressed, trail: Trail) -> Profile:
        """Return the profile that a request is addressed to, once the TLS client has shown the certificate that it demands."""
        profile = snapshot.profile(request.profile, request.protocol)
        # It is SCEP's: over EST the certificate is itself a credential, or what is renewed.
        if profile.client_trust is not None and request.protocol is not Protocol.EST:
            trail.client = await profile.client_trust.check(request.client_certificate, self._clock())
        return profile

    async def _enroll(self, snapshot: Snapshot, request: EnrollmentRequest, trail: Trail) -> Outcome:
        profile = await self._admit(snapshot, request, trail)
        now = self._clock()
        with span("authenticate"):
            requester = await authenticate(profile, request, now)
        trail.identify(requester)
        key = request_key(request, requester)
        if (task := self._leases.find(key)) is not None:
            return await self._join(snapshot, key, task, trail, joined=True)
        row = await self._ledger.find_request(key, now)
        if row is not None:
            _check_unconfirmed(row)
            return _for_retransmission(await self._follow(snapshot, row, trail), self._timing.hold_retry)
        with span("policy"):
            opening = self._decide(snapshot, profile, request, requester, key, now, trail)
            await check_compliance(profile.compliance, request, requester, now, self._timing.answer_within)
        if self._leases.draining:
            return Unavailable(Reason.OVERLOADED, self._timing.busy_retry)
        # Between the look into the ledger and here another request with this key may have begun in this very process.
        if (task := self._leases.find(key)) is not None:
            return await self._join(snapshot, key, task, trail, joined=True)
        task = self._leases.start(key, self._open_and_issue(profile, opening, self._walk))
        snapshot.occupancy.extend(task)
        return await self._join(snapshot, key, task, trail, joined=False)

    def _decide(
        self,
        snapshot: Snapshot,
        profile: Profile,
        request: EnrollmentRequest,
        requester: Requester,
        key: bytes,
        now: datetime,
        trail: Trail,
    ) -> Opening:
        """Judge the request; returns what is to be opened, raises Rejection of the first enforced rule that is broken."""
        if request.csr.form not in profile.upstream_ca.accepts:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"the CA of this profile does not take {request.csr.form} requests")
        requester = add_attested(profile.key_attestation, request, requester, now)
        decision = decide(
            profile.policy,
            request.csr,
            requester,
            now,
            profile.upstream_ca.not_after_limit(now),
            reserved_names=profile.reserved_names,
            validity=request.validity,
            max_validity=None if request.order is None else request.order.max_validity,
        )
        violations = decision.violations
        if decision.grant is None or violations:
            first = violations[0] if violations else None
            raise Rejection(
                first.reason if first else Reason.DENIED, first.message if first else "refused by policy", _described(violations)
            )
        row = new_row(
            request,
            requester,
            profile,
            decision.grant,
            key=key,
            generation=snapshot.generation,
            worker=self._worker,
            now=now,
            lease=self._timing.lease,
        )
        warnings = trail.warnings = _described(decision.warnings)
        if profile.manual_approval:
            log.info("a request waits for approval", request_id=row.id, command=f"pki-gateway requests approve {row.id}")
        event = "enrollment.pending" if profile.manual_approval else "enrollment.opened"
        detail = trail.tell(warnings or ("waits for approval" if profile.manual_approval else ""))
        return new_opening(row, request, requester, profile, journal.change(row, event, "pending", now, detail=detail))

    async def _open_and_issue(self, profile: Profile, opening: Opening, walk: Walk, make_way: MakeWay | None = None) -> Work:
        """Step 4 and all that follows, as one tracked task; what has to `make_way` does so before anything is sent."""
        try:
            opened = await self._ledger.open(opening)
        except StoreUnavailable:
            await self._take_back(opening.row)
            raise
        if isinstance(opened, OpeningRefused):
            raise _refused_opening(await self._told(opened.reason, opening), opening)
        if isinstance(opened, AlreadyOpen):
            return opened.row
        if opened.row.state is LedgerState.PENDING:
            return Pending(opened.row.id, self._timing.hold_retry)
        self._leases.hold(opened.row.request_key, opened.row.id)
        row: LedgerRow | Rejected | Unavailable | None = opened.row
        if make_way is not None:
            row = await self._replace(opened.row, make_way)
        if not isinstance(row, LedgerRow):
            return row or opened.row
        return await walk.issue(row, profile.upstream_ca)

    async def _told(self, reason: Reason, opening: Opening) -> Reason:
        """Return why nothing was opened; a shared secret that is used up has no more room later, as a quota has."""
        own = tuple(quota for quota in opening.quotas if quota.key.startswith(_SECRET))
        if reason is not Reason.RATE_LIMITED or not own:
            return reason
        spent = await self._ledger.foresee(replace(opening, quotas=own, reservations=()))
        return Reason.CREDENTIAL_USED if spent is Reason.RATE_LIMITED else reason

    async def _replace(self, row: LedgerRow, make_way: MakeWay) -> LedgerRow | Rejected | Unavailable | None:
        """Return a row, sent as of now, whose predecessor made way; else why not, and the predecessor answers again.

        None where the row is not ours any more.
        """
        try:
            hindrance = await make_way()
            if hindrance is None:
                return await self._ledger.transition(self._walk.sending(row))
        except Rejection as refusal:
            hindrance = Rejected(refusal.reason, refusal.detail)
        except StoreUnavailable:
            await self._take_back(row)
            raise
        detail = "the certificate that it was to replace could not be revoked"
        ended = await self._ledger.transition(taken_back(row, self._clock(), hindrance.reason, detail))
        return None if ended is None else hindrance

    async def _take_back(self, row: LedgerRow) -> None:
        """End a row of which the store said that it was not written, in case it was: this worker has sent nothing."""
        detail = "the store failed while the request was opened; nothing was sent"
        try:
            await self._ledger.transition(taken_back(row, self._clock(), Reason.STORE_UNAVAILABLE, detail))
        except StoreUnavailable:
            log.warning(
                "the store is down; should the request be in it, it is taken up when its lease runs out", request_id=row.id
            )

    async def _join(self, snapshot: Snapshot, key: bytes, task: asyncio.Task[Work], trail: Trail, *, joined: bool) -> Outcome:
        """Wait for the task of this request, for as long as a client does; the task itself cannot be cancelled from here."""
        if not await done_within(task, self._timing.answer_within):
            row_id = self._leases.holds(key)
            if row_id is None:
                raise StoreUnavailable("the store did not open the request in time")
            return Pending(row_id, self._timing.busy_retry)
        if task.cancelled():
            return Unavailable(Reason.OVERLOADED, self._timing.busy_retry)
        result = task.result()
        if isinstance(result, LedgerRow):
            return _for_retransmission(await self._follow(snapshot, result, trail), self._timing.hold_retry)
        trail.recorded = not joined
        return result

    async def _follow(self, snapshot: Snapshot, row: LedgerRow, trail: Trail) -> Outcome:
        """Answer from a row that exists: at once where it holds an answer, else as soon as whoever works on it has one."""
        trail.concern(row)
        until = monotonic() + self._timing.answer_within
        pause = self._timing.look_every
        while True:
            now = self._clock()
            task = self._leases.find(row.request_key)
            if task is None and is_due(row, now, self._timing.lease):
                task = self._recovery.resume(snapshot, row)
                if task is None:
                    return Pending(row.id, self._timing.hold_retry)
            elif (outcome := outcome_of(row, now, self._timing.hold_retry)) is not None:
                return outcome
            if monotonic() + pause > until:
                return Pending(row.id, self._timing.busy_retry)
            await (asyncio.wait({task}, timeout=until - monotonic()) if task else asyncio.sleep(pause))
            pause = min(1.0, pause * 2)
            row = await self._ledger.get_row(row.id) or row

    async def _generate(
        self, snapshot: Snapshot, request: EnrollmentRequest, key: ServerKey, trail: Trail
    ) -> Issued | Rejected | Unavailable:
        profile = await self._admit(snapshot, request, trail)
        if profile.manual_approval:
            raise Rejection(
                Reason.UNSUPPORTED_MESSAGE, "requests of this profile wait for approval, and a key of the server's cannot wait"
            )
        now = self._clock()
        with span("authenticate"):
            requester = await authenticate(profile, request, now)
        trail.identify(requester)
        busy = Unavailable(Reason.OVERLOADED, self._timing.busy_retry)
        same = request_key(request, requester)
        if not self._may_start(same):
            return busy
        earlier = await self._find_earlier(snapshot, request, same, trail)
        if isinstance(earlier, Rejected | Unavailable):
            return earlier
        with span("policy"):
            opening = self._decide(snapshot, profile, key.foresee(request), requester, same, now, trail)
            await check_compliance(profile.compliance, request, requester, now, self._timing.answer_within)
        if (refused := await self._ledger.foresee(_replacing(opening, earlier))) is not None:
            raise _refused_opening(await self._told(refused, opening), opening)
        place = place_of(request, requester)
        if not self._keys.has_place(place):
            return busy
        asked = await key.certify(request, self._keys, place)
        opening = _replacing(self._decide(snapshot, profile, asked, requester, same, self._clock(), trail), earlier)
        if not self._may_start(same):
            return busy
        make_way = None if earlier is None else partial(self._revocation.supersede, snapshot, earlier, trail.event)
        task = self._leases.start(same, self._open_and_issue(profile, opening, self._key_walk, make_way))
        snapshot.occupancy.extend(task)
        return await self._await_key(task, opening.row, trail)

    async def _find_earlier(
        self, snapshot: Snapshot, request: EnrollmentRequest, same: bytes, trail: Trail
    ) -> Issued | Rejected | Unavailable | None:
        """Return what became of the same request before; of what was issued then, nobody has the key any more.

        Of what is issued only now somebody else waits for the key.
        """
        row = await self._ledger.find_request(same, self._clock())
        if row is None:
            return None
        _check_unconfirmed(row)
        began = Trail(partial(journal.enrollment, request, snapshot.generation, self._clock()))
        outcome = _for_retransmission(await self._follow(snapshot, row, began), self._timing.hold_retry)
        if row.waiting_for is WaitingFor.PREDECESSOR:
            answering = await self._ledger.find_request(same, self._clock())
            if answering is None:
                return None
            if answering.id != row.id:
                row, outcome = answering, outcome_of(answering, self._clock(), self._timing.hold_retry) or outcome
        if isinstance(outcome, Issued):
            return outcome if row.state in DELIVERABLE else Unavailable(Reason.OVERLOADED, self._timing.busy_retry)
        trail.concern(row)
        return _unheld(outcome)

    def _may_start(self, key: bytes) -> bool:
        """Whether a task may begin for this request: none works on it here, and there is time for one."""
        return not self._leases.draining and self._leases.find(key) is None

    async def _await_key(self, task: asyncio.Task[Work], row: LedgerRow, trail: Trail) -> Issued | Rejected | Unavailable:
        """Wait for the certificate of a key that this request alone has; what comes too late comes for nobody."""
        await asyncio.wait({task}, timeout=self._timing.answer_within)
        if not task.done() or task.cancelled():
            return Unavailable(Reason.UPSTREAM_UNAVAILABLE, self._timing.busy_retry)
        result = task.result()
        if isinstance(result, LedgerRow) or (isinstance(result, Issued) and result.request_id != row.id):
            return Unavailable(Reason.OVERLOADED, self._timing.busy_retry)
        trail.recorded = True
        return _unheld(result)

    async def _poll(self, snapshot: Snapshot, request: PollRequest, trail: Trail) -> Outcome:
        await self._admit(snapshot, request, trail)
        row = await self._transaction(request)
        return await self._follow(snapshot, row, trail)

    async def _transaction(self, request: PollRequest | ConfirmRequest) -> LedgerRow:
        """Return the row that this very key opened (RFC 8894 §2.5: an unknown transaction must be rejected)."""
        row = await self._ledger.find_transaction(
            request.profile, request.protocol, request.transaction_id, request.requester_key
        )
        if row is None:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such transaction of this key")
        return row

    async def _confirm(self, snapshot: Snapshot, request: ConfirmRequest, trail: Trail) -> AcknowledgeOutcome:
        profile = await self._admit(snapshot, request, trail)
        row = request.row if _is_of(request.row, request) else await self._transaction(request)
        trail.concern(row)
        return await self._revocation.confirm(profile, row, request, trail)

    async def _revoke(self, snapshot: Snapshot, request: RevokeRequest, trail: Trail) -> AcknowledgeOutcome:
        await self._admit(snapshot, request, trail)
        return await self._revocation.by_holder(snapshot, request, trail)

    async def _precheck(self, snapshot: Snapshot, request: PrecheckRequest) -> PrecheckOutcome:
        profile = snapshot.profile(request.profile, request.protocol)
        prechecked = Prechecked(precheck_names(profile.policy, request.sans))
        if prechecked.violations:
            first = prechecked.violations[0]
            raise Rejection(first.reason, first.message, f"{first.field}: {first.message}")
        return prechecked

    async def _look_up(self, snapshot: Snapshot, request: LookUpRequest, trail: Trail) -> LookUpOutcome:
        public = request.sought is Sought.CA_CERTIFICATES
        profile = snapshot.profile(request.profile, request.protocol) if public else await self._admit(snapshot, request, trail)
        return await self._lookup.answer(profile, request, trail)

    async def _look_up_renewal(self, snapshot: Snapshot, request: RenewalWindowRequest) -> RenewalWindow:
        profile = snapshot.profile(request.profile, request.protocol)
        return await self._lookup.renewal_window(snapshot, profile, request)


def _is_of(row: LedgerRow | None, request: ConfirmRequest) -> TypeGuard[LedgerRow]:
    """Whether a row that came with a request is the one that its key opened, at the profile that it came to."""
    if row is None:
        return False
    opened = (row.profile, row.protocol, row.transaction_id, row.requester_key)
    return opened == (request.profile, request.protocol, request.transaction_id, request.requester_key)


def _check_unconfirmed(row: LedgerRow) -> None:
    """Refuse a request whose client said that it has the certificate: whoever sends it again is not that client."""
    if row.state is LedgerState.CONFIRMED:
        raise Rejection(Reason.TRANSACTION_IN_USE, REFUSED_OPENINGS[Reason.TRANSACTION_IN_USE])


def _described(broken: tuple[Verdict, ...]) -> str:
    return "; ".join([f"{v.field}: {v.message}" for v in broken])


def _replacing(opening: Opening, earlier: Issued | None) -> Opening:
    """Let a row take the place of an earlier one of its request; it is not sent before that one's certificate is revoked."""
    if earlier is None:
        return opening
    row = replace(opening.row, sent=False, waiting_for=WaitingFor.PREDECESSOR)
    return replace(opening, row=row, supersedes=earlier.request_id)


def _refused_opening(reason: Reason, opening: Opening) -> Rejection:
    """Say why nothing was opened; of a quota also when it has room again, at the latest."""
    if reason is Reason.RATE_LIMITED:
        window = timedelta(seconds=max((quota.window for quota in opening.quotas), default=0))
        latest = f", in {format_duration(window)} at the latest" if window else ""
        return Rejection(
            reason, f"too many certificates were requested: try again later{latest}", "a quota of the profile or device is full"
        )
    if reason is Reason.CREDENTIAL_USED and opening.row.requester.startswith(_SECRET):
        return Rejection(reason, "the shared secret was used up")
    if reason is Reason.RENEWAL_REFUSED and opening.row.protocol is Protocol.CMP:
        # As the renewal rule says it of what was renewed before (certRevoked).
        return Rejection(Reason.ALREADY_REPLACED, REFUSED_OPENINGS[reason])
    return Rejection(reason, REFUSED_OPENINGS.get(reason, "the request cannot be taken now"))


def _unheld(outcome: Outcome) -> Issued | Rejected | Unavailable:
    """Say "try again" in place of Pending: no key is kept until its certificate comes."""
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, outcome.retry_after) if isinstance(outcome, Pending) else outcome


def _for_retransmission(outcome: Outcome, retry_after: int) -> Outcome:
    """Say "try again" where the request was given back because its CA or the store was down: it may begin anew."""
    if isinstance(outcome, Rejected) and outcome.reason in GIVEN_BACK:
        return Unavailable(outcome.reason, retry_after)
    return outcome
