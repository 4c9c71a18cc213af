"""A real step-ca, built from Debian's packages or from the Go proxy, on loopback, with a database of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.model import Grant
from gateway.pki.certificate import (
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    pem_to_ders,
)
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from tests.conftest import free_port

SOURCE = Path(__file__).parent / "smallstep" / "main.go"
DEBIAN_GO = Path("/usr/lib/go/bin/go")
DEBIAN_SOURCES = Path("/usr/share/gocode/src/github.com/smallstep/certificates")
PACKAGES = ("golang-go", "golang-github-smallstep-certificates-dev")
PASSWORD = "a password, long"
START_SECONDS = 30.0
BUILD_SECONDS = 600
GRANT_TEMPLATE = """\
{
  "subject": {{ toJson .Token.grant.subject }},
  "sans": {{ toJson .Token.grant.sans }},
  "extensions": {{ toJson .Token.grant.extensions }}
}
"""
CLAIMS = {"minTLSCertDuration": "5m", "maxTLSCertDuration": "4800h", "defaultTLSCertDuration": "24h"}


def is_there() -> bool:
    """Say whether Debian's packages are."""
    return DEBIAN_GO.exists() and DEBIAN_SOURCES.is_dir()


def require(config: pytest.Config) -> Path:
    """Return the program, built once for every run of the tests; skips a test where it cannot be, and fails it in CI."""
    if not is_there():
        message = f"step-ca cannot be built: apt-get install {' '.join(PACKAGES)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    assert config.cache is not None
    return build(config.cache.mkdir("step-ca"))


def build(cache: Path) -> Path:
    """Return the program built from Debian's packages, kept in `cache` for what it was made of; the first time takes a minute."""
    version = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version} ", *PACKAGES], capture_output=True, text=True, check=True
    ).stdout
    digest = hashlib.sha256(version.encode() + SOURCE.read_bytes()).hexdigest()[:16]
    program = cache / f"step-ca-{digest}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = cache / f"{program.name}.{os.getpid()}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", str(cache)),
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }
        _run([str(DEBIAN_GO), "build", "-p", "2", "-o", str(made), str(SOURCE)], environment, cache)
        made.rename(program)
    return program


def build_newest(folder: Path, version: str) -> Path:
    """Return the program built from a release on the Go proxy; raises OSError where that cannot be done."""
    go = shutil.which("go")
    if go is None:
        raise FileNotFoundError("go is not on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    # since 0.27 keys are another module's
    source = SOURCE.read_text().replace("github.com/smallstep/certificates/kms/softkms", "go.step.sm/crypto/kms/softkms")
    (folder / "main.go").write_text(source)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    try:
        _run([go, "mod", "init", "peer"], environment, folder)
        _run([go, "get", f"github.com/smallstep/certificates@{version}"], environment, folder)
        _run([go, "build", "-p", "2", "-o", "step-ca", "."], environment, folder)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.decode(errors="replace")[-2000:]) from error
    return folder / "step-ca"


def _run(command: list[str], environment: dict[str, str], folder: Path) -> None:
    subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True, timeout=BUILD_SECONDS)


