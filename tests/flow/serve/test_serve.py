"""`pki-gateway serve` as processes: start, crash, end, and every way in which it cannot begin."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.keys import generate_store_key
from tests.conftest import COMMAND, RunningServer, StartServer, free_port


def wait_for(condition: Callable[[], bool], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def workers(server: RunningServer) -> set[int]:
    """Return the worker processes that live, once all have begun."""
    wait_for(lambda: "Ctrl-C ends it" in server.log.read_text())
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(server.process.pid)], capture_output=True, text=True, timeout=10, check=False
    )
    rows = [line.split() for line in found.stdout.splitlines()]
    return {int(pid) for pid, state in rows if not state.startswith("Z")}


def enrolls(server: RunningServer) -> bool:
    return server.cli("test-enroll", "--protocol", "scep", "--profile", "demo", check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signals_end_the_service_in_order(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server(workers=2)
    children = workers(server)
    assert len(children) == 2
    os.kill(server.process.pid, number)
    assert server.process.wait(20) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not (server.state / "run" / "admin.sock").exists()
    assert server.cli("audit", "verify").returncode == 0


def test_ctrl_c_reaches_workers_through_the_supervisor_only(start_server: StartServer) -> None:
    server = start_server(workers=1)
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


def test_a_dead_worker_is_replaced(start_server: StartServer) -> None:
    server = start_server(workers=2)
    before = workers(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(workers(server) - {victim}) == 2)
    wait_for(lambda: "a worker was replaced" in server.log.read_text())
    assert "SIGKILL" in server.log.read_text()
    assert enrolls(server)


def test_workers_end_when_the_supervisor_is_killed(start_server: StartServer) -> None:
    server = start_server(workers=2)
    children = workers(server)
    server.process.kill()
    server.process.wait(10)

    def gone() -> bool:
        return not [pid for pid in children if Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid)]

    wait_for(gone)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_hangup_reloads_and_ends_no_process(start_server: StartServer) -> None:
    server = start_server(workers=1)
    before = workers(server)
    for pid in (server.process.pid, *before):
        os.kill(pid, signal.SIGHUP)
    wait_for(lambda: "reload: nothing has changed" in server.log.read_text())
    assert workers(server) == before
    assert enrolls(server)


def test_a_replacement_starts_from_the_accepted_bytes(start_server: StartServer) -> None:
    server = start_server(workers=1)
    server.config.write_text("broken: [")
    (server.state / "secrets" / "ra.key").unlink()
    [victim] = workers(server)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: "a worker was replaced" in server.log.read_text())
    with urllib.request.urlopen(f"{server.url}/scep/demo?operation=GetCACert", timeout=10) as reply:
        assert reply.status == 200


def test_commands_work_with_and_without_a_server(start_server: StartServer) -> None:
    server = start_server(workers=2)
    assert enrolls(server)
    assert '"running": true' in server.cli("status", "--format", "json").stdout
    assert server.stop() == 0
    assert '"running": false' in server.cli("status", "--format", "json").stdout
    done = server.cli("challenge", "new", "demo")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    exported = server.cli("certs", "export", "--format", "csv").stdout.splitlines()
    assert len(exported) == 2
    serial = exported[1].split(",")[1]
    lines = server.cli("certs", "export", "--format", "json").stdout
    assert lines == server.cli("certs", "export", "--format", "jsonl").stdout
    assert json.loads(lines)["serial"] == serial
    assert "CRL" in server.cli("certs", "revoke", serial, "--reason", "superseded").stdout
    assert "-----BEGIN CERTIFICATE-----" in server.cli("certs", "show", serial).stdout


def test_a_request_that_is_not_there_cannot_be_ended(start_server: StartServer) -> None:
    server = start_server(workers=1)
    waiting = server.cli("requests", "list", "--format", "json").stdout
    assert waiting.strip() == "[]"
    for arguments in (("approve", "x"), ("deny", "x"), ("show", "x"), ("resolve", "x", "--fail")):
        done = server.cli("requests", *arguments, check=False)
        assert (done.returncode, done.stderr.strip()) == (1, "there is no request with this ID")


# What cannot begin


def serve(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "serve", "--config", str(state / "profiles.yaml"), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    ports = ("--http-port", str(free_port()), "--https-port", str(free_port()))
    subprocess.run([*COMMAND, "init", str(tmp_path / "state"), *ports], check=True, capture_output=True, timeout=60)
    return tmp_path / "state"


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(sentences) == 1, done.stderr
    for word in words:
        assert word in sentences[0]


def edit(state: Path, old: str, new: str) -> None:
    config = state / "profiles.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new, 1))


def test_no_configuration(tmp_path: Path) -> None:
    assert_one_sentence(serve(tmp_path), 3, "profiles.yaml", "No such file")


def test_a_broken_configuration(state: Path) -> None:
    edit(state, "  workers: cores", "  worker: 2")
    assert_one_sentence(serve(state), 3, "profiles.yaml:", "server.worker")


def test_demo_is_for_loopback(state: Path) -> None:
    edit(state, "  http: 127.0.0.1:", "  http: 0.0.0.0:")
    assert_one_sentence(serve(state), 3, "server.http", "demo")


def test_an_address_in_use(state: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = (state / "profiles.yaml").read_text()
        line = next(line for line in text.splitlines() if line.startswith("  http: "))
        edit(state, line, f"  http: 127.0.0.1:{port}")
        assert_one_sentence(serve(state), 1, f"127.0.0.1:{port}", "address already in use")


def test_two_servers_of_one_configuration(start_server: StartServer) -> None:
    server = start_server(workers=1)
    done = serve(server.state)
    assert_one_sentence(done, 1, "in use")
    assert enrolls(server)


def test_a_key_of_another_certificate(state: Path) -> None:
    (state / "secrets" / "ra.key").write_bytes((state / "secrets" / "tls.key").read_bytes())
    assert_one_sentence(serve(state), 3, "profiles.demo.endpoints.scep")


def test_a_tls_key_of_another_certificate(state: Path) -> None:
    (state / "secrets" / "tls.key").write_bytes((state / "secrets" / "ra.key").read_bytes())
    assert_one_sentence(serve(state), 3, "server.https")


def test_a_store_of_another_key(start_server: StartServer) -> None:
    server = start_server(workers=1)
    assert server.stop() == 0
    (server.state / "secrets" / "store.key").write_text(generate_store_key() + "\n")
    assert_one_sentence(serve(server.state), 1, "store.key")


def test_usage() -> None:
    done = subprocess.run([*COMMAND, "serve", "--workers", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
