"""Profiles that require a TLS client certificate, on the https_mtls listener of a served installation."""

import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, self_signed_ca
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client as scep
from gateway.wire.scep.client import CertRep
from gateway.wire.scep.pkimessage import PkiStatus
from tests.conftest import RunningServer, free_port, launch
from tests.flow.scep.service import without_est

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEY = generate_private_key("rsa-2048")
SUBJECT = parse_name_text("CN=kiosk-1").der


@dataclass(frozen=True)
class Ca:
    certificate: bytes
    key: PrivateKey

    @classmethod
    def create(cls, name: str) -> "Ca":
        key = generate_private_key("ec-p256")
        return cls(self_signed_ca(key, name, NOW - 3 * DAY, NOW + 30 * DAY), key)

    def issue(self, path: Path, until: datetime = NOW + DAY) -> Path:
        """Write a client's certificate and key into one file."""
        key = generate_private_key("ec-p256")
        grant = Grant(
            subject_der=SUBJECT, sans=(), key_usage=("digitalSignature",), ekus=(), not_before=NOW - 2 * DAY, not_after=until
        )
        issuer = Issuer.from_certificate(self.certificate, self.key)
        leaf = build_certificate(issuer, new_serial(), grant, public_key_der(key))
        path.write_bytes(der_to_pem(leaf) + serialize_private_key(key))
        return path


FLEET, OTHER_FLEET, STRANGERS = Ca.create("CN=Fleet"), Ca.create("CN=Other fleet"), Ca.create("CN=Strangers")


@dataclass(frozen=True)
class Site:
    """The installation: `kiosks` knows the fleet, `tills` the other fleet, `demo` asks for no certificate."""

    server: RunningServer
    mtls_port: int
    folder: Path

    def url(self, path: str, listener: str = "https_mtls") -> str:
        ports = {"http": self.server.http_port, "https": self.server.https_port, "https_mtls": self.mtls_port}
        return f"{'http' if listener == 'http' else 'https'}://127.0.0.1:{ports[listener]}{path}"

    def post(self, url: str, data: bytes | None, client: Path | None) -> bytes:
        context = ssl.create_default_context(cafile=self.server.state / "ca" / "root.pem")
        if client is not None:
            context.load_cert_chain(client)
        with urllib.request.urlopen(url, data, timeout=20, context=context) as reply:
            return bytes(reply.read())

    def enroll(self, client: Path | None, path: str = "/scep-mtls/kiosks", listener: str = "https_mtls") -> CertRep:
        """Ask for a certificate with a valid challenge; `client` is what TLS shows."""
        profile = path.rpartition("/")[2]
        found = self.server.get(f"/scep/{profile}?operation=GetCACert")
        ra = scep.choose_ra_certificate(scep.decode_ca_certificates(found, "application/x-x509-ca-ra-cert"))
        challenge = self.server.cli("challenge", "new", profile).stdout.strip()
        signer = scep.self_signed_signer(KEY, SUBJECT, NOW - DAY, NOW + DAY)
        request = scep.encode_request(build_csr(KEY, SUBJECT, (), challenge), signer, ra, transaction=challenge[:32])
        reply = self.post(self.url(f"{path}?operation=PKIOperation", listener), request.message, client)
        return scep.decode_cert_rep(reply, request, signer, ra)

    def audited(self, reason: str) -> int:
        rows = map(json.loads, self.server.cli("audit", "export").stdout.splitlines())
        return sum(reason in json.dumps(row) for row in rows)