@dataclass
class StepPeer:
    """A running step-ca.

    Its provisioners: `gateway`, a JWK with step-ca's default template; `granting`, a JWK with the gateway's; `x5c`, which takes
    tokens of certificates below its own root.
    """

    program: Path
    folder: Path
    hierarchy: Hierarchy
    port: int
    provisioners: dict[str, dict[str, Any]] = field(repr=False)
    """By name what `step ca provisioner add` makes: `key`, `encryptedKey`, `full`."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Issuing CA and root, DER."""
        return (*pem_to_ders(self.hierarchy.issuing.certificate), *pem_to_ders(self.hierarchy.root.certificate))

    def section(self, provisioner: str = "gateway", url: str | None = None, **more: object) -> dict[str, Any]:
        """Return the section of the configuration, with absolute paths; `url` is that of a proxy before it."""
        by_name: dict[str, dict[str, Any]] = {
            "x5c": {
                "type": "x5c",
                "signer": {"certificate": str(self.folder / "signer.pem"), "key": {"file": str(self.folder / "signer.key")}},
            },
        }
        jwk = {
            "type": "jwk",
            "key": {"file": str(self.folder / f"{provisioner}.jwe")},
            "password": {"file": str(self.folder / "password")},
        }
        return {
            "type": "step-ca",
            "url": url or self.url,
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "connection": {"anchors": str(self.folder / "root.pem")},
            "provisioner": {"name": provisioner, **by_name.get(provisioner, jwk)},
            **({"grant_template": True} if provisioner == "granting" else {}),
            **more,
        }

    def issued(self, public_key: bytes | None = None) -> list[bytes]:
        """Return all certificates that it signed, DER, or those of one key (SubjectPublicKeyInfo)."""
        found = [pem_to_ders(path.read_bytes())[0] for path in sorted((self.folder / "issued").glob("*.pem"))]
        return [one for one in found if public_key in (None, parse_certificate(one).public_key.der)]

    def start(self) -> None:
        """Start it, or start it again."""
        with (self.folder / "log").open("ab") as log:
            command = [str(self.program), "serve", str(self.folder / "ca.json"), str(self.folder / "issued")]
            self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError(f"step-ca does not run:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; its database stays."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def _answers(self) -> bool:
        done = subprocess.run(
            ["curl", "-sf", "--cacert", str(self.folder / "root.pem"), f"{self.url}/health"], capture_output=True, check=False
        )
        return done.returncode == 0


@contextmanager
def running(program: Path, folder: Path, *, database: bool = True) -> Iterator[StepPeer]:
    """Run step-ca with a hierarchy of its own in `folder`; without `database` it forgets all when it stops."""
    (folder / "issued").mkdir(parents=True)
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    peer = StepPeer(
        program, folder, hierarchy, free_port(), {name: _new_provisioner(program) for name in ("gateway", "granting")}
    )
    _write_files(peer)
    (folder / "ca.json").write_text(json.dumps(_describe(peer, database=database)))
    peer.start()
    try:
        yield peer
    finally:
        peer.stop()


def _new_provisioner(program: Path) -> dict[str, Any]:
    made = subprocess.run([str(program), "provisioner", PASSWORD], capture_output=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def _write_files(peer: StepPeer) -> None:
    hierarchy, folder = peer.hierarchy, peer.folder
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "issuing.pem").write_bytes(hierarchy.issuing.certificate)
    signer_root = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    signer, key = _make_signer(signer_root)
    (folder / "signer-root.pem").write_bytes(signer_root.root.certificate)
    (folder / "signer.pem").write_bytes(signer + signer_root.issuing.certificate)
    secrets = {"issuing.key": hierarchy.issuing.key, "signer.key": key, "password": PASSWORD.encode()}
    for name, made in peer.provisioners.items():
        secrets[f"{name}.jwe"] = made["encryptedKey"].encode()
    for name, secret in secrets.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(secret)


def _make_signer(hierarchy: Hierarchy) -> tuple[bytes, bytes]:
    """Return a certificate that signs tokens and its key, PEM."""
    key, now = generate_private_key("ec-p256"), datetime.now(UTC).replace(microsecond=0)
    issuer = Issuer.from_certificate(pem_to_ders(hierarchy.issuing.certificate)[0], load_private_key(hierarchy.issuing.key))
    usage, ekus = ("digitalSignature",), (eku_oid("clientAuth"),)
    subject = parse_name_text("CN=gateway").der
    grant = Grant(subject, (), usage, ekus, now - timedelta(hours=1), now + timedelta(days=200))
    certificate = build_certificate(issuer, new_serial(), grant, public_key_der(key))
    return der_to_pem(certificate), serialize_private_key(key)


def _describe(peer: StepPeer, *, database: bool) -> dict[str, Any]:
    options = {"x509": {"template": GRANT_TEMPLATE}}
    jwks = [
        {
            "type": "JWK",
            "name": name,
            "key": made["key"],
            "encryptedKey": made["encryptedKey"],
            "claims": CLAIMS,
            **({"options": options} if name == "granting" else {}),
        }
        for name, made in peer.provisioners.items()
    ]
    roots = base64.b64encode((peer.folder / "signer-root.pem").read_bytes()).decode()
    return {
        "root": str(peer.folder / "root.pem"),
        "crt": str(peer.folder / "issuing.pem"),
        "key": str(peer.folder / "issuing.key"),
        "address": f"127.0.0.1:{peer.port}",
        "dnsNames": ["localhost", "127.0.0.1"],
        "logger": {"format": "json"},
        **({"db": {"type": "bbolt", "dataSource": str(peer.folder / "db")}} if database else {}),
        "crl": {"enabled": database},
        "authority": {"provisioners": [*jwks, {"type": "X5C", "name": "x5c", "roots": roots, "claims": CLAIMS}]},
    }
