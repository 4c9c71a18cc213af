"""acme.sh: http-01, dns-01, tls-alpn-01, addresses, an external account, renewal with `replaces`, revocation, deactivation."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.acme_clients import AcmeSh
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(300)]

NewAcmeSh = Callable[..., AcmeSh]


@pytest.fixture
def new_acme_sh(tmp_path: Path) -> NewAcmeSh:
    program = shutil.which("acme.sh")
    if program is None:
        pytest.skip("acme.sh is not on PATH: no registry carries it")
    return lambda site, **how: AcmeSh(tmp_path / "acme.sh", site, program=program, **how)


@pytest.fixture
def acme_sh(acme_site: AcmeSite, new_acme_sh: NewAcmeSh) -> AcmeSh:
    return new_acme_sh(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    names = ("sh.acme.test", "www.sh.acme.test")
    acme_site.check(acme_sh.obtain(*names), *names)


def test_proves_an_address(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    acme_site.check(acme_sh.obtain("127.0.0.1"), "127.0.0.1")


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    hooks = acme_sh.folder / "home" / "dnsapi"
    hooks.mkdir(parents=True)
    place = f'"{acme_site.records}/$1"'
    (hooks / "dns_here.sh").write_text(
        f'#!/bin/sh\ndns_here_add() {{ echo "$2" >> {place}; }}\ndns_here_rm() {{ rm -f {place}; }}\n'
    )
    names = ("sh-dns.acme.test", "*.sh-dns.acme.test")
    acme_sh.register()
    acme_sh.ask(*names, how=("--dns", "dns_here", "--dnssleep", "1"))
    acme_site.check(acme_sh.chain(names[0]), *names)


def test_proves_by_tls(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    acme_sh.register()
    acme_sh.ask("sh-tls.acme.test", how=("--alpn", "--tlsport", str(acme_site.tls_port), "--local-address", "127.0.0.1"))
    acme_site.check(acme_sh.chain("sh-tls.acme.test"), "sh-tls.acme.test")


def test_external_account(acme_site: AcmeSite, new_acme_sh: NewAcmeSh) -> None:
    bound = new_acme_sh(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("sh-bound.acme.test"), "sh-bound.acme.test")


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_acme_sh: NewAcmeSh) -> None:
    done = new_acme_sh(acme_site, profile="bound").register(check=False)
    assert done.returncode != 0
    assert "externalAccountRequired" in done.stdout


def test_renews(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    """It tells which certificate the new one replaces (RFC 9773 §5)."""
    name = "sh-renews.acme.test"
    first = acme_sh.obtain(name)[0]
    acme_sh.acme("--renew", "-d", name, "--ecc", "--force")
    second = acme_site.check(acme_sh.chain(name), name)
    assert second.serial_number != first.serial_number
    assert acme_site.replaced(first) == ["valid"]


def test_times_that_it_asks_for(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    name = "sh-short.acme.test"
    acme_sh.register()
    acme_sh.ask(name, how=("-w", acme_site.front.webroot, "--valid-to", "+7d"))
    leaf = acme_site.check(acme_sh.chain(name), name)
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days in {6, 7}


def test_revokes(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    name = "sh-revoked.acme.test"
    leaf = acme_sh.obtain(name)[0]
    acme_sh.acme("--revoke", "-d", name, "--ecc", "--revoke-reason", "4")
    assert acme_site.revocation(leaf) is not None


def test_updates_and_deactivates(acme_site: AcmeSite, acme_sh: AcmeSh) -> None:
    acme_sh.register()
    acme_sh.acme("--update-account", "--accountemail", "other@acme.test")
    acme_sh.acme("--deactivate-account")


def test_waits_for_a_slow_ca(acme_site: AcmeSite, new_acme_sh: NewAcmeSh) -> None:
    slow = new_acme_sh(acme_site, profile="slow9")
    acme_site.check(slow.obtain("sh-slow.acme.test"), "sh-slow.acme.test")


def test_no_certificate_without_proof(acme_site: AcmeSite, acme_sh: AcmeSh, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    acme_sh.register()
    done = acme_sh.ask("sh-unproved.acme.test", how=("-w", elsewhere), check=False)
    assert done.returncode != 0
    assert "sh-unproved.acme.test" in done.stdout


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_acme_sh: NewAcmeSh) -> None:
    site, spoiler = flaky_site
    acme_sh, refused = new_acme_sh(site), spoiler.refused
    for number in range(2):
        site.check(acme_sh.obtain(f"sh-{number}.acme.test"), f"sh-{number}.acme.test")
    assert spoiler.refused > refused
