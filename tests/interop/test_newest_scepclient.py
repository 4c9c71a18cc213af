"""The newest scepclient of micromdm, built from its Go module; it still signs with SHA-1 and encrypts with single DES."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests.conftest import RunningServer, StartServer
from tests.interop.observed import log_lines, operations, rejections
from tests.interop.scepclient import Device
from tests.interop.settings import LEGACY, edit, scep

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]

MODULE = "github.com/micromdm/scep/v2/cmd/scepclient@v2.3.0"
BUILD_SECONDS = 500


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("go") is None:
        pytest.skip("go is missing: the newest scepclient is built from its Go module")
    folder = tmp_path_factory.mktemp("go-bin")
    environment = {**os.environ, "GOBIN": str(folder)}
    command = ["go", "install", MODULE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return str(folder / "scepclient")


@pytest.fixture
def device(rsa_server: RunningServer, program: str, tmp_path: Path) -> Device:
    return Device(tmp_path, program, f"{rsa_server.url}/scep/old")


def new_challenge(server: RunningServer, profile: str) -> str:
    return server.cli("challenge", "new", profile).stdout.strip()


def test_enrolls_and_renews(rsa_server: RunningServer, device: Device) -> None:
    done = device.run("newest", new_challenge(rsa_server, "old"), "-dnsname", "newest.example.org")
    assert done.returncode == 0, done.stderr
    old = device.certificate
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["newest.example.org"]
    done = device.run("newest", "", "-dnsname", "newest.example.org")
    assert done.returncode == 0, done.stderr
    assert device.certificate.serial_number != old.serial_number
    assert operations(rsa_server, "newest") == [("PKCSReq", "issued"), ("RenewalReq", "issued")]


def test_wrong_challenge_is_refused(rsa_server: RunningServer, device: Device) -> None:
    done = device.run("newest-refused", "not-the-challenge")
    assert done.returncode != 0
    assert "badRequest" in done.stdout + done.stderr
    assert rejections(rsa_server)[-1] == "credential_invalid"


def test_sha1_is_refused_where_it_is_off(rsa_server: RunningServer, device: Device) -> None:
    device.url = f"{rsa_server.url}/scep/demo"
    done = device.run("newest-modern", new_challenge(rsa_server, "demo"))
    assert done.returncode != 0
    assert "badAlg (0)" in done.stdout + done.stderr
    assert log_lines(rsa_server)[-1]["reason"] == "unsupported_algorithm"


def test_selects_the_ra_below_an_ec_ca(start_server: StartServer, program: str, tmp_path: Path) -> None:
    server = start_server(edit=edit(scep("demo", legacy=LEGACY)))
    device = Device(tmp_path, program, f"{server.url}/scep/demo")
    assert "only RSA keys are supported" in device.run("unselected", server.new_challenge()).stdout
    done = device.run("selected", server.new_challenge(), "-key-encipherment-selector")
    assert done.returncode == 0, done.stderr
