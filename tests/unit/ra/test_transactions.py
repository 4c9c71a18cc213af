"""What makes two requests the same, and what answer a ledger row holds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Reason
from gateway.model import (
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    Grant,
    Issued,
    Name,
    Pending,
    ProfileName,
    Protocol,
    PublicKey,
    Rejected,
    Requester,
    RequestForm,
    RequestId,
    SignerCertificate,
    UpstreamCAName,
)
from gateway.ra.timing import Timing, rest_for
from gateway.ra.transactions import is_due, new_request_id, outcome_of, request_key
from gateway.store.interfaces import LedgerRow, LedgerState, WaitingFor

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY = PublicKey(b"spki", b"k" * 32, "ec", 256, "P-256")
NAME = Name((), b"0\x00")
SIGNER = SignerCertificate(b"c", b"s" * 32, b"0\x00", 1, NAME, (), KEY, NOW, NOW, self_signed=True)
GRANT = Grant(b"0\x00", (), (), (), NOW, NOW + timedelta(days=1))
REQUEST = EnrollmentRequest(
    profile=ProfileName("corp"),
    protocol=Protocol.SCEP,
    operation="PKCSReq",
    transaction_id="1",
    csr=CertificateRequest(RequestForm.PKCS10, b"der", b"d" * 32, NAME, KEY),
    challenge="secret",
    signer=SIGNER,
    source="192.0.2.7",
)
REQUESTER = Requester("one_time:1", CredentialKind.ONE_TIME)
ROW = LedgerRow(
    id=RequestId("0" * 26),
    request_key=b"r" * 32,
    profile=ProfileName("corp"),
    protocol="scep",
    operation="PKCSReq",
    transaction_id="1",
    requester="one_time:1",
    requester_key=b"k" * 32,
    owner=None,
    source="192.0.2.7",
    form=RequestForm.PKCS10,
    request=b"der",
    public_key=b"spki",
    public_key_sha256=b"k" * 32,
    subject="",
    sans=(),
    grant=GRANT,
    upstream_ca=UpstreamCAName("ca"),
    serial=None,
    generation=1,
    renews=None,
    state=LedgerState.OPEN,
    waiting_for=WaitingFor.NOTHING,
    sent=True,
    worker="w1",
    lease_until=NOW + timedelta(seconds=60),
    poll_at=None,
    upstream_reference=None,
    attempts=1,
    created_at=NOW,
    updated_at=NOW,
)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"profile": ProfileName("other")}, id="profile"),
        pytest.param({"protocol": Protocol.EST}, id="protocol"),
        pytest.param({"operation": "RenewalReq"}, id="message type"),
        pytest.param({"transaction_id": "2"}, id="transaction"),
        pytest.param({"csr": replace(REQUEST.csr, digest=b"e" * 32)}, id="request digest"),
        pytest.param({"signer": replace(SIGNER, self_signed=False)}, id="signer certificate"),
        pytest.param({"signer": replace(SIGNER, public_key=replace(KEY, sha256=b"l" * 32))}, id="signer key"),
    ],
)
def test_another_request(changes: dict[str, Any]) -> None:
    assert request_key(replace(REQUEST, **changes), REQUESTER) != request_key(REQUEST, REQUESTER)


def test_another_requester_makes_another_request() -> None:
    assert request_key(REQUEST, replace(REQUESTER, identity="one_time:2")) != request_key(REQUEST, REQUESTER)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"csr": replace(REQUEST.csr, der=b"signed anew")}, id="signature of the CSR"),
        pytest.param({"signer": replace(SIGNER, sha256=b"t" * 32)}, id="self-signed certificate made anew"),
        pytest.param({"source": "198.51.100.1"}, id="address"),
    ],
)
def test_same_request(changes: dict[str, Any]) -> None:
    assert request_key(replace(REQUEST, **changes), REQUESTER) == request_key(REQUEST, REQUESTER)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_parts_of_the_key_never_run_together(a: str, b: str, c: str, d: str) -> None:
    one = request_key(replace(REQUEST, operation=a, transaction_id=b), REQUESTER)
    other = request_key(replace(REQUEST, operation=c, transaction_id=d), REQUESTER)
    assert (one == other) == ((a, b) == (c, d))


def test_the_key_outlives_an_update() -> None:
    assert request_key(REQUEST, REQUESTER).hex() == "d473fc16295967d557cc57f003d3dd7017e8c4cd19e3e332d0e93c12cf4d4451"


def test_request_id_begins_with_its_time() -> None:
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    number = 0
    for character in new_request_id(NOW):
        number = number * 32 + digits.index(character)
    assert number >> 80 == NOW.timestamp() * 1000


def test_request_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_request_id(NOW + timedelta(milliseconds=n)) for n in range(200)]
    assert ids == sorted(ids)
    assert len({*ids, *(new_request_id(NOW) for _ in range(200))}) == 400
    assert {len(name) for name in ids} == {26}
    assert all(set(name) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for name in ids)


LATER = NOW + timedelta(seconds=20)
OUTCOMES: list[Any] = [
    pytest.param({}, None, id="open and worked on"),
    pytest.param({"worker": ""}, Pending(ROW.id, 60), id="open and resting"),
    pytest.param({"state": LedgerState.UNKNOWN}, None, id="unknown and worked on"),
    pytest.param({"state": LedgerState.UNKNOWN, "worker": ""}, Pending(ROW.id, 60), id="unknown and held"),
    pytest.param({"state": LedgerState.PENDING, "waiting_for": WaitingFor.APPROVAL}, Pending(ROW.id, 60), id="for approval"),
    pytest.param({"state": LedgerState.PENDING, "poll_at": LATER}, Pending(ROW.id, 21), id="for its CA"),
    pytest.param({"state": LedgerState.PENDING, "poll_at": NOW - timedelta(1)}, Pending(ROW.id, 1), id="for its CA, late"),
    pytest.param({"state": LedgerState.PENDING, "poll_at": NOW + timedelta(9)}, Pending(ROW.id, 60), id="for its CA, long"),
    pytest.param({"state": LedgerState.ISSUED, "certificate": b"c"}, None, id="issued and not to be delivered"),
    pytest.param({"state": LedgerState.HELD, "certificate": b"c"}, None, id="held"),
    pytest.param(
        {"state": LedgerState.DELIVERED, "certificate": b"c", "chain": (b"r",)}, Issued(b"c", (b"r",), ROW.id), id="delivered"
    ),
    pytest.param({"state": LedgerState.CONFIRMED, "certificate": b"c"}, Issued(b"c", (), ROW.id), id="confirmed"),
    pytest.param(
        {"state": LedgerState.REJECTED, "reason": Reason.UPSTREAM_MISMATCH, "detail": "no", "certificate": b"wrong"},
        Rejected(Reason.UPSTREAM_MISMATCH, "no"),
        id="rejected with a certificate that nobody may get",
    ),
    pytest.param(
        {"state": LedgerState.REVOKED, "certificate": b"c"},
        Rejected(Reason.DENIED, "the certificate of this request was revoked"),
        id="revoked",
    ),
]


@pytest.mark.parametrize(("changes", "outcome"), OUTCOMES)
def test_outcome_of_a_row(changes: dict[str, Any], outcome: object) -> None:
    assert outcome_of(replace(ROW, **changes), NOW, 60) == outcome


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        pytest.param({}, False, id="leased"),
        pytest.param({"lease_until": NOW}, True, id="lease ran out"),
        pytest.param({"lease_until": NOW + timedelta(days=1)}, True, id="leased under a clock that ran ahead"),
        pytest.param({"lease_until": NOW + timedelta(days=1), "worker": ""}, False, id="rests"),
        pytest.param({"state": LedgerState.UNKNOWN, "lease_until": NOW}, True, id="doubt to be asked about again"),
        pytest.param({"state": LedgerState.DELIVERED, "lease_until": NOW}, False, id="delivered"),
        pytest.param({"state": LedgerState.REJECTED, "lease_until": NOW}, False, id="rejected"),
        pytest.param(
            {"state": LedgerState.PENDING, "waiting_for": WaitingFor.APPROVAL, "poll_at": NOW}, False, id="for approval"
        ),
        pytest.param(
            {"state": LedgerState.PENDING, "waiting_for": WaitingFor.UPSTREAM, "poll_at": NOW, "worker": ""}, True, id="poll"
        ),
        pytest.param(
            {"state": LedgerState.PENDING, "waiting_for": WaitingFor.UPSTREAM, "poll_at": NOW}, False, id="polled just now"
        ),
        pytest.param(
            {"state": LedgerState.PENDING, "waiting_for": WaitingFor.UPSTREAM, "poll_at": NOW, "lease_until": NOW},
            True,
            id="polled by one that died",
        ),
        pytest.param(
            {"state": LedgerState.PENDING, "waiting_for": WaitingFor.UPSTREAM, "poll_at": LATER}, False, id="no poll yet"
        ),
    ],
)
def test_due(changes: dict[str, Any], due: bool) -> None:
    assert is_due(replace(ROW, **changes), NOW, Timing().lease) is due


@pytest.mark.parametrize(
    ("age", "pause"),
    [
        pytest.param(timedelta(0), timedelta(seconds=20), id="young"),
        pytest.param(timedelta(minutes=5), timedelta(minutes=5), id="grows with age"),
        pytest.param(timedelta(days=5), timedelta(minutes=15), id="bounded"),
    ],
)
def test_rest(age: timedelta, pause: timedelta) -> None:
    assert rest_for(Timing(), age) == pause
