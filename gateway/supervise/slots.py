"""One slot for each worker that the service should have: whoever dies in it is replaced, for as long as the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import structlog

from gateway.supervise.process import Ending, WorkerProcess, WorkerRefusedError, describe_status
from gateway.supervise.workers import Workers

log = structlog.get_logger(__name__)

STEADY_SECONDS = 30.0
"""A worker that served this long before it died is replaced at once."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class Slot:
    """Keeps one worker; in a rolling restart it has two for a while, of which the older drains."""

    def __init__(self, number: int, workers: Workers, on_tried: Callable[[], None]) -> None:
        """`on_tried` is called whenever a worker serves or could not begin."""
        self.number = number
        self.current: WorkerProcess | None = None
        self.tried = False
        self._workers = workers
        self._on_tried = on_tried
        self._beginning = asyncio.Lock()
        self._pause = FIRST_PAUSE

    async def keep(self) -> None:
        """Have a worker serve for ever. Raises WorkerRefusedError when the first one cannot, and trying again is useless."""
        while True:
            await self._fill()
            worker = self.current
            if worker is not None:
                await worker.process.wait()
                await self._bury(worker)

    async def renew(self, instead_of: WorkerProcess | None = None) -> WorkerProcess | None:
        """Start another worker; once it serves it is the slot's, and the one before is returned for the caller to end.

        Nothing happens when `instead_of` is named and the slot has another one by now.
        Raises WorkerRefusedError when it cannot begin; then the one before goes on.
        """
        async with self._beginning:
            if instead_of is not None and self.current is not instead_of:
                return None
            worker = await self._workers.begin(self.number)
            before, self.current = self.current, worker
        return before

    async def _fill(self) -> None:
        """Try until the slot has a worker."""
        while self.current is None:
            try:
                async with self._beginning:
                    if self.current is None:
                        self.current = await self._workers.begin(self.number)
            except WorkerRefusedError as refused:
                if refused.lasting and not self.tried:
                    raise
                await self._rest(str(refused))
            except Exception:
                # Whatever it is, a service with one worker less is better than none.
                log.exception("a worker could not be started")
                await self._rest("it could not be started")
            else:
                if self.tried:
                    log.info("a worker was replaced", slot=self.number, worker=self.current.name)
                self._tell()

    async def _rest(self, cause: str) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        log.error("a worker cannot begin and is tried again", slot=self.number, cause=cause, retry_after=self._pause)
        self._tell()
        await asyncio.sleep(self._pause)

    def _tell(self) -> None:
        self.tried = True
        self._on_tried()

    async def _bury(self, worker: WorkerProcess) -> None:
        """A process is gone: one that was replaced in order, or one that died."""
        if worker is not self.current:
            return
        self.current = None
        await worker.hang_up()
        self._workers.forget(worker, Ending.DIED)
        steady = monotonic() - worker.ready_at >= STEADY_SECONDS
        self._pause = FIRST_PAUSE if steady else min(self._pause * 2, LONGEST_PAUSE)
        wait = 0.0 if steady else self._pause
        status = describe_status(worker.process.returncode or 0)
        log.error("a worker died and is replaced", slot=self.number, worker=worker.name, status=status, after=wait)
        await asyncio.sleep(wait)
