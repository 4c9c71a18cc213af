"""The client in its own process: sends prepared messages over keep-alive connections and reports how long each took.

`python -m bench.client URL MESSAGES ANSWERS CONNECTIONS` reads lines `FIRST LAST` from standard input, sends those messages of
the file, appends the answers to the other file, and writes one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO

import aiohttp


@dataclass(frozen=True, slots=True)
class Round:
    """One round of requests as the client saw it, in seconds."""

    seconds: float
    latencies: tuple[float, ...]


class Client:
    """The client's process as its master sees it."""

    def __init__(
        self,
        url: str,
        messages: Path,
        answers: Path,
        connections: int,
        prefix: Sequence[str] = (),
        module: str = "bench.client",
        arguments: Sequence[str] = (),
    ) -> None:
        """`module` is what speaks for the client, and gets `arguments` after its own."""
        command = (*prefix, sys.executable, "-m", module, url, str(messages), str(answers), str(connections), *arguments)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, first: int, last: int, meanwhile: Callable[[], object] | None = None) -> Round:
        """Have the messages of one round sent; `meanwhile` is called again and again until the answers are there."""
        asked, told = self._pipes()
        print(first, last, file=asked, flush=True)
        if meanwhile is not None:
            self._call_until_told(told, meanwhile)
        answer = json.loads(told.readline())
        return Round(answer["seconds"], tuple(answer["latencies"]))

    def _call_until_told(self, told: IO[str], meanwhile: Callable[[], object]) -> None:
        while not select.select([told], [], [], 0.02)[0]:
            meanwhile()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the client has no pipes")
        return self._process.stdin, self._process.stdout


def write_frames(path: Path, frames: Iterable[bytes]) -> None:
    """Append messages to a file, each after its length."""
    with path.open("ab") as file:
        for frame in frames:
            file.write(len(frame).to_bytes(4, "big") + frame)


def read_frames(path: Path) -> list[bytes]:
    """Read what `write_frames` wrote."""
    data, frames, offset = path.read_bytes(), [], 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset : offset + 4], "big")
        frames.append(data[offset + 4 : end])
        offset = end
    return frames


async def _serve_master(url: str, messages: Path, answers: Path, connections: int) -> None:
    frames = read_frames(messages)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            first, last = map(int, line.split())
            numbered = await _send(session, url, frames, range(first, last), connections, answers)
            print(json.dumps({"seconds": numbered.seconds, "latencies": numbered.latencies}), flush=True)


async def _send(
    session: aiohttp.ClientSession, url: str, frames: Sequence[bytes], numbers: range, connections: int, answers: Path
) -> Round:
    latencies: list[float] = []
    received: dict[int, bytes] = {}
    waiting = iter(numbers)

    async def send_some() -> None:
        for number in waiting:
            begun = perf_counter()
            async with session.post(url, data=frames[number]) as reply:
                received[number] = await reply.read()
            latencies.append(perf_counter() - begun)

    begun = perf_counter()
    await asyncio.gather(*(send_some() for _ in range(connections)))
    seconds = perf_counter() - begun
    write_frames(answers, (received[number] for number in numbers))
    return Round(seconds, tuple(latencies))


if __name__ == "__main__":
    asyncio.run(_serve_master(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
