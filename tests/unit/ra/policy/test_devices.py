"""Names of devices and of their modules, and what a device attested, in what is certified."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from gateway.config.policy import ATTESTED_CLAIMS
from gateway.errors import Reason
from gateway.model import CredentialKind, Requester, SanKind, SubjectAltName
from gateway.pki.names import format_name, parse_name

DEVICES: dict[str, Any] = {
    "permanent_identifier": {"patterns": ["[A-Z0-9]{12}", r"[A-Z0-9]{12}/1\.2\.3"], "max": 1},
    "hardware_module": {"patterns": [r"[A-Z0-9-]+/2\.23\.133\.1\.2"]},
}


def ordered(**claims: str) -> Requester:
    return Requester("acme:1", CredentialKind.ACME_ORDER, claims=MappingProxyType(claims))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(("permanent_identifier", "C02XL0ATTEST"), id="permanent-identifier"),
        pytest.param(("permanent_identifier", "C02XL0ATTEST/1.2.3"), id="with-assigner"),
        pytest.param(("hardware_module", "MODULE-0001/2.23.133.1.2"), id="hardware-module"),
    ],
)
def test_listed_names_pass_unchanged(bench: Any, name: tuple[str, str]) -> None:
    request = bench.request("CN=gate-1", name)
    decision = bench.decide(bench.policy(san=DEVICES), request)
    assert decision.grant is not None
    assert decision.grant.sans == request.sans


def forged(kind: SanKind, value: str) -> SubjectAltName:
    """A name whose text no encoder would make."""
    return SubjectAltName(kind, value, b"\xa0\x00")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(("permanent_identifier", "c02xl0attest"), id="another-case"),
        pytest.param(("permanent_identifier", "C02XL0ATTEST/1.2.4"), id="another-assigner"),
        pytest.param(("hardware_module", "MODULE-0001/1.2.3"), id="another-type"),
        pytest.param(forged(SanKind.PERMANENT_IDENTIFIER, "C02XL0ATTEST/x"), id="assigner-is-no-oid"),
        pytest.param(forged(SanKind.PERMANENT_IDENTIFIER, "C02XL0ATTEST\n"), id="control-character"),
        pytest.param(forged(SanKind.PERMANENT_IDENTIFIER, ""), id="empty"),
        pytest.param(forged(SanKind.HARDWARE_MODULE, "MODULE-0001"), id="module-without-type"),
        pytest.param(forged(SanKind.HARDWARE_MODULE, "/2.23.133.1.2"), id="module-without-serial"),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "off"])
def test_other_names_are_refused(bench: Any, name: SubjectAltName | tuple[str, str], mode: str) -> None:
    decision = bench.decide(bench.policy(san=DEVICES | {"mode": mode}), bench.request("CN=gate-1", name))
    if mode == "enforce" or isinstance(name, SubjectAltName):
        assert {v.reason for v in decision.violations} == {Reason.POLICY_SAN}
    else:
        assert decision.grant is not None


@pytest.mark.parametrize("kind", ["permanent_identifier", "hardware_module"])
@pytest.mark.parametrize("unlisted", ["refuse", "drop"])
def test_kinds_that_are_not_listed(bench: Any, kind: str, unlisted: str) -> None:
    policy = bench.policy(san={"unlisted": unlisted})
    decision = bench.decide(policy, bench.request("CN=gate-1", (kind, "C02XL0ATTEST/1.2.3")))
    assert (decision.grant is None) == (unlisted == "refuse")
    if decision.grant is not None:
        assert decision.grant.sans == ()


def test_as_many_as_the_profile_says(bench: Any) -> None:
    names = [("permanent_identifier", "C02XL0ATTEST"), ("permanent_identifier", "C02XL0OTHER0")]
    [violation] = bench.decide(bench.policy(san=DEVICES), bench.request("CN=gate-1", *names)).violations
    assert violation.field == "policy.san.permanent_identifier.max"


# Templates


def test_a_template_takes_up_what_was_attested(bench: Any) -> None:
    policy = bench.policy(subject={"template": "CN={attested.serial},OU={attested.os_version},O=Corp"})
    decision = bench.decide(policy, bench.request("CN=whatever"), ordered(serial="C02XL0ATTEST", os_version="26.1", udid="x"))
    assert decision.grant is not None
    assert format_name(parse_name(decision.grant.subject_der)) == "CN=C02XL0ATTEST,OU=26.1,O=Corp"


@pytest.mark.parametrize(
    ("requester", "why"),
    [
        pytest.param(ordered(), "exactly one attested.serial", id="not-attested"),
        pytest.param(ordered(udid="x"), "exactly one attested.serial", id="something-else-attested"),
        pytest.param(
            Requester("jws:1", CredentialKind.INTUNE_JWS, claims=MappingProxyType({"serial": "C02XL0ATTEST"})),
            "exactly one attested.serial",
            id="another-credential-says-so",
        ),
        pytest.param(ordered(serial="a\u202eb"), "invisible", id="cannot-be-seen"),
    ],
)
def test_what_was_not_attested_is_not_certified(bench: Any, requester: Requester, why: str) -> None:
    policy = bench.policy(subject={"template": "CN={attested.serial}"})
    decision = bench.decide(policy, bench.request("CN=C02XL0ATTEST,serialNumber=C02XL0ATTEST"), requester)
    assert decision.grant is None
    assert any(why in violation.message for violation in decision.violations)


def test_an_attested_value_adds_no_attribute(bench: Any) -> None:
    policy = bench.policy(subject={"template": "CN={attested.serial}"})
    decision = bench.decide(policy, bench.request("CN=x"), ordered(serial="a,O=Other+{owner}"))
    assert decision.grant is not None
    assert [[(a.oid, a.value) for a in rdn] for rdn in parse_name(decision.grant.subject_der).rdns] == [
        [("2.5.4.3", "a,O=Other+{owner}")]
    ]


def test_every_claim_has_a_placeholder(bench: Any) -> None:
    for name in ATTESTED_CLAIMS:
        policy = bench.policy(subject={"template": f"CN={{attested.{name}}}"})
        assert bench.decide(policy, bench.request("CN=x"), ordered(**{name: "value"})).grant is not None
