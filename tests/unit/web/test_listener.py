"""Connections are counted before a byte is read."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.web import listener as module
from gateway.web.listener import Admission, ConnectionCaps, Listener


def test_places_of_an_address_come_back() -> None:
    admission = Admission(ConnectionCaps(total=10, per_address=2))
    assert admission.enter("10.0.0.1")
    assert admission.enter("10.0.0.1")
    assert not admission.enter("10.0.0.1")
    assert admission.enter("10.0.0.2")
    assert (admission.total, admission.refused) == (3, 1)
    admission.leave("10.0.0.1")
    assert admission.enter("10.0.0.1")


def test_addresses_that_left_are_forgotten() -> None:
    admission = Admission(ConnectionCaps(total=10, per_address=2))
    for number in range(1000):
        admission.enter(f"10.0.0.{number}")
        admission.leave(f"10.0.0.{number}")
    assert admission._by_address == {}


def test_who_waits_is_woken_once() -> None:
    admission = Admission(ConnectionCaps(total=1, per_address=1))
    woken: list[int] = []
    admission.enter("a")
    assert admission.is_full
    admission.when_free(lambda: woken.append(1))
    admission.leave("a")
    admission.enter("a")
    admission.leave("a")
    assert woken == [1]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


@pytest.fixture
async def bound() -> AsyncIterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


async def ask(sock: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"hello")
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_connection_is_counted_until_it_ends(bound: socket.socket) -> None:
    admission = Admission(ConnectionCaps(total=2, per_address=2))
    listener = Listener(bound, Echo, admission)
    listener.start()
    for _ in range(10):
        assert await ask(bound) == b"hello"
    await asyncio.sleep(0.05)
    assert admission.total == 0
    listener.stop()


async def test_a_stopped_listener_is_not_resumed(bound: socket.socket) -> None:
    admission = Admission(ConnectionCaps(total=1, per_address=1))
    listener = Listener(bound, Echo, admission)
    admission.enter("elsewhere")
    listener.start()
    reader, writer = await asyncio.open_connection(*bound.getsockname())
    await asyncio.sleep(0.05)
    listener.stop()
    admission.leave("elsewhere")
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 0.2)
    writer.close()


async def test_accepting_goes_on_after_the_descriptors_ran_out(bound: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_WITHOUT_DESCRIPTORS", 0.05)
    listener = Listener(bound, Echo, Admission(ConnectionCaps(total=2, per_address=2)))

    class Exhausted:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.failures = 1

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

        def fileno(self) -> int:
            return self.sock.fileno()

        def setblocking(self, flag: bool) -> None:
            self.sock.setblocking(flag)

    listener._sock = Exhausted(bound)  # type: ignore[assignment]
    listener.start()
    assert await ask(bound) == b"hello"
    listener.stop()
