"""A running server under mutated messages: no answer names internals, no request is dear, memory does not grow."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from bench.load import cpu_seconds
from tests.conftest import RunningServer, StartServer

RECORDED = sorted((Path(__file__).parents[2] / "testdata" / "scep").glob("*.der"))
WARM_UP, COUNT, SINGLE, CONNECTIONS = 4000, 5000, 200, 8
PAGE = 4096


@pytest.fixture
def lone_server(start_server: StartServer) -> RunningServer:
    return start_server(workers=1)


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Yield recorded messages with some bytes changed, cut, doubled or put in."""
    draw = random.Random(seed)
    originals = [path.read_bytes() for path in RECORDED]
    for _ in range(count):
        message = bytearray(draw.choice(originals))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(message))
            match draw.randrange(4):
                case 0:
                    message[at] = draw.randrange(256)
                case 1:
                    del message[at : at + draw.randint(1, 64)]
                case 2:
                    message[at:at] = message[at : at + draw.randint(1, 64)]
                case _:
                    message[at:at] = draw.randbytes(draw.randint(1, 8))
        yield bytes(message)


async def post_all(server: RunningServer, messages: Iterator[bytes]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:

        async def post() -> None:
            for message in messages:
                async with session.post(f"{server.url}/scep/demo?operation=PKIOperation", data=message) as reply:
                    body = await reply.read()
                    statuses[reply.status] += 1
                    assert reply.status == 200 or len(body) < 200, body
                    assert b"Traceback" not in body

        await asyncio.gather(*(post() for _ in range(CONNECTIONS)))
    return statuses


async def single_costs(server: RunningServer, messages: Iterator[bytes]) -> list[float]:
    """Return what each message cost in seconds of CPU, one after another on one connection."""
    costs = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for message in messages:
            before = cpu_seconds(server.process.pid)
            async with session.post(f"{server.url}/scep/demo?operation=PKIOperation", data=message) as reply:
                await reply.read()
            costs.append(cpu_seconds(server.process.pid) - before)
    return costs


def resident_bytes(server: RunningServer) -> int:
    pid = server.process.pid
    [worker] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * PAGE


def test_mutated_messages(lone_server: RunningServer) -> None:
    asyncio.run(post_all(lone_server, mutations(WARM_UP, seed=1)))
    memory, cpu = resident_bytes(lone_server), cpu_seconds(lone_server.process.pid)
    statuses = asyncio.run(post_all(lone_server, mutations(COUNT, seed=2)))
    assert set(statuses) <= {200, 400}, statuses
    assert (cpu_seconds(lone_server.process.pid) - cpu) / COUNT < 0.005
    assert resident_bytes(lone_server) - memory < 1_000_000 * COUNT / 10_000
    assert max(asyncio.run(single_costs(lone_server, mutations(SINGLE, seed=3)))) < 0.050
