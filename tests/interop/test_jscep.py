"""jscep enrolls, polls, renews and looks up; it writes BER with indefinite lengths and sends cmsAlgorithmProtection."""

import os
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
from tests.interop.settings import edit, profile, scep

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]

SOURCE = Path(__file__).parent / "jscep"
BUILD_SECONDS = 500


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the driver with jscep from Maven's registry, outside the tree."""
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: jscep needs Java 17 and Maven")
    folder = tmp_path_factory.mktemp("jscep") / "driver"
    shutil.copytree(SOURCE, folder)
    command = ["mvn", "-q", "-B", "package", "dependency:copy-dependencies", "-DoutputDirectory=target/lib"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout
    return os.pathsep.join((str(folder / "target" / "classes"), str(folder / "target" / "lib" / "*")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Beside `demo`, for which a next CA is announced: `patient` waits for approval, `split` has an RA of two pairs."""
    state = tmp_path_factory.mktemp("jscep-server") / "state"

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
    """A folder with a device's PKCS#12 file."""

    folder: Path
    classpath: str
    url: str

    def run(self, command: str, *args: str) -> str:
        done = subprocess.run(
            ["java", "-cp", self.classpath, "Driver", command, self.url, str(self.folder), *args],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def out(self) -> bytes:
        return (self.folder / "out").read_bytes()

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.out)


@pytest.fixture
def device(server: RunningServer, classpath: str, tmp_path: Path) -> Device:
    return Device(tmp_path, classpath, f"{server.url}/scep/demo")


def issuing(server: RunningServer) -> x509.Certificate:
    return x509.load_pem_x509_certificate((server.state / "ca" / "issuing.pem").read_bytes())


def test_enrolls(server: RunningServer, device: Device) -> None:
    assert device.run("enroll", "CN=jscep-enrolled", server.new_challenge()) == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == "CN=jscep-enrolled"
    device.certificate.verify_directly_issued_by(issuing(server))


def test_wrong_challenge_is_refused(server: RunningServer, device: Device) -> None:
    assert device.run("enroll", "CN=jscep-refused", "not-the-challenge") == "FAILURE badRequest"
    assert rejections(server)[-1] == "credential_invalid"


def test_renews_with_its_certificate(rsa_server: RunningServer, device: Device) -> None:
    # jscep tries its own RSA key on the certificate's signature, to see whether it is self-signed: the CA's must be RSA too
    device.url = f"{rsa_server.url}/scep/demo"
    assert device.run("enroll", "CN=jscep-renewing", rsa_server.new_challenge()) == "SUCCESS"
    old = device.certificate
    assert device.run("renew", "CN=jscep-renewing") == "SUCCESS"
    assert device.certificate.subject == old.subject
    assert device.certificate.public_key() != old.public_key()
    assert operations(rsa_server, "jscep-renewing") == [("PKCSReq", "issued"), ("PKCSReq", "issued")]  # it knows no RenewalReq


def test_polls_while_approval_is_pending(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/patient"
    subject = "CN=jscep-patient"
    pending, transaction = device.run("enroll", subject, server.static_challenge).split(" ")
    assert pending == "PENDING"
    assert device.run("poll", subject, transaction) == f"PENDING {transaction}"
    approve(server)
    assert device.run("poll", subject, transaction) == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == subject


def test_split_pairs_are_told_apart(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/split"
    assert device.run("enroll", "CN=jscep-split", server.static_challenge) == "SUCCESS"


def test_looks_up_its_certificate(server: RunningServer, device: Device) -> None:
    assert device.run("enroll", "CN=jscep-looks-up", server.new_challenge()) == "SUCCESS"
    own = device.certificate
    assert device.run("certificate", str(own.serial_number)) == "SUCCESS"
    assert device.certificate == own
    assert device.run("certificate", str(own.serial_number + 1)) == "FAILURE badCertId"


def test_looks_up_the_crl(server: RunningServer, device: Device) -> None:
    assert device.run("enroll", "CN=jscep-crl", server.new_challenge()) == "SUCCESS"
    assert device.run("crl") == "SUCCESS"
    crl = x509.load_der_x509_crl(device.out)
    assert crl.is_signature_valid(issuing(server).public_key())  # type: ignore[arg-type]


def test_verifies_the_next_ca(server: RunningServer, device: Device) -> None:
    assert device.run("next-ca") == "SUCCESS"
    next_ca = x509.load_pem_x509_certificate((server.state / "ca" / "next-ca.pem").read_bytes())
    assert next_ca in x509.load_pem_x509_certificates(device.out)
