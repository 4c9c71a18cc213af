"""One shared secret for all requests of a profile (RFC 8894 §2.4: a challengePassword that is not one-time)."""

from __future__ import annotations

import hmac
import os
from datetime import datetime

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, ProfileName, Requester
from gateway.ra.devices import digest_of_names

MAX_CHALLENGE = 1024
"""Longest challenge, in characters, that is looked at."""


class StaticCredential:
    """Recognises the profile's shared challenge; only a digest of it under a key of this process is kept."""

    kind = CredentialKind.STATIC

    def __init__(self, profile: ProfileName, secret: bytes) -> None:
        """Take the secret as configured; raises ValueError when it is empty, which would let everybody in."""
        if not secret.strip():
            raise ValueError(f"the static challenge of profile {profile} is empty")
        self._profile = profile
        self._key = os.urandom(32)
        self._digest = self._mac(secret)

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the requester when the challenge is the shared one.

        None without a challenge; raises Rejection CREDENTIAL_INVALID with another one. Its identity names the subject, so that a
        quota for one requester counts one device and not the whole profile.
        """
        if not request.challenge:
            return None
        given = request.challenge.encode("utf-8", "surrogatepass")
        if len(given) > MAX_CHALLENGE or not hmac.compare_digest(self._mac(given), self._digest):
            raise Rejection(Reason.CREDENTIAL_INVALID, "the challenge is not valid", "it is not the profile's static challenge")
        device = digest_of_names(request.csr)
        return Requester(identity=f"static:{self._profile}:{device}", kind=self.kind, device=device)

    def _mac(self, secret: bytes) -> bytes:
        return hmac.digest(self._key, secret, "sha256")
