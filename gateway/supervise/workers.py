"""The workers that live, and the one configuration that they serve: none accepts before it serves what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

import structlog

from gateway.supervise.acceptance import Accepted
from gateway.supervise.balance import Balance
from gateway.supervise.control import Check, Commit, Message, Prepare, Record, Start
from gateway.supervise.observers import Observers
from gateway.supervise.plan import Plan
from gateway.supervise.process import Ending, Stage, WorkerProcess, WorkerRefusedError

log = structlog.get_logger(__name__)

READY_SECONDS = 60.0
"""How long a worker may take to open the store, the keys and the upstream CAs."""
COMMIT_SECONDS = 15.0
"""How long a worker may take to put in force what it has proved."""
RECORD_SECONDS = 10.0
CHECK_SECONDS = 6.0
END_SECONDS = 15.0
"""Seconds beyond the drain time after which a worker that does not end is killed."""
REFUSED_SECONDS = 5.0
"""How long a worker that could not begin may take to end."""
SILENT_SECONDS = 30
"""A worker whose event loop was not heard of for so long is killed."""
ALIVE_SECONDS = 10
"""The service counts as alive while some worker was heard of within this time."""


class Workers:
    """All worker processes. `changing` is held while a generation is put in force, and while a worker begins to accept."""

    def __init__(self, plan: Plan, observers: Observers, handle: Callable[[WorkerProcess, Message], None]) -> None:
        """`handle` gets what workers want of the supervisor."""
        self._plan = plan
        self._observers = observers
        self._handle = handle
        self._living: set[WorkerProcess] = set()
        self._balance = Balance.create(plan.workers)
        self._someone = asyncio.Event()
        self.accepted = Accepted.first(plan.config, plan.sources, plan.certificates, plan.crls)
        self.changing = asyncio.Lock()

    def serving(self) -> tuple[WorkerProcess, ...]:
        """Return the workers that accept connections."""
        return tuple(worker for worker in self._living if worker.stage is Stage.SERVING and worker.lives)

    def draining(self) -> tuple[WorkerProcess, ...]:
        """Return the workers that only finish what they have."""
        return tuple(worker for worker in self._living if worker.stage is Stage.DRAINING and worker.lives)

    async def someone(self, seconds: float) -> bool:
        """Wait for a worker that serves; says whether there is one."""
        try:
            async with asyncio.timeout(seconds):
                await self._someone.wait()
        except TimeoutError:
            return False
        return True

    async def begin(self, slot: int) -> WorkerProcess:
        """Start a worker and have it accept connections. Raises WorkerRefusedError; then its process is gone."""
        started_with = self.accepted
        inherited = (self._balance.descriptor, *(sock.fileno() for sock in self._plan.sockets.for_workers()))
        worker = await WorkerProcess.spawn(slot, started_with.generation, inherited, self._plan.worker_environment)
        self._living.add(worker)
        worker.share = self._balance.take()
        worker.listen(self._handle)
        try:
            await worker.ask(self._start(worker, started_with), READY_SECONDS)
            async with self.changing:
                await self._bring_up_to_date(worker)
                await worker.ask(Commit(self.accepted.generation), COMMIT_SECONDS)
                worker.generation, worker.stage, worker.ready_at = self.accepted.generation, Stage.SERVING, monotonic()
                worker.silent = 0
        except WorkerRefusedError as refused:
            await self._discard(worker, refused)
            raise
        self._someone.set()
        self._observers.tell(lambda observer: observer.worker_started(worker))
        return worker

    def _start(self, worker: WorkerProcess, accepted: Accepted) -> Start:
        plan, sockets = self._plan, self._plan.sockets
        return Start(
            worker=worker.name,
            slot=worker.slot,
            generation=accepted.generation,
            http=sockets.http.fileno(),
            https=sockets.https.fileno(),
            admin=sockets.admin.fileno(),
            https_mtls=None if sockets.https_mtls is None else sockets.https_mtls.fileno(),
            balance=self._balance.descriptor,
            share=worker.share,
            log_format=plan.log_format,
            log_level=plan.log_level,
            drain_seconds=plan.drain_seconds,
            sources=accepted.packed,
        )

    async def _bring_up_to_date(self, worker: WorkerProcess) -> None:
        """A generation may have been put in force while this worker was starting with the one before."""
        if worker.generation != self.accepted.generation:
            await worker.ask(Prepare(self.accepted.generation, self.accepted.packed), READY_SECONDS)

    async def _discard(self, worker: WorkerProcess, refused: WorkerRefusedError) -> None:
        """End a worker that has never had a request; one that was not even able to say why is not asked."""
        if not refused.lasting:
            worker.kill()
        await worker.end(REFUSED_SECONDS)
        self.forget(worker, Ending.DIED)

    async def end(self, worker: WorkerProcess, ending: Ending) -> None:
        """Have a worker finish what it has, and end."""
        await worker.end(self._plan.drain_seconds + END_SECONDS)
        self.forget(worker, ending)

    async def end_all(self) -> None:
        """End every worker; none can begin any more."""
        await asyncio.gather(*(self.end(worker, Ending.STOPPED) for worker in tuple(self._living)))
        self._balance.close()

    def terminate_all(self) -> None:
        """Have every worker drain, without waiting for it."""
        for worker in self._living:
            worker.terminate()

    def forget(self, worker: WorkerProcess, ending: Ending) -> None:
        """A process is gone."""
        if worker in self._living:
            self._living.discard(worker)
            self._balance.give_back(worker.share)
            self._observers.tell(lambda observer: observer.worker_ended(worker, ending))
        if not self.serving():
            self._someone.clear()

    async def record(self, event: str, actor: str, decision: str, detail: str, generation: int | None = None) -> None:
        """Have one worker write an audit row, of the generation in force unless another is named.

        Raises WorkerRefusedError when none could.
        """
        row = Record(event, actor, decision, detail, generation or self.accepted.generation)
        refused = WorkerRefusedError("no worker is there to write the audit trail")
        for worker in sorted(self.serving(), key=lambda worker: worker.silent):
            try:
                await worker.ask(row, RECORD_SECONDS)
            except WorkerRefusedError as error:
                refused = error
            else:
                return
        raise refused

    def processes(self) -> Mapping[int, int]:
        """Return the process ID of the worker that serves, by slot."""
        return {worker.slot: worker.process.pid for worker in self.serving()}

    async def check(self) -> None:
        """Ask every worker whether it is ready for requests. Raises WorkerRefusedError with what is not."""
        serving = self.serving()
        if not serving:
            raise WorkerRefusedError("no worker serves")
        answers = await asyncio.gather(*(_failure(worker) for worker in serving))
        failures = sorted({text for text in answers if text is not None})
        if failures:
            raise WorkerRefusedError("; ".join(failures))

    def is_alive(self) -> bool:
        """Whether some worker that accepts connections was heard of lately."""
        return any(worker.silent <= ALIVE_SECONDS for worker in self.serving())

    def count_silence(self) -> None:
        """A second of the supervisor's turning has passed; time in which the supervisor itself stood still does not count."""
        for worker in (*self.serving(), *self.draining()):
            worker.silent += 1
            if worker.silent >= SILENT_SECONDS:
                log.error("a worker stands still and is killed", worker=worker.name, seconds=worker.silent)
                worker.kill()


async def _failure(worker: WorkerProcess) -> str | None:
    try:
        await worker.ask(Check(), CHECK_SECONDS)
    except WorkerRefusedError as refused:
        return str(refused)
    return None
