"""`pki-gateway test-enroll` against a served installation: kinds of keys, static challenges, TLS client certificates."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, pem_to_ders
from gateway.pki.keys import public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.conftest import RunningServer, free_port, launch
from tests.unit.assemble.installation import DAY, NOW, Installation, key

CHALLENGE = "sensors-0123456789abcdef"


def configure(text: str, state: Path) -> str:
    """Beside `demo`: `sensors` take a static challenge and any key, `kiosks` a TLS client certificate below CN=maker.

    By EST: `robots` take such a certificate too, `tied` ties requests to their connections, and `slow` waits
    for a person. By CMP: `waiting` waits for one.
    """
    installation = Installation(state, yaml.safe_load(text))
    data = installation.data
    demo = data["profiles"]["demo"]
    demo.pop("renewal")
    ra = {"ra_certificate": "ca/ra.pem", "ra_key": {"file": "secrets/ra.key"}}
    required = {**ra, "client_certificate": "require", "client_anchors": installation.ca("maker")}
    data["profiles"]["sensors"] = {
        **demo,
        "endpoints": {"scep": {**ra, "pwri": True}},
        "credentials": [installation.static("sensors")],
    }
    data["profiles"]["kiosks"] = {**demo, "endpoints": {"scep": required}, "credentials": [{"type": "one_time"}]}
    demo["renewal"] = {"from": ["demo"]}
    by_est = {name: value for name, value in demo.items() if name != "renewal"}
    by_est["credentials"] = [credential for credential in demo["credentials"] if credential["type"] != "cmp_secret"]
    data["profiles"]["waiting"] = {**demo, "endpoints": {"cmp": demo["endpoints"]["cmp"]}, "approval": "manual"}
    data["profiles"]["waiting"]["credentials"] = [{"type": "cmp_secret"}]
    robots = [{"type": "tls_certificate", "anchors": "maker.pem", "names": "any"}]
    data["profiles"]["robots"] = {**by_est, "endpoints": {"est": {"label": "ca:7"}}, "credentials": robots}
    data["profiles"]["tied"] = {**by_est, "endpoints": {"est": {"pop_linking": "require"}}}
    data["profiles"]["slow"] = {**by_est, "endpoints": {"est": {}}, "approval": "manual"}
    data["server"]["https_mtls"] = {**data["server"]["https"], "listen": f"127.0.0.1:{free_port()}"}
    return json.dumps(data)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    state = tmp_path_factory.mktemp("test-enroll") / "state"
    server = launch(state, edit=lambda text: configure(text, state))
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(served: RunningServer, tmp_path: Path) -> tuple[str, ...]:
    """Options that show a certificate of the maker."""
    maker = Issuer.from_certificate(pem_to_ders((served.state / "maker.pem").read_bytes())[0], key("ec-p256", "maker"))
    own = key("ec-p256", "kiosk")
    grant = Grant(parse_name_text("CN=kiosk-1").der, (), ("digitalSignature",), (), NOW - DAY, NOW + DAY)
    (tmp_path / "client.pem").write_bytes(der_to_pem(build_certificate(maker, new_serial(), grant, public_key_der(own))))
    (tmp_path / "client.key").write_bytes(serialize_private_key(own))
    files = ("--client-cert", str(tmp_path / "client.pem"), "--client-key", str(tmp_path / "client.key"))
    return *files, "--trust", str(served.state / "ca" / "root.pem")


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p256", "ed25519", "ml-dsa-65"])
def test_kinds_of_keys(served: RunningServer, tmp_path: Path, kind: str) -> None:
    done = served.cli(
        "test-enroll", "--profile", "sensors", "--challenge", CHALLENGE, "--key", kind, "--out", str(tmp_path / "d")
    )
    assert "PKCSReq" in done.stdout
    leaf = parse_certificate(pem_to_ders((tmp_path / "d" / "device.pem").read_bytes())[0])
    assert kind.startswith(leaf.public_key.algorithm)


def test_another_challenge_is_refused(served: RunningServer) -> None:
    guess = ("--challenge", "wrong-but-long-enough", "--key", "ec-p256")
    done = served.cli("test-enroll", "--profile", "sensors", *guess, check=False)
    assert (done.returncode, "BAD_MESSAGE_CHECK" in done.stderr) == (1, True), done.stderr


def test_a_profile_of_static_challenges_says_what_to_give(served: RunningServer) -> None:
    done = served.cli("test-enroll", "--profile", "sensors", check=False)
    assert done.returncode == 2
    assert "give --challenge" in done.stderr


def test_a_client_certificate_is_shown(served: RunningServer, client: tuple[str, ...]) -> None:
    assert "CN=test-enroll, serial" in served.cli("test-enroll", "--profile", "kiosks", *client).stdout


def test_a_client_certificate_is_asked_for(served: RunningServer) -> None:
    done = served.cli("test-enroll", "--profile", "kiosks", check=False)
    assert (done.returncode, "give --client-cert and --client-key" in done.stderr) == (2, True), done.stderr


def test_a_client_certificate_of_nobody_is_refused(served: RunningServer, client: tuple[str, ...], tmp_path: Path) -> None:
    own = key("ec-p256", "kiosk")
    alone = Issuer.create(parse_name_text("CN=x").der, own, b"\1" * 20)
    grant = Grant(parse_name_text("CN=kiosk-1").der, (), ("digitalSignature",), (), NOW - DAY, NOW + DAY)
    (tmp_path / "client.pem").write_bytes(der_to_pem(build_certificate(alone, new_serial(), grant, public_key_der(own))))
    done = served.cli("test-enroll", "--profile", "kiosks", *client, check=False)
    assert (done.returncode, "does not answer" in done.stderr) == (1, True), done.stderr


def est(served: RunningServer, *arguments: str, profile: str = "demo", check: bool = True) -> subprocess.CompletedProcess[str]:
    return served.cli("test-enroll", "--protocol", "est", "--profile", profile, "--key", "ec-p256", *arguments, check=check)


def user(served: RunningServer) -> tuple[str, ...]:
    return "--user", "demo", "--password-file", str(served.state / "secrets" / "demo-est-password")


def test_est_with_a_one_time_challenge(served: RunningServer) -> None:
    done = est(served, "--dns", "device-1.example.com")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("cacerts", "csrattrs", "challenge", "key", "simpleenroll", "certificate")
    ]


def test_est_with_a_static_challenge(served: RunningServer) -> None:
    assert "200 OK" in est(served, "--challenge", served.static_challenge).stdout


def test_est_with_a_password_and_then_with_the_certificate(served: RunningServer, tmp_path: Path) -> None:
    est(served, *user(served), "--subject", "CN=device-9", "--out", str(tmp_path / "first"))
    shown = ("--client-cert", str(tmp_path / "first" / "device.pem"), "--client-key", str(tmp_path / "first" / "device.key"))
    done = est(served, *shown, "--renew", "--out", str(tmp_path / "second"))
    assert "simplereenroll" in done.stdout
    one, two = (parse_certificate(pem_to_ders((tmp_path / name / "device.pem").read_bytes())[0]) for name in ("first", "second"))
    assert (one.subject, one.serial != two.serial) == (two.subject, True)
    refused = est(served, *shown, "--renew", check=False)
    assert (refused.returncode, "403: " in refused.stderr) == (1, True), refused.stderr


def test_est_with_a_certificate_of_its_maker(served: RunningServer, client: tuple[str, ...]) -> None:
    assert "CN=test-enroll, serial" in est(served, *client, profile="robots").stdout


def test_est_with_another_password(served: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("guessed\n")
    done = est(served, "--user", "demo", "--password-file", str(tmp_path / "password"), check=False)
    assert (done.returncode, "401: name or password is not valid" in done.stderr) == (1, True), done.stderr


def test_est_tied_to_its_connection(served: RunningServer) -> None:
    assert "200 OK" in est(served, *user(served), profile="tied").stdout
    done = est(served, profile="tied", check=False)
    assert (done.returncode, "give --user or --client-cert" in done.stderr) == (2, True), done.stderr


def test_est_waits_for_a_person(served: RunningServer) -> None:
    done = est(served, *user(served), "--wait", "0", profile="slow", check=False)
    assert (done.returncode, "still pending" in done.stderr, "202" in done.stdout) == (1, True, True), done.stderr


def test_a_profile_without_est(served: RunningServer) -> None:
    done = est(served, profile="sensors", check=False)
    assert (done.returncode, "There is no profile sensors with EST; there are: demo" in done.stderr) == (2, True), done.stderr


def cmp(served: RunningServer, *arguments: str, profile: str = "demo", check: bool = True) -> subprocess.CompletedProcess[str]:
    return served.cli("test-enroll", "--protocol", "cmp", "--profile", profile, *arguments, check=check)


def test_cmp_with_a_secret_that_is_made_for_it(served: RunningServer) -> None:
    done = cmp(served, "--dns", "device-1.example.com")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["identity", "key", "ir", "certConf", "certificate"]
    assert "pkiconf" in done.stdout


@pytest.mark.parametrize("kind", ["ec-p384", "ed25519", "ml-dsa-65"])
def test_cmp_with_other_keys(served: RunningServer, tmp_path: Path, kind: str) -> None:
    cmp(served, "--key", kind, "--out", str(tmp_path / "out"))
    made = parse_certificate(pem_to_ders((tmp_path / "out" / "device.pem").read_bytes())[0])
    assert made.public_key.algorithm == kind.partition("-p")[0]


def test_cmp_with_a_secret_and_then_with_the_certificate(served: RunningServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    served.cli("cmp-secret", "create", "demo", "--reference", "device-77", "--secret-file", str(secret))
    given = ("--reference", "device-77", "--secret-file", str(secret))
    cmp(served, *given, "--subject", "CN=device-77", "--out", str(tmp_path / "first"))
    used = cmp(served, *given, "--subject", "CN=device-77", check=False)
    assert (used.returncode, "The server refused: " in used.stderr) == (1, True), used.stderr
    shown = ("--client-cert", str(tmp_path / "first" / "device.pem"), "--client-key", str(tmp_path / "first" / "device.key"))
    done = cmp(served, *shown, "--renew", "--out", str(tmp_path / "second"))
    assert "kur" in done.stdout
    one, two = (parse_certificate(pem_to_ders((tmp_path / name / "device.pem").read_bytes())[0]) for name in ("first", "second"))
    assert (one.subject, one.serial != two.serial) == (two.subject, True)
    again = cmp(served, *shown, "--renew", check=False)
    assert (again.returncode, "The server refused: " in again.stderr) == (1, True), again.stderr


def test_cmp_with_another_secret(served: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not a secret of anybody")
    done = cmp(served, "--reference", "nobody", "--secret-file", str(tmp_path / "secret"), check=False)
    assert done.returncode == 1
    assert "what the server answered is refused" in done.stderr


def test_cmp_waits_for_a_person(served: RunningServer) -> None:
    done = cmp(served, "--wait", "3", profile="waiting", check=False)
    assert (done.returncode, "is still pending" in done.stderr) == (1, True), done.stderr
    assert "WAITING" in done.stdout
    assert "pollReq" in done.stdout


def test_cmp_elsewhere(served: RunningServer) -> None:
    url = f"http://127.0.0.1:{served.http_port}/.well-known/cmp/p/nobody"
    done = cmp(served, "--url", url, check=False)
    assert (done.returncode, "the server answered 404" in done.stderr) == (1, True), done.stderr
