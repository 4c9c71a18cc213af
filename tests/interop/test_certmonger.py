"""certmonger and its scep-submit, which uses GET, the CA identifier `0`, and compares media types exactly."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.conftest import RunningServer
from tests.interop.certmonger import SUBMIT, Certmonger, run_certmonger
from tests.interop.observed import approve, operations, rejections

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def certmonger(require_program: Callable[[str, str], str]) -> Iterator[Certmonger]:
    require_program("getcert", "certmonger")
    with tempfile.TemporaryDirectory(prefix="certmonger-") as folder, run_certmonger(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def enrolling(certmonger: Certmonger, server: RunningServer) -> Certmonger:
    """A daemon that knows the server; its issuing CA has an EC key, its RA an RSA key."""
    certmonger.add_ca("gateway", f"{server.url}/scep/demo")
    return certmonger


def new_challenge(server: RunningServer, profile: str = "demo") -> str:
    return server.cli("challenge", "new", profile).stdout.strip()


def test_enrolls(server: RunningServer, enrolling: Certmonger) -> None:
    done = enrolling.request("enrolled", new_challenge(server), "-D", "enrolled.example.org")
    assert done.returncode == 0, done.stdout
    assert enrolling.listed("enrolled")["status"] == "MONITORING"
    leaf = enrolling.certificate("enrolled")
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate((server.state / "ca" / "issuing.pem").read_bytes()))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["enrolled.example.org"]


@pytest.mark.parametrize("command", [pytest.param("resubmit", id="same key"), pytest.param("rekey", id="new key")])
def test_renews_with_its_certificate(server: RunningServer, enrolling: Certmonger, command: str) -> None:
    name = f"renewed-by-{command}"
    assert enrolling.request(name, new_challenge(server)).returncode == 0
    old = enrolling.certificate(name)
    done = enrolling.getcert(command, "-i", name, "-w")
    assert done.returncode == 0, done.stdout
    new = enrolling.certificate(name)
    assert new.serial_number != old.serial_number
    assert new.subject == old.subject
    assert (new.public_key() == old.public_key()) == (command == "resubmit")
    assert [outcome for _, outcome in operations(server, name)] == ["issued", "issued"]


def test_wrong_challenge_is_refused(server: RunningServer, enrolling: Certmonger) -> None:
    assert enrolling.request("refused", "not-the-challenge").returncode == 2
    listed = enrolling.listed("refused")
    assert (listed["status"], listed["stuck"]) == ("CA_REJECTED", "yes")
    # certmonger's words for badRequest: it could read the reply, whose content is an empty OCTET STRING
    assert listed["ca-error"] == "Transaction either is not permitted or is not supported by server."
    assert rejections(server)[-1] == "credential_invalid"


def test_polls_while_approval_is_pending(rsa_server: RunningServer, certmonger: Certmonger) -> None:
    certmonger.add_ca("slow-gateway", f"{rsa_server.url}/scep/patient")
    certmonger.request("patient-certmonger", new_challenge(rsa_server, "patient"), ca="slow-gateway", wait=False)
    certmonger.wait_for("patient-certmonger", "CA_WORKING")
    approve(rsa_server)
    assert certmonger.getcert("refresh", "-i", "patient-certmonger").returncode == 0
    certmonger.wait_for("patient-certmonger", "MONITORING")
    assert certmonger.certificate("patient-certmonger").subject.rfc4514_string() == "CN=patient-certmonger"


def test_scep_submit_reads_what_the_server_can_do(server: RunningServer, enrolling: Certmonger) -> None:
    command = [str(SUBMIT), "-u", f"{server.url}/scep/demo"]
    done = subprocess.run([*command, "-c"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert {"AES", "POSTPKIOperation", "Renewal", "SCEPStandard", "SHA-256"} <= set(done.stdout.split())
    done = subprocess.run([*command, "-C"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    # in its own order: the RA, what it takes for the CA, others
    found = x509.load_pem_x509_certificates(done.stdout.encode())
    files = [server.state / "ca" / name for name in ("ra.pem", "root.pem", "issuing.pem")]
    assert found == [x509.load_pem_x509_certificate(file.read_bytes()) for file in files]
