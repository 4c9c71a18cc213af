"""A client in its own process that sends prepared HTTP requests over TLS with a client certificate.

`python -m bench.est_client PORT REQUESTS ANSWERS CONNECTIONS PAIR ROOT kept|fresh` works as `bench.client`: lines of numbers in,
one JSON object a line out. `kept` keeps its connections for the whole life of the process, `fresh` makes one, with a full
handshake, for every request. It does as little as it can: rates are measured beside it on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

from bench.client import Round, read_frames, write_frames
from gateway.supervise.worker import loop_factory

_LENGTH = b"\r\ncontent-length:"


class Connection(asyncio.Protocol):
    """One connection: a request out, its answer in."""

    def __init__(self) -> None:
        self._received = b""
        self._waiting: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future is its answer's status line and body."""
        if self.transport is None:
            raise RuntimeError("there is no connection")
        self._received = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        """Collect until the body is whole."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or self._waiting is None or self._waiting.done():
            return
        length = int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._waiting.set_result(head.partition(b"\r\n")[0] + b"\n" + body)

    def connection_lost(self, _error: Exception | None) -> None:
        """Answer nothing to whoever waits."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(b"")


class Sender:
    """Sends rounds of requests."""

    def __init__(self, port: int, context: ssl.SSLContext, connections: int, *, fresh: bool) -> None:
        self._port = port
        self._context = context
        self._count = connections
        self._fresh = fresh
        self._kept: list[Connection] = []

    async def send(self, requests: Sequence[bytes], numbers: range, answers: Path) -> Round:
        """Send one round and write down its answers."""
        while not self._fresh and len(self._kept) < self._count:
            self._kept.append(await self._connect())
        latencies: list[float] = []
        received: dict[int, bytes] = {}
        waiting = iter(numbers)

        async def send_some(place: int) -> None:
            for number in waiting:
                begun = perf_counter()
                connection = await self._connect() if self._fresh else self._kept[place]
                received[number] = await connection.ask(requests[number])
                latencies.append(perf_counter() - begun)
                if self._fresh and connection.transport is not None:
                    connection.transport.abort()

        begun, cpu = perf_counter(), process_time()
        await asyncio.gather(*(send_some(place) for place in range(self._count)))
        seconds, cpu = perf_counter() - begun, process_time() - cpu
        write_frames(answers, (received[number] for number in numbers))
        return Round(seconds, cpu, tuple(latencies))

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )
        return connection


async def _serve_master(sender: Sender, requests: Sequence[bytes], answers: Path) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        first, last = map(int, line.split())
        done = await sender.send(requests, range(first, last), answers)
        print(json.dumps({"seconds": done.seconds, "cpu": done.cpu, "latencies": done.latencies}), flush=True)


def main() -> None:
    """Serve the process that started this one, until standard input ends."""
    port, requests, answers, connections, pair, root, mode = sys.argv[1:]
    context = ssl.create_default_context(cafile=root)
    context.load_cert_chain(pair)
    sender = Sender(int(port), context, int(connections), fresh=mode == "fresh")
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(_serve_master(sender, read_frames(Path(requests)), Path(answers)))


if __name__ == "__main__":
    main()
