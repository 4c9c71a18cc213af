"""What operators do: challenges, requests that wait for a person, certificates, status; each act has its audit row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from gateway.audit import AuditEvent
from gateway.config.durations import format_duration
from gateway.errors import Reason, Rejection
from gateway.model import (
    CredentialKind,
    NameBinding,
    ProfileName,
    Protocol,
    RequestId,
    RevocationReason,
    SanKind,
    UpstreamCAName,
)
from gateway.pki.extensions import make_san
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.credentials.http_schemes import Composite
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.credentials.one_time import new_challenge
from gateway.ra.profile import Profile, Snapshot
from gateway.ra.resolution import Resolution
from gateway.ra.revocation import revive_certificate, revoke_certificate
from gateway.ra.timing import Timing
from gateway.ra.transactions import new_request_id
from gateway.ra.walk import Clock, Verify
from gateway.store.interfaces import (
    CertificateFilter,
    ChallengeRow,
    InventoryRow,
    LedgerRow,
    LedgerState,
    PendingRevocation,
    Store,
)

log = structlog.get_logger(__name__)

COUNTED = 1000
"""Status counts rows up to this many."""


@dataclass(frozen=True, slots=True)
class NewChallenge:
    """A one-time challenge as its operator sees it, once: only its HMAC is stored."""

    id: str
    challenge: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class CRLStatus:
    """The newest CRL of one CA."""

    number: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """What an operator should know first; counts stop at COUNTED."""

    generation: int
    profiles: tuple[str, ...]
    upstream_cas: tuple[str, ...]
    crls: dict[str, CRLStatus | None]
    waiting_for_approval: int
    waiting_for_upstream: int
    in_doubt: int
    expiring_in_30_days: int
    waiting_for_unreachable_ca: int
    revocations_to_tell: dict[UpstreamCAName, int]
    """Revocations that CAs were not told of yet, by CA."""


class Administration:
    """An operator's commands; `actor` names whoever gave one, as the kernel or the command line knows them.

    Refusals are Rejections whose `detail` says to an operator what to do; every method may raise StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        verify: Verify,
        macs: Callable[[str], tuple[bytes, ...]],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`macs` returns the HMACs of a challenge, newest key first; `wake` lets recovery look at the ledger at once."""
        self._store = store
        self._snapshot = snapshot
        self._clock = clock
        self._macs = macs
        self._revoke_within = Timing().revoke_within
        self._resolution = Resolution(store, snapshot, clock, verify, wake)

    async def new_challenge(
        self,
        profile: str,
        actor: str,
        *,
        subject: str | None = None,
        sans: Iterable[tuple[SanKind, str]] | None = None,
        ttl: timedelta | None = None,
        owner: str | None = None,
    ) -> NewChallenge:
        """Make a one-time challenge; `subject` (RFC 4514) and `sans` bind it to exactly these names.

        With a subject and no `sans` it is bound to requests without alternative names, and `sans` need a subject: a name that was
        left open would let its holder be anybody (VU#971035).
        Raises Rejection when the profile takes none, `ttl` is too long, or a name cannot be read.
        """
        rules = self._one_time_profile(profile)
        lifetime = rules.challenge_ttl if ttl is None else ttl
        if not timedelta(0) < lifetime <= rules.challenge_max_ttl:
            raise Rejection(
                Reason.DENIED, f"a challenge of this profile lives at most {format_duration(rules.challenge_max_ttl)}"
            )
        bound = read_binding(subject, sans)
        now = self._clock()
        challenge, challenge_id = new_challenge(), new_request_id(now)
        row = ChallengeRow(
            id=challenge_id,
            profile=rules.name,
            mac=self._macs(challenge)[0],
            created_at=now,
            expires_at=now + lifetime,
            created_by=actor,
            subject=bound.subject,
            sans=bound.sans,
            owner=owner,
        )
        names = tuple(sorted(f"{kind}:{value}" for kind, value in bound.sans or ()))
        event = self._event(
            "challenge.created",
            actor,
            profile=rules.name,
            subject=bound.subject or "",
            sans=names,
            detail=f"challenge {challenge_id}",
        )
        await self._store.add_challenge(row, event)
        return NewChallenge(challenge_id, challenge, row.expires_at)

    async def list_challenges(self, profile: str | None = None, limit: int = 100) -> tuple[ChallengeRow, ...]:
        """Return challenges that have not expired, newest first."""
        return await self._store.list_challenges(profile, self._clock(), limit)

    async def revoke_challenge(self, id: str, actor: str) -> None:
        """Revoke an unused challenge; raises Rejection UNKNOWN_TRANSACTION when there is none."""
        event = self._event("challenge.revoked", actor, detail=f"challenge {id}")
        if not await self._store.revoke_challenge(id, self._clock(), event):
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no unused challenge with this ID")

    async def list_requests(
        self, states: Iterable[LedgerState] = (), profile: str | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[LedgerRow, ...]:
        """Return ledger rows, newest first; no state means those that wait for somebody: pending and unknown."""
        wanted = frozenset(states) or frozenset({LedgerState.PENDING, LedgerState.UNKNOWN})
        return await self._store.list_rows(wanted, profile, limit, offset)

    async def show_request(self, id: str) -> LedgerRow:
        """Return one ledger row; raises Rejection UNKNOWN_TRANSACTION."""
        return await self._resolution.find(RequestId(id))

    async def approve(self, id: str, actor: str) -> LedgerRow:
        """Let a request go to its CA that waits for approval."""
        return await self._resolution.approve(RequestId(id), actor)

    async def deny(self, id: str, actor: str, detail: str = "") -> LedgerRow:
        """Refuse a request that waits for approval; `detail` is told to the client."""
        return await self._resolution.deny(RequestId(id), actor, detail)

    async def attach(self, id: str, certificate: bytes, actor: str, chain: tuple[bytes, ...] = ()) -> LedgerRow:
        """End a request in doubt with the certificate, DER, that its CA did issue; judged by the stored grant."""
        return await self._resolution.attach(RequestId(id), certificate, chain, actor)

    async def reissue(self, id: str, actor: str) -> LedgerRow:
        """Send a request in doubt to its CA again: the operator has seen that the CA issued nothing, or revoked it."""
        return await self._resolution.reissue(RequestId(id), actor)

    async def fail(self, id: str, actor: str, detail: str = "") -> LedgerRow:
        """End a request in doubt without a certificate; `detail` is told to the client."""
        return await self._resolution.fail(RequestId(id), actor, detail)

    async def list_certificates(self, filter: CertificateFilter) -> tuple[InventoryRow, ...]:
        """Return inventory rows, newest first."""
        return await self._store.list_certificates(filter)

    async def export_certificates(self, filter: CertificateFilter) -> tuple[InventoryRow, ...]:
        """Return one page of inventory rows with their DER, to be asked for page by page with `filter.offset`."""
        return await self._store.list_certificates(filter)

    async def show_certificate(self, name: str) -> InventoryRow:
        """Return the certificate with this SHA-256 or serial, both hex, colons allowed.

        Raises Rejection UNKNOWN_CERTIFICATE where none has it, and where several CAs have issued one with this serial.
        """
        text = name.replace(":", "").lower()
        try:
            number, sha256 = int(text, 16), bytes.fromhex(text) if len(text) == 64 else b""
        except ValueError:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "this is neither a SHA-256 nor a serial in hex") from None
        if sha256 and (row := await self._store.find_certificate(sha256)) is not None:
            return row
        rows = await self._store.list_certificates(CertificateFilter(serial=number, limit=2))
        if len(rows) != 1:
            problem = (
                "several CAs have issued a certificate with this serial: name it by SHA-256"
                if rows
                else "there is no such certificate"
            )
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, problem)
        return rows[0]

    async def revoke_certificate(self, name: str, reason: RevocationReason, actor: str) -> InventoryRow:
        """Revoke a certificate at its CA and in the inventory; raises Rejection and UpstreamError."""
        row = await self.show_certificate(name)
        event = self._event(
            "certificate.revoked",
            actor,
            profile=row.profile,
            request_id=row.request_id or "",
            upstream_ca=row.upstream_ca,
            serial=format(row.serial, "x"),
            subject=row.subject,
            sans=row.sans,
            detail=reason.name.lower(),
        )
        snapshot = self._snapshot()
        with snapshot.occupancy:
            upstream = snapshot.upstream_cas.get(row.upstream_ca)
            return await revoke_certificate(self._store, upstream, row, reason, self._clock(), event, self._revoke_within)

    async def revive_certificate(self, name: str, actor: str) -> InventoryRow:
        """Take a certificate off hold, at its CA and in the inventory; raises Rejection and UpstreamError."""
        row = await self.show_certificate(name)
        event = self._event(
            "certificate.revived",
            actor,
            profile=row.profile,
            request_id=row.request_id or "",
            upstream_ca=row.upstream_ca,
            serial=format(row.serial, "x"),
            subject=row.subject,
            sans=row.sans,
        )
        snapshot = self._snapshot()
        with snapshot.occupancy:
            upstream = snapshot.upstream_cas.get(row.upstream_ca)
            return await revive_certificate(self._store, upstream, row, self._clock(), event, self._revoke_within)

    async def list_revocations(self, limit: int = 100, offset: int = 0) -> tuple[PendingRevocation, ...]:
        """Return revocations that CAs were not told of yet, oldest first."""
        return await self._store.list_revocations(limit, offset)

    async def find_revocation(self, sha256: bytes) -> PendingRevocation | None:
        """Return the revocation of one certificate, where its CA was not told of it yet."""
        return await self._store.find_revocation(sha256)

    async def status(self) -> Status:
        """Return what is in force and what waits for an operator."""
        snapshot = self._snapshot()
        now = self._clock()
        waiting = await self._store.list_rows(frozenset({LedgerState.PENDING}), None, COUNTED)
        doubt = await self._store.list_rows(frozenset({LedgerState.UNKNOWN}), None, COUNTED)
        expiring = CertificateFilter(expires_before=now + timedelta(days=30), revoked=False, limit=COUNTED)
        crls: dict[str, CRLStatus | None] = {}
        for name in snapshot.upstream_cas:
            crl = await self._store.newest_crl(name)
            crls[name] = CRLStatus(crl.number, crl.this_update, crl.next_update) if crl else None
        tally = await self._store.tally(())
        return Status(
            generation=snapshot.generation,
            profiles=tuple(snapshot.profiles),
            upstream_cas=tuple(snapshot.upstream_cas),
            crls=crls,
            waiting_for_approval=sum(row.waiting_for == "approval" for row in waiting),
            waiting_for_upstream=sum(row.waiting_for == "upstream" for row in waiting),
            in_doubt=len(doubt),
            expiring_in_30_days=sum(row.not_after > now for row in await self._store.list_certificates(expiring)),
            waiting_for_unreachable_ca=tally.queue,
            revocations_to_tell=dict(tally.revocations),
        )

    def _one_time_profile(self, name: str) -> Profile:
        profile = self._snapshot().profiles.get(ProfileName(name))
        if profile is None:
            raise Rejection(Reason.UNKNOWN_PROFILE, "there is no such profile")
        if not _takes_one_time(profile.credentials):
            raise Rejection(Reason.DENIED, "this profile takes no one-time challenges: add `type: one_time` to its credentials")
        return profile

    def _event(
        self,
        event: str,
        actor: str,
        *,
        profile: str = "",
        request_id: str = "",
        upstream_ca: str = "",
        serial: str = "",
        subject: str = "",
        sans: tuple[str, ...] = (),
        detail: str = "",
    ) -> AuditEvent:
        return AuditEvent(
            event=event,
            at=self._clock(),
            actor=actor,
            decision="done",
            protocol=Protocol.ADMIN,
            profile=profile,
            request_id=request_id,
            upstream_ca=upstream_ca,
            serial=serial,
            subject=subject,
            sans=sans,
            detail=detail,
            generation=self._snapshot().generation,
        )


def read_binding(subject: str | None, sans: Iterable[tuple[SanKind, str]] | None) -> NameBinding:
    """Return the names that a challenge is good for; raises Rejection for what is no name, and for names without a subject."""
    if sans and subject is None:
        raise Rejection(Reason.DENIED, "name the subject too, which may be empty: else it is good for any")
    if sans is None and subject is None:
        return NameBinding()
    names = frozenset(_read_san(kind, value) for kind, value in sans or ())
    return NameBinding(None if subject is None else _read_subject(subject), names)


def _read_subject(text: str) -> str:
    try:
        return format_name(parse_name_text(text))
    except ValueError as error:
        raise Rejection(Reason.POLICY_SUBJECT, f"the subject cannot be read: {error}") from error


def _read_san(kind: SanKind, value: str) -> tuple[SanKind, str]:
    try:
        san = make_san(kind, value)
    except ValueError as error:
        raise Rejection(Reason.POLICY_SAN, f"the name {kind}:{value} cannot be read: {error}") from error
    return san.kind, san.value


def _takes_one_time(credentials: Iterable[CredentialProvider]) -> bool:
    """Say whether a one-time challenge serves here, be it together with other credentials."""
    return any(
        provider.kind is CredentialKind.ONE_TIME or (isinstance(provider, Composite) and _takes_one_time(provider.parts))
        for provider in credentials
    )
