"""GetCert and GetCRL: strict queries, and nothing that tells an unreadable one from one that names nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.crl import build_crl
from gateway.pki.csr import build_csr
from gateway.pki.keys import serialize_private_key
from gateway.pki.names import parse_name, parse_name_text
from gateway.wire.scep import attributes, message_data
from gateway.wire.scep.client import CertRep, decode_cert_rep, encode_issuer_and_serial, encode_request
from gateway.wire.scep.message_data import NO_QUERY
from gateway.wire.scep.pkimessage import (
    CertificateQuery,
    PkiMessage,
    PkiStatus,
    RaIdentity,
    decode_pki_message,
    decode_request,
    encode_success,
    verify_signature,
)
from tests.unit.wire.scep.identities import BEGIN, CA, END, NOW, make_issuer

GET_CERT, GET_CRL = MessageType.GET_CERT, MessageType.GET_CRL
ISSUER = parse_certificate(CA).subject.der
SERIAL = 0x1234
GOOD = encode_issuer_and_serial(ISSUER, SERIAL)
CRL = build_crl(make_issuer(), 7, BEGIN, END, ())
OpenSSL = Callable[..., bytes]
kinds = pytest.mark.parametrize("kind", [GET_CERT, GET_CRL], ids=lambda kind: kind.name)


def asked(data: bytes, kind: MessageType, client: cms.Signer, ra: RaIdentity, **options: Any) -> PkiMessage:
    request = encode_request(data, client, ra.certificate.der, transaction="SSCEP transactionId", message_type=kind, **options)
    message = decode_pki_message(request.message)
    verify_signature(message, ra, NOW)
    return message


@kinds
def test_queries(kind: MessageType, client: cms.Signer, ra: RaIdentity) -> None:
    message = asked(GOOD, kind, client, ra)
    assert decode_request(message, ra) == CertificateQuery(ISSUER, SERIAL)
    assert message.operation == {GET_CERT: "GetCert", GET_CRL: "GetCRL"}[kind]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode_issuer_and_serial(ISSUER, (1 << 160) - 1), CertificateQuery(ISSUER, (1 << 160) - 1), id="20 octets"),
        pytest.param(encode_issuer_and_serial(ISSUER, 0), CertificateQuery(ISSUER, 0), id="serial zero"),
        pytest.param(b"\x30\x80" + ISSUER + der.integer(SERIAL) + b"\0\0", CertificateQuery(ISSUER, SERIAL), id="BER"),
        pytest.param(encode_issuer_and_serial(ISSUER, 1 << 160), NO_QUERY, id="longer than any serial"),
        pytest.param(encode_issuer_and_serial(ISSUER, 1 << 80000), NO_QUERY, id="a serial of 10 KB"),
        pytest.param(encode_issuer_and_serial(ISSUER, -1), NO_QUERY, id="negative"),
        pytest.param(der.sequence(ISSUER, der.integer(SERIAL), der.null()), NO_QUERY, id="a third member"),
        pytest.param(der.sequence(ISSUER), NO_QUERY, id="no serial"),
        pytest.param(der.sequence(der.integer(SERIAL), ISSUER), NO_QUERY, id="the wrong order"),
        pytest.param(der.sequence(ISSUER, der.octet_string(b"\x12\x34")), NO_QUERY, id="serial is no INTEGER"),
        pytest.param(der.sequence(ISSUER, b"\x02\x00"), NO_QUERY, id="empty INTEGER"),
        pytest.param(der.sequence(der.sequence(der.null()), der.integer(1)), NO_QUERY, id="issuer is no name"),
        pytest.param(der.sequence(ISSUER, ISSUER), NO_QUERY, id="IssuerAndSubject"),
        pytest.param(b"\x80\x04abcd", NO_QUERY, id="a key identifier"),
        pytest.param(der.sequence(), NO_QUERY, id="empty"),
        pytest.param(b"", NO_QUERY, id="nothing"),
        pytest.param(GOOD + b"\0", NO_QUERY, id="a byte behind"),
        pytest.param(GOOD[:-1], NO_QUERY, id="cut short"),
    ],
)
@kinds
def test_what_is_read(kind: MessageType, data: bytes, expected: CertificateQuery, client: cms.Signer, ra: RaIdentity) -> None:
    assert decode_request(asked(data, kind, client, ra), ra) == expected


@kinds
def test_a_captured_enrollment_asks_for_nothing(kind: MessageType, client: cms.Signer, ra: RaIdentity) -> None:
    """Whoever signs the envelope of another's PKCSReq anew learns nothing of the challenge in it."""
    csr = build_csr(client.key, parse_name_text("CN=device-1").der, challenge_password="secret")
    assert decode_request(asked(csr, kind, client, ra), ra) == NO_QUERY


