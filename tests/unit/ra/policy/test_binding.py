"""What a credential was made for against what is asked for: whole subjects, common names alone, and kinds of names."""

from dataclasses import replace

import pytest

from gateway.errors import Reason
from gateway.model import CertificateRequest, NameBinding, SanKind
from gateway.pki.names import parse_name_text
from gateway.ra.policy.binding import judge_binding
from tests.unit.ra.policy.conftest import REQUEST, Bench

DNS, EMAIL, IP, SID, UPN, URI = SanKind.DNS, SanKind.EMAIL, SanKind.IP, SanKind.SID, SanKind.UPN, SanKind.URI
SID_VALUE = "S-1-5-21-1-2-3-1001"


def broken(binding: NameBinding, request: CertificateRequest) -> list[str]:
    verdicts = judge_binding(binding, request)
    assert all(v.mode == "enforce" and v.reason is Reason.NAME_NOT_BOUND for v in verdicts)
    return [v.field.removeprefix("credential.") for v in verdicts if not v.passed]


@pytest.mark.parametrize(
    ("bound", "subject", "problems"),
    [
        pytest.param(None, "CN=anything,O=Any", [], id="unbound"),
        pytest.param("gate-1", "CN=gate-1", [], id="same"),
        pytest.param("gate-1", "O=Corp,CN=gate-1,C=DE", [], id="other-attributes-are-for-policy"),
        pytest.param("gate-1", "CN=gate-2", ["common_name"], id="other"),
        pytest.param("gate-1", "CN=GATE-1", ["common_name"], id="other-case"),
        pytest.param("gate-1", "CN=gate-1\\ ", ["common_name"], id="trailing-space"),
        pytest.param("gate-1", "CN=\uff47ate-1", ["common_name"], id="full-width-letter"),
        pytest.param("gate-1", "O=gate-1", ["common_name"], id="absent"),
        pytest.param("gate-1", "", ["common_name"], id="empty-subject"),
        pytest.param("gate-1", "CN=gate-1,CN=gate-1", ["common_name"], id="twice"),
        pytest.param("gate-1", "CN=gate-1,CN=gate-2", ["common_name"], id="and-another"),
        pytest.param("gate-1", "CN=gate-1+CN=gate-2", ["common_name"], id="and-another-in-one-rdn"),
        pytest.param("", "O=Corp", [], id="none-bound-none-asked"),
        pytest.param("", "", [], id="none-bound-empty-subject"),
        pytest.param("", "CN=gate-1", ["common_name"], id="none-bound-one-asked"),
    ],
)
def test_common_name(bound: str | None, subject: str, problems: list[str]) -> None:
    assert broken(NameBinding(common_name=bound), replace(REQUEST, subject=parse_name_text(subject))) == problems


@pytest.mark.parametrize(
    ("bound", "kinds", "asked", "same"),
    [
        pytest.param({(DNS, "a.example")}, None, [("dns", "A.Example")], True, id="hosts-in-any-case"),
        pytest.param({(EMAIL, "a@h.example")}, None, [("email", "a@H.example")], True, id="mail-host-in-any-case"),
        pytest.param({(EMAIL, "a@h.example")}, None, [("email", "A@h.example")], False, id="mailbox-to-the-letter"),
        pytest.param({(UPN, "a@corp.example")}, None, [("upn", "a@corp.example")], True, id="upn"),
        pytest.param({(UPN, "a@corp.example")}, None, [("upn", "b@corp.example")], False, id="other-upn"),
        pytest.param({(IP, "2001:db8:0::1")}, None, [("ip", "2001:db8::1")], True, id="spelling-of-addresses"),
        pytest.param({(IP, "192.0.2.1")}, None, [("ip", "192.0.2.2")], False, id="other-address"),
        pytest.param({(URI, "urn:a:b")}, None, [("uri", "urn:a:b")], True, id="uri"),
        pytest.param({(URI, "urn:a:b")}, None, [("uri", "urn:a:B")], False, id="uri-to-the-letter"),
        pytest.param({(SID, SID_VALUE)}, None, [("sid", SID_VALUE)], True, id="sid"),
        pytest.param({(SID, SID_VALUE)}, None, [("sid", f"{SID_VALUE}0")], False, id="other-sid"),
        pytest.param({(DNS, "a.example")}, None, [], False, id="missing"),
        pytest.param({(DNS, "a.example")}, None, [("dns", "a.example"), ("dns", "b.example")], False, id="one-more"),
        pytest.param({(DNS, "a.example")}, None, [("dns", "a.example"), ("ip", "192.0.2.1")], False, id="one-of-another-kind"),
        pytest.param({(DNS, "192.0.2.1")}, None, [("ip", "192.0.2.1")], False, id="kinds-are-not-mixed"),
        pytest.param({(DNS, "a.example"), (DNS, "A.EXAMPLE")}, None, [("dns", "a.example")], True, id="sets-have-no-doubles"),
        pytest.param(set(), None, [], True, id="none-bound-none-asked"),
        pytest.param(set(), None, [("directory_name", "CN=x")], False, id="all-kinds-bound-and-one-asked"),
        pytest.param(set(), {DNS}, [("upn", "a@corp.example")], True, id="a-kind-that-is-left-alone"),
        pytest.param(set(), {DNS}, [("dns", "a.example")], False, id="a-kind-that-is-bound-to-none"),
        pytest.param({(DNS, "a.example")}, {DNS}, [("dns", "a.example"), ("ip", "192.0.2.1")], True, id="bound-beside-free"),
        pytest.param({(DNS, "a.example")}, {DNS}, [("ip", "192.0.2.1")], False, id="bound-missing-beside-free"),
        pytest.param(set(), set(), [("dns", "a.example"), ("sid", SID_VALUE)], True, id="no-kind-is-bound"),
    ],
)
def test_kinds_of_names(
    bound: set[tuple[SanKind, str]], kinds: set[SanKind] | None, asked: list[tuple[str, str]], same: bool, bench: Bench
) -> None:
    binding = NameBinding(sans=frozenset(bound), san_kinds=None if kinds is None else frozenset(kinds))
    assert broken(binding, bench.request("CN=gate-1", *asked)) == ([] if same else ["sans"])


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        pytest.param(NameBinding(), "the credential is bound to no names", id="nothing"),
        pytest.param(NameBinding(sans=frozenset(), san_kinds=frozenset()), "the credential is bound to no names", id="no-kind"),
        pytest.param(NameBinding(common_name="gate-1"), "the names are the credential's", id="common-name"),
        pytest.param(NameBinding(subject="CN=gate-1"), "the names are the credential's", id="subject"),
        pytest.param(NameBinding(sans=frozenset()), "the names are the credential's", id="all-kinds"),
        pytest.param(NameBinding(sans=frozenset(), san_kinds=frozenset({UPN})), "the names are the credential's", id="one-kind"),
    ],
)
def test_verdict_says_what_is_bound(binding: NameBinding, said: str) -> None:
    [verdict] = judge_binding(binding, REQUEST)
    assert verdict.passed
    assert verdict.message == said


def test_every_field_that_is_broken_is_told() -> None:
    binding = NameBinding("CN=other", frozenset({(DNS, "a.example")}), "other")
    assert broken(binding, REQUEST) == ["subject", "common_name", "sans"]
