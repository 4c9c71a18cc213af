"""Bouncy Castle's EST client enrolls, renews, gets keys and waits; with its own TLS it ties requests to their connection."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12, serialize_key_and_certificates

from tests.interop.est_site import DIGEST_PASSWORD, Site, write_maker_pair
from tests.interop.observed import approve

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "bouncycastle" / "Driver.java"
JARS = {"bcpkix": "libbcpkix-java", "bcprov": "libbcprov-java", "bcutil": "libbcutil-java", "bctls": "libbctls-java"}
PASSWORD = b"device"


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile the driver against Debian's packages; where there is no Java nothing is asked of it."""
    if shutil.which("javac") is None:
        pytest.skip("javac is missing: Bouncy Castle's client needs a JDK")
    jars = [Path("/usr/share/java") / f"{name}.jar" for name in JARS]
    missing = [JARS[jar.stem] for jar in jars if not jar.exists()]
    if missing:
        message = f"Bouncy Castle is missing: apt-get install {' '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("bouncycastle")
    path = os.pathsep.join(map(str, (folder, *jars)))
    done = subprocess.run(["javac", "-d", folder, "-cp", path, SOURCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return path


@dataclass
class Device:
    """A folder with a device's PKCS#12 file."""

    folder: Path
    classpath: str
    site: Site

    def run(self, command: str, *args: str, label: str | None = None, **properties: str) -> str:
        """Return what the driver says."""
        named = {"label": label, **properties} if label else properties
        options = [f"-D{name}={value}" for name, value in named.items()]
        target = (f"localhost:{self.site.mtls_port}", str(self.folder), self.site.root)
        done = subprocess.run(
            ["java", "-XX:TieredStopAtLevel=1", *options, "-cp", self.classpath, "Driver", command, *target, *args],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def user(self) -> tuple[str, ...]:
        return tuple(self.site.userpass.split(":"))

    @property
    def certificate(self) -> x509.Certificate:
        """The one certificate of the last answer, which belongs to the device's key."""
        [found] = x509.load_pem_x509_certificates((self.folder / "out").read_bytes())
        stored = load_pkcs12((self.folder / "device.p12").read_bytes(), PASSWORD)
        assert stored.key is not None
        assert stored.key.public_key() == found.public_key()
        return found


@pytest.fixture
def device(est_site: Site, classpath: str, tmp_path: Path) -> Device:
    return Device(tmp_path, classpath, est_site)


@pytest.mark.parametrize("label", ["demo", None])
def test_fetches_the_ca_certificates(est_site: Site, device: Device, label: str | None) -> None:
    assert device.run("cacerts", label=label) == "SUCCESS"
    fetched = x509.load_pem_x509_certificates((device.folder / "out").read_bytes())
    assert x509.load_pem_x509_certificate(Path(est_site.root).read_bytes()) in fetched
    assert len(fetched) == 2


def test_reads_the_attributes(device: Device) -> None:
    said, *oids = device.run("csrattrs", label="demo").split(" ")
    assert said == "SUCCESS"
    assert "1.2.840.113549.1.9.14" in oids, "extensionRequest, which is all that it knows"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_enrolls_with_a_password(est_site: Site, device: Device, version: str) -> None:
    """It sends the whole request without a password first, and again when it is asked for one."""
    assert device.run("enroll", f"CN=bc-{version}", *device.user, label="demo", tls=version) == "SUCCESS"
    leaf = device.certificate
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate((est_site.server.state / "ca" / "issuing.pem").read_bytes()))
    assert est_site.asked(f"bc-{version}")[-1] == ("simpleenroll", "issued")


def test_wrong_password_is_refused(device: Device) -> None:
    said = device.run("enroll", "CN=bc-refused", "demo", "wrong", label="demo")
    assert said.startswith("FAILURE 401")


def test_digest_where_it_is_allowed(device: Device) -> None:
    assert device.run("enroll", "CN=bc-digest", "demo", DIGEST_PASSWORD, label="digest") == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == "CN=bc-digest"


def test_renews_with_its_certificate(est_site: Site, device: Device) -> None:
    assert device.run("enroll", "CN=bc-renewing", *device.user, label="demo") == "SUCCESS"
    old = device.certificate
    assert device.run("renew", "CN=bc-renewing", label="demo", shows="true") == "SUCCESS"
    new = device.certificate
    assert (new.subject, new.public_key() == old.public_key()) == (old.subject, False)
    assert est_site.asked("bc-renewing")[-1] == ("simplereenroll", "issued")
    assert device.run("renew", "CN=bc-another", label="demo", shows="true").startswith("FAILURE 403 a renewal keeps subject")


def test_renewal_without_a_certificate_is_refused(device: Device) -> None:
    assert device.run("renew", "CN=bc-nobody", *device.user, label="demo").startswith("FAILURE 403")


def test_its_makers_certificate_enrolls(device: Device) -> None:
    write_maker_pair(device.folder)
    certificate = x509.load_pem_x509_certificate((device.folder / "maker.crt").read_bytes())
    key = load_pem_private_key((device.folder / "maker.key").read_bytes(), None)
    bundle = serialize_key_and_certificates(b"device", key, certificate, None, BestAvailableEncryption(PASSWORD))  # type: ignore[arg-type]
    (device.folder / "device.p12").write_bytes(bundle)
    assert device.run("enroll", "CN=bc-made", label="maker", shows="true") == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == "CN=bc-made"


def test_gets_a_key(device: Device) -> None:
    assert device.run("keygen", "CN=bc-keygen", *device.user, label="demo") == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == "CN=bc-keygen"


def test_ties_its_request_to_the_connection(est_site: Site, device: Device) -> None:
    """tls-unique in challengePassword over TLS 1.2, where the profile demands it (RFC 7030 §3.5)."""
    assert device.run("enroll", "CN=bc-tied", *device.user, label="linked", tls="TLSv1.2", binds="true") == "SUCCESS"
    assert device.certificate.subject.rfc4514_string() == "CN=bc-tied"
    said = device.run("enroll", "CN=bc-untied", *device.user, label="linked", tls="TLSv1.2")
    assert said.startswith("FAILURE 400 the request must be tied to its TLS connection")
    assert est_site.rows()[-1]["reason"] == "bad_proof_of_possession"


def test_a_renewal_is_tied_too(device: Device) -> None:
    how = {"label": "linked", "tls": "TLSv1.2", "binds": "true"}
    assert device.run("enroll", "CN=bc-tied-renewal", *device.user, **how) == "SUCCESS"
    old = device.certificate
    assert device.run("renew", "CN=bc-tied-renewal", **how, shows="true") == "SUCCESS"
    assert device.certificate.public_key() != old.public_key()
    said = device.run("renew", "CN=bc-tied-renewal", label="linked", tls="TLSv1.2", shows="true")
    assert said.startswith("FAILURE 400")


def test_waits_for_approval(device: Device) -> None:
    """It is told when to come back; the certificate is for whoever has the key."""
    said = device.run("enroll", "CN=bc-patient", *device.user, label="waiting")
    assert said.split()[0] == "PENDING"
    assert int(said.split()[1]) > 0
    approve(device.site.server)
