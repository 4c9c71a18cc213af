"""strongSwan 6 of Debian 13: labels, and base64 however it is broken into lines."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.debian13 import Root
from tests.interop.est_site import Site

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]


@dataclass
class Device:
    """A folder inside the root with strongSwan's files."""

    root: Root
    folder: Path
    site: Site

    def run(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return self.root.run(self.folder, "/usr/bin/pki", *args)

    @property
    def server(self) -> tuple[str, ...]:
        return ("--url", f"https://127.0.0.1:{self.site.mtls_port}", "--cacert", "root.pem")

    def fetch_ca(self, label: str = "demo") -> None:
        (self.folder / "root.pem").write_bytes(Path(self.site.root).read_bytes())
        done = self.run("--estca", *self.server, "--label", label, "--caout", "ca.der", "--force")
        assert done.returncode == 0, done.stderr

    def request(self, subject: str) -> None:
        (self.folder / "key.der").write_bytes(self.run("--gen", "--type", "ecdsa", "--size", "256").stdout)
        done = self.run("--req", "--type", "priv", "--in", "key.der", "--dn", subject)
        assert done.returncode == 0, done.stderr
        (self.folder / "req.der").write_bytes(done.stdout)

    def enroll(self, *options: str, label: str = "demo") -> subprocess.CompletedProcess[bytes]:
        cas = [option for path in sorted(self.folder.glob("ca*.der")) for option in ("--cacert", path.name)]
        return self.run("--est", *self.server, "--label", label, "--in", "req.der", *cas, *options)


@pytest.fixture
def device(debian13: Root, est_site: Site, request: pytest.FixtureRequest) -> Device:
    device = Device(debian13, debian13.folder(f"strongswan-{request.node.name}"), est_site)
    device.fetch_ca()
    return device


def certificate(done: subprocess.CompletedProcess[bytes]) -> x509.Certificate:
    assert done.returncode == 0, done.stderr.decode()
    return x509.load_der_x509_certificate(done.stdout)


def test_enrolls_and_renews_under_a_label(est_site: Site, device: Device) -> None:
    device.request("CN=newest-moon")
    old = certificate(device.enroll("--userpass", est_site.userpass))
    (device.folder / "old.crt").write_bytes(old.public_bytes(Encoding.DER))
    (device.folder / "key.der").rename(device.folder / "old.key")
    device.request("CN=newest-moon")
    new = certificate(device.enroll("--cert", "old.crt", "--key", "old.key"))
    assert (new.subject, new.serial_number == old.serial_number) == (old.subject, False)
    assert est_site.asked("newest-moon") == [("simpleenroll", "issued"), ("simplereenroll", "issued")]


def test_a_wrong_password_and_a_wrong_label_are_refused(est_site: Site, device: Device) -> None:
    device.request("CN=newest-refused")
    assert device.enroll("--userpass", "demo:wrong").returncode != 0
    assert est_site.rows()[-1]["reason"] == "credential_invalid"
    assert device.enroll("--userpass", est_site.userpass, label="nobody").returncode != 0
