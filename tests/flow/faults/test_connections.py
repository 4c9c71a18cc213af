"""Ten thousand idle connections, slow requests and trickled bodies beside clients that want something: these notice little."""

from __future__ import annotations

import asyncio
import resource
import socket
import statistics
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import pytest

from tests.conftest import RunningServer, StartServer

IDLE = 10_000
PER_ADDRESS = 150
SLOW = 200
ASKED = 300
CAPS = b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"
P99_SECONDS = 1.0
"""Generous: machines that test are shared. `make bench` shows the number."""
MOST_GROWTH = 100 * 1024
"""KiB of memory of one worker for its half of the connections."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, and what it starts, have a descriptor for each connection."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 2000
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"at most {before[1]} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def server(start_server: StartServer, many_files: None) -> RunningServer:
    limits = f"  limits: {{connections: {IDLE}, connections_per_address: {2 * PER_ADDRESS}, body_timeout: 3s}}\n"
    return start_server(workers=2, edit=lambda text: text.replace("server:\n", f"server:\n{limits}", 1))


def resident(server: RunningServer) -> int:
    """Return KiB of the largest worker."""
    parent = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    sizes = []
    for pid in parent.read_text(encoding="ascii").split():
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        sizes += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    return max(sizes)


@asynccontextmanager
async def idle(server: RunningServer, count: int) -> AsyncIterator[list[socket.socket]]:
    """Hold connections from as many loopback addresses as the cap of an address asks for."""
    loop = asyncio.get_running_loop()
    held: list[socket.socket] = []

    async def connect(number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        held.append(sock)
        sock.bind((f"127.0.{1 + number // PER_ADDRESS // 200}.{1 + number // PER_ADDRESS % 200}", 0))
        await loop.sock_connect(sock, ("127.0.0.1", server.http_port))

    try:
        for first in range(0, count, 200):
            await asyncio.gather(*(connect(number) for number in range(first, min(count, first + 200))))
        yield held
    finally:
        for sock in held:
            sock.close()


async def trickle(server: RunningServer, head: bytes, rest: bytes) -> bytes:
    """Send a request byte by byte until the server has enough of it; returns the first line that it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port, local_addr=("127.0.2.1", 0))
    answer = asyncio.create_task(reader.readline())
    try:
        writer.write(head)
        for byte in rest:
            done, _ = await asyncio.wait({answer}, timeout=0.2)
            if done:
                break
            writer.write(bytes([byte]))
        return await asyncio.wait_for(answer, 30)
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        writer.transport.abort()


async def ask_all(server: RunningServer) -> list[float]:
    """Ask over new connections, one after the other; returns how long each answer took."""
    took = []
    for _ in range(ASKED):
        begun = perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        writer.write(CAPS)
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 20)
        took.append(perf_counter() - begun)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.01)
    return took


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


async def test_ten_thousand_idle_connections(server: RunningServer) -> None:
    before = resident(server)
    async with idle(server, IDLE) as held:
        others = await ask_all(server)
        grown = resident(server) - before
        # They were accepted, and are served when they want something.
        for sock in held[:: IDLE // 50]:
            await asyncio.get_running_loop().sock_sendall(sock, CAPS)
            assert (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), 20)).startswith(b"HTTP/1.1 200")
    print(f"p99 {p99(others) * 1000:.1f} ms, {grown} KiB more")
    assert p99(others) < P99_SECONDS
    assert grown < MOST_GROWTH


async def test_trickled_heads_and_bodies(server: RunningServer) -> None:
    heads = [trickle(server, b"", CAPS[:-2] + b"X: y\r\n" * 20) for _ in range(SLOW // 2)]
    bodies = [trickle(server, POST, bytes(4000)) for _ in range(SLOW // 2)]
    slow = [asyncio.create_task(one) for one in (*heads, *bodies)]
    others = await ask_all(server)
    said = await asyncio.gather(*slow[SLOW // 2 :])
    for task in slow[: SLOW // 2]:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    print(f"p99 {p99(others) * 1000:.1f} ms")
    assert set(said) == {b"HTTP/1.1 408 Request Timeout\r\n"}
    assert p99(others) < P99_SECONDS
