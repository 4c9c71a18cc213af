from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.asn1.cmp import OID_CA_CERTS, FailInfo
from gateway.cmp import (
    AnswerBody,
    BodyType,
    CertAnswer,
    Confirmation,
    Enrollment,
    ErrorAnswer,
    General,
    GeneralInfo,
    Header,
    Message,
    Nested,
    NestedAnswer,
    PkiConf,
    PkiStatus,
    Poll,
    PollAnswer,
    Possession,
    RevocationDetails,
    Revocations,
    Revoked,
    Sender,
    StatusInfo,
)
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import RevocationReason
from gateway.pki import der
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import self_signed_ca
from gateway.pki.certificate_hash import certificate_hash
from gateway.pki.crmf_writer import (
    encode_cert_req_msg,
    encode_cert_request,
    encode_cert_template,
    old_cert_id,
    prove_by_signature,
)
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.password_mac import MacWindows, compute_mac, parse_mac
from gateway.wire.cmp import requests
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.client import (
    Identity,
    MacIdentity,
    Sent,
    decode_answer,
    encode_message,
    pinned,
)
from gateway.wire.cmp.messages import decode_message
from gateway.wire.cmp.protection import Envelope, SignatureProtector, directory_name, seal
from tests.unit.wire.cmp.parties import (
    CA,
    DEVICE,
    NOW,
    SECRET,
    SERVER,
    SIGNED,
    answer,
    leaf,
    mac_sender,
    oracle,
    protector,
)

KEY = generate_private_key("ec-p256")
NAME = parse_name_text("CN=device").der
SIGNATURE = SignatureProtector.create((DEVICE.certificate, CA), DEVICE.key)
MAC = MacIdentity(SECRET.reference, SECRET.secret)
ACCEPTED = StatusInfo(PkiStatus.ACCEPTED)
REJECTED = StatusInfo(PkiStatus.REJECTION, Reason.BAD_TEMPLATE, "no such name")
TRUSTED = pinned(SERVER.certificate)


def cert_req_msg() -> bytes:
    template = encode_cert_template(subject=NAME, public_key=public_key_der(KEY))
    request = encode_cert_request(0, template, [old_cert_id(NAME, 5)])
    return encode_cert_req_msg(request, prove_by_signature(request, KEY))


def sent(body: bytes, identity: Identity | None = SIGNATURE) -> Sent:
    return encode_message(body, identity, now=NOW)


def read(body: bytes, identity: Identity | None = SIGNATURE) -> Message:
    made = sent(body, identity)
    oracle(made.message)
    message = decode_message(made.message)
    assert message.body_problem is None
    assert message.type is made.type
    return message


IR = requests.enrollment(BodyType.IR, [cert_req_msg()])

# Requests


@pytest.mark.parametrize("type_", [BodyType.IR, BodyType.CR, BodyType.KUR])
def test_enrollments(type_: BodyType) -> None:
    message = read(requests.enrollment(type_, [cert_req_msg()]))
    assert message.type is type_
    assert isinstance(message.body, Enrollment)
    [asked] = message.body.requests
    assert (asked.possession, asked.possession_problem) == (Possession.SIGNATURE, "")
    assert asked.request.public_key.der == public_key_der(KEY)
    assert asked.old_cert_id is not None
    assert asked.old_cert_id.serial == 5


def test_p10cr() -> None:
    body = read(requests.p10cr(build_csr(KEY, NAME))).body
    assert isinstance(body, Enrollment)
    assert body.requests[0].request.subject.der == NAME


@pytest.mark.parametrize("accepted", [True, False])
def test_certificates_are_accepted_and_rejected(*, accepted: bool) -> None:
    body = read(requests.cert_conf(DEVICE.certificate, 0, accepted=accepted, text="" if accepted else "not mine")).body
    assert isinstance(body, Confirmation)
    [status] = body.statuses
    assert status.cert_hash == certificate_hash(DEVICE.certificate)
    assert (status.accepted, status.text) == (accepted, "" if accepted else "not mine")
    assert status.digest_algorithm is None


def test_hash_algorithm_stands_beside_where_the_signature_names_none() -> None:
    issued = self_signed_ca(generate_private_key("ml-dsa-44"), "CN=CA", NOW, NOW + timedelta(days=1))
    body = read(requests.cert_conf(issued)).body
    assert isinstance(body, Confirmation)
    assert body.statuses[0].cert_hash == certificate_hash(issued, body.statuses[0].digest_algorithm)


