"""Who still works under one configuration generation: what it holds is closed when the last has left."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Occupancy:
    """Counts requests, and the tasks that outlive them, from the moment in which they read the generation.

    Enter in the same turn of the event loop in which the generation is read: it may be replaced in the next one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __enter__(self) -> None:
        self._count += 1
        self._nobody.clear()

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        self._count -= 1
        if not self._count:
            self._nobody.set()

    def extend(self, task: asyncio.Task[Any]) -> None:
        """Count a task too, until it is done, however it ends."""
        self.__enter__()
        task.add_done_callback(lambda _: self.__exit__(None, None, None))

    async def end(self) -> None:
        """Wait until nobody is left. Those who are here may still bring others; nobody else comes to what was replaced."""
        while self._count:
            await self._nobody.wait()
