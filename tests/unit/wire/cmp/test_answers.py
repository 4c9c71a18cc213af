from dataclasses import replace
from datetime import timedelta

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc9810

from gateway.asn1.cmp import OID_CA_CERTS, OID_CONFIRM_WAIT_TIME, OID_IMPLICIT_CONFIRM, FailInfo
from gateway.cmp import (
    P10CR_ID,
    AnswerBody,
    BodyType,
    CertAnswer,
    CertId,
    ErrorAnswer,
    General,
    GeneralInfo,
    NestedAnswer,
    PkiConf,
    PkiStatus,
    PollAnswer,
    Revoked,
    StatusInfo,
)
from gateway.errors import Reason
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.wire.cmp.answers import MAX_TEXT, encode_answer, encode_fail_info
from gateway.wire.cmp.protection import directory_name
from tests.unit.wire.cmp import parties
from tests.unit.wire.cmp.parties import CA, DEVICE, NOW, SERVER, answer, header, oracle, protector

ACCEPTED = StatusInfo(PkiStatus.ACCEPTED)
REJECTED = StatusInfo(PkiStatus.REJECTION, Reason.BAD_TEMPLATE, "no such name")
ENVELOPED = der.sequence(der.integer(2), der.set_of(), der.sequence())
VALUE = der.sequence(der.bit_string(b"encrypted"))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        pytest.param(CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate, ca_pubs=(CA,)), "ip", id="ip with caPubs"),
        pytest.param(CertAnswer(BodyType.CP, P10CR_ID, ACCEPTED, DEVICE.certificate), "cp", id="cp to a p10cr"),
        pytest.param(CertAnswer(BodyType.KUP, 0, REJECTED), "kup", id="kup that rejects"),
        pytest.param(CertAnswer(BodyType.IP, 0, StatusInfo(PkiStatus.WAITING)), "ip", id="ip that waits"),
        pytest.param(Revoked((ACCEPTED,), (CertId(b"0\0", 77),)), "rp", id="rp"),
        pytest.param(Revoked((REJECTED,)), "rp", id="rp that rejects"),
        pytest.param(PkiConf(), "pkiconf", id="pkiconf"),
        pytest.param(PollAnswer(0, 30, "soon"), "pollRep", id="pollRep"),
        pytest.param(PollAnswer(P10CR_ID, 30), "pollRep", id="pollRep for a whole message"),
        pytest.param(ErrorAnswer(REJECTED), "error", id="error"),
        pytest.param(ErrorAnswer(StatusInfo(PkiStatus.WAITING)), "error", id="error that waits"),
        pytest.param(General((GeneralInfo(OID_CA_CERTS, der.sequence(CA)), GeneralInfo("1.2.3"))), "genp", id="genp"),
        pytest.param(General(()), "genp", id="genp with nothing"),
        pytest.param(NestedAnswer(((header(), answer(PkiConf())), (header(3), answer(PkiConf())))), "nested", id="nested"),
    ],
)
def test_bodies_are_what_another_library_reads_and_writes(body: AnswerBody, name: str) -> None:
    message = oracle(encode_answer(header(), answer(body), protector(), NOW))
    assert message["body"].getName() == name


def test_header_answers_the_request() -> None:
    granted = replace(answer(PkiConf()), implicit_confirm=True, confirm_wait=timedelta(minutes=10))
    head = oracle(encode_answer(header(), granted, protector(), NOW))["header"]
    signer = parse_certificate(SERVER.certificate)
    assert int(head["pvno"]) == 2
    assert encoder.encode(head["sender"]) == directory_name(signer.subject.der)
    assert encoder.encode(head["recipient"]) == directory_name(parties.CLIENT_NAME)
    assert str(head["messageTime"]) == "20260301120005Z"
    assert bytes(head["senderKID"]) == signer.subject_key_id
    assert bytes(head["transactionID"]) == parties.TRANSACTION
    assert bytes(head["senderNonce"]) == parties.ANSWER_NONCE
    assert bytes(head["recipNonce"]) == parties.NONCE
    infos = {str(info["infoType"]): bytes(info["infoValue"]) for info in head["generalInfo"]}
    assert infos == {OID_IMPLICIT_CONFIRM: der.null(), OID_CONFIRM_WAIT_TIME: der.tlv(0x18, b"20260301121005Z")}


