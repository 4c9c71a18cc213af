"""Several upstream CAs behind one name: the next one is asked only while nothing of a request has reached any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial, reduce
from operator import and_, or_
from time import monotonic
from typing import Any, TypeVar

import structlog

from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    RenewalHint,
    Trial,
    UnknownResult,
    UpstreamCA,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.config.document import ConfigurationFaults
from gateway.config.remote_cas import GroupCA as Config
from gateway.errors import Rejection
from gateway.metrics import worker as metrics
from gateway.model import RevocationReason, UpstreamCAName
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.trust import verify_issued_by

T = TypeVar("T")
Answer = UpstreamIssued | UpstreamPending

_SHARED = Capability.FIND | Capability.POLL | Capability.REVOKE | Capability.REVIVE
"""What a group can do where all members can. Not REPEATABLE: a doubt about one member is not answered by another."""
_ANY = Capability.RENEWAL_HINT | Capability.CHOOSES_VALIDITY | Capability.CHOOSES_COMMON_NAME | Capability.POLL_SENDS
"""What is true of a group where it is of any member: only the member that issued is asked, and any may have issued."""

log = structlog.get_logger(__name__)


class GroupCA:
    """An `UpstreamCA` of several, asked in order; each of them belongs to its generation by itself and has its own circuit.

    References are the member's, after its name and a slash; before any has answered, the names of all that may have the request
    stand there. A member that is gone takes with it what it knows: what it may have is in doubt until it is back.
    """

    def __init__(self, name: UpstreamCAName, members: tuple[UpstreamCA, ...]) -> None:
        self.name = name
        self._members = {member.name: member for member in members}
        self.accepts = frozenset.intersection(*(member.accepts for member in members))
        self.queue = max(member.queue for member in members)
        self._chain = tuple(dict.fromkeys(der for member in members for der in member.chain()))
        self._issuers = {member.name: parse_certificate(member.chain()[0]) for member in members}

    @property
    def members(self) -> tuple[UpstreamCA, ...]:
        """The CAs, in the order in which they are asked."""
        return tuple(self._members.values())

    @property
    def capabilities(self) -> Capability:
        """What all members can do, as far as they know by now, and what is true of any."""
        found = [member.capabilities for member in self._members.values()]
        return (reduce(and_, found) & _SHARED) | (reduce(or_, found) & _ANY)

    async def start(self) -> None:
        """Nothing to do: members are started by themselves."""

    async def close(self) -> None:
        """Nothing to do: members are closed by themselves."""

    def new_serial(self) -> None:
        """Return None: the members choose."""
        return

    def may_go_to(self, earlier: str | None) -> str:
        """Return the reference of a request that is about to be sent: the names of the members, and of those in `earlier`."""
        return f"{','.join(dict.fromkeys((*_names(earlier), *self._members)))}/"

    async def issue(self, request: IssueRequest) -> Answer:
        """Send the request to the first member that takes it; raises NotSent where none did, and whatever else one raises."""
        until, refused = monotonic() + request.timeout, NotSent("no time was left to ask")
        for member in self._members.values():
            left = until - monotonic()
            if left <= 0:
                break
            try:
                return _named(member, await member.issue(replace(request, timeout=left)))
            except NotSent as error:
                log.warning("a member of the group took nothing", group=self.name, upstream_ca=member.name, cause=str(error))
                metrics.count_failover(self.name, member.name)
                refused = error
        raise NotSent(f"no member of the group took the request; the last one: {refused}", refused.retry_after) from refused

    async def poll(self, request: IssueRequest, reference: str) -> Answer:
        """Ask the member that accepted the request; raises UnknownResult where it is no member any more."""
        name, _, own = reference.partition("/")
        member = self._members.get(UpstreamCAName(name))
        if member is None:
            raise UnknownResult(f"{name or 'the CA'}, which accepted the request, is no member of {self.name} any more")
        return _named(member, await member.poll(request, own))

    async def find(self, request: IssueRequest) -> Answer | None:
        """Ask every member at once; None, or a refusal, only where all who may have the request say that they issued nothing."""
        found = await asyncio.gather(*(_try(member.find(_own(member, request))) for member in self._members.values()))
        answers = [
            _named(member, answer)
            for member, answer in zip(self._members.values(), found, strict=True)
            if isinstance(answer, UpstreamIssued | UpstreamPending)
        ]
        if len(answers) > 1:
            log.error("more than one member of the group has this request", group=self.name, request_id=request.request_id)
        if answers:
            return min(answers, key=lambda answer: isinstance(answer, UpstreamPending))
        failures = [answer for answer in found if isinstance(answer, Exception)]
        unanswered = [error for error in failures if not isinstance(error, UpstreamRejected)]
        gone = [name for name in _names(request.reference) if name not in self._members]
        if gone:
            raise UnknownResult(f"{', '.join(gone)} may have the request and is no member of {self.name} any more: put it back")
        for error in (*unanswered, *failures):
            raise error
        return None

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Have the issuer revoke; where several members stand for it, one after the other. Raises the last one's error."""
        await self._ask_issuer(certificate, lambda member: member.revoke(certificate, serial, reason, when))

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Have the issuer take a certificate off hold, as `revoke` asks it."""
        await self._ask_issuer(certificate, lambda member: member.revive(certificate, serial, when))

    def chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates of all members, those of the first one first, DER: no single path."""
        return self._chain

    def not_after_limit(self, now: datetime) -> datetime | None:
        """Return the first end of all members' own."""
        limits = [member.not_after_limit(now) for member in self._members.values()]
        return min((limit for limit in limits if limit is not None), default=None)

    async def crl(self) -> bytes | None:
        """Return None: each member has its own."""
        return None

    async def health(self) -> None:
        """Return where any member works; raises the last one's error."""
        await _first(member.health for member in self._members.values())

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        """Ask the issuer; None where it says nothing of the kind."""
        issuers = [member for member in self._issuers_of(certificate) if Capability.RENEWAL_HINT in member.capabilities]
        return await issuers[0].renewal_hint(certificate) if issuers else None

    async def inspect(self, certificate: bytes) -> None:
        """Have a certificate judged once more as its issuer's are."""
        for member in self._issuers_of(certificate):
            await member.inspect(certificate)

    async def check(self) -> tuple[Trial, ...]:
        """Return what every member found, with its name."""
        found = await asyncio.gather(*(member.check() for member in self._members.values()))
        return tuple(
            replace(trial, subject=f"{name}: {trial.subject}")
            for name, trials in zip(self._members, found, strict=True)
            for trial in trials
        )

    async def _ask_issuer(self, certificate: bytes, ask: Callable[[UpstreamCA], Coroutine[Any, Any, T]]) -> T:
        members = self._issuers_of(certificate)
        if not members:
            raise UnknownResult(f"no member of {self.name} has issued this certificate")
        return await _first(partial(ask, member) for member in members)

    def _issuers_of(self, certificate: bytes) -> list[UpstreamCA]:
        """Return the members below whose issuing CA the certificate is."""
        try:
            leaf = parse_certificate(certificate)
        except Rejection:
            return []
        return [self._members[name] for name, issuer in self._issuers.items() if _has_issued(issuer, leaf)]


