"""The npm package acme-client: http-01, dns-01, RSA and EC accounts, an external account, another account key, revocation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.acme_clients import NodeClient
from tests.interop.acme_proxy import Spoiler
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

NewClient = Callable[..., NodeClient]


@pytest.fixture
def new_client(node_modules: Path, tmp_path: Path) -> NewClient:
    return lambda site, **how: NodeClient(tmp_path / "node", site, modules=node_modules, **how)


@pytest.fixture
def client(acme_site: AcmeSite, new_client: NewClient) -> NodeClient:
    return new_client(acme_site)


def test_proves_by_its_web_root(acme_site: AcmeSite, client: NodeClient) -> None:
    names = ("node.acme.test", "www.node.acme.test")
    acme_site.check(client.obtain(*names), *names)


def test_proves_a_name_and_its_wildcard_by_dns(acme_site: AcmeSite, new_client: NewClient) -> None:
    client, names = new_client(acme_site, challenge="dns-01"), ("node-dns.acme.test", "*.node-dns.acme.test")
    acme_site.check(client.obtain(*names), *names)


def test_an_account_with_an_rsa_key(acme_site: AcmeSite, client: NodeClient) -> None:
    client.drive("obtain", "node-rsa.acme.test", rsa=True)
    acme_site.check(client.chain(), "node-rsa.acme.test")


def test_external_account(acme_site: AcmeSite, new_client: NewClient) -> None:
    bound = new_client(acme_site, profile="bound", external=acme_site.new_external_account("bound"))
    acme_site.check(bound.obtain("node-bound.acme.test"), "node-bound.acme.test")


def test_no_account_without_an_external_one(acme_site: AcmeSite, new_client: NewClient) -> None:
    said = new_client(acme_site, profile="bound").drive("account", check=False)
    assert "external account" in str(said["error"]).lower()


def test_changes_its_account_key(acme_site: AcmeSite, client: NodeClient) -> None:
    """The account stays the same one, and what it was given before stays its own (RFC 8555 §7.3.5)."""
    leaf = client.obtain("node-rollover.acme.test")[0]
    before = client.drive("account")["account"]
    assert client.drive("changeKey")["account"] == before
    assert client.drive("account")["account"] == before
    client.drive("revoke", reason=4)
    assert acme_site.revoked()[leaf.serial_number] is x509.ReasonFlags.superseded


def test_updates_its_contacts(acme_site: AcmeSite, client: NodeClient) -> None:
    assert client.drive("account", contact=["mailto:other@acme.test"])["status"] == ["mailto:other@acme.test"]


def test_a_deactivated_account_gets_nothing(acme_site: AcmeSite, client: NodeClient) -> None:
    assert client.drive("deactivate") == {"status": "deactivated"}
    assert "error" in client.drive("obtain", "node-deactivated.acme.test", check=False)


def test_a_deactivated_authorization_ends_its_order(acme_site: AcmeSite, client: NodeClient) -> None:
    said = client.drive("deactivateAuthorization", "node-gives-up.acme.test")
    assert said == {"status": "deactivated", "order": "invalid"}


def test_no_reason_that_clients_may_not_give(acme_site: AcmeSite, client: NodeClient) -> None:
    leaf = client.obtain("node-reason.acme.test")[0]
    assert "error" in client.drive("revoke", reason=2, check=False)
    assert leaf.serial_number not in acme_site.revoked()


def test_no_certificate_without_proof(acme_site: AcmeSite, client: NodeClient) -> None:
    said = client.drive("obtain", "node-unproved.acme.test", check=False, webroot=str(client.folder))
    assert "error" in said
    assert not (client.folder / "chain.pem").exists()


def test_bears_bad_nonces(flaky_site: tuple[AcmeSite, Spoiler], new_client: NewClient) -> None:
    site, spoiler = flaky_site
    client, refused = new_client(site), spoiler.refused
    for number in range(3):
        site.check(client.obtain(f"node-{number}.acme.test"), f"node-{number}.acme.test")
    assert spoiler.refused > refused
