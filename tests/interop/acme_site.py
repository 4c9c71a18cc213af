"""A server with ACME for real clients, the names that they prove, and what answers for these names on loopback."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.conftest import RunningServer, free_port, launch
from tests.dns_server import DnsServer, dns_server
from tests.interop.observed import Row
from tests.interop.settings import Change, edit

DOCUMENT = Path(__file__).parents[2] / "docs" / "upstream-exec.md"
SLEEPS = """\
import json, os, subprocess, sys, time

request = sys.stdin.buffer.read()
if json.loads(request)["operation"] == "issue":
    time.sleep(float(os.environ["SECONDS"]))
done = subprocess.run([sys.executable, "-I", os.environ["CA_DIR"] + "/sign"], input=request, stdout=subprocess.PIPE, check=True)
sys.stdout.buffer.write(done.stdout)
"""
NAMES = r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*\.acme\.test"


class _FrontHandler(BaseHTTPRequestHandler):
    """Files below the web root, else what the client that a host is routed to answers."""

    server: _FrontServer

    def do_GET(self) -> None:
        front = self.server.front
        host = self.headers.get("Host", "").partition(":")[0]
        front.asked.append((host, self.path))
        path = front.webroot / self.path.partition("?")[0].lstrip("/")
        if path.is_file():
            self._reply(200, path.read_bytes())
        elif host in front.routes:
            self._forward(host, front.routes[host])
        else:
            self._reply(404, b"")

    def _forward(self, host: str, port: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            try:
                connection.request("GET", self.path, headers={"Host": host})
                answer = connection.getresponse()
                self._reply(answer.status, answer.read())
            except OSError:
                self._reply(502, b"")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _FrontServer(ThreadingHTTPServer):
    front: Front


@dataclass
class Front:
    """The web server of all names: one web root, and hosts that a client answers for by itself at another port."""

    webroot: Path
    port: int
    routes: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def challenges(self) -> Path:
        """The folder of http-01 (RFC 8555 §8.3)."""
        return self.webroot / ".well-known" / "acme-challenge"

    @contextmanager
    def serving(self) -> Iterator[Front]:
        self.challenges.mkdir(parents=True)
        server = _FrontServer(("127.0.0.1", self.port), _FrontHandler)
        server.front = self
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


@dataclass(frozen=True)
class AcmeSite:
    """The server and all that stands around it.

    http-01 comes to `front`, which listens on the port that profiles name; `tls_port` is free for whoever proves by tls-alpn-01.
    A file below `records`, named as `_acme-challenge.name`, holds the values of its TXT records, one a line.
    """

    server: RunningServer
    dns: DnsServer
    front: Front
    tls_port: int
    records: Path
    url: str

    @property
    def root(self) -> Path:
        """The file of the CA that the server's TLS certificate leads to."""
        return self.server.root

    def directory(self, profile: str = "standard") -> str:
        return f"{self.url}/acme/{profile}/directory"

    def issuing(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.server.state / "ca" / "issuing.pem").read_bytes())

    def new_external_account(self, profile: str = "bound", *args: str) -> tuple[str, str]:
        """Return the key's ID and the key, base64url, as clients want them."""
        made = json.loads(self.server.cli("eab", "create", profile, "--format", "json", *args).stdout)
        return made["kid"], made["hmac_key"]

    def declare_incident(self, *which: str) -> None:
        """Have certificates replaced at once."""
        self.server.cli("incident", "declare", *which, "--explanation", "https://acme.test/incident", "--yes")

    def rows(self) -> list[Row]:
        """The log's lines about ACME requests, in their order."""
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "acme"]

    def get(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """Fetch a URL of the server's as a client without an account does."""
        context = ssl.create_default_context(cafile=self.root)
        host, _, path = url.removeprefix("https://").partition("/")
        with closing(http.client.HTTPSConnection(host, context=context, timeout=20)) as connection:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def check(self, chain: list[x509.Certificate], *names: str) -> x509.Certificate:
        """Return the leaf of a chain that the server issued for exactly these names."""
        leaf, issuer = chain[0], chain[1]
        assert issuer == self.issuing()
        leaf.verify_directly_issued_by(issuer)
        sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*sans.get_values_for_type(x509.DNSName), *map(str, sans.get_values_for_type(x509.IPAddress))]
        assert sorted(found) == sorted(names)
        return leaf

    def revoked(self) -> dict[int, x509.ReasonFlags]:
        """Serial numbers on the CRL, and why."""
        return {entry.serial_number: _reason(entry) for entry in x509.load_der_x509_crl(self.server.get("/crl/local.crl"))}


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return x509.ReasonFlags.unspecified