@pytest.mark.parametrize("reason", [*RevocationReason, None])
def test_revocations(reason: RevocationReason | None) -> None:
    body = read(requests.rr(NAME, 1 << 150, reason)).body
    assert body == Revocations((RevocationDetails(NAME, 1 << 150, reason=reason, revive=reason is None),))


def test_polls_questions_and_nested_messages() -> None:
    inner = sent(IR).message
    assert read(requests.poll_req(0)).body == Poll((0,))
    assert read(requests.genm([GeneralInfo(OID_CA_CERTS)])).body == General((GeneralInfo(OID_CA_CERTS),))
    assert read(requests.nested([inner])).body == Nested((inner,))
    read(requests.error("I cannot store it"))


def test_header_of_a_first_message() -> None:
    made = encode_message(
        IR, SIGNATURE, now=NOW, recipient=NAME, implicit_confirm=True, cert_profile="routers", pvno=3, extra_certs=(CA,)
    )
    message = decode_message(made.message)
    head = message.header
    assert (head.pvno, head.message_time, head.implicit_confirm, head.cert_profiles) == (3, NOW, True, ("routers",))
    assert (head.recipient, head.recipient_nonce) == (directory_name(NAME), None)
    assert (head.transaction_id, head.sender_nonce) == (made.transaction_id, made.sender_nonce)
    assert (len(made.transaction_id), len(made.sender_nonce)) == (16, 16)
    assert message.extra_certs == (DEVICE.certificate, CA)
    assert sent(IR).transaction_id != made.transaction_id


def test_signed_requests() -> None:
    protection = read(IR).protection
    assert protection is not None
    verify_signature(public_key_der(DEVICE.key), protection.algorithm, protection.value, protection.covered)


@pytest.mark.parametrize("pbmac1", [False, True], ids=["PBM", "PBMAC1"])
def test_requests_under_a_secret(*, pbmac1: bool) -> None:
    message = read(IR, replace(MAC, pbmac1=pbmac1, iterations=1500, sender=NAME))
    assert message.protection is not None
    parameters = parse_mac(message.protection.algorithm, MacWindows())
    assert (parameters.pbmac1, parameters.iterations) == (pbmac1, 1500)
    assert compute_mac(parameters, SECRET.secret, message.protection.covered) == message.protection.value
    assert (message.header.sender_kid, message.header.sender) == (SECRET.reference, directory_name(NAME))


# Answers


def header_of(request: Sent) -> Header:
    return decode_message(request.message).header


def answered(request: Sent, body: AnswerBody, sender: Sender | None = SIGNED) -> bytes:
    return encode_answer(header_of(request), answer(body, sender), protector(), NOW)


def algorithm_of(request: Sent) -> bytes:
    protection = decode_message(request.message).protection
    assert protection is not None
    return protection.algorithm


@pytest.mark.parametrize(
    ("request_body", "body"),
    [
        pytest.param(IR, CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate, ca_pubs=(CA,)), id="ip"),
        pytest.param(IR, CertAnswer(BodyType.IP, 0, StatusInfo(PkiStatus.WAITING)), id="ip that waits"),
        pytest.param(
            requests.enrollment(BodyType.KUR, [cert_req_msg()]),
            CertAnswer(BodyType.KUP, 0, ACCEPTED, encrypted_certificate=b"\xa0\x03\x02\x01\x02"),
            id="kup, encrypted",
        ),
        pytest.param(
            requests.p10cr(build_csr(KEY, NAME)),
            CertAnswer(BodyType.CP, -1, ACCEPTED, DEVICE.certificate, private_key=b"\xa0\x03\x02\x01\x02"),
            id="cp with a key",
        ),
        pytest.param(requests.rr(NAME, 1, None), Revoked((ACCEPTED,)), id="rp"),
        pytest.param(requests.genm([]), General((GeneralInfo("1.2.3", der.null()), GeneralInfo("1.2.4"))), id="genp"),
        pytest.param(requests.cert_conf(DEVICE.certificate), PkiConf(), id="pkiconf"),
        pytest.param(requests.poll_req(), PollAnswer(-1, 60, "soon"), id="pollRep"),
        pytest.param(requests.poll_req(), CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate), id="ip after polling"),
        pytest.param(IR, ErrorAnswer(StatusInfo(PkiStatus.WAITING)), id="error that waits"),
    ],
)
def test_answers_are_read(request_body: bytes, body: AnswerBody) -> None:
    for identity in (SIGNATURE, MAC):
        request = sent(request_body, identity)
        sender = SIGNED if identity is SIGNATURE else mac_sender(algorithm_of(request))
        received = decode_answer(answered(request, body, sender), request, secret=SECRET.secret, trusts=TRUSTED)
        assert (received.body, received.protected, received.fail_info) == (body, True, frozenset())
        assert (received.signer is None) is (identity is MAC)


