"""The end of a server: what a client sends meanwhile is answered, and nobody is waited for longer than need be."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web

from gateway.web import server as module
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.server import HttpLimits, HttpServer

LIMITS = HttpLimits(request_line=1024, header=1024, body=BodyLimits(1024, timedelta(seconds=5)), in_flight=8)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


class World:
    """A server, and its one slow endpoint."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.admission = Admission(ConnectionCaps(total=100, per_address=100))
        self.server = HttpServer([web.get("/", self.answer), web.get("/slow", self.answer_slowly)], LIMITS, drain_seconds=4)

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def answer_slowly(self, _request: web.Request) -> web.Response:
        self.entered.set()
        await self.go_on.wait()
        return web.Response(text="done")

    async def client(self) -> "Client":
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        return Client(reader, writer)


class Client:
    """One connection; an answer is its head and body, empty when the server closed instead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[str, bytes]:
        async with asyncio.timeout(5):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                return "", error.partial
            length = next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            return head.decode(), await self.reader.readexactly(int(length))

    async def ask(self, data: bytes) -> tuple[str, bytes]:
        self.send(data)
        return await self.answer()

    async def is_closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def is_last(head: str) -> bool:
    return "connection: close" in head.lower()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        made = World(sock)
        await made.server.start()
        made.server.listen(sock, made.admission)
        yield made
        made.go_on.set()
        await made.server.stop()


async def test_connections_stay_open_before_the_end(world: World) -> None:
    client = await world.client()
    for _ in range(3):
        head, body = await client.ask(GET)
        assert (is_last(head), body) == (False, b"hello")
    await client.close()


async def test_an_idle_connection_gets_one_more_answer(world: World) -> None:
    client, other = await world.client(), await world.client()
    await client.ask(GET)
    await other.ask(GET)
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.1)
    for one in (client, other):
        head, body = await one.ask(GET)
        assert (is_last(head), body) == (True, b"hello")
        assert await one.is_closed()
        await one.close()
    async with asyncio.timeout(0.5):
        await stopping


async def test_a_connection_without_a_request_yet_gets_an_answer(world: World) -> None:
    client = await world.client()
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.1)
    head, body = await client.ask(GET)
    assert (is_last(head), body) == (True, b"hello")
    await client.close()
    await stopping


async def test_what_is_worked_on_at_the_end_is_finished_and_says_so(world: World) -> None:
    client = await world.client()
    client.send(SLOW)
    await world.entered.wait()
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.1)
    world.go_on.set()
    head, body = await client.answer()
    assert (is_last(head), body) == (True, b"done")
    await client.close()
    await stopping


async def test_what_takes_longer_than_the_grace_is_finished_too(world: World) -> None:
    world.server._grace = 0.05
    client, idle = await world.client(), await world.client()
    await idle.ask(GET)
    client.send(SLOW)
    await world.entered.wait()
    stopping = asyncio.create_task(world.server.stop())
    assert await idle.is_closed()
    assert not stopping.done()
    world.go_on.set()
    head, body = await client.answer()
    assert (is_last(head), body) == (True, b"done")
    await stopping
    for one in (client, idle):
        await one.close()


async def test_idle_connections_are_closed_after_the_grace(world: World) -> None:
    world.server._grace = 0.2
    client = await world.client()
    await client.ask(GET)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await world.server.stop()
    assert 0.2 <= loop.time() - begun < 1
    assert await client.is_closed()
    await client.close()


async def test_the_end_waits_for_nobody_when_nobody_is_there(world: World) -> None:
    async with asyncio.timeout(0.5):
        await world.server.stop()


async def test_nothing_is_accepted_any_more_at_once(world: World) -> None:
    idle = await world.client()
    await idle.ask(GET)
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.05)
    late = await world.client()
    late.send(GET)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late.reader.read(1), 0.2)
    await idle.ask(GET)
    await stopping
    for one in (idle, late):
        await one.close()


async def test_an_old_client_is_told_too(world: World) -> None:
    client = await world.client()
    request = b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    head, _ = await client.ask(request)
    assert "connection: keep-alive" in head.lower()
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.05)
    head, _ = await client.ask(request)
    assert is_last(head)
    assert "keep-alive" not in head.lower()
    await client.close()
    await stopping


async def test_refusals_are_last_answers_too(world: World) -> None:
    client = await world.client()
    await client.ask(GET)
    stopping = asyncio.create_task(world.server.stop())
    await asyncio.sleep(0.05)
    head, _ = await client.ask(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith("HTTP/1.1 404")
    assert is_last(head)
    await client.close()
    await stopping


@pytest.mark.parametrize(("drain", "grace"), [(30.0, module.GRACE_SECONDS), (4.0, 2.0)], ids=["long", "short"])
def test_the_grace_is_part_of_the_drain(drain: float, grace: float) -> None:
    server = HttpServer([], LIMITS, drain)
    assert server._grace == grace
    assert server._runner._shutdown_timeout == (drain - grace) / 2
