"""A served installation whose CA is away for a while: clients are told to come back, and everything is done when it is back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.pki.certificate import parse_certificate
from gateway.pki.crl import parse_crl
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from tests.conftest import COMMAND, RunningServer, StartServer, free_port
from tests.contract.ca.fake_vault import ROOT_TOKEN, FakeVault
from tests.flow.serve.test_monitoring import wait_for

ROLE = {"key_usage": ["DigitalSignature"], "use_csr_common_name": False, "use_csr_sans": False}


@contextmanager
def serving(vault: FakeVault, port: int) -> Iterator[None]:
    """Serve a Vault at a port, on a thread of its own."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", vault.handle)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await vault.set_role("devices", **ROLE)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await asyncio.to_thread(done.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def configured(text: str, state: Path, hierarchy: Hierarchy, port: int) -> str:
    """The configuration of `init`, whose profile has its certificates signed by a Vault."""
    (state / "ca" / "far.pem").write_bytes(hierarchy.issuing.certificate + hierarchy.root.certificate)
    (state / "secrets" / "far-token").write_text(ROOT_TOKEN)
    (state / "secrets" / "far-token").chmod(0o600)
    data = yaml.safe_load(text)
    data["upstream_cas"]["far"] = {
        "type": "vault",
        "url": f"http://127.0.0.1:{port}",
        "chain": ["ca/far.pem"],
        "auth": {"type": "token", "token": {"file": "secrets/far-token"}},
        "role": "devices",
        "queue": "1h",
    }
    data["profiles"]["demo"]["upstream_ca"] = "far"
    return str(yaml.safe_dump(data))


@pytest.fixture
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


def ask(server: RunningServer, csr: bytes) -> tuple[int, tuple[bytes, ...]]:
    time.sleep(0.5)
    answer = server.est("simpleenroll", csr, password=server.est_password)
    return answer.status, answer.certificates


@pytest.fixture
def again() -> Iterator[Callable[[RunningServer], RunningServer]]:
    """Start a server anew that was stopped, at the same ports."""
    running: list[RunningServer] = []

    def start(before: RunningServer) -> RunningServer:
        command = [*COMMAND, "serve", "--config", str(before.config), "--workers", "1"]
        with before.log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        server = replace(before, process=process)
        running.append(server)
        server.wait_ready()
        return server

    yield start
    for server in running:
        server.stop()


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_requests_and_revocations_wait_for_the_ca_over_a_restart(
    start_server: StartServer, again: Callable[[RunningServer], RunningServer], tmp_path: Path, hierarchy: Hierarchy
) -> None:
    port, vault = free_port(), FakeVault(hierarchy)
    state = tmp_path / "state"

    csr = build_csr(generate_private_key("ec-p256"), parse_name_text("CN=device-1").der)
    first = start_server(workers=1, edit=lambda text: configured(text, state, hierarchy, port))
    answer = first.est("simpleenroll", csr, password=first.est_password)
    assert (answer.status, answer.certificates) == (202, ())
    assert json.loads(first.cli("status", "--format", "json").stdout)["waiting_for_unreachable_ca"] == 1
    assert first.stop() == 0

    second = again(first)
    assert ask(second, csr)[0] == 202
    with serving(vault, port):
        wait_for(lambda: ask(second, csr)[0] == 200, 90)
        status, (leaf, *_) = ask(second, csr)
        assert status == 200
        assert vault.signed == [leaf]
        wait_for(lambda: get(f"{second.url}/crl/far.crl") == 200, 120)

    serial = format(parse_certificate(leaf).serial, "x")
    revoked = second.cli("certs", "revoke", serial, "--reason", "key_compromise").stdout
    assert "is told later" in revoked
    assert serial in second.cli("certs", "untold").stdout
    assert "far" in second.cli("certs", "untold").stdout
    assert parse_crl(second.get("/crl/far.crl")).serials == frozenset()
    with serving(vault, port):
        wait_for(lambda: "Every upstream CA was told" in second.cli("certs", "untold").stdout, 90)
    assert len(vault.revoked) == 1
