"""Subject alternative names by type: what passes, and the many ways in which a name is not what it seems."""

from typing import Any

import pytest

from gateway.errors import Reason
from gateway.model import SanKind, SubjectAltName
from gateway.pki import der
from gateway.pki.extensions import make_san

SID = "S-1-5-21-1-2-3-1001"


def ia5(kind: SanKind, tag: int, text: bytes) -> SubjectAltName:
    return SubjectAltName(kind, text.decode("latin-1"), der.tlv(tag, text))


def uri(text: str) -> SubjectAltName:
    return ia5(SanKind.URI, 0x86, text.encode())


def dns(text: str) -> SubjectAltName:
    return ia5(SanKind.DNS, 0x82, text.encode("latin-1", "replace"))


OTHER = SubjectAltName(SanKind.OTHER, "otherName:1.3.6.1.4.1.311.25.1:#0404", der.context(0, der.oid("1.3.6.1.4.1.311.25.1")))
DIRECTORY = make_san(SanKind.DIRECTORY_NAME, "CN=Administrator")

ALL_KINDS: dict[str, Any] = {
    "dns": {"patterns": [r"([a-z0-9-]+\.)*corp\.example"], "max": 3},
    "ip": {"networks": ["10.0.0.0/8", "2001:db8::/32"]},
    "email": {"patterns": [r"[a-z]+@corp\.example"]},
    "uri": {"patterns": [r"urn:uuid:[0-9a-f-]{36}"]},
    "upn": {"patterns": [r"[a-z]+@corp\.example"]},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(("dns", "gate.corp.example"), id="dns"),
        pytest.param(("dns", "GATE.Corp.Example"), id="dns-upper-case"),
        pytest.param(("dns", "xn--mller-kva.corp.example"), id="a-label"),
        pytest.param(("ip", "10.1.2.3"), id="ipv4"),
        pytest.param(("ip", "2001:db8::1"), id="ipv6"),
        pytest.param(("email", "device@corp.example"), id="email"),
        pytest.param(("uri", "urn:uuid:00000000-0000-0000-0000-000000000000"), id="uri"),
        pytest.param(("upn", "alice@corp.example"), id="upn"),
    ],
)
def test_listed_names_pass_unchanged(bench: Any, name: tuple[str, str]) -> None:
    request = bench.request("CN=gate-1", name)
    decision = bench.decide(bench.policy(san=ALL_KINDS), request)
    assert decision.grant is not None
    assert [(san.kind, san.der) for san in decision.grant.sans] == [(san.kind, san.der) for san in request.sans]
    assert not decision.grant.modified


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(dns("gate.evil.example"), id="another-domain"),
        pytest.param(dns("gate.corp.example.evil.example"), id="suffix-in-the-middle"),
        pytest.param(dns("gate.corp.example."), id="trailing-dot"),
        pytest.param(dns(".corp.example"), id="leading-dot"),
        pytest.param(dns("gate..corp.example"), id="empty-label"),
        pytest.param(dns("*.corp.example"), id="wildcard-not-allowed"),
        pytest.param(dns("g*.corp.example"), id="partial-wildcard"),
        pytest.param(dns("a.*.corp.example"), id="inner-wildcard"),
        pytest.param(dns("evil.example\x00.corp.example"), id="embedded-nul"),
        pytest.param(dns("evil.example .corp.example"), id="space"),
        pytest.param(dns("evil.example\n.corp.example"), id="newline"),
        pytest.param(dns("-gate.corp.example"), id="leading-hyphen"),
        pytest.param(dns("xn--.corp.example"), id="empty-a-label"),
        pytest.param(dns("xn--abc-.corp.example"), id="a-label-of-ascii"),
        pytest.param(dns("xn--99999999.corp.example"), id="a-label-out-of-range"),
        pytest.param(dns("m\xfcller.corp.example"), id="not-ascii"),
        pytest.param(SubjectAltName(SanKind.DNS, "\u212aorp.corp.example", der.tlv(0x82, b"K")), id="kelvin-sign"),
        pytest.param(dns("a" * 64 + ".corp.example"), id="label-too-long"),
        pytest.param(dns("a." * 130 + "corp.example"), id="name-too-long"),
        pytest.param(dns(""), id="empty"),
        pytest.param(dns("10.1.2.3"), id="address-as-dns"),
        pytest.param(("ip", "192.0.2.1"), id="ip-outside"),
        pytest.param(("ip", "2001:db9::1"), id="ipv6-outside"),
        pytest.param(("ip", "::ffff:10.0.0.1"), id="ipv4-mapped"),
        pytest.param(SubjectAltName(SanKind.IP, "fe80::1%eth0", b"\x87\x00"), id="ip-scope"),
        pytest.param(ia5(SanKind.EMAIL, 0x81, b"device@evil.example"), id="email-outside"),
        pytest.param(ia5(SanKind.EMAIL, 0x81, b"device@evil.example@corp.example"), id="two-ats"),
        pytest.param(ia5(SanKind.EMAIL, 0x81, b"corp.example"), id="email-host-only"),
        pytest.param(uri("urn:uuid:x"), id="uri-outside"),
        pytest.param(uri("no-scheme"), id="uri-relative"),
        pytest.param(SubjectAltName(SanKind.UPN, "alice@evil.example", b"\xa0\x00"), id="upn-outside"),
        pytest.param(SubjectAltName(SanKind.UPN, "administrator\u202e@corp.example", b"\xa0\x00"), id="upn-invisible"),
        pytest.param(OTHER, id="other-name"),
        pytest.param(DIRECTORY, id="directory-name"),
    ],
)
def test_other_names_are_refused(bench: Any, name: SubjectAltName | tuple[str, str]) -> None:
    decision = bench.decide(bench.policy(san=ALL_KINDS), bench.request("CN=gate-1", name))
    assert decision.grant is None
    assert {v.reason for v in decision.violations} == {Reason.POLICY_SAN}