def test_batches_are_read() -> None:
    request = sent(requests.nested([sent(IR).message]))
    inner = header_of(sent(IR)), answer(PkiConf())
    received = decode_answer(answered(request, NestedAnswer((inner, inner))), request, trusts=TRUSTED)
    assert isinstance(received.body, Nested)
    assert len(received.body.messages) == 2


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        pytest.param(IR, CertAnswer(BodyType.IP, 0, REJECTED), id="ip"),
        pytest.param(requests.rr(NAME, 1, None), Revoked((REJECTED,)), id="rp"),
        pytest.param(IR, ErrorAnswer(REJECTED), id="error"),
    ],
)
def test_refusals_say_why_protected_or_not(asked: bytes, body: AnswerBody) -> None:
    request = sent(asked)
    received = decode_answer(answered(request, body), request, trusts=TRUSTED)
    assert (received.fail_info, received.protected) == (frozenset({FailInfo.BAD_CERT_TEMPLATE}), True)
    unprotected = decode_answer(without_protection(request, body), request, trusts=TRUSTED)
    assert (unprotected.fail_info, unprotected.protected) == (received.fail_info, False)
    assert "no such name" in repr(unprotected.body)


def body_of(message: bytes) -> bytes:
    """Return the PKIBody element of a message."""
    whole = der.content(der.SEQUENCE, message)
    _, start, _, end = der.elements(whole)[1]
    return whole[start:end]


def without_protection(request: Sent, body: AnswerBody, *, nameless: bool = False) -> bytes:
    transaction, nonce = (None, None) if nameless else (request.transaction_id, request.sender_nonce)
    envelope = Envelope(2, directory_name(NAME), NOW, transaction, b"n" * 16, nonce)
    return seal(envelope, body_of(answered(request, body)), None)


def test_a_server_that_could_not_read_repeats_nothing() -> None:
    request = sent(IR)
    received = decode_answer(without_protection(request, ErrorAnswer(REJECTED), nameless=True), request)
    assert isinstance(received.body, ErrorAnswer)
    with pytest.raises(Rejection):
        decode_answer(without_protection(request, CertAnswer(BodyType.IP, 0, REJECTED), nameless=True), request)


def refuse(data: bytes, request: Sent, reason: Reason, **trust: object) -> None:
    with pytest.raises(Rejection) as caught:
        decode_answer(data, request, **trust)  # type: ignore[arg-type]
    assert caught.value.reason is reason


def test_answers_of_others_are_refused() -> None:
    request, other = sent(IR), sent(IR)
    ip = CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate)
    refuse(answered(other, ip), request, Reason.UNKNOWN_TRANSACTION, trusts=TRUSTED)
    replayed = replace(request, sender_nonce=b"other nonce 0000")
    refuse(answered(request, ip), replayed, Reason.BAD_RECIPIENT_NONCE, trusts=TRUSTED)
    polled = replace(replayed, earlier_nonces=(request.sender_nonce,))
    assert decode_answer(answered(request, ip), polled, trusts=TRUSTED).protected


def test_signers_that_are_not_trusted_are_refused() -> None:
    request = sent(IR)
    ip = answered(request, CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate))
    refuse(ip, request, Reason.SIGNER_NOT_TRUSTED)
    refuse(ip, request, Reason.SIGNER_NOT_TRUSTED, trusts=pinned(CA))
    refuse(ip, request, Reason.SIGNER_NOT_TRUSTED, secret=SECRET.secret)


def test_a_signer_may_be_known_beforehand() -> None:
    request = sent(IR)
    envelope = Envelope(2, directory_name(NAME), NOW, request.transaction_id, b"n" * 16, request.sender_nonce)
    signer = replace(protector().signature, certificates=b"")
    message = seal(envelope, body_of(answered(request, ErrorAnswer(REJECTED))), signer)
    refuse(message, request, Reason.BAD_MESSAGE_CHECK, trusts=TRUSTED)
    received = decode_answer(message, request, trusts=TRUSTED, known=(SERVER.certificate,))
    assert received.signer is not None
    assert received.signer.der == SERVER.certificate


def test_wrong_protection_is_refused() -> None:
    ip = CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate)
    request = sent(IR, MAC)
    message = answered(request, ip, mac_sender(algorithm_of(request)))
    refuse(message, request, Reason.BAD_MESSAGE_CHECK, secret=b"another")
    refuse(message, request, Reason.BAD_MESSAGE_CHECK, trusts=TRUSTED)
    refuse(without_protection(request, ip), request, Reason.BAD_MESSAGE_CHECK, secret=SECRET.secret)
    forged = leaf("CN=CMP signer", KEY)
    signed = encode_answer(header_of(request), answer(ip), protector(pair=replace(SERVER, key=forged.key)), NOW)
    refuse(signed, request, Reason.BAD_MESSAGE_CHECK, trusts=TRUSTED)


