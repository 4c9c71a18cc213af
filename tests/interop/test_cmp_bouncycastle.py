"""Bouncy Castle's CMP classes: MACs and signatures that they make and verify, drawn keys, encrypted certificates."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tests.interop.cmp_site import CmpSite

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "bouncycastle" / "CmpDriver.java"
JARS = {"bcpkix": "libbcpkix-java", "bcprov": "libbcprov-java", "bcutil": "libbcutil-java"}
SUCCESS = "SUCCESS"


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile the driver against Debian's packages."""
    if shutil.which("javac") is None:
        pytest.skip("javac is missing: Bouncy Castle's classes need a JDK")
    jars = [Path("/usr/share/java") / f"{name}.jar" for name in JARS]
    if missing := [JARS[jar.stem] for jar in jars if not jar.exists()]:
        pytest.skip(f"Bouncy Castle is missing: apt-get install {' '.join(missing)}")
    folder = tmp_path_factory.mktemp("cmp-bouncycastle")
    path = os.pathsep.join(map(str, (folder, *jars)))
    done = subprocess.run(["javac", "-d", folder, "-cp", path, SOURCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return path


@dataclass
class Device:
    """A folder with a device's certificate and key."""

    folder: Path
    classpath: str
    site: CmpSite
    profile: str = "demo"

    def run(self, command: str, subject: str = "", *, secret: bool = False, **properties: object) -> str:
        """Return what the driver says; it verifies every answer."""
        known = dict(zip(("ref", "secret"), self.site.secret(self.profile), strict=True)) if secret else {}
        options = [f"-D{name}={value}" for name, value in {**known, **properties}.items()]
        url = f"{self.site.server.url}/.well-known/cmp/p/{self.profile}"
        line = ["java", "-XX:TieredStopAtLevel=1", *options, "-cp", self.classpath, "CmpDriver", command, url, str(self.folder)]
        done = subprocess.run([*line, subject], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def certificate(self) -> x509.Certificate:
        """What came of the last request; the key belongs to it."""
        found = x509.load_der_x509_certificate((self.folder / "own.crt").read_bytes())
        key = load_der_private_key((self.folder / "own.key").read_bytes(), None)
        assert key.public_key() == found.public_key()
        return found


@pytest.fixture
def device(cmp_site: CmpSite, classpath: str, tmp_path: Path) -> Device:
    return Device(tmp_path, classpath, cmp_site)


@pytest.mark.parametrize("pbmac1", ["false", "true"])
@pytest.mark.parametrize("profile", ["demo", "careful"])
def test_enrolls_under_a_secret(device: Device, pbmac1: str, profile: str) -> None:
    """PasswordBasedMac and PBMAC1; its sender is CN=reference, so RFC 9483 takes it too."""
    device.profile = profile
    name = f"CN=bc-{profile}-{pbmac1}"
    assert device.run("ir", name, secret=True, pbmac1=pbmac1) == SUCCESS
    assert device.certificate.subject.rfc4514_string() == name


@pytest.mark.parametrize("algorithm", ["EC", "RSA"])
@pytest.mark.parametrize("pvno", [2, 3])
def test_updates_and_revokes_with_its_certificate(device: Device, algorithm: str, pvno: int) -> None:
    how: dict[str, Any] = {"algorithm": algorithm, "pvno": pvno}
    name = f"CN=bc-life-{algorithm}-{pvno}"
    assert device.run("ir", name, secret=True, **how) == SUCCESS
    first = device.certificate
    assert device.run("kur", name, **how) == SUCCESS
    assert device.certificate.serial_number != first.serial_number
    assert device.run("genm", **how) == SUCCESS
    assert device.run("rr", **how) == SUCCESS
    assert device.run("rr", **how).startswith("FAILURE")
    assert sum(row["revoked_at"] is not None for row in device.site.certificates(name.removeprefix("CN="))) == 1


def test_proves_possession_by_the_secret_too(device: Device) -> None:
    """A poposkInput with publicKeyMAC, where the template has no subject (RFC 4211 §4.1)."""
    assert device.run("ir", "bc-proof.example.test", secret=True, proof="mac") == SUCCESS
    names = device.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["bc-proof.example.test"]


def test_decrypts_its_certificate(device: Device) -> None:
    """CMP version 3: an EnvelopedData for the RSA key that is certified."""
    how: dict[str, Any] = {"algorithm": "RSA", "proof": "encrypted", "pvno": 3}
    assert device.run("ir", "CN=bc-encrypted", secret=True, **how) == SUCCESS
    assert device.certificate.subject.rfc4514_string() == "CN=bc-encrypted"


def test_gets_a_key(device: Device) -> None:
    """CMP version 3: an AsymmetricKeyPackage, signed, for whoever knows the secret."""
    assert device.run("keygen", "CN=bc-keygen", secret=True, pvno=3) == SUCCESS
    assert device.certificate.subject.rfc4514_string() == "CN=bc-keygen"


def test_refusals(device: Device) -> None:
    assert device.run("ir", "CN=bc-wrong", secret=True, pbmac1="true") == SUCCESS
    said = device.run("cr", "CN=bc-somebody-else")
    assert said.startswith("FAILURE 2"), "a certificate renews its own names"
