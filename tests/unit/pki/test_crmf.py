"""Certificate request messages: what is read in them, what proves possession, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc4211

from gateway.asn1 import crmf as asn1
from gateway.cmp import CertId, CertRequestMessage, Possession
from gateway.errors import MalformedMessage, Reason
from gateway.model import AskedValidity, Extension, RequestForm
from gateway.pki import der, extensions
from gateway.pki.crmf import parse_cert_req_msg, parse_cert_template
from gateway.pki.crmf_writer import encode_cert_request, encode_cert_template, old_cert_id, prove_by_signature
from gateway.pki.keys import PrivateKey, public_key_der, sign, signature_algorithm
from gateway.pki.names import format_name, parse_name_text

NOT_BEFORE, NOT_AFTER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC)
SUBJECT, ISSUER = parse_name_text("CN=device,O=Example").der, parse_name_text("CN=ca").der
SENDER = der.context(4, SUBJECT)
PBM = der.sequence(der.oid("1.2.840.113533.7.66.13"), der.sequence(der.octet_string(b"salt" * 4)))
EKU = Extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(["1.3.6.1.5.5.7.3.2"]))
OTHER = Extension("1.2.3.4", True, der.null())
KINDS = ["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "ed25519", "ml-dsa-44", "ml-dsa-65"]

KeyOf = Callable[[str], PrivateKey]


@pytest.fixture
def key(key_of: KeyOf) -> PrivateKey:
    return key_of("ec-p256")


def template(key: PrivateKey | None) -> bytes:
    spki = public_key_der(key) if key is not None else None
    return encode_cert_template(
        issuer=ISSUER, not_before=NOT_BEFORE, not_after=NOT_AFTER, subject=SUBJECT, public_key=spki, wanted=(EKU, OTHER)
    )


def message(cert_request: bytes, proof: bytes = b"", info: bytes = b"") -> bytes:
    return der.sequence(cert_request, proof, info)


def parsed(cert_request: bytes, proof: bytes = b"") -> CertRequestMessage:
    """Read it, after an independent library has read it and written it again."""
    data = message(cert_request, proof)
    value, rest = decoder.decode(data, asn1Spec=rfc4211.CertReqMsg())
    assert rest == b""
    assert encoder.encode(value) == data
    return parse_cert_req_msg(data)


def control(oid: str, value: bytes) -> bytes:
    return der.sequence(der.oid(oid), value)


def signing_key(key: PrivateKey, signed: bytes, signing_input: bytes = b"") -> bytes:
    """POPOSigningKey with `signing_input` as poposkInput (RFC 4211 §4.1)."""
    return der.context(1, signing_input, signature_algorithm(key, "sha256"), der.bit_string(sign(key, signed, "sha256")))


def with_input(key: PrivateKey, author: bytes, copy: bytes) -> bytes:
    """A proof over POPOSigningKeyInput in place of the CertRequest."""
    return signing_key(key, der.sequence(author, copy), der.context(0, author, copy))


def test_everything_that_a_template_says(key: PrivateKey) -> None:
    cert_request = encode_cert_request(0, template(key))
    asked = parsed(cert_request, prove_by_signature(cert_request, key))
    request = asked.request
    assert (request.form, request.digest) == (RequestForm.CRMF, hashlib.sha256(cert_request).digest())
    assert format_name(request.subject) == "CN=device,O=Example"
    assert request.public_key.der == public_key_der(key)
    assert (request.ekus, request.extensions, request.key_usage, request.is_ca) == (("1.3.6.1.5.5.7.3.2",), (OTHER,), None, False)
    assert asked.issuer == ISSUER
    assert asked.validity == AskedValidity(NOT_BEFORE, NOT_AFTER)
    assert (asked.possession, asked.possession_problem, asked.problem) == (Possession.SIGNATURE, "", None)
    assert not asked.wants_key


def test_a_template_with_nothing_but_a_key(key: PrivateKey) -> None:
    asked = parsed(encode_cert_request(7, encode_cert_template(public_key=public_key_der(key))))
    assert asked.cert_req_id == 7
    assert (asked.request.subject.rdns, asked.issuer, asked.validity, asked.request.ekus) == ((), None, None, None)
    assert asked.possession is Possession.NONE


def test_half_of_a_validity(key: PrivateKey) -> None:
    asked = parsed(encode_cert_request(0, encode_cert_template(not_after=NOT_AFTER, public_key=public_key_der(key))))
    assert asked.validity == AskedValidity(None, NOT_AFTER)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_proves_itself(kind: str, key_of: KeyOf) -> None:
    cert_request = encode_cert_request(0, template(key_of(kind)))
    assert parsed(cert_request, prove_by_signature(cert_request, key_of(kind))).possession_problem == ""


def test_a_proof_that_names_its_sender(key: PrivateKey) -> None:
    """The second of the three things that can be signed (RFC 4211 §4.1)."""
    spki = public_key_der(key)
    asked = parsed(encode_cert_request(0, encode_cert_template(public_key=spki)), with_input(key, der.context(0, SENDER), spki))
    assert (asked.possession_problem, asked.authenticated_sender, asked.public_key_mac) == ("", SENDER, None)


def test_a_proof_with_a_mac_over_the_key(key: PrivateKey) -> None:
    """The third: who sends it is known by a shared secret only (RFC 4211 §4.1, §4.4)."""
    spki, mac = public_key_der(key), der.sequence(PBM, der.bit_string(b"mac" * 7))
    asked = parsed(encode_cert_request(0, encode_cert_template(public_key=spki)), with_input(key, mac, spki))
    assert (asked.possession_problem, asked.authenticated_sender) == ("", None)
    assert asked.public_key_mac is not None
    assert (asked.public_key_mac.algorithm, asked.public_key_mac.value) == (PBM, b"mac" * 7)
    assert asked.public_key_mac.covered == spki


def test_proofs_that_prove_nothing(key: PrivateKey, key_of: KeyOf) -> None:
    spki, other = public_key_der(key), key_of("ec-p384")
    cert_request, author = encode_cert_request(0, template(key)), der.context(0, SENDER)
    rows = {
        "by another key": prove_by_signature(cert_request, key_of("ec-p521")),
        "over another request": prove_by_signature(encode_cert_request(1, template(key)), key),
        "over a copy of another key": with_input(key, author, public_key_der(other)),
        "by another key, over a copy of it": with_input(other, author, public_key_der(other)),
        "over the request and not over the input": signing_key(key, cert_request, der.context(0, author, spki)),
        "this message": der.context(2, der.context(0, b"\x00key", constructed=False)),
        "a challenge": der.context(2, der.context(1, b"\x01", constructed=False)),
        "a MAC of Diffie and Hellman": der.context(3, der.context(2, b"\x00mac", constructed=False)),
    }
    for name, proof in rows.items():
        asked = parsed(cert_request, proof)
        assert asked.possession_problem, name
        assert not asked.encrypted_certificate, name


def test_a_proof_by_an_unknown_algorithm(key: PrivateKey) -> None:
    cert_request = encode_cert_request(0, template(key))
    asked = parsed(cert_request, der.context(1, der.sequence(der.oid("1.2.3.4")), der.bit_string(b"signature")))
    assert asked.problem is Reason.UNSUPPORTED_ALGORITHM
    assert asked.possession_problem


@pytest.mark.parametrize("number", [2, 3])
def test_an_encrypted_certificate_is_asked_for(number: int, key: PrivateKey) -> None:
    proof = der.context(number, der.context(1, b"\x00", constructed=False))
    asked = parsed(encode_cert_request(0, template(key)), proof)
    assert (asked.possession, asked.encrypted_certificate, asked.possession_problem) == (Possession(number), True, "")


def test_a_key_that_the_server_is_to_draw(key: PrivateKey) -> None:
    algorithm = der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.2.840.10045.3.1.7"))
    anything = parsed(encode_cert_request(0, encode_cert_template(subject=SUBJECT)))
    of_a_kind = parsed(encode_cert_request(0, encode_cert_template(public_key=der.sequence(algorithm, der.bit_string(b"")))))
    by_control = parsed(encode_cert_request(0, encode_cert_template(subject=SUBJECT), [control(asn1.OID_ALG_ID, algorithm)]))
    assert (anything.wants_key, anything.wanted_key) == (True, None)
    assert (of_a_kind.wants_key, of_a_kind.wanted_key) == (True, algorithm)
    assert (by_control.wants_key, by_control.wanted_key) == (True, algorithm)
    assert anything.request.public_key.algorithm == "unknown"
    assert parsed(encode_cert_request(0, template(None)), signing_key(key, b"")).possession_problem, "of a key that is not there"


def test_controls(key: PrivateKey) -> None:
    controls = [
        control(asn1.OID_REG_TOKEN, der.utf8_string("token")),
        control(asn1.OID_AUTHENTICATOR, der.utf8_string("maiden name")),
        old_cert_id(ISSUER, 0x1234),
    ]
    asked = parsed(encode_cert_request(0, template(key), controls))
    assert (asked.reg_token, asked.authenticator, asked.old_cert_id) == ("token", "maiden name", CertId(ISSUER, 0x1234))
    assert asked.problem is None


PROBLEMS = [
    pytest.param(b"\x80\x01\x02", None, id="version 3, which is what there is"),
    pytest.param(b"\x80\x01\x01", Reason.BAD_TEMPLATE, id="another version"),
    pytest.param(b"\x81\x01\x05", Reason.BAD_TEMPLATE, id="a serial number"),
    pytest.param(b"\xa2\x04\x06\x02\x2a\x03", Reason.BAD_TEMPLATE, id="a signature algorithm"),
    pytest.param(b"\x87\x02\x00\x01", Reason.BAD_TEMPLATE, id="a unique identifier"),
]


@pytest.mark.parametrize(("fields", "problem"), PROBLEMS)
def test_what_is_the_cas_to_say(fields: bytes, problem: Reason | None) -> None:
    assert parsed(encode_cert_request(0, der.sequence(fields))).problem is problem


def test_controls_that_nobody_here_understands(key: PrivateKey) -> None:
    for name, controls, problem in (
        ("archive options", [control(asn1.OID_PKI_ARCHIVE_OPTIONS, der.context(2, b"\x01\xff"))], Reason.UNSUPPORTED_MESSAGE),
        ("an unknown one", [control("1.2.3.4", der.null())], Reason.UNSUPPORTED_MESSAGE),
        ("publication", [control(asn1.OID_PKI_PUBLICATION_INFO, der.sequence(der.integer(0)))], None),
    ):
        assert parsed(encode_cert_request(0, template(key), controls)).problem is problem, name


BROKEN_TEMPLATES = [
    pytest.param(b"\x30\x00", id="a universal tag"),
    pytest.param(b"\x8a\x01\x00", id="a field that does not exist"),
    pytest.param(b"\x81\x01\x01\x80\x01\x02", id="fields out of order"),
    pytest.param(b"\x80\x01\x02\x80\x01\x02", id="a field twice"),
    pytest.param(b"\xa0\x03\x02\x01\x02", id="an explicit version"),
    pytest.param(b"\x81\x21" + bytes(33), id="a serial number without end"),
    pytest.param(b"\x81\x00", id="an empty serial number"),
    pytest.param(der.context(3, der.octet_string(b"")), id="an issuer that is no name"),
    pytest.param(der.context(4, der.time(NOT_AFTER)), id="a validity without tags"),
    pytest.param(der.context(4, der.context(2, der.time(NOT_AFTER))), id="a third time"),
    pytest.param(der.context(4, der.context(0, der.octet_string(b"2026"))), id="a time that is none"),
    pytest.param(der.context(5, SUBJECT, SUBJECT), id="two subjects"),
    pytest.param(der.context(9, der.null()), id="extensions that are none"),
    pytest.param(der.context(9, *[extensions.encode_extension("1.2.3", False, b"")] * 2), id="an extension twice"),
]


@pytest.mark.parametrize("content", BROKEN_TEMPLATES)
def test_templates_that_are_broken(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_cert_template(content)


REQUEST = encode_cert_request(0, encode_cert_template(subject=SUBJECT))
BROKEN = [
    pytest.param(der.sequence(), id="nothing"),
    pytest.param(message(der.integer(0)), id="no request"),
    pytest.param(message(der.sequence(der.integer(0))), id="no template"),
    pytest.param(message(der.sequence(der.tlv(der.INTEGER, bytes(9)), der.sequence())), id="an endless certReqId"),
    pytest.param(message(REQUEST, der.context(4, b"")), id="a proof of no kind"),
    pytest.param(message(REQUEST, b"\x80\x01\x00"), id="raVerified with a value"),
    pytest.param(message(REQUEST, der.context(1)), id="an empty signature"),
    pytest.param(message(REQUEST, der.context(1, der.null(), der.bit_string(b"x"))), id="a signature without algorithm"),
    pytest.param(message(REQUEST, der.context(2)), id="an empty proof of an encryption key"),
    pytest.param(message(REQUEST, b"", der.null()), id="regInfo that is no list"),
    pytest.param(message(REQUEST, b"", der.sequence() + der.sequence()), id="regInfo twice"),
    pytest.param(message(encode_cert_request(0, der.sequence(), [der.sequence(der.oid("1.2.3"))])), id="a control without value"),
    pytest.param(message(encode_cert_request(0, der.sequence(), [control("1.2.3", der.null())] * 2)), id="a control twice"),
    pytest.param(
        message(encode_cert_request(0, der.sequence(), [control(asn1.OID_REG_TOKEN, der.octet_string(b"x"))])),
        id="a token that is no text",
    ),
    pytest.param(
        message(encode_cert_request(0, der.sequence(), [control(asn1.OID_REG_TOKEN, der.tlv(0x0C, b"\xff"))])),
        id="a token in another encoding",
    ),
    pytest.param(
        message(encode_cert_request(0, der.sequence(), [control(asn1.OID_REG_TOKEN, der.utf8_string("x" * 1025))])),
        id="a token without end",
    ),
    pytest.param(
        message(encode_cert_request(0, der.sequence(), [control(asn1.OID_OLD_CERT_ID, der.sequence(der.integer(1)))])),
        id="half of a CertId",
    ),
    pytest.param(message(encode_cert_request(0, der.sequence(der.context(6, der.null())))), id="a key that is none"),
]


@pytest.mark.parametrize("data", BROKEN)
def test_messages_that_are_broken(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_cert_req_msg(data)