def configure(text: str, state: Path, mtls_port: int) -> str:
    """Add the listener and two profiles to what `init` wrote."""
    for name, ca in (("fleet", FLEET), ("other-fleet", OTHER_FLEET)):
        (state / "ca" / f"{name}.pem").write_bytes(der_to_pem(ca.certificate))
    listener = (
        f"  https_mtls:\n    listen: 127.0.0.1:{mtls_port}\n    certificate: tls/server.pem\n    key: {{file: secrets/tls.key}}\n"
    )
    text = without_est(text).replace("  external_url:", f"{listener}  external_url:", 1)
    start = text.index("  demo:\n")
    demo = text[start:]
    for name, anchors in (("kiosks", "fleet"), ("tills", "other-fleet")):
        required = f"ra_certificate: ca/ra.pem\n        client_certificate: require\n        client_anchors: ca/{anchors}.pem"
        text += "\n" + demo.replace("  demo:\n", f"  {name}:\n", 1).replace("[demo]", f"[{name}]").replace(
            "ra_certificate: ca/ra.pem", required, 1
        )
    return text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("mtls")
    port, state = free_port(), folder / "state"
    server = launch(state, workers=2, edit=lambda text: configure(text, state, port))
    try:
        yield Site(server, port, folder)
    finally:
        assert server.stop() == 0


@pytest.fixture
def fleet_client(site: Site) -> Path:
    return FLEET.issue(site.folder / "client.pem")


@pytest.mark.parametrize("path", ["/scep-mtls/kiosks", "/scep/kiosks"])
def test_a_certificate_of_the_profiles_fleet_and_a_challenge_enroll(site: Site, fleet_client: Path, path: str) -> None:
    assert site.enroll(fleet_client, path).status is PkiStatus.SUCCESS


def test_a_profile_that_asks_for_none_is_served_here_too(site: Site) -> None:
    assert site.enroll(None, "/scep/demo").status is PkiStatus.SUCCESS


def test_what_everybody_may_have_needs_no_certificate(site: Site) -> None:
    assert b"POSTPKIOperation" in site.post(site.url("/scep-mtls/kiosks?operation=GetCACaps"), None, None)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda _: None, "credential_missing", id="none"),
        pytest.param(lambda folder: OTHER_FLEET.issue(folder / "other.pem"), "not_authorized", id="of-another-profiles-fleet"),
        pytest.param(lambda folder: FLEET.issue(folder / "old.pem", NOW - DAY), "credential_expired", id="expired"),
    ],
)
def test_without_the_profiles_certificate_there_is_a_refusal_with_its_row(
    site: Site, make: Callable[[Path], Path | None], reason: str
) -> None:
    before = site.audited(reason)
    reply = site.enroll(make(site.folder))
    assert (reply.status, reply.certificates) == (PkiStatus.FAILURE, ())
    assert site.audited(reason) == before + 1


@pytest.mark.parametrize("listener", ["http", "https"])
def test_listeners_that_do_not_ask_serve_no_such_profile(site: Site, fleet_client: Path, listener: str) -> None:
    assert site.enroll(fleet_client, "/scep/kiosks", listener).status is PkiStatus.FAILURE


def test_a_certificate_of_an_unknown_ca_ends_in_an_alert(site: Site) -> None:
    stranger = STRANGERS.issue(site.folder / "stranger.pem")
    with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
        site.post(site.url("/scep-mtls/kiosks?operation=GetCACaps"), None, stranger)
    assert "Traceback" not in site.server.log.read_text()


def test_the_summary_shows_the_listener(site: Site) -> None:
    said = site.server.log.read_text()
    assert f"https://localhost:{site.mtls_port}/scep-mtls/kiosks, with a TLS client certificate" in said
    assert f"http://127.0.0.1:{site.server.http_port}/scep/demo" in said
    assert "/scep/kiosks" not in said


def test_a_replaced_worker_has_the_listener_too(site: Site, fleet_client: Path) -> None:
    children = Path(f"/proc/{site.server.process.pid}/task/{site.server.process.pid}/children")
    before = set(children.read_text().split())
    for pid in before:
        os.kill(int(pid), signal.SIGKILL)
    until = time.monotonic() + 40
    while site.server.log.read_text().count("a worker was replaced") < len(before):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert site.enroll(fleet_client).status is PkiStatus.SUCCESS
