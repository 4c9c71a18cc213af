"""Tasks of a worker that run beside the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

from gateway.errors import StoreUnavailable

log = structlog.get_logger(__name__)


class Background:
    """Tasks that run beside the requests; one that fails is logged and begun again."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def run(self, name: str, task: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that loops for ever and handles its own failures."""
        self._tasks.append(asyncio.create_task(task, name=name))

    def repeat(self, name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Await `step()` every so many seconds."""
        self.run(name, _repeat(name, seconds, step))


async def _repeat(name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except StoreUnavailable as error:
            log.warning("background work waits for the store", task=name, cause=str(error))
        except Exception:
            log.exception("background work failed and is tried again", task=name, retry_after=seconds)
        await asyncio.sleep(seconds)
