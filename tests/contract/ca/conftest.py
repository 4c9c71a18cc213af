"""A hierarchy, requests, and both kinds of upstream CA over it."""

import itertools
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.exec import ExecCA, ExecSettings
from gateway.ca.interfaces import Capability, IssueRequest, UpstreamCA, UpstreamIssued
from gateway.ca.local import CaUrls, LocalCA
from gateway.ca.setup import Setup
from gateway.config.load import Sources
from gateway.model import Grant, ProfileName, RequestForm, RequestId, SanKind, UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, public_key_der
from gateway.pki.names import parse_name_text

DOCUMENT = Path(__file__).parents[3] / "docs" / "upstream-exec.md"
FAULTY_SIGNER = Path(__file__).parent / "faulty_signer.py"
NAME = UpstreamCAName("lab")
NO_SOURCES = Sources(Path("/nowhere/profiles.yaml"), "profiles.yaml", b"", {}, {})
URLS = CaUrls("http://127.0.0.1:8080/crl/lab.crl", "http://127.0.0.1:8080/ca/lab.crt")


def documented_program() -> str:
    """The program of docs/upstream-exec.md, as an operator would copy it."""
    [program] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return str(program)


@pytest.fixture(scope="session")
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


@pytest.fixture(scope="session")
def chain(hierarchy: Hierarchy) -> tuple[bytes, ...]:
    return (*pem_to_ders(hierarchy.issuing.certificate), *pem_to_ders(hierarchy.root.certificate))


@pytest.fixture(scope="session")
def device_key() -> PrivateKey:
    return generate_private_key("ec-p256")


def make_grant(subject: str = "O=Example AG,CN=Gerät 7/3\\, Süd") -> Grant:
    now = datetime.now(UTC).replace(microsecond=0)
    sans = (
        make_san(SanKind.DNS, "device-7.example.org"),
        make_san(SanKind.IP, "192.0.2.7"),
        make_san(SanKind.URI, "urn:example:7"),
        make_san(SanKind.UPN, "device@example.org"),
        make_san(SanKind.EMAIL, "device@example.org"),
    )
    usage = ("digitalSignature", "keyAgreement")
    ekus = (eku_oid("clientAuth"), eku_oid("serverAuth"))
    return Grant(parse_name_text(subject).der, sans, usage, ekus, now - timedelta(hours=1), now + timedelta(days=90))


NewRequest = Callable[..., IssueRequest]


@pytest.fixture
def new_request(device_key: PrivateKey) -> NewRequest:
    numbers = itertools.count(1)

    def create(key: PrivateKey = device_key, timeout: float = 30, **changes: object) -> IssueRequest:
        grant = replace(make_grant(), **changes)  # type: ignore[arg-type] # fields by name
        # What was asked for differs from what was granted, so a CA that copies the request is found out.
        csr = build_csr(key, parse_name_text("CN=wished").der, (make_san(SanKind.DNS, "wished.example.org"),))
        identifier = RequestId(f"01JTEST{next(numbers):019d}")
        profile = ProfileName("demo")
        return IssueRequest(identifier, profile, RequestForm.PKCS10, csr, public_key_der(key), grant, None, timeout)

    return create


@dataclass
class Lab:
    """An upstream CA and what a test may know behind its back."""

    ca: UpstreamCA
    folder: Path
    count: Callable[[], int] | None = None
    """Certificates that the CA has signed, where it keeps a record of its own."""

    def numbered(self, request: IssueRequest) -> IssueRequest:
        """Store the serial with the request, as the registration authority does."""
        return replace(request, serial=self.ca.new_serial())

    def set_faults(self, *faults: str) -> None:
        """Have the next runs of the program go wrong, one fault each."""
        (self.folder / "faults").write_text("".join(f"{fault}\n" for fault in faults))


def make_local(folder: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...]) -> Lab:
    return Lab(LocalCA(NAME, load_private_key(hierarchy.issuing.key), chain, URLS), folder)


def make_exec(
    folder: Path,
    hierarchy: Hierarchy,
    chain: tuple[bytes, ...],
    capabilities: Capability = Capability.FIND | Capability.REVOKE,
    concurrency: int = 2,
) -> Lab:
    """The documented program, behind the fault injector."""
    (folder / "ca.pem").write_bytes(hierarchy.issuing.certificate)
    (folder / "ca.key").write_bytes(hierarchy.issuing.key)
    program = folder / "sign"
    program.write_text(documented_program())
    program.chmod(stat.S_IRWXU)
    settings = ExecSettings(
        command=(sys.executable, "-I", "-S", str(FAULTY_SIGNER), str(program)),
        deadline=60,
        concurrency=concurrency,
        capabilities=capabilities,
        environment={"CA_DIR": str(folder)},
    )
    return Lab(ExecCA(Setup(NAME, chain, NO_SOURCES), settings), folder, lambda: len(list((folder / "issued").glob("*.pem"))))


@pytest.fixture(params=["local", "exec"])
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...]
) -> AsyncIterator[Lab]:
    make = {"local": make_local, "exec": make_exec}[request.param]
    made = make(tmp_path, hierarchy, chain)
    await made.ca.start()
    yield made
    await made.ca.close()


@pytest.fixture
async def exec_lab(tmp_path: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...]) -> AsyncIterator[Lab]:
    made = make_exec(tmp_path, hierarchy, chain)
    await made.ca.start()
    yield made
    await made.ca.close()


def openssl(*arguments: str, data: bytes = b"") -> str:
    """Run openssl, the judge; fails the test with its words."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def judge(folder: Path, hierarchy: Hierarchy, issued: UpstreamIssued) -> str:
    """Have openssl verify the chain for TLS clients, strictly, and return the certificate as it prints it."""
    (folder / "root.pem").write_bytes(hierarchy.root.certificate)
    (folder / "untrusted.pem").write_bytes(hierarchy.issuing.certificate)
    (folder / "leaf.der").write_bytes(issued.certificate)
    openssl("x509", "-inform", "DER", "-in", str(folder / "leaf.der"), "-out", str(folder / "leaf.pem"))
    anchors = ("-CAfile", str(folder / "root.pem"), "-untrusted", str(folder / "untrusted.pem"))
    openssl("verify", "-x509_strict", "-purpose", "sslclient", *anchors, str(folder / "leaf.pem"))
    assert parse_certificate(issued.certificate).der == issued.certificate
    return openssl("x509", "-in", str(folder / "leaf.pem"), "-noout", "-text", "-nameopt", "RFC2253,-esc_msb,utf8")