def test_weak_signatures_are_refused() -> None:
    request = sent(IR)
    message = answered(request, CertAnswer(BodyType.IP, 0, ACCEPTED, DEVICE.certificate))
    weak = replace(protector().signature, head=der.context(1, der.sequence(der.oid("1.2.840.10045.4.1"))))
    envelope = Envelope(2, directory_name(NAME), NOW, request.transaction_id, b"n" * 16, request.sender_nonce)
    refuse(seal(envelope, body_of(message), weak), request, Reason.UNSUPPORTED_ALGORITHM, trusts=TRUSTED)


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        pytest.param(IR, CertAnswer(BodyType.CP, 0, ACCEPTED, DEVICE.certificate), id="cp to ir"),
        pytest.param(IR, PkiConf(), id="pkiconf to ir"),
        pytest.param(requests.cert_conf(DEVICE.certificate), CertAnswer(BodyType.IP, 0, ACCEPTED), id="ip to certConf"),
        pytest.param(requests.rr(NAME, 1, None), PkiConf(), id="pkiconf to rr"),
        pytest.param(requests.poll_req(), PkiConf(), id="pkiconf to pollReq"),
    ],
)
def test_answers_of_another_type_are_refused(asked: bytes, body: AnswerBody) -> None:
    request = sent(asked)
    with pytest.raises(MalformedMessage):
        decode_answer(answered(request, body), request, trusts=TRUSTED)


def _ip(*members: bytes) -> bytes:
    return der.context(BodyType.IP, der.sequence(*members))


_STATUS = der.sequence(der.integer(0))
_RESPONSE = der.sequence(der.integer(0), _STATUS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(_ip(), id="ip without responses"),
        pytest.param(_ip(der.sequence()), id="ip with none"),
        pytest.param(_ip(der.sequence(_RESPONSE, _RESPONSE)), id="ip with two"),
        pytest.param(_ip(der.sequence(der.sequence(der.integer(0)))), id="ip without status"),
        pytest.param(_ip(der.sequence(der.sequence(der.integer(0), der.sequence(der.integer(9))))), id="ip of unknown status"),
        pytest.param(_ip(der.sequence(der.sequence(der.integer(1 << 80), _STATUS))), id="ip with a long number"),
        pytest.param(_ip(der.sequence(der.sequence(der.integer(0), _STATUS, der.sequence(der.null())))), id="ip with no pair"),
        pytest.param(
            _ip(der.sequence(der.sequence(der.integer(0), der.sequence(der.integer(2), der.tlv(3, b"\x08\0"))))), id="bits"
        ),
        pytest.param(der.context(BodyType.RP, der.sequence()), id="rp without statuses"),
        pytest.param(der.context(BodyType.RP, der.sequence(der.sequence())), id="rp with none"),
        pytest.param(der.context(BodyType.POLLREP, der.sequence()), id="pollRep with nothing"),
        pytest.param(
            der.context(BodyType.POLLREP, der.sequence(der.sequence(der.integer(0), der.integer(-1)))), id="pollRep in the past"
        ),
        pytest.param(der.context(BodyType.ERROR, der.sequence()), id="error without status"),
        pytest.param(der.context(BodyType.PKICONF, der.sequence()), id="pkiconf with something"),
        pytest.param(der.context(BodyType.NESTED, der.sequence(der.null())), id="nested with no message"),
        pytest.param(der.context(BodyType.IR, der.sequence()), id="a request"),
    ],
)
def test_broken_answers(body: bytes) -> None:
    request = sent(requests.nested([]))
    envelope = Envelope(2, directory_name(NAME), NOW, request.transaction_id, b"n" * 16, request.sender_nonce)
    with pytest.raises(MalformedMessage):
        decode_answer(seal(envelope, body, protector().signature), request, trusts=TRUSTED)


@pytest.mark.parametrize("data", [b"", b"0", b"0\0", b"<html>", der.null()])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_answer(data, sent(IR))


def test_received_is_of_the_answer() -> None:
    request = sent(IR)
    received = decode_answer(answered(request, ErrorAnswer(REJECTED)), request, trusts=TRUSTED)
    assert received.extra_certs == (SERVER.certificate, CA)
    assert received.header.sender_name == parse_name_text("CN=CMP signer")
