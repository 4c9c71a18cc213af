"""Attempts at challenges, beside the requests that ask for them: leased, repeated on a schedule, bounded (RFC 8555 §8.2)."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import starmap
from typing import Any

import structlog

from gateway.acme import Account, Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Order, Problem
from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import Identifier, IdentifierType
from gateway.ra.acme import journal
from gateway.ra.acme.names import base_of
from gateway.ra.acme.orders import covers
from gateway.ra.acme.terms import AcmeTiming, find_policy, full, validation
from gateway.ra.leases import done_within
from gateway.ra.profile import AcmeTerms, Snapshot
from gateway.ra.strangers import source_network
from gateway.store.acme import NOBODY_CROWDED, AcmeRecords, Attempt, Crowded
from gateway.store.interfaces import QuotaTake
from gateway.validation.interfaces import Validated, Validation, ValidationFailed, ValidationTask

log = structlog.get_logger(__name__)

FIRST_WAIT = 2.5
"""How long a client waits for the first attempt, in seconds: most are done by then, and it need not poll."""
ATTEMPT_SECONDS = 45.0
"""The longest that an attempt may take, whatever its parts allow; well below the lease."""
CAA_RECHECKED_AFTER = timedelta(hours=7)
"""CAA records that were judged longer ago are judged again before a certificate is issued (RFC 8659 §3 and its eight hours)."""
CAA_AT_ONCE = 16
LOOKS = 4
ROWS_A_LOOK = 256
"""How often a pass looks for what is due beyond those who have all they may have, and how much it sees at once."""

_STORE_PAUSE = 0.5
_STORE_TRIES = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many attempts one worker makes at the same time; what finds no room is due for whoever has some."""

    total: int = 128
    per_account: int = 32
    per_source: int = 48
    """Of accounts at one address (an IPv6 network of 64 bits); a quarter of it is for those with nothing under way."""
    per_target: int = 4
    """Of one name, whoever asks: nobody is to be knocked over by us."""

    @property
    def shared(self) -> int:
        """What accounts at one address may have of its places before each has one at most."""
        return self.per_source - self.per_source // 4

    @property
    def for_newcomers(self) -> int:
        """A quarter of all is for addresses with nothing under way: slow servers of some are not to keep others waiting."""
        return self.total // 4


