"""A domain that stands for all names below it: ancestorDomain, newAuthz and their limits (RFC 9444)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from gateway.model import ChallengeType, SanKind
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.acme.challenges import dns_value
from gateway.wire.acme.client import AcmeAnswer, Flow, Trial
from tests.dns_server import DnsServer, dns_server
from tests.flow.acme.driver import Driver, account, dns
from tests.flow.acme.site import Site, start_site

NAMES = r"(\*\.)?([a-z0-9-]+\.)*acme\.test"


@pytest.fixture(scope="module")
def zone() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, zone: DnsServer) -> AsyncIterator[Site]:
    validation = {
        "challenges": ["http-01", "dns-01", "tls-alpn-01"],
        "resolver": {"servers": [zone.address], "timeout": "3s"},
        "attempts": 1,
    }
    policy = {"subject": {"allow_empty": True}, "san": {"dns": {"patterns": [NAMES], "wildcards": True}}}
    plain = {"validation": validation, "policy": policy}
    below = plain | {"subdomains": True}
    reused = below | {"authorization_reuse": "1h"}
    site = await start_site(tmp_path_factory.mktemp("below") / "s", plain=plain, below=below, reused=reused)
    yield site
    await site.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def order(driver: Driver, *names: str, ancestor: str | None) -> Flow:
    """Order names of which each shall be proved by a domain above it."""
    urls = yield from driver.client.open()
    above = {} if ancestor is None else {"ancestorDomain": ancestor}
    identifiers = [{"type": "dns", "value": name} | above for name in names]
    return (yield from driver.client.post(urls["newOrder"], {"identifiers": identifiers}))


def new_authorization(driver: Driver, name: str, **more: object) -> Flow:
    urls = yield from driver.client.open()
    return (yield from driver.client.post(urls["newAuthz"], {"identifier": {"type": "dns", "value": name} | more}))


def proving(zone: DnsServer) -> Any:
    """Respond to dns-01 by a record."""

    def respond(trial: Trial) -> Mapping[str, object] | None:
        if trial.type is not ChallengeType.DNS_01:
            return None
        zone.add_txt(f"_acme-challenge.{trial.identifier.value}", dns_value(trial.authorization))
        return {}

    return respond


async def authorizations(driver: Driver, answer: AcmeAnswer) -> list[dict[str, Any]]:
    return [(await driver.run(driver.client.post(url, None))).document for url in answer.document["authorizations"]]


async def finalize(driver: Driver, answer: AcmeAnswer, names: Sequence[str]) -> dict[str, Any]:
    sans = tuple(make_san(SanKind.DNS, name) for name in names)
    csr = build_csr(generate_private_key("ec-p256"), parse_name_text("").der, sans)
    return dict(await driver.run(driver.client.finalize(answer, csr)))


async def directory(driver: Driver) -> dict[str, Any]:
    return dict(await driver.run(driver.client.open()))


async def test_the_directory_says_so(site: Site) -> None:
    for profile, said in (("plain", False), ("below", True), ("reused", True)):
        async with account(site, profile) as driver:
            found = await directory(driver)
            assert found.get("meta", {}).get("subdomainAuthAllowed", False) is said
            assert ("newAuthz" in found) is (profile == "reused")


async def test_names_below_one_domain_need_one_authorization(site: Site, zone: DnsServer) -> None:
    names = ("a.acme.test", "b.c.acme.test", "*.w.acme.test")
    async with account(site, "below") as driver:
        placed = await driver.run(order(driver, *names, ancestor="acme.test"))
        [document] = await authorizations(driver, placed)
        assert document["identifier"] == {"type": "dns", "value": "acme.test"}
        assert document["subdomainAuthAllowed"] is True
        assert "wildcard" not in document
        assert {each["type"] for each in document["challenges"]} == {"dns-01"}, "a host says nothing of names below it"
        await driver.run(driver.client.authorize(placed.document["authorizations"][0], proving(zone)))
        assert (await finalize(driver, placed, names))["status"] == "valid"


async def test_the_domain_itself_has_to_be_proved(site: Site, zone: DnsServer) -> None:
    """A record below one of the names proves nothing of the domain."""

    def respond(trial: Trial) -> Mapping[str, object] | None:
        zone.add_txt("_acme-challenge.a.other.acme.test", dns_value(trial.authorization))
        return {} if trial.type is ChallengeType.DNS_01 else None

    async with account(site, "below") as driver:
        placed = await driver.run(order(driver, "a.other.acme.test", ancestor="other.acme.test"))
        failed = await driver.failed(driver.client.authorize(placed.document["authorizations"][0], respond))
        assert failed["status"] == "invalid"


ABOVE = {
    "another-domain": "other.test",
    "a-name-below": "x.a.acme.test",
    "a-sibling": "b.acme.test",
    "part-of-a-label": "cme.test",
    "a-top-level-domain": "test",
    "a-wildcard": "*.acme.test",
    "not-a-name": "acme..test",
    "empty": "",
}


@pytest.mark.parametrize("name", list(ABOVE))
async def test_domains_that_are_not_above(site: Site, name: str) -> None:
    async with account(site, "below") as driver:
        assert (await driver.refused(order(driver, "a.acme.test", ancestor=ABOVE[name]))).type == "malformed"


async def test_without_subdomains_each_name_is_proved(site: Site) -> None:
    """A client may say which domain it controls; the server need not take it (RFC 9444 §4.2)."""
    async with account(site, "plain") as driver:
        placed = await driver.run(order(driver, "a.acme.test", "b.acme.test", ancestor="acme.test"))
        found = await authorizations(driver, placed)
        assert sorted(each["identifier"]["value"] for each in found) == ["a.acme.test", "b.acme.test"]
        assert not any(each.get("subdomainAuthAllowed") for each in found)


async def test_what_was_authorized_before_serves_orders_below(site: Site, zone: DnsServer) -> None:
    async with account(site, "reused") as driver:
        made = await driver.run(new_authorization(driver, "pre.acme.test", subdomainAuthAllowed=True))
        assert made.status == 201
        assert made.document["subdomainAuthAllowed"] is True
        await driver.run(driver.client.authorize(made.location, proving(zone)))
        for names in (("one.pre.acme.test",), ("two.three.pre.acme.test", "*.pre.acme.test")):
            placed = await driver.run(driver.client.order(dns(*names)))
            assert placed.document["status"] == "ready", json.dumps(placed.document)
            assert (await finalize(driver, placed, names))["status"] == "valid"
        beside = await driver.run(driver.client.order(dns("one.spre.acme.test")))
        assert beside.document["status"] == "pending"


async def test_an_authorization_of_a_name_alone_serves_nothing_below(site: Site, zone: DnsServer) -> None:
    async with account(site, "reused") as driver:
        made = await driver.run(new_authorization(driver, "alone.acme.test"))
        assert "subdomainAuthAllowed" not in made.document or made.document["subdomainAuthAllowed"] is False
        await driver.run(driver.client.authorize(made.location, proving(zone)))
        assert (await driver.run(driver.client.order(dns("alone.acme.test")))).document["status"] == "ready"
        for name in ("x.alone.acme.test", "*.alone.acme.test"):
            assert (await driver.run(driver.client.order(dns(name)))).document["status"] == "pending", name


async def test_an_authorization_of_another_account_serves_nothing(site: Site, zone: DnsServer) -> None:
    async with account(site, "reused") as owner, account(site, "reused") as other:
        made = await owner.run(new_authorization(owner, "mine.acme.test", subdomainAuthAllowed=True))
        await owner.run(owner.client.authorize(made.location, proving(zone)))
        placed = await other.run(other.client.order(dns("x.mine.acme.test")))
        assert placed.document["status"] == "pending"
        assert (await other.refused(other.client.post(made.location, None))).status in {403, 404}


async def test_one_that_was_relinquished_serves_no_more(site: Site, zone: DnsServer) -> None:
    async with account(site, "reused") as driver:
        made = await driver.run(new_authorization(driver, "gone.acme.test", subdomainAuthAllowed=True))
        await driver.run(driver.client.authorize(made.location, proving(zone)))
        placed = await driver.run(driver.client.order(dns("x.gone.acme.test")))
        assert placed.document["status"] == "ready"
        await driver.run(driver.client.post(made.location, {"status": "deactivated"}))
        sans = (make_san(SanKind.DNS, "x.gone.acme.test"),)
        csr = build_csr(generate_private_key("ec-p256"), parse_name_text("").der, sans)
        assert (await driver.refused(driver.client.finalize(placed, csr))).type == "orderNotReady"
        again = await driver.run(driver.client.order(dns("x.gone.acme.test")))
        assert again.document["status"] == "pending"


async def test_newauthz_refuses_what_it_cannot_have(site: Site) -> None:
    async with account(site, "reused") as driver:
        assert (await driver.refused(new_authorization(driver, "*.acme.test"))).type == "malformed"
        assert (await driver.refused(new_authorization(driver, "www.elsewhere.test"))).type == "rejectedIdentifier"


async def test_a_proved_domain_lifts_no_policy(site: Site, zone: DnsServer) -> None:
    """The domain need not be a name that may be certified; the names below it are judged when they are ordered."""
    async with account(site, "reused") as driver:
        made = await driver.run(new_authorization(driver, "elsewhere.test", subdomainAuthAllowed=True))
        await driver.run(driver.client.authorize(made.location, proving(zone)))
        for name in ("elsewhere.test", "www.elsewhere.test", "*.elsewhere.test"):
            assert (await driver.refused(driver.client.order(dns(name)))).type == "rejectedIdentifier", name