@pytest.mark.parametrize("mode", ["warn", "off"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(OTHER, id="other-name"),
        pytest.param(DIRECTORY, id="directory-name"),
        pytest.param(dns("evil.example\x00.corp.example"), id="embedded-nul"),
        pytest.param(("ip", "::ffff:10.0.0.1"), id="ipv4-mapped"),
        pytest.param(("sid", SID), id="sid"),
        pytest.param(uri("TAG:microsoft.com,2022-09-14:sid:" + SID), id="sid-in-other-case"),
        pytest.param(uri("tag:microsoft%2Ecom,2022-09-14:sid:" + SID), id="sid-percent-encoded"),
    ],
)
def test_no_mode_lets_through_what_is_not_what_it_seems(bench: Any, mode: str, name: SubjectAltName) -> None:
    request = bench.request("CN=gate-1", name)
    assert bench.decide(bench.policy(san={"mode": mode, "uri": {"patterns": [".*"]}}), request).grant is None


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize("name", [OTHER, DIRECTORY, ("sid", SID)], ids=["other-name", "directory-name", "sid"])
def test_dropping_drops_what_is_never_certified(bench: Any, mode: str, name: SubjectAltName) -> None:
    grant = bench.decide(bench.policy(san={"mode": mode, "unlisted": "drop"}), bench.request("CN=gate-1", name)).grant
    assert grant is not None
    assert grant.sans == ()
    assert grant.modified


def test_unlisted_types_are_dropped_and_listed_values_still_judged(bench: Any) -> None:
    policy = bench.policy(san={"unlisted": "drop", "dns": {"patterns": ["gate"]}})
    grant = bench.decide(policy, bench.request("CN=gate-1", ("dns", "gate"), ("ip", "10.0.0.1"))).grant
    assert grant is not None
    assert [san.value for san in grant.sans] == ["gate"]
    assert bench.decide(policy, bench.request("CN=gate-1", ("dns", "other"))).grant is None


def test_warning_certifies_and_tells(bench: Any) -> None:
    decision = bench.decide(bench.policy(san={"mode": "warn"}), bench.request("CN=gate-1", ("dns", "gate.example")))
    assert decision.grant is not None
    assert [san.value for san in decision.grant.sans] == ["gate.example"]
    assert [v.reason for v in decision.warnings] == [Reason.POLICY_SAN]


