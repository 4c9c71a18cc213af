"""Passwords that were good a short while ago, remembered so that nobody can learn them from memory or time."""

from __future__ import annotations

import hmac
import os
from datetime import datetime, timedelta

REMEMBERED_FOR = timedelta(minutes=5)
MAX_REMEMBERED = 4096


class Remembered:
    """Knows proofs again, by their HMAC under a key of this process, for five minutes after each was found good.

    What is not known has to be proved anew, so every worker may have its own memory and lose it at any time. `remember` does not
    prolong: five minutes after the proof it is asked for again, however often it was used.
    """

    __slots__ = ("_key", "_until")

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._until: dict[bytes, datetime] = {}

    def knows(self, now: datetime, *parts: bytes) -> bool:
        """Say whether exactly these parts were found good lately."""
        until = self._until.get(self._mac(parts))
        return until is not None and until - REMEMBERED_FOR <= now < until

    def remember(self, now: datetime, *parts: bytes) -> None:
        """Take note that these parts are good; when there are too many, the oldest are forgotten."""
        key = self._mac(parts)
        self._until.pop(key, None)
        while len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[key] = now + REMEMBERED_FOR

    def _mac(self, parts: tuple[bytes, ...]) -> bytes:
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")
