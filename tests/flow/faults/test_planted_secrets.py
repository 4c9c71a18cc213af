"""Secrets of every kind are planted in a service that traces; then everything it wrote and said is searched for them."""

from __future__ import annotations

import base64
import http.client
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePrivateNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client as scep
from gateway.wire.scep.client import CertRep
from tests.conftest import RunningServer, StartServer, free_port
from tests.flow.scep.challenge_fleet import POLICY
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.service import KEY, Device
from tests.golden_challenges import AUDIENCE, anchor, claims, issuer_key, sign_challenge

EC_KEY = generate_private_key("ec-p256")


def planted(name: str) -> str:
    return f"PLANTED-{name.replace(' ', '-')}-{secrets.token_hex(8)}"


@dataclass
class Plants:
    """What must be found nowhere, by a name for whoever reads the failure."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Make a secret."""
        made = planted(name)
        self.add(name, made)
        return made

    def add(self, name: str, secret: str) -> str:
        self.texts[name] = secret.encode()
        return secret

    def add_key(self, name: str, key: PrivateKey) -> None:
        """A private key in DER, and as the lines of its PEM."""
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, serialization.NoEncryption())
        numbers = key.private_numbers()  # type: ignore[union-attr]
        secret = numbers.private_value if isinstance(numbers, EllipticCurvePrivateNumbers) else numbers.d
        self.texts[f"{name}, DER"] = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
        lines = base64.b64encode(der).decode()
        self.texts[f"{name}, PEM"] = lines[len(lines) // 128 * 64 :][:60].encode() if len(lines) > 128 else lines[-60:].encode()

    def found_in(self, data: bytes) -> list[str]:
        """Return the names of what is there, as it is or as it would be in base64, in hex or in a URL."""
        found = []
        for name, secret in self.texts.items():
            shapes = {secret, secret.hex().encode(), quote(secret).encode()}
            # Base64 of a text inside of another depends on where it begins.
            shapes |= {base64.b64encode(bytes(at) + secret)[4 : -4 if len(secret) > 12 else None] for at in range(3)}
            found += [name for shape in shapes if shape in data]
        return found


class Collector(ThreadingHTTPServer):
    """Takes traces from whoever comes, refuses every other time, and keeps them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if len(self.server.bodies) % 2 else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@dataclass
class Stranger:
    """Sends whatever it likes, and keeps what it was told."""

    server: RunningServer
    headers: dict[str, str]
    told: list[bytes] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=30)
        connection.request(method, path, body, self.headers)
        reply = connection.getresponse()
        data = reply.read()
        connection.close()
        self.told += [str(reply.headers).encode(), data]
        return data

    def enroll(self, profile: str, device: Device, challenge: str | None, password: bytes | None = None) -> CertRep | None:
        ra = self.server.get(f"/scep/{profile}?operation=GetCACert")
        certificate = scep.choose_ra_certificate(scep.decode_ca_certificates(ra, "application/x-x509-ca-ra-cert"))
        request, signer = device.request(certificate, challenge, password=password, transaction=secrets.token_hex(8))
        answer = self.ask("POST", f"/scep/{profile}?operation=PKIOperation", request.message)
        try:
            reply = scep.decode_cert_rep(answer, request, signer, certificate, password=password)
        except ValueError:
            return None
        self.told.append(reply.fail_info_text.encode())
        return reply


def configure(state: Path, plants: Plants) -> None:
    """Keep secrets in files, the environment and an encrypted key; profiles for every kind of challenge."""
    for name in ("ra", "tls", "issuing", "root"):
        path = state / "secrets" / f"{name}.key"
        plants.add_key(f"{name}.key", load_private_key(path.read_bytes()))
    for name in ("store", "audit"):
        plants.add(f"{name}.key", (state / "secrets" / f"{name}.key").read_text().split()[0])
    plants.texts["store.key, bytes"] = bytes.fromhex(plants.texts["store.key"].decode())
    plants.texts["audit.key, bytes"] = bytes.fromhex(plants.texts["audit.key"].decode())
    plants.add("static challenge", (state / "secrets" / "demo-scep-challenge").read_text().strip())
    plants.add("password", (state / "secrets" / "demo-est-password").read_text().strip())
    plants.add("hash of the password", (state / "secrets" / "demo-est-users").read_text().strip().rpartition("$")[2])
    key = load_private_key((state / "secrets" / "issuing.key").read_bytes())
    locked = BestAvailableEncryption(plants.texts["key password"])
    write_secret(state / "secrets" / "issuing.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    (state / "challenge-anchors.pem").write_bytes(anchor("rsa"))
    path = state / "profiles.yaml"
    config = yaml.safe_load(path.read_text())
    config["upstream_cas"]["local"]["key_password"] = {"env": "PLANTED_KEY_PASSWORD"}
    program = {"CA_TOKEN": {"env": "PLANTED_CA_TOKEN"}}
    failing = ["/bin/sh", "-c", "exit 3"]
    config["upstream_cas"]["program"] = {
        "type": "exec", "command": failing, "chain": ["ca/issuing.pem", "ca/root.pem"], "environment": program,
    }  # fmt: skip
    demo = config["profiles"]["demo"]
    shared = {"type": "static", "challenge": {"env": "PLANTED_STATIC"}, "any_name": True}
    signed = {"type": "intune_jws", "anchors": "challenge-anchors.pem", "audience": AUDIENCE}
    profiles: dict[str, dict[str, Any]] = {
        "pwri": {"credentials": [shared], "endpoints": {"scep": {**demo["endpoints"]["scep"], "pwri": True}}},
        "signed": {"credentials": [signed], "policy": dict(POLICY)},
        "programmed": {"credentials": [shared], "upstream_ca": "program"},
        "manual": {"credentials": [shared], "approval": "manual"},
    }
    copied = {k: v for k, v in demo.items() if k != "renewal"} | {"endpoints": {"scep": demo["endpoints"]["scep"]}}
    for name, changes in profiles.items():
        config["profiles"][name] = {**copied, "credentials": [{"type": "one_time"}], **changes}
    demo["endpoints"]["est"]["server_keygen"] = {}
    demo["endpoints"]["acme"]["validation"]["http01_port"] = free_port()
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def enroll_everywhere(stranger: Stranger, plants: Plants) -> None:
    """Drive successes and refusals of every kind of credential."""
    server = stranger.server
    good, revoked = (plants.add(name, server.new_challenge()) for name in ("one-time challenge", "revoked challenge"))
    for number, (challenge, device) in enumerate(
        [
            (good, Device()),
            (good, Device(subject="CN=another")),
            (plants.text("wrong challenge"), Device()),
            (plants.text("challenge with spaces") + " and a tail\n", Device()),
            (plants.add("static challenge", server.static_challenge), Device(subject="CN=static")),
            (revoked, Device(subject="")),
            (None, Device()),
            (revoked, Device(subject="CN=two,CN=names,CN=three")),
        ]
    ):
        reply = stranger.enroll("demo", device, challenge)
        assert reply is not None
        assert (reply.status == 0) is (number in {0, 4}), (number, reply.fail_info_text)
    now = datetime.now(UTC)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "rsa"),
        ({"exp": int(now.timestamp()) - 7200}, "rsa"),
        ({"aud": "elsewhere"}, "rsa"),
        ({}, "other"),
    ]
    for number, (changes, key) in enumerate(cases):
        issued = int((now - timedelta(seconds=1)).timestamp())
        fresh = {"iat": issued, "exp": issued + 3000, "nonce": plants.text(f"nonce {number}"), "device_name": "gate-1"}
        none = {"san_dns": None, "san_rfc822": None, "sub": "gate"}
        challenge = sign_challenge(issuer_key(key), claims(**none | fresh | changes))
        for part, text in zip(("header", "payload", "signature"), challenge.split("."), strict=True):
            if part != "header":
                plants.add(f"signed challenge {number}, {part}", text)
        reply = stranger.enroll("signed", Device(subject="CN=gate-1"), challenge)
        assert reply is not None
        assert (reply.status == 0) is (number == 0), reply.fail_info_text
    password = plants.texts["static in the environment"]
    device = Device(EC_KEY, "CN=cannot-encrypt")
    assert stranger.enroll("pwri", device, password.decode(), password) is not None
    stranger.enroll("pwri", device, password.decode(), plants.text("wrong password").encode())
    stranger.enroll("programmed", Device(), password.decode())
    stranger.enroll("manual", Device(), password.decode())


def enroll_by_est(stranger: Stranger, plants: Plants) -> None:
    """Passwords and challenges, good and wrong, and a key that the server draws."""
    server = stranger.server
    good, wrong = server.est_password, plants.text("wrong password of a user")
    challenge = plants.add("one-time challenge by EST", server.new_challenge())
    for operation, password, secret, status in (
        ("simpleenroll", good, None, 200),
        ("simpleenroll", wrong, None, 401),
        ("simpleenroll", f"{wrong}:\u00fc", None, 401),
        ("simpleenroll", None, challenge, 200),
        ("simpleenroll", None, plants.text("wrong challenge by EST"), 401),
        ("simpleenroll", good, plants.text("no link to the connection"), 400),
        ("simplereenroll", good, None, 403),
        ("serverkeygen", good, None, 200),
        ("serverkeygen", wrong, None, 401),
    ):
        csr = build_csr(EC_KEY, parse_name_text(f"CN={operation}-{status}").der, challenge_password=secret)
        answer = server.est(operation, csr, password=password)
        stranger.told.append(answer.text.encode())
        assert (answer.status, answer.key is not None) == (status, (operation, status) == ("serverkeygen", 200)), answer.text
        if answer.key is not None:
            drawn = serialization.load_der_private_key(answer.key, None)
            assert isinstance(drawn, RSAPrivateKey | EllipticCurvePrivateKey)
            plants.add_key("drawn key", drawn)


def enroll_by_acme(server: RunningServer, plants: Plants, folder: Path) -> list[str]:
    """Bind an account by its key, and one by a wrong key; returns what the client said."""
    said = []
    for name, status in (("key of an external account", 0), ("wrong key of an external account", 1)):
        path = folder / f"eab-{status}"
        path.write_bytes(base64.urlsafe_b64encode(plants.text(name).encode()).rstrip(b"="))
        if status == 0:
            server.cli("eab", "create", "demo", "--kid", "planted", "--key-file", str(path))
        bound = ("--eab-kid", "planted", "--eab-key-file", str(path))
        done = server.cli("test-enroll", "--protocol", "acme", "--profile", "demo", *bound, check=False)
        assert done.returncode == status, done.stderr
        said += [done.stdout, done.stderr]
    return said


def knock(stranger: Stranger, plants: Plants) -> None:
    """Secrets where they do not belong: in URLs, bodies and methods that are refused."""
    wrong = plants.text("secret in a URL")
    for path in (f"/scep/demo?operation=GetCACaps&message={wrong}", f"/scep/demo?operation={wrong}", f"/?password={wrong}"):
        stranger.ask("GET", path)
    stranger.ask("GET", f"/scep/demo?operation=PKIOperation&message={wrong}")
    stranger.ask("POST", f"/scep/demo?operation=PKIOperation&password={wrong}", plants.text("secret in a body").encode())
    stranger.ask("PUT", f"/scep/demo?challenge={wrong}", b"x")
    stranger.ask("POST", "/scep/demo?operation=PKIOperation", b"x" * 70_000)


def reload_all(server: RunningServer, plants: Plants) -> list[str]:
    """Reload good and bad files; returns what commands said."""
    said = []
    good = server.config.read_text()
    inline = plants.text("secret in the configuration")
    junk = plants.text("junk in a secret file")
    ra = server.state / "secrets" / "ra.key"
    key = ra.read_bytes()
    for text, secret in (
        (good.replace("ttl: 1h", "ttl: 2h"), key),
        (good.replace("challenge:\n      file: secrets/demo-scep-challenge", f"challenge: {inline}"), key),
        (good.replace("file: secrets/demo-scep-challenge", f"file: secrets/demo-scep-challenge\n        pin: {inline}"), key),
        (good.replace("PLANTED_STATIC", "PLANTED_NOWHERE"), key),
        (good, f"-----BEGIN PRIVATE KEY-----\n{junk}\n-----END PRIVATE KEY-----\n".encode()),
        (good + f"{inline}: [", key),
    ):
        server.config.write_text(text)
        ra.write_bytes(secret)
        said += run_all(server, [["reload"], ["config", "check"]])
    server.config.write_text(good)
    assert server.cli("reload").returncode == 0
    return said


COMMANDS = [
    line.split()
    for line in (
        "config show",
        "status",
        "doctor --format json",
        "challenge list",
        "eab list --format json",
        "acme accounts --format json",
        "acme orders --format json",
        "requests list",
        "certs export",
        "audit export",
        "store check",
    )
]


def run_all(server: RunningServer, commands: list[list[str]]) -> list[str]:
    """Run commands side by side; returns what they said."""
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda command: server.cli(*command, check=False), commands))
    assert not [one.args for one in done if "Traceback" in one.stderr]
    return [text for one in done for text in (one.stdout, one.stderr)]


def written(state: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file that the service has, but for those that hold secrets on purpose."""
    for path in state.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            yield str(path.relative_to(state)), path.read_bytes()


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Plants:
    plants = Plants()
    monkeypatch.setenv("PLANTED_KEY_PASSWORD", plants.text("key password"))
    monkeypatch.setenv("PLANTED_CA_TOKEN", plants.text("token of a CA"))
    monkeypatch.setenv("PLANTED_STATIC", plants.text("static in the environment"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_address[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{plants.text('header for the collector')}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "300")
    return plants


def metrics(server: RunningServer) -> bytes:
    with urllib.request.urlopen(f"{server.monitoring_url}/metrics", timeout=10) as reply:
        return bytes(reply.read())


def test_no_secret_is_written_or_told(
    start_server: StartServer, tmp_path: Path, plants: Plants, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plant(text: str) -> str:
        configure(tmp_path / "state", plants)
        return (tmp_path / "state" / "profiles.yaml").read_text()

    server = start_server(workers=2, edit=plant, serve_flags=("--log-level", "debug"))
    header = plants.text("secret in a header")
    names = ("Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "tracestate", "baggage", "User-Agent", "Referer")
    stranger = Stranger(server, dict.fromkeys(names, f"Bearer {header}"))
    knock(stranger, plants)
    enroll_everywhere(stranger, plants)
    enroll_by_est(stranger, plants)
    said = enroll_by_acme(server, plants, tmp_path)
    said += reload_all(server, plants)
    said += run_all(server, COMMANDS)
    shown = metrics(server)
    assert server.stop() == 0
    assert KEY is not None
    seen: dict[str, bytes] = {"log": server.log.read_bytes(), "metrics": shown, "commands": "\n".join(said).encode()}
    seen |= {"answers": b"\n".join(stranger.told), "traces": b"\n".join(collector.bodies)}
    seen |= dict(written(server.state))
    assert len(plants.texts) > 25
    assert any(name.endswith("gateway.db") for name in seen)
    assert collector.bodies
    assert b"scep.PKIOperation" in seen["traces"]
    assert b'"trace_id"' in seen["log"]
    assert {name: found for name, data in seen.items() if (found := plants.found_in(data))} == {}
