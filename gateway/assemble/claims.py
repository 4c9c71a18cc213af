"""Claims that upstream CAs take for requests and workers, kept in the store that all workers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.store.interfaces import Inventory


@dataclass(frozen=True, slots=True)
class StoredClaims:
    """`Claims` as named leases."""

    store: Inventory
    clock: Callable[[], datetime]

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a claim for so many seconds; False where another holder has it. Raises StoreUnavailable."""
        now = self.clock()
        return await self.store.take_lease(name, holder, now, now + timedelta(seconds=seconds))

    async def give_back(self, name: str, holder: str) -> None:
        """Give a claim back that `holder` has; one of another stays as it is. Raises StoreUnavailable."""
        now = self.clock()
        await self.store.take_lease(name, holder, now, now)
