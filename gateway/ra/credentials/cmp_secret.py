"""Shared secrets of CMP clients as a credential: whoever protected the message with one (RFC 9810 §5.1.3.1)."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.errors import Reason, Rejection
from gateway.model import (
    Allowance,
    CredentialKind,
    EnrollmentRequest,
    ProfileName,
    Protocol,
    Requester,
    Reservation,
    SecretProof,
)

RESERVATION_KIND = "cmp_secret"
"""One secret, one certificate, however long its answer was remembered."""

_KEPT_FOR = timedelta(days=1)
"""Longer than a request that found it good may take."""


class CmpSecretCredential:
    """Takes the proof that the state machine of CMP hands over; the secret is used up when the ledger row is opened."""

    kind = CredentialKind.CMP_SECRET

    def __init__(self, profile: ProfileName) -> None:
        """Take the profile whose secrets these are."""
        self._profile = profile

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return who has the secret; None where none protected the message.

        Raises Rejection CREDENTIAL_EXPIRED or NOT_AUTHORIZED.
        """
        secret = request.proof.secret if request.proof is not None else None
        if secret is None or request.protocol is not Protocol.CMP:
            return None
        if secret.profile != self._profile or request.profile != self._profile or request.signer is not None:
            raise Rejection(Reason.NOT_AUTHORIZED, "not authorized", "the shared secret is another profile's")
        if now >= secret.expires_at:
            raise Rejection(Reason.CREDENTIAL_EXPIRED, "the shared secret has expired", f"secret {secret.id} has expired")
        single = secret.max_uses == 1
        until = secret.expires_at + _KEPT_FOR
        return Requester(
            identity=f"{self.kind}:{secret.id}",
            kind=self.kind,
            binding=secret.binding,
            owner=secret.owner,
            reservations=(Reservation(RESERVATION_KIND, secret.id, until),) if single else (),
            allowances=() if single else (_allowance(secret),),
        )


def _allowance(secret: SecretProof) -> Allowance:
    """Count certificates for as long as the secret lives: no window is over before its end."""
    lifetime = max(secret.expires_at - secret.created_at, timedelta(0)) + _KEPT_FOR
    return Allowance(f"cmp_secret:{secret.id}", secret.max_uses, lifetime)
