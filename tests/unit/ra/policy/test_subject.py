"""Subject names: allow-list, patterns, template, overrides, and text that does not show what it says."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.model import Name, NameAttribute
from gateway.pki.names import encode_name, format_name, normalize_name, parse_name, parse_name_text


def named(*rdns: tuple[NameAttribute, ...]) -> Name:
    return Name(rdns, b"as received")


def cn(value: str, tag: int = 12) -> NameAttribute:
    return NameAttribute("2.5.4.3", value, tag)


def granted(decision: Any) -> str:
    assert decision.grant is not None, decision.violations
    return format_name(parse_name(decision.grant.subject_der))


@pytest.mark.parametrize(
    ("section", "subject"),
    [
        pytest.param({"allow": ["CN"]}, "CN=a,O=Corp", id="unlisted-attribute"),
        pytest.param({"allow": ["CN", "2.5.4.10"]}, "CN=a,OU=Corp", id="unlisted-beside-oid"),
        pytest.param({"patterns": {"CN": "gate-[0-9]"}}, "CN=gate-1x", id="pattern-matches-whole"),
        pytest.param({"patterns": {"CN": "gate-[0-9]"}}, "CN=xgate-1", id="pattern-matches-from-start"),
        pytest.param({"patterns": {"CN": "gate"}, "max_common_names": 2}, "CN=gate,CN=evil", id="pattern-for-every-value"),
        pytest.param(
            {"patterns": {"CN": "gate"}, "max_common_names": 2}, "CN=gate+O=x,CN=evil+O=y", id="pattern-in-multi-valued"
        ),
        pytest.param({}, "CN=gate,CN=evil", id="two-common-names"),
        pytest.param({"require": ["O"]}, "CN=gate", id="required-missing"),
        pytest.param({"require": ["nonsense"]}, "CN=gate", id="required-word-means-nothing"),
        pytest.param({"allow": ["nonsense"]}, "CN=gate", id="allowed-word-means-nothing"),
        pytest.param({}, "CN=" + "x" * 65, id="common-name-too-long"),
        pytest.param({}, "", id="empty"),
    ],
)
def test_refused(bench: Any, section: dict[str, Any], subject: str) -> None:
    decision = bench.decide(bench.policy(subject=section), bench.request(subject))
    assert decision.grant is None
    assert decision.violations[0].field.startswith("policy.subject")


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(named((cn("gate\x00.evil"),)), id="nul"),
        pytest.param(named((cn("gate\nx"),)), id="newline"),
        pytest.param(named((cn("gate\u202egnp"),)), id="right-to-left-override"),
        pytest.param(named((cn("gate\u200b"),)), id="zero-width"),
        pytest.param(named((cn(" "),)), id="blank"),
        pytest.param(named((cn(""),)), id="no-value"),
        pytest.param(named((cn("gate "),)), id="trailing-space"),
        pytest.param(named((cn("x" * 513),)), id="huge"),
        pytest.param(named((cn("#0403414243", 4),)), id="octet-string-value"),
        pytest.param(named((cn("a"), cn("b"))), id="one-type-twice-in-an-rdn"),
        pytest.param(named(), id="empty-without-other-names"),
    ],
)
def test_no_mode_lets_through(bench: Any, mode: str, name: Name) -> None:
    policy = bench.policy(subject={"mode": mode, "allow_empty": True, "max_common_names": 8})
    assert bench.decide(policy, replace(bench.request(), subject=name)).grant is None


def test_unlisted_attributes_are_dropped(bench: Any) -> None:
    policy = bench.policy(subject={"allow": ["CN"], "unlisted": "drop"})
    decision = bench.decide(policy, bench.request("CN=gate,OU=\\00x,2.5.4.99=x"))
    assert granted(decision) == "CN=gate"
    assert decision.grant.modified


def test_order_and_string_types_stay(bench: Any) -> None:
    request = bench.request("CN=gate,serialNumber=7+OU=lab,O=Example,C=CH")
    decision = bench.decide(bench.policy(subject={}), request)
    assert decision.grant.subject_der == request.subject.der
    assert not decision.grant.modified


def test_strings_of_other_types_become_utf8(bench: Any) -> None:
    for tag, text in ((20, "Zürich"), (30, "Zürich"), (19, "a@b")):
        decision = bench.decide(bench.policy(subject={}), replace(bench.request(), subject=named((cn(text, tag),))))
        assert decision.grant.subject_der == encode_name(((cn(text, 12),),))
        assert not decision.grant.modified


def test_override_replaces_all_of_its_type_and_is_not_judged(bench: Any) -> None:
    policy = bench.policy(subject={"allow": ["CN"], "override": {"O": "Corp", "OU": "Lab"}})
    assert granted(bench.decide(policy, bench.request("CN=gate,O=Evil,O=Evil2"))) == "CN=gate,O=Corp,OU=Lab"
    assert granted(bench.decide(policy, bench.request("CN=gate"))) == "CN=gate,OU=Lab,O=Corp"


def test_override_that_cannot_be_encoded_is_refused(bench: Any) -> None:
    policy = bench.policy(subject={"mode": "off", "override": {"C": "Switzerland"}})
    assert bench.decide(policy).grant is None


TEMPLATE = "CN=dev-{serialNumber}.{owner},O=Corp"


@pytest.mark.parametrize(
    ("template", "subject", "expected"),
    [
        pytest.param("CN=dev-{serialNumber},O=Corp", "CN=x,serialNumber=77,title=y", "CN=dev-77,O=Corp", id="asked-attribute"),
        pytest.param("CN={dns}", "CN=x", "CN=a.corp.example", id="dns"),
        pytest.param("CN={requester}/{owner}", "CN=x", "CN=one_time:1/alice", id="requester-and-owner"),
        pytest.param("CN={CN}", "CN=x\\,O=Evil", "CN=x\\,O\\=Evil", id="a-value-adds-no-attribute"),
        pytest.param("CN={CN}", "CN={owner}", "CN={owner}", id="a-value-is-no-template"),
    ],
)
def test_template(bench: Any, template: str, subject: str, expected: str) -> None:
    policy = bench.policy(subject={"template": template})
    requester = replace(bench.requester, owner="alice")
    assert granted(bench.decide(policy, bench.request(subject, ("dns", "a.corp.example")), requester)) == expected


@pytest.mark.parametrize(
    ("template", "subject"),
    [
        pytest.param("CN={serialNumber}", "CN=x", id="value-missing"),
        pytest.param("CN={CN}", "CN=x,CN=y", id="value-ambiguous"),
        pytest.param("CN={owner}", "CN=x", id="no-owner"),
        pytest.param("CN={dns}", "CN=x", id="no-dns"),
        pytest.param("CN={nonsense}", "CN=x", id="placeholder-means-nothing"),
        pytest.param("no name", "CN=x", id="no-name"),
        pytest.param("", "CN=x", id="empty-template"),
    ],
)
def test_template_that_cannot_be_filled_is_refused(bench: Any, template: str, subject: str) -> None:
    assert bench.decide(bench.policy(subject={"template": template}), bench.request(subject)).grant is None


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize("template", ["CN=W {serialNumber},O=Ex", "CN={serialNumber},O=Ex"], ids=["behind-a-space", "alone"])
def test_a_missing_value_is_told_as_such(bench: Any, template: str, mode: str) -> None:
    decision = bench.decide(bench.policy(subject={"template": template, "mode": mode}), bench.request("CN=x"))
    assert decision.grant is None
    assert decision.violations[0].message == "the subject needs exactly one serialNumber"
    assert not any("space" in v.message for v in decision.violations)


def test_patterns_judge_what_goes_into_the_template(bench: Any) -> None:
    policy = bench.policy(subject={"template": "CN=dev-{CN}", "allow": [], "patterns": {"CN": "[0-9]+"}, "unlisted": "drop"})
    assert bench.decide(policy, bench.request("CN=evil")).grant is None


def test_empty_subject(bench: Any) -> None:
    request = bench.request("", ("dns", "a.corp.example"))
    assert bench.decide(bench.policy(subject={}), request).grant is None
    assert granted(bench.decide(bench.policy(subject={"allow_empty": True}), request)) == ""


def test_text_to_the_client_is_bounded_and_visible(bench: Any) -> None:
    decision = bench.decide(bench.policy(subject={"patterns": {"CN": "x"}}), bench.request("CN=" + "é" * 64))
    assert len(decision.violations[0].message) < 200
    many = named(*((cn(f"n{number}"),) for number in range(60)))
    assert len(bench.decide(bench.policy(), replace(bench.request(), subject=many)).violations) < 20


RESERVED = frozenset({normalize_name(parse_name_text("CN=Corp Root,O=Corp"))})


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize("subject", ["CN=Corp Root,O=Corp", "CN=corp  ROOT,O=CORP"], ids=["same", "matching"])
def test_nobody_gets_the_name_of_a_ca(bench: Any, subject: str, mode: str) -> None:
    policy = bench.policy(subject={"mode": mode, "patterns": {}, "allow": ["CN", "O"]})
    decision = bench.decide(policy, bench.request(subject), reserved_names=RESERVED)
    assert (decision.grant, [v.rule for v in decision.violations]) == (None, ["reserved_subject"])
    assert bench.decide(policy, bench.request("CN=Corp Root 2,O=Corp"), reserved_names=RESERVED).grant is not None


def test_nobody_gets_the_name_of_a_ca_by_template(bench: Any) -> None:
    policy = bench.policy(subject={"template": "CN={CN},O=Corp"})
    assert bench.decide(policy, bench.request("CN=Corp Root"), reserved_names=RESERVED).grant is None


def test_an_empty_subject_is_nobody_s_name(bench: Any) -> None:
    request = bench.request("", ("dns", "a.corp.example"))
    policy = bench.policy(subject={"allow_empty": True})
    assert bench.decide(policy, request, reserved_names=frozenset({()})).grant is not None
