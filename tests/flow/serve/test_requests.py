"""Requests that a person ends, by `pki-gateway requests` against a running server, as the device sees it."""

import json
import re
import stat
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.asn1.scep import FailInfo, MessageType, PkiStatus
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client
from tests.conftest import RunningServer, StartServer

DOCUMENT = Path(__file__).parents[3] / "docs" / "upstream-exec.md"
LOSES_REPLIES = """\
import os, subprocess, sys
from pathlib import Path

folder = Path(os.environ["CA_DIR"])
fault = (folder / "fault").read_text()
with (folder / "runs").open("a") as runs:
    runs.write("run\\n")
if fault == "dies before it signs":
    sys.exit(1)
done = subprocess.run([sys.executable, "-I", folder / "sign"], stdin=sys.stdin, stdout=subprocess.PIPE, check=True)
if fault == "dies after it signed":
    sys.exit(1)
sys.stdout.buffer.write(done.stdout)
"""


@dataclass
class Device:
    """One device: its key, its challenge and the one transaction that it keeps asking about."""

    server: RunningServer
    name: str
    key: PrivateKey = field(default_factory=lambda: generate_private_key("rsa-2048"))

    def __post_init__(self) -> None:
        authorities = client.decode_ca_certificates(
            self.server.get("/scep/demo?operation=GetCACert"), "application/x-x509-ca-ra-cert"
        )
        self.ra = client.choose_ra_certificate(authorities)
        subject, now = parse_name_text(f"CN={self.name}").der, datetime.now(UTC)
        self.signer = client.self_signed_signer(self.key, subject, now - timedelta(hours=1), now + timedelta(days=1))
        csr = build_csr(self.key, subject, challenge_password=self.server.static_challenge)
        self.transaction = client.transaction_id(public_key_der(self.key))
        self.request = client.encode_request(csr, self.signer, self.ra, transaction=self.transaction)
        issuer = parse_certificate(pem_to_ders((self.server.state / "ca" / "issuing.pem").read_bytes())[0])
        self.names = client.encode_issuer_and_subject(issuer.subject.der, subject)

    def _post(self, request: client.ScepRequest) -> client.CertRep:
        url = f"{self.server.url}/scep/demo?operation=PKIOperation"
        with urllib.request.urlopen(urllib.request.Request(url, request.message), timeout=30) as reply:
            return client.decode_cert_rep(reply.read(), request, self.signer, self.ra)

    def ask(self) -> client.CertRep:
        """Send the request; every time the same bytes."""
        return self._post(self.request)

    def poll(self) -> client.CertRep:
        """Send one CertPoll."""
        return self._post(
            client.encode_request(
                self.names, self.signer, self.ra, message_type=MessageType.CERT_POLL, transaction=self.transaction
            )
        )

    def poll_to_the_end(self) -> client.CertRep:
        answers: list[client.CertRep] = []

        def ended() -> bool:
            answers.append(self.poll())
            return answers[-1].status is not PkiStatus.PENDING

        wait_for(ended)
        return answers[-1]

    def holds(self, answer: client.CertRep) -> bytes:
        """Return the certificate of an answer; it must be for this device."""
        assert answer.status is PkiStatus.SUCCESS, answer
        [own] = [der for der in answer.certificates if parse_certificate(der).public_key.der == public_key_der(self.key)]
        return own


