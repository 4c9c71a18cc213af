"""What clients are told of a policy; a CSR that follows it passes the policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.assemble.csrattrs import find_demands
from gateway.config.policy import PolicyConfig
from gateway.model import CredentialKind, NameAttribute, Requester, SanKind
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import encode_name, make_attribute
from gateway.ra.policy import decide
from gateway.wire.est.csrattrs import Demands, KeyDemand, encode_csrattrs

CN, O_, C, SERIAL = "2.5.4.3", "2.5.4.10", "2.5.4.6", "2.5.4.5"
CLIENT_AUTH, SERVER_AUTH = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
DEFAULT = Demands(ekus=(CLIENT_AUTH,))
"""A policy says nothing but what its lists have by default: keys of several kinds, whose usages differ."""
EC_ONLY: dict[str, Any] = {"rsa": None, "eddsa": []}


def policy(**sections: Any) -> PolicyConfig:
    return PolicyConfig.model_validate(sections, strict=False)


ROWS = [
    pytest.param({}, DEFAULT, id="defaults"),
    pytest.param(
        {"key": EC_ONLY},
        Demands(key=KeyDemand("ec", curve="P-256"), key_usage=("digitalSignature",), ekus=(CLIENT_AUTH,)),
        id="EC",
    ),
    pytest.param(
        {"key": EC_ONLY | {"ec": ["P-384", "P-521"]}, "eku": {"mode": "off"}},
        Demands(key=KeyDemand("ec", curve="P-384"), key_usage=("digitalSignature",)),
        id="the first of several curves",
    ),
    pytest.param(
        {"key": {"ec": [], "eddsa": []}},
        Demands(key=KeyDemand("rsa", bits=2048), key_usage=("digitalSignature", "keyEncipherment"), ekus=(CLIENT_AUTH,)),
        id="RSA",
    ),
    pytest.param(
        {"key": {"ec": [], "eddsa": [], "rsa": {"min_bits": 3072, "max_bits": 4096}}, "key_usage": {"mode": "off"}},
        Demands(key=KeyDemand("rsa", bits=3072), ekus=(CLIENT_AUTH,)),
        id="RSA of 3072 bits and more",
    ),
    pytest.param(
        {"key": {"ec": [], "eddsa": [], "rsa": {"min_bits": 1024, "max_bits": 4096}}, "key_usage": {"mode": "off"}},
        Demands(key=KeyDemand("rsa", bits=2048), ekus=(CLIENT_AUTH,)),
        id="RSA: nobody is led to a weak key",
    ),
    pytest.param(
        {"key": {"ec": [], "rsa": None, "eddsa": ["ed25519"]}, "key_usage": {"default": ["digitalSignature"]}},
        Demands(key=KeyDemand("ed25519"), key_usage=("digitalSignature",), ekus=(CLIENT_AUTH,)),
        id="Ed25519",
    ),
    pytest.param({"key": {"mode": "off", **EC_ONLY}}, DEFAULT, id="keys that are not judged"),
    pytest.param(
        {"key_usage": {"allow": ["digitalSignature"], "default": ["digitalSignature"]}},
        Demands(key_usage=("digitalSignature",), ekus=(CLIENT_AUTH,)),
        id="a usage that every key can do",
    ),
    pytest.param(
        {"eku": {"allow": ["serverAuth", "clientAuth"], "default": ["serverAuth", "clientAuth"]}},
        Demands(ekus=(SERVER_AUTH, CLIENT_AUTH)),
        id="usages in order",
    ),
    pytest.param(
        {"eku": {"allow": ["clientAuth", "anyExtendedKeyUsage"], "default": ["clientAuth", "anyExtendedKeyUsage"]}},
        DEFAULT,
        id="a dangerous usage that is not granted is not asked for",
    ),
    pytest.param(
        {"subject": {"require": ["CN", "serialNumber"]}},
        Demands(subject=((CN, None), (SERIAL, None)), ekus=(CLIENT_AUTH,)),
        id="required attributes",
    ),
    pytest.param(
        {"subject": {"require": ["CN", "O"], "override": {"O": "Example", "C": "CH"}}},
        Demands(subject=((CN, None), (O_, "Example"), (C, "CH")), ekus=(CLIENT_AUTH,)),
        id="attributes that are set",
    ),
    pytest.param(
        {"subject": {"template": "CN={CN}+serialNumber={serialNumber},O=Example", "require": ["O"]}},
        Demands(subject=((CN, None), (SERIAL, None)), ekus=(CLIENT_AUTH,)),
        id="attributes that a template takes up",
    ),
    pytest.param(
        {"subject": {"template": "CN={dns},OU={requester},O=Example"}, "san": {"dns": {"patterns": ["[a-z0-9.-]+"]}}},
        Demands(san=True, ekus=(CLIENT_AUTH,)),
        id="a template that takes the DNS name",
    ),
    pytest.param({"subject": {"require": ["CN"], "mode": "off"}}, DEFAULT, id="a subject that is not judged"),
    pytest.param(
        {"san": {"require": True, "dns": {"patterns": ["[a-z0-9.-]+"]}}},
        Demands(san=True, ekus=(CLIENT_AUTH,)),
        id="a required name",
    ),
    pytest.param(
        {"san": {"require": True, "dns": {"patterns": ["[a-z0-9.-]+"]}, "dns_from_common_name": True}},
        DEFAULT,
        id="a required name that the CN gives",
    ),
    pytest.param({"san": {"require": True, "mode": "off", "dns": {"patterns": ["[a-z0-9.-]+"]}}}, DEFAULT, id="any names"),
]


@pytest.mark.parametrize(("sections", "expected"), ROWS)
def test_demands(sections: dict[str, Any], expected: Demands) -> None:
    assert find_demands(policy(**sections), linking=False) == expected
    assert encode_csrattrs(expected, "both") is not None


@pytest.mark.parametrize(("sections", "expected"), ROWS)
def test_a_csr_that_follows_them_passes(sections: dict[str, Any], expected: Demands) -> None:
    """With any key that the client may choose, and a name of its own where it is told nothing."""
    filled = [make_attribute(oid, value or "gate-1.example") for oid, value in expected.subject]
    common_name: list[NameAttribute] = [] if expected.subject else [make_attribute("CN", "gate-1.example")]
    for spec in _specs(expected.key):
        csr = build_csr(
            generate_private_key(spec),
            encode_name([[attribute] for attribute in (*filled, *common_name)]),
            (make_san(SanKind.DNS, "gate.example"),) if expected.san else (),
            key_usage=expected.key_usage,
            ekus=expected.ekus,
        )
        requester = Requester("one_time:1", CredentialKind.ONE_TIME)
        decision = decide(policy(**sections), parse_csr(csr), requester, datetime(2027, 1, 1, tzinfo=UTC), None)
        assert [verdict.message for verdict in (*decision.violations, *decision.warnings)] == [], spec


def _specs(key: KeyDemand | None) -> tuple[str, ...]:
    if key is None:
        return "ec-p256", "rsa-2048", "ed25519"
    return (f"ec-{key.curve.replace('-', '').lower()}" if key.curve else f"rsa-{key.bits}" if key.bits else key.algorithm,)


def test_what_the_endpoint_wants_beside_the_policy() -> None:
    assert find_demands(policy(eku={"mode": "off"}), linking=True, one_time_password=True) == Demands(
        linking=True, one_time_password=True
    )
