"""Real ACME clients, each in a folder of its own, as their users call them; they find names and certificates at a site."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from tests.conftest import free_port
from tests.interop.acme_site import AcmeSite

SECONDS = 180
MAIL = "operator@acme.test"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

Done = subprocess.CompletedProcess[str]


@dataclass
class Client:
    """A client's folder and the directory that it is told of; `env` goes beside PATH and what the client needs."""

    folder: Path
    site: AcmeSite
    profile: str = "standard"
    env: Mapping[str, str] = field(default_factory=dict)
    external: tuple[str, str] | None = None
    """An external account's key: ID and key."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def directory(self) -> str:
        return self.site.directory(self.profile)

    def trust(self) -> dict[str, str]:
        """What makes the client trust the server, by its environment."""
        return {}

    def run(self, *command: str | Path, check: bool = True, env: Mapping[str, str] | None = None) -> Done:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **self.trust(), **self.env}
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env={**environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}"
        return done

    def script(self, name: str, text: str) -> Path:
        """Write a hook of the shell's."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nset -eu\n{text}\n")
        path.chmod(0o755)
        return path

    def record(self, name: str, value: str) -> str:
        """The command that sets a name's TXT record, in the shell's words."""
        return f'printf "%s\\n" {value} >> {shlex.quote(str(self.site.records))}/_acme-challenge.{name}'

    def forget(self, name: str) -> str:
        """The command that takes the name's TXT records away."""
        return f"rm -f {shlex.quote(str(self.site.records))}/_acme-challenge.{name}"


def read_chain(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


@dataclass
class Certbot(Client):
    """certbot, of Debian or another."""

    program: str = "certbot"

    def trust(self) -> dict[str, str]:
        return {"REQUESTS_CA_BUNDLE": str(self.site.root)}

    def certbot(self, *args: str | Path, check: bool = True) -> Done:
        """Run one command of certbot's."""
        folders = ("--config-dir", "conf", "--work-dir", "work", "--logs-dir", "logs")
        return self.run(self.program, *args, *folders, "--server", self.directory, "--non-interactive", check=check)

    @property
    def account(self) -> tuple[str, ...]:
        eab = ("--eab-kid", self.external[0], "--eab-hmac-key", self.external[1]) if self.external else ()
        return ("--agree-tos", "-m", MAIL, "--no-eff-email", *eab)

    def ask(self, *names: str, how: tuple[str | Path, ...] = (), check: bool = True) -> Done:
        """Ask for a certificate; proof is by the web root unless `how` says otherwise."""
        webroot = ("--webroot", "-w", self.site.front.webroot)
        asked = [part for name in names for part in ("-d", name)]
        return self.certbot("certonly", *asked, *self.account, "--cert-name", "first", *(how or webroot), check=check)

    def chain(self) -> list[x509.Certificate]:
        return read_chain(self.folder / "conf" / "live" / "first" / "fullchain.pem")

    def obtain(self, *names: str) -> list[x509.Certificate]:
        self.ask(*names)
        return self.chain()


@dataclass
class Lego(Client):
    """lego, of Debian or another."""

    program: str = "lego"

    def trust(self) -> dict[str, str]:
        return {"LEGO_CA_CERTIFICATES": str(self.site.root)}

    def lego(
        self, command: str, *names: str, how: tuple[str | Path, ...] = (), options: tuple[str, ...] = (), check: bool = True
    ) -> Done:
        """Run one command of lego's."""
        eab = ("--eab", "--kid", self.external[0], "--hmac", self.external[1]) if self.external else ()
        asked = [part for name in names for part in ("--domains", name)]
        webroot = ("--http", "--http.webroot", self.site.front.webroot)
        account = ("--server", self.directory, "--email", MAIL, "--accept-tos", "--path", "lego", *eab)
        proof = how or webroot
        return self.run(self.program, *account, "--cert.timeout", "100", *asked, *proof, command, *options, check=check)

    def path(self, name: str, kind: str = "crt") -> Path:
        return self.folder / "lego" / "certificates" / f"{name.replace('*', '_')}.{kind}"

    def obtain(self, *names: str) -> list[x509.Certificate]:
        self.lego("run", *names)
        return read_chain(self.path(names[0]))


@dataclass
class Uacme(Client):
    """uacme with its own hook; libcurl reads the system's bundle only, so it sees another in its place."""

    program: str = "uacme"

    def uacme(self, *args: str | Path, hook: Path | None = None, check: bool = True) -> Done:
        """Run one command of uacme's in a mount namespace of its own."""
        bundle = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        user = () if os.geteuid() == 0 else ("--map-root-user",)
        seen = ("unshare", *user, "--mount", "sh", "-c", bundle, "sh", self.site.root, BUNDLE)
        eab = ("-e", ":".join(self.external)) if self.external else ()
        hooked = hook or Path("/usr/share/uacme/uacme.sh")
        options = ("-v", "-c", "uacme", "-a", self.directory, "-y", "-h", hooked, *eab)
        return self.run(
            *seen, self.program, *options, *args, check=check, env={"UACME_CHALLENGE_PATH": str(self.site.front.challenges)}
        )

    def path(self, name: str) -> Path:
        return self.folder / "uacme" / name / "cert.pem"

    def obtain(self, *names: str) -> list[x509.Certificate]:
        if not (self.folder / "uacme" / "private" / "key.pem").exists():
            self.uacme("new", MAIL)
        self.uacme("issue", *names)
        return read_chain(self.path(names[0]))


@dataclass
class Dehydrated(Client):
    """dehydrated, a shell script over curl and openssl."""

    challenge: str = "http-01"

    def trust(self) -> dict[str, str]:
        return {"CURL_CA_BUNDLE": str(self.site.root)}

    def dehydrated(self, *args: str | Path, hook: Path | None = None, check: bool = True) -> Done:
        """Run one command of dehydrated's."""
        settings = {
            "CA": self.directory,
            "BASEDIR": str(self.folder),
            "WELLKNOWN": str(self.site.front.challenges),
            "ALPNCERTDIR": str(self.folder / "alpn"),
            "CHALLENGETYPE": self.challenge,
            "CONTACT_EMAIL": MAIL,
            "HOOK": str(hook or ""),
            **({"EAB_KID": self.external[0], "EAB_HMAC_KEY": self.external[1]} if self.external else {}),
        }
        (self.folder / "config").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
        return self.run("dehydrated", "--config", self.folder / "config", *args, check=check)

    def path(self, name: str, file: str = "fullchain.pem") -> Path:
        return self.folder / "certs" / name.removeprefix("*.") / file

    def obtain(self, *names: str, hook: Path | None = None) -> list[x509.Certificate]:
        if not (self.folder / "accounts").exists():
            self.dehydrated("--register", "--accept-terms")
        alias = ("--alias", names[0].removeprefix("*."))
        self.dehydrated("--cron", "--domain", " ".join(names), *alias, "--force", hook=hook)
        return read_chain(self.path(names[0]))


@dataclass
class AcmeTiny(Client):
    """acme-tiny: an account's key and a CSR, both of openssl."""

    def trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.site.root)}

    def request(self, *names: str) -> None:
        """Make the account's key, another key and a CSR for it."""
        sans = ",".join(f"DNS:{name}" for name in names)
        new = ("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-subj", f"/CN={names[0]}")
        self.run("openssl", "genrsa", "-out", "account.key", "2048")
        self.run("openssl", *new, "-addext", f"subjectAltName={sans}", "-out", "own.csr")

    def ask(self, check: bool = True, folder: Path | None = None) -> Done:
        """Ask for what `request` made; proofs go into `folder`, else where they are looked for."""
        return self.run(
            "sh", "-c", 'exec "$@" > chain.pem', "sh", "acme-tiny", "--account-key", "account.key", "--csr", "own.csr",
            "--acme-dir", folder or self.site.front.challenges, "--directory-url", self.directory, "--disable-check",
            "--contact", f"mailto:{MAIL}", check=check,
        )  # fmt: skip

    def obtain(self, *names: str) -> list[x509.Certificate]:
        self.request(*names)
        self.ask()
        return read_chain(self.folder / "chain.pem")


