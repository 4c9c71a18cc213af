"""What operators do about CMP: shared secrets, which are named by reference numbers (RFC 9810 §5.1.3.1); each act is audited."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.audit import AuditEvent
from gateway.cmp import SharedSecret
from gateway.config.credentials import CmpSecretCredential
from gateway.config.durations import format_duration
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, Protocol, SanKind
from gateway.ra.administration import read_binding
from gateway.ra.profile import Snapshot
from gateway.ra.transactions import new_request_id
from gateway.store.cmp import CmpRecords

MIN_SECRET_BYTES = 12
"""Whoever sees a message may try secrets for as long as he likes: shorter ones are found."""
MAX_SECRET_BYTES = 512
_REFERENCE = re.compile(r"[!-~]{1,64}", re.ASCII)
"""A common name can hold it, which RFC 9483 §3.1 puts it into as well."""
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""32 characters that nobody misreads."""
_SECRET_LENGTH = 28
"""140 bits."""
_REFERENCE_LENGTH = 12


@dataclass(frozen=True, slots=True)
class NewSecret:
    """What an operator asks for; without `reference` and `secret` both are drawn.

    `subject` (RFC 4514) and `sans` bind it to exactly these names. `uses` are certificates.
    """

    profile: str
    reference: str | None = None
    secret: bytes | None = field(default=None, repr=False)
    uses: int = 1
    ttl: timedelta | None = None
    subject: str | None = None
    sans: tuple[tuple[SanKind, str], ...] | None = None
    owner: str | None = None


class CmpAdministration:
    """An operator's commands; `actor` names whoever gave one, as the kernel or the command line knows them.

    Refusals are Rejections whose `detail` says to an operator what to do; every method may raise StoreUnavailable.
    """

    def __init__(self, records: CmpRecords, snapshot: Callable[[], Snapshot], clock: Callable[[], datetime]) -> None:
        self._records = records
        self._snapshot = snapshot
        self._clock = clock

    async def create_secret(self, wanted: NewSecret, actor: str) -> SharedSecret:
        """Make a shared secret and return it, this once.

        Raises Rejection where the profile takes none, it asks for more than the profile allows, a name cannot be read, or the
        reference number is in use.
        """
        terms = self._terms(wanted.profile)
        lifetime = _check_terms(wanted, terms)
        now = self._clock()
        row = SharedSecret(
            id=new_request_id(now),
            profile=ProfileName(wanted.profile),
            reference=(_draw(_REFERENCE_LENGTH) if wanted.reference is None else _check_reference(wanted.reference)).encode(),
            secret=_draw(_SECRET_LENGTH).encode() if wanted.secret is None else _check_secret(wanted.secret),
            created_at=now,
            expires_at=now + lifetime,
            created_by=actor,
            max_uses=wanted.uses,
            binding=read_binding(wanted.subject, wanted.sans),
            owner=wanted.owner,
        )
        if not await self._records.add_secret(row, self._event("cmp_secret.created", actor, row)):
            raise _denied("this profile has a secret of this reference number in force: revoke it first, or choose another")
        return row

    async def list_secrets(self, profile: str | None, limit: int) -> tuple[SharedSecret, ...]:
        """Return secrets in force, newest first, with how often each was used and without what is secret."""
        return await self._records.list_secrets(profile, self._clock(), limit)

    async def revoke_secret(self, id: str, actor: str) -> None:
        """End a secret: nothing more is proved by it. Certificates stay. Raises Rejection UNKNOWN_TRANSACTION."""
        event = self._event("cmp_secret.revoked", actor, None, f"shared secret {id}")
        if not await self._records.revoke_secret(id, self._clock(), event):
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no shared secret with this ID that is in force")

    def _terms(self, name: str) -> CmpSecretCredential:
        profile = self._snapshot().profiles.get(ProfileName(name))
        if profile is None:
            raise Rejection(Reason.UNKNOWN_PROFILE, "there is no such profile")
        if profile.cmp is None:
            raise _denied("this profile does not open cmp")
        if profile.cmp.secrets is None:
            raise _denied("this profile takes no shared secrets: add `type: cmp_secret` to its credentials")
        return profile.cmp.secrets

    def _event(self, event: str, actor: str, row: SharedSecret | None, detail: str = "") -> AuditEvent:
        names = row.binding.sans or () if row else ()
        return AuditEvent(
            event=event,
            at=self._clock(),
            actor=actor,
            decision="done",
            protocol=Protocol.ADMIN,
            profile=row.profile if row else "",
            subject=(row.binding.subject or "") if row else "",
            sans=tuple(sorted(f"{kind}:{value}" for kind, value in names)),
            detail=detail or (f"shared secret {row.id}, reference {row.reference.decode()}" if row else ""),
            generation=self._snapshot().generation,
        )


def _check_terms(wanted: NewSecret, terms: CmpSecretCredential) -> timedelta:
    """Return how long a secret lives; raises Rejection where it is to live longer, or serve more often, than it may."""
    lifetime = terms.ttl if wanted.ttl is None else wanted.ttl
    if not timedelta(0) < lifetime <= terms.max_ttl:
        raise _denied(f"a shared secret of this profile lives at most {format_duration(terms.max_ttl)}")
    if not 1 <= wanted.uses <= terms.max_uses:
        raise _denied(f"a shared secret of this profile is good for at most {terms.max_uses} certificates: see its `max_uses`")
    return lifetime


def _check_reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise _denied("a reference number is up to 64 letters, digits and other characters of ASCII, without spaces")
    return text


def _check_secret(secret: bytes) -> bytes:
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise _denied(f"a shared secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes: shorter ones can be found by trying")
    return secret


def _draw(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _denied(text: str) -> Rejection:
    return Rejection(Reason.DENIED, text)
