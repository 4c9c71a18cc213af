"""How long ACME's state machines wait, and how they refuse (RFC 8555 §6.6, §6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from gateway.errors import Reason, Rejection


@dataclass(frozen=True, slots=True)
class AcmeTiming:
    """How long the state machines wait and keep what is theirs; seconds where they are floats."""

    lease: timedelta = timedelta(seconds=60)
    """How long an order that is finalized, or a challenge that is tried, stays ours without being renewed."""
    poll_wait: float = 12.0
    """How long a read of an order that is processing waits for its end."""
    look_every: float = 0.25
    """First pause between two looks at an order that another worker finalizes; it doubles up to two seconds."""
    retry: int = 5
    """Retry-After of what is under way."""
    longest_retry: int = 600
    """Longest Retry-After of an order that waits, for a person or for a CA that is down."""
    request_wait: float = 20.0
    """How long one request waits in all; below what clients and proxies wait."""


class RateLimited(Rejection):
    """A quota is full; it has room again after `retry_after` seconds at the latest (RFC 8555 §6.6)."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(Reason.RATE_LIMITED, detail)
        self.retry_after = retry_after


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
