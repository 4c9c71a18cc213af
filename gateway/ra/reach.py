"""What a worker knows of CAs that cannot be reached, so that what waits for one is not tried piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.model import UpstreamCAName
from gateway.ra.timing import Timing


@dataclass(slots=True)
class _Rest:
    """What waits for the CA is not tried before `until`; the next trial that fails makes the pause after it twice as long."""

    until: datetime
    pause: timedelta
    on_trial: bool = False


class Reach:
    """Which CAs rest; each worker finds that out for itself, and a restart forgets it.

    A CA that failed rests for a while, twice as long each time. Then one question is the trial: until that has an answer, or
    takes too long, the others go on waiting. Any answer ends the rest for all.
    """

    def __init__(self, clock: Callable[[], datetime], timing: Timing) -> None:
        self._clock = clock
        self._timing = timing
        self._rests: dict[UpstreamCAName, _Rest] = {}

    def fail(self, ca: UpstreamCAName, retry_after: int = 0) -> timedelta:
        """Let a CA rest that could not be reached; returns for how long. Its own wish, in seconds, is kept within bounds.

        Others than those who wait ask it meanwhile; that they fail says nothing new.
        """
        known, now = self._rests.get(ca), self._clock()
        if known is not None and not known.on_trial and not self._is_over(known):
            return known.until - now
        pause = self._timing.first_trial if known is None else min(known.pause * 2, self._timing.longest_trial)
        wished = timedelta(seconds=min(max(0, retry_after), self._timing.longest_trial.total_seconds()))
        rest = max(pause, wished)
        self._rests[ca] = _Rest(now + rest, pause)
        return rest

    def answer(self, ca: UpstreamCAName) -> None:
        """Note that a CA answered, whatever it said."""
        self._rests.pop(ca, None)

    def admit(self, ca: UpstreamCAName) -> bool:
        """Whether what waits for a CA may be sent now; whoever may after a rest makes the trial."""
        rest = self._rests.get(ca)
        if rest is None:
            return True
        if self._is_over(rest):
            rest.until, rest.on_trial = self._clock() + self._timing.trial, True
            return True
        return False

    def is_reached(self, ca: UpstreamCAName) -> bool:
        """Whether nothing is known against a CA."""
        return ca not in self._rests

    def resting(self) -> frozenset[UpstreamCAName]:
        """Return the CAs that rest, or are tried."""
        return frozenset(ca for ca, rest in self._rests.items() if not self._is_over(rest))

    def _is_over(self, rest: _Rest) -> bool:
        """Whether its time has come; it has, too, for one that was taken under a clock that ran ahead."""
        now = self._clock()
        return not now < rest.until <= now + 2 * max(self._timing.longest_trial, self._timing.trial)
