"""CAA: who may issue, found by climbing, judged with account and method, failing closed (RFC 8659, RFC 8657)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from gateway.errors import Reason
from gateway.model import ChallengeType
from gateway.validation.caa import Asking, judge_records, read_issue
from gateway.validation.resolve import CaaRecord
from gateway.wire.acme.challenges import dns_value
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.site import ACCOUNT, KEY_AUTHORIZATION, NOW, dns_name, ip_name, refused, task, validation

NAME = dns_name("www.host.test")
HTTP, DNS = ChallengeType.HTTP_01, ChallengeType.DNS_01


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


def record(tag: str, value: str, flags: int = 0) -> CaaRecord:
    return CaaRecord(flags, tag, value.encode("latin-1"))


def judge(*records: CaaRecord, wildcard: bool = False, challenge: ChallengeType | None = HTTP) -> str | None:
    return judge_records(records, Asking({"ca.test", "ca2.test"}, ACCOUNT, challenge, wildcard))


PERMITTED = {
    "no_record": (),
    "ours": (record("issue", "ca.test"),),
    "second_identity": (record("issue", "ca2.test"),),
    "capitals": (record("issue", "CA.Test"),),
    "one_of_several": (record("issue", "other.test"), record("issue", "ca.test")),
    "one_of_several_unreadable": (record("issue", "%%%"), record("issue", "ca.test")),
    "only_iodef": (record("iodef", "mailto:a@b.test"),),
    "critical_iodef": (record("iodef", "mailto:a@b.test", 128),),
    "only_issuewild": (record("issuewild", "other.test"),),
    "unknown_tag": (record("tbs", "x"),),
    "spaces": (record("issue", "  ca.test  "),),
    "bare_semicolon_after_the_name": (record("issue", "ca.test;"),),
    "unknown_parameter": (record("issue", "ca.test; policy=ev"),),
    "our_account": (record("issue", f"ca.test; accounturi={ACCOUNT}"),),
    "our_method": (record("issue", "ca.test; validationmethods=dns-01,http-01"),),
    "account_and_method": (record("issue", f"ca.test; validationmethods=http-01; accounturi={ACCOUNT}"),),
    "critical_issue": (record("issue", "ca.test", 128),),
}
FORBIDDEN = {
    "nobody": (record("issue", ";"),),
    "empty": (record("issue", ""),),
    "other_ca": (record("issue", "other.test"),),
    "name_below_ours": (record("issue", "x.ca.test"),),
    "unreadable": (record("issue", "ca.test; nonsense"),),
    "beyond_ascii": (record("issue", "ca.t\xebst"),),
    "critical_unknown": (record("issue", "ca.test"), record("tbs", "x", 128)),
    "critical_unknown_alone": (record("tbs", "x", 128),),
    "other_account": (record("issue", f"ca.test; accounturi={ACCOUNT}2"),),
    "account_twice": (record("issue", f"ca.test; accounturi={ACCOUNT}; accounturi={ACCOUNT}"),),
    "empty_account": (record("issue", "ca.test; accounturi="),),
    "other_method": (record("issue", "ca.test; validationmethods=dns-01"),),
    "methods_twice": (record("issue", "ca.test; validationmethods=http-01; validationmethods=http-01"),),
    "trailing_semicolon_after_a_parameter": (record("issue", "ca.test; a=b;"),),
    "too_many": (record("issue", "ca.test"),) * 101,
}


@pytest.mark.parametrize("records", PERMITTED.values(), ids=PERMITTED)
def test_permitted(records: tuple[CaaRecord, ...]) -> None:
    assert judge(*records) is None


@pytest.mark.parametrize("records", FORBIDDEN.values(), ids=FORBIDDEN)
def test_forbidden(records: tuple[CaaRecord, ...]) -> None:
    assert judge(*records) is not None


def test_issuewild() -> None:
    ours, others = record("issuewild", "ca.test"), record("issuewild", ";")
    assert judge(record("issue", ";"), ours, wildcard=True) is None
    assert judge(record("issue", ";"), ours) is not None
    assert judge(record("issue", "ca.test"), others, wildcard=True) is not None
    assert judge(record("issue", "ca.test"), others) is None
    assert judge(record("issue", "ca.test"), wildcard=True) is None
    assert judge(record("issue", ";"), wildcard=True) is not None


def test_name_that_nobody_challenged_fits_no_method() -> None:
    assert judge(record("issue", "ca.test; validationmethods=http-01"), challenge=None) is not None
    assert judge(record("issue", "ca.test"), challenge=None) is None


def test_values() -> None:
    assert read_issue(b"") == ("", ())
    assert read_issue(b" ; ") == ("", ())
    assert read_issue(b"Ca.test; A=b ; c-d = ") == ("ca.test", (("a", "b"), ("c-d", "")))
    for wrong in (b"-x.test", b"x_y.test", b"a b", b"ca.test; =b", b"ca.test; -a=b", b"ca.test; a=b c", b"ca.test;;", b"\xff"):
        assert read_issue(wrong) is None


async def check(dns: DnsServer, mode: str = "enforce", *, wildcard: bool = False, challenge: ChallengeType | None = HTTP) -> None:
    given = validation(dns.address, caa={"mode": mode, "identities": ["ca.test"]}, resolver={"timeout": "1s"})
    await given.check_caa(NAME, challenge, ACCOUNT, wildcard=wildcard)


async def test_closest_records_count(dns: DnsServer) -> None:
    dns.add("test", "CAA", '0 issue ";"')
    dns.add("host.test", "CAA", '0 issue "ca.test"')
    await check(dns)
    assert dns.asked("test", "CAA") == 0
    dns.add("www.host.test", "CAA", '0 issue ";"')
    await refused(check(dns), Reason.VALIDATION_CAA, "www.host.test")


async def test_climbs_to_the_top(dns: DnsServer) -> None:
    dns.add("test", "CAA", '0 issue ";"')
    await refused(check(dns), Reason.VALIDATION_CAA, "CAA records at test do not permit it")


async def test_alias_is_followed_and_its_parents_are_not_climbed(dns: DnsServer) -> None:
    dns.add("www.host.test", "CNAME", "target.elsewhere.example.")
    dns.add("elsewhere.example", "CAA", '0 issue ";"')
    await check(dns)
    dns.add("target.elsewhere.example", "CAA", '0 issue ";"')
    await refused(check(dns), Reason.VALIDATION_CAA)


@pytest.mark.parametrize("where", ["www.host.test", "host.test", "test"])
async def test_failure_closes(dns: DnsServer, where: str) -> None:
    dns.fail(where)
    await refused(check(dns), Reason.VALIDATION_DNS, "SERVFAIL")


async def test_failure_beyond_what_counts(dns: DnsServer) -> None:
    dns.add("www.host.test", "CAA", '0 issue "ca.test"')
    dns.fail("test")
    dns.fail("test", None)
    await check(dns)


async def test_silence_closes(dns: DnsServer) -> None:
    dns.ignore("host.test")
    await refused(check(dns), Reason.VALIDATION_DNS, "cannot be looked up")


async def test_log_says_and_permits(dns: DnsServer) -> None:
    dns.add("www.host.test", "CAA", '0 issue ";"')
    with structlog.testing.capture_logs() as logs:
        await check(dns, "log")
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "do not permit" in logs[0]["event"]


async def test_log_asks_nothing_where_a_trust_mode_vouched(dns: DnsServer) -> None:
    dns.add("www.host.test", "CAA", '0 issue ";"')
    await check(dns, "log", challenge=None)
    assert dns.queries == []
    await refused(check(dns, challenge=None), Reason.VALIDATION_CAA)


async def test_off_asks_nothing(dns: DnsServer) -> None:
    dns.fail("test")
    await check(dns, "off")
    assert dns.queries == []


async def test_addresses_have_none(dns: DnsServer) -> None:
    given = validation(dns.address, caa={"mode": "enforce"})
    await given.check_caa(ip_name("192.0.2.1"), HTTP, ACCOUNT, wildcard=False)
    assert dns.queries == []


async def test_names_of_the_file_have_none(dns: DnsServer) -> None:
    dns.fail("test")
    given = validation(dns.address, caa={"mode": "enforce"}, resolver={"hosts": {"*.host.test": ["127.0.0.1"]}})
    await given.check_caa(NAME, HTTP, ACCOUNT, wildcard=False)
    assert dns.queries == []


async def test_challenge_that_is_proved_and_forbidden(dns: DnsServer) -> None:
    dns.add_txt("_acme-challenge.www.host.test", dns_value(KEY_AUTHORIZATION))
    dns.add("host.test", "CAA", '0 issue "ca.test; validationmethods=http-01"')
    given = validation(dns.address, caa={"mode": "enforce", "identities": ["ca.test"]})
    await refused(given.validate(task(DNS, NAME), NOW), Reason.VALIDATION_CAA, "other validation methods")
    dns.remove("host.test", "CAA")
    await given.validate(task(DNS, NAME), NOW)


async def test_wildcard_of_a_challenge(dns: DnsServer) -> None:
    dns.add_txt("_acme-challenge.www.host.test", dns_value(KEY_AUTHORIZATION))
    dns.add("host.test", "CAA", '0 issue "ca.test"', '0 issuewild ";"')
    given = validation(dns.address, caa={"mode": "enforce", "identities": ["ca.test"]})
    await given.validate(task(DNS, NAME), NOW)
    await refused(given.validate(task(DNS, NAME, wildcard=True), NOW), Reason.VALIDATION_CAA)
