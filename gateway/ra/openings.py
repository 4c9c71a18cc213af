"""What the ledger says to a row that is to be opened, in words for its client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from gateway.config.durations import format_duration
from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, Issued, Protocol
from gateway.store.interfaces import Ledger, Opening, WaitingFor

REFUSED: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_USED: "this challenge was used for another request",
        Reason.POLICY_KEY: "this key was reported as compromised",
        Reason.RENEWAL_REFUSED: "this certificate was renewed with another key already",
        Reason.TRANSACTION_IN_USE: "this transactionID was used for another request",
        Reason.CREDENTIAL_REVOKED: "what proved this request was revoked meanwhile",
    }
)
_SECRET = f"{CredentialKind.CMP_SECRET}:"
"""How requesters and allowances of CMP's shared secrets begin."""


def replacing(opening: Opening, earlier: Issued | None) -> Opening:
    """Let a row take the place of an earlier one of its request; it is not sent before that one's certificate is revoked."""
    if earlier is None:
        return opening
    row = replace(opening.row, sent=False, waiting_for=WaitingFor.PREDECESSOR)
    return replace(opening, row=row, supersedes=earlier.request_id)


async def refused_opening(ledger: Ledger, reason: Reason, opening: Opening) -> Rejection:
    """Say why nothing was opened; of a quota also when it has room again, at the latest. Raises StoreUnavailable."""
    if reason is Reason.RATE_LIMITED and await _is_spent(ledger, opening):
        reason = Reason.CREDENTIAL_USED
    if reason is Reason.RATE_LIMITED:
        window = timedelta(seconds=max((quota.window for quota in opening.quotas), default=0))
        latest = f", in {format_duration(window)} at the latest" if window else ""
        return Rejection(
            reason, f"too many certificates were requested: try again later{latest}", "a quota of the profile or device is full"
        )
    if reason is Reason.CREDENTIAL_USED and opening.row.requester.startswith(_SECRET):
        return Rejection(reason, "the shared secret was used up")
    text = REFUSED.get(reason, "the request cannot be taken now")
    if reason is Reason.RENEWAL_REFUSED and opening.row.protocol == Protocol.CMP:
        reason = Reason.ALREADY_REPLACED
    return Rejection(reason, text)


async def _is_spent(ledger: Ledger, opening: Opening) -> bool:
    """Whether it is a shared secret that has no room; other than a quota it has none later either."""
    own = tuple(quota for quota in opening.quotas if quota.key.startswith(_SECRET))
    return bool(own) and await ledger.foresee(replace(opening, quotas=own, reservations=())) is Reason.RATE_LIMITED
