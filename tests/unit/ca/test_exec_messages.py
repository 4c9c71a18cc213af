"""What a signing program reads and what it may answer."""

import json
from base64 import b64decode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ca.exec_messages import (
    CRL_REASON_NAMES,
    AnswerError,
    Found,
    describe_issue,
    describe_poll,
    describe_revocation,
    encode,
    parse_answer,
)
from gateway.ca.interfaces import NotSent, UnknownResult, UpstreamError, UpstreamIssued, UpstreamPending, UpstreamRejected
from gateway.model import Extension, RequestForm, RevocationReason, SanKind
from gateway.pki.certificate import der_to_pem
from gateway.pki.extensions import make_san
from gateway.pki.names import parse_name_text
from tests.unit.ca.conftest import NOW, make_request, make_root

ALL = frozenset({"issued", "pending", "none", "revoked"})
ROOT = make_root()
PEM = der_to_pem(ROOT.der).decode()


def answer(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_issue_carries_the_whole_grant() -> None:
    san = make_san(SanKind.DNS, "a.example.org")
    subject = parse_name_text("CN=Gerät\\, 7+serialNumber=9,O=Example")
    request = make_request(subject_der=subject.der, sans=(san,), extensions=(Extension("1.2.3", True, b"\x05\x00"),))
    message = json.loads(encode(describe_issue("issue", request, NOW)))
    grant = message["grant"]
    assert (message["version"], message["operation"], message["deadline"]) == (1, "issue", "2026-05-01T12:00:00Z")
    assert message["public_key"].startswith("-----BEGIN PUBLIC KEY-----\n")
    assert message["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert [{(a["type"], a["value"]) for a in rdn} for rdn in grant["rdns"]] == [
        {("O", "Example")},
        {("CN", "Gerät, 7"), ("serialNumber", "9")},
    ]
    assert b64decode(grant["subject_der"]) == subject.der
    assert [(s["type"], s["value"], b64decode(s["der"])) for s in grant["sans"]] == [("dns", "a.example.org", san.der)]
    assert b64decode(grant["sans_der"]) == b"\x30" + bytes([len(san.der)]) + san.der
    assert (grant["not_before"], grant["not_after"]) == ("2026-05-01T11:00:00Z", "2026-05-31T12:00:00Z")
    assert grant["extensions"] == [{"oid": "1.2.3", "critical": True, "value": "BQA="}]


def test_a_template_is_no_csr() -> None:
    request = make_request()
    asked = json.loads(encode(describe_issue("issue", request, NOW)))
    assert (asked["form"], asked["crmf"]) == ("pkcs10", None)
    asked = json.loads(encode(describe_issue("find", replace(request, form=RequestForm.CRMF, request=b"\x30\x00"), NOW)))
    assert (asked["form"], asked["csr"], b64decode(asked["crmf"])) == ("crmf", None, b"\x30\x00")
    assert asked["public_key"].startswith("-----BEGIN PUBLIC KEY-----\n")


def test_message_is_one_line_of_ascii() -> None:
    data = encode(describe_poll(make_request(subject_der=parse_name_text("CN=é\\0a").der), "réf", NOW))
    assert data.isascii()
    assert data.count(b"\n") == 1


def test_no_names_no_san_extension() -> None:
    assert describe_issue("find", make_request(), NOW)["grant"]["sans_der"] is None


def test_revocation() -> None:
    message = describe_revocation(ROOT.der, 0xABC, RevocationReason.KEY_COMPROMISE, datetime(2026, 1, 2, tzinfo=UTC), NOW)
    assert (message["serial"], message["reason"], message["reason_code"], message["revoked_at"]) == (
        "abc",
        "keyCompromise",
        1,
        "2026-01-02T00:00:00Z",
    )
    assert set(CRL_REASON_NAMES) == set(RevocationReason)


def test_answers() -> None:
    issued = parse_answer(answer(status="issued", certificate=PEM, chain=PEM + PEM, reference="7", extra=1), ALL)
    assert issued == UpstreamIssued(ROOT.der, (ROOT.der, ROOT.der), "7")
    assert parse_answer(answer(status="issued", certificate=PEM, chain=[PEM, PEM]), ALL) == UpstreamIssued(
        ROOT.der, (ROOT.der,) * 2
    )
    assert parse_answer(answer(status="issued", certificate=PEM), ALL) == UpstreamIssued(ROOT.der, ())
    assert parse_answer(answer(status="pending", reference="r", retry_after=60), ALL) == UpstreamPending("r", 60)
    assert parse_answer(answer(status="none"), ALL) is Found.NONE
    assert parse_answer(b'\n {"status": "revoked"} \n', ALL) is Found.REVOKED


def test_refusals() -> None:
    with pytest.raises(UpstreamRejected, match=r"^no such template$"):
        parse_answer(answer(status="rejected", message="no such template\n"), ALL)
    with pytest.raises(NotSent) as not_sent:
        parse_answer(answer(status="not_sent", message="HSM is away", retry_after=90), ALL)
    assert not_sent.value.retry_after == 90
    with pytest.raises(UnknownResult, match="does not know"):
        parse_answer(answer(status="unknown"), ALL)


def test_message_of_a_program_becomes_one_bounded_printable_line() -> None:
    with pytest.raises(UpstreamRejected) as raised:
        parse_answer(answer(status="rejected", message="a\x1b[31m\r\nb\u202e" + "x" * 10_000), ALL)
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) == 500


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"issued", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff{}", id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(answer(status="issued", certificate=PEM) * 2, id="two objects"),
        pytest.param(answer(), id="no status"),
        pytest.param(answer(status=1), id="status is a number"),
        pytest.param(answer(status=["issued"]), id="status is a list"),
        pytest.param(answer(status="granted"), id="unknown status"),
        pytest.param(answer(status="issued"), id="no certificate"),
        pytest.param(answer(status="issued", certificate=None), id="null certificate"),
        pytest.param(answer(status="issued", certificate=""), id="empty certificate"),
        pytest.param(answer(status="issued", certificate="é"), id="certificate not ASCII"),
        pytest.param(answer(status="issued", certificate=PEM + PEM), id="two certificates"),
        pytest.param(answer(status="issued", certificate=[]), id="empty list"),
        pytest.param(answer(status="issued", certificate=PEM, chain=7), id="chain is a number"),
        pytest.param(answer(status="issued", certificate=PEM, chain=[PEM] * 9), id="endless chain"),
        pytest.param(answer(status="issued", certificate=PEM, reference=7), id="reference is a number"),
        pytest.param(answer(status="issued", certificate=PEM, reference="x" * 1025), id="long reference"),
        pytest.param(answer(status="pending", retry_after=5), id="pending without reference"),
        pytest.param(answer(status="pending", reference="r"), id="pending without time"),
        pytest.param(answer(status="pending", reference="r", retry_after=0), id="pending at once"),
        pytest.param(answer(status="pending", reference="r", retry_after=True), id="time is a boolean"),
        pytest.param(answer(status="pending", reference="r", retry_after=1.5), id="time is a fraction"),
        pytest.param(answer(status="pending", reference="r", retry_after=10**9), id="pending for decades"),
        pytest.param(answer(status="not_sent", retry_after=-1), id="negative time"),
    ],
)
def test_what_is_no_answer(output: bytes) -> None:
    with pytest.raises(AnswerError):
        parse_answer(output, ALL)


@pytest.mark.parametrize(
    ("status", "expected"), [("none", "issued"), ("revoked", "issued"), ("issued", "revoked"), ("pending", "revoked")]
)
def test_answer_to_another_question(status: str, expected: str) -> None:
    with pytest.raises(AnswerError):
        parse_answer(answer(status=status, certificate=PEM, reference="r", retry_after=1), frozenset({expected}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["issued", "pending", "not_sent", PEM]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "certificate", "chain", "reference", "retry_after", "message"]), inner)
    ),
)


@given(JSON)
def test_only_its_own_errors_escape(value: object) -> None:
    with suppress(AnswerError, UpstreamError):
        parse_answer(json.dumps(value).encode(), ALL)


@given(st.binary(max_size=200))
def test_bytes_never_escape(data: bytes) -> None:
    with pytest.raises((AnswerError, UpstreamError)):
        parse_answer(data, ALL)
