"""strongSwan's pki enrolls over SCEP: fetch the RA, enroll, retry, renew, poll, and be refused."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tests.conftest import RunningServer, StartServer
from tests.interop.observed import approve, audit_rows, log_lines, operations
from tests.interop.settings import edit, profile
from tests.interop.strongswan import Device, certificate

pytestmark = pytest.mark.interop


@pytest.fixture
def device(server: RunningServer, tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), f"{server.url}/scep/demo")
    device.fetch_ca()
    device.new_key()
    return device


def test_one_time_challenge_enrolls(server: RunningServer, device: Device) -> None:
    leaf = certificate(device.enroll(server.new_challenge(), "--san", "moon.example.org"))
    key = load_der_private_key((device.folder / "device.key").read_bytes(), None)
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=moon"
    issuer = x509.load_pem_x509_certificate((server.state / "ca" / "issuing.pem").read_bytes())
    leaf.verify_directly_issued_by(issuer)


def test_static_challenge_enrolls(server: RunningServer, device: Device) -> None:
    certificate(device.enroll(server.static_challenge, dn="C=CH, O=lab, CN=static-moon"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--digest", "sha256"), id="sha256"),
        pytest.param(("--digest", "sha384"), id="sha384"),
        pytest.param(("--digest", "sha512"), id="sha512"),
        pytest.param(("--rsa-padding", "pss"), id="rsassa-pss"),
    ],
)
def test_algorithms_of_the_client(server: RunningServer, device: Device, options: tuple[str, ...]) -> None:
    certificate(device.enroll(server.new_challenge(), *options))


def test_renewal_with_the_old_certificate(server: RunningServer, device: Device) -> None:
    old = certificate(device.enroll(server.new_challenge(), dn="CN=renewing-moon"))
    (device.folder / "old.der").write_bytes(device.enroll(server.new_challenge(), dn="CN=renewing-moon").stdout)
    device.new_key("new.key")
    new = certificate(device.enroll(None, "--cert", "old.der", "--key", "device.key", dn="CN=renewing-moon", key="new.key"))
    assert new.serial_number != old.serial_number
    assert new.subject == old.subject


def refused(server: RunningServer, device: Device, challenge: str | None, reason: str, **kwargs: str) -> None:
    before = len(audit_rows(server))
    done = device.enroll(challenge, **kwargs)
    assert done.returncode != 0
    assert not done.stdout
    assert b"failInfo" in done.stderr or b"fail" in done.stderr.lower(), done.stderr
    rows = audit_rows(server)[before:]
    assert [row["reason"] for row in rows if row["event"] == "enrollment.rejected"] == [reason]


def test_no_challenge_is_refused(server: RunningServer, device: Device) -> None:
    refused(server, device, None, "credential_missing")


def test_wrong_challenge_is_refused(server: RunningServer, device: Device) -> None:
    refused(server, device, "not-the-challenge", "credential_invalid")


def test_used_challenge_is_refused_for_another_key(server: RunningServer, device: Device) -> None:
    challenge = server.new_challenge()
    certificate(device.enroll(challenge))
    device.new_key("other.key")
    refused(server, device, challenge, "credential_used", key="other.key")


def test_revoked_challenge_is_refused(server: RunningServer, device: Device) -> None:
    challenge = server.new_challenge()
    [row] = [r for r in json.loads(server.cli("challenge", "list", "--format", "json").stdout) if not r.get("used_by")][:1]
    server.cli("challenge", "revoke", row["id"])
    refused(server, device, challenge, "credential_revoked")


def test_bound_challenge_is_refused_for_another_name(server: RunningServer, device: Device) -> None:
    refused(server, device, server.new_challenge("--subject", "CN=sun"), "name_not_bound")


def test_foreign_profiles_challenge_is_refused(
    start_server: StartServer, tmp_path: Path, require_program: Callable[[str, str], str]
) -> None:
    server = start_server(edit=edit(profile("other")))
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), f"{server.url}/scep/demo")
    device.fetch_ca()
    device.new_key()
    foreign = server.cli("challenge", "new", "other").stdout.strip()
    refused(server, device, foreign, "credential_invalid")
    device.url = f"{server.url}/scep/other"
    certificate(device.enroll(foreign))


def test_manual_approval_answers_the_poll(
    start_server: StartServer, tmp_path: Path, require_program: Callable[[str, str], str]
) -> None:
    server = start_server(edit=edit(profile("demo", approval="manual")))
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), f"{server.url}/scep/demo")
    device.fetch_ca()
    device.new_key()
    challenge = server.new_challenge()
    command = subprocess.Popen(
        [device.program, "--scep", "--url", device.url, "--in", "device.key", "--dn", "CN=patient", "--password", challenge,
         "--cacert-enc", "ra.der", "--cacert-sig", "ca-1.der" if (tmp_path / "ca-1.der").exists() else "ca.der",
         "--cacert", "ca.der", "--interval", "1", "--maxpolltime", "30"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    approve(server)
    out, err = command.communicate(timeout=40)
    assert command.returncode == 0, err
    assert x509.load_der_x509_certificate(out).subject.rfc4514_string() == "CN=patient"
    asked, *polls, got = operations(server, "patient")
    assert (asked, got) == (("PKCSReq", "pending"), ("CertPoll", "issued"))
    assert set(polls) <= {("CertPoll", "pending")}, "it asks every second until it is approved"


@pytest.fixture
def old_device(rsa_server: RunningServer, tmp_path: Path, require_program: Callable[[str, str], str]) -> Device:
    """A device of a profile that accepts legacy algorithms."""
    device = Device(tmp_path, require_program("pki", "strongswan-pki"), f"{rsa_server.url}/scep/old")
    device.fetch_ca()
    device.new_key()
    return device


def new_challenge(server: RunningServer, profile: str) -> str:
    return server.cli("challenge", "new", profile).stdout.strip()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        pytest.param(("--cipher", "des3"), "des-ede3-cbc", id="3des"),
        pytest.param(("--digest", "sha1"), "sha1", id="sha1"),
    ],
)
def test_legacy_algorithm(rsa_server: RunningServer, old_device: Device, options: tuple[str, ...], named: str) -> None:
    certificate(old_device.enroll(new_challenge(rsa_server, "old"), *options))
    assert log_lines(rsa_server)[-1]["legacy"].split() == [named]


@pytest.mark.parametrize(
    "options", [pytest.param(("--cipher", "des3"), id="3des"), pytest.param(("--digest", "sha1"), id="sha1")]
)
def test_legacy_algorithm_is_refused_where_it_is_off(
    rsa_server: RunningServer, old_device: Device, options: tuple[str, ...]
) -> None:
    old_device.url = f"{rsa_server.url}/scep/demo"
    done = old_device.enroll(new_challenge(rsa_server, "demo"), *options)
    assert done.returncode != 0
    assert not done.stdout