def test_an_unreadable_query_costs_what_a_readable_one_does(
    client: cms.Signer, ra: RaIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[bytes] = []

    def counted(data: bytes) -> object:
        whole.append(data)
        return parse_name(data)

    monkeypatch.setattr(message_data, "parse_name", counted)
    for data in (GOOD, der.sequence(), b"", build_csr(client.key, ISSUER)):
        whole.clear()
        decode_request(asked(data, GET_CERT, client, ra), ra)
        assert len(whole) == 1, "one name is read, of the query or of the decoy"


@kinds
def test_what_is_said_in_clear_is_refused_before_any_decryption(kind: MessageType, client: cms.Signer, ra: RaIdentity) -> None:
    with pytest.raises(Rejection, match="des-cbc") as refused:
        decode_request(asked(GOOD, kind, client, ra, cipher="des-cbc"), ra)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
    other = encode_request(GOOD, client, ra.chain[0], transaction="T", message_type=kind)
    with pytest.raises(Rejection) as refused:
        decode_request(decode_pki_message(other.message), ra)
    assert refused.value.reason is Reason.DECRYPTION_FAILED


def test_a_query_without_an_envelope(client: cms.Signer, ra: RaIdentity) -> None:
    said = (attributes.code(asn1.OID_MESSAGE_TYPE, GET_CERT), cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T")))
    message = decode_pki_message(cms.sign_data(GOOD, client, "sha256", said))
    with pytest.raises(MalformedMessage):
        decode_request(message, ra)


# Answers


def answered(kind: MessageType, client: cms.Signer, ra: RaIdentity, *ders: bytes) -> tuple[bytes, CertRep]:
    request = encode_request(GOOD, client, ra.certificate.der, transaction="T", message_type=kind)
    message = decode_pki_message(request.message)
    certificates, crls = ((), ders) if kind is GET_CRL else (ders, ())
    reply = encode_success(message, ra, certificates, crls)
    return reply, decode_cert_rep(reply, request, client, ra.certificate.der)


def test_answers_as_our_client_reads_them(client: cms.Signer, ra: RaIdentity) -> None:
    assert answered(GET_CERT, client, ra, client.certificate)[1] == CertRep(PkiStatus.SUCCESS, (client.certificate,), ())
    assert answered(GET_CRL, client, ra, CRL)[1] == CertRep(PkiStatus.SUCCESS, (), (CRL,))


def test_crl_as_openssl_reads_it(client: cms.Signer, ra: RaIdentity, openssl: OpenSSL, testdata: Path, tmp_path: Path) -> None:
    (tmp_path / "client.pem").write_bytes(der_to_pem(client.certificate))
    (tmp_path / "client.key").write_bytes(serialize_private_key(client.key))
    reply, _ = answered(GET_CRL, client, ra, CRL)
    trust = ("-CAfile", str(testdata / "ca.pem"), "-purpose", "any", "-no_check_time")
    enveloped = openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=reply)
    own = ("-recip", str(tmp_path / "client.pem"), "-inkey", str(tmp_path / "client.key"))
    degenerate = openssl("cms", "-decrypt", "-binary", "-inform", "DER", *own, data=enveloped)
    printed = openssl("pkcs7", "-inform", "DER", "-print_certs", data=degenerate)
    assert b"BEGIN CERTIFICATE" not in printed
    [pem] = [p.split(b"-----END")[0] for p in printed.split(b"-----BEGIN X509 CRL-----")[1:]]
    assert der_to_pem(CRL, "X509 CRL").split(b"-----")[2] == pem
    listing = openssl("crl", "-inform", "DER", "-noout", "-text", data=CRL).decode()
    assert "No Revoked Certificates" in listing
    structure = openssl("asn1parse", "-inform", "DER", data=degenerate).decode()
    members = re.findall(r"d=3 .*(?:cons|prim): (.*?) *\n", structure)
    assert members == ["INTEGER           :01", "SET", "SEQUENCE", "cont [ 1 ]", "SET"], "no certificates (RFC 8894 §3.3.2.1)"