class _Slots:
    """Counts what is under way."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._total = 0
        self._accounts: Counter[tuple[str, str]] = Counter()
        self._sources: Counter[str] = Counter()
        self._targets: Counter[str] = Counter()

    @property
    def free(self) -> int:
        return self._bounds.total - self._total

    def crowded(self) -> Crowded:
        """Return who has all that he may have for now."""
        bounds = self._bounds
        accounts = {account for (_, account), count in self._accounts.items() if count >= bounds.per_account}
        waiting = {account for source, account in self._accounts if self._sources[source] >= bounds.shared}
        most = bounds.per_source if self.free > bounds.for_newcomers else 1
        sources = {source for source, count in self._sources.items() if count >= most}
        return Crowded(frozenset(accounts | waiting), frozenset(sources))

    def take(self, row: Authorization, source: str) -> bool:
        """Take room for an attempt that somebody at `source` asked for; False where there is none."""
        crowded = self.crowded()
        if (
            self.free <= 0
            or row.account in crowded.accounts
            or source_network(source) in crowded.sources
            or self._targets[row.identifier.value] >= self._bounds.per_target
        ):
            return False
        self._total += 1
        for counter, key in self._counted(row, source):
            counter[key] += 1
        return True

    def give_back(self, row: Authorization, source: str) -> None:
        """Give back what `take` took for the same two."""
        self._total -= 1
        for counter, key in self._counted(row, source):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

    def _counted(self, row: Authorization, source: str) -> tuple[tuple[Counter[Any], object], ...]:
        network = source_network(source)
        return (self._accounts, (network, row.account)), (self._sources, network), (self._targets, row.identifier.value)


class Validations:
    """Attempts of one worker.

    A challenge that a client answered is a row that is due; whoever claims it makes one attempt, records what came of it, and
    lets go: the next attempt is anybody's when its time has come. An attempt that dies with its worker is taken up when its lease
    ends.
    """

    def __init__(
        self,
        records: AcmeRecords,
        clock: Callable[[], datetime],
        worker: str,
        timing: AcmeTiming | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._records = records
        self._clock = clock
        self._worker = worker
        self._lease = (timing or AcmeTiming()).lease
        self._slots = _Slots(bounds or Bounds())
        self._tasks: dict[str, asyncio.Task[Authorization | None]] = {}
        self._draining = False

    async def answer(
        self,
        snapshot: Snapshot,
        account: Account,
        authorization: Authorization,
        challenge: Challenge,
        payload: Mapping[str, object],
        source: str,
    ) -> Authorization:
        """Have a challenge tried now, and wait a little for it; what is over stays as it is (RFC 8555 §7.5.1, §8.2).

        Raises RateLimited where the account failed too often at this name, and StoreUnavailable.
        """
        if authorization.id not in self._tasks:
            if not _may_be_tried(authorization, challenge, self._clock()):
                return authorization
            await self._check_failures(snapshot, authorization, challenge)
        running = self._tasks.get(authorization.id)
        if running is None:
            room = not self._draining and self._slots.take(authorization, source)
            work = self._begin(snapshot, account, authorization, challenge, payload, source, room)
            running = self._start(authorization, work, holds=source if room else None)
        if await done_within(running, FIRST_WAIT) and not running.cancelled():
            if isinstance(error := running.exception(), StoreUnavailable):
                raise error
            if error is None and (ended := running.result()) is not None:
                return ended
        return await self._records.find_authorization(authorization.id) or authorization

    async def _begin(
        self,
        snapshot: Snapshot,
        account: Account,
        authorization: Authorization,
        challenge: Challenge,
        payload: Mapping[str, object],
        source: str,
        room: bool,
    ) -> Authorization | None:
        """Note that the challenge is to be tried, and try it where there is room; else it is due for anybody."""
        row = replace(authorization, source=source, payload=payload)
        judge = await self._find_judge(snapshot, row, account) if room else None
        if judge is not None and judge.asks_nobody:
            attempt = await self._judge(snapshot, row, account, challenge, judge)
            if attempt.status is ChallengeStatus.VALID:
                return await self._records.settle(attempt)
        now = self._clock()
        worker, until = (self._worker, now + self._lease) if room else ("", now)
        begun = await self._records.begin_validation(
            authorization.id,
            challenge.id,
            payload,
            source,
            worker,
            until,
            now,
            _event("begun", "pending", authorization, challenge, snapshot, now, source),
        )
        if not room or begun is None:
            return begun
        ours = begun.worker == worker and begun.lease_until == until
        if not ours and not await self._claim(begun, now):
            return None
        return await self._attempt(snapshot, begun, account, judge)

    async def _claim(self, row: Authorization, now: datetime) -> bool:
        """Take a row that nobody holds; False where somebody does, or was first."""
        if row.worker and row.lease_until is not None and row.lease_until > now:
            return False
        return await self._records.claim_validation(row.id, row.worker, row.lease_until, self._worker, now + self._lease)

    async def run_due(self, snapshot: Snapshot) -> int:
        """Begin the attempts that are due and that nobody makes, as many as there is room for; returns how many.

        Raises StoreUnavailable.
        """
        if self._draining or self._slots.free <= 0:
            return 0
        started, refused = 0, NOBODY_CROWDED
        for _ in range(LOOKS):
            room, crowded = self._slots.free, self._slots.crowded()
            without = Crowded(crowded.accounts | refused.accounts, crowded.sources | refused.sources)
            due = await self._records.find_due_validations(self._clock(), ROWS_A_LOOK, without)
            left = [row for row in due if row.id not in self._tasks and not self._take_up_now(snapshot, row)]
            started += room - self._slots.free
            if self._slots.free <= 0 or len(due) < ROWS_A_LOOK or not left:
                break
            # Those who wait behind their own are not to keep others from being seen.
            sources = {row.source for row in left if source_network(row.source) in self._slots.crowded().sources}
            accounts = {row.account for row in left if row.source not in sources}
            refused = Crowded(refused.accounts | accounts, refused.sources | sources)
        return started

    def _take_up_now(self, snapshot: Snapshot, row: Authorization) -> bool:
        """Begin an attempt where there is room for it."""
        if not self._slots.take(row, row.source):
            return False
        _ = self._start(row, self._take_up(snapshot, row), holds=row.source)
        return True

    async def _take_up(self, snapshot: Snapshot, row: Authorization) -> Authorization | None:
        if not await self._claim(row, self._clock()):
            return None
        account = await self._records.find_account(row.account)
        return None if account is None else await self._attempt(snapshot, row, account)

    def _start(
        self, row: Authorization, work: Coroutine[Any, Any, Authorization | None], *, holds: str | None
    ) -> asyncio.Task[Authorization | None]:
        """Run work that no client can cancel; `holds` is the source that room was taken for, None for none."""
        task = asyncio.get_running_loop().create_task(work, name=f"validation-{row.id[:8]}")
        self._tasks[row.id] = task
        task.add_done_callback(lambda done: self._finish(row, done, holds=holds))
        return task

    def _finish(self, row: Authorization, task: asyncio.Task[Authorization | None], *, holds: str | None) -> None:
        del self._tasks[row.id]
        if holds is not None:
            self._slots.give_back(row, holds)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, StoreUnavailable):
            log.warning("an attempt could not be recorded; it is made again", authorization=row.id, cause=str(error))
        elif error is not None:
            log.error("an attempt at a challenge failed inside; it is made again", authorization=row.id, exc_info=error)

    async def _attempt(
        self, snapshot: Snapshot, row: Authorization, account: Account, judge: Validation | None = None
    ) -> Authorization | None:
        """Make one attempt and record it; None where somebody else has taken it meanwhile."""
        challenge = next((challenge for challenge in row.challenges if challenge.id == row.trying), None)
        if challenge is None:
            return None
        return await self._record(await self._judge(snapshot, row, account, challenge, judge))

    async def _judge(
        self, snapshot: Snapshot, row: Authorization, account: Account, challenge: Challenge, judge: Validation | None
    ) -> Attempt:
        try:
            judge = judge or await self._validation(snapshot, row, account)
            validated = await self._try(snapshot, row, account, challenge, judge)
        except ValidationFailed as failure:
            return self._failed(snapshot, row, challenge, failure)
        return self._valid(snapshot, row, challenge, validated)

    async def _find_judge(self, snapshot: Snapshot, row: Authorization, account: Account) -> Validation | None:
        """Return how this name is validated; None where it is not any more, which the attempt will say."""
        try:
            return await self._validation(snapshot, row, account)
        except ValidationFailed:
            return None

    async def _try(
        self, snapshot: Snapshot, row: Authorization, account: Account, challenge: Challenge, judge: Validation
    ) -> Validated:
        task = ValidationTask(
            type=challenge.type,
            identifier=row.identifier,
            token=challenge.token,
            thumbprint=account.thumbprint,
            account_url=_account_url(snapshot, account),
            source=row.source,
            wildcard=row.wildcard,
            subdomains=row.subdomains,
            payload=row.payload,
        )
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await judge.validate(task, self._clock())
        except TimeoutError:
            raise ValidationFailed(Reason.VALIDATION_CONNECTION, "the attempt took too long") from None
        except (ValidationFailed, StoreUnavailable):
            raise
        except Exception as error:
            # A fault of ours in judging what a stranger's server sent must end as a failed attempt, not as one without end.
            log.exception("a challenge could not be judged", challenge=challenge.type, identifier=row.identifier.value)
            raise ValidationFailed(Reason.INTERNAL, "the attempt failed inside the server", str(error)) from error

    async def _validation(self, snapshot: Snapshot, row: Authorization, account: Account) -> Validation:
        """Return how this name is validated for this account; raises ValidationFailed where it is not any more."""
        terms = _terms(snapshot, row)
        if terms is None:
            raise ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, "this profile does not serve ACME any more", final=True)
        try:
            _, policy = await find_policy(self._records, account, row.profile, self._clock())
            return validation(terms, policy)
        except Rejection as refusal:
            raise ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, refusal.detail, refusal.cause, final=True) from None

    def _valid(self, snapshot: Snapshot, row: Authorization, challenge: Challenge, validated: Validated) -> Attempt:
        now = self._clock()
        terms = _terms(snapshot, row)
        reuse = terms.config.authorization_reuse if terms is not None else None
        log.info("a challenge is valid", challenge=challenge.type, identifier=row.identifier.value, attempts=row.attempts + 1)
        return Attempt(
            authorization=row.id,
            challenge=challenge.id,
            worker=self._worker,
            status=ChallengeStatus.VALID,
            at=now,
            audit=_event("valid", "granted", row, challenge, snapshot, now, row.source),
            expires_at=None if reuse is None else max(row.expires_at, now + reuse),
            attested_key=validated.attested_key,
            claims=validated.claims,
            by_challenge=validated.by_challenge,
        )

    def _failed(self, snapshot: Snapshot, row: Authorization, challenge: Challenge, failure: ValidationFailed) -> Attempt:
        """Return a failed attempt: the last one ends the challenge, any other waits for its next time."""
        now = self._clock()
        made = row.attempts + 1
        terms = _terms(snapshot, row)
        last = failure.final or terms is None or made >= terms.config.validation.attempts
        log.info(
            "a challenge failed" if last else "an attempt at a challenge failed",
            challenge=challenge.type,
            identifier=row.identifier.value,
            attempts=made,
            reason=failure.reason,
            cause=failure.cause,
        )
        error = Problem(failure.reason, failure.detail)
        if last or terms is None:
            event = _event("invalid", "refused", row, challenge, snapshot, now, row.source, failure)
            return Attempt(
                authorization=row.id,
                challenge=challenge.id,
                worker=self._worker,
                status=ChallengeStatus.INVALID,
                at=now,
                audit=event,
                error=error,
                quotas=_failure_quota(terms, row),
            )
        pause = terms.config.validation.attempt_every * made
        return Attempt(
            authorization=row.id,
            challenge=challenge.id,
            worker=self._worker,
            status=ChallengeStatus.PROCESSING,
            at=now,
            audit=None,
            error=error,
            next_at=now + pause,
        )

    async def _record(self, attempt: Attempt) -> Authorization | None:
        """Write what came of an attempt; a store that is down for a moment does not lose it."""
        for left in range(_STORE_TRIES, -1, -1):
            try:
                return await self._records.end_attempt(attempt)
            except StoreUnavailable:
                if left == 0:
                    raise
                await asyncio.sleep(_STORE_PAUSE)
        return None

    async def _check_failures(self, snapshot: Snapshot, row: Authorization, challenge: Challenge) -> None:
        if row.trying == challenge.id:
            return
        quotas = _failure_quota(_terms(snapshot, row), row)
        if quotas and not await self._records.has_room(quotas, self._clock()):
            raise full(quotas, f"failed validations of {row.identifier.value}")

    async def check_caa(
        self, snapshot: Snapshot, order: Order, authorizations: Collection[Authorization], account: Account
    ) -> None:
        """Judge CAA records of an order's names before it is certified. Raises ValidationFailed.

        Those of a name that was itself validated are judged again where that was long ago; those of a name below it, and of a
        wildcard that stands on its domain, were never judged: each name of a certificate has records of its own (RFC 8659 §3).
        """
        now = self._clock()
        standing = [(name, _standing(name, authorizations)) for name in order.identifiers if name.type is IdentifierType.DNS]
        due = [(name, row) for name, row in standing if row is not None and (_is_stale(row, now) or not _is_exact(row, name))]
        if not due:
            return
        room = asyncio.Semaphore(CAA_AT_ONCE)
        url = _account_url(snapshot, account)
        judge = await self._validation(snapshot, due[0][1], account)

        async def check(name: Identifier, row: Authorization) -> None:
            # What was never judged was never proved by a challenge: a trust mode stands for it.
            proved = row.caa_checked_at is not None
            done = next((c.type for c in row.challenges if proved and c.status is ChallengeStatus.VALID), None)
            async with room:
                await judge.check_caa(base_of(name), done, url, wildcard=name.wildcard)

        failures = [e for e in await asyncio.gather(*starmap(check, due), return_exceptions=True) if e is not None]
        if failures:
            # What is forbidden stays so; what could not be found out may be found out later.
            raise min(failures, key=lambda failure: getattr(failure, "reason", None) is not Reason.VALIDATION_CAA)

    async def drain(self, seconds: float) -> int:
        """Begin nothing more, let attempts end for `seconds`, cancel the rest; returns how many were cancelled.

        What was cancelled is taken up by another worker when its lease ends.
        """
        self._draining = True
        left = set(self._tasks.values())
        if left:
            _, left = await asyncio.wait(left, timeout=seconds)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)


def _may_be_tried(row: Authorization, challenge: Challenge, now: datetime) -> bool:
    """Whether anything is left to be tried: a second challenge beside the one that is tried is not."""
    if row.status is not AuthorizationStatus.PENDING or row.expires_at <= now:
        return False
    if challenge.status not in {ChallengeStatus.PENDING, ChallengeStatus.PROCESSING}:
        return False
    return row.trying in {None, challenge.id}


def _terms(snapshot: Snapshot, row: Authorization) -> AcmeTerms | None:
    profile = snapshot.profiles.get(row.profile)
    return None if profile is None else profile.acme


def _account_url(snapshot: Snapshot, account: Account) -> str:
    """Return the account's own Location, which DNS records name it by; it is that of its own directory."""
    profile = snapshot.profiles.get(account.profile)
    if profile is None or profile.acme is None:
        raise ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, "the account's directory is not there any more", final=True)
    return profile.acme.account_url(account.id)


