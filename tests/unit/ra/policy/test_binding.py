"""What a credential was made for against what is asked for: whole subjects, common names alone, and kinds of names."""

from dataclasses import replace

import pytest

from gateway.errors import Reason
from gateway.model import CertificateRequest, NameBinding, SanKind
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.own_names import own_names
from gateway.ra.policy.binding import judge_binding, judge_certified
from gateway.ra.policy.subject import Subject
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


@pytest.mark.parametrize(
    ("subject", "problems"),
    [
        pytest.param("serialNumber=4711,O=Corp", [], id="same"),
        pytest.param("CN=gate-1,serialNumber=4711", [], id="other-attributes-are-for-policy"),
        pytest.param("serialNumber=4712", ["serial_number"], id="other"),
        pytest.param("CN=4711", ["serial_number"], id="absent"),
        pytest.param("serialNumber=4711,serialNumber=4712", ["serial_number"], id="and-another"),
        pytest.param("serialNumber=4711+serialNumber=4712", ["serial_number"], id="and-another-in-one-rdn"),
        pytest.param("serialNumber=4711,serialNumber=4711", ["serial_number"], id="twice"),
    ],
)
def test_serial_number(subject: str, problems: list[str]) -> None:
    assert broken(NameBinding(serial_number="4711"), replace(REQUEST, subject=parse_name_text(subject))) == problems


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        pytest.param([], True, id="none"),
        pytest.param([("dns", "a.example")], True, id="one"),
        pytest.param([("dns", "A.Example"), ("ip", "192.0.2.1")], True, id="both-in-any-case"),
        pytest.param([("dns", "b.example")], False, id="another"),
        pytest.param([("dns", "a.example"), ("dns", "b.example")], False, id="and-another"),
        pytest.param([("email", "a.example@a.example")], False, id="of-another-kind"),
    ],
)
def test_allowed_names(bench: Bench, asked: list[tuple[str, str]], allowed: bool) -> None:
    binding = NameBinding(allowed_sans=frozenset({(DNS, "a.example"), (IP, "192.0.2.1")}))
    assert broken(binding, bench.request("CN=x", *asked)) == ([] if allowed else ["sans"])


@pytest.mark.parametrize(
    ("binding", "subject", "sans", "good"),
    [
        pytest.param(NameBinding(common_name="a"), "CN=b", [], True, id="binds-requests-only"),
        pytest.param(own_names("a", "bound"), "CN=a,O=Corp", [], True, id="the-user"),
        pytest.param(own_names("a", "bound"), "CN=b", [], False, id="another-user"),
        pytest.param(own_names("a", "bound"), "O=Corp", [], False, id="nobody"),
        pytest.param(own_names("a", "bound"), "CN=a+CN=b", [], False, id="both"),
        pytest.param(own_names("a", "bound"), "CN=a", [("dns", "b")], False, id="another-host"),
        pytest.param(own_names("a", "bound"), "CN=a", [("dns", "a")], True, id="the-user-as-host"),
        pytest.param(own_names("a", "policy"), "CN=a", [("dns", "b")], True, id="hosts-are-for-policy"),
        pytest.param(own_names("a", "policy"), "CN=b", [("dns", "b")], False, id="but-no-other-user"),
        pytest.param(NameBinding(serial_number="1", certified=True), "serialNumber=1,CN=x", [], True, id="the-number"),
        pytest.param(NameBinding(serial_number="1", certified=True), "CN=x", [], False, id="without-the-number"),
    ],
)
def test_what_is_certified(bench: Bench, binding: NameBinding, subject: str, sans: list[tuple[str, str]], good: bool) -> None:
    verdicts = judge_certified(binding, Subject(parse_name_text(subject).rdns), bench.request("", *sans).sans)
    assert all(v.passed for v in verdicts) is good
    assert all(v.mode == "enforce" and v.reason is Reason.NAME_NOT_BOUND for v in verdicts)


TEMPLATES = [
    pytest.param({"template": "CN={dns}"}, False, id="made-of-an-unbound-name"),
    pytest.param({"template": "serialNumber={serialNumber},O=Corp"}, False, id="without-the-bound-name"),
    pytest.param({"template": "CN={owner}"}, False, id="of-the-owner"),
    pytest.param({"override": {"CN": "gate-9"}}, False, id="another-name-for-all"),
    pytest.param({"template": "CN=x-{CN}"}, False, id="made-longer"),
    pytest.param({"template": "CN={CN},O=Corp"}, True, id="with-the-bound-name"),
    pytest.param({"template": "CN={CN},serialNumber={serialNumber}"}, True, id="and-another"),
]


@pytest.mark.parametrize(("subject", "good"), TEMPLATES)
@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
def test_no_template_undoes_a_binding(bench: Bench, subject: dict[str, object], good: bool, mode: str) -> None:
    """The user gate-1, who may ask for any host that policy knows."""
    policy = bench.policy(subject={"mode": mode, **subject})
    request = bench.request("CN=gate-1,serialNumber=7", ("dns", "gate-2.corp.example"))
    user = replace(bench.requester, binding=own_names("gate-1", "policy"), owner="somebody")
    decision = bench.decide(policy, request, user)
    assert (decision.grant is not None) is good, decision.violations
    if not good:
        assert Reason.NAME_NOT_BOUND in {v.reason for v in decision.violations}
    together = replace(bench.requester, also_bound=(own_names("gate-1", "policy"),), owner="somebody")
    assert (bench.decide(policy, request, together).grant is not None) is good, "whichever of several credentials binds it"


def test_a_name_that_policy_adds_is_judged(bench: Bench) -> None:
    policy = bench.policy(san={"dns": {"patterns": [".*"]}, "dns_from_common_name": True})
    for user, good in (("gate-1.corp.example", True), ("gate-2.corp.example", False)):
        binding = NameBinding(allowed_sans=own_names(user, "bound").allowed_sans, certified=True)
        decision = bench.decide(policy, bench.request("CN=gate-1.corp.example"), replace(bench.requester, binding=binding))
        assert (decision.grant is not None) is good
