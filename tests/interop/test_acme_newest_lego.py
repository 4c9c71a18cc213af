"""lego of Debian's sid: addresses, and renewal when the server says so, with `replaces` (RFC 9773)."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.conftest import free_port
from tests.interop.acme_clients import MAIL, read_chain
from tests.interop.acme_site import AcmeSite
from tests.interop.debian13 import Root, build

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return build(tmp_path_factory.mktemp("lego-root"), ("lego",), "sid")


@dataclass
class Lego:
    """lego in a folder of its root; it proves as a web server behind the front, or by TLS."""

    root: Root
    folder: Path
    site: AcmeSite
    profile: str = "standard"
    external: tuple[str, str] | None = None

    def lego(self, command: str, *args: str, name: str, tls: bool = False) -> "subprocess.CompletedProcess[bytes]":
        port = free_port()
        self.site.front.routes[name] = port
        eab = ("--eab", "--kid", self.external[0], "--hmac", self.external[1]) if self.external else ()
        proof = ("--tls", "--tls.port", f"127.0.0.1:{self.site.tls_port}")
        proof = proof if tls else ("--http", "--http.port", f"127.0.0.1:{port}")
        account = ("--server", self.site.directory(self.profile), "--email", MAIL, "--accept-tos", "--path", "lego", *eab)
        trust = {"LEGO_CA_CERTIFICATES": "root.pem", "HOME": "/tmp"}
        done = self.root.run(self.folder, "lego", *account, "--domains", name, *proof, command, *args, env=trust)
        self.site.front.routes.pop(name)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done

    def chain(self, name: str) -> list[x509.Certificate]:
        return read_chain(self.folder / "lego" / "certificates" / f"{name}.crt")


@pytest.fixture
def new_lego(acme_site: AcmeSite, root: Root, request: pytest.FixtureRequest) -> Callable[..., Lego]:
    folder = root.folder(request.node.name)
    shutil.copy(acme_site.root, folder / "root.pem")
    return lambda **how: Lego(root, folder, acme_site, **how)


def test_proves_as_a_web_server(acme_site: AcmeSite, new_lego: Callable[..., Lego]) -> None:
    lego, name = new_lego(), "lego4.acme.test"
    lego.lego("run", name=name)
    acme_site.check(lego.chain(name), name)


@pytest.mark.parametrize("tls", [False, True])
def test_proves_an_address(acme_site: AcmeSite, new_lego: Callable[..., Lego], tls: bool) -> None:
    lego = new_lego()
    lego.lego("run", name="127.0.0.1", tls=tls)
    acme_site.check(lego.chain("127.0.0.1"), "127.0.0.1")


def test_external_account(acme_site: AcmeSite, new_lego: Callable[..., Lego]) -> None:
    lego, name = new_lego(profile="bound", external=acme_site.new_external_account("bound")), "lego4-bound.acme.test"
    lego.lego("run", name=name)
    acme_site.check(lego.chain(name), name)


def test_renews_when_an_incident_is_declared(acme_site: AcmeSite, new_lego: Callable[..., Lego], tmp_path: Path) -> None:
    lego, name = new_lego(), "lego4-incident.acme.test"
    lego.lego("run", name=name)
    first = lego.chain(name)[0]
    lego.lego("renew", "--no-random-sleep", name=name)
    assert lego.chain(name)[0] == first
    serials = tmp_path / "serials"
    serials.write_text(f"{first.serial_number:x}\n")
    acme_site.declare_incident("--serials", str(serials))
    lego.lego("renew", "--no-random-sleep", name=name)
    assert acme_site.check(lego.chain(name), name).serial_number != first.serial_number
    assert acme_site.replaced(first) == ["valid"]
