"""ACME against real processes: what reloads open and close, what a restart leaves as it was, and what waits for a slow CA."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.cli.enroll_acme import LOOPBACK, Responder
from gateway.model import Identifier, IdentifierType
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.identifiers import to_san
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import generate_private_key
from gateway.pki.names import format_name, parse_name_text
from gateway.wire.acme.client import AcmeAnswer, AcmeClient, AcmeRefusal, AcmeRequest, Flow, drive
from tests.conftest import COMMAND, RunningServer, StartServer, free_port, launch
from tests.flow.serve.processes import audited, logged, wait_for

DOCUMENT = Path(__file__).parents[3] / "docs" / "upstream-exec.md"
NAME = Identifier(IdentifierType.DNS, "www.demo.test")
SLOW = """\
import json, os, subprocess, sys, time
request = sys.stdin.buffer.read()
if json.loads(request)["operation"] == "issue":
    open(os.environ["CA_DIR"] + "/asked", "a").write("once\\n")
    time.sleep(float(os.environ["SECONDS"]))
done = subprocess.run([sys.executable, "-I", os.environ["CA_DIR"] + "/sign"], input=request, stdout=subprocess.PIPE, check=True)
sys.stdout.buffer.write(done.stdout)
"""


class Browser:
    """One account, which speaks to whatever process serves now; it answers http-01 at the port that the demo looks at."""

    def __init__(self, server: RunningServer, profile: str = "demo") -> None:
        self.server = server
        self.client = AcmeClient(
            f"https://localhost:{server.https_port}/acme/{profile}/directory", Signer.of(generate_private_key("ec-p256"))
        )
        self.responder = Responder(LOOPBACK, http_port(server))

    def run(self, flow: Flow) -> Any:
        return drive(flow, self.send, lambda seconds: time.sleep(min(seconds, 0.5)))

    def send(self, request: AcmeRequest) -> AcmeAnswer:
        parts = urlsplit(request.url)
        tls = ssl.create_default_context(cafile=self.server.root)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        with closing(HTTPSConnection("localhost", self.server.https_port, context=tls, timeout=40)) as connection:
            connection.request(request.method, path, request.body or None, dict(request.headers))
            reply = connection.getresponse()
            return AcmeAnswer.of(reply.status, reply.getheaders(), reply.read())

    def ready(self, *names: Identifier) -> AcmeAnswer:
        """Order these names and prove each; returns the order as it was placed."""
        order: AcmeAnswer = self.run(self.client.order(names))
        with self.responder.running():
            for url in order.document["authorizations"]:
                self.run(self.client.authorize(url, self.responder.respond))
        return order

    def refused(self, flow: Flow) -> AcmeRefusal:
        with pytest.raises(AcmeRefusal) as caught:
            self.run(flow)
        return caught.value


def http_port(server: RunningServer) -> int:
    profile = yaml.safe_load(server.config.read_text())["profiles"]["demo"]
    return int(profile["endpoints"]["acme"]["validation"]["http01_port"])


def with_port(text: str) -> str:
    """A configuration whose demo looks for http-01 at a port that nobody else has."""
    return text.replace("http01_port: 5002", f"http01_port: {free_port()}")


def edit(server: RunningServer, change: Any) -> None:
    """Change the configuration as data."""
    data = yaml.safe_load(server.config.read_text())
    change(data)
    server.config.write_text(json.dumps(data))


def csr_for(*names: Identifier) -> bytes:
    """A CSR as most clients make one, with the first name as CN."""
    return build_csr(generate_private_key("ec-p256"), parse_name_text(f"CN={names[0].value}").der, tuple(map(to_san, names)))


def is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def serve_again(server: RunningServer) -> None:
    """Serve what an earlier process left, at the same ports, once its workers have ended."""
    wait_for(lambda: is_free(server.http_port) and is_free(server.https_port))
    with server.log.open("ab") as out:
        server.process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(server.config), "--workers", "2"],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server.wait_ready()


def test_the_built_in_client_by_several_workers(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(workers=2, edit=with_port)
    names = ("--dns", "a.demo.test", "--dns", "b.demo.test", "--ip", "127.0.0.1")
    for kind in ("ec-p256", "rsa-2048", "ed25519"):
        done = server.cli(
            "test-enroll", "--protocol", "acme", "--profile", "demo", *names, "--key", kind, "--out", str(tmp_path / kind)
        )
        assert done.stdout.count("valid by http-01") == 3
        leaf = parse_certificate(pem_to_ders((tmp_path / kind / "device.pem").read_bytes())[0])
        assert {san.value for san in leaf.sans} == {"a.demo.test", "b.demo.test", "127.0.0.1"}
        assert format_name(leaf.subject) == ""
    steps = json.loads(server.cli("test-enroll", "--protocol", "acme", "--profile", "demo", "--format", "json").stdout)["steps"]
    assert [step["step"] for step in steps] == [
        "directory",
        "newAccount",
        "newOrder",
        "authorization",
        "key",
        "finalize",
        "certificate",
    ]
    issued = json.loads(server.cli("certs", "list", "--format", "json").stdout)
    assert {row["protocol"] for row in issued} == {"acme"}
    assert all(row["requester"].startswith("acme:") for row in issued)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(("--challenge", "x"), "prove nothing by ACME", id="challenge"),
        pytest.param(("--eab-kid", "x"), "--eab-kid and --eab-key-file go together", id="half-an-account"),
        pytest.param(("--dns", "www.elsewhere.test"), "The name is not proved", id="no-address"),
        pytest.param(("--dns", "*.demo.test"), "The server refused", id="wildcard"),
        pytest.param(("--order-profile", "other"), "invalidProfile", id="profile"),
        pytest.param(("--dns", "a b"), "--dns: ", id="no-name"),
    ],
)
def test_what_the_built_in_client_says(served: RunningServer, options: tuple[str, ...], said: str) -> None:
    done = served.cli("test-enroll", "--protocol", "acme", "--profile", "demo", *options, "--wait", "8", check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    def configure(text: str) -> str:
        data = yaml.safe_load(with_port(text))
        # Nobody is asked for other names than the demo's: a DNS server that answers nothing.
        data["profiles"]["demo"]["endpoints"]["acme"]["validation"]["resolver"] |= {"servers": ["127.0.0.1:1"], "timeout": "1s"}
        return json.dumps(data)

    server = launch(tmp_path_factory.mktemp("acme") / "state", edit=configure)
    yield server
    assert server.stop() == 0


def test_a_reload_opens_changes_and_closes_a_directory(start_server: StartServer) -> None:
    server = start_server(workers=2, edit=with_port)
    browser = Browser(server)
    browser.run(browser.client.register())
    order = browser.ready(NAME)

    def close(data: dict[str, Any]) -> None:
        del data["profiles"]["demo"]["endpoints"]["acme"]

    kept = yaml.safe_load(server.config.read_text())
    edit(server, close)
    assert "Generation 2 is in force" in server.cli("reload").stdout
    assert browser.refused(AcmeClient(browser.client.directory, browser.client.signer).open()).status == 404
    assert browser.refused(browser.client.finalize(order, csr_for(NAME))).status == 404
    kept["profiles"]["demo"]["endpoints"]["acme"] |= {"website": "https://pki.example.com", "authorization_reuse": "1h"}
    server.config.write_text(json.dumps(kept))
    assert "Generation 3 is in force" in server.cli("reload").stdout
    directory = browser.run(AcmeClient(browser.client.directory, browser.client.signer).open())
    assert directory["meta"]["website"] == "https://pki.example.com"
    # What was ordered before goes on, with its account.
    document = browser.run(browser.client.finalize(order, csr_for(NAME)))
    assert document["status"] == "valid"


def test_a_reload_that_contradicts_itself_changes_nothing(start_server: StartServer) -> None:
    server = start_server(edit=with_port)
    edit(server, lambda data: data["profiles"]["demo"]["endpoints"]["acme"]["validation"].pop("allow_cidrs"))
    done = server.cli("reload", check=False)
    assert done.returncode == 1
    assert "http01_port: is for trials on this machine" in done.stderr
    browser = Browser(server)
    browser.run(browser.client.register())
    browser.ready(NAME)


def test_nonces_accounts_and_orders_outlive_a_restart(start_server: StartServer) -> None:
    server = start_server(workers=2, edit=with_port)
    browser = Browser(server)
    browser.run(browser.client.register())
    order = browser.ready(NAME)
    nonce, used = (browser.run(browser.client._nonce()) for _ in range(2))
    browser.client.nonces[:] = [used]
    browser.run(browser.client.account())
    assert server.stop() == 0
    serve_again(server)
    asked = json.dumps({"identifiers": [{"type": "dns", "value": "again.demo.test"}]}).encode()
    url = browser.client.urls["newOrder"]

    def post(with_nonce: str) -> AcmeAnswer:
        body = browser.client.jose(url, asked, with_nonce)
        return browser.send(AcmeRequest("POST", url, {"Content-Type": "application/jose+json"}, body))

    assert post(nonce).status == 201
    for known in (nonce, used):
        refused = AcmeRefusal(post(known))
        assert (refused.status, refused.type) == (400, "badNonce")
    browser.client.nonces.clear()
    assert browser.run(browser.client.finalize(order, csr_for(NAME)))["status"] == "valid"
    found = browser.run(browser.client.register(only_existing=True))
    assert (found.status, found.location) == (200, browser.client.kid)


def slow_ca(text: str, state: Path, seconds: float) -> str:
    """Let another program sign for the demo, which takes its time."""
    data = yaml.safe_load(with_port(text))
    folder = state / "slow"
    folder.mkdir()
    shutil.copy(state / "ca" / "issuing.pem", folder / "ca.pem")
    shutil.copy(state / "secrets" / "issuing.key", folder / "ca.key")
    [program] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    (folder / "sign").write_text(program)
    (folder / "slow").write_text(f"#!{sys.executable} -I\n{SLOW}")
    (folder / "slow").chmod(stat.S_IRWXU)
    data["upstream_cas"]["slow"] = {
        "type": "exec",
        "command": [str(folder / "slow")],
        "chain": ["ca/issuing.pem", "ca/root.pem"],
        "operations": ["find", "revoke"],
        "environment": {"CA_DIR": str(folder), "SECONDS": str(seconds)},
    }
    data["profiles"]["demo"]["upstream_ca"] = "slow"
    data["profiles"]["demo"]["endpoints"]["acme"]["finalize_wait"] = "1s"
    return json.dumps(data)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_a_server_that_ends_while_the_ca_signs(start_server: StartServer, tmp_path: Path, number: signal.Signals) -> None:
    server = start_server(workers=2, edit=lambda text: slow_ca(text, tmp_path / "state", 4))
    browser = Browser(server)
    browser.run(browser.client.register())
    order = browser.ready(NAME)
    csr = csr_for(NAME)
    url = order.document["finalize"]
    answer = browser.run(browser.client.post(url, {"csr": base64.urlsafe_b64encode(csr).rstrip(b"=").decode()}))
    assert answer.document["status"] == "processing"
    assert 0 < answer.retry_after <= 60
    assert answer.location == order.location
    if number is signal.SIGKILL:
        os.killpg(server.process.pid, number)
        server.process.wait(20)
    else:
        assert server.stop() == 0
    serve_again(server)
    document = browser.run(browser.client.wait(order.location))
    assert document["status"] == "valid", document.get("error")
    chain = browser.run(browser.client.certificate(document["certificate"]))
    assert [san.value for san in parse_certificate(chain[0]).sans] == [NAME.value]
    # The same CSR again is the same order, and the CA was asked for one certificate.
    assert browser.run(browser.client.finalize(order, csr))["certificate"] == document["certificate"]
    issued = json.loads(server.cli("certs", "list", "--format", "json").stdout)
    assert len(issued) == 1


def test_a_request_that_waits_for_a_person(start_server: StartServer) -> None:
    def configure(text: str) -> str:
        data = yaml.safe_load(with_port(text))
        data["profiles"]["demo"]["approval"] = "manual"
        data["profiles"]["demo"]["endpoints"]["acme"]["finalize_wait"] = "1s"
        return json.dumps(data)

    server = start_server(workers=2, edit=configure)
    browser = Browser(server)
    browser.run(browser.client.register())
    order = browser.ready(NAME)
    url, csr = order.document["finalize"], base64.urlsafe_b64encode(csr_for(NAME)).rstrip(b"=").decode()
    assert browser.run(browser.client.post(url, {"csr": csr})).document["status"] == "processing"
    [row] = json.loads(server.cli("requests", "list", "--format", "json").stdout)
    server.cli("requests", "approve", row["id"])
    wait_for(lambda: browser.run(browser.client.post(order.location, None)).document["status"] == "valid")


def test_an_external_account_is_required(start_server: StartServer, tmp_path: Path) -> None:
    def require(text: str) -> str:
        return with_port(text).replace("external_account: optional", "external_account: required")

    server = start_server(edit=require)
    refused = server.cli("test-enroll", "--protocol", "acme", "--profile", "demo", check=False)
    assert "externalAccountRequired" in refused.stderr
    made = json.loads(server.cli("eab", "create", "demo", "--owner", "team", "--format", "json").stdout)
    (tmp_path / "key").write_text(made["hmac_key"])
    bound = ("--eab-kid", made["kid"], "--eab-key-file", str(tmp_path / "key"))
    server.cli("test-enroll", "--protocol", "acme", "--profile", "demo", *bound)
    [row] = json.loads(server.cli("certs", "list", "--format", "json").stdout)
    assert row["owner"] == "team"
    used = server.cli("test-enroll", "--protocol", "acme", "--profile", "demo", *bound, check=False)
    assert used.returncode == 1
    assert made["hmac_key"] not in server.log.read_text()
    assert audited(server, "acme.account.created")
    assert not logged(server, "a request failed inside; its client got 500")
