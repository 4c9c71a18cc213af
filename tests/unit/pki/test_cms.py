from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.asn1 import cms as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, parse_certificate, self_signed_ca
from gateway.pki.keys import generate_private_key, public_key_der, serialize_private_key, sign, signature_algorithm

SPECS = ("rsa-2048", "ec-p256", "ec-p384", "ed25519", "ml-dsa-44")


def make_signer(spec: str) -> cms.Signer:
    key = generate_private_key(spec)
    return cms.Signer.create(
        self_signed_ca(key, "CN=signer", datetime(2026, 1, 1, tzinfo=UTC), datetime(2046, 1, 1, tzinfo=UTC)), key
    )


@pytest.fixture(scope="module")
def rsa() -> cms.Signer:
    return make_signer("rsa-2048")


def openssl(*arguments: str, data: bytes) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_signed_verifies(spec: str) -> None:
    signer = make_signer(spec)
    signed = cms.parse_signed_data(cms.sign_data(b"content", signer, "sha512", ()))
    assert (signed.content, signed.content_type, signed.certificates) == (b"content", asn1.OID_DATA, (signer.certificate,))
    assert cms.verify_signer(signed, signed.signers[0], public_key_der(signer.key)) in {"sha512", "none"}


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_openssl_accepts_it(spec: str, digest: str, tmp_path: Path) -> None:
    signer = make_signer(spec)
    (tmp_path / "signer.pem").write_bytes(der_to_pem(signer.certificate))
    trust = ("-CAfile", str(tmp_path / "signer.pem"), "-purpose", "any", "-no_check_time")
    message = cms.sign_data(b"content", signer, digest, ())
    assert openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=message) == b"content"


def test_openssl_accepts_md5(rsa: cms.Signer, tmp_path: Path) -> None:
    (tmp_path / "signer.pem").write_bytes(der_to_pem(rsa.certificate))
    trust = ("-CAfile", str(tmp_path / "signer.pem"), "-purpose", "any", "-no_check_time")
    message = cms.sign_data(b"content", rsa, "md5", ())
    assert openssl("cms", "-verify", "-binary", "-inform", "DER", *trust, data=message) == b"content"


