"""Debian's scepclient (micromdm 2.1.0), which signs with SHA-1 and encrypts with single DES whatever the server offers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.conftest import RunningServer
from tests.interop.observed import log_lines, operations, rejections
from tests.interop.scepclient import Device

pytestmark = pytest.mark.interop


@pytest.fixture
def device(rsa_server: RunningServer, tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    return Device(tmp_path, require_program("scepclient", "scep"), f"{rsa_server.url}/scep/old")


def new_challenge(server: RunningServer, profile: str) -> str:
    return server.cli("challenge", "new", profile).stdout.strip()


def test_enrolls(rsa_server: RunningServer, device: Device) -> None:
    done = device.run("enrolled", new_challenge(rsa_server, "old"))
    assert done.returncode == 0, done.stderr
    key = load_pem_private_key((device.folder / "key.pem").read_bytes(), None)
    assert device.certificate.public_key() == key.public_key()
    issuing = x509.load_pem_x509_certificate((rsa_server.state / "ca" / "issuing.pem").read_bytes())
    device.certificate.verify_directly_issued_by(issuing)


def test_renews_with_its_certificate(rsa_server: RunningServer, device: Device) -> None:
    assert device.run("renewing", new_challenge(rsa_server, "old")).returncode == 0
    old = device.certificate
    done = device.run("renewing")
    assert done.returncode == 0, done.stderr
    assert device.certificate.serial_number != old.serial_number
    assert device.certificate.subject == old.subject
    assert operations(rsa_server, "renewing") == [("PKCSReq", "issued"), ("RenewalReq", "issued")]


def test_legacy_algorithms_are_named_in_the_log(rsa_server: RunningServer, device: Device) -> None:
    assert device.run("counted", new_challenge(rsa_server, "old")).returncode == 0
    assert {"sha1", "des-cbc"} <= set(log_lines(rsa_server)[-1]["legacy"].split())


def test_wrong_challenge_is_refused(rsa_server: RunningServer, device: Device) -> None:
    done = device.run("refused", "not-the-challenge")
    assert done.returncode != 0
    assert "badRequest" in done.stdout + done.stderr
    assert rejections(rsa_server)[-1] == "credential_invalid"


def test_legacy_algorithms_are_refused_where_they_are_off(rsa_server: RunningServer, device: Device) -> None:
    device.url = f"{rsa_server.url}/scep/demo"
    done = device.run("modern", new_challenge(rsa_server, "demo"))
    assert done.returncode != 0
    assert "badAlg (0)" in done.stdout + done.stderr
    assert log_lines(rsa_server)[-1]["reason"] == "unsupported_algorithm"
    assert not (device.folder / "certificate.pem").exists()
