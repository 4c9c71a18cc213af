"""Runs a program once over pipes: with a deadline, bounded output, and its whole process group ended afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

TERMINATION_GRACE = 1.0
"""Seconds between SIGTERM at the deadline and SIGKILL."""
LINGER = 0.5
"""Seconds that a program which has ended may leave its output open: a child that it left behind holds it."""
STDERR_KEPT = 4096
"""Bytes of standard error that are kept for the log, the last ones."""
KILL_WAIT = 5.0
"""Seconds to wait for the kernel after SIGKILL."""


class ProgramStartError(Exception):
    """The program could not be started: nothing was done."""


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """What a program left behind.

    `status` is the exit status, negative for a signal. `timed_out` and `overflowed` say that it was ended at the
    deadline or for writing more than it may; its output is then cut.
    """

    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    overflowed: bool = False


async def run_program(
    command: Sequence[str], environment: Mapping[str, str], data: bytes, seconds: float, max_output: int
) -> ProgramResult:
    """Run `command` in `/` with `data` as standard input and nothing in its environment but `environment`.

    At most `seconds` pass before SIGTERM and one more before SIGKILL, both to the whole process group; a
    cancelled caller ends the group too. Raises ProgramStartError.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, conversation = await loop.subprocess_exec(
            lambda: _Conversation(loop, max_output),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ProgramStartError(f"{command[0]}: {error}") from error
    try:
        _send(transport, data)
        timed_out = await _attend(transport, conversation, seconds)
    finally:
        await _end(transport, conversation)
    return ProgramResult(
        status=transport.get_returncode() or 0,
        stdout=bytes(conversation.stdout),
        stderr=bytes(conversation.stderr),
        timed_out=timed_out,
        overflowed=conversation.overflow.done(),
    )


class _Conversation(asyncio.SubprocessProtocol):
    """Collects output within bounds and tells when the program ended and when its output was closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_output: int) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.overflow: asyncio.Future[None] = loop.create_future()
        self._max_output = max_output
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.stderr += data
            del self.stderr[:-STDERR_KEPT]
            return
        self.stdout += data[: self._max_output - len(self.stdout) + 1]
        if len(self.stdout) > self._max_output:
            _resolve(self.overflow)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            _resolve(self.closed)

    def process_exited(self) -> None:
        _resolve(self.exited)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _send(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    """Queue `data` and the end of input; a program that does not read it to the end loses nothing but the rest."""
    stdin = cast("asyncio.WriteTransport | None", transport.get_pipe_transport(0))
    if stdin is not None:
        stdin.write(data)
        stdin.write_eof()


async def _attend(transport: asyncio.SubprocessTransport, conversation: _Conversation, seconds: float) -> bool:
    """Wait for the end of the program and its output, or end them; return whether the deadline passed first."""
    await asyncio.wait((conversation.exited, conversation.overflow), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if conversation.overflow.done():
        return False
    ended = (conversation.exited, conversation.closed)
    if conversation.exited.done():
        await asyncio.wait(ended, timeout=LINGER)
        return False
    _signal_group(transport, signal.SIGTERM)
    # What it still answers on the way out counts: an answer is always better than not knowing.
    await asyncio.wait(ended, timeout=TERMINATION_GRACE)
    return not conversation.exited.done() or bool(transport.get_returncode())


async def _end(transport: asyncio.SubprocessTransport, conversation: _Conversation) -> None:
    """Kill what is left of the group and release the pipes; the caller's cancellation cannot interrupt it."""
    # An open pipe after the program's end proves that a child of it lives, so the group's number is still its own.
    if not conversation.exited.done() or not conversation.closed.done():
        _signal_group(transport, signal.SIGKILL)
    try:
        if not conversation.exited.done():
            await asyncio.shield(asyncio.wait((conversation.exited,), timeout=KILL_WAIT))
    finally:
        # Not before the end was noticed: closing polls the child and would take its status from asyncio's watcher.
        transport.close()


def _signal_group(transport: asyncio.SubprocessTransport, number: signal.Signals) -> None:
    pid = transport.get_pid()
    if pid is None:
        return
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # A leader that has just ended, or a member that changed its user: nothing more can be done to it from here.
        return
