"""An order as a credential: exactly its names, only its key, and for ACME alone (RFC 8555 §7.4)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection
from gateway.model import (
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    Identifier,
    IdentifierType,
    OrderProof,
    ProfileName,
    Protocol,
    PublicKey,
    RequestForm,
    SanKind,
)
from gateway.pki.extensions import make_san
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.acme_order import RESERVATION_KIND, AcmeOrderCredential, identity_of
from gateway.ra.policy import decide

NOW = datetime(2027, 1, 2, tzinfo=UTC)
CORP = ProfileName("corp")
KEY = PublicKey(b"", b"k" * 32, "ec", 256, "P-256")
NAME = Identifier(IdentifierType.DNS, "www.example.com")
DEVICE = Identifier(IdentifierType.PERMANENT_IDENTIFIER, "serial-1")
PROOF = OrderProof("account-1", frozenset({NAME}), owner="mary", claims=MappingProxyType({"serial": "1"}))
CSR = CertificateRequest(RequestForm.PKCS10, b"", b"", parse_name_text(""), KEY)
REQUEST = EnrollmentRequest(CORP, Protocol.ACME, "finalize", "order-1", CSR, None, None, "192.0.2.1", order=PROOF)
POLICY = PolicyConfig.model_validate(
    {
        "subject": {"allow_empty": True},
        "san": {"dns": {"patterns": [".*"]}, "email": {"patterns": [".*"]}, "permanent_identifier": {"patterns": [".*"]}},
    },
    strict=False,
)


async def test_requester_is_the_account_and_its_external_accounts_owner() -> None:
    requester = await AcmeOrderCredential(CORP).authenticate(REQUEST, NOW)
    assert requester is not None
    assert (requester.identity, requester.kind, requester.owner) == (
        identity_of("account-1"),
        CredentialKind.ACME_ORDER,
        "mary",
    )
    assert requester.claims == {"serial": "1"}
    [reserved] = requester.reservations
    assert (reserved.kind, reserved.key) == (RESERVATION_KIND, "order-1")
    assert reserved.expires_at > NOW + timedelta(days=30)


@pytest.mark.parametrize("protocol", [protocol for protocol in Protocol if protocol is not Protocol.ACME])
async def test_no_other_protocol_has_orders(protocol: Protocol) -> None:
    assert await AcmeOrderCredential(CORP).authenticate(replace(REQUEST, protocol=protocol), NOW) is None


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(REQUEST, order=None), id="no order"),
        pytest.param(replace(REQUEST, profile=ProfileName("other")), id="another profile"),
    ],
)
async def test_nothing_is_recognised(request_: EnrollmentRequest) -> None:
    assert await AcmeOrderCredential(CORP).authenticate(request_, NOW) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"identifiers": frozenset()}, Reason.NOT_AUTHORIZED, id="no names"),
        pytest.param({"account": ""}, Reason.NOT_AUTHORIZED, id="no account"),
        pytest.param({"attested_key": b"x" * 32}, Reason.BAD_CSR, id="another key was attested"),
        pytest.param({"key_types": frozenset({"rsa", "P-384"})}, Reason.BAD_CSR, id="a kind of key that it may not have"),
        pytest.param({"attested_key": b"k" * 32}, None, id="the attested key"),
        pytest.param({"key_types": frozenset({"P-256"})}, None, id="its curve"),
        pytest.param({"key_types": frozenset({"ec"})}, None, id="its algorithm"),
    ],
)
async def test_key_and_proof(changes: dict[str, Any], reason: Reason | None) -> None:
    request = replace(REQUEST, order=replace(PROOF, **changes))
    if reason is None:
        assert await AcmeOrderCredential(CORP).authenticate(request, NOW) is not None
        return
    with pytest.raises(Rejection) as refused:
        await AcmeOrderCredential(CORP).authenticate(request, NOW)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("names", "identifiers", "allowed"),
    [
        pytest.param([(SanKind.DNS, "www.example.com")], {NAME}, True, id="the name"),
        pytest.param([(SanKind.DNS, "WWW.example.com")], {NAME}, True, id="the name in capitals"),
        pytest.param([], {NAME}, False, id="none"),
        pytest.param([(SanKind.DNS, "b.example.com")], {NAME}, False, id="another"),
        pytest.param([(SanKind.DNS, "www.example.com"), (SanKind.DNS, "b.example.com")], {NAME}, False, id="one more"),
        pytest.param([(SanKind.DNS, "www.example.com"), (SanKind.EMAIL, "a@example.com")], {NAME}, False, id="an address more"),
        pytest.param([(SanKind.DNS, "www.example.com")], {NAME, DEVICE}, True, id="the device is left out"),
        pytest.param(
            [(SanKind.DNS, "www.example.com"), (SanKind.PERMANENT_IDENTIFIER, "serial-1")], {NAME, DEVICE}, True, id="all"
        ),
        pytest.param(
            [(SanKind.DNS, "www.example.com"), (SanKind.PERMANENT_IDENTIFIER, "serial-2")],
            {NAME, DEVICE},
            False,
            id="another device",
        ),
    ],
)
async def test_corridor_certifies_the_orders_names_and_no_others(
    names: list[tuple[SanKind, str]], identifiers: set[Identifier], allowed: bool
) -> None:
    request = replace(REQUEST, order=replace(PROOF, identifiers=frozenset(identifiers)))
    requester = await AcmeOrderCredential(CORP).authenticate(request, NOW)
    assert requester is not None
    csr = replace(CSR, sans=tuple(make_san(kind, value) for kind, value in names))
    decision = decide(POLICY, csr, requester, NOW, None)
    assert (decision.grant is not None) is allowed
    if not allowed:
        assert Reason.NAME_NOT_BOUND in {violation.reason for violation in decision.violations}
