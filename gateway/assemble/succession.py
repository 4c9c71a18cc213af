"""One generation after another: which is in force, and when the upstream CAs of an earlier one are closed."""

from __future__ import annotations

import asyncio

import structlog

from gateway.assemble.generation import Built
from gateway.ca.interfaces import UpstreamCA

log = structlog.get_logger(__name__)

PATIENCE = 300.0
"""Seconds that work under a generation that was replaced may go on: several times what one request to a CA may take."""


class Succession:
    """The generations of one worker whose upstream CAs are open: one in force, one that is prepared, those that still have work.

    A CA belongs to every generation that names it, and is closed with the last of them.
    """

    def __init__(self, first: Built) -> None:
        self.current = first
        self._open: list[Built] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, built: Built) -> None:
        """Start the upstream CAs that no open generation has; raises what `start` raises, and then has closed them again."""
        started = self._apart(built)
        self._open.append(built)
        try:
            for ca in started:
                await ca.start()
        except BaseException:
            await self.close_one(built)
            raise

    def put_in_force(self, built: Built) -> None:
        """Replace the generation in force; it is closed when its work has ended, or after PATIENCE."""
        before, self.current = self.current, built
        task = asyncio.get_running_loop().create_task(self._retire(before), name=f"generation {before.generation.number}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close_one(self, built: Built) -> None:
        """Close the upstream CAs of a generation that no other open one has. Does nothing when it is closed already."""
        if not any(other is built for other in self._open):
            return
        self._open = [other for other in self._open if other is not built]
        for ca in self._apart(built):
            try:
                await ca.close()
            except Exception:
                log.exception("an upstream CA could not be closed", upstream_ca=ca.name)

    async def close(self) -> None:
        """Close all, whatever goes on."""
        for task in tuple(self._ending):
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for built in tuple(self._open):
            await self.close_one(built)

    async def _retire(self, built: Built) -> None:
        number = built.generation.number
        try:
            async with asyncio.timeout(PATIENCE):
                await built.generation.snapshot.occupancy.end()
        except TimeoutError:
            log.warning("work under an earlier configuration does not end; its upstream CAs are closed", generation=number)
        await self.close_one(built)
        log.debug("an earlier configuration has ended", generation=number)

    def _apart(self, built: Built) -> tuple[UpstreamCA, ...]:
        """Return the CAs of a generation that no other open one has."""
        shared = {id(ca) for other in self._open if other is not built for ca in other.generation.snapshot.upstream_cas.values()}
        return tuple(ca for ca in built.generation.snapshot.upstream_cas.values() if id(ca) not in shared)
