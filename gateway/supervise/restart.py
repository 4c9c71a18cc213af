"""Rolling restart: slot after slot, a new worker serves before the old one drains, so that somebody always accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from gateway.supervise.outcome import FAILED, Outcome
from gateway.supervise.process import Ending, WorkerProcess, WorkerRefusedError
from gateway.supervise.slots import Slot
from gateway.supervise.workers import Workers

log = structlog.get_logger(__name__)

Tell = Callable[[Outcome], None]


class Restarts:
    """Runs one rolling restart at a time."""

    def __init__(self, workers: Workers, slots: Sequence[Slot]) -> None:
        self._workers = workers
        self._slots = tuple(slots)
        self._running = False

    async def roll(self, actor: str, asker: WorkerProcess | None, tell: Tell) -> None:
        """Replace every worker; `tell` is called once.

        The worker on whose connection an operator waits goes last, and only after the operator was told.
        """
        if self._running:
            log.warning("a rolling restart is under way already", actor=actor)
            tell(self._failed("a rolling restart is under way already"))
            return
        self._running = True
        told = False

        def tell_once(outcome: Outcome) -> None:
            nonlocal told
            if not told:
                told = True
                tell(outcome)

        try:
            await self._roll(actor, asker, tell_once)
        except WorkerRefusedError as refused:
            log.error("rolling restart stopped: the other workers go on", actor=actor, cause=str(refused))  # noqa: TRY400
            tell_once(self._failed(f"stopped, the other workers go on: {refused}"))
        finally:
            self._running = False
            tell_once(self._failed("the service ends"))

    async def _roll(self, actor: str, asker: WorkerProcess | None, tell: Tell) -> None:
        try:
            await self._workers.record("service.restarted", actor, "done", "every worker, one after another")
        except WorkerRefusedError as refused:
            raise WorkerRefusedError(f"the audit trail cannot be written: {refused}") from refused
        log.info("rolling restart begins", actor=actor, workers=len(self._slots))
        for number, slot in enumerate(sorted(self._slots, key=lambda slot: asker is not None and slot.current is asker), 1):
            before = await slot.renew()
            if number == len(self._slots):
                log.info("rolling restart is done: the last worker drains", actor=actor)
                tell(self._done())
            if before is not None:
                await self._workers.end(before, Ending.REPLACED)

    def _done(self) -> Outcome:
        count = len(self._slots)
        text = f"{count} worker{'s were' if count > 1 else ' was'} replaced"
        return Outcome(ok=True, generation=self._workers.accepted.generation, text=text)

    def _failed(self, text: str) -> Outcome:
        return Outcome(ok=False, generation=self._workers.accepted.generation, text=text, reason=FAILED)