@pytest.mark.parametrize(("asked", "said"), [(1, 2), (2, 2), (3, 3), (4, 3), (-1, 2)])
def test_version_is_the_clients_or_the_nearest(asked: int, said: int) -> None:
    assert int(oracle(encode_answer(header(asked), answer(PkiConf()), protector(), NOW))["header"]["pvno"]) == said


def test_transaction_of_a_request_without_one() -> None:
    nameless = replace(header(), transaction_id=None, sender_nonce=None)
    head = oracle(encode_answer(nameless, replace(answer(PkiConf()), transaction_id=b"t" * 16), protector(), NOW))["header"]
    assert bytes(head["transactionID"]) == b"t" * 16
    assert not head["recipNonce"].isValue
    assert not oracle(encode_answer(nameless, answer(PkiConf()), protector(), NOW))["header"]["transactionID"].isValue


def test_certificates_beside_the_answer_come_once_the_signers_first() -> None:
    beside = replace(answer(PkiConf()), extra_certs=(CA, DEVICE.certificate, DEVICE.certificate))
    message = oracle(encode_answer(header(), beside, protector(), NOW))
    assert list(map(encoder.encode, message["extraCerts"])) == [SERVER.certificate, CA, DEVICE.certificate]


@pytest.mark.parametrize("info", FailInfo)
def test_fail_info_is_one_bit_in_der(info: FailInfo) -> None:
    decoded, _ = decoder.decode(encode_fail_info(info), asn1Spec=rfc9810.PKIFailureInfo())
    assert encoder.encode(decoded) == encode_fail_info(info)
    assert [number for number, bit in enumerate(decoded) if bit] == [info]


def test_refusals_say_bit_and_text() -> None:
    message = oracle(encode_answer(header(), answer(ErrorAnswer(REJECTED)), protector(), NOW))
    status = message["body"]["error"]["pKIStatusInfo"]
    assert int(status["status"]) == PkiStatus.REJECTION
    assert list(map(str, status["statusString"])) == ["no such name"]
    assert [number for number, bit in enumerate(status["failInfo"]) if bit] == [FailInfo.BAD_CERT_TEMPLATE]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a\r\nb", "a  b", id="line breaks stay out"),
        pytest.param("\x1b[31m", " [31m", id="so do terminal commands"),
        pytest.param("Zürich", "Zürich", id="letters stay"),
        pytest.param("x" * 9999, "x" * MAX_TEXT, id="long"),
    ],
)
def test_text_is_one_line(text: str, said: str) -> None:
    refused = ErrorAnswer(StatusInfo(PkiStatus.REJECTION, Reason.DENIED, text))
    message = oracle(encode_answer(header(), answer(refused), protector(), NOW))
    assert list(map(str, message["body"]["error"]["pKIStatusInfo"]["statusString"])) == [said]


@pytest.mark.parametrize(
    ("element", "tag"),
    [
        pytest.param(ENVELOPED, 0xA0, id="EnvelopedData"),
        pytest.param(b"\xa0" + ENVELOPED[1:], 0xA0, id="EnvelopedData in its tag"),
        pytest.param(VALUE, 0x30, id="EncryptedValue"),
    ],
)
def test_encrypted_certificates_and_keys(element: bytes, tag: int) -> None:
    for body in (
        CertAnswer(BodyType.IP, 0, ACCEPTED, encrypted_certificate=element),
        CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate, private_key=element),
    ):
        assert bytes((tag,)) + element[1:] in encode_answer(header(), answer(body), protector(), NOW)
