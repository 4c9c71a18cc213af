"""What ACME's state machines work with: the store, the clock, the terms of a directory; and how they refuse (RFC 8555 §6.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from gateway.acme import Account, AccountStatus, ExternalAccount, ExternalAccountPolicy
from gateway.config.acme import TrustMode
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, Protocol
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import AcmeTerms, Profile, Snapshot
from gateway.store.acme import AcmeRecords
from gateway.store.interfaces import Inventory, Ledger, QuotaTake
from gateway.validation.interfaces import Validation

UNBOUND = ExternalAccountPolicy()
"""What an account may that is bound to no external one: all that the profile lets it."""


@dataclass(frozen=True, slots=True)
class AcmeTiming:
    """How long the state machines wait and keep what is theirs; seconds where they are floats."""

    lease: timedelta = timedelta(seconds=60)
    """How long an order that is finalized, or a challenge that is tried, stays ours without being renewed."""
    poll_wait: float = 12.0
    """How long a read of an order that is processing waits for its end."""
    look_every: float = 0.25
    """First pause between two looks at an order that another worker finalizes; it doubles up to two seconds."""
    retry: int = 3
    """Retry-After of what is under way, and the first pause after which a CA that was not reached is tried again."""
    longest_retry: int = 60
    """The longest of both, for an order that waits for a person or for a CA that is down."""
    request_wait: float = 20.0
    """How long one request waits in all for others: below what clients and proxies wait."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all state machines of one worker share."""

    records: AcmeRecords
    ledger: Ledger
    inventory: Inventory
    authority: RegistrationAuthority
    clock: Callable[[], datetime]
    worker: str
    timing: AcmeTiming = field(default_factory=AcmeTiming)


class RateLimited(Rejection):
    """A quota is full; it has room again after `retry_after` seconds at the latest (RFC 8555 §6.6)."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(Reason.RATE_LIMITED, detail)
        self.retry_after = retry_after


class Recorded(Rejection):
    """A refusal that a change of state has on record already."""


class KeyInUse(Rejection):
    """The key belongs to another account already, which is named (RFC 8555 §7.3.5)."""

    def __init__(self, account: str) -> None:
        super().__init__(Reason.ACCOUNT_KEY_IN_USE, "this key belongs to another account already")
        self.account = account


class Busy(Exception):
    """Nothing was decided: the same request may succeed after `retry_after` seconds; never a 4xx."""

    def __init__(self, reason: Reason, retry_after: int) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.retry_after = retry_after


def full(quotas: tuple[QuotaTake, ...], what: str) -> RateLimited:
    """Return the refusal of what is too much; which of the quotas is full is not told."""
    window = max((quota.window for quota in quotas), default=60)
    return RateLimited(f"too many {what}: try again later, in {window} seconds at the latest", window)


def directory(snapshot: Snapshot, name: ProfileName) -> tuple[Profile, AcmeTerms]:
    """Return a profile and its terms. Raises Rejection UNKNOWN_PROFILE or ENDPOINT_CLOSED."""
    profile = snapshot.profile(name, Protocol.ACME)
    if profile.acme is None:
        raise Rejection(Reason.ENDPOINT_CLOSED, "this profile does not open acme")
    return profile, profile.acme


def check_account(account: Account, name: ProfileName) -> None:
    """Refuse an account of another directory, and one that is over (RFC 8555 §7.3.6)."""
    if account.profile != name:
        raise Rejection(Reason.UNKNOWN_ACCOUNT, "there is no such account")
    if account.status is not AccountStatus.VALID:
        raise Rejection(Reason.ACCOUNT_DEACTIVATED, f"the account is {account.status}")


async def find_policy(
    records: AcmeRecords, account: Account, now: datetime
) -> tuple[ExternalAccount | None, ExternalAccountPolicy]:
    """Return the external account that an account is bound to, and what it bounds.

    Raises Rejection CREDENTIAL_REVOKED or CREDENTIAL_EXPIRED: accounts of one that is over get nothing more.
    """
    if account.external_account is None:
        return None, UNBOUND
    external = await records.find_external_account(account.external_account)
    if external is None or external.profile != account.profile or external.revoked_at is not None:
        raise Rejection(Reason.CREDENTIAL_REVOKED, "the external account of this account was revoked")
    if external.expires_at is not None and external.expires_at <= now:
        raise Rejection(Reason.CREDENTIAL_EXPIRED, "the external account of this account has expired")
    return external, external.policy


def trust_mode(terms: AcmeTerms, policy: ExternalAccountPolicy | None) -> TrustMode:
    """Return the trust mode that counts: the external account's, else the profile's. Nothing may be built for it any more."""
    return cast("TrustMode", (policy.mode if policy is not None else None) or terms.config.validation.mode)


def validation(terms: AcmeTerms, policy: ExternalAccountPolicy | None) -> Validation:
    """Return what validates names under the trust mode that counts. Raises Rejection DENIED where that is not built."""
    mode = trust_mode(terms, policy)
    found = terms.validations.get(mode)
    if found is None:
        raise Rejection(Reason.DENIED, "names cannot be validated here now", f"trust mode {mode} is not built for this profile")
    return found
