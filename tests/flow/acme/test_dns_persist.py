"""Records of dns-persist-01 that stay in a zone, good and bad, as a whole gateway judges them (draft-ietf-acme-dns-persist)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import pytest_asyncio

from gateway.model import ChallengeType, SanKind
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.acme.client import OrderFailed, Trial
from tests.dns_server import DnsServer, dns_server
from tests.flow.acme.driver import Driver, account, dns
from tests.flow.acme.site import Site, start_site

CA, OTHER_NAME = "ca.example", "second.ca.example"
FUTURE, PAST = int(time.time()) + 3600, int(time.time()) - 3600


@pytest.fixture(scope="module")
def zone() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, zone: DnsServer) -> AsyncIterator[Site]:
    validation = {
        "challenges": ["dns-persist-01"],
        "resolver": {"servers": [zone.address], "timeout": "3s"},
        "caa": {"mode": "off", "identities": [CA, OTHER_NAME]},
        "attempts": 1,
    }
    san = {"dns": {"patterns": [r"([a-z0-9-]+\.)*acme\.test"], "wildcards": True}}
    profile = {"validation": validation, "policy": {"subject": {"allow_empty": True}, "san": san}}
    site = await start_site(tmp_path_factory.mktemp("persist") / "s", persist=profile, other=profile)
    yield site
    await site.close()


@pytest_asyncio.fixture(loop_scope="module")
async def driver(site: Site) -> AsyncIterator[Driver]:
    async with account(site, "persist") as driver:
        yield driver


pytestmark = pytest.mark.asyncio(loop_scope="module")


def strings(text: str) -> str:
    """Write a record in as many strings as it takes (RFC 1035 §3.3.14)."""
    return " ".join(f'"{text[i : i + 100]}"' for i in range(0, len(text) or 1, 100))


async def proves(driver: Driver, zone: DnsServer, name: str, *records: str, at: str | None = None) -> bool:
    """Put records into the zone, ACCOUNT in them being the account's URL, and say whether they prove the name."""
    owner = f"_validation-persist.{at or name.removeprefix('*.')}"
    zone.remove(owner, "TXT")
    for record in records:
        zone.add(owner, "TXT", strings(record.replace("ACCOUNT", driver.client.kid or "")))
    seen: list[Mapping[str, object]] = []

    def respond(trial: Trial) -> Mapping[str, object]:
        seen.append(trial.document)
        assert trial.type is ChallengeType.DNS_PERSIST_01
        return {}

    order = await driver.run(driver.client.order(dns(name)))
    try:
        await driver.run(driver.client.authorize(order.document["authorizations"][0], respond))
    except OrderFailed:
        return False
    [document] = seen
    assert document["accounturi"] == driver.client.kid
    assert document["issuer-domain-names"] == [CA, OTHER_NAME]
    assert "token" not in document
    csr = build_csr(generate_private_key("ec-p256"), parse_name_text("").der, (make_san(SanKind.DNS, name),))
    assert (await driver.run(driver.client.finalize(order, csr)))["status"] == "valid"
    return True


