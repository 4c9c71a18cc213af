"""Devices that still know the previous RA, and RAs with one certificate to sign and another to decrypt."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer
from tests.interop.authorities import issue_ra
from tests.interop.certmonger import run_certmonger
from tests.interop.observed import log_lines
from tests.interop.settings import edit, scep
from tests.interop.strongswan import Device, certificate

pytestmark = pytest.mark.interop

OLD_PAIR = {"certificate": "ca/ra.pem", "key": {"file": "secrets/ra.key"}}


def roll_over(state: Path, *, keep_old: bool) -> Callable[[str], str]:
    """Put another RA in force than the one that `init` made."""

    def apply(text: str) -> str:
        new = issue_ra(state, "next-ra")
        current = {"ra_certificate": new["certificate"], "ra_key": new["key"]}
        return edit(scep("demo", **current, previous_ra=[OLD_PAIR] if keep_old else []))(text)

    return apply


def split_pairs(state: Path) -> Callable[[str], str]:
    """One RA certificate for signatures, another for encryption."""

    def apply(text: str) -> str:
        signing = issue_ra(state, "signing-ra", decrypts=False)
        encryption = issue_ra(state, "encryption-ra", signs=False)
        current = {"ra_certificate": signing["certificate"], "ra_key": signing["key"]}
        return edit(scep("demo", **current, ra_encryption=encryption))(text)

    return apply


def to_der(state: Path, name: str, target: Path) -> None:
    subprocess.run(["openssl", "x509", "-in", state / "ca" / name, "-outform", "DER", "-out", target], check=True, timeout=60)


@pytest.fixture
def device(tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), "")
    device.new_key()
    return device


def remember(device: Device, server: RunningServer, ra: str = "ra.pem") -> None:
    """Give the device what it fetched when `ra` was in force."""
    device.url = f"{server.url}/scep/demo"
    to_der(server.state, "root.pem", device.folder / "ca.der")
    to_der(server.state, "issuing.pem", device.folder / "ca-1.der")
    to_der(server.state, ra, device.folder / "ra.der")


def test_device_that_knows_the_previous_ra_enrolls(start_server: StartServer, tmp_path: Path, device: Device) -> None:
    server = start_server(edit=roll_over(tmp_path / "state", keep_old=True))
    remember(device, server)
    certificate(device.enroll(server.new_challenge(), dn="CN=remembers"))


def test_device_that_fetches_the_ra_gets_the_new_one(start_server: StartServer, tmp_path: Path, device: Device) -> None:
    server = start_server(edit=roll_over(tmp_path / "state", keep_old=True))
    device.url = f"{server.url}/scep/demo"
    device.fetch_ca()
    to_der(server.state, "next-ra.pem", tmp_path / "expected.der")
    assert [path.name for path in tmp_path.glob("ra*.der")] == ["ra.der"]
    assert (tmp_path / "ra.der").read_bytes() == (tmp_path / "expected.der").read_bytes()
    certificate(device.enroll(server.new_challenge(), dn="CN=fetched"))


def test_previous_ra_that_is_not_kept_decrypts_nothing(start_server: StartServer, tmp_path: Path, device: Device) -> None:
    server = start_server(edit=roll_over(tmp_path / "state", keep_old=False))
    remember(device, server)
    done = device.enroll(server.new_challenge(), dn="CN=forgotten")
    assert done.returncode != 0
    assert not done.stdout
    assert log_lines(server)[-1]["outcome"] == "rejected"
    assert json.loads(server.cli("certs", "list", "--format", "json").stdout) == []


def test_split_pairs_serve_a_device_that_tells_them_apart(start_server: StartServer, tmp_path: Path, device: Device) -> None:
    server = start_server(edit=split_pairs(tmp_path / "state"))
    remember(device, server, "encryption-ra.pem")
    to_der(server.state, "signing-ra.pem", tmp_path / "ca-signing.der")
    certificate(device.enroll(server.new_challenge(), dn="CN=split"))


def test_split_pairs_serve_certmonger(
    start_server: StartServer, tmp_path: Path, require_program: Callable[[str, str], str]
) -> None:
    require_program("getcert", "certmonger")
    server = start_server(edit=split_pairs(tmp_path / "state"))
    with tempfile.TemporaryDirectory(prefix="certmonger-") as folder, run_certmonger(Path(folder)) as certmonger:
        certmonger.add_ca("gateway", f"{server.url}/scep/demo")
        done = certmonger.request("split", server.new_challenge())
        assert done.returncode == 0, certmonger.listed("split")
