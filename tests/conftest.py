"""A real server for tests: `pki-gateway init` and `serve` as a user runs them, on free loopback ports."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.est.client import EstAnswer, basic_authorization, decode_answer, get_request, post_request

START_SECONDS = 60.0
COMMAND = (sys.executable, "-m", "gateway")
INIT_PORTS = (8080, 8443, 9464)
"""Those of `init` for HTTP, HTTPS and monitoring."""


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

    @property
    def root(self) -> Path:
        return self.state / "ca" / "root.pem"

    @property
    def est_password(self) -> str:
        """The password of the user `demo`."""
        return (self.state / "secrets" / "demo-est-password").read_text().strip()

    def est(
        self,
        operation: str,
        body: bytes | None = None,
        *,
        label: str | None = "demo",
        password: str | None = None,
        client: tuple[Path, Path] | None = None,
        port: int | None = None,
    ) -> EstAnswer:
        """Send one EST request over TLS: GET without a body, else POST with its DER; `client` is certificate and key, PEM."""
        authorization = None if password is None else basic_authorization("demo", password)
        asked = get_request(operation, label) if body is None else post_request(operation, body, label, authorization)
        tls = ssl.create_default_context(cafile=self.root)
        if client is not None:
            tls.load_cert_chain(*client)
        with closing(HTTPSConnection("localhost", port or self.https_port, context=tls, timeout=20)) as connection:
            connection.request(asked.method, asked.path, asked.body or None, dict(asked.headers))
            reply = connection.getresponse()
            return decode_answer(operation, reply.status, dict(reply.getheaders()), reply.read())

    def enroll_by_est(
        self, subject: str = "CN=device-1", key: PrivateKey | None = None, **how: Any
    ) -> tuple[Certificate, PrivateKey]:
        """Return a new certificate and its key; `how` as for `est`, else the user `demo` asks."""
        own = key or generate_private_key("ec-p256")
        how.setdefault("password", self.est_password)
        answer = self.est("simpleenroll", build_csr(own, parse_name_text(subject).der), **how)
        assert answer.status == 200, f"{answer.status}: {answer.text}"
        return parse_certificate(answer.certificates[0]), own

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return bytes(reply.read())

    def wait_ready(self, workers: int = 1) -> None:
        """Wait until so many workers serve."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                self.get("/scep/demo?operation=GetCACaps")
                if workers == 1 or self._serving() >= workers:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the server did not come up:\n{self.log.read_text()}")

    def _serving(self) -> int:
        """Return how many workers serve."""
        with urllib.request.urlopen(f"{self.monitoring_url}/metrics", timeout=10) as reply:
            found = re.search(r"^gateway_workers (\d+)", reply.read().decode(), re.MULTILINE)
        return int(found[1]) if found else 0

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


def with_https_mtls(text: str, port: int) -> str:
    """Return a configuration of `init` with a listener that asks for client certificates, and a demo that renews by EST."""
    data = yaml.safe_load(text)
    data["server"]["https_mtls"] = {**data["server"]["https"], "listen": f"127.0.0.1:{port}"}
    data["profiles"]["demo"]["renewal"]["messages"] = ["RenewalReq", "PKCSReq", "simplereenroll"]
    return json.dumps(data)


@cache
def _template(init_flags: tuple[str, ...]) -> Path:
    """Run `init` once for all servers that begin in the same way: it draws a good many keys."""
    folder = Path(tempfile.mkdtemp(prefix="pki-gateway-init-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([*COMMAND, "init", str(folder / "state"), *init_flags], check=True, capture_output=True, timeout=60)
    return folder / "state"


def _initialise(state: Path, ports: tuple[int, int, int], init_flags: tuple[str, ...]) -> None:
    shutil.copytree(_template(init_flags), state)
    path = state / "profiles.yaml"
    text = path.read_text()
    for usual, port in zip(INIT_PORTS, ports, strict=True):
        text = text.replace(f":{usual}", f":{port}")
    path.write_text(text)


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
    if not (state / "profiles.yaml").exists():
        _initialise(state, (http_port, https_port, monitoring_port), init_flags)
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
        server.wait_ready(workers)
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
