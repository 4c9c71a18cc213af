"""The process that stays: it keeps the workers, takes signals and operators' orders to them, and ends them in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

import structlog

from gateway.supervise.control import Ended, Message, ReloadWanted, RestartWanted
from gateway.supervise.observers import Observer, Observers
from gateway.supervise.outcome import FAILED, Outcome
from gateway.supervise.plan import Plan
from gateway.supervise.process import Ending, WorkerProcess, WorkerRefusedError
from gateway.supervise.reload import HANGUP, Reloads
from gateway.supervise.restart import Restarts
from gateway.supervise.slots import Slot
from gateway.supervise.workers import Workers

log = structlog.get_logger(__name__)

TURN_SECONDS = 1.0
RESTART_SIGNAL = signal.SIGUSR2


class Supervisor:
    """Runs until SIGTERM or SIGINT; SIGHUP reloads, SIGUSR2 restarts worker after worker."""

    def __init__(self, plan: Plan, observers: Iterable[Observer] = ()) -> None:
        self._observers = Observers(observers)
        self._stopping = asyncio.Event()
        self._ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.workers = Workers(plan, self._observers, self._handle)
        self._slots = [Slot(number, self.workers, self._on_tried) for number in range(1, plan.workers + 1)]
        self._reloads = Reloads(plan, self.workers, self._observers, self._replace)
        self._restarts = Restarts(self.workers, self._slots)

    def tell(self, observer: Observer) -> None:
        """Tell one more observer what happens, from now on."""
        self._observers.add(observer)

    async def run(self) -> None:
        """Serve. Raises WorkerRefusedError when a first worker cannot begin and trying again is useless."""
        self._handle_signals()
        stopped = asyncio.create_task(self._stopping.wait())
        lasting = [asyncio.create_task(slot.keep(), name=f"slot {slot.number}") for slot in self._slots]
        lasting += [asyncio.create_task(self._reloads.run(), name="reloads"), asyncio.create_task(self._turn(), name="turns")]
        try:
            await asyncio.wait({stopped, *lasting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed = None if self._stopping.is_set() else next((task for task in lasting if task.done()), None)
            self._observers.tell(lambda observer: observer.stopping())
            await self._end([stopped, *lasting, *self._tasks])
        if failed is not None:
            failed.result()

    async def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Begin nothing any more, and have every worker drain."""
        self._reloads.close()
        for task in tasks:
            task.cancel()
        self.workers.terminate_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.workers.end_all()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._reloads.ask, HANGUP)
        loop.add_signal_handler(RESTART_SIGNAL, self._restart, RESTART_SIGNAL.name, None, _ignore)

    def _stop(self, name: str) -> None:
        if not self._stopping.is_set():
            log.info("ending: requests in flight are finished", signal=name)
        self._stopping.set()

    def _restart(self, actor: str, asker: WorkerProcess | None, tell: Callable[[Outcome], None]) -> None:
        self._run(self._restarts.roll(actor, asker, tell))

    def _replace(self, worker: WorkerProcess) -> None:
        self._run(self._replace_in_order(worker))

    async def _replace_in_order(self, worker: WorkerProcess) -> None:
        """Start another worker before this one drains; where that is not possible, it goes on."""
        for slot in self._slots:
            if slot.current is worker:
                with suppress(WorkerRefusedError):
                    before = await slot.renew(instead_of=worker)
                    if before is not None:
                        log.warning("a worker that did not answer was replaced", worker=before.name)
                        await self.workers.end(before, Ending.DIED)

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else, until the service ends."""
        task = asyncio.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_tried(self) -> None:
        """Say that the service serves once every slot has been tried, and some worker accepts connections."""
        if not self._ready and all(slot.tried for slot in self._slots) and self.workers.serving():
            self._ready = True
            self._observers.tell(lambda observer: observer.serving())

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(TURN_SECONDS)
            self.workers.count_silence()
            alive = self.workers.is_alive()
            self._observers.tell(lambda observer, alive=alive: observer.turned(alive))  # type: ignore[misc]

    def _handle(self, worker: WorkerProcess, message: Message) -> None:
        """Take an operator's order that came in through a worker; it is answered when it is done."""
        match message:
            case ReloadWanted(actor=actor, id=id):
                self._reloads.ask(actor).add_done_callback(lambda ended: worker.channel.send(_answer(ended, id)))
            case RestartWanted(actor=actor, id=id):
                self._restart(actor, worker, lambda outcome: worker.channel.send(outcome.answer(id)))
            case _:
                log.error("a worker said what a worker does not say", worker=worker.name, kind=type(message).__name__)


def _answer(ended: asyncio.Future[Outcome], id: int) -> Ended:
    return Ended(id, ok=False, reason=FAILED, text="the service ends") if ended.cancelled() else ended.result().answer(id)


def _ignore(_outcome: Outcome) -> None:
    """Nobody waits for the answer to a signal; the log has it."""
