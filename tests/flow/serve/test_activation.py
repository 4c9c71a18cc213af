"""`serve` with sockets that another process opened, handed over as systemd does it (sd_listen_fds(3))."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import COMMAND, RunningServer, free_port

AS_SYSTEMD = """
import os, sys
count, *command = sys.argv[1:]
given = [int(number) for number in command[:int(count)]]
high = [os.dup2(descriptor, 100 + index, inheritable=False) for index, descriptor in enumerate(given)]
for index, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + index, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = count
os.execv(command[len(given)], command[len(given):])
"""

Serve = Callable[..., RunningServer]


class Unit:
    """A configuration, and the sockets of a socket unit for it, which live longer than the service."""

    def __init__(self, state: Path, opened: ExitStack) -> None:
        self.state = state
        self.http = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        self.https = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        self.admin = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        ports = ["--http-port", str(self.http_port), "--https-port", str(self.https.getsockname()[1])]
        self.monitoring_port = free_port()
        ports += ["--monitoring-port", str(self.monitoring_port)]
        subprocess.run([*COMMAND, "init", str(state), *ports], check=True, capture_output=True, timeout=60)
        self.admin.bind(str(state / "run" / "admin.sock"))
        (state / "run" / "admin.sock").chmod(0o660)
        self.admin.listen()

    @property
    def http_port(self) -> int:
        return int(self.http.getsockname()[1])

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """Two that are named as units may name them, one that only its address tells."""
        return {"http": self.http, "pki-gateway.socket": self.https, "admin": self.admin}

    def start(self, log: Path, sockets: Mapping[str, socket.socket], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        handed = [sock.fileno() for sock in sockets.values()]
        serve = (*COMMAND, "serve", "--config", str(self.state / "profiles.yaml"), "--workers", "1")
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, str(len(handed)), *map(str, handed), *serve],
                pass_fds=handed,
                env={**os.environ, "LISTEN_FDNAMES": ":".join(sockets), **environ},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    with ExitStack() as opened:
        yield Unit(tmp_path / "state", opened)


@pytest.fixture
def start(unit: Unit, tmp_path: Path) -> Iterator[Serve]:
    running: list[RunningServer] = []

    def begin(**environ: str) -> RunningServer:
        process = unit.start(tmp_path / "log", unit.sockets, environ)
        ports = {"https_port": unit.https.getsockname()[1], "monitoring_port": unit.monitoring_port}
        server = RunningServer(unit.state, unit.http_port, process=process, log=tmp_path / "log", **ports)
        running.append(server)
        return server

    yield begin
    for server in running:
        server.stop()


def inodes(pid: int) -> set[str]:
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}


def test_sockets_outlive_the_service_and_no_request_is_lost(unit: Unit, start: Serve) -> None:
    first = start()
    first.wait_ready()
    assert first.cli("test-enroll", "--protocol", "scep", "--profile", "demo").returncode == 0
    for sock in unit.sockets.values():
        assert f"socket:[{os.fstat(sock.fileno()).st_ino}]" in inodes(first.process.pid)
    assert first.stop() == 0
    assert (unit.state / "run" / "admin.sock").is_socket(), "the admin socket is the service manager's"

    answers: list[int] = []

    def ask() -> None:
        with urllib.request.urlopen(f"{first.url}/scep/demo?operation=GetCACert", timeout=60) as reply:
            answers.append(reply.status)

    waiting = [threading.Thread(target=ask) for _ in range(8)]
    for thread in waiting:
        thread.start()  # nobody serves now: the kernel takes the connections
    second = start()
    for thread in waiting:
        thread.join(60)
    assert answers == [200] * 8
    assert '"running": true' in second.cli("status", "--format", "json").stdout


def test_an_address_that_is_not_configured_is_refused(unit: Unit, tmp_path: Path) -> None:
    process = unit.start(tmp_path / "log", {"http": unit.https}, {})
    assert process.wait(60) == 1
    sentences = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("{")]
    assert len(sentences) == 1, sentences
    assert sentences[0].startswith(f"server.http: the service manager hands over 127.0.0.1:{unit.https.getsockname()[1]} as http")
    assert "make socket unit and configuration agree" in sentences[0]


def test_the_service_manager_is_told(tmp_path: Path, start: Serve) -> None:
    """Ready only once it serves, signs of life every second, and the end: by a path and by an abstract name."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        name = f"pki-gateway-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        manager.settimeout(60)
        server = start(NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="30000000")
        said = read_until(manager, "READY=1")
        assert server.get("/scep/demo?operation=GetCACaps")
        assert "STATUS=serves" in said
        read_until(manager, "WATCHDOG=1")
        assert server.cli("reload").returncode == 0
        assert said_in_order(manager, "RELOADING=1", "READY=1")
        assert server.stop() == 0
        read_until(manager, "STOPPING=1")


def read_until(manager: socket.socket, word: str) -> list[str]:
    """Return the assignments of the first datagram that says `word`; those before it say other things."""
    while True:
        said = manager.recv(4096).decode().split("\n")
        if word in said:
            return said


def said_in_order(manager: socket.socket, *words: str) -> bool:
    return all(read_until(manager, word) for word in words)


def test_workers_do_not_take_the_sockets_for_theirs(unit: Unit, start: Serve) -> None:
    server = start(NOTIFY_SOCKET="/nowhere/notify", WATCHDOG_USEC="30000000")
    server.wait_ready()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert children
    for child in children:
        names = {entry.split(b"=")[0] for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")}
        assert not names & {b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES", b"NOTIFY_SOCKET", b"WATCHDOG_USEC"}
    os.kill(server.process.pid, signal.SIGTERM)
