"""EST on a served installation: what `init` writes, certificates in TLS, and what a reload puts in force."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.pki import cms
from gateway.pki.certificate import Certificate, der_to_pem
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, serialize_private_key
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.credentials.passwords import hash_password
from tests.conftest import RunningServer, free_port, launch, with_https_mtls

SUBJECT = parse_name_text("CN=device-1").der


@pytest.fixture(scope="module")
def mtls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, mtls_port: int) -> Iterator[RunningServer]:
    state = tmp_path_factory.mktemp("est") / "state"
    server = launch(state, workers=2, edit=lambda text: with_https_mtls(text, mtls_port))
    yield server
    assert server.stop() == 0


def files(folder: Path, certificate: Certificate, key: PrivateKey) -> tuple[Path, Path]:
    (folder / "device.pem").write_bytes(der_to_pem(certificate.der))
    (folder / "device.key").write_bytes(serialize_private_key(key))
    return folder / "device.pem", folder / "device.key"


@pytest.mark.parametrize("label", ["demo", None], ids=["label", "default"])
def test_the_ca_certificates_of_the_profile(served: RunningServer, label: str | None) -> None:
    shown = [(served.state / name).read_bytes() for name in ("ca/issuing.pem", "ca/root.pem")]
    assert [der_to_pem(der) for der in served.est("cacerts", label=label).certificates] == shown


def test_attributes_are_told(served: RunningServer) -> None:
    assert served.est("csrattrs").csrattrs


def test_the_user_of_init_enrolls(served: RunningServer) -> None:
    certificate, _ = served.enroll_by_est("CN=device-7")
    assert format_name(certificate.subject) == "CN=device-7"
    assert "basic:demo" in served.log.read_text()


@pytest.mark.parametrize("password", [None, "wrong", ""], ids=["none", "wrong", "empty"])
def test_nobody_else_does(served: RunningServer, password: str | None) -> None:
    answer = served.est("simpleenroll", build_csr(generate_private_key("ec-p256"), SUBJECT), password=password)
    assert (answer.status, answer.certificates) == (401, ())


@pytest.mark.parametrize("operation", ["serverkeygen", "fullcmc"])
def test_what_is_not_configured_is_not_found(served: RunningServer, operation: str) -> None:
    csr = build_csr(generate_private_key("ec-p256"), SUBJECT)
    assert served.est(operation, csr, password=served.est_password).status == 404


def test_a_device_renews_with_its_certificate(served: RunningServer, mtls_port: int, tmp_path: Path) -> None:
    certificate, key = served.enroll_by_est("CN=device-8")
    client, new = files(tmp_path, certificate, key), generate_private_key("ec-p256")
    csr = build_csr(new, certificate.subject.der)
    assert served.est("simplereenroll", csr, client=client).status in {401, 403}  # https asks for no certificate
    renewed = served.est("simplereenroll", csr, client=client, port=mtls_port)
    assert (renewed.status, len(renewed.certificates)) == (200, 1)
    again = build_csr(generate_private_key("ec-p256"), certificate.subject.der)
    assert served.est("simplereenroll", again, client=client, port=mtls_port).status == 403


def test_the_gateways_own_certificates_are_nobody(served: RunningServer, mtls_port: int) -> None:
    own = (served.state / "tls" / "server.pem", served.state / "secrets" / "tls.key")
    csr = build_csr(generate_private_key("ec-p256"), parse_name_text("CN=localhost").der)
    with pytest.raises(OSError, match=r"alert|EOF|reset|closed"):
        served.est("simplereenroll", csr, client=own, port=mtls_port)


def test_a_reload_changes_passwords_and_endpoints(tmp_path: Path) -> None:
    server = launch(tmp_path / "state", workers=2)
    try:
        server.enroll_by_est()
        users = server.state / "secrets" / "demo-est-users"
        users.write_text(f"demo:{hash_password(b'another')}\n")
        data = yaml.safe_load(server.config.read_text())
        data["profiles"]["demo"]["endpoints"]["est"] = {"label": "ca:1", "csrattrs": "off"}
        server.config.write_text(json.dumps(data))
        server.enroll_by_est()  # nothing of it is in force yet
        server.cli("reload")
        csr = build_csr(generate_private_key("ec-p256"), SUBJECT)
        assert server.est("simpleenroll", csr, label="ca:1", password=server.est_password).status == 401
        server.enroll_by_est(label="ca:1", password="another")
        assert [server.est("cacerts", label=label).status for label in ("demo", None)] == [404, 404]
        assert server.est("csrattrs", label="ca:1").csrattrs is None
    finally:
        assert server.stop() == 0


def test_a_file_of_users_that_cannot_be_read_keeps_the_old_one(tmp_path: Path) -> None:
    server = launch(tmp_path / "state")
    try:
        (server.state / "secrets" / "demo-est-users").write_text("demo:secret in plain text\n")
        refused = server.cli("reload", check=False)
        assert refused.returncode != 0
        assert re.search(
            r"profiles\.demo\.credentials\[\d\]\.users: file secrets/demo-est-users", refused.stdout + refused.stderr
        )
        assert "plain text" not in refused.stdout + refused.stderr + server.log.read_text()
        server.enroll_by_est()
    finally:
        assert server.stop() == 0


def test_rollover_certificates_are_given_out(tmp_path: Path) -> None:
    def add(text: str) -> str:
        data = yaml.safe_load(text)
        data["profiles"]["demo"]["endpoints"]["est"]["rollover"] = "ca/root.pem"
        return json.dumps(data)

    server = launch(tmp_path / "state", edit=add)
    try:
        body = server.est("cacerts").certificates
        assert len(body) == 2  # the root is in the chain already
        assert cms.certs_only(body)
    finally:
        assert server.stop() == 0
