"""What every credential provider does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.model import CredentialKind, EnrollmentRequest, Requester


@dataclass(frozen=True, slots=True)
class ScryptParameters:
    """Salt and costs of scrypt (RFC 7914 §2)."""

    salt: bytes
    n: int = 16384
    r: int = 8
    p: int = 1


class Derive(Protocol):
    """Derives keys from passwords away from the event loop, a few at a time."""

    async def __call__(self, secret: bytes, parameters: ScryptParameters, source: str) -> bytes:
        """Return 32 bytes for a request from this address; raises Rejection RATE_LIMITED when too many derivations wait."""


class CredentialProvider(Protocol):
    """Decides whether a request carries this provider's credential, and whether it is good.

    A profile lists its providers in order. The first that returns a Requester authenticates it alone.
    """

    kind: CredentialKind

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return who is asking, without using the credential up.

        None: the request carries no credential of this kind, the next provider may look. Raises Rejection
        (CREDENTIAL_INVALID, CREDENTIAL_EXPIRED, …) when the credential is this provider's and is not good.
        A one-time credential that was used is still good here: whether it was used by this same request is decided
        by the request key, in `Ledger.open`.
        """
