"""Devices that still know the previous RA, and RAs with one certificate to sign and another to decrypt."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningServer, launch
from tests.interop.authorities import issue_ra
from tests.interop.certmonger import run_certmonger
from tests.interop.observed import log_lines
from tests.interop.openssl import OpensslClient
from tests.interop.settings import edit, scep
from tests.interop.strongswan import Device, certificate

pytestmark = pytest.mark.interop

OLD_PAIR = {"certificate": "ca/ra.pem", "key": {"file": "secrets/ra.key"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`demo` has another RA than `init` made and keeps that, `forgetful` does not keep it, `split` has an RA of two pairs."""
    state = tmp_path_factory.mktemp("rollover") / "state"

    def apply(text: str) -> str:
        new = issue_ra(state, "new-ra")
        signing, encryption = issue_ra(state, "signing-ra", decrypts=False), issue_ra(state, "encryption-ra", signs=False)
        return edit(
            scep("demo", ra_certificate=new["certificate"], ra_key=new["key"], previous_ra=[OLD_PAIR]),
            scep("forgetful", ra_certificate=new["certificate"], ra_key=new["key"], previous_ra=[]),
            scep("split", ra_certificate=signing["certificate"], ra_key=signing["key"], ra_encryption=encryption, previous_ra=[]),
        )(text)

    running = launch(state, edit=apply)
    yield running
    assert running.stop() == 0


@pytest.fixture
def device(server: RunningServer, tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    """A device that knows the CA, and the RA that `init` made."""
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), f"{server.url}/scep/demo")
    device.new_key()
    remember(server, "root.pem", tmp_path / "ca.der")
    remember(server, "issuing.pem", tmp_path / "ca-1.der")
    remember(server, "ra.pem", tmp_path / "ra.der")
    return device


def remember(server: RunningServer, name: str, target: Path) -> None:
    pem = str(server.state / "ca" / name)
    subprocess.run(["openssl", "x509", "-in", pem, "-outform", "DER", "-out", str(target)], check=True, timeout=60)


def test_device_that_knows_the_previous_ra_enrolls(server: RunningServer, device: Device) -> None:
    certificate(device.enroll(server.static_challenge, dn="CN=remembers"))


def test_previous_ra_signs_what_answers_it(server: RunningServer, tmp_path: Path) -> None:
    # a device that cached this RA checks replies against it
    client = OpensslClient(tmp_path, f"{server.url}/scep/demo", server.state)
    client.new_key("-algorithm", "RSA")
    client.decrypt(client.verify(client.enroll("remembers-the-signer", server.static_challenge)))
    assert (tmp_path / "signed-by.pem").read_bytes() == (server.state / "ca" / "ra.pem").read_bytes()


def test_device_that_fetches_the_ra_gets_the_new_one(server: RunningServer, device: Device) -> None:
    remember(server, "new-ra.pem", device.folder / "expected.der")
    for old in device.folder.glob("*ca*.der"):
        old.unlink()
    device.fetch_ca()
    assert [path.name for path in device.folder.glob("ra*.der")] == ["ra.der"]
    assert (device.folder / "ra.der").read_bytes() == (device.folder / "expected.der").read_bytes()
    certificate(device.enroll(server.static_challenge, dn="CN=fetched"))


def test_previous_ra_that_is_not_kept_decrypts_nothing(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/forgetful"
    done = device.enroll(server.static_challenge, dn="CN=forgotten")
    assert done.returncode != 0
    assert not done.stdout
    assert log_lines(server)[-1]["outcome"] == "rejected"


def test_split_pairs_serve_a_device_that_tells_them_apart(server: RunningServer, device: Device) -> None:
    device.url = f"{server.url}/scep/split"
    remember(server, "encryption-ra.pem", device.folder / "ra.der")
    remember(server, "signing-ra.pem", device.folder / "ca-signing.der")
    certificate(device.enroll(server.static_challenge, dn="CN=split"))


def test_split_pairs_serve_certmonger(server: RunningServer, require_program: Callable[[str, str], str]) -> None:
    require_program("getcert", "certmonger")
    with tempfile.TemporaryDirectory(prefix="certmonger-") as folder, run_certmonger(Path(folder)) as certmonger:
        certmonger.add_ca("gateway", f"{server.url}/scep/split")
        done = certmonger.request("split", server.static_challenge)
        assert done.returncode == 0, certmonger.listed("split")
