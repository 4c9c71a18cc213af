"""Caddy (acmez) gets certificates for its sites by itself: http-01, tls-alpn-01, an external account, anew after revocation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.acme_clients import Caddy
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewCaddy = Callable[..., Caddy]


@pytest.fixture
def new_caddy(require_program: Callable[[str, str], str], tmp_path: Path) -> NewCaddy:
    require_program("caddy", "caddy")
    return lambda site, **how: Caddy(tmp_path / "caddy", site, **how)


def test_serves_two_sites_by_http(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy, names = new_caddy(acme_site), ("caddy.acme.test", "www.caddy.acme.test")
    with caddy.running(*names):
        for name in names:
            acme_site.check([caddy.wait(name), acme_site.issuing()], name)


def test_proves_by_tls(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy = new_caddy(acme_site, issuer=("disable_http_challenge",), tls_port=acme_site.tls_port)
    acme_site.check(caddy.obtain("caddy-tls.acme.test"), "caddy-tls.acme.test")


def test_external_account(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy = new_caddy(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(caddy.obtain("caddy-bound.acme.test"), "caddy-bound.acme.test")


def test_keeps_its_account_and_its_certificate(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy, name = new_caddy(acme_site), "caddy-restarts.acme.test"
    [first, _] = caddy.obtain(name)
    with caddy.running(name):
        assert caddy.wait(name) == first


def test_replaces_what_it_lost(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy, name = new_caddy(acme_site), "caddy-lost.acme.test"
    [first, _] = caddy.obtain(name)
    for path in (caddy.folder / "storage" / "certificates").rglob("*.crt"):
        path.unlink()
    with caddy.running(name):
        assert caddy.wait(name, other_than=first).serial_number != first.serial_number


def test_no_certificate_without_proof(acme_site: AcmeSite, new_caddy: NewCaddy) -> None:
    caddy, name = new_caddy(acme_site), "caddy-unproved.acme.test"
    with caddy.running(name):
        acme_site.front.routes.pop(name)
        with pytest.raises(AssertionError):
            caddy.wait(name, seconds=12)
    assert name not in str(list((caddy.folder / "storage").rglob("*.crt")))


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_caddy: NewCaddy) -> None:
    site, spoiler = flaky_site
    caddy, refused = new_caddy(site), spoiler.refused
    names = tuple(f"caddy-{number}.acme.test" for number in range(4))
    with caddy.running(*names):
        for name in names:
            site.check([caddy.wait(name), site.issuing()], name)
    assert spoiler.refused > refused
