"""Debian's lego: http-01, dns-01, tls-alpn-01, addresses, wildcards, external accounts, CSRs of others, renewal, revocation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.conftest import free_port
from tests.interop.acme_clients import Lego, read_chain
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewLego = Callable[..., Lego]


@pytest.fixture
def new_lego(require_program: Callable[[str, str], str], tmp_path: Path) -> NewLego:
    program = require_program("lego", "lego")
    return lambda site, **how: Lego(tmp_path / "lego", site, program=program, **how)


@pytest.fixture
def lego(acme_site: AcmeSite, new_lego: NewLego) -> Lego:
    return new_lego(acme_site)


def test_proves_as_a_web_server(acme_site: AcmeSite, lego: Lego) -> None:
    port, names = free_port(), ("lego.acme.test", "www.lego.acme.test")
    acme_site.front.routes.update(dict.fromkeys(names, port))
    lego.lego("run", *names, how=("--http", "--http.port", f"127.0.0.1:{port}"))
    leaf = acme_site.check(read_chain(lego.path(names[0])), *names)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)


def test_proves_by_tls(acme_site: AcmeSite, lego: Lego) -> None:
    names = ("lego-tls.acme.test", "www.lego-tls.acme.test")
    lego.lego("run", *names, how=("--tls", "--tls.port", f"127.0.0.1:{acme_site.tls_port}"))
    acme_site.check(read_chain(lego.path(names[0])), *names)


def test_proves_an_address_by_tls(acme_site: AcmeSite, lego: Lego) -> None:
    """The server name is the address's name below in-addr.arpa (RFC 8738 §6)."""
    lego.lego("run", "127.0.0.1", how=("--tls", "--tls.port", f"127.0.0.1:{acme_site.tls_port}"))
    acme_site.check(read_chain(lego.path("127.0.0.1")), "127.0.0.1")


def test_proves_an_address_by_http(acme_site: AcmeSite, lego: Lego) -> None:
    lego.lego("run", "127.0.0.1")
    acme_site.check(read_chain(lego.path("127.0.0.1")), "127.0.0.1")


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, lego: Lego) -> None:
    name, present = f'name="{acme_site.records}/$(echo "$2" | sed "s/[.]$//")"', 'echo "$3" >> "$name"'
    script = f'{name}; case "$1" in present) {present};; *) rm -f "$name";; esac'
    lego.env = {"EXEC_PATH": str(lego.script("record", script))}
    names = ("lego-dns.acme.test", "*.lego-dns.acme.test")
    lego.lego("run", *names, how=("--dns", "exec", "--dns.disable-cp", "--dns.resolvers", acme_site.dns.address))
    acme_site.check(read_chain(lego.path(names[0])), *names)


def test_external_account(acme_site: AcmeSite, new_lego: NewLego) -> None:
    bound = new_lego(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("lego-bound.acme.test"), "lego-bound.acme.test")


def test_an_external_account_serves_one_account(acme_site: AcmeSite, new_lego: NewLego, tmp_path: Path) -> None:
    key = acme_site.new_external_account("bound")
    new_lego(acme_site, profile="bound", external=key).obtain("lego-first.acme.test")
    second = Lego(tmp_path / "second", acme_site, profile="bound", external=key)
    assert second.lego("run", "lego-second.acme.test", check=False).returncode != 0
    assert not second.path("lego-second.acme.test").exists()


def test_certifies_a_key_of_its_own(acme_site: AcmeSite, lego: Lego) -> None:
    name = "lego-csr.acme.test"
    new = (
        "req",
        "-new",
        "-newkey",
        "rsa:3072",
        "-nodes",
        "-keyout",
        "own.key",
        "-subj",
        "/",
        "-addext",
        f"subjectAltName=DNS:{name}",
    )
    lego.run("openssl", *new, "-out", "own.csr")
    lego.lego("run", how=("--csr", "own.csr", "--http", "--http.webroot", acme_site.front.webroot))
    key = acme_site.check(read_chain(lego.path(name)), name).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 3072


def test_renews(acme_site: AcmeSite, lego: Lego) -> None:
    first = acme_site.check(lego.obtain("lego-renews.acme.test"), "lego-renews.acme.test")
    lego.lego("renew", "lego-renews.acme.test", options=("--days", "1000", "--no-random-sleep", "--reuse-key"))
    second = acme_site.check(read_chain(lego.path("lego-renews.acme.test")), "lego-renews.acme.test")
    assert second.serial_number != first.serial_number
    assert second.public_key() == first.public_key()


def test_revokes(acme_site: AcmeSite, lego: Lego) -> None:
    leaf = lego.obtain("lego-revoked.acme.test")[0]
    lego.lego("revoke", "lego-revoked.acme.test", options=("--reason", "5", "--keep"))
    assert acme_site.revoked()[leaf.serial_number] is x509.ReasonFlags.cessation_of_operation


def test_no_certificate_without_proof(acme_site: AcmeSite, lego: Lego) -> None:
    done = lego.lego("run", "lego-unproved.acme.test", how=("--http", "--http.port", f"127.0.0.1:{free_port()}"), check=False)
    assert done.returncode != 0
    assert "lego-unproved.acme.test" in done.stdout
    assert not lego.path("lego-unproved.acme.test").exists()


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_lego: NewLego) -> None:
    site, spoiler = flaky_site
    lego, refused = new_lego(site), spoiler.refused
    for number in range(3):
        site.check(lego.obtain(f"lego-{number}.acme.test"), f"lego-{number}.acme.test")
    assert spoiler.refused > refused
