"""Accounts and certificates of ML-DSA (RFC 9964, RFC 9881), end to end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.model import SanKind
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.trust import verify_chain
from gateway.wire.acme.client import AcmeRefusal, ExternalKey
from tests.flow.acme.driver import Driver, account, dns
from tests.flow.acme.site import PREVALIDATED, Site, start_site

KINDS = ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")
KEYS = {kind: generate_private_key(kind) for kind in (*KINDS, "ec-p256", "ed25519")}
POLICY = {
    "key": {"ml_dsa": list(KINDS)},
    "subject": {"allow_empty": True},
    "san": {"dns": {"patterns": [r"([a-z0-9-]+\.)*corp\.test"]}},
    "key_usage": {"allow": ["digitalSignature"], "default": ["digitalSignature"]},
    "eku": {"allow": ["serverAuth"], "default": ["serverAuth"]},
}


EXTERNAL: dict[str, ExternalKey] = {}
"""By profile: prevalidated names need one."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("ml-dsa") / "s"
    classical = PREVALIDATED | {"policy": POLICY | {"key": {"ml_dsa": []}}}
    modern = PREVALIDATED | {"ml_dsa_accounts": True, "policy": POLICY}
    site = await start_site(folder, modern=modern, classical=classical)
    for profile in ("modern", "classical"):
        EXTERNAL[profile] = ExternalKey(profile, await site.bind(profile, profile, max_accounts=None))
    yield site
    await site.close()


def csr(key: PrivateKey, name: str) -> bytes:
    return build_csr(key, parse_name_text("").der, (make_san(SanKind.DNS, name),))


async def issue(driver: Driver, key: PrivateKey, name: str = "www.corp.test") -> Certificate:
    chain = await driver.run(driver.client.issue(dns(name), csr(key, name), lambda _: {}))
    leaf, *above = [parse_certificate(each) for each in chain]
    verify_chain(leaf, tuple(above), leaf.not_before)
    return leaf


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("certified", [*KINDS, "ec-p256"])
@pytest.mark.parametrize("own", [*KINDS, "ed25519"])
async def test_accounts_and_certificates(site: Site, own: str, certified: str) -> None:
    """ML-DSA-87 in both is the largest request that there is."""
    async with account(site, "modern", generate_private_key(own), external=EXTERNAL["modern"]) as driver:
        leaf = await issue(driver, KEYS[certified])
        assert leaf.public_key.der == public_key_der(KEYS[certified])
        assert leaf.public_key.algorithm == certified.removesuffix("-p256")


@pytest.mark.parametrize("kind", KINDS)
async def test_accounts_where_they_are_not_taken(site: Site, kind: str) -> None:
    with pytest.raises(AcmeRefusal) as caught:
        async with account(site, "classical", KEYS[kind], external=EXTERNAL["classical"]):
            pass
    assert (caught.value.status, caught.value.type) == (400, "badSignatureAlgorithm")
    assert kind.upper() not in caught.value.problem["algorithms"]
    assert "ES256" in caught.value.problem["algorithms"]


async def test_certificates_where_policy_does_not_take_them(site: Site) -> None:
    async with account(site, "classical", external=EXTERNAL["classical"]) as driver:
        order = await driver.run(driver.client.order(dns("www.corp.test")))
        refusal = await driver.refused(driver.client.finalize(order, csr(KEYS["ml-dsa-65"], "www.corp.test")))
        assert (refusal.status, refusal.type) == (400, "badCSR")
        document = await driver.run(driver.client.finalize(order, csr(KEYS["ec-p256"], "www.corp.test")))
        assert document["status"] == "valid"


@pytest.mark.parametrize(("own", "said"), [("ml-dsa-44", "ML-DSA-65"), ("ml-dsa-65", "ES256"), ("ec-p256", "ML-DSA-44")])
async def test_the_algorithm_is_the_keys(site: Site, own: str, said: str) -> None:
    with pytest.raises(AcmeRefusal) as caught:
        async with account(site, "modern", KEYS[own], said, external=EXTERNAL["modern"]):
            pass
    assert caught.value.type == "badSignatureAlgorithm"


async def test_an_account_moves_to_ml_dsa(site: Site) -> None:
    async with account(site, "modern", external=EXTERNAL["modern"]) as driver:
        old, new = driver.client.signer, Signer.of(generate_private_key("ml-dsa-65"))
        await driver.run(driver.client.change_key(new))
        assert (await issue(driver, KEYS["ml-dsa-44"])).public_key.algorithm == "ml-dsa-44"
        driver.client.signer = old
        assert (await driver.refused(driver.client.account())).status in {400, 401, 403}


async def test_the_key_of_an_account_is_not_certified(site: Site) -> None:
    """RFC 8555 §11.1, by the name that RFC 9964 gives the key."""
    own = generate_private_key("ml-dsa-65")
    async with account(site, "modern", own, external=EXTERNAL["modern"]) as driver:
        order = await driver.run(driver.client.order(dns("www.corp.test")))
        assert (await driver.refused(driver.client.finalize(order, csr(own, "www.corp.test")))).type == "badCSR"


async def test_revocation_by_the_certificates_key(site: Site) -> None:
    key = generate_private_key("ml-dsa-87")
    async with account(site, "modern", external=EXTERNAL["modern"]) as driver:
        leaf = await issue(driver, key)
        await driver.run(driver.client.revoke(leaf.der, signer=Signer.of(key)))
        assert (await driver.refused(driver.client.revoke(leaf.der))).type == "alreadyRevoked"
