"""Challenges that are each good for one certificate (RFC 8894 §2.4 and §7.3)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, NameBinding, ProfileName, Requester, Reservation
from gateway.store.interfaces import ChallengeRow, Ledger

RESERVATION_KIND = "one_time"
ANSWERED_AGAIN_FOR = timedelta(hours=1)
"""How long after its expiry a used challenge still proves that a retransmission is one."""

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""32 characters that PrintableString, URLs and Windows take and that nobody misreads."""
_LENGTH = 28
_SHAPE = re.compile(r"[!-~]{16,128}", re.ASCII)
_KEPT_FOR = timedelta(days=1)
"""How much longer its reservation is kept than the challenge can be presented."""


def new_challenge() -> str:
    """Return a fresh challenge: 28 characters, 140 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


class OneTimeCredential:
    """Recognises challenges in the store, by their HMAC.

    `macs` returns the HMACs of a challenge under every current key, newest first. `answered_again_for` is the profile's
    retransmission window.
    """

    kind = CredentialKind.ONE_TIME

    def __init__(
        self,
        profile: ProfileName,
        ledger: Ledger,
        macs: Callable[[str], tuple[bytes, ...]],
        answered_again_for: timedelta = ANSWERED_AGAIN_FOR,
    ) -> None:
        self._profile = profile
        self._ledger = ledger
        self._macs = macs
        self._answered_again_for = answered_again_for

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the requester that the challenge was made for, with the reservation that will use it up.

        None without a challenge. Raises Rejection CREDENTIAL_INVALID (unknown, or another profile's), CREDENTIAL_REVOKED or
        CREDENTIAL_EXPIRED, and StoreUnavailable. One that was used is good here: `Ledger.open` knows by which request.
        """
        if not request.challenge:
            return None
        row = await self._find(request.challenge)
        if row is None:
            raise _invalid("no one-time challenge is like it")
        if row.profile != self._profile:
            raise _invalid(f"one-time challenge {row.id} belongs to profile {row.profile}")
        if row.revoked_at is not None:
            raise Rejection(
                Reason.CREDENTIAL_REVOKED, "the challenge has been revoked", f"one-time challenge {row.id} is revoked"
            )
        last = row.expires_at + (self._answered_again_for if row.used_by is not None else timedelta(0))
        if now >= last:
            raise Rejection(Reason.CREDENTIAL_EXPIRED, "the challenge has expired", f"one-time challenge {row.id} has expired")
        return self._requester(row)

    async def _find(self, challenge: str) -> ChallengeRow | None:
        if _SHAPE.fullmatch(challenge) is None:
            return None
        for mac in self._macs(challenge):
            row = await self._ledger.find_challenge(mac)
            if row is not None:
                return row
        return None

    def _requester(self, row: ChallengeRow) -> Requester:
        """Reserve the challenge for longer than it can be presented, used or not: forgotten, it would be a second use."""
        until = row.expires_at + self._answered_again_for + _KEPT_FOR
        return Requester(
            identity=f"one_time:{row.id}",
            kind=self.kind,
            binding=NameBinding(row.subject, row.sans),
            owner=row.owner,
            reservations=(Reservation(RESERVATION_KIND, row.id, until),),
        )


def _invalid(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_INVALID, "the challenge is not valid", cause)
