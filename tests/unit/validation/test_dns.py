"""dns-01, dns-account-01 and dns-persist-01: each TXT record counts, whole (RFC 8555 §8.4)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.errors import Reason
from gateway.model import ChallengeType
from gateway.validation.interfaces import Validated
from gateway.wire.acme.challenges import account_label, dns_value
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.site import ACCOUNT, KEY_AUTHORIZATION, NOW, dns_name, refused, task, validation

VALUE = dns_value(KEY_AUTHORIZATION)
DNS_01 = task(ChallengeType.DNS_01, dns_name("host.test"))
NAME = "_acme-challenge.host.test"
PERSIST = task(ChallengeType.DNS_PERSIST_01, dns_name("host.test"))
CA = {"identities": ["ca.test", "other-ca.test"]}
SECONDS = int(NOW.timestamp())


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


async def test_dns_01(dns: DnsServer) -> None:
    dns.add_txt(NAME, VALUE)
    assert await validation(dns.address).validate(DNS_01, NOW) == Validated()


async def test_wildcard(dns: DnsServer) -> None:
    dns.add_txt(NAME, VALUE)
    await validation(dns.address).validate(task(ChallengeType.DNS_01, dns_name("host.test"), wildcard=True), NOW)


async def test_any_record_may_match(dns: DnsServer) -> None:
    dns.add_txt(NAME, *(f"left behind {number}" for number in range(30)), VALUE)
    await validation(dns.address).validate(DNS_01, NOW)


async def test_txt_multi_string(dns: DnsServer) -> None:
    dns.add(NAME, "TXT", f'"{VALUE[:20]}" "{VALUE[20:]}"')
    await validation(dns.address).validate(DNS_01, NOW)


async def test_alias(dns: DnsServer) -> None:
    dns.add(NAME, "CNAME", "elsewhere.example.test.")
    dns.add_txt("elsewhere.example.test", VALUE)
    await validation(dns.address).validate(DNS_01, NOW)


@pytest.mark.parametrize(
    "value", ["secret", VALUE[:-1], f"{VALUE}=", f" {VALUE}", VALUE.swapcase(), KEY_AUTHORIZATION], ids=range(6)
)
async def test_wrong_value(dns: DnsServer, value: str) -> None:
    dns.add_txt(NAME, value)
    failure = await refused(validation(dns.address).validate(DNS_01, NOW), Reason.VALIDATION_INCORRECT, NAME)
    assert value not in failure.detail


async def test_no_record(dns: DnsServer) -> None:
    work = validation(dns.address).validate(DNS_01, NOW)
    await refused(work, Reason.VALIDATION_INCORRECT, f"there is no TXT record at {NAME}")


async def test_record_of_the_name_itself_is_none(dns: DnsServer) -> None:
    dns.add_txt("host.test", VALUE)
    await refused(validation(dns.address).validate(DNS_01, NOW), Reason.VALIDATION_INCORRECT)


async def test_failure(dns: DnsServer) -> None:
    dns.fail(NAME)
    await refused(validation(dns.address).validate(DNS_01, NOW), Reason.VALIDATION_DNS, "SERVFAIL")


async def test_dns_account_01(dns: DnsServer) -> None:
    asked = task(ChallengeType.DNS_ACCOUNT_01, dns_name("host.test"))
    dns.add_txt(NAME, VALUE)
    await refused(validation(dns.address).validate(asked, NOW), Reason.VALIDATION_INCORRECT)
    dns.add_txt(f"{account_label(ACCOUNT)}.{NAME}", VALUE)
    await validation(dns.address).validate(asked, NOW)


async def test_dns_account_01_of_another_account(dns: DnsServer) -> None:
    dns.add_txt(f"{account_label(ACCOUNT + '2')}.{NAME}", VALUE)
    asked = task(ChallengeType.DNS_ACCOUNT_01, dns_name("host.test"))
    await refused(validation(dns.address).validate(asked, NOW), Reason.VALIDATION_INCORRECT)


GOOD = {
    "plain": f"ca.test; accounturi={ACCOUNT}",
    "another_identity": f"other-ca.test;accounturi={ACCOUNT}",
    "in_force": f"ca.test; accounturi={ACCOUNT}; persistUntil={SECONDS + 60}",
    "capitals": f"CA.test; AccountURI={ACCOUNT}",
    "unknown_policy": f"ca.test; accounturi={ACCOUNT}; policy=nothing",
}
BAD = {
    "nothing": "",
    "other_ca": f"evil.test; accounturi={ACCOUNT}",
    "other_account": f"ca.test; accounturi={ACCOUNT}2",
    "no_account": "ca.test",
    "over": f"ca.test; accounturi={ACCOUNT}; persistUntil={SECONDS - 60}",
    "until_no_number": f"ca.test; accounturi={ACCOUNT}; persistUntil=tomorrow",
    "account_twice": f"ca.test; accounturi={ACCOUNT}; accounturi={ACCOUNT}",
    "empty_parameter": f"ca.test; accounturi={ACCOUNT};;",
}
PLACE = "_validation-persist.host.test"


@pytest.mark.parametrize("record", GOOD.values(), ids=GOOD)
async def test_dns_persist_01(dns: DnsServer, record: str) -> None:
    dns.add(PLACE, "TXT", f'"{record}"', '"broken;;;"')
    await validation(dns.address, caa=CA).validate(PERSIST, NOW)


@pytest.mark.parametrize("record", BAD.values(), ids=BAD)
async def test_dns_persist_01_refused(dns: DnsServer, record: str) -> None:
    dns.add(PLACE, "TXT", f'"{record}"')
    await refused(validation(dns.address, caa=CA).validate(PERSIST, NOW), Reason.VALIDATION_INCORRECT, "names this CA")


@pytest.mark.parametrize("what", ["wildcard", "subdomains"])
async def test_dns_persist_01_beyond_the_name_itself(dns: DnsServer, what: str) -> None:
    asked = task(
        ChallengeType.DNS_PERSIST_01, dns_name("host.test"), wildcard=what == "wildcard", subdomains=what == "subdomains"
    )
    dns.add(PLACE, "TXT", f'"ca.test; accounturi={ACCOUNT}"')
    await refused(validation(dns.address, caa=CA).validate(asked, NOW), Reason.VALIDATION_INCORRECT, "policy=wildcard")
    dns.add(PLACE, "TXT", f'"ca.test; accounturi={ACCOUNT}; policy=wildcard"')
    await validation(dns.address, caa=CA).validate(asked, NOW)
