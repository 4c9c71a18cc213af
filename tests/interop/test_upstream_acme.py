"""A whole gateway in front of ACME CAs, pebble and another gateway: names are proved on its own HTTP listener."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.model import SanKind
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from tests.conftest import RunningServer, launch
from tests.interop.settings import Change, edit, policy
from tests.peers import pebble

pytestmark = pytest.mark.interop

WAIT_SECONDS = 60.0


def _behind(section: dict[str, Any]) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["upstream_cas"]["there"] = section
        demo = document["profiles"]["demo"]
        demo["upstream_ca"] = "there"
        demo["endpoints"].pop("acme", None)
        demo["policy"]["san"]["dns"]["wildcards"] = False
        demo["credentials"] = [one for one in demo["credentials"] if one["type"] != "static"]

    return change


@contextmanager
def front(state: Path, start: Callable[[ExitStack, int], dict[str, Any]], *changes: Change) -> Iterator[RunningServer]:
    """Run a gateway in front of the CA that `start` starts once the port of the gateway's HTTP listener is known."""
    with ExitStack() as stack:

        def apply(text: str) -> str:
            port = int(yaml.safe_load(text)["server"]["http"].rpartition(":")[2])
            return edit(_behind(start(stack, port)), *changes)(text)

        server = launch(state, workers=2, edit=apply)
        try:
            yield server
        finally:
            assert server.stop() == 0


def enroll(server: RunningServer, name: str) -> tuple[Certificate, bytes]:
    """Ask by EST, again as long as the answer is to come back; returns the certificate and the public key."""
    key = generate_private_key("rsa-2048")  # pebble gives every key the usages of RSA
    csr = build_csr(key, parse_name_text(f"CN={name}").der, (make_san(SanKind.DNS, name),))
    until = time.monotonic() + WAIT_SECONDS
    statuses = []
    while time.monotonic() < until:
        answer = server.est("simpleenroll", csr, password=server.est_password)
        statuses.append(answer.status)
        if answer.status == 200:
            assert statuses[0] == 202
            return parse_certificate(answer.certificates[0]), public_key_der(key)
        assert answer.status == 202, answer.text
        time.sleep(0.5)
    raise AssertionError(f"no certificate came:\n{server.log.read_text()[-4000:]}")


def test_pebble(tmp_path: Path, require_program: Callable[[str, str], str]) -> None:
    program, found = require_program(pebble.PROGRAM, pebble.PACKAGE), []

    def start(stack: ExitStack, port: int) -> dict[str, Any]:
        peer = stack.enter_context(pebble.running(program, tmp_path / "pebble", web_port=port))
        found.append(peer)
        return peer.section(proof="http")

    validity = policy("demo", "validity", default="2000d", max="2000d")
    with front(tmp_path / "state", start, validity) as server:
        leaf, public_key = enroll(server, "device-1.acme.test")
        peer = found[0]
        assert peer.issued(public_key) == [leaf.der]
        rows = json.loads(server.cli("certs", "list", "--format", "json").stdout)
        assert [row["upstream_ca"] for row in rows] == ["there"]
        assert "the CA knows the account" in server.cli("upstream", "test", "there").stdout
        server.cli("certs", "revoke", leaf.sha256.hex(), "--reason", "superseded")
        assert peer.status(leaf.serial) == "Revoked"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get("/.well-known/acme-challenge/short")


def test_another_gateway(tmp_path: Path) -> None:
    found: list[RunningServer] = []

    def start(stack: ExitStack, port: int) -> dict[str, Any]:
        def validate_there(document: dict[str, Any]) -> None:
            document["profiles"]["demo"]["endpoints"]["acme"]["validation"]["http01_port"] = port

        peer = launch(tmp_path / "other", edit=edit(validate_there))
        stack.callback(peer.stop)
        found.append(peer)
        key = generate_private_key("ec-p256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        pebble.write_key(tmp_path / "account.key", key)
        return {
            "type": "acme",
            "directory": f"https://localhost:{peer.https_port}/acme/demo/directory",
            "connection": {"anchors": str(peer.root)},
            "chain": [str(peer.state / "ca" / "issuing.pem"), str(peer.state / "ca" / "root.pem")],
            "account_key": {"file": str(tmp_path / "account.key")},
            "http01": True,
        }

    with front(tmp_path / "state", start) as server:
        leaf, _ = enroll(server, "device-1.demo.test")
        rows = json.loads(found[0].cli("certs", "list", "--format", "json").stdout)
        assert [row["sha256"] for row in rows] == [leaf.sha256.hex()]
