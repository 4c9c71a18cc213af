"""acme-tiny: an account's RSA key, a CSR of openssl, http-01."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.acme_clients import AcmeTiny, read_chain
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewAcmeTiny = Callable[..., AcmeTiny]


@pytest.fixture
def new_acme_tiny(require_program: Callable[[str, str], str], tmp_path: Path) -> NewAcmeTiny:
    require_program("acme-tiny", "acme-tiny")
    return lambda site, **how: AcmeTiny(tmp_path / "acme-tiny", site, **how)


@pytest.fixture
def acme_tiny(acme_site: AcmeSite, new_acme_tiny: NewAcmeTiny) -> AcmeTiny:
    return new_acme_tiny(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, acme_tiny: AcmeTiny) -> None:
    names = ("tiny.acme.test", "www.tiny.acme.test")
    acme_site.check(acme_tiny.obtain(*names), *names)


def test_renews_the_same_request(acme_site: AcmeSite, acme_tiny: AcmeTiny) -> None:
    first = acme_tiny.obtain("tiny-renews.acme.test")[0]
    acme_tiny.ask()
    second = read_chain(acme_tiny.folder / "chain.pem")[0]
    assert second.serial_number != first.serial_number
    assert second.public_key() == first.public_key()


def test_its_account_key_is_never_certified(acme_site: AcmeSite, acme_tiny: AcmeTiny) -> None:
    """RFC 8555 §11.1."""
    acme_tiny.request("tiny-account.acme.test")
    same = ("req", "-new", "-key", "account.key", "-subj", "/CN=tiny-account.acme.test")
    acme_tiny.run("openssl", *same, "-addext", "subjectAltName=DNS:tiny-account.acme.test", "-out", "own.csr")
    done = acme_tiny.ask(check=False)
    assert done.returncode != 0
    assert "badCSR" in done.stdout
    assert (acme_tiny.folder / "chain.pem").read_bytes() == b""


def test_a_name_that_policy_refuses(acme_site: AcmeSite, acme_tiny: AcmeTiny) -> None:
    acme_tiny.request("tiny.example.org")
    done = acme_tiny.ask(check=False)
    assert done.returncode != 0
    assert "rejectedIdentifier" in done.stdout


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_acme_tiny: NewAcmeTiny) -> None:
    acme_tiny = new_acme_tiny(acme_site, profile="bound")
    acme_tiny.request("tiny-bound.acme.test")
    assert "externalAccountRequired" in acme_tiny.ask(check=False).stdout


def test_no_certificate_without_proof(acme_site: AcmeSite, acme_tiny: AcmeTiny) -> None:
    acme_tiny.request("tiny-unproved.acme.test")
    elsewhere = acme_tiny.folder / "elsewhere"
    elsewhere.mkdir()
    done = acme_tiny.ask(check=False, folder=elsewhere)
    assert done.returncode != 0
    assert "tiny-unproved.acme.test" in done.stdout


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_acme_tiny: NewAcmeTiny) -> None:
    site, spoiler = flaky_site
    acme_tiny, refused = new_acme_tiny(site), spoiler.refused
    for number in range(3):
        site.check(acme_tiny.obtain(f"tiny-{number}.acme.test"), f"tiny-{number}.acme.test")
    assert spoiler.refused > refused
