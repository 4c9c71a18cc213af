"""A server with CMP for real clients, and `openssl cmp` in a folder of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from gateway.pki.certificate import der_to_pem
from gateway.pki.keys import generate_private_key, serialize_private_key
from tests.conftest import RunningServer, launch
from tests.flow.scep.other_ca import OtherCA
from tests.interop.authorities import CM_KGA, CMC_RA, issue_ra
from tests.interop.observed import Row
from tests.interop.settings import Change, edit, profile

VENDOR = OtherCA.create("maker of base stations")
RA_SUBJECT = "CN=a registration authority"
MESSAGES = ["kur", "cr", "p10cr"]
SECONDS = 60
USES = 1000


@dataclass(frozen=True)
class CmpSite:
    """The server; `root` is the file of the CA that its certificates lead to."""

    server: RunningServer
    shared: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Secrets of many uses, by profile: making one takes a second."""

    @property
    def root(self) -> Path:
        return self.server.state / "ca" / "root.pem"

    def new_secret(self, name: str = "demo", *options: str) -> tuple[str, str]:
        """Return reference number and secret."""
        made = json.loads(self.server.cli("cmp-secret", "create", name, "--format", "json", *options).stdout)
        return made["reference"], made["secret"]

    def secret(self, name: str = "demo") -> tuple[str, str]:
        """Return a shared secret that serves many tests."""
        if name not in self.shared:
            self.shared[name] = self.new_secret(name, "--uses", str(USES))
        return self.shared[name]

    def rows(self) -> list[Row]:
        """The log's lines about CMP messages, in their order."""
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "cmp"]

    def certificates(self, common_name: str) -> list[Row]:
        """What the inventory has of a subject."""
        listed = json.loads(self.server.cli("certs", "list", "--format", "json").stdout)
        return [row for row in listed if row["subject"] == f"CN={common_name}"]


Run = Callable[..., subprocess.CompletedProcess[bytes]]


def run_openssl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run Debian's openssl in a folder."""
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, timeout=SECONDS, check=False)


@dataclass
class CmpClient:
    """A device: a folder with its keys and what it got; `said` is what its last command printed."""

    folder: Path
    site: CmpSite
    run: Run = run_openssl
    profile: str = "demo"
    said: str = field(default="", init=False)

    def __post_init__(self) -> None:
        (self.folder / "root.pem").write_bytes(self.site.root.read_bytes())

    def openssl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run an openssl command that must succeed."""
        done = self.run(self.folder, *arguments)
        assert done.returncode == 0, done.stderr.decode()
        return done

    def new_key(self, name: str = "new.key", kind: str = "ec-p256") -> str:
        """Write a new key and return its file's name."""
        (self.folder / name).touch(0o600)
        (self.folder / name).write_bytes(serialize_private_key(generate_private_key(kind)))
        return name

    def new_csr(self, subject: str, key: str = "new.key") -> str:
        """Write a PKCS#10 and return its file's name."""
        self.openssl("req", "-new", "-key", key, "-subj", subject, "-out", "new.csr")
        return "new.csr"

    def cmp(self, command: str, *options: str, server: str | None = None) -> bool:
        """Send a command; return whether it succeeded. What it wrote before is taken away."""
        (self.folder / "cert.pem").unlink(missing_ok=True)
        where = server or f"127.0.0.1:{self.site.server.http_port}/.well-known/cmp/p/{self.profile}"
        trust = ("-trusted", "root.pem", "-out_trusted", "root.pem") if "-srvcert" not in options else ()
        certificate = ("-certout", "cert.pem") if command in {"ir", "cr", "kur", "p10cr"} else ()
        fixed = ("cmp", "-config", "", "-batch", "-cmd", command, "-server", where)
        done = self.run(self.folder, *fixed, *trust, *certificate, *options)
        self.said = (done.stdout + done.stderr).decode(errors="replace")
        return done.returncode == 0

    def by_secret(self, secret: tuple[str, str] | None = None) -> tuple[str, ...]:
        """The options of whoever knows a shared secret; one of many uses where none is given."""
        reference, value = secret or self.site.secret(self.profile)
        return ("-ref", reference, "-secret", f"pass:{value}")

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate of the last answer."""
        return x509.load_pem_x509_certificate((self.folder / "cert.pem").read_bytes())

    def keep(self, name: str = "own", key: str = "new.key") -> tuple[str, ...]:
        """Keep certificate and key; return the options of whoever signs with them."""
        (self.folder / "cert.pem").rename(self.folder / f"{name}.pem")
        (self.folder / key).rename(self.folder / f"{name}.key")
        return ("-cert", f"{name}.pem", "-key", f"{name}.key")

    def enroll(self, common_name: str, kind: str = "ec-p256") -> tuple[str, ...]:
        """Enroll by a shared secret; return the options of whoever signs with what came of it."""
        options = (*self.by_secret(), "-newkey", self.new_key(kind=kind), "-subject", f"/CN={common_name}")
        assert self.cmp("ir", *options), self.said
        return self.keep()

    def write_pair(self, name: str, authority: OtherCA, subject: str, **how: object) -> tuple[str, ...]:
        """Write a certificate of another CA with its key; return the options of whoever signs with them."""
        key = generate_private_key("ec-p256")
        (self.folder / f"{name}.pem").write_bytes(der_to_pem(authority.issue(key, subject, **how)))  # type: ignore[arg-type]
        (self.folder / f"{name}.key").touch(0o600)
        (self.folder / f"{name}.key").write_bytes(serialize_private_key(key))
        return ("-cert", f"{name}.pem", "-key", f"{name}.key")


def refused(device: CmpClient, command: str, *options: str) -> str:
    """Return what a client says of its refusal, which must be protected unless it is told otherwise."""
    assert not device.cmp(command, *options), device.said
    assert not (device.folder / "cert.pem").exists()
    return device.said


def cmp(name: str, **settings: object) -> Change:
    """Set fields of a profile's CMP endpoint; a new profile has CMP alone, and renews from itself."""

    def change(document: dict) -> None:  # type: ignore[type-arg]
        is_new = name not in document["profiles"]
        profile(name)(document)
        endpoints = document["profiles"][name]["endpoints"]
        if is_new:
            endpoints = document["profiles"][name]["endpoints"] = {"cmp": dict(document["profiles"]["demo"]["endpoints"]["cmp"])}
            for key in ("default", "aliases"):
                endpoints["cmp"].pop(key, None)
        endpoints["cmp"] = {**endpoints.get("cmp", {}), **settings}

    return change


