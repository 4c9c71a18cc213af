"""The CMP signer of a running server: another one is in force after a reload, one that does not serve never is."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import yaml

from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.keys import serialize_private_key
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import encode_message
from gateway.wire.cmp.messages import decode_parts
from tests.conftest import RunningServer, StartServer


def signer_of_answers(server: RunningServer) -> bytes | None:
    """Return the senderKID of what answers a message that nobody protected."""
    sent = encode_message(requests.genm(()), None, now=datetime.now(UTC).replace(microsecond=0))
    asked = urllib.request.Request(
        f"{server.url}/.well-known/cmp/p/demo", sent.message, {"Content-Type": "application/pkixcmp"}, method="POST"
    )
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return decode_parts(reply.read()).header.sender_kid


def change_signer(server: RunningServer, certificate: Path, key: Path) -> None:
    config = yaml.safe_load(server.config.read_text())
    config["profiles"]["demo"]["endpoints"]["cmp"]["signer"] = {"certificate": str(certificate), "key": {"file": str(key)}}
    server.config.write_text(json.dumps(config))


def read(path: Path) -> Certificate:
    return parse_certificate(pem_to_ders(path.read_bytes())[0])


def test_a_reload_replaces_the_signer(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(workers=2)
    first = read(server.state / "ca" / "cmp.pem")
    assert signer_of_answers(server) == first.subject_key_id
    other, key = server.enroll_by_est("CN=CMP signer")
    certificate, secret = tmp_path / "signer.pem", tmp_path / "signer.key"
    certificate.write_bytes(der_to_pem(other.der))
    secret.write_bytes(serialize_private_key(key))
    secret.chmod(0o600)
    change_signer(server, certificate, secret)
    server.cli("reload")
    assert {signer_of_answers(server) for _ in range(8)} == {other.subject_key_id}
    change_signer(server, server.state / "ca" / "issuing.pem", server.state / "secrets" / "issuing.key")
    refused = server.cli("reload", check=False)
    assert refused.returncode == 1
    assert "profiles.demo.endpoints.cmp.signer" in refused.stdout + refused.stderr
    assert {signer_of_answers(server) for _ in range(8)} == {other.subject_key_id}
