"""What every credential provider does."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from gateway.model import CredentialKind, EnrollmentRequest, Requester


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
