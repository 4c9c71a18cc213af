"""uacme: http-01, dns-01, tls-alpn-01 by its own ualpn, addresses, external accounts, another account key, revocation."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.acme_clients import MAIL, Uacme, read_chain
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewUacme = Callable[..., Uacme]


@pytest.fixture
def new_uacme(require_program: Callable[[str, str], str], tmp_path: Path) -> NewUacme:
    program = require_program("uacme", "uacme")
    return lambda site, **how: Uacme(tmp_path / "uacme", site, program=program, **how)


@pytest.fixture
def uacme(acme_site: AcmeSite, new_uacme: NewUacme) -> Uacme:
    return new_uacme(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, uacme: Uacme) -> None:
    names = ("uacme.acme.test", "www.uacme.acme.test")
    acme_site.check(uacme.obtain(*names), *names)


def test_proves_an_address(acme_site: AcmeSite, uacme: Uacme) -> None:
    acme_site.check(uacme.obtain("127.0.0.1"), "127.0.0.1")


def test_proves_a_wildcard_by_dns(acme_site: AcmeSite, uacme: Uacme) -> None:
    begin, end = uacme.record('"$3"', '"$5"'), uacme.forget('"$3"')
    hook = uacme.script("dns", f'[ "$2" = dns-01 ] || exit 1\ncase "$1" in begin) {begin};; *) {end};; esac')
    uacme.uacme("new", MAIL)
    uacme.uacme("issue", "*.uacme-dns.acme.test", hook=hook)
    acme_site.check(read_chain(uacme.path("*.uacme-dns.acme.test")), "*.uacme-dns.acme.test")


def test_proves_by_tls(acme_site: AcmeSite, uacme: Uacme, tmp_path: Path) -> None:
    socket = tmp_path / "ualpn.sock"
    server = subprocess.Popen(["ualpn", "--bind", f"127.0.0.1@{acme_site.tls_port}", "--sock", socket], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while not socket.exists() and time.monotonic() < until:
            time.sleep(0.1)
        said = f'[ "$(echo "$1" | ualpn --sock {socket})" = OK ]'
        words = 'case "$1" in begin) words="auth $3 $5";; *) words="unauth $3";; esac'
        hook = uacme.script("alpn", f'[ "$2" = tls-alpn-01 ] || exit 1\n{words}\nset -- "$words"\n{said}')
        uacme.uacme("new", MAIL)
        uacme.uacme("issue", "uacme-tls.acme.test", hook=hook)
    finally:
        server.terminate()
        server.wait(10)
    acme_site.check(read_chain(uacme.path("uacme-tls.acme.test")), "uacme-tls.acme.test")


def test_external_account(acme_site: AcmeSite, new_uacme: NewUacme) -> None:
    bound = new_uacme(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("uacme-bound.acme.test"), "uacme-bound.acme.test")


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_uacme: NewUacme) -> None:
    assert new_uacme(acme_site, profile="bound").uacme("new", MAIL, check=False).returncode != 0


def test_changes_its_account_key(acme_site: AcmeSite, uacme: Uacme) -> None:
    """Its orders go on being its own, and it can revoke what was issued before (RFC 8555 §7.3.5)."""
    leaf = uacme.obtain("uacme-rollover.acme.test")[0]
    before = (uacme.folder / "uacme" / "private" / "key.pem").read_bytes()
    uacme.uacme("newkey")
    assert (uacme.folder / "uacme" / "private" / "key.pem").read_bytes() != before
    uacme.uacme("issue", "uacme-rolled.acme.test")
    uacme.uacme("revoke", uacme.path("uacme-rollover.acme.test"))
    assert leaf.serial_number in acme_site.revoked()


def test_the_old_account_key_is_worth_nothing(acme_site: AcmeSite, uacme: Uacme) -> None:
    key = uacme.folder / "uacme" / "private" / "key.pem"
    uacme.uacme("new", MAIL)
    old = key.read_bytes()
    uacme.uacme("newkey")
    key.write_bytes(old)
    assert uacme.uacme("issue", "uacme-old-key.acme.test", check=False).returncode != 0


def test_updates_and_deactivates(acme_site: AcmeSite, uacme: Uacme) -> None:
    uacme.uacme("new", MAIL)
    uacme.uacme("update", "other@acme.test")
    uacme.uacme("deactivate")
    done = uacme.uacme("issue", "uacme-deactivated.acme.test", check=False)
    assert done.returncode != 0


def test_revokes(acme_site: AcmeSite, uacme: Uacme) -> None:
    leaf = uacme.obtain("uacme-revoked.acme.test")[0]
    uacme.uacme("--reason", "4", "revoke", uacme.path("uacme-revoked.acme.test"))
    assert acme_site.revoked()[leaf.serial_number] is x509.ReasonFlags.superseded


def test_revokes_with_the_certificates_own_key(acme_site: AcmeSite, uacme: Uacme) -> None:
    leaf = uacme.obtain("uacme-own-key.acme.test")[0]
    key = uacme.folder / "uacme" / "private" / "uacme-own-key.acme.test" / "key.pem"
    uacme.uacme("revoke", uacme.path("uacme-own-key.acme.test"), key)
    assert leaf.serial_number in acme_site.revoked()


def test_renews(acme_site: AcmeSite, uacme: Uacme) -> None:
    first = uacme.obtain("uacme-renews.acme.test")[0]
    uacme.uacme("--force", "issue", "uacme-renews.acme.test")
    assert read_chain(uacme.path("uacme-renews.acme.test"))[0].serial_number != first.serial_number


def test_no_certificate_without_proof(acme_site: AcmeSite, uacme: Uacme) -> None:
    uacme.uacme("new", MAIL)
    hook = uacme.script("nothing", '[ "$2" = http-01 ]')
    assert uacme.uacme("issue", "uacme-unproved.acme.test", hook=hook, check=False).returncode != 0
    assert not uacme.path("uacme-unproved.acme.test").exists()


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_uacme: NewUacme) -> None:
    site, spoiler = flaky_site
    uacme, refused = new_uacme(site), spoiler.refused
    for number in range(3):
        site.check(uacme.obtain(f"uacme-{number}.acme.test"), f"uacme-{number}.acme.test")
    assert spoiler.refused > refused