def create(name: UpstreamCAName, config: Config, others: Mapping[UpstreamCAName, UpstreamCA]) -> GroupCA:
    """Return the group of CAs that were made before; raises ConfigurationFaults, empty, where one of them could not be."""
    members = tuple(others[member] for text in config.members if (member := UpstreamCAName(text)) in others)
    if len(members) < len(config.members):
        raise ConfigurationFaults  # what is wrong with the member has been said where it is
    return GroupCA(name, members)


def _names(reference: str | None) -> list[UpstreamCAName]:
    """Return who may have a request, by its reference."""
    names, slash, _ = (reference or "").partition("/")
    return [UpstreamCAName(name) for name in names.split(",")] if slash else []


def _own(member: UpstreamCA, request: IssueRequest) -> IssueRequest:
    """Return the request with the reference that this member gave it, if it was this one."""
    name, _, own = (request.reference or "").partition("/")
    return replace(request, reference=own if name == member.name else None)


def _named(member: UpstreamCA, answer: Answer) -> Answer:
    if isinstance(answer, UpstreamPending):
        return replace(answer, reference=f"{member.name}/{answer.reference}")
    # A leaf without a chain means the member's own, not the group's.
    return replace(answer, reference=f"{member.name}/{answer.reference or ''}", chain=answer.chain or member.chain())


def _has_issued(issuer: Certificate, leaf: Certificate) -> bool:
    try:
        verify_issued_by(leaf, issuer)
    except Rejection:
        return False
    return True


async def _try(question: Coroutine[Any, Any, T]) -> T | Exception:
    try:
        return await question
    except Exception as error:  # noqa: BLE001  judged with the others' answers
        return error


async def _first(questions: Iterable[Callable[[], Coroutine[Any, Any, T]]]) -> T:
    """Return the first answer; where all fail, raise the last error. For questions that may be asked twice."""
    failed: UpstreamError | None = None
    for question in questions:
        try:
            return await question()
        except UpstreamRejected:
            raise
        except UpstreamError as error:
            failed = error
    raise failed or UnknownResult("there is nobody to ask")
