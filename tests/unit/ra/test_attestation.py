"""Statements about keys beside credentials: demanded, taken, refused, or not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, CredentialKind, OrderProof, Requester
from gateway.ra.attestation import AttestationTerms, add_attested
from tests.unit.ra.est import est_request

NOW = datetime(2027, 6, 1, tzinfo=UTC)
REQUESTER = Requester("basic:device-1", CredentialKind.BASIC)
REFUSAL = Rejection(Reason.BAD_ATTESTATION, "the attestation is about another key than the request's")


class Judge:
    """Says what it was told to say."""

    def __init__(self, verdict: Mapping[str, str] | Rejection | None) -> None:
        self.verdict = verdict

    def judge(self, request: CertificateRequest, now: datetime) -> Mapping[str, str] | None:
        assert now == NOW
        if isinstance(self.verdict, Rejection):
            raise self.verdict
        return self.verdict


def test_nobody_looks() -> None:
    assert add_attested(None, est_request(), REQUESTER, NOW) is REQUESTER


@pytest.mark.parametrize("required", [False, True])
def test_a_good_statement(required: bool) -> None:
    terms = AttestationTerms(Judge({"serial": "7"}), required)
    assert add_attested(terms, est_request(), REQUESTER, NOW).attested == {"serial": "7"}


@pytest.mark.parametrize("required", [False, True])
def test_a_bad_statement(required: bool) -> None:
    with pytest.raises(Rejection, match="another key"):
        add_attested(AttestationTerms(Judge(REFUSAL), required), est_request(), REQUESTER, NOW)


def test_no_statement() -> None:
    assert add_attested(AttestationTerms(Judge(None), False), est_request(), REQUESTER, NOW) is REQUESTER
    with pytest.raises(Rejection) as refused:
        add_attested(AttestationTerms(Judge(None), True), est_request(), REQUESTER, NOW)
    assert (refused.value.reason, refused.value.detail) == (
        Reason.BAD_ATTESTATION,
        "this profile wants an attestation of the key",
    )


@pytest.mark.parametrize(("attested_key", "good"), [(b"k" * 32, True), (None, False)])
def test_a_key_that_an_order_attests(attested_key: bytes | None, good: bool) -> None:
    """device-attest-01 has said it already."""
    request = est_request(order=OrderProof("acct", frozenset(), attested_key=attested_key))
    terms = AttestationTerms(Judge(None), True)
    if good:
        assert add_attested(terms, request, REQUESTER, NOW) is REQUESTER
        return
    with pytest.raises(Rejection):
        add_attested(terms, request, REQUESTER, NOW)
