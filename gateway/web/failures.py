"""Limits how often one source address may fail: a profile's own choice, since an MDM proxy is one address for a whole fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic

from gateway.errors import AUTHENTICATION_REASONS, Reason
from gateway.model import ProfileName
from gateway.ra.strangers import source_network
from gateway.web.generation import FailureLimit

MAX_ADDRESSES = 16384
"""Addresses that one worker remembers; a new one takes the place of the one that failed first."""


@dataclass(slots=True)
class _Failures:
    """What one address has failed since `since`, seconds of the monotonic clock."""

    since: float
    count: int = 0


PROOF_REFUSED = (AUTHENTICATION_REASONS - {Reason.NOT_COMPLIANT}) | {
    Reason.MALFORMED,
    Reason.UNSUPPORTED_MESSAGE,
    Reason.BAD_SIGNATURE,
    Reason.DECRYPTION_FAILED,
    Reason.BAD_PROOF_OF_POSSESSION,
    Reason.BAD_TIME,
    Reason.UNKNOWN_CERTIFICATE,
    Reason.UNKNOWN_TRANSACTION,
}
"""Refusals of what cannot be read, or of who asks: what a quota, a policy or an upstream CA refuses is no attempt to get in."""


class FailureCounter:
    """Counts failed requests by profile and address, of IPv6 by /64, in memory; what succeeds is never counted.

    A window begins with the first failure in it and ends by itself, so that nobody is shut out for longer.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures: dict[tuple[ProfileName, str], _Failures] = {}

    def retry_after(self, profile: ProfileName, limit: FailureLimit | None, source: str) -> int | None:
        """Return the seconds until an address over its limit is heard again; None: it is heard now."""
        if limit is None:
            return None
        failures = self._failures.get((profile, source_network(source)))
        if failures is None or failures.count < limit.count:
            return None
        left = failures.since + limit.window.total_seconds() - self._clock()
        return max(1, ceil(left)) if left > 0 else None

    def count(self, profile: ProfileName, limit: FailureLimit | None, source: str) -> None:
        """Count one failure, where the profile limits them."""
        if limit is None:
            return
        now = self._clock()
        key = (profile, source_network(source))
        failures = self._failures.get(key)
        if failures is None or now - failures.since >= limit.window.total_seconds():
            failures = self._begin(key, now)
        failures.count += 1

    def _begin(self, key: tuple[ProfileName, str], now: float) -> _Failures:
        """Open a window; the dictionary keeps them in the order in which they began."""
        self._failures.pop(key, None)
        if len(self._failures) >= MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        begun = self._failures[key] = _Failures(now)
        return begun
