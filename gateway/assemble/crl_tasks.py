"""Runs what looks after CRLs in the generation in force: one task for each CA whose CRL is signed or fetched here, never two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from gateway.assemble.continuity import CrlDuty, CrlWatch
from gateway.ca.crl import CrlPublisher
from gateway.model import UpstreamCAName
from gateway.ra.crl_keeper import CrlKeeper


class CrlTasks:
    """`duties` returns what is in force; `wake` says that it has been replaced."""

    def __init__(self, duties: Callable[[], Mapping[UpstreamCAName, CrlDuty | CrlWatch]]) -> None:
        self._duties = duties
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Have tasks ended and begun for what is in force now."""
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        running: dict[CrlPublisher | CrlKeeper, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                wanted = {duty.publisher: name for name, duty in self._duties().items()}
                # Those that go end first: a CA that is called like one of them must not be signed for by both.
                await _end([running.pop(publisher) for publisher in tuple(running) if publisher not in wanted])
                for publisher in wanted.keys() - running.keys():
                    running[publisher] = asyncio.create_task(publisher.run(), name=f"crl {wanted[publisher]}")
                await self._changed.wait()
        finally:
            await _end(running.values())


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = tuple(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