def _failure_quota(terms: AcmeTerms | None, row: Authorization) -> tuple[QuotaTake, ...]:
    limit = None if terms is None else terms.config.limits.failed_validations
    if limit is None:
        return ()
    key = f"acme:failed:{row.profile}:{row.account}:{row.identifier.type}:{row.identifier.value}"
    return (QuotaTake(key, limit.count, math.ceil(limit.window.total_seconds())),)


def _standing(name: Identifier, rows: Collection[Authorization]) -> Authorization | None:
    """Return the authorization that a name of an order stands on, its own before one of a domain above it."""
    covering = [row for row in rows if covers(row, name)]
    return next((row for row in covering if _is_exact(row, name)), covering[0] if covering else None)


def _is_exact(row: Authorization, name: Identifier) -> bool:
    return row.identifier == base_of(name) and row.wildcard == name.wildcard


def _is_stale(row: Authorization, now: datetime) -> bool:
    return row.caa_checked_at is None or not row.caa_checked_at <= now < row.caa_checked_at + CAA_RECHECKED_AFTER


def _event(
    what: str,
    decision: str,
    row: Authorization,
    challenge: Challenge,
    snapshot: Snapshot,
    at: datetime,
    source: str,
    failure: ValidationFailed | None = None,
) -> AuditEvent:
    """Return the audit row of a step of a challenge; what the client's server sent is in none."""
    name = Identifier(row.identifier.type, f"*.{row.identifier.value}") if row.wildcard else row.identifier
    return journal.change(
        f"acme.challenge.{what}",
        row.account,
        row.profile,
        at,
        source=source,
        decision=decision,
        operation=challenge.type,
        transaction_id=row.id,
        identifiers=(name,),
        reason=failure.reason if failure is not None else None,
        detail=failure.cause if failure is not None else "",
        generation=snapshot.generation,
    )
