"""Worker processes that are none: they answer what a test says, and are ended by a word."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from gateway.supervise.control import Message, Question
from gateway.supervise.process import Stage, WorkerProcess, WorkerRefusedError


class FakeProcess:
    """As much of a process as a supervisor sees."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        return self.returncode or 0

    def terminate(self) -> None:
        self._end(0)

    def kill(self) -> None:
        self._end(-9)

    def _end(self, status: int) -> None:
        self.returncode = status if self.returncode is None else self.returncode
        self._ended.set()


class FakeWorker(WorkerProcess):
    """Answers every question with `refusals`, by the question's kind, or that it is done."""

    def __init__(self, name: str, stage: Stage = Stage.SERVING, **refusals: WorkerRefusedError) -> None:
        async def close() -> None:
            pass

        self.told: list[Message] = []
        self.asked: list[tuple[Question, float]] = []
        self.refusals = refusals
        channel = SimpleNamespace(send=self.told.append, close=close)
        super().__init__(name, 1, cast("Any", FakeProcess()), cast("Any", channel), 1, stage)

    async def ask(self, question: Question, seconds: float) -> None:
        self.asked.append((question, seconds))
        refused = self.refusals.get(type(question).__name__)
        if refused is not None:
            raise refused