@dataclass
class Server(Client):
    """A web server that gets certificates by itself; it listens for http-01 behind the front and for TLS at `tls_port`."""

    tls_port: int = 0

    def command(self, *names: str) -> list[str]:
        """Write the configuration and return what runs it."""
        raise NotImplementedError

    @contextmanager
    def running(self, *names: str) -> Iterator[None]:
        """Run while the block does; its words are in `log`."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        self.tls_port = self.tls_port or free_port()
        with (self.folder / "log").open("ab") as log:
            command = self.command(*names)
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(30)
                for name in names:
                    self.site.front.routes.pop(name, None)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def served(self, name: str) -> x509.Certificate | None:
        """The certificate that is shown to a client who asks for a name; None while there is none."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.tls_port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(shown) if shown else None
        return None

    def wait(self, name: str, *, other_than: x509.Certificate | None = None, seconds: float = SECONDS) -> x509.Certificate:
        """Return the gateway's certificate as soon as it is shown."""
        issuer, until = self.site.issuing().subject, time.monotonic() + seconds
        while time.monotonic() < until:
            shown = self.served(name)
            if shown is not None and shown.issuer == issuer and shown != other_than:
                return shown
            time.sleep(0.3)
        raise AssertionError(f"{name} is not served:\n{self.log()}")

    def wait_served(self, name: str, seconds: float = 30) -> x509.Certificate:
        """Return the certificate that is shown, as soon as one of the gateway's is."""
        return Server.wait(self, name, seconds=seconds)

    def obtain(self, *names: str) -> list[x509.Certificate]:
        with self.running(*names):
            return [self.wait(names[0]), self.site.issuing()]


