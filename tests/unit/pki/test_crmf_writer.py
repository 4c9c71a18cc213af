"""CRMF as it is written: read back by the gateway's own reader, and by pyasn1's modules as the oracle."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc4211

from gateway.cmp import CertId, Possession
from gateway.errors import MalformedMessage
from gateway.model import AskedValidity, Extension, Grant, RequestForm, SanKind
from gateway.pki import crmf_writer as crmf
from gateway.pki.crmf import parse_cert_req_msg
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text

BEGIN, END = datetime(2026, 5, 1, 12, tzinfo=UTC), datetime(2055, 1, 1, tzinfo=UTC)
SUBJECT = parse_name_text("CN=Gerät 7,O=Example").der
ISSUER = parse_name_text("CN=Issuing").der
SAN = make_san(SanKind.DNS, "device-7.example.org")
EXTENSION = Extension("1.3.6.1.4.1.99999.7", False, b"\x0c\x05hello")
GRANT = Grant(SUBJECT, (SAN,), ("digitalSignature",), (eku_oid("clientAuth"),), BEGIN, END, (EXTENSION,))


@cache
def key_of(spec: str = "ec-p256") -> PrivateKey:
    return generate_private_key(spec)


def oracle(data: bytes) -> Any:
    """Have pyasn1 read a CertReqMsg, and write it again: the same bytes, so they are DER."""
    value, rest = decoder.decode(data, asn1Spec=rfc4211.CertReqMsg())
    assert rest == b""
    assert encoder.encode(value) == data
    return value


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "rsa-2048", "ed25519"])
def test_a_request_that_its_key_signed(spec: str) -> None:
    key = key_of(spec)
    spki = public_key_der(key)
    request = crmf.encode_cert_request(0, crmf.template_of_grant(GRANT, spki))
    message = crmf.encode_cert_req_msg(request, crmf.prove_by_signature(request, key))
    found = parse_cert_req_msg(message)
    assert (found.possession, found.possession_problem, found.problem) == (Possession.SIGNATURE, "", None)
    asked = found.request
    assert (asked.form, asked.der, asked.digest) == (RequestForm.CRMF, message, hashlib.sha256(request).digest())
    assert (asked.subject.der, asked.public_key.der, asked.sans) == (SUBJECT, spki, (SAN,))
    assert (asked.key_usage, asked.ekus, asked.extensions) == (frozenset({"digitalSignature"}), GRANT.ekus, (EXTENSION,))
    assert found.validity == AskedValidity(None, END)
    template = oracle(message)["certReq"]["certTemplate"]
    assert encoder.encode(template["subject"][0]) == SUBJECT
    assert [str(one["extnID"]) for one in template["extensions"]] == [
        "2.5.29.15", "2.5.29.37", "2.5.29.17", "1.3.6.1.4.1.99999.7",
    ]  # fmt: skip


def test_a_grant_of_a_name_alone() -> None:
    bare = Grant(SUBJECT, (), (), (), BEGIN, END)
    template = crmf.template_of_grant(bare, public_key_der(key_of()))
    found = parse_cert_req_msg(crmf.encode_cert_req_msg(crmf.encode_cert_request(0, template), crmf.RA_VERIFIED))
    assert (found.possession, found.request.extensions, found.request.key_usage) == (Possession.RA_VERIFIED, (), None)


def test_names_are_critical_where_nothing_else_is_named() -> None:
    def critical(subject: bytes) -> list[bool]:
        grant = Grant(subject, (SAN,), (), (), BEGIN, END)
        return [one.critical for one in crmf.granted_extensions(grant)]

    assert critical(SUBJECT) == [False]
    assert critical(parse_name_text("").der) == [True]


@pytest.mark.parametrize(
    ("proof", "possession"),
    [
        pytest.param(None, Possession.NONE, id="none"),
        pytest.param(crmf.RA_VERIFIED, Possession.RA_VERIFIED, id="raVerified"),
        pytest.param(crmf.KEY_ENCIPHERMENT, Possession.KEY_ENCIPHERMENT, id="encrCert"),
    ],
)
def test_other_proofs(proof: bytes | None, possession: Possession) -> None:
    request = crmf.encode_cert_request(-1, crmf.encode_cert_template(public_key=public_key_der(key_of())))
    message = crmf.encode_cert_req_msg(request, proof)
    found = parse_cert_req_msg(message)
    assert (found.possession, found.cert_req_id) == (possession, -1)
    assert found.encrypted_certificate == (possession is Possession.KEY_ENCIPHERMENT)
    oracle(message)
    assert crmf.split_cert_req_msg(message) == (request, proof)


def test_a_template_of_every_field() -> None:
    template = crmf.encode_cert_template(
        serial=0x80, issuer=ISSUER, not_before=BEGIN, not_after=END, subject=SUBJECT, public_key=public_key_der(key_of())
    )
    controls = (crmf.old_cert_id(ISSUER, 0x1234),)
    message = crmf.encode_cert_req_msg(crmf.encode_cert_request(0, template, controls), None)
    found = parse_cert_req_msg(message)
    assert (found.issuer, found.validity, found.old_cert_id) == (ISSUER, AskedValidity(BEGIN, END), CertId(ISSUER, 0x1234))
    assert int(oracle(message)["certReq"]["certTemplate"]["serialNumber"]) == 0x80


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30\x02\x05\x00", b"\x31\x00"], ids=["nothing", "empty", "null", "set"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        crmf.split_cert_req_msg(data)
