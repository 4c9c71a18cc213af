"""A real pebble, Debian's or another, on loopback, with what answers for the names that it looks at."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.conftest import free_port
from tests.dns_server import DnsServer, dns_server
from tests.peers.dns_updates import UpdateServer, update_server

PROGRAM, PACKAGE = "pebble", "pebble"
BUILD_SECONDS = 600
KID, EXTERNAL_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
ZONE = "acme.test"
START_SECONDS = 20.0
_ISSUED = re.compile(r"Issued certificate serial ([0-9a-f]+) for order")


def build_newest(folder: Path, version: str) -> Path:
    """Return the program built from a release on the Go proxy; raises OSError where that cannot be done."""
    go = shutil.which("go")
    if go is None:
        raise FileNotFoundError("go is not on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    command = [go, "install", "-p", "2", f"github.com/letsencrypt/pebble/v2/cmd/pebble@{version}"]
    try:
        subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True, timeout=BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr.decode(errors="replace")[-2000:]) from error
    return folder / "pebble"


class _WebHandler(BaseHTTPRequestHandler):
    server: _WebServer

    def do_GET(self) -> None:
        peer = self.server.peer
        peer.asked.append(self.path)
        answer = f"{self.path.rpartition('/')[2]}.{peer.thumbprint}".encode()
        self.send_response(200 if peer.thumbprint else 404)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _WebServer(ThreadingHTTPServer):
    peer: PebblePeer


@dataclass
class PebblePeer:
    """A running pebble that binds accounts to `KID` and refuses a fifth of all nonces; every name below `ZONE` is 127.0.0.1.

    http-01 comes to `web_port`: there `thumbprint` answers, where it is set, or a gateway that listens there itself.
    """

    program: str
    folder: Path
    dns: DnsServer
    updates: UpdateServer
    port: int
    management: int
    web_port: int
    thumbprint: str | None = None
    asked: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    seen: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.port}/dir"

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Issuing CA and root, DER."""
        return tuple(der for name in ("issuing", "root") for der in pem_to_ders((self.folder / f"{name}.pem").read_bytes()))

    def section(self, url: str | None = None, *, proof: str = "dns", **more: object) -> dict[str, Any]:
        """Return the section of the configuration, with absolute paths; `url` is that of a proxy's directory before it."""
        return {
            "type": "acme",
            "directory": url or self.directory,
            "connection": {"anchors": str(self.folder / "tls.pem")},
            "chain": [str(self.folder / "issuing.pem"), str(self.folder / "root.pem")],
            "account_key": {"file": str(self.folder / "account.key")},
            "contact": ["mailto:pki@acme.test"],
            "terms_agreed": True,
            "external_account": {"kid": KID, "key": {"file": str(self.folder / "external.key")}},
            **({"http01": True} if proof == "http" else {"dns": self.dynamic_updates()}),
            **more,
        }

    def dynamic_updates(self) -> dict[str, Any]:
        """Return how dns-01 is answered by the DNS server that pebble asks."""
        return {
            "type": "rfc2136",
            "server": f"127.0.0.1:{self.updates.port}",
            "key_name": "gateway",
            "key": {"file": str(self.folder / "tsig.key")},
            "wait": "0s",
        }

    def issued(self, public_key: bytes | None = None) -> list[bytes]:
        """Return all certificates that it signed, DER, or those of one key (SubjectPublicKeyInfo)."""
        serials = _ISSUED.findall((self.folder / "log").read_text())
        for serial in serials:
            if serial not in self.seen:
                shown = json.loads(self._manage(f"cert-status-by-serial/{serial}"))
                self.seen[serial] = pem_to_ders(shown["Certificate"].encode())[0]
        return [der for der in map(self.seen.__getitem__, serials) if public_key in (None, parse_certificate(der).public_key.der)]

    def shown_chain(self, number: int) -> tuple[bytes, ...]:
        """Return issuing CA and root, DER, of one of its chains; 0 is that of the configuration."""
        return tuple(pem_to_ders(self._manage(f"{what}/{number}"))[0] for what in ("intermediates", "roots"))

    def status(self, serial: int) -> str:
        """Return what has become of a certificate."""
        return str(json.loads(self._manage(f"cert-status-by-serial/{serial:x}"))["Status"])

    def start(self) -> None:
        """Start it; it keeps nothing over its end, so each start makes another CA."""
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", "PEBBLE_AUTHZREUSE": "0"}
        environment |= self.environment
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-config", str(self.folder / "pebble.json"), "-dnsserver", self.dns.address],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                (self.folder / "issuing.pem").write_bytes(self._manage("intermediates/0"))
                (self.folder / "root.pem").write_bytes(self._manage("roots/0"))
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise AssertionError(f"pebble does not run:\n{(self.folder / 'log').read_text()}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def _manage(self, path: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.folder / "tls.pem"))
        with urllib.request.urlopen(f"https://localhost:{self.management}/{path}", context=context, timeout=5) as answer:
            return bytes(answer.read())


def write_tls(folder: Path) -> None:
    """Write a certificate for loopback, `tls.pem`, and its key, `tls.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (folder / "tls.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    write_key(folder / "tls.key", key)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key that only its owner reads."""
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextmanager
def running(
    program: str,
    folder: Path,
    *,
    external: bool = True,
    web_port: int | None = None,
    profiles: dict[str, int] | None = None,
    **environment: str,
) -> Iterator[PebblePeer]:
    """Run pebble in `folder`; at `web_port` another answers http-01, `profiles` have seconds of validity (2.7 and newer)."""
    folder.mkdir(parents=True)
    write_tls(folder)
    write_key(folder / "account.key", ec.generate_private_key(ec.SECP256R1()))
    with dns_server() as names, update_server(names, ZONE) as updates:
        peer = PebblePeer(
            program, folder, names, updates, free_port(), free_port(), web_port or free_port(), environment=environment
        )
        for name, text in {"external.key": EXTERNAL_KEY.encode(), "tsig.key": updates.secret}.items():
            (folder / name).touch(0o600)
            (folder / name).write_bytes(text)
        settings: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{peer.port}",
            "managementListenAddress": f"127.0.0.1:{peer.management}",
            "certificate": str(folder / "tls.pem"),
            "privateKey": str(folder / "tls.key"),
            "httpPort": peer.web_port,
            "tlsPort": free_port(),
            "externalAccountBindingRequired": external,
            "externalAccountMACKeys": {KID: EXTERNAL_KEY},
        }
        if profiles is not None:
            settings["profiles"] = {name: {"description": name, "validityPeriod": seconds} for name, seconds in profiles.items()}
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        peer.start()
        try:
            with _answering(peer, own=web_port is None):
                yield peer
        finally:
            peer.stop()


@contextmanager
def _answering(peer: PebblePeer, *, own: bool) -> Iterator[None]:
    if not own:
        yield
        return
    server = _WebServer(("127.0.0.1", peer.web_port), _WebHandler)
    server.peer = peer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
