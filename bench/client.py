"""The client in its own process: sends prepared messages over keep-alive connections and reports how long each took.

`python -m bench.client URL MESSAGES ANSWERS CONNECTIONS` reads lines `FIRST LAST` from standard input, sends those messages of
the file, appends the answers to the other file, and writes one JSON object a line. It shares the cores with the servers: so it
writes prepared bytes into sockets and reads no more of an answer than its status and where its body ends.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import IO
from urllib.parse import urlsplit

_READ = 65536
_OK = re.compile(rb"HTTP/1\.1 200 ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of requests as the client saw it, in seconds; `cpu` is what it took itself."""

    seconds: float
    cpu: float
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
        return Round(answer["seconds"], answer["cpu"], tuple(answer["latencies"]))

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


def build_post(url: str, body: bytes, media_type: str = "application/x-pki-message") -> bytes:
    """Return a request as it goes over a connection."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_answer(data: bytes) -> bytes | None:
    """Return the body of an answer, None while some of it is missing. Raises RuntimeError for any status but 200."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    if not _OK.match(head):
        raise RuntimeError(f"the server answered {head.splitlines()[0].decode(errors='replace')}")
    if length := _LENGTH.search(head + b"\r\n"):
        return rest if len(rest) == int(length[1]) else None
    if _CHUNKED.search(head + b"\r\n"):
        return _join_chunks(rest)
    raise RuntimeError("the server does not say how long its answer is")


def _join_chunks(data: bytes) -> bytes | None:
    """Return what chunks hold (RFC 9112 §7.1), None while the last one is missing."""
    if not data.endswith(b"0\r\n\r\n"):
        return None
    chunks: list[bytes] = []
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        if not size:
            return b"".join(chunks)
        chunks.append(data[:size])
        data = data[size + 2 :]


class Connection:
    """One connection that is kept, and the request that waits on it."""

    __slots__ = ("_begun", "_received", "_sock", "number")

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._begun = 0.0
        self.number = 0

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._sock.fileno()

    def send(self, number: int, request: bytes) -> None:
        """Send a request whose answer has yet to come."""
        self.number, self._received, self._begun = number, b"", perf_counter()
        self._sock.sendall(request)

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def receive(self) -> tuple[bytes, float] | None:
        """Read what has come; returns the whole body and the seconds that it took, None while some of it is missing."""
        data = self._sock.recv(_READ)
        if not data:
            raise RuntimeError("the server has closed a connection")
        self._received += data
        body = read_answer(self._received)
        return None if body is None else (body, perf_counter() - self._begun)


class Sender:
    """All connections to one server, open from the first request on."""

    def __init__(self, url: str, messages: Sequence[bytes], connections: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._url = url
        self._requests: Mapping[int, bytes] = {number: build_post(url, message) for number, message in enumerate(messages)}
        self._count = connections
        self._connections: dict[int, Connection] = {}
        self._ready = select.epoll()

    def load(self, messages: Mapping[int, bytes], media_type: str) -> None:
        """Take other messages, by number."""
        self._requests = {number: build_post(self._url, message, media_type) for number, message in messages.items()}

    def send(self, numbers: range) -> tuple[Round, list[bytes]]:
        """Send requests, one after the other on each connection; returns the answers in the order of the requests."""
        while len(self._connections) < self._count:
            self._open()
        begun, cpu = perf_counter(), process_time()
        answered = {number: (body, seconds) for number, body, seconds in self._exchange(numbers)}
        seen = Round(perf_counter() - begun, process_time() - cpu, tuple(seconds for _, seconds in answered.values()))
        return seen, [answered[number][0] for number in numbers]

    def _open(self) -> None:
        connection = Connection(self._address)
        self._connections[connection.fileno()] = connection
        self._ready.register(connection, select.EPOLLIN)

    def close(self) -> None:
        """End all connections."""
        self._ready.close()
        for connection in self._connections.values():
            connection.close()

    def _exchange(self, numbers: range) -> Iterator[tuple[int, bytes, float]]:
        waiting = iter(numbers)
        open_ones = 0
        for connection, number in zip(self._connections.values(), waiting, strict=False):
            connection.send(number, self._requests[number])
            open_ones += 1
        while open_ones:
            for descriptor, _ in self._ready.poll():
                connection = self._connections[descriptor]
                answer = connection.receive()
                if answer is None:
                    continue
                yield connection.number, *answer
                number = next(waiting, -1)
                if number < 0:
                    open_ones -= 1
                else:
                    connection.send(number, self._requests[number])


def serve_master(url: str, messages: Path, answers: Path, connections: int) -> None:
    """Do what the lines of standard input say."""
    sender = Sender(url, read_frames(messages), connections)
    for line in sys.stdin:
        first, last = map(int, line.split())
        seen, bodies = sender.send(range(first, last))
        write_frames(answers, bodies)
        print(json.dumps({"seconds": seen.seconds, "cpu": seen.cpu, "latencies": seen.latencies}), flush=True)


if __name__ == "__main__":
    serve_master(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
