"""Connections that stay open are spread over all workers, however they come, and no worker that is gone is waited for."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import RunningServer, StartServer, launch
from tests.flow.serve.connections import Connection, held_by
from tests.flow.serve.processes import kill, wait_for, workers

ROUNDS = 10
Open = Callable[[RunningServer, int], list[Connection]]


@pytest.fixture(scope="module", params=[2, 4], ids=["two workers", "four workers"])
def spread(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = launch(tmp_path_factory.mktemp("spread") / "state", workers=request.param)
    wait_for(lambda: len(workers(server)) == request.param)
    wait_until_all_accept(server)
    yield server
    assert server.stop() == 0


def wait_until_all_accept(server: RunningServer) -> None:
    """The first worker that serves makes a service; the others follow."""

    def all_hold_some() -> bool:
        with opened(server, open_at_once, 16) as connections:
            return min(held_by(server, workers(server), connections).values()) > 0

    wait_for(all_hold_some)


def open_one_by_one(server: RunningServer, count: int) -> list[Connection]:
    """Each is used before the next one is opened."""
    connections = []
    for _ in range(count):
        connections.append(Connection(server))
        assert connections[-1].ask()
    return connections


def open_at_once(server: RunningServer, count: int) -> list[Connection]:
    """All are opened before the first one is used."""
    connections = [Connection(server) for _ in range(count)]
    for connection in connections:
        assert connection.ask()
    return connections


@contextmanager
def opened(server: RunningServer, open: Open, count: int) -> Iterator[list[Connection]]:
    connections = open(server, count)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.end()


@pytest.mark.parametrize("open", [open_one_by_one, open_at_once], ids=["one by one", "at once"])
@pytest.mark.parametrize("count", [4, 16])
def test_no_worker_is_without_any(spread: RunningServer, count: int, open: Open) -> None:
    processes = workers(spread)
    seen: list[Counter[int]] = []
    for _ in range(ROUNDS):
        with opened(spread, open, count) as connections:
            seen.append(held_by(spread, processes, connections))
    assert all(sum(held.values()) == count for held in seen)
    assert all(min(held.values()) >= 1 for held in seen), seen


def test_a_worker_that_stands_still_delays_nobody_for_long(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_until_all_accept(server)
    still, other = sorted(workers(server))
    os.kill(still, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with opened(server, open_one_by_one, 50) as connections:
            took = time.monotonic() - begun
            print(f"50 connections took {took:.3f} s")
            assert held_by(server, {still, other}, connections) == {still: 0, other: 50}
    finally:
        os.kill(still, signal.SIGCONT)
    # Left to it for a moment once a second, and not for each connection.
    assert took < 10


def test_a_replacement_gets_what_comes_next(start_server: StartServer) -> None:
    server = start_server(workers=2)
    wait_until_all_accept(server)
    with opened(server, open_one_by_one, 8):
        victim = min(workers(server))
        [survivor] = workers(server) - {victim}
        kill(victim)
        wait_for(lambda: victim not in workers(server))
        with opened(server, open_one_by_one, 2) as alone:
            assert held_by(server, {survivor}, alone) == {survivor: 2}
        wait_for(lambda: len(workers(server)) == 2)
        wait_for(lambda: "a worker was replaced" in server.log.read_text())
        [replacement] = workers(server) - {survivor}
        with opened(server, open_one_by_one, 3) as second:
            assert held_by(server, {replacement, survivor}, second) == {replacement: 3, survivor: 0}
