"""A real server for tests: `pki-gateway init` and `serve` as a user runs them, on free loopback ports."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60.0
COMMAND = (sys.executable, "-m", "gateway")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningServer:
    """One running server and what a client needs to know of it."""

    state: Path
    http_port: int
    https_port: int
    monitoring_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def monitoring_url(self) -> str:
        return f"http://127.0.0.1:{self.monitoring_port}"

    @property
    def config(self) -> Path:
        return self.state / "profiles.yaml"

    def cli(self, *args: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run one pki-gateway command against this server's configuration."""
        done = subprocess.run(
            [*COMMAND, *args],
            env={**os.environ, "PKI_GATEWAY_CONFIG": str(self.config)},
            input=None if stdin is None else stdin.decode(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def new_challenge(self, *args: str) -> str:
        return self.cli("challenge", "new", "demo", *args).stdout.strip()

    @property
    def static_challenge(self) -> str:
        return (self.state / "secrets" / "demo-scep-challenge").read_text().strip()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return bytes(reply.read())

    def wait_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                self.get("/scep/demo?operation=GetCACaps")
                return
            time.sleep(0.1)
        raise AssertionError(f"the server did not come up:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Stop by SIGTERM; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


StartServer = Callable[..., RunningServer]


def launch(
    state: Path,
    *,
    workers: int = 1,
    init_flags: tuple[str, ...] = (),
    serve_flags: tuple[str, ...] = (),
    edit: Callable[[str], str] | None = None,
) -> RunningServer:
    """Write a configuration into `state` if there is none, serve it and wait until it answers."""
    http_port, https_port, monitoring_port = free_port(), free_port(), free_port()
    ports = ("--http-port", str(http_port), "--https-port", str(https_port), "--monitoring-port", str(monitoring_port))
    if not (state / "profiles.yaml").exists():
        subprocess.run([*COMMAND, "init", str(state), *ports, *init_flags], check=True, capture_output=True, timeout=60)
    if edit:
        path = state / "profiles.yaml"
        path.write_text(edit(path.read_text()))
    log = state.parent / f"{state.name}-{http_port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(state / "profiles.yaml"), "--workers", str(workers), *serve_flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = RunningServer(state, http_port, https_port, monitoring_port, process, log)
    try:
        server.wait_ready()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    return server


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers of the test's own; all are stopped at its end."""
    running: list[RunningServer] = []

    def start(name: str = "state", **kwargs: object) -> RunningServer:
        server = launch(tmp_path / name, **kwargs)  # type: ignore[arg-type]
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with two workers for all tests that do not change its configuration."""
    running = launch(tmp_path_factory.mktemp("server") / "state", workers=2)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def require_program() -> Callable[[str, str], str]:
    """Return the path of a program that a Debian package brings."""

    def require(program: str, package: str) -> str:
        path = shutil.which(program)
        if path is None:
            message = f"{program} is missing: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return require
