"""What the service manager is told, read from a socket of the test's own; and that it can do no harm when it is gone."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic_ns

import pytest

from gateway.supervise.notify import ServiceManager
from gateway.supervise.outcome import CONFIGURATION, NEEDS_RESTART, Outcome


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's datagram socket, and NOTIFY_SOCKET for it."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(5)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            yield str(tmp_path / "notify"), sock
        else:
            name = f"pki-gateway-{secrets.token_hex(8)}"
            sock.bind(f"\0{name}")
            yield f"@{name}", sock


def lines(sock: socket.socket, count: int) -> list[list[str]]:
    return [sock.recv(8192).decode().split("\n") for _ in range(count)]


def test_every_word(listening: tuple[str, socket.socket]) -> None:
    named, sock = listening
    manager = ServiceManager.take({"NOTIFY_SOCKET": named})
    before = monotonic_ns() // 1000
    manager.serving()
    manager.reloading()
    manager.reloaded(Outcome(True, 2, "generation 2 is in force"))
    manager.reloaded(Outcome(False, 2, "server.http: needs a restart", NEEDS_RESTART))
    manager.turned(alive=True)  # says nothing: nobody waits for signs of life
    manager.stopping()
    said = lines(sock, 5)
    since = int(said[1].pop().removeprefix("MONOTONIC_USEC="))
    assert before <= since <= monotonic_ns() // 1000
    assert said == [
        ["READY=1", "STATUS=serves"],
        ["RELOADING=1"],
        ["READY=1", "STATUS=serves generation 2"],
        ["READY=1", "STATUS=serves generation 2; the last reload was refused: server.http: needs a restart"],
        ["STOPPING=1", "STATUS=finishes what is in flight"],
    ]


def test_a_reload_before_the_first_worker_serves_is_not_ready(listening: tuple[str, socket.socket]) -> None:
    named, sock = listening
    manager = ServiceManager.take({"NOTIFY_SOCKET": named})
    manager.reloaded(Outcome(True, 2, ""))
    manager.serving()
    assert lines(sock, 2) == [["STATUS=serves generation 2"], ["READY=1", "STATUS=serves"]]


def test_a_status_is_one_line(listening: tuple[str, socket.socket]) -> None:
    named, sock = listening
    manager = ServiceManager.take({"NOTIFY_SOCKET": named})
    manager.reloaded(Outcome(False, 1, "field\nMAINPID=1\0" + "x" * 5000, CONFIGURATION))
    [[said]] = lines(sock, 1)
    assert said.startswith("STATUS=serves generation 1; the last reload was refused: field MAINPID=1 xxx")
    assert len(said) == len("STATUS=") + 1024


@pytest.mark.parametrize(
    ("environ", "address", "watchdog"),
    [
        pytest.param({}, None, None, id="nobody"),
        pytest.param({"NOTIFY_SOCKET": ""}, None, None, id="empty"),
        pytest.param({"NOTIFY_SOCKET": "vsock:2:1234"}, None, None, id="vsock"),
        pytest.param({"NOTIFY_SOCKET": "@"}, None, None, id="no-name"),
        pytest.param({"NOTIFY_SOCKET": "@a"}, b"\0a", None, id="abstract"),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, b"/n", 30.0, id="systemd"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, None, None, id="watchdog-and-nobody-to-tell"),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000"}, b"/n", 0.5, id="watchdog-of-anybody"),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "8"}, b"/n", None, id="not-ours"),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, b"/n", None, id="watchdog-of-zero"),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, b"/n", None, id="watchdog-of-words"),
    ],
)
def test_environments(environ: dict[str, str], address: bytes | None, watchdog: float | None) -> None:
    left = {**environ, "PATH": "/bin"}
    manager = ServiceManager.take(left, pid=7)
    assert (manager.address, manager.watchdog_seconds) == (address, watchdog)
    assert left == {"PATH": "/bin"}, "workers would inherit it"


@pytest.mark.parametrize("address", [None, b"/nowhere/notify", b"\0nobody-listens-here"], ids=["none", "path", "abstract"])
def test_nobody_listens(address: bytes | None) -> None:
    manager = ServiceManager(address, 30.0)
    manager.serving()
    manager.reloading()
    manager.turned(alive=True)
    manager.stopping()


def test_the_watchdog_is_fed_only_while_there_are_signs_of_life(listening: tuple[str, socket.socket]) -> None:
    named, sock = listening
    manager = ServiceManager.take({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "30000000"})
    manager.serving()
    for alive in (True, False, False, True):
        manager.turned(alive)
    manager.stopping()
    said = [line[0] for line in lines(sock, 4)]
    assert said == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_full_socket_is_not_waited_for(listening: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.supervise.notify.SEND_SECONDS", 0.001)
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    manager = ServiceManager.take({"NOTIFY_SOCKET": listening[0]})
    for number in range(queue + 10):
        manager.reloaded(Outcome(True, number, ""))
    assert listening[1].recv(64) == b"STATUS=serves generation 0"