def credentials(name: str, *wanted: dict[str, object]) -> Change:
    """Replace a profile's credentials."""
    return profile(name, credentials=list(wanted))


RA = OtherCA.create("registration authorities")
SECRETS: dict[str, object] = {"type": "cmp_secret", "max_uses": USES}
FORWARDS: dict[str, object] = {
    "type": "ra_certificate", "anchors": "ca/ra-anchor.pem", "subjects": [RA_SUBJECT], "may": ["enroll", "update", "revoke"],
}  # fmt: skip
VENDORS: dict[str, object] = {
    "type": "vendor_certificate", "anchors": "ca/vendor.pem", "identity_from": "serial_number", "inventory": "base-stations.txt",
}  # fmt: skip


def site_changes(state: Path) -> tuple[Change, ...]:
    """`demo` without a name and with aliases; `waiting`, `vendor`, `careful` (lightweight) beside it."""
    signer = issue_ra(state, "cmp-signer", decrypts=False, purpose=CMC_RA)
    generator = issue_ra(state, "key-generator", decrypts=False, purpose=CM_KGA)
    (state / "ca" / "ra-anchor.pem").write_bytes(RA.pem)
    (state / "ca" / "vendor.pem").write_bytes(VENDOR.pem)
    (state / "base-stations.txt").write_text("# base stations\nBS-1\nBS-2\nBS-3\n")
    keys = {"keys": ["ec-p256", "rsa-2048"], "signer": generator}
    return (
        cmp(
            "demo",
            signer=signer,
            default=True,
            aliases=["pkix", "ejbca/publicweb/cmp/demo"],
            key_generation=keys,
            encrypted_certificates=True,
            root_update=None,
        ),
        credentials("demo", SECRETS, FORWARDS),
        _renewing("demo"),
        cmp("waiting", key_generation=None, encrypted_certificates=False),
        profile("waiting", approval="manual"),
        cmp("careful", strictness="lightweight", confirmation={"implicit": "refuse"}),
        cmp("vendor", confirmation={"implicit": "refuse"}, extra_certificates="ca/root.pem"),
        credentials("vendor", VENDORS),
        *(_renewing(name) for name in ("waiting", "careful", "vendor")),
    )


def _renewing(name: str) -> Change:
    return profile(name, renewal={"from": [name], "messages": MESSAGES})


@contextmanager
def running(state: Path, *changes: Change, workers: int = 2) -> Iterator[CmpSite]:
    """Serve the profiles of `site_changes` and what `changes` make of them."""

    def apply(text: str) -> str:
        return edit(*site_changes(state), *changes)(text)

    server = launch(state, workers=workers, edit=apply)
    try:
        yield CmpSite(server)
    finally:
        assert server.stop() == 0