def wait_for(condition: Callable[[], bool], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def request_of(server: RunningServer, device: Device, state: str) -> str:
    """Return the ID of the device's request, once it is in `state`."""
    found: list[str] = []

    def there() -> bool:
        rows = json.loads(server.cli("requests", "list", "--state", state, "--format", "json").stdout)
        found.extend(row["id"] for row in rows if row["subject"] == f"CN={device.name}")
        return bool(found)

    wait_for(there)
    return found[0]


def assert_clean(server: RunningServer) -> None:
    assert server.stop() == 0
    server.cli("audit", "verify")
    server.cli("store", "check")


def test_approve_and_deny(start_server: StartServer) -> None:
    server = start_server(edit=lambda text: text.replace("  demo:\n", "  demo:\n    approval: manual\n", 1))
    welcome, unwelcome = Device(server, "welcome"), Device(server, "unwelcome")
    for device in (welcome, unwelcome):
        assert device.ask().status is PkiStatus.PENDING
        assert device.poll().status is PkiStatus.PENDING
    first, second = (request_of(server, device, "pending") for device in (welcome, unwelcome))
    assert server.cli("requests", "approve", first).stdout == f"Request {first} is approved and goes to its CA.\n"
    assert server.cli("requests", "deny", second, "--detail", "not ours").stdout == f"Request {second} is denied.\n"
    certificate = welcome.holds(welcome.poll_to_the_end())
    assert welcome.holds(welcome.ask()) == certificate
    for refused in (unwelcome.poll(), unwelcome.ask()):
        assert (refused.status, refused.fail_info, refused.fail_info_text) == (
            PkiStatus.FAILURE, FailInfo.BAD_REQUEST, "not ours",
        )  # fmt: skip
    for arguments in (("approve", second), ("deny", first), ("resolve", first, "--fail")):
        assert server.cli("requests", *arguments, check=False).returncode == 1
    assert len(json.loads(server.cli("certs", "list", "--format", "json").stdout)) == 1
    assert_clean(server)


@pytest.fixture
def ca_folder(tmp_path: Path) -> Path:
    """The documented program behind one that can lose its reply."""
    folder = tmp_path / "other-ca"
    folder.mkdir()
    [program] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    (folder / "sign").write_text(program)
    (folder / "loses-replies").write_text(f"#!{sys.executable} -I\n{LOSES_REPLIES}")
    (folder / "loses-replies").chmod(stat.S_IRWXU)
    return folder


def test_resolve(start_server: StartServer, tmp_path: Path, ca_folder: Path) -> None:
    def edit(text: str) -> str:
        state = tmp_path / "state"
        (ca_folder / "ca.pem").write_bytes((state / "ca" / "issuing.pem").read_bytes())
        (ca_folder / "ca.key").write_bytes((state / "secrets" / "issuing.key").read_bytes())
        other = (
            f"  other:\n    type: exec\n    command: [{ca_folder}/loses-replies]\n    chain: [ca/issuing.pem, ca/root.pem]\n"
            f"    environment: {{CA_DIR: {ca_folder}}}\n"
        )
        return text.replace("upstream_cas:\n", f"upstream_cas:\n{other}", 1).replace(
            "upstream_ca: local", "upstream_ca: other", 1
        )

    def hold(name: str, fault: str) -> tuple[Device, str]:
        (ca_folder / "fault").write_text(fault)
        device = Device(server, name)
        assert device.ask().status is PkiStatus.PENDING
        return device, request_of(server, device, "unknown")

    server = start_server(edit=edit)
    attached, first = hold("attached", "dies after it signed")
    [signed] = (ca_folder / "issued").iterdir()
    reissued, second = hold("reissued", "dies before it signs")
    failed, third = hold("failed", "dies before it signs")
    (ca_folder / "fault").write_text("")
    runs = len((ca_folder / "runs").read_text().splitlines())
    assert runs == 3
    assert [device.poll().status for device in (attached, reissued, failed)] == [PkiStatus.PENDING] * 3

    wrong = server.cli("requests", "resolve", second, "--attach", str(signed), check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    done = server.cli("requests", "resolve", first, "--attach", str(signed))
    assert done.stdout == f"Request {first} has its certificate.\n"
    done = server.cli("requests", "resolve", second, "--reissue")
    assert done.stdout == f"Request {second} goes to its CA again.\n"
    done = server.cli("requests", "resolve", third, "--fail", "--detail", "ask anew")
    assert done.stdout == f"Request {third} is ended without a certificate.\n"

    assert [attached.holds(attached.poll_to_the_end())] == list(pem_to_ders(signed.read_bytes()))
    assert attached.holds(attached.ask()) == attached.holds(attached.poll())
    reissued_certificate = reissued.holds(reissued.poll_to_the_end())
    assert reissued.holds(reissued.ask()) == reissued_certificate
    refused = failed.poll_to_the_end()
    assert (refused.status, refused.fail_info_text) == (PkiStatus.FAILURE, "ask anew")
    assert failed.ask().status is PkiStatus.FAILURE
    assert len((ca_folder / "runs").read_text().splitlines()) == runs + 1
    assert len(list((ca_folder / "issued").iterdir())) == 2
    assert len(json.loads(server.cli("certs", "list", "--format", "json").stdout)) == 2
    assert_clean(server)
