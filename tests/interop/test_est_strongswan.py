"""strongSwan's pki enrolls over EST: fetch the CA, enroll, renew, wait, be refused; 5.9.8 knows no labels."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from tests.interop.est_site import Site, est, est_alone, running, write_maker_pair
from tests.interop.observed import approve, rejections
from tests.interop.settings import profile

pytestmark = pytest.mark.interop


@dataclass
class Device:
    """A folder with strongSwan's files and the commands that an operator would type."""

    folder: Path
    program: str
    site: Site

    def run(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program, *args], cwd=self.folder, capture_output=True, timeout=60, check=False)

    def fetch_ca(self) -> list[Path]:
        done = self.run("--estca", "--url", self.site.url, "--cacert", self.site.root, "--caout", "ca.der", "--force")
        assert done.returncode == 0, done.stderr
        return sorted(self.folder.glob("ca*.der"))

    def request(self, subject: str, *options: str, kind: tuple[str, ...] = ("rsa", "2048")) -> None:
        """Make a key and a PKCS#10."""
        (self.folder / "key.der").write_bytes(self.run("--gen", "--type", kind[0], "--size", kind[1]).stdout)
        done = self.run("--req", "--type", "priv", "--in", "key.der", "--dn", subject, *options)
        assert done.returncode == 0, done.stderr
        (self.folder / "req.der").write_bytes(done.stdout)

    def command(self, *options: str) -> list[str]:
        cas = [option for path in sorted(self.folder.glob("ca*.der")) for option in ("--cacert", path.name)]
        return [self.program, "--est", "--url", self.site.url, "--in", "req.der", "--cacert", self.site.root, *cas, *options]

    def enroll(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        return self.run(*self.command(*options)[1:])


def certificate(done: subprocess.CompletedProcess[bytes]) -> x509.Certificate:
    assert done.returncode == 0, done.stderr.decode()
    return x509.load_der_x509_certificate(done.stdout)


def refused(site: Site, done: subprocess.CompletedProcess[bytes], reason: str) -> None:
    assert done.returncode != 0
    assert not done.stdout
    assert site.rows()[-1]["reason"] == reason


@pytest.fixture
def device(est_site: Site, tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    return Device(tmp_path, require_program("pki", "strongswan-pki"), est_site)


def test_fetches_the_ca_chain(est_site: Site, device: Device) -> None:
    fetched = {x509.load_der_x509_certificate(path.read_bytes()) for path in device.fetch_ca()}
    ours = [x509.load_pem_x509_certificate((est_site.server.state / "ca" / f"{n}.pem").read_bytes()) for n in ("root", "issuing")]
    assert fetched == set(ours)


@pytest.mark.parametrize("kind", [("rsa", "2048"), ("rsa", "4096"), ("ecdsa", "256"), ("ecdsa", "521")], ids="-".join)
def test_enrolls_with_a_password(est_site: Site, device: Device, kind: tuple[str, str]) -> None:
    device.fetch_ca()
    device.request(f"C=CH, O=lab, CN=moon-{kind[0]}{kind[1]}", "--san", "moon.example.org", kind=kind)
    leaf = certificate(device.enroll("--userpass", est_site.userpass))
    assert leaf.public_key() == load_der_private_key((device.folder / "key.der").read_bytes(), None).public_key()
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate((est_site.server.state / "ca" / "issuing.pem").read_bytes()))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["moon.example.org"]


def test_enrolls_with_a_one_time_password(est_site: Site, device: Device) -> None:
    device.fetch_ca()
    device.request("CN=one-time-moon", "--password", est_site.server.new_challenge())
    certificate(device.enroll())
    assert est_site.asked("one-time-moon") == [("simpleenroll", "issued")]


@pytest.mark.parametrize("form", ["der", "pem"])
def test_renews_with_its_certificate(est_site: Site, device: Device, form: str) -> None:
    device.fetch_ca()
    subject = f"CN=renewing-{form}"
    device.request(subject, "--san", "renewing.example.org")
    old = certificate(device.enroll("--userpass", est_site.userpass))
    (device.folder / "old.crt").write_bytes(old.public_bytes(Encoding.DER))
    (device.folder / "key.der").rename(device.folder / "old.key")
    device.request(subject, "--san", "renewing.example.org")
    done = device.enroll("--cert", "old.crt", "--key", "old.key", "--outform", form)
    assert done.returncode == 0, done.stderr
    load = x509.load_pem_x509_certificate if form == "pem" else x509.load_der_x509_certificate
    new = load(done.stdout)
    assert (new.subject, new.serial_number == old.serial_number) == (old.subject, False)
    assert est_site.asked(f"renewing-{form}") == [("simpleenroll", "issued"), ("simplereenroll", "issued")]


def test_renewal_under_another_name_is_refused(est_site: Site, device: Device) -> None:
    """It sends simplereenroll with whatever subject it is given."""
    device.fetch_ca()
    device.request("CN=first-name")
    old = certificate(device.enroll("--userpass", est_site.userpass))
    (device.folder / "old.crt").write_bytes(old.public_bytes(Encoding.DER))
    (device.folder / "key.der").rename(device.folder / "old.key")
    device.request("CN=second-name")
    refused(est_site, device.enroll("--cert", "old.crt", "--key", "old.key"), "renewal_refused")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param((), "credential_missing", id="nothing"),
        pytest.param(("--userpass", "demo:wrong"), "credential_invalid", id="wrong-password"),
        pytest.param(("--userpass", "nobody:wrong"), "credential_invalid", id="unknown-user"),
    ],
)
def test_is_refused(est_site: Site, device: Device, options: tuple[str, ...], reason: str) -> None:
    device.fetch_ca()
    device.request("CN=refused-moon")
    refused(est_site, device.enroll(*options), reason)


def test_a_name_against_policy_is_refused(est_site: Site, device: Device) -> None:
    device.fetch_ca()
    device.request("CN=against-policy", "--san", "192.0.2.1")
    refused(est_site, device.enroll("--userpass", est_site.userpass), "policy_san")
    assert rejections(est_site.server)[-1] == "policy_san"


@pytest.fixture
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose default profile makes every request wait for an operator."""
    state = tmp_path_factory.mktemp("est-patient") / "state"
    with running(state, est("patient"), profile("patient", approval="manual"), est_alone("patient")) as site:
        yield site


def test_waits_for_approval(patient: Site, tmp_path: Path, require_program: Callable[[str, str], str]) -> None:
    """It sleeps as long as Retry-After says, whatever --interval; who has no patience types the command again."""
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), patient)
    device.fetch_ca()
    device.request("CN=patient")
    with subprocess.Popen(device.command("--userpass", patient.userpass), cwd=tmp_path, stderr=subprocess.DEVNULL) as command:
        approve(patient.server)
        assert command.poll() is None, "it waits"
        command.kill()
    leaf = certificate(device.enroll("--userpass", patient.userpass))
    assert leaf.subject.rfc4514_string() == "CN=patient"
    assert patient.asked("patient")[-1] == ("simpleenroll", "issued")
    assert set(patient.asked("patient")[:-1]) == {("simpleenroll", "pending")}
    [row] = json.loads(patient.server.cli("certs", "list", "--format", "json").stdout)
    assert row["subject"] == "CN=patient"


def test_a_makers_certificate_renews_nothing(est_site: Site, device: Device) -> None:
    """With --cert it always sends simplereenroll: it cannot enroll with the certificate of another CA."""
    device.fetch_ca()
    write_maker_pair(device.folder)
    device.request("CN=made in a factory")
    refused(est_site, device.enroll("--cert", "maker.crt", "--key", "maker.key"), "unknown_certificate")