def acme_alone(name: str, *, validation: dict[str, Any] | None = None, **settings: Any) -> Change:
    """Add a profile that has ACME and nothing else: names below acme.test, wildcards, addresses of 127.0.0.0/8."""

    def change(document: dict[str, Any]) -> None:
        made = deepcopy(document["profiles"]["demo"])
        upstream_ca = settings.pop("upstream_ca", "local")
        made["endpoints"] = {"acme": {"validation": validation or {}, **settings}}
        made["upstream_ca"] = upstream_ca
        for field_name in ("credentials", "renewal"):
            made.pop(field_name, None)
        policy = made["policy"]
        policy["subject"] = {"allow": ["CN"], "max_common_names": 1, "allow_empty": upstream_ca == "local"}
        if upstream_ca != "local":
            policy["subject"]["template"] = "CN={dns}"  # the documented program needs a subject
        policy["san"] = {
            "dns": {"patterns": [NAMES], "max": 10, "wildcards": True},
            "ip": {"networks": ["127.0.0.0/8"], "max": 4},
            "unlisted": "refuse",
        }
        policy["eku"] = {"allow": ["serverAuth", "clientAuth"], "default": ["serverAuth"], "unlisted": "refuse"}
        policy["validity"] = {"default": "90d", "max": "90d", "backdate": "1h"}
        document["profiles"][name] = made

    return change


def slow_ca(name: str, seconds: float, folder: Path, state: Path) -> Change:
    """Add the documented program as a CA that takes its time; it signs with the key of `local`."""

    def change(document: dict[str, Any]) -> None:
        folder.mkdir()
        (folder / "ca.pem").write_bytes((state / "ca" / "issuing.pem").read_bytes())
        (folder / "ca.key").touch(0o600)
        (folder / "ca.key").write_bytes((state / "secrets" / "issuing.key").read_bytes())
        [program] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
        (folder / "sign").write_text(program)
        (folder / "sleeps").write_text(f"#!{sys.executable} -I\n{SLEEPS}")
        (folder / "sleeps").chmod(stat.S_IRWXU)
        document["upstream_cas"][name] = {
            "type": "exec",
            "command": [str(folder / "sleeps")],
            "chain": ["ca/issuing.pem", "ca/root.pem"],
            "deadline": "100s",
            "operations": ["find", "revoke"],
            "environment": {"CA_DIR": str(folder), "SECONDS": str(seconds)},
            "concurrency": 16,
        }

    return change


@contextmanager
def running(folder: Path, *changes: Change, url: str = "") -> Iterator[AcmeSite]:
    """Serve `standard`, `bound` (external accounts only), `slow9`, `slow40` and what `changes` add; `url` is what clients see."""
    records, webroot, state = folder / "records", folder / "webroot", folder / "state"
    records.mkdir(parents=True)
    front, tls_port = Front(webroot, free_port()), free_port()
    with dns_server(records) as dns, front.serving():
        validation = {
            "allow_cidrs": ["127.0.0.0/8"],
            "http01_port": front.port,
            "tlsalpn01_port": tls_port,
            "resolver": {"servers": [dns.address]},
            "attempt_every": "2s",
        }

        def apply(text: str) -> str:
            return edit(
                slow_ca("slow9", 9, folder / "slow9", state),
                slow_ca("slow40", 40, folder / "slow40", state),
                acme_alone("standard", validation=validation),
                acme_alone("bound", validation=validation, external_account="required"),
                acme_alone("slow9", validation=validation, upstream_ca="slow9"),
                acme_alone("slow40", validation=validation, upstream_ca="slow40"),
                *([_seen_as(url)] if url else []),
                *changes,
            )(text)

        server = launch(state, workers=2, edit=apply)
        try:
            yield AcmeSite(server, dns, front, tls_port, records, url or f"https://localhost:{server.https_port}")
        finally:
            assert server.stop() == 0


def _seen_as(url: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["server"]["external_url"]["https"] = url

    return change
