"""Apache with mod_md: http-01, tls-alpn-01, a wildcard by dns-01, an external account, renewal by RFC 9773."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.acme_clients import ModMd, open_folder
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@pytest.fixture
def folder(require_program: Callable[[str, str], str]) -> Iterator[Path]:
    require_program("apache2", "apache2-bin")
    with open_folder() as made:
        yield made


def test_proves_by_http(acme_site: AcmeSite, folder: Path) -> None:
    names = ("mod-md.acme.test", "www.mod-md.acme.test")
    acme_site.check(ModMd(folder, acme_site).obtain(*names), *names)


def test_serves_what_it_got_once_it_is_started_again(acme_site: AcmeSite, folder: Path) -> None:
    apache, name = ModMd(folder, acme_site), "mod-md-serves.acme.test"
    [leaf, _] = apache.obtain(name)
    with apache.running(name):
        assert apache.wait_served(name) == leaf


def test_proves_by_tls(acme_site: AcmeSite, folder: Path) -> None:
    apache = ModMd(folder, acme_site, challenge="tls-alpn-01", tls_port=acme_site.tls_port)
    acme_site.check(apache.obtain("mod-md-tls.acme.test"), "mod-md-tls.acme.test")


def test_proves_a_wildcard_by_dns(acme_site: AcmeSite, folder: Path) -> None:
    """Its hook runs as another user, who has a folder of records of his own."""
    records = folder / "records"
    records.mkdir()
    records.chmod(0o777)
    acme_site.dns.folders.append(records)
    apache = ModMd(folder, acme_site, challenge="dns-01")
    setup = f'setup) echo "$3" >> {records}/_acme-challenge."$2";;'
    command = apache.script("dns", f'case "$1" in {setup} *) rm -f {records}/_acme-challenge."$2";; esac')
    apache.lines = (f"MDChallengeDns01 {command}",)
    names = ("mod-md-dns.acme.test", "*.mod-md-dns.acme.test")
    acme_site.check(apache.obtain(*names), *names)


def test_external_account(acme_site: AcmeSite, folder: Path) -> None:
    apache = ModMd(folder, acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(apache.obtain("mod-md-bound.acme.test"), "mod-md-bound.acme.test")


def test_renews_when_an_incident_is_declared(acme_site: AcmeSite, folder: Path, tmp_path: Path) -> None:
    apache, name = ModMd(folder, acme_site, lines=("MDRenewViaARI on", "MDCheckInterval 2s")), "mod-md-incident.acme.test"
    [first, _] = apache.obtain(name)
    serials = tmp_path / "serials"
    serials.write_text(f"{first.serial_number:x}\n")
    acme_site.declare_incident("--serials", str(serials))
    with apache.running(name):
        second = apache.wait(name, other_than=first)
    assert second.serial_number != first.serial_number
    assert any(row["operation"] == "renewal-info" for row in acme_site.rows())


def test_no_certificate_without_proof(acme_site: AcmeSite, folder: Path) -> None:
    apache, name = ModMd(folder, acme_site), "mod-md-unproved.acme.test"
    with apache.running(name):
        acme_site.front.routes.pop(name)
        with pytest.raises(AssertionError):
            apache.wait(name, seconds=12)
    assert "mod-md-unproved" in apache.log()


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], folder: Path) -> None:
    site, spoiler = flaky_site
    refused = spoiler.refused
    names = [f"mod-md-{number}.acme.test" for number in range(10)]
    site.check(ModMd(folder, site).obtain(*names), *names)
    assert spoiler.refused > refused
