"""libest 3.2 of Debian 13: HTTP/1.0, TLS 1.2, base64 in lines; its exit code is 0 whatever happens."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from gateway.wire.est.messages import decode_base64
from tests.interop.debian13 import Root
from tests.interop.est_site import DIGEST_PASSWORD, Site, est_alone, running
from tests.interop.observed import approve

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]


@dataclass
class Device:
    """A folder inside the root, where libest finds the CA and writes what it gets."""

    root: Root
    folder: Path
    site: Site

    def run(self, *options: str, user: tuple[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run estclient; what it wrote before is taken away."""
        for path in self.folder.glob("*.pkcs7"):
            path.unlink()
        (self.folder / "ca.pem").write_bytes(Path(self.site.root).read_bytes())
        asks = ("-u", user[0], "-h", user[1]) if user else ()
        server = ("-s", "localhost", "-p", str(self.site.mtls_port), "-o", ".", "-w", "20")
        environment = {"EST_OPENSSL_CACERT": "ca.pem"}
        return self.root.run(self.folder, "/usr/bin/estclient", *options, *server, *asks, env=environment)

    @property
    def user(self) -> tuple[str, str]:
        name, _, password = self.site.userpass.partition(":")
        return name, password

    def got(self, pattern: str) -> list[x509.Certificate]:
        """The certificates of the last answer; none where it was a refusal."""
        found = sorted(self.folder.glob(pattern))
        return load_der_pkcs7_certificates(decode_base64(found[-1].read_bytes())) if found else []

    @property
    def certificate(self) -> x509.Certificate:
        [found] = self.got("cert-*.pkcs7")
        return found

    def keep(self) -> None:
        """Keep certificate and key for a renewal."""
        (self.folder / "old.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))
        [key] = self.folder.glob("key-x-x.pem") if (self.folder / "key-x-x.pem").exists() else self.folder.glob("key-*.pem")
        key.rename(self.folder / "old.key")


@pytest.fixture
def device(debian13: Root, est_site: Site, request: pytest.FixtureRequest) -> Device:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return Device(debian13, debian13.folder(f"libest-{name}"), est_site)


def test_fetches_the_ca_certificates(est_site: Site, device: Device) -> None:
    done = device.run("-g")
    assert x509.load_pem_x509_certificate(Path(est_site.root).read_bytes()) in device.got("cacert*.pkcs7"), done


def test_enrolls_with_a_password(est_site: Site, device: Device) -> None:
    done = device.run("-e", "--common-name", "libest-enrolled", user=device.user)
    assert device.got("cert-*.pkcs7"), done
    assert device.certificate.subject.rfc4514_string() == "CN=libest-enrolled"
    [key] = device.folder.glob("key-*.pem")
    assert load_pem_private_key(key.read_bytes(), None).public_key() == device.certificate.public_key()
    assert est_site.asked("libest-enrolled")[-1] == ("simpleenroll", "issued")


def test_wrong_password_is_refused(device: Device) -> None:
    device.run("-e", "--common-name", "libest-refused", user=("demo", "wrong"))
    assert device.got("cert-*.pkcs7") == []


def test_asks_for_the_attributes(device: Device) -> None:
    """To enroll in the same run (-a -e) it adds each to its request, and turns in a circle at the first that it cannot add."""
    done = device.run("-a")
    assert done.returncode == 0, done
    assert b"rror" not in done.stdout + done.stderr


def test_renews_with_its_certificate(est_site: Site, device: Device) -> None:
    device.run("-e", "--common-name", "libest-renewing", user=device.user)
    old = device.certificate
    device.keep()
    done = device.run("-r", "-c", "old.pem", "-k", "old.key")
    assert device.got("cert-*.pkcs7"), done
    assert device.certificate.subject == old.subject
    assert device.certificate.serial_number != old.serial_number
    assert est_site.asked("libest-renewing")[-1] == ("simplereenroll", "issued")


def test_gets_a_key(device: Device) -> None:
    """Its own key is RSA, and so is the one that is drawn: it takes no EC key for one (a part below 256 characters)."""
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, check=True, timeout=60).stdout
    (device.folder / "own.key").write_bytes(key)
    done = device.run("-q", "-x", "own.key", "--common-name", "libest-keygen", user=device.user)
    assert device.got("cert-*.pkcs7"), done
    [drawn] = device.folder.glob("key-*.key")
    public = load_der_private_key(decode_base64(drawn.read_bytes()), None).public_key()
    assert device.certificate.public_key() == public
    assert public != load_pem_private_key(key, None).public_key()


@pytest.fixture
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """It knows no labels in Debian's build: its profiles are served without one."""
    state = tmp_path_factory.mktemp("libest-waiting") / "state"
    with running(state, est_alone("waiting")) as site:
        yield site


def test_waits_for_approval(debian13: Root, waiting: Site) -> None:
    """It sleeps as long as Retry-After says, and asks again as often as it may; the next run asks for the same key."""
    device = Device(debian13, debian13.folder("libest-waits"), waiting)
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, check=True, timeout=60).stdout
    (device.folder / "own.key").write_bytes(key)
    asks = ("-e", "-x", "own.key", "--common-name", "libest-waits")
    with pytest.raises(subprocess.TimeoutExpired):
        device.run(*asks, user=device.user)
    assert ("simpleenroll", "pending") in waiting.asked("libest-waits")
    approve(waiting.server)
    done = device.run(*asks, user=device.user)
    assert device.got("cert-*.pkcs7"), done
    assert waiting.asked("libest-waits")[-1] == ("simpleenroll", "issued")
    [row] = json.loads(waiting.server.cli("certs", "list", "--format", "json").stdout)
    assert row["subject"] == "CN=libest-waits"


@pytest.fixture
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("libest-linked") / "state", est_alone("linked")) as site:
        yield site


def test_ties_its_request_to_the_connection(debian13: Root, linked: Site) -> None:
    """It is asked for its password first, and comes back wanting to resume its session: it must not be let."""
    device = Device(debian13, debian13.folder("libest-linked"), linked)
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, check=True, timeout=60).stdout
    (device.folder / "own.key").write_bytes(key)
    for number in range(8):
        done = device.run("-e", "-z", "-x", "own.key", "--common-name", f"libest-tied-{number}", user=device.user)
        assert device.got("cert-*.pkcs7"), done
    device.run("-e", "-x", "own.key", "--common-name", "libest-untied", user=device.user)
    assert device.got("cert-*.pkcs7") == []
    assert linked.rows()[-1]["reason"] == "bad_proof_of_possession"


@pytest.fixture
def digest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    state = tmp_path_factory.mktemp("libest-digest") / "state"
    with running(state, est_alone("digest")) as site:
        yield site


def test_answers_a_digest(debian13: Root, digest: Site) -> None:
    device = Device(debian13, debian13.folder("libest-digest"), digest)
    done = device.run("-e", "--common-name", "libest-digest", user=("demo", DIGEST_PASSWORD))
    assert device.got("cert-*.pkcs7"), done
