"""What at a CA belongs to one request, or to one worker at a time."""

from __future__ import annotations

from time import monotonic
from typing import Protocol


class Claims(Protocol):
    """Named leases, the same for all workers and after a restart where a store keeps them."""

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a claim for so many seconds; False where another holder has it. Raises StoreUnavailable."""

    async def give_back(self, name: str, holder: str) -> None:
        """Give back a claim that `holder` has; another's stays as it is. Raises StoreUnavailable."""


class OwnClaims:
    """The claims of a process that shares nothing: a command beside the server."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a claim for so many seconds; False where another holder has it."""
        now = monotonic()
        known, until = self._held.get(name, (holder, 0.0))
        if known != holder and now < until:
            return False
        self._held[name] = holder, now + seconds
        return True

    async def give_back(self, name: str, holder: str) -> None:
        """Give back a claim that `holder` has."""
        if self._held.get(name, ("", 0.0))[0] == holder:
            del self._held[name]
