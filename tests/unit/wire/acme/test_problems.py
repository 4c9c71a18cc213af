"""Every refusal has one type of the registry and one status."""

import json

import pytest

from gateway.acme import Problem
from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType
from gateway.wire.acme.problems import (
    BAD_NONCE_DETAIL,
    MAX_DETAIL,
    NAMESPACE,
    SPELLINGS,
    encode_problem,
    problem_of,
    stored_problem,
)

REGISTRY = frozenset(
    {
        "accountDoesNotExist",
        "alreadyReplaced",
        "alreadyRevoked",
        "badAttestationStatement",
        "badCSR",
        "badNonce",
        "badPublicKey",
        "badRevocationReason",
        "badSignatureAlgorithm",
        "caa",
        "compound",
        "connection",
        "dns",
        "externalAccountRequired",
        "incorrectResponse",
        "invalidContact",
        "invalidProfile",
        "malformed",
        "orderNotReady",
        "rateLimited",
        "rejectedIdentifier",
        "serverInternal",
        "tls",
        "unauthorized",
        "unsupportedContact",
        "unsupportedIdentifier",
        "userActionRequired",
    }
)
A = Identifier(IdentifierType.DNS, "a.example")
B = Identifier(IdentifierType.IP, "192.0.2.1")


def test_every_reason_has_exactly_one_spelling() -> None:
    assert set(SPELLINGS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_types_are_registered_and_nothing_looks_like_success(reason: Reason) -> None:
    assert SPELLINGS[reason].type in REGISTRY
    assert 400 <= SPELLINGS[reason].status <= 503


@pytest.mark.parametrize(
    "reason",
    [Reason.UPSTREAM_UNAVAILABLE, Reason.UPSTREAM_MISMATCH, Reason.STORE_UNAVAILABLE, Reason.OVERLOADED, Reason.INTERNAL],
)
def test_trouble_beyond_the_client_is_never_its_fault(reason: Reason) -> None:
    assert SPELLINGS[reason].status >= 500


@pytest.mark.parametrize(
    ("reason", "type_", "status"),
    [
        pytest.param(Reason.BAD_NONCE, "badNonce", 400, id="bad-nonce"),
        pytest.param(Reason.UNKNOWN_ACCOUNT, "accountDoesNotExist", 400, id="only-existing"),
        pytest.param(Reason.ACCOUNT_DEACTIVATED, "unauthorized", 401, id="deactivated"),
        pytest.param(Reason.ACCOUNT_KEY_IN_USE, "malformed", 409, id="key-in-use"),
        pytest.param(Reason.EXTERNAL_ACCOUNT_REQUIRED, "externalAccountRequired", 403, id="eab"),
        pytest.param(Reason.TERMS_NOT_AGREED, "userActionRequired", 403, id="terms"),
        pytest.param(Reason.ORDER_NOT_READY, "orderNotReady", 403, id="not-ready"),
        pytest.param(Reason.ALREADY_REPLACED, "alreadyReplaced", 409, id="already-replaced"),
        pytest.param(Reason.RATE_LIMITED, "rateLimited", 429, id="rate-limited"),
        pytest.param(Reason.POLICY_SAN, "rejectedIdentifier", 403, id="a name that is not allowed"),
        pytest.param(Reason.NAME_NOT_BOUND, "badCSR", 400, id="a CSR for other names"),
        pytest.param(Reason.UNKNOWN_TRANSACTION, "malformed", 404, id="another account's order"),
        pytest.param(Reason.UNKNOWN_CERTIFICATE, "malformed", 404, id="an unknown certificate"),
        pytest.param(Reason.TOO_LARGE, "malformed", 413, id="too-large"),
    ],
)
def test_types_that_clients_act_on(reason: Reason, type_: str, status: int) -> None:
    assert encode_problem(reason, "no")[0] == status
    assert json.loads(encode_problem(reason, "no")[1]) == {"type": NAMESPACE + type_, "detail": "no", "status": status}


def test_acme_sh_tries_again_after_this_sentence() -> None:
    assert BAD_NONCE_DETAIL == "JWS has an invalid anti-replay nonce"


def test_another_status_may_be_said() -> None:
    status, body = encode_problem(Reason.MALFORMED, "GET is not allowed", status=405, instance="urn:uuid:1")
    assert status == json.loads(body)["status"] == 405
    assert json.loads(body)["instance"] == "urn:uuid:1"


def test_algorithms_are_listed() -> None:
    body = json.loads(encode_problem(Reason.UNSUPPORTED_ALGORITHM, "no", algorithms=("ES256", "RS256"))[1])
    assert body["type"] == NAMESPACE + "badSignatureAlgorithm"
    assert body["algorithms"] == ["ES256", "RS256"]


def test_names_are_in_subproblems_alone() -> None:
    refused = ((A, Reason.POLICY_SAN, "not allowed"), (B, Reason.POLICY_SAN, "nor this"))
    status, body = encode_problem(Reason.POLICY_SAN, "2 names", identifiers=refused)
    assert status == 403
    assert json.loads(body) == {
        "type": NAMESPACE + "rejectedIdentifier",
        "detail": "2 names",
        "status": 403,
        "subproblems": [
            {
                "type": NAMESPACE + "rejectedIdentifier",
                "detail": "not allowed",
                "identifier": {"type": "dns", "value": "a.example"},
            },
            {"type": NAMESPACE + "rejectedIdentifier", "detail": "nor this", "identifier": {"type": "ip", "value": "192.0.2.1"}},
        ],
    }


def test_names_that_are_refused_for_different_reasons_are_compound() -> None:
    refused = ((A, Reason.VALIDATION_CAA, "caa"), (B, Reason.POLICY_SAN, "policy"))
    status, body = encode_problem(Reason.POLICY_SAN, "2 names", identifiers=refused)
    assert status == 403
    assert json.loads(body)["type"] == NAMESPACE + "compound"


def test_stored_problems() -> None:
    assert stored_problem(Problem(Reason.VALIDATION_DNS, "no record")) == {
        "type": NAMESPACE + "dns",
        "detail": "no record",
        "status": 400,
    }


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        pytest.param("a\r\nb\x1b[31m", "a  b [31m", id="control characters"),
        pytest.param("x" * 5000, "x" * MAX_DETAIL, id="long"),
        pytest.param("Zürich \ud800", "Zürich  ", id="a lone surrogate"),
    ],
)
def test_details_are_one_printable_line(detail: str, said: str) -> None:
    assert problem_of(Reason.MALFORMED, detail)["detail"] == said
    assert json.loads(encode_problem(Reason.MALFORMED, detail)[1])["detail"] == said
