"""A pinned newest certbot from PyPI: IP addresses, and renewal when the server says so (RFC 9773)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.acme_clients import Certbot
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewCertbot = Callable[..., Certbot]


@pytest.fixture
def new_certbot(newest_certbot: str, tmp_path: Path) -> NewCertbot:
    return lambda site, **how: Certbot(tmp_path / "certbot", site, program=newest_certbot, **how)


@pytest.fixture
def certbot(acme_site: AcmeSite, new_certbot: NewCertbot) -> Certbot:
    return new_certbot(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, certbot: Certbot) -> None:
    names = ("certbot5.acme.test", "www.certbot5.acme.test")
    acme_site.check(certbot.obtain(*names), *names)


def test_proves_an_address(acme_site: AcmeSite, certbot: Certbot) -> None:
    webroot = ("--webroot", "-w", acme_site.front.webroot, "--ip-address", "127.0.0.1")
    certbot.ask("certbot5-ip.acme.test", how=webroot)
    acme_site.check(certbot.chain(), "certbot5-ip.acme.test", "127.0.0.1")


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, certbot: Certbot) -> None:
    names = ("certbot5-dns.acme.test", "*.certbot5-dns.acme.test")
    auth = certbot.script("auth", certbot.record('"$CERTBOT_DOMAIN"', '"$CERTBOT_VALIDATION"'))
    clean = certbot.script("clean", certbot.forget('"$CERTBOT_DOMAIN"'))
    hooks = ("--manual-auth-hook", auth, "--manual-cleanup-hook", clean)
    certbot.ask(*names, how=("--manual", "--preferred-challenges", "dns", *hooks))
    acme_site.check(certbot.chain(), *names)


def test_external_account(acme_site: AcmeSite, new_certbot: NewCertbot) -> None:
    bound = new_certbot(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("certbot5-bound.acme.test"), "certbot5-bound.acme.test")


def test_renews_when_an_incident_is_declared(acme_site: AcmeSite, certbot: Certbot) -> None:
    first = acme_site.check(certbot.obtain("certbot5-incident.acme.test"), "certbot5-incident.acme.test")
    assert "not yet due" in certbot.certbot("renew", "--no-random-sleep-on-renew").stdout
    serials = certbot.folder / "serials"
    serials.write_text(f"{first.serial_number:x}\n")
    acme_site.declare_incident("--serials", str(serials))
    certbot.certbot("renew", "--no-random-sleep-on-renew")
    assert acme_site.check(certbot.chain(), "certbot5-incident.acme.test") != first


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_certbot: NewCertbot) -> None:
    site, spoiler = flaky_site
    certbot, refused = new_certbot(site), spoiler.refused
    for number in range(3):
        certbot.ask(f"certbot5-{number}.acme.test", f"certbot5-{number}-b.acme.test")
    assert spoiler.refused > refused
