"""Debian's certbot: every way of proof that it has, external accounts, renewal, revocation, and the end of its account."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from tests.conftest import free_port
from tests.interop.acme_clients import MAIL, Certbot
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewCertbot = Callable[..., Certbot]


@pytest.fixture
def new_certbot(require_program: Callable[[str, str], str], tmp_path: Path) -> NewCertbot:
    program = require_program("certbot", "certbot")
    return lambda site, **how: Certbot(tmp_path / "certbot", site, program=program, **how)


@pytest.fixture
def certbot(acme_site: AcmeSite, new_certbot: NewCertbot) -> Certbot:
    return new_certbot(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, certbot: Certbot) -> None:
    names = ("certbot.acme.test", "www.certbot.acme.test")
    acme_site.check(certbot.obtain(*names), *names)


def test_proves_as_a_web_server(acme_site: AcmeSite, certbot: Certbot) -> None:
    port = free_port()
    acme_site.front.routes["certbot-alone.acme.test"] = port
    certbot.ask("certbot-alone.acme.test", how=("--standalone", "--http-01-port", str(port), "--http-01-address", "127.0.0.1"))
    acme_site.check(certbot.chain(), "certbot-alone.acme.test")


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, certbot: Certbot) -> None:
    """Two values at one name, both there at once (RFC 8555 §8.4)."""
    names = ("certbot-dns.acme.test", "*.certbot-dns.acme.test")
    auth = certbot.script("auth", certbot.record('"$CERTBOT_DOMAIN"', '"$CERTBOT_VALIDATION"'))
    clean = certbot.script("clean", certbot.forget('"$CERTBOT_DOMAIN"'))
    hooks = ("--manual-auth-hook", auth, "--manual-cleanup-hook", clean)
    certbot.ask(*names, how=("--manual", "--preferred-challenges", "dns", *hooks))
    acme_site.check(certbot.chain(), *names)


def test_renews(acme_site: AcmeSite, certbot: Certbot) -> None:
    first = acme_site.check(certbot.obtain("certbot-renews.acme.test"), "certbot-renews.acme.test")
    assert "not yet due" in certbot.certbot("renew").stdout
    assert certbot.chain()[0] == first
    certbot.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
    assert acme_site.check(certbot.chain(), "certbot-renews.acme.test").serial_number != first.serial_number


def test_external_account(acme_site: AcmeSite, new_certbot: NewCertbot) -> None:
    key = acme_site.new_external_account("bound")
    bound = new_certbot(acme_site, profile="bound", external=key)
    acme_site.check(bound.obtain("certbot-bound.acme.test"), "certbot-bound.acme.test")


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_certbot: NewCertbot) -> None:
    done = new_certbot(acme_site, profile="bound").ask("certbot-unbound.acme.test", check=False)
    assert done.returncode != 0
    assert "external account" in done.stdout.lower()


def test_no_account_with_a_wrong_key(acme_site: AcmeSite, new_certbot: NewCertbot) -> None:
    kid, _ = acme_site.new_external_account("bound")
    done = new_certbot(acme_site, profile="bound", external=(kid, "A" * 43)).ask("certbot-wrong.acme.test", check=False)
    assert done.returncode != 0
    assert "unauthorized" in done.stdout.lower() or "external account" in done.stdout.lower()


def test_no_certificate_without_proof(acme_site: AcmeSite, certbot: Certbot, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = certbot.ask("certbot-unproved.acme.test", how=("--webroot", "-w", elsewhere), check=False)
    assert done.returncode != 0
    assert "certbot-unproved.acme.test" in done.stdout
    assert ("certbot-unproved.acme.test" in [host for host, _ in acme_site.front.asked]) is True
    assert not (certbot.folder / "conf" / "live" / "first").exists()


def test_a_name_that_policy_refuses(acme_site: AcmeSite, certbot: Certbot) -> None:
    done = certbot.ask("certbot.example.org", check=False)
    assert done.returncode != 0
    assert "certbot.example.org" in done.stdout


def test_takes_the_names_that_policy_allows(acme_site: AcmeSite, certbot: Certbot) -> None:
    """It finds the refused ones in the problem's subproblems (RFC 8555 §6.7.1)."""
    webroot = ("--webroot", "-w", acme_site.front.webroot, "--allow-subset-of-names")
    certbot.ask("certbot-subset.acme.test", "certbot-subset.example.org", how=webroot)
    acme_site.check(certbot.chain(), "certbot-subset.acme.test")


def test_revokes(acme_site: AcmeSite, certbot: Certbot) -> None:
    leaf = certbot.obtain("certbot-revoked.acme.test")[0]
    path = certbot.folder / "conf" / "live" / "first" / "cert.pem"
    certbot.certbot("revoke", "--cert-path", path, "--reason", "superseded", "--no-delete-after-revoke")
    assert acme_site.revoked()[leaf.serial_number] is x509.ReasonFlags.superseded
    again = certbot.certbot("revoke", "--cert-path", path, "--no-delete-after-revoke", check=False)
    assert "already" in again.stdout.lower()


def test_revokes_with_the_certificates_own_key(acme_site: AcmeSite, certbot: Certbot) -> None:
    leaf = certbot.obtain("certbot-own-key.acme.test")[0]
    live = certbot.folder / "conf" / "live" / "first"
    reason = ("--reason", "keycompromise", "--no-delete-after-revoke")
    certbot.certbot("revoke", "--cert-path", live / "cert.pem", "--key-path", live / "privkey.pem", *reason)
    assert acme_site.revoked()[leaf.serial_number] is x509.ReasonFlags.key_compromise


def test_its_account_from_first_to_last(acme_site: AcmeSite, certbot: Certbot) -> None:
    certbot.certbot("register", *certbot.account)
    assert "/acme/standard/acct/" in certbot.certbot("show_account").stdout
    assert "other@acme.test" in certbot.certbot("update_account", "-m", "other@acme.test", "--no-eff-email").stdout
    assert "deactivated" in certbot.certbot("unregister").stdout.lower()
    assert MAIL not in certbot.certbot("show_account", check=False).stdout


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_certbot: NewCertbot) -> None:
    site, spoiler = flaky_site
    certbot, refused = new_certbot(site), spoiler.refused
    for number in range(3):
        certbot.ask(f"certbot-{number}.acme.test", f"certbot-{number}-b.acme.test", how=())
    assert spoiler.refused > refused