def test_wildcards(bench: Any) -> None:
    policy = bench.policy(san={"dns": {"patterns": [r"([a-z]+\.)*corp\.example", "example"], "wildcards": True}})
    assert bench.decide(policy, bench.request("CN=gate-1", ("dns", "*.corp.example"))).grant is not None
    assert bench.decide(policy, bench.request("CN=gate-1", ("dns", "*.evil.example"))).grant is None
    assert bench.decide(policy, bench.request("CN=gate-1", ("dns", "*.example"))).grant is None


def test_a_name_is_certified_in_the_encoding_of_what_was_judged(bench: Any) -> None:
    smuggled = SubjectAltName(SanKind.DNS, "gate.corp.example", der.tlv(0x82, b"evil.example"))
    grant = bench.decide(None, bench.request("CN=gate-1", smuggled)).grant
    assert grant.sans == (make_san(SanKind.DNS, "gate.corp.example"),)


def test_sid_passes_only_where_configured_and_vouched_for(bench: Any) -> None:
    from dataclasses import replace

    vouching = replace(bench.requester, vouches_for_sid=True)
    request = bench.request("CN=gate-1", ("sid", SID))
    configured = bench.policy(san={"sid": {}})
    assert bench.decide(configured, request, vouching).grant.sans == request.sans
    assert bench.decide(configured, request).grant is None
    assert bench.decide(bench.policy(), request, vouching).grant is None
    two = bench.request("CN=gate-1", ("sid", SID), ("sid", SID + "1"))
    assert bench.decide(configured, two, vouching).grant is None


def test_counts(bench: Any) -> None:
    def names(count: int) -> list[tuple[str, str]]:
        return [("dns", f"g{number}.corp.example") for number in range(count)]

    policy = bench.policy(san=ALL_KINDS | {"max": 4})
    assert bench.decide(policy, bench.request("CN=gate-1", *names(3))).grant is not None
    assert bench.decide(policy, bench.request("CN=gate-1", *names(4))).violations[0].field == "policy.san.dns.max"
    addresses = [("ip", f"10.0.0.{number}") for number in range(5)]
    assert bench.decide(policy, bench.request("CN=gate-1", *addresses)).violations[0].field == "policy.san.max"
    assert bench.decide(bench.policy(san={"mode": "off"}), bench.request("CN=gate-1", *names(1001))).grant is None


def test_repeated_names_count_once(bench: Any) -> None:
    grant = bench.decide(None, bench.request("CN=gate-1", ("dns", "a.corp.example"), ("dns", "A.corp.example"))).grant
    assert [san.value for san in grant.sans] == ["a.corp.example"]


def test_required(bench: Any) -> None:
    policy = bench.policy(san={"require": True, "unlisted": "drop"})
    assert bench.decide(policy).violations[0].field == "policy.san.require"
    assert bench.decide(policy, bench.request("CN=gate-1", ("ip", "10.0.0.1"))).grant is None


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param("CN=gate.corp.example", ["gate.corp.example"], id="host-name"),
        pytest.param("CN=gate-1", [], id="no-dot"),
        pytest.param("CN=10.0.0.1", [], id="address"),
        pytest.param("CN=gate.corp.example,CN=b.corp.example", [], id="two-common-names"),
    ],
)
def test_dns_from_common_name(bench: Any, subject: str, expected: list[str]) -> None:
    policy = bench.policy(
        subject={"max_common_names": 2}, san={"dns_from_common_name": True, "dns": {"patterns": [r"[a-z]+\.corp\.example"]}}
    )
    grant = bench.decide(policy, bench.request(subject)).grant
    assert [san.value for san in grant.sans] == expected
    assert grant.modified is bool(expected)


def test_dns_from_common_name_is_judged_like_any_other(bench: Any) -> None:
    policy = bench.policy(san={"dns_from_common_name": True, "dns": {"patterns": [r"[a-z]+\.corp\.example"]}})
    assert bench.decide(policy, bench.request("CN=www.evil.example")).grant is None
