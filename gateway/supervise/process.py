"""One worker process as the supervisor holds it: started, asked, listened to, ended."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic
from typing import Self

import structlog

from gateway.supervise.channel import Channel, ChannelClosedError
from gateway.supervise.control import TEMPORARY, Beat, ControlError, Ended, Message, Question, Refused

log = structlog.get_logger(__name__)


class WorkerRefusedError(Exception):
    """A worker did not do what it was asked; the text says why, `code` is the exit status that the command should have."""

    def __init__(self, message: str, code: int = TEMPORARY) -> None:
        super().__init__(message)
        self.code = code

    @property
    def lasting(self) -> bool:
        """Whether trying again is useless before somebody changes something."""
        return self.code != TEMPORARY


class WorkerSilentError(WorkerRefusedError):
    """A worker did not answer in time: it hangs, or will answer when nobody waits any more."""


class Stage(Enum):
    """Where a worker stands; SERVING and DRAINING ones have requests."""

    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()


class Ending(Enum):
    """Why a worker process is gone: by itself, for another one, or with the service."""

    DIED = auto()
    REPLACED = auto()
    STOPPED = auto()


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """One process and our end of its control channel, which closes when the supervisor dies, whatever it dies of."""

    name: str
    slot: int
    process: asyncio.subprocess.Process
    channel: Channel
    generation: int
    """What it serves, or was started with."""
    stage: Stage = Stage.STARTING
    ready_at: float = field(default_factory=monotonic)
    silent: int = 0
    """Seconds of the supervisor's own turning since the worker's event loop was last heard of."""
    listening: asyncio.Task[None] | None = None
    share: int | None = None
    """Its place in the memory of `Balance`."""

    @classmethod
    async def spawn(cls, slot: int, generation: int, inherited: Iterable[int], environment: Mapping[str, str]) -> Self:
        """Start a process that waits for its `Start`; `environment` is added to ours. Raises WorkerRefusedError."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.supervise.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(), *inherited),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **environment},
                process_group=0,
            )
            channel = await Channel.open(ours)
        except OSError as error:
            ours.close()
            raise WorkerRefusedError(f"a worker process cannot be started: {error}") from error
        except BaseException:
            # Without our end of the channel, a process that did start ends by itself.
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(f"{socket.gethostname()}:{slot}:{secrets.token_hex(4)}", slot, process, channel, generation)

    def listen(self, handle: Callable[[WorkerProcess, Message], None]) -> None:
        """Hand what the worker says to `handle` until its end; one that speaks nonsense is killed."""
        self.listening = asyncio.create_task(self._listen(handle), name=f"control {self.name}")

    async def _listen(self, handle: Callable[[WorkerProcess, Message], None]) -> None:
        def hear(message: Message) -> None:
            if isinstance(message, Beat):
                self.silent = 0
            else:
                handle(self, message)

        try:
            await self.channel.run(hear)
        except ControlError as error:
            log.error("a worker is not understood and is killed", worker=self.name, cause=str(error))  # noqa: TRY400
            self.kill()

    async def ask(self, question: Question, seconds: float) -> None:
        """Have it do something. Raises WorkerRefusedError when it does not, dies, or is not done in time."""
        what = type(question).__name__.lower()
        try:
            async with asyncio.timeout(seconds):
                answer = await self.channel.ask(question)
        except TimeoutError:
            raise WorkerSilentError(f"a worker did not answer within {seconds:.0f} seconds ({what})") from None
        except ChannelClosedError:
            raise WorkerRefusedError(f"a worker died meanwhile ({what}); the log above says why") from None
        if isinstance(answer, Refused):
            raise WorkerRefusedError(answer.text, answer.code)
        if isinstance(answer, Ended):
            raise WorkerRefusedError("a worker answered what it was not asked")

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self.process.returncode is None

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self.stage = Stage.DRAINING
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def end(self, patience: float) -> None:
        """Have it drain and end; kill it when it has not after so many seconds."""
        if self.lives:
            self.terminate()
        try:
            async with asyncio.timeout(patience):
                await self.process.wait()
        except TimeoutError:
            log.error("a worker did not end in time and is killed", worker=self.name)  # noqa: TRY400
            self.kill()
            await self.process.wait()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close our end, after what the worker said last was heard."""
        if self.listening is not None:
            await _within(1.0, self.listening)
        await self.channel.close()


async def _within(seconds: float, task: asyncio.Task[None]) -> None:
    """Wait for a task, cancel it when it takes longer."""
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def describe_status(code: int) -> str:
    """Return an exit status as words: `exit 3` or `SIGKILL`."""
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def worker_count(configured: int | str) -> int:
    """Return how many workers `cores` means on this machine, or the configured number."""
    return configured if isinstance(configured, int) else max(1, len(os.sched_getaffinity(0)))
