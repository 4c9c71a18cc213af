"""Password derivations off the event loop, one at a time: strangers may ask for them (PasswordRecipientInfo, RFC 5652 §6.2.4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple

from gateway.errors import Reason, Rejection

MAX_WAITING = 16
"""Derivations that wait for their turn; one takes up to a tenth of a second, and more would wait longer than clients do."""
MAX_OF_ONE_SOURCE = 4
"""Derivations of one source, waiting or running: whoever sends more shall not turn others away."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Derivations:
    """The queue of one worker; workers are one a core, so each core derives one key at a time and answers others meanwhile."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        self._by_source: Counter[str] = Counter()

    async def begin(self, source: str, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do work for a request that nobody has proved anything with; Rejection OVERLOADED when too many wait already.

        `source` is the network that it came from.
        """
        if self._waiting >= MAX_WAITING or self._by_source[source] >= MAX_OF_ONE_SOURCE:
            cause = f"{self._waiting} password derivations wait, {self._by_source[source]} are from {source}"
            raise Rejection(Reason.OVERLOADED, "busy, try again", cause)
        self._by_source[source] += 1
        try:
            await self._wait()
            return await self._work(work, *arguments)
        finally:
            self._by_source[source] -= 1
            self._by_source += Counter()  # drops the sources that have none left

    async def _wait(self) -> None:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1

    async def finish(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do work for an answer, however many wait: what it tells of is done already."""
        await self._turn.acquire()
        return await self._work(work, *arguments)

    async def _work(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Work and give the turn on when the thread is free, whether or not somebody still waits for the result."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        future.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(future)
