"""Says the same thing once and then every hour: a fault that lasts must neither flood the log nor be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

REMIND_SECONDS = 3600.0


class Reminder:
    """What was said last about each of a few things, and when; names come from the configuration, never from a client."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[str, float]] = {}

    def is_due(self, name: str, text: str) -> bool:
        """Whether `text` is news about `name`, or was said an hour ago; then it counts as said now."""
        said, at = self._said.get(name, (None, 0.0))
        if said == text and self._clock() - at < REMIND_SECONDS:
            return False
        self._said[name] = text, self._clock()
        return True

    def forget(self, name: str) -> bool:
        """It is over: the next time is news again. Returns whether anything had been said."""
        return self._said.pop(name, None) is not None