def test_md5_of_openssl_is_refused_unless_the_caller_accepts_it(rsa: cms.Signer, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(der_to_pem(rsa.certificate))
    (tmp_path / "key.pem").write_bytes(serialize_private_key(rsa.key))
    identity = ("-md", "md5", "-signer", str(tmp_path / "cert.pem"), "-inkey", str(tmp_path / "key.pem"))
    message = openssl("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", *identity, data=b"content")
    signed = cms.parse_signed_data(message)
    assert cms.verify_signer(signed, signed.signers[0], public_key_der(rsa.key), accept_md5=True) == "md5"
    with pytest.raises(Rejection) as refused:
        cms.verify_signer(signed, signed.signers[0], public_key_der(rsa.key))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_md5_of_the_content_does_not_hide_behind_a_signature_with_sha256(rsa: cms.Signer) -> None:
    signed = cms.parse_signed_data(cms.sign_data(b"content", rsa, "md5", ()))
    algorithm = signature_algorithm(rsa.key, "sha256")
    signature = sign(rsa.key, der.tlv(der.SET, signed.signers[0].signed_attributes), "sha256")
    signer = replace(signed.signers[0], signature_algorithm=algorithm, signature=signature)
    assert cms.verify_signer(signed, signer, public_key_der(rsa.key), accept_md5=True) == "sha256"
    with pytest.raises(Rejection) as refused:
        cms.verify_signer(signed, signer, public_key_der(rsa.key))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="DER"),
        pytest.param(("-stream",), id="BER, streamed"),
        pytest.param(("-keyid",), id="subjectKeyIdentifier"),
        pytest.param(("-keyopt", "rsa_padding_mode:pss"), id="PSS"),
    ],
)
def test_what_openssl_signs_verifies(flags: tuple[str, ...], rsa: cms.Signer, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(der_to_pem(rsa.certificate))
    (tmp_path / "key.pem").write_bytes(serialize_private_key(rsa.key))
    identity = ("-signer", str(tmp_path / "cert.pem"), "-inkey", str(tmp_path / "key.pem"))
    message = openssl("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", *identity, *flags, data=b"content" * 1000)
    signed = cms.parse_signed_data(message)
    assert signed.content == b"content" * 1000
    assert cms.verify_signer(signed, signed.signers[0], public_key_der(rsa.key)) == "sha256"


def test_signature_without_signed_attributes_is_refused(rsa: cms.Signer, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(der_to_pem(rsa.certificate))
    (tmp_path / "key.pem").write_bytes(serialize_private_key(rsa.key))
    identity = ("-signer", str(tmp_path / "cert.pem"), "-inkey", str(tmp_path / "key.pem"))
    message = openssl("cms", "-sign", "-binary", "-nodetach", "-noattr", "-outform", "DER", *identity, data=b"content")
    signed = cms.parse_signed_data(message)
    with pytest.raises(Rejection) as refused:
        cms.verify_signer(signed, signed.signers[0], public_key_der(rsa.key))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_certs_only_keeps_order_and_has_no_content(rsa: cms.Signer) -> None:
    other = make_signer("ec-p256").certificate
    for certificates in ((rsa.certificate, other), (other, rsa.certificate)):
        message = cms.certs_only(certificates)
        signed = cms.parse_signed_data(message)
        assert (signed.certificates, signed.content, signed.signers, signed.crls) == (certificates, None, (), ())
        assert openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", data=message).count(b"subject") == 2


def test_certs_only_with_crl() -> None:
    crl = der.sequence(der.integer(1))
    assert cms.parse_signed_data(cms.certs_only((), (crl, crl))).crls == (crl, crl)


def test_absent_and_empty_content_differ(rsa: cms.Signer) -> None:
    assert cms.parse_signed_data(cms.sign_data(b"", rsa, "sha256", ())).content == b""
    assert cms.parse_signed_data(cms.certs_only(())).content is None


def test_issuer_and_serial_names_the_certificate(rsa: cms.Signer) -> None:
    certificate = parse_certificate(rsa.certificate)
    identifier = cms.parse_certificate_id(rsa.issuer_and_serial)
    assert identifier == cms.CertificateId(certificate.issuer_der, certificate.serial)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30\x02\x30\x00", b"\x02\x01\x01", b"\x30\x80\x00\x00"])
def test_issuer_and_serial_of_no_certificate(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        cms.issuer_and_serial(data)


def test_too_many_certificates_are_refused(rsa: cms.Signer) -> None:
    with pytest.raises(MalformedMessage, match="certificates or CRLs"):
        cms.parse_signed_data(cms.certs_only([der.sequence()] * (cms.MAX_CERTIFICATES + 1)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m + b"\0", id="trailing byte"),
        pytest.param(lambda m: m[:-1], id="cut short"),
        pytest.param(
            lambda m: m.replace(der.oid(asn1.OID_SIGNED_DATA), der.oid(asn1.OID_ENVELOPED_DATA)), id="says envelopedData"
        ),
        pytest.param(
            lambda m: m.replace(der.oid(asn1.OID_SIGNED_DATA), der.oid("1.2.840.113549.1.7.9")), id="unknown content type"
        ),
        pytest.param(lambda m: b"\x31" + m[1:], id="SET"),
    ],
)
def test_broken_signed_data(change: Callable[[bytes], bytes], rsa: cms.Signer) -> None:
    with pytest.raises(MalformedMessage):
        cms.parse_signed_data(change(cms.sign_data(b"content", rsa, "sha256", ())))


def test_content_info_in_whatever_form_its_lengths_are(rsa: cms.Signer) -> None:
    message = cms.sign_data(b"content", rsa, "sha256", ())
    head, rest = der.oid(asn1.OID_SIGNED_DATA), message[23:]
    long = b"\x30\x83" + len(rest).to_bytes(3) + rest
    explicit = b"\xa0\x84" + len(long).to_bytes(4) + long
    assert message.startswith(b"\x30\x82")
    assert cms.parse_signed_data(der.sequence(head, explicit)) == cms.parse_signed_data(message)


@pytest.mark.parametrize("position", [3, 18, 22], ids=["whole", "explicit", "sequence"])
def test_content_info_whose_lengths_differ(position: int, rsa: cms.Signer) -> None:
    message = bytearray(cms.sign_data(b"content", rsa, "sha256", ()))
    message[position] ^= 1
    with pytest.raises(MalformedMessage):
        cms.parse_signed_data(bytes(message))


def test_certificates_are_told_by_issuer_and_serial_number(rsa: cms.Signer) -> None:
    named = cms.parse_certificate_id(rsa.issuer_and_serial)
    assert cms.is_named_by(rsa.certificate, named)
    assert not cms.is_named_by(rsa.certificate, replace(named, serial=named.serial + 1))
    assert not cms.is_named_by(rsa.certificate, replace(named, issuer_der=b"\x30\x00"))
    assert not cms.is_named_by(rsa.certificate, cms.CertificateId(key_id=b"key"))
    for tag in (der.OCTET_STRING, der.BOOLEAN):
        broken = rsa.certificate.replace(b"\xa0\x03\x02\x01\x02\x02", b"\xa0\x03\x02\x01\x02" + bytes((tag,)))
        with pytest.raises(MalformedMessage):
            cms.is_named_by(broken, named)
