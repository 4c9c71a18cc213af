"""Workers that end under load lose no request: whoever sends one gets its answer, from this worker or from another."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bench.load import prepare_requests
from gateway.asn1.scep import PkiStatus
from gateway.wire.scep import client
from tests.conftest import RunningServer, StartServer
from tests.flow.serve.connections import CAPS, Connection, LostError
from tests.flow.serve.processes import logged, wait_for, workers

ANSWERED = b"SCEPStandard"
BUSY_CLIENTS = 8
BUSY_PAUSE = 0.005
PAUSING_CLIENTS = 4
PAUSE_SECONDS = 0.3
ENROLLMENTS = 400
RESTARTS = 20
LOST_OF = 10_000


@dataclass
class Load:
    """Clients that keep their connection for as long as the server lets them, and what became of their requests."""

    server: RunningServer
    stopped: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    enrolled: int = 0
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, pause: float) -> None:
        """Ask again and again, on one connection at a time."""
        connection = None
        while not self.stopped.wait(pause):
            connection = self._ask(connection, CAPS, lambda answer: ANSWERED in answer)
        if connection is not None:
            connection.end()

    def enroll(self, count: int) -> None:
        """Enroll all the time, with requests that were made before."""
        connection = None
        for prepared in prepare_requests(self.server, count):
            if self.stopped.wait(0.1):
                break
            message = prepared.request.message
            head = "POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n"
            request = f"{head}Content-Length: {len(message)}\r\n\r\n".encode() + message

            def granted(answer: bytes, prepared: object = prepared) -> bool:
                reply = client.decode_cert_rep(answer, prepared.request, prepared.signer, prepared.ra)  # type: ignore[attr-defined]
                return reply.status is PkiStatus.SUCCESS

            connection = self._ask(connection, request, granted)
            self.enrolled += 1
        if connection is not None:
            connection.end()

    def _ask(self, connection: Connection | None, request: bytes, is_right: Callable[[bytes], bool]) -> Connection | None:
        begun = time.monotonic()
        try:
            connection = connection or Connection(self.server)
            answer = connection.ask(request)
        except (LostError, OSError) as error:
            with self._lock:
                self.lost.append(f"{type(error).__name__}: {error}")
            return None
        took = time.monotonic() - begun
        with self._lock:
            self.answered += 1
            self.slowest = max(self.slowest, took)
            if not is_right(answer):
                self.lost.append(f"wrong answer: {answer[:80]!r}")
        if not connection.is_last:
            return connection
        connection.end()
        return None


@contextmanager
def loaded(server: RunningServer) -> Iterator[Load]:
    load = Load(server)
    clients = [threading.Thread(target=load.send, args=(BUSY_PAUSE,)) for _ in range(BUSY_CLIENTS)]
    clients += [threading.Thread(target=load.send, args=(PAUSE_SECONDS,)) for _ in range(PAUSING_CLIENTS)]
    clients.append(threading.Thread(target=load.enroll, args=(ENROLLMENTS,)))
    for one in clients:
        one.start()
    try:
        yield load
    finally:
        load.stopped.set()
        for one in clients:
            one.join()


def assert_none_lost(load: Load, least: int) -> None:
    print(f"{load.answered} answered, {load.enrolled} enrolled, {len(load.lost)} lost, slowest {load.slowest:.3f} s")
    assert load.answered >= least
    assert len(load.lost) * LOST_OF <= load.answered, load.lost


def test_a_worker_that_is_told_to_end_loses_nothing(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_for(lambda: len(workers(server)) == 2)
    before = workers(server)
    with loaded(server) as load:
        wait_for(lambda: load.answered > 500)
        for number, victim in enumerate(sorted(before), 1):
            os.kill(victim, signal.SIGTERM)
            wait_for(lambda number=number: len(logged(server, "a worker was replaced")) == number)  # type: ignore[misc]
        wait_for(lambda: load.answered > 5000)
    assert_none_lost(load, 5000)
    assert not workers(server) & before


@pytest.mark.timeout(600)
def test_rolling_restarts_under_load_lose_nothing(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_for(lambda: len(workers(server)) == 2)
    with loaded(server) as load:
        for _ in range(RESTARTS):
            before = workers(server)
            assert server.cli("restart").stdout == "2 workers were replaced.\n"
            wait_for(lambda before=before: len(workers(server)) == 2 and not workers(server) & before)  # type: ignore[misc]
        wait_for(lambda: load.answered > LOST_OF)
    assert_none_lost(load, LOST_OF)
    assert not logged(server, "a worker died and is replaced")
    assert server.cli("audit", "verify").returncode == 0