GOOD: dict[str, tuple[str, ...]] = {
    "plain": (f"{CA}; accounturi=ACCOUNT",),
    "without-white-space": (f"{CA};accounturi=ACCOUNT",),
    "with-white-space": (f"  {CA}  ;  accounturi=ACCOUNT  ",),
    "names-in-upper-case": (f"{CA}; AccountURI=ACCOUNT; PERSISTUNTIL={FUTURE}",),
    "issuer-in-upper-case": (f"{CA.upper()}; accounturi=ACCOUNT",),
    "another-name-of-the-issuer": (f"{OTHER_NAME}; accounturi=ACCOUNT",),
    "unknown-parameter": (f"{CA}; accounturi=ACCOUNT; colour=blue",),
    "unknown-policy": (f"{CA}; accounturi=ACCOUNT; policy=sometimes",),
    "for-wildcards-too": (f"{CA}; accounturi=ACCOUNT; policy=wildcard",),
    "until-later": (f"{CA}; accounturi=ACCOUNT; persistUntil={FUTURE}",),
    "beside-one-of-another-issuer": ("other.example; accounturi=ACCOUNT", f"{CA}; accounturi=ACCOUNT"),
    "beside-one-of-another-account": (f"{CA}; accounturi=https://x.test/1", f"{CA}; accounturi=ACCOUNT"),
    "beside-a-broken-one": (f"{CA}; accounturi=ACCOUNT; accounturi=ACCOUNT", f"{CA}; accounturi=ACCOUNT"),
    "beside-one-that-ended": (f"{CA}; accounturi=ACCOUNT; persistUntil={PAST}", f"{CA}; accounturi=ACCOUNT"),
    "beside-other-texts": ("v=spf1 -all", "", f"{CA}; accounturi=ACCOUNT"),
    "longer-than-one-string": (f"{CA}; accounturi=ACCOUNT; note={'x' * 400}",),
}
BAD: dict[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("",),
    "issuer-alone": (CA,),
    "account-alone": ("; accounturi=ACCOUNT",),
    "another-issuer": ("other.example; accounturi=ACCOUNT",),
    "below-the-issuer": (f"x.{CA}; accounturi=ACCOUNT",),
    "another-account": (f"{CA}; accounturi=ACCOUNTx",),
    "part-of-the-account": (f"{CA}; accounturi=https://localhost/",),
    "no-account": (f"{CA}; policy=wildcard",),
    "empty-account": (f"{CA}; accounturi=",),
    "account-twice": (f"{CA}; accounturi=ACCOUNT; accounturi=ACCOUNT",),
    "account-twice-in-another-case": (f"{CA}; accounturi=ACCOUNT; AccountURI=ACCOUNT",),
    "empty-parameter": (f"{CA}; accounturi=ACCOUNT;; policy=wildcard",),
    "parameter-without-value": (f"{CA}; accounturi=ACCOUNT; policy",),
    "ended": (f"{CA}; accounturi=ACCOUNT; persistUntil={PAST}",),
    "ended-long-ago": (f"{CA}; accounturi=ACCOUNT; persistUntil=0",),
    "until-is-a-date": (f"{CA}; accounturi=ACCOUNT; persistUntil=2099-01-01",),
    "until-is-empty": (f"{CA}; accounturi=ACCOUNT; persistUntil=",),
    "until-twice": (f"{CA}; accounturi=ACCOUNT; persistUntil={FUTURE}; persistUntil={FUTURE}",),
    "not-ascii": (f"{CA}; accounturi=ACCOUNT; note=\u00fc",),
    "two-halves-in-two-records": (f"{CA};", "accounturi=ACCOUNT"),
}


@pytest.mark.parametrize("name", list(GOOD))
async def test_records_that_prove_a_name(driver: Driver, zone: DnsServer, name: str) -> None:
    assert await proves(driver, zone, "host.acme.test", *GOOD[name])


@pytest.mark.parametrize("name", list(BAD))
async def test_records_that_prove_nothing(driver: Driver, zone: DnsServer, name: str) -> None:
    assert not await proves(driver, zone, "host.acme.test", *BAD[name])


@pytest.mark.parametrize(
    ("record", "good"),
    [
        pytest.param("policy=wildcard", True, id="wildcard"),
        pytest.param("policy=WILDCARD", True, id="in-upper-case"),
        pytest.param("Policy=wildcard", True, id="name-in-upper-case"),
        pytest.param("policy=sometimes", False, id="unknown-policy"),
        pytest.param("policy=", False, id="empty-policy"),
        pytest.param("wildcard=policy", False, id="another-parameter"),
        pytest.param("policy=wildcard; policy=wildcard", False, id="twice"),
    ],
)
async def test_wildcards_need_their_policy(driver: Driver, zone: DnsServer, record: str, good: bool) -> None:
    assert await proves(driver, zone, "*.acme.test", f"{CA}; accounturi=ACCOUNT; {record}") is good


async def test_a_record_of_the_domain_above_says_nothing_of_a_host(driver: Driver, zone: DnsServer) -> None:
    zone.remove("_validation-persist.deep.acme.test", "TXT")
    record = f"{CA}; accounturi=ACCOUNT; policy=wildcard"
    assert not await proves(driver, zone, "deep.acme.test", record, at="acme.test")


async def test_one_record_serves_again_and_again(driver: Driver, zone: DnsServer) -> None:
    """Renewals need no new record, which is what it is for."""
    for _ in range(2):
        assert await proves(driver, zone, "again.acme.test", f"{CA}; accounturi=ACCOUNT")


async def test_a_record_is_for_one_account(site: Site, driver: Driver, zone: DnsServer) -> None:
    owned = f"{CA}; accounturi={driver.client.kid}"
    for profile in ("persist", "other"):
        async with account(site, profile) as thief:
            assert not await proves(thief, zone, "owned.acme.test", owned)
    assert await proves(driver, zone, "owned.acme.test", owned)


async def test_resolvers_that_fail_prove_nothing(driver: Driver, zone: DnsServer) -> None:
    zone.fail("_validation-persist.broken.acme.test", "SERVFAIL")
    assert not await proves(driver, zone, "broken.acme.test")
