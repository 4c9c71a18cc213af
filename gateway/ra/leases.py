"""Work that a client cannot cancel: one tracked task a request, the leases of its rows renewed, drained at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from datetime import datetime
from typing import Any, Generic, TypeVar

import structlog

from gateway.errors import Rejection, StoreUnavailable
from gateway.model import RequestId
from gateway.ra.timing import Timing
from gateway.store.interfaces import Ledger

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def done_within(task: asyncio.Task[T], seconds: float) -> bool:
    """Wait for a task that goes on whatever becomes of this; True when it is done, however it ended.

    As `asyncio.wait` does for any number of them; for one it takes twice as long, and every request waits once.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_later(seconds, wake)
    try:
        await waiter
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()


class Leases(Generic[T]):
    """The tasks of this worker by request key, and the ledger rows whose leases they need.

    A second request with the same key joins the task that works on the first. Tasks are never cancelled by whoever
    waits for them; only `drain` cancels what is left when its time is over.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime], worker: str, timing: Timing) -> None:
        self._ledger = ledger
        self._clock = clock
        self._worker = worker
        self._timing = timing
        self._tasks: dict[bytes, asyncio.Task[T]] = {}
        self._rows: dict[bytes, RequestId] = {}
        self._renewer: asyncio.Task[None] | None = None
        self._context = copy_context()
        self.draining = False

    def find(self, key: bytes) -> asyncio.Task[T] | None:
        """Return the task that works on this request, if any."""
        return self._tasks.get(key)

    def start(self, key: bytes, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as the task of this request; there must be none yet."""
        task = asyncio.get_running_loop().create_task(work, name=f"request-{key[:4].hex()}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def hold(self, key: bytes, row: RequestId) -> None:
        """Keep the lease of `row` alive for as long as the task of `key` runs."""
        self._rows[key] = row
        if self._renewer is None:
            # It works for every request from now on, and so in the context of none.
            self._renewer = asyncio.get_running_loop().create_task(self._renew(), name="leases", context=self._context.copy())

    def holds(self, key: bytes) -> RequestId | None:
        """Return the row that the task of `key` works on; None while it is not durable."""
        return self._rows.get(key)

    async def drain(self, seconds: float) -> int:
        """Take no new work, wait `seconds` for what runs, then cancel it; returns how many were cancelled.

        A cancelled task leaves its row as it stands in the ledger: when its lease runs out another worker asks the CA.
        """
        self.draining = True
        tasks = set(self._tasks.values())
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        rest = [*tasks, *([self._renewer] if self._renewer else [])]
        if self._renewer:
            self._renewer.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if tasks:
            log.warning("requests were left unfinished; another worker takes them up when their leases run out", count=len(tasks))
        return len(tasks)

    def _finish(self, key: bytes, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        self._rows.pop(key, None)
        if task.cancelled():
            return
        # Retrieved here, because the client that waited may be gone.
        error = task.exception()
        if error is not None and not isinstance(error, Rejection | StoreUnavailable):
            log.error("work on a request failed", exc_info=error)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._timing.renew_every)
            if not self._rows:
                self._renewer = None
                return
            until = self._clock() + self._timing.lease
            try:
                await self._ledger.renew_leases(self._worker, tuple(self._rows.values()), until)
            except Exception as error:  # noqa: BLE001  the renewer must outlive whatever a store does
                log.warning("leases could not be renewed; tried again", rows=len(self._rows), cause=str(error))
