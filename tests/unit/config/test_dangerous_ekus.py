"""Usages with power over others: the list itself, and that no policy certifies one that `dangerous_ekus` does not name."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.config.policy import PolicyConfig
from gateway.config.policy_checks import DANGEROUS_EKUS
from gateway.errors import Reason
from gateway.model import CertificateRequest, CredentialKind, Decision, PublicKey, Requester, RequestForm
from gateway.pki.names import parse_name_text
from gateway.ra.policy import decide

DANGEROUS = {
    "anyExtendedKeyUsage": "2.5.29.37.0",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
    "cmcCA": "1.3.6.1.5.5.7.3.27",
    "cmcRA": "1.3.6.1.5.5.7.3.28",
    "cmcArchive": "1.3.6.1.5.5.7.3.29",
    "cmKGA": "1.3.6.1.5.5.7.3.32",
    "certificateRequestAgent": "1.3.6.1.4.1.311.20.2.1",
    "smartcardLogon": "1.3.6.1.4.1.311.20.2.2",
}
KEY = PublicKey(b"rsa", b"r" * 32, "rsa", 2048)


def judge(oid: str, **eku: Any) -> Decision:
    policy = PolicyConfig.model_validate({"subject": {"patterns": {"CN": "gate-1"}}, "eku": eku}, strict=False)
    request = CertificateRequest(RequestForm.PKCS10, b"der", b"d" * 32, parse_name_text("CN=gate-1"), KEY, ekus=(oid,))
    requester = Requester("one_time:1", CredentialKind.ONE_TIME)
    return decide(policy, request, requester, datetime(2027, 3, 4, tzinfo=UTC), None)


def test_the_list() -> None:
    assert set(DANGEROUS_EKUS) == set(DANGEROUS.values())


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize(("name", "oid"), DANGEROUS.items(), ids=DANGEROUS)
def test_allow_alone_certifies_none(name: str, oid: str, mode: str) -> None:
    for written in (name, oid):
        decision = judge(oid, mode=mode, allow=["clientAuth", written])
        assert decision.grant is None
        assert [(verdict.rule, verdict.reason) for verdict in decision.violations] == [("dangerous_ekus", Reason.POLICY_EKU)]


@pytest.mark.parametrize(("name", "oid"), DANGEROUS.items(), ids=DANGEROUS)
def test_named_twice_it_is_certified(name: str, oid: str) -> None:
    for written in (name, oid):
        decision = judge(oid, allow=["clientAuth", written], dangerous_ekus=[written])
        assert decision.grant is not None
        assert decision.grant.ekus == (oid,)


@pytest.mark.parametrize("oid", DANGEROUS.values(), ids=DANGEROUS)
def test_another_dangerous_name_does_not_help(oid: str) -> None:
    others = tuple(other for other in DANGEROUS.values() if other != oid)
    assert judge(oid, allow=["clientAuth", oid, *others], dangerous_ekus=others).grant is None
