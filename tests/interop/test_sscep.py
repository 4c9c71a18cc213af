"""sscep enrolls, polls, renews, looks up and fetches the next CA; Debian 12, 13 and sid do not carry it."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.conftest import RunningServer, launch
from tests.interop.authorities import issue_ra, issue_root
from tests.interop.observed import approve, operations, rejections
from tests.interop.openssl import REQUEST
from tests.interop.settings import edit, profile, scep

pytestmark = [pytest.mark.interop, pytest.mark.extra]


@pytest.fixture(scope="module")
def program() -> str:
    path = shutil.which("sscep")
    if path is None:
        pytest.skip("sscep is not on PATH: Debian 12, 13 and sid do not carry it")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[RunningServer]:
    """Beside `demo`, for which a next CA is announced: `patient` waits for approval, `split` has an RA of two pairs."""
    state = tmp_path_factory.mktemp("sscep-server") / "state"

    def apply(text: str) -> str:
        issue_root(state, "next-ca")
        signing, encryption = issue_ra(state, "signing-ra", decrypts=False), issue_ra(state, "encryption-ra", signs=False)
        return edit(
            scep("demo", next_ca="ca/next-ca.pem"),
            profile("patient", approval="manual"),
            scep("split", ra_certificate=signing["certificate"], ra_key=signing["key"], ra_encryption=encryption),
        )(text)

    running = launch(state, edit=apply)
    yield running
    assert running.stop() == 0


@dataclass
class Device:
    """A folder with sscep's files; it numbers the CA certificates as they come: `ca-0` is the RA's that signs."""

    folder: Path
    program: str
    url: str
    encryption: str = "ca-0"

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *args, "-u", self.url], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def new_request(self, name: str, common_name: str, challenge: str) -> None:
        line = f"challengePassword = {challenge}" if challenge else ""
        (self.folder / "req.conf").write_text(REQUEST.format(common_name=common_name, challenge=line))
        command = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-config", "req.conf"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.csr"]
        subprocess.run([*command, *files], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def transact(self, operation: str, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        files = ("-c", "ca-0", "-e", self.encryption, "-k", f"{name}.key", "-l", f"{name}.pem")
        return self.run(operation, *files, "-E", "aes256", "-S", "sha256", *args)

    def enroll(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        return self.transact("enroll", name, "-r", f"{name}.csr", *args)

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.pem").read_bytes())


@pytest.fixture
def device(server: RunningServer, program: str, tmp_path: Path) -> Device:
    device = Device(tmp_path, program, f"{server.url}/scep/demo")
    fetch_ca(device)
    return device


def fetch_ca(device: Device) -> None:
    done = device.run("getca", "-c", "ca", "-F", "sha256")
    assert done.returncode == 0, done.stdout + done.stderr


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and "SUCCESS" in done.stdout


def test_enrolls_and_renews(server: RunningServer, device: Device) -> None:
    device.new_request("old", "sscep-renewing", server.new_challenge())
    assert succeeded(device.enroll("old"))
    device.new_request("new", "sscep-renewing", "")
    assert succeeded(device.enroll("new", "-K", "old.key", "-O", "old.pem"))
    assert device.certificate("new").serial_number != device.certificate("old").serial_number
    assert [outcome for _, outcome in operations(server, "sscep-renewing")] == ["issued", "issued"]


def test_wrong_challenge_is_refused(server: RunningServer, device: Device) -> None:
    device.new_request("refused", "sscep-refused", "not-the-challenge")
    done = device.enroll("refused")
    assert done.returncode != 0
    assert "reason: Transaction not permitted or supported" in done.stdout
    assert rejections(server)[-1] == "credential_invalid"


def test_polls_while_approval_is_pending(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/patient"
    device.new_request("patient", "sscep-patient", server.static_challenge)
    command = [device.program, "enroll", "-u", device.url, "-c", "ca-0", "-e", "ca-0", "-k", "patient.key", "-r", "patient.csr"]
    polling = ["-l", "patient.pem", "-E", "aes256", "-S", "sha256", "-t", "1", "-n", "60"]
    process = subprocess.Popen([*command, *polling], cwd=device.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    approve(server)
    _, err = process.communicate(timeout=80)
    assert process.returncode == 0, err
    assert device.certificate("patient").subject.rfc4514_string() == "CN=sscep-patient"


def test_split_pairs_are_told_apart(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/split"
    device.encryption = "ca-1"
    fetch_ca(device)
    device.new_request("split", "sscep-split", server.static_challenge)
    assert succeeded(device.enroll("split"))


def test_looks_up_its_certificate_and_the_crl(server: RunningServer, device: Device) -> None:
    device.new_request("own", "sscep-looks-up", server.new_challenge())
    assert succeeded(device.enroll("own"))
    serial = str(device.certificate("own").serial_number)
    assert succeeded(device.transact("getcert", "own", "-O", "ca-1", "-s", serial, "-w", "found.pem"))
    assert device.certificate("found") == device.certificate("own")
    assert succeeded(device.transact("getcrl", "own", "-O", "own.pem", "-w", "crl.pem"))
    crl = x509.load_pem_x509_crl((device.folder / "crl.pem").read_bytes())
    assert crl.issuer == device.certificate("own").issuer


def test_verifies_the_next_ca(server: RunningServer, device: Device) -> None:
    chain = b"".join((server.state / "ca" / name).read_bytes() for name in ("root.pem", "issuing.pem"))
    (device.folder / "chain.pem").write_bytes(chain)
    done = device.run("getnextca", "-c", "next", "-w", "ca-0", "-C", "chain.pem")
    assert done.returncode == 0, done.stdout + done.stderr
    found = x509.load_pem_x509_certificate((device.folder / "next-0").read_bytes())
    assert found == x509.load_pem_x509_certificate((server.state / "ca" / "next-ca.pem").read_bytes())
