"""Connections are counted before a byte is read, and left to workers that hold fewer."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.web import listener as module
from gateway.web.listener import (
    INSIST_SECONDS,
    LEAVE_SECONDS,
    LEAVES,
    LEAVES_A_SECOND,
    LEAVES_SAVED,
    Admission,
    ConnectionCaps,
    Courtesy,
    Listener,
)
from gateway.web.share import SLOT_BYTES, Share


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


# Leaving connections to others


class Neighbours:
    """Two workers of one service in this process."""

    def __init__(self) -> None:
        slots = memoryview(bytearray(2 * SLOT_BYTES)).cast("Q")
        self.busy, self.other = Share(slots, 0), Share(slots, 1)
        for share in (self.busy, self.other):
            share.offer()

    def listener(self, bound: socket.socket, share: Share) -> Listener:
        return Listener(bound, Echo, Admission(ConnectionCaps(total=100, per_address=100), share))


def test_a_connection_is_left_until_nobody_took_it() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    workers.busy.enter()
    now = 100.0
    for _ in range(LEAVES):
        assert courtesy.leaves_first(now)
        now += LEAVE_SECONDS
    assert not courtesy.leaves_first(now)
    assert not courtesy.leaves_after(100, now)
    assert not courtesy.leaves_first(now + INSIST_SECONDS / 2)
    assert courtesy.leaves_after(100, now + INSIST_SECONDS)
    assert courtesy.leaves_first(now + INSIST_SECONDS)


def test_what_the_other_takes_is_left_to_it_for_ever() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    workers.busy.enter()
    now = 100.0
    for _ in range(10 * LEAVES):
        assert courtesy.leaves_first(now)
        workers.other.enter()
        workers.other.leave()
        now += 1 / LEAVES_A_SECOND


def test_connections_that_somebody_took_are_not_held_against_the_least_loaded() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    workers.busy.enter()
    for _ in range(LEAVES_SAVED):
        assert courtesy.leaves_first(100.0)
        courtesy.returns(somebody_waits=False)


def test_what_waits_first_is_taken_among_equals() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    assert not courtesy.leaves_first(0)
    workers.busy.enter()
    workers.other.enter()
    assert not courtesy.leaves_first(0)


def test_one_is_taken_at_once_and_more_when_others_do_not_keep_up() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    for run in (1, 2, 4, 8, 16, 32, 32):
        assert workers.busy.less_loaded() is None
        assert not courtesy.leaves_after(run - 1, 100.0)
        assert courtesy.leaves_after(run, 100.0)
        courtesy.returns(somebody_waits=True)
    workers.busy.enter()
    assert courtesy.leaves_after(1, 100.0)
    workers.other.enter()
    assert not courtesy.leaves_after(1, 100.0)
    courtesy.returns(somebody_waits=False)
    assert courtesy.leaves_after(1, 100.0)


def test_more_is_taken_at_once_where_many_are_held() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    for share in (workers.busy, workers.other):
        for _ in range(80):
            share.enter()
    assert not courtesy.leaves_after(9, 100.0)
    assert courtesy.leaves_after(10, 100.0)


def test_who_is_away_too_often_stays() -> None:
    workers = Neighbours()
    courtesy = Courtesy(workers.busy)
    assert all(courtesy.leaves_after(1, 100.0) for _ in range(LEAVES_SAVED))
    assert not courtesy.leaves_after(1, 100.0)
    workers.busy.enter()
    assert not courtesy.leaves_first(100.0)
    assert courtesy.leaves_first(100.0 + 1 / LEAVES_A_SECOND)
    assert not courtesy.leaves_first(100.0 + 1 / LEAVES_A_SECOND)
    assert all(courtesy.leaves_after(1, 1000.0) for _ in range(LEAVES_SAVED))
    assert not courtesy.leaves_after(1, 1000.0)


def test_who_is_alone_takes_all() -> None:
    workers = Neighbours()
    workers.other.withdraw()
    courtesy = Courtesy(workers.busy)
    workers.busy.enter()
    assert not courtesy.leaves_after(100, 100.0)
    assert not courtesy.leaves_first(100.0)


async def test_two_that_wait_on_one_socket_share_what_comes(bound: socket.socket) -> None:
    workers = Neighbours()
    with bound.dup() as again:
        listeners = [workers.listener(bound, workers.busy), workers.listener(again, workers.other)]
        for listener in listeners:
            listener.start()
        clients = [await asyncio.open_connection(*bound.getsockname()) for _ in range(8)]
        async with asyncio.timeout(5):
            while sum(listener._admission.total for listener in listeners) < 8:
                await asyncio.sleep(0.001)
        assert [listener._admission.total for listener in listeners] == [4, 4]
        async with asyncio.timeout(5):
            while any(listener._courtesy._times for listener in listeners):
                await asyncio.sleep(0.001)
        for listener in listeners:
            listener.stop()
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while any(listener._admission.total for listener in listeners):
                await asyncio.sleep(0.001)


async def test_a_neighbour_that_stands_still_delays_a_connection_only_once(bound: socket.socket) -> None:
    workers = Neighbours()
    workers.busy.enter()
    listener = workers.listener(bound, workers.busy)
    listener.start()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await ask(bound) == b"hello"
    assert loop.time() - begun >= LEAVES * LEAVE_SECONDS * 0.9
    assert listener._courtesy._insists_until > loop.time()
    for _ in range(40):
        assert await ask(bound) == b"hello"
    assert listener._courtesy._times == 0
    listener.stop()


async def test_a_listener_that_stopped_is_waited_for_no_more(bound: socket.socket) -> None:
    workers = Neighbours()
    workers.busy.enter()
    listener = workers.listener(bound, workers.other)
    listener.start()
    assert workers.busy.less_loaded() is not None
    listener.stop()
    assert workers.busy.less_loaded() is None


async def test_one_that_is_away_does_not_come_back_after_it_stopped(bound: socket.socket) -> None:
    workers = Neighbours()
    workers.busy.enter()
    listener = workers.listener(bound, workers.busy)
    listener.start()
    _, writer = await asyncio.open_connection(*bound.getsockname())
    async with asyncio.timeout(5):
        while not listener._courtesy._times:
            await asyncio.sleep(0)
    listener.stop()
    await asyncio.sleep(2 * LEAVES * LEAVE_SECONDS)
    assert listener._admission.total == 0
    writer.close()


async def test_who_has_no_descriptors_left_is_not_waited_for(bound: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_WITHOUT_DESCRIPTORS", 0.05)
    workers = Neighbours()
    workers.busy.enter()
    listener = workers.listener(bound, workers.other)
    seen: list[object] = []

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if not seen:
                seen.append("none")
                asyncio.get_running_loop().call_soon(lambda: seen.append(workers.busy.less_loaded()))
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    with Exhausted(fileno=bound.dup().detach()) as sock:
        listener._sock = sock
        listener.start()
        assert await ask(bound) == b"hello"
        assert seen == ["none", None]
        assert workers.busy.less_loaded() is not None
        listener.stop()
