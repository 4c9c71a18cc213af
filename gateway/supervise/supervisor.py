"""Starts the workers, replaces those that die with the accepted configuration's bytes, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from gateway.supervise.control import Answer, Order
from gateway.supervise.sockets import ListeningSockets

log = structlog.get_logger(__name__)

READY_SECONDS = 60.0
"""How long a worker may take to open the store, the keys and the upstream CAs."""
END_SECONDS = 15.0
"""Seconds beyond the drain time after which a worker that does not end is killed."""
STEADY_SECONDS = 30.0
"""A worker that served this long before it died is replaced at once."""
LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is served: configuration bytes that were read and checked once, sockets that were bound once."""

    sources: bytes
    sockets: ListeningSockets
    workers: int
    log_format: str | None
    log_level: str
    drain_seconds: float = 30.0


class WorkerRefusedError(Exception):
    """A worker could not begin; the text says why, `code` is the command's exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(eq=False, slots=True)
class _Worker:
    name: str
    process: asyncio.subprocess.Process
    control: socket.socket
    """Closed when the supervisor dies, whatever it dies of: then the worker ends too."""
    ready_at: float


class Supervisor:
    """Runs until SIGTERM or SIGINT; then drains the workers."""

    def __init__(self, plan: Plan, on_ready: Callable[[], None]) -> None:
        self._plan = plan
        self._on_ready = on_ready
        self._stopping = asyncio.Event()
        self._workers: set[_Worker] = set()

    async def run(self) -> None:
        """Serve. Raises WorkerRefusedError when the first workers cannot begin; later ones are tried again."""
        self._handle_signals()
        slots: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                starting = [group.create_task(self._spawn(number)) for number in range(1, self._plan.workers + 1)]
            if not self._stopping.is_set():
                self._on_ready()
            slots = [asyncio.create_task(self._keep(number, task.result())) for number, task in enumerate(starting, 1)]
            await self._stopping.wait()
        except* WorkerRefusedError as refused:
            if not self._stopping.is_set():
                raise refused.exceptions[0] from None
        finally:
            for slot in slots:
                slot.cancel()
            await asyncio.gather(*slots, return_exceptions=True)
            await self._end_all()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._answer_hangup)

    def _stop(self, name: str) -> None:
        if not self._stopping.is_set():
            log.info("ending: requests in flight are finished", signal=name)
        self._stopping.set()
        for worker in self._workers:
            if worker.process.returncode is None:
                worker.process.terminate()

    def _answer_hangup(self) -> None:
        log.warning("SIGHUP changes nothing: restart the service to put a new configuration in force")

    async def _keep(self, number: int, worker: _Worker) -> None:
        """Wait for one worker and replace it for as long as the service runs."""
        pause = 0.5
        while True:
            code = await worker.process.wait()
            worker.control.close()
            self._workers.discard(worker)
            if self._stopping.is_set():
                return
            steady = monotonic() - worker.ready_at >= STEADY_SECONDS
            pause = 0.5 if steady else min(pause * 2, LONGEST_PAUSE)
            wait = 0.0 if steady else pause
            log.error("a worker died and is replaced", worker=worker.name, status=describe_status(code), after=wait)
            await asyncio.sleep(wait)
            worker = await self._spawn_until_ready(number, pause)

    async def _spawn_until_ready(self, number: int, pause: float) -> _Worker:
        while True:
            try:
                worker = await self._spawn(number)
            except WorkerRefusedError as refused:
                pause = min(pause * 2, LONGEST_PAUSE)
                log.error("a worker cannot begin and is tried again", cause=str(refused), retry_after=pause)  # noqa: TRY400
                await asyncio.sleep(pause)
            else:
                log.info("a worker was replaced", worker=worker.name)
                return worker

    async def _spawn(self, number: int) -> _Worker:
        """Start one worker and wait until it is ready. Raises WorkerRefusedError."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.supervise.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), *(sock.fileno() for sock in self._plan.sockets)),
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise WorkerRefusedError(f"a worker process cannot be started: {error}", 1) from error
        finally:
            theirs.close()
        name = f"{socket.gethostname()}:{number}:{secrets.token_hex(4)}"
        worker = _Worker(name, process, ours, monotonic())
        self._workers.add(worker)
        answer = await self._ask(worker, self._order(name).encode(self._plan.sources))
        if not answer.ready:
            await self._end(worker)
            raise WorkerRefusedError(answer.message, answer.code or 1)
        worker.ready_at = monotonic()
        return worker

    def _order(self, worker: str) -> Order:
        plan, sockets = self._plan, self._plan.sockets
        return Order(
            worker=worker,
            generation=1,
            http=sockets.http.fileno(),
            https=sockets.https.fileno(),
            admin=sockets.admin.fileno(),
            https_mtls=None if sockets.https_mtls is None else sockets.https_mtls.fileno(),
            log_format=plan.log_format,
            log_level=plan.log_level,
            drain_seconds=plan.drain_seconds,
        )

    async def _ask(self, worker: _Worker, order: bytes) -> Answer:
        """Hand the order over and read the worker's one line."""
        loop = asyncio.get_running_loop()
        worker.control.setblocking(False)
        line = bytearray()
        try:
            async with asyncio.timeout(READY_SECONDS):
                await loop.sock_sendall(worker.control, order)
                while not line.endswith(b"\n"):
                    part = await loop.sock_recv(worker.control, 65536)
                    if not part:
                        return Answer(ready=False, code=1, message="a worker died while it started; the log above says why")
                    line += part
        except TimeoutError:
            return Answer(ready=False, code=1, message=f"a worker was not ready after {READY_SECONDS:.0f} seconds")
        except OSError:
            return Answer(ready=False, code=1, message="a worker died while it started; the log above says why")
        return Answer.decode(bytes(line))

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end(worker) for worker in tuple(self._workers)))

    async def _end(self, worker: _Worker) -> None:
        """Ask one worker to drain; kill it when it does not end in time."""
        process = worker.process
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(self._plan.drain_seconds + END_SECONDS):
                await process.wait()
        except TimeoutError:
            log.error("a worker did not end in time and is killed", worker=worker.name)  # noqa: TRY400
            process.kill()
            await process.wait()
        worker.control.close()
        self._workers.discard(worker)


def describe_status(code: int) -> str:
    """Return an exit status as words: `exit 3` or `SIGKILL`."""
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def worker_count(configured: int | str) -> int:
    """Return how many workers `cores` means on this machine, or the configured number."""
    return configured if isinstance(configured, int) else max(1, len(os.sched_getaffinity(0)))
