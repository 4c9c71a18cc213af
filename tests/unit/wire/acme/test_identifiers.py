"""Identifiers have one form in which they are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.acme import IdentifiersRejected
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Identifier, IdentifierType
from gateway.wire.acme.identifiers import MAX_REQUESTED, compare, domain, parse_identifiers, read_identifier

DNS, IP = IdentifierType.DNS, IdentifierType.IP
DEVICE, MODULE = IdentifierType.PERMANENT_IDENTIFIER, IdentifierType.HARDWARE_MODULE


@pytest.mark.parametrize(
    ("type_", "written", "compared"),
    [
        pytest.param(DNS, "WWW.Example.COM", "www.example.com", id="case"),
        pytest.param(DNS, "*.example.com", "*.example.com", id="wildcard"),
        pytest.param(DNS, "host", "host", id="a single label"),
        pytest.param(DNS, "win_host.corp.example", "win_host.corp.example", id="underscore"),
        pytest.param(DNS, "xn--mller-kva.example", "xn--mller-kva.example", id="A-label"),
        pytest.param(DNS, "XN--MLLER-KVA.example", "xn--mller-kva.example", id="A-label in capitals"),
        pytest.param(DNS, "1.example", "1.example", id="digits"),
        pytest.param(IP, "192.0.2.1", "192.0.2.1", id="ipv4"),
        pytest.param(IP, "2001:DB8:0:0:0:0:0:1", "2001:db8::1", id="ipv6"),
        pytest.param(DEVICE, "C02X", "C02X", id="device, case counts"),
        pytest.param(DEVICE, "C02X/1.2.840", "C02X/1.2.840", id="device with assigner"),
        pytest.param(MODULE, "4711/1.2.3", "4711/1.2.3", id="module"),
    ],
)
def test_comparable_forms(type_: IdentifierType, written: str, compared: str) -> None:
    assert compare(Identifier(type_, written)) == Identifier(type_, compared)
    assert compare(Identifier(type_, compared)) == Identifier(type_, compared)


@pytest.mark.parametrize(
    ("type_", "written"),
    [
        pytest.param(DNS, "example.com.", id="a final dot"),
        pytest.param(DNS, ".example.com", id="a leading dot"),
        pytest.param(DNS, "a..b", id="an empty label"),
        pytest.param(DNS, "-a.example", id="a leading hyphen"),
        pytest.param(DNS, "a-.example", id="a trailing hyphen"),
        pytest.param(DNS, "a" * 64 + ".example", id="a long label"),
        pytest.param(DNS, ".".join(["abc"] * 63) + ".ab", id="a long name"),
        pytest.param(DNS, "*", id="a bare wildcard"),
        pytest.param(DNS, "*.*.example", id="two wildcards"),
        pytest.param(DNS, "a.*.example", id="a wildcard inside"),
        pytest.param(DNS, "w*.example", id="part of a label"),
        pytest.param(DNS, "müller.example", id="a U-label"),
        pytest.param(DNS, "xn--a.example", id="a broken A-label"),
        pytest.param(DNS, "xn--.example", id="an empty A-label"),
        pytest.param(DNS, "xn--example-", id="an A-label of ASCII"),
        pytest.param(DNS, "ab--c.example", id="hyphens in the third and fourth place"),
        pytest.param(DNS, "192.0.2.1", id="an address"),
        pytest.param(DNS, "[::1]", id="an address in brackets"),
        pytest.param(DNS, "a b.example", id="a space"),
        pytest.param(DNS, "a\0b.example", id="NUL"),
        pytest.param(DNS, "a.example\n", id="a line break"),
        pytest.param(DNS, "a.example:443", id="a port"),
        pytest.param(DNS, "https://a.example", id="a URL"),
        pytest.param(DNS, "\u212a.example", id="a letter that lower() makes ASCII"),
        pytest.param(DNS, "1\u0661.example", id="another script's digits"),
        pytest.param(IP, "192.0.2.256", id="no address"),
        pytest.param(IP, "192.0.2.01", id="leading zeros"),
        pytest.param(IP, "192.0.2.0/24", id="a network"),
        pytest.param(IP, "fe80::1%eth0", id="a zone"),
        pytest.param(IP, "host", id="a name"),
        pytest.param(IP, "3221225985", id="a number"),
        pytest.param(DEVICE, "/1.2.3", id="no identifier"),
        pytest.param(DEVICE, "C02X/", id="no assigner"),
        pytest.param(DEVICE, "C02X/a.b", id="an assigner that is no OID"),
        pytest.param(DEVICE, "C02X/1.2/3", id="two slashes"),
        pytest.param(DEVICE, "C0\n2X", id="a control character"),
        pytest.param(DEVICE, "C0\u200b2X", id="an invisible character"),
        pytest.param(MODULE, "4711", id="no type"),
        pytest.param(MODULE, "/1.2.3", id="no serial number"),
        pytest.param(MODULE, "4711/9.2.3", id="a type that is no OID"),
    ],
)
def test_what_is_no_identifier(type_: IdentifierType, written: str) -> None:
    with pytest.raises(MalformedMessage):
        compare(Identifier(type_, written))


@given(st.sampled_from(IdentifierType), st.text(max_size=60))
def test_texts_are_compared_or_refused(type_: IdentifierType, text: str) -> None:
    try:
        found = compare(Identifier(type_, text))
    except MalformedMessage:
        return
    assert compare(found) == found
    assert found.value.isprintable()


def test_names_come_once_in_their_order() -> None:
    raw = [
        {"type": "dns", "value": "B.example"},
        {"type": "dns", "value": "a.example", "extra": 1},
        {"type": "dns", "value": "b.EXAMPLE"},
        {"type": "ip", "value": "::1"},
    ]
    assert parse_identifiers(raw) == (Identifier(DNS, "b.example"), Identifier(DNS, "a.example"), Identifier(IP, "::1"))


def test_every_wrong_name_is_told() -> None:
    raw = [{"type": "dns", "value": v} for v in ("a..b", "good.example", "ä.example")]
    with pytest.raises(IdentifiersRejected) as caught:
        parse_identifiers(raw)
    assert [(i.value, reason) for i, reason, _ in caught.value.problems] == [
        ("a..b", Reason.MALFORMED),
        ("ä.example", Reason.MALFORMED),
    ]
    assert "and 1 more" in caught.value.detail


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(None, id="absent"),
        pytest.param({}, id="an object"),
        pytest.param([], id="none"),
        pytest.param(["a.example"], id="a text"),
        pytest.param([{"type": "dns"}], id="no value"),
        pytest.param([{"value": "a.example"}], id="no type"),
        pytest.param([{"type": 1, "value": "a.example"}], id="a type that is no text"),
        pytest.param([{"type": "dns", "value": ["a.example"]}], id="a value that is no text"),
        pytest.param([{"type": "dns", "value": ""}], id="an empty value"),
        pytest.param([{"type": "dns", "value": "a" * 256}], id="a long value"),
        pytest.param([{"type": "dns", "value": "a.example"}] * (MAX_REQUESTED + 1), id="too many"),
    ],
)
def test_malformed_lists(raw: object) -> None:
    with pytest.raises(MalformedMessage):
        parse_identifiers(raw)


def test_types_that_are_not_served() -> None:
    with pytest.raises(Rejection) as caught:
        read_identifier({"type": "email\n", "value": "a@b"})
    assert caught.value.reason is Reason.UNSUPPORTED_IDENTIFIER
    assert "'email?'" in caught.value.detail


def test_domains() -> None:
    assert domain("A.example") == "a.example"
    with pytest.raises(MalformedMessage):
        domain("*.example")
