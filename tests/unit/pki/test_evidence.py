"""Statements about keys in PKCS#10 and CRMF: taken apart whatever their form, and never asked to be certified."""

from __future__ import annotations

import pytest

from gateway.asn1 import attestation as oids
from gateway.model import CertificateRequest, Evidence, Extension
from gateway.pki import der
from gateway.pki.crmf import parse_cert_req_msg
from gateway.pki.crmf_writer import encode_cert_request, encode_cert_template
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.evidence import read_bundle
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, sign, signature_algorithm
from gateway.pki.names import parse_name_text

SUBJECT = parse_name_text("CN=device").der
CERTIFICATE = der.sequence(der.integer(1))
OTHER_CERTIFICATE = der.context(3, der.oid("1.2.3"), der.null())
TYPE = "1.2.3.4"


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return generate_private_key("ec-p256")


def statement(value: bytes = b"\x05\x00", *behind: bytes, type: str = TYPE) -> bytes:
    return der.sequence(der.oid(type), value, *behind)


def bundle(*statements: bytes, certificates: tuple[bytes, ...] | None = None) -> bytes:
    return der.sequence(der.sequence(*statements), b"" if certificates is None else der.sequence(*certificates))


def csr_with(key: PrivateKey, *attributes: bytes) -> bytes:
    info = der.sequence(der.integer(0), SUBJECT, public_key_der(key), der.context(0, *attributes))
    return der.sequence(info, signature_algorithm(key, "sha256"), der.bit_string(sign(key, info, "sha256")))


def attribute(*values: bytes) -> bytes:
    return der.sequence(der.oid(oids.OID_ATTESTATION), der.tlv(der.SET, *values))


def with_extensions(key: PrivateKey, *wanted: Extension) -> CertificateRequest:
    return parse_csr(build_csr(key, SUBJECT, other_extensions=wanted))


def test_a_bundle() -> None:
    found = read_bundle(
        bundle(statement(), statement(der.sequence(), type="1.2.5"), certificates=(CERTIFICATE, OTHER_CERTIFICATE))
    )
    assert found == (Evidence(TYPE, der.null(), (CERTIFICATE,)), Evidence("1.2.5", der.sequence(), (CERTIFICATE,)))


def test_a_bundle_without_certificates() -> None:
    assert read_bundle(bundle(statement())) == (Evidence(TYPE, der.null()),)


def test_a_statement_with_the_hint_of_older_drafts() -> None:
    assert read_bundle(bundle(statement(der.null(), der.utf8_string("tpmverifier.example.com")))) == (Evidence(TYPE, der.null()),)


BROKEN = [
    pytest.param(b"", id="nothing"),
    pytest.param(der.null(), id="no bundle"),
    pytest.param(der.sequence(), id="an empty bundle"),
    pytest.param(bundle(), id="no statement"),
    pytest.param(bundle(der.null()), id="a statement that is none"),
    pytest.param(bundle(der.sequence(der.oid(TYPE))), id="a statement without a value"),
    pytest.param(bundle(statement(), certificates=(der.null(),)), id="a certificate that is none"),
    pytest.param(bundle(*[statement()] * 17), id="statements without end"),
    pytest.param(bundle(statement(), certificates=(CERTIFICATE,) * 17), id="certificates without end"),
    pytest.param(bundle(statement()) * 2, id="two bundles"),
]


@pytest.mark.parametrize("data", BROKEN)
def test_what_cannot_be_read_is_no_reason_to_refuse_the_request(data: bytes, key: PrivateKey) -> None:
    """Whoever looks at statements refuses it; whoever does not never sees it."""
    assert read_bundle(data) == (Evidence(oids.OID_ATTESTATION, data),)
    assert parse_csr(csr_with(key, attribute(data))).evidence == (Evidence(oids.OID_ATTESTATION, data),)


def test_an_attribute_of_a_pkcs10(key: PrivateKey) -> None:
    request = parse_csr(csr_with(key, attribute(bundle(statement()))))
    assert request.evidence == (Evidence(TYPE, der.null()),)


def test_an_extension_of_a_crmf_template(key: PrivateKey) -> None:
    said = Extension(oids.OID_ATTESTATION, False, bundle(statement()))
    template = encode_cert_template(public_key=public_key_der(key), wanted=[said, Extension("1.2.3", False, b"x")])
    request = parse_cert_req_msg(der.sequence(encode_cert_request(0, template))).request
    assert request.evidence == (Evidence(TYPE, der.null()),)
    assert [e.oid for e in request.extensions] == ["1.2.3"], "it is not asked to be certified"


@pytest.mark.parametrize("oid", [oids.OID_YUBICO_ATTESTATION, oids.OID_YUBICO_ATTESTATION_OLD])
def test_the_certificates_of_a_yubikey(oid: str, key: PrivateKey) -> None:
    request = with_extensions(key, Extension(oid, False, CERTIFICATE), Extension(oids.OID_YUBICO_ATTESTATION_CA, False, b"0\x00"))
    assert request.evidence == (Evidence(oids.OID_YUBICO_ATTESTATION, CERTIFICATE, (b"0\x00",)),)
    assert request.extensions == ()


def test_most_requests_say_nothing(key: PrivateKey) -> None:
    assert parse_csr(build_csr(key, SUBJECT)).evidence == ()
    assert with_extensions(key, Extension(oids.OID_YUBICO_ATTESTATION_CA, False, CERTIFICATE)).evidence == ()