@dataclass
class Caddy(Server):
    """Caddy, one site for each name."""

    issuer: tuple[str, ...] = ("disable_tlsalpn_challenge",)
    options: tuple[str, ...] = ()

    def command(self, *names: str) -> list[str]:
        http_port = free_port()
        for name in names:
            self.site.front.routes[name] = http_port
        eab = [f"acme_eab {{\n key_id {self.external[0]}\n mac_key {self.external[1]}\n}}"] if self.external else []
        general = [
            f"http_port {http_port}", f"https_port {self.tls_port}", "admin off", f"email {MAIL}", f"acme_ca {self.directory}",
            f"acme_ca_root {self.site.root}", f"storage file_system {self.folder}/storage", "ocsp_stapling off",
            "skip_install_trust", *eab, *self.options,
        ]  # fmt: skip
        issuer = "\n".join(self.issuer)
        sites = [f"{name} {{\n tls {{\n issuer acme {{\n{issuer}\n}}\n}}\n respond ok\n}}" for name in names]
        (self.folder / "Caddyfile").write_text("{\n" + "\n".join(general) + "\n}\n" + "\n".join(sites) + "\n")
        return ["caddy", "run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]


MODULES = Path("/usr/lib/apache2/modules")


@dataclass
class ModMd(Server):
    """Apache with mod_md; it shows a new certificate once it is started again, so `wait` looks into its store."""

    challenge: str = "http-01"
    lines: tuple[str, ...] = ()

    def command(self, *names: str) -> list[str]:
        http_port = free_port()
        for name in names:
            self.site.front.routes[name] = http_port
        eab = (f"MDExternalAccountBinding {self.external[0]} {self.external[1]}",) if self.external else ()
        loaded = (f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in ("mpm_event", "authz_core", "ssl", "md"))
        own = ("User www-data", "Group www-data") if os.geteuid() == 0 else ()
        (self.folder / "htdocs").mkdir(exist_ok=True)
        shutil.copyfile(self.site.root, self.folder / "root.pem")  # where Apache's children can read it
        text = [
            *loaded, *own, f"ServerRoot {self.folder}", f"PidFile {self.folder}/pid", "ServerName localhost",
            f"DefaultRuntimeDir {self.folder}", f"Mutex file:{self.folder}", f"DocumentRoot {self.folder}/htdocs",
            f"ErrorLog {self.folder}/log", "LogLevel md:info", "Protocols http/1.1 acme-tls/1", "SSLSessionCache none",
            f"Listen 127.0.0.1:{http_port}", f"Listen 127.0.0.1:{self.tls_port} https",
            f"MDStoreDir {self.folder}/md", f"MDCertificateAuthority {self.directory}", "MDCertificateAgreement accepted",
            f"MDCACertificateFile {self.folder}/root.pem", f"MDContactEmail {MAIL}", f"MDCAChallenges {self.challenge}",
            f"MDPortMap http:{http_port} https:{self.tls_port}", "MDStapling off", *eab,
            f"MDomain {' '.join(names)}", *self.lines,
            f"<VirtualHost *:{self.tls_port}>\nServerName {names[0]}\nSSLEngine on\n</VirtualHost>",
            f"<VirtualHost *:{http_port}>\nServerName {names[0]}\n</VirtualHost>",
        ]  # fmt: skip
        (self.folder / "httpd.conf").write_text("\n".join(text) + "\n")
        return ["apache2", "-f", str(self.folder / "httpd.conf"), "-DFOREGROUND"]

    def wait(self, name: str, *, other_than: x509.Certificate | None = None, seconds: float = SECONDS) -> x509.Certificate:
        """Return what it fetched, as soon as that waits for the next start."""
        until, staged = time.monotonic() + seconds, self.folder / "md" / "staging" / name / "pubcert.pem"
        while time.monotonic() < until:
            with suppress(OSError, ValueError):
                leaf = read_chain(staged)[0]
                if leaf != other_than:
                    return leaf
            time.sleep(0.3)
        raise AssertionError(f"{name} was not fetched:\n{self.log()}")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter: Apache's children are not root."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass
class NodeClient(Client):
    """The npm package acme-client; our driver is in acme_client/, the package beside it in `modules`."""

    modules: Path = Path("node_modules")
    challenge: str = "http-01"

    def trust(self) -> dict[str, str]:
        return {"NODE_EXTRA_CA_CERTS": str(self.site.root), "NODE_PATH": str(self.modules)}

    def drive(self, command: str, *names: str, check: bool = True, **more: object) -> dict[str, object]:
        """Run one command of the driver's; return what it says."""
        settings = {
            "directory": self.directory,
            "names": names,
            "challenge": self.challenge,
            "external": self.external,
            "httpPort": self.site.front.port,
            "webroot": str(self.site.front.challenges),
            "records": str(self.site.records),
            **more,
        }
        driver = Path(__file__).parent / "acme_client" / "driver.js"
        done = self.run("node", driver, command, json.dumps(settings), check=check)
        said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return said

    def chain(self) -> list[x509.Certificate]:
        return read_chain(self.folder / "chain.pem")

    def obtain(self, *names: str) -> list[x509.Certificate]:
        self.drive("obtain", *names)
        return self.chain()
