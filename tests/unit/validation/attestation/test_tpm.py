"""TPM 2.0: every field of what is certified, of the key's public area and of the attestation key's certificate counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from gateway.asn1 import attestation as oids
from gateway.model import IdentifierType, SanKind
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from tests.attesting import (
    ATTRIBUTES,
    DAY,
    MAKER,
    MODULE_TYPE,
    NOW,
    Maker,
    Tpm,
    buffer,
    certify_info,
    directory_name,
    public_area,
)
from tests.unit.validation.attestation.conftest import KEY_AUTHORIZATION, TOKEN, Bench, key_hash

SERIAL = "TPM-SERIAL-0001"
MODULE = f"MODULE-0001/{MODULE_TYPE}"


@pytest.fixture(scope="module")
def tpm(bench: Bench) -> Tpm:
    return Tpm(bench.tpm)


@pytest.mark.parametrize("ak", ["rsa-2048", "ec-p256"])
@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
def test_keys_that_a_tpm_certifies(bench: Bench, kind: str, ak: str) -> None:
    tpm = Tpm(bench.tpm, key=generate_private_key(kind), ak=generate_private_key(ak))
    proved = bench.judge(SERIAL, tpm.attest(KEY_AUTHORIZATION))
    assert proved.attested_key == key_hash(tpm.key)
    assert proved.claims == {
        "format": "tpm",
        "issuer": "Chips Sub CA",
        **MAKER,
        "ak": key_hash(tpm.ak).hex(),
        "permanent_identifier": SERIAL,
    }


@pytest.mark.parametrize(("ak", "digest"), [("rsa-2048", "sha1"), ("ec-p384", "sha384")])
def test_other_algorithms_of_attestation_keys(bench: Bench, ak: str, digest: str) -> None:
    tpm = Tpm(bench.tpm, ak=generate_private_key(ak))
    assert bench.judge(SERIAL, tpm.attest(KEY_AUTHORIZATION, digest=digest)).attested_key == key_hash(tpm.key)


def test_a_hardware_module(bench: Bench, tpm: Tpm) -> None:
    proved = bench.judge(MODULE, tpm.attest(KEY_AUTHORIZATION), IdentifierType.HARDWARE_MODULE)
    assert proved.claims["hardware_module"] == MODULE
    assert "permanent_identifier" not in proved.claims


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(IdentifierType.PERMANENT_IDENTIFIER, MODULE, id="module-as-identifier"),
        pytest.param(IdentifierType.HARDWARE_MODULE, SERIAL, id="identifier-as-module"),
        pytest.param(IdentifierType.HARDWARE_MODULE, "MODULE-0001/1.2.3", id="module-of-another-type"),
        pytest.param(IdentifierType.PERMANENT_IDENTIFIER, f"{SERIAL}/1.2.3", id="assigner-that-is-not-attested"),
        pytest.param(IdentifierType.PERMANENT_IDENTIFIER, SERIAL.lower(), id="another-case"),
    ],
)
def test_other_identifiers_are_refused(bench: Bench, tpm: Tpm, kind: IdentifierType, value: str) -> None:
    assert "about another" in bench.refusal(value, tpm.attest(KEY_AUTHORIZATION), kind)


def test_an_assigner_belongs_to_the_identifier(bench: Bench) -> None:
    tpm = Tpm(bench.tpm, permanent=f"{SERIAL}/1.2.3")
    assert bench.judge(f"{SERIAL}/1.2.3", tpm.attest(KEY_AUTHORIZATION)).claims["permanent_identifier"] == f"{SERIAL}/1.2.3"
    assert "about another" in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION))


def test_a_certificate_without_identifiers_proves_none(bench: Bench) -> None:
    tpm = Tpm(bench.tpm, permanent=None, module=None)
    for kind in (IdentifierType.PERMANENT_IDENTIFIER, IdentifierType.HARDWARE_MODULE):
        assert f"no {kind}" in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION), kind)


# What the TPM signed: each field, signed by the attestation key as it is

SIGNED: dict[str, tuple[dict[str, bytes], str]] = {
    "magic-of-no-tpm": ({"magic": b"\xffTCH"}, "not made by a TPM"),
    "type-quote": ({"type": b"\x80\x18"}, "does not certify"),
    "type-creation": ({"type": b"\x80\x1a"}, "does not certify"),
    "extra-data-empty": ({"extra": buffer(b"")}, "another challenge or account"),
    "extra-data-of-zeros": ({"extra": buffer(bytes(32))}, "another challenge or account"),
    "extra-data-of-the-token": ({"extra": buffer(hashlib.sha256(TOKEN.encode()).digest())}, "another challenge or account"),
    "extra-data-not-hashed": ({"extra": buffer(KEY_AUTHORIZATION.encode()[:60])}, "another challenge or account"),
    "extra-data-with-more": (
        {"extra": buffer(hashlib.sha256(KEY_AUTHORIZATION.encode()).digest() + b"\0")},
        "another challenge or account",
    ),
    "extra-data-too-long": ({"extra": buffer(bytes(67))}, "too long"),
    "signer-too-long": ({"signer": buffer(bytes(67))}, "too long"),
    "name-of-another-key": ({"name": buffer(b"\x00\x0b" + bytes(32))}, "certified another key"),
    "name-empty": ({"name": buffer(b"")}, "certified another key"),
    "name-of-another-digest": ({"name": buffer(b"\x00\x0c" + bytes(48))}, "certified another key"),
    "clock-cut": ({"clock": bytes(16)}, "cut short|too long|another key|follow"),
    "bytes-behind": ({"rest": b"\0"}, "bytes follow"),
    "qualified-name-cut": ({"qualified": b"\x00\x22\x00"}, "cut short"),
}


@pytest.mark.parametrize("name", list(SIGNED))
def test_other_things_that_a_tpm_signs_are_refused(bench: Bench, tpm: Tpm, name: str) -> None:
    info, said = SIGNED[name]
    detail = bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, info=info))
    assert any(word in detail for word in said.split("|")), detail


# The key's public area, certified as it is

FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED = 0x02, 0x10, 0x20, 0x10000
AREAS: dict[str, tuple[dict[str, Any], str]] = {
    "not-fixed-to-the-tpm": ({"attributes": ATTRIBUTES & ~FIXED_TPM}, "can leave it"),
    "not-fixed-to-its-parent": ({"attributes": ATTRIBUTES & ~FIXED_PARENT}, "can leave it"),
    "imported": ({"attributes": ATTRIBUTES & ~ORIGIN}, "not made in the TPM"),
    "restricted": ({"attributes": ATTRIBUTES | RESTRICTED}, "restricted"),
    "type-keyed-hash": ({"type": b"\x00\x08"}, "neither RSA nor EC"),
    "type-rsa": ({"type": b"\x00\x01"}, "another size|cut short|too long|scheme|broken"),
    "name-by-sha-1": ({"name": b"\x00\x04"}, "digest that is not taken"),
    "name-by-nothing": ({"name": b"\x00\x10"}, "digest that is not taken"),
    "unknown-scheme": ({"scheme": b"\x00\x99"}, "scheme that is not known"),
    "unknown-curve": ({"curve": b"\x00\x10"}, "curve that is not taken"),
    "another-curve": ({"curve": b"\x00\x04"}, "not on its curve"),
    "point-off-the-curve": ({"x": buffer(bytes(31) + b"\x01")}, "not on its curve"),
    "point-of-zeros": ({"x": buffer(bytes(32)), "y": buffer(bytes(32))}, "not on its curve"),
    "policy-too-long": ({"policy": b"\xff\xff"}, "too long"),
    "bytes-behind": ({"rest": b"\0"}, "bytes follow"),
}


@pytest.mark.parametrize("name", list(AREAS))
def test_other_public_areas_are_refused(bench: Bench, tpm: Tpm, name: str) -> None:
    parts, said = AREAS[name]
    detail = bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, area=public_area(tpm.key, **parts)))
    assert any(word in detail for word in said.split("|")), detail


RSA_AREAS: dict[str, tuple[dict[str, Any], str]] = {
    "another-size": ({"bits": (3072).to_bytes(2)}, "another size"),
    "no-modulus": ({"modulus": buffer(b"")}, "another size"),
    "even-exponent": ({"exponent": (4).to_bytes(4)}, "broken"),
    "tiny-key": ({"bits": (16).to_bytes(2), "modulus": buffer(b"\xff\xf1")}, "another size"),
}


@pytest.mark.parametrize("name", list(RSA_AREAS))
def test_other_public_areas_of_rsa_are_refused(bench: Bench, name: str) -> None:
    tpm = Tpm(bench.tpm, key=generate_private_key("rsa-2048"))
    parts, said = RSA_AREAS[name]
    assert said in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, area=public_area(tpm.key, **parts)))


def test_storage_keys_and_schemes_with_details_are_read(bench: Bench, tpm: Tpm) -> None:
    details: tuple[dict[str, Any], ...] = (
        {"symmetric": b"\x00\x06\x00\x80\x00\x43"},
        {"scheme": b"\x00\x1a\x00\x0b\x00\x01"},
        {"kdf": b"\x00\x20\x00\x0b"},
    )
    for parts in details:
        area = public_area(tpm.key, **parts)
        assert bench.judge(SERIAL, tpm.attest(KEY_AUTHORIZATION, area=area)).attested_key == key_hash(tpm.key)


def test_the_area_of_another_key_is_refused(bench: Bench, tpm: Tpm) -> None:
    """A key in software beside the certification of one in the TPM."""
    software = public_area(generate_private_key("ec-p256"))
    assert "certified another key" in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, pubArea=software))


# The statement around them

STATEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "version-absent": ({"ver": None}, "not of a TPM 2.0"),
    "version-1.2": ({"ver": "1.2"}, "not of a TPM 2.0"),
    "version-is-a-number": ({"ver": 2}, "not of a TPM 2.0"),
    "alg-absent": ({"alg": None}, "alg is not supported"),
    "alg-unknown": ({"alg": -8}, "alg is not supported"),
    "alg-is-text": ({"alg": "RS256"}, "alg is not supported"),
    "alg-of-another-scheme": ({"alg": -7}, "of another kind"),
    "alg-of-another-digest": ({"alg": -65535}, "of another kind"),
    "sig-absent": ({"sig": None}, "has no sig"),
    "sig-empty": ({"sig": b""}, "has no sig"),
    "sig-is-text": ({"sig": "x"}, "has no sig"),
    "sig-cut-short": ({"sig": b"\x00\x14\x00\x0b\x01\x00"}, "cut short"),
    "sig-with-more": ({"sig": b"\x00\x14\x00\x0b\x00\x01\x00\x00"}, "bytes follow"),
    "sig-of-zeros": ({"sig": b"\x00\x14\x00\x0b" + buffer(bytes(256))}, "did not sign"),
    "sig-by-hmac": ({"sig": b"\x00\x05\x00\x0b" + bytes(32)}, "scheme that is not taken"),
    "sig-by-an-unknown-digest": ({"sig": b"\x00\x14\x00\x99" + buffer(bytes(256))}, "digest that is not taken"),
    "cert-info-absent": ({"certInfo": None}, "has no certInfo"),
    "cert-info-empty": ({"certInfo": b""}, "has no certInfo"),
    "cert-info-not-signed": ({"certInfo": certify_info(bytes(32), b"")}, "did not sign"),
    "pub-area-absent": ({"pubArea": None}, "has no pubArea"),
    "pub-area-cut-short": ({"pubArea": b"\x00\x23\x00\x0b"}, "cut short"),
    "x5c-absent": ({"x5c": None}, "has no x5c"),
}


@pytest.mark.parametrize("name", list(STATEMENTS))
def test_other_statements_are_refused(bench: Bench, tpm: Tpm, name: str) -> None:
    parts, said = STATEMENTS[name]
    assert said in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, **parts))


@pytest.mark.parametrize(
    "made_for",
    [
        pytest.param("another." + KEY_AUTHORIZATION.partition(".")[2], id="another-token"),
        pytest.param(f"{TOKEN}.another-account", id="another-account"),
        pytest.param(TOKEN, id="the-token-alone"),
    ],
)
def test_attestations_of_other_challenges_are_refused(bench: Bench, tpm: Tpm, made_for: str) -> None:
    assert "another challenge or account" in bench.refusal(SERIAL, tpm.attest(made_for))


@pytest.mark.parametrize("field", ["certInfo", "sig", "pubArea"])
def test_no_byte_may_change(bench: Bench, tpm: Tpm, field: str) -> None:
    attested = tpm.attest(KEY_AUTHORIZATION)
    statement = attested["attStmt"]
    whole = statement[field]
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1
        bench.refusal(SERIAL, {"fmt": "tpm", "attStmt": statement | {field: bytes(broken)}})


# The attestation key's certificate

CERTIFICATES: dict[str, tuple[dict[str, Any], str]] = {
    "with-a-subject": ({"subject": "CN=ak"}, "has a subject"),
    "without-its-usage": ({"ekus": ()}, "not that of an attestation key"),
    "for-clients-of-tls": ({"ekus": ("1.3.6.1.5.5.7.3.2",)}, "not that of an attestation key"),
    "for-an-endorsement-key": ({"ekus": ("2.23.133.8.1",)}, "not that of an attestation key"),
    "without-a-maker": ({"sans": (make_san(SanKind.PERMANENT_IDENTIFIER, SERIAL),)}, "the TPM's manufacturer"),
    "without-a-manufacturer": ({"sans": (directory_name(model="m", version="1"),)}, "the TPM's manufacturer"),
    "without-a-model": ({"sans": (directory_name(manufacturer="id:1", version="1"),)}, "the TPM's model"),
    "without-a-version": ({"sans": (directory_name(manufacturer="id:1", model="m"),)}, "the TPM's version"),
    "with-two-makers": ({"sans": (directory_name(**MAKER), directory_name(**MAKER))}, "the TPM's manufacturer"),
    "with-a-model-that-cannot-be-printed": ({"sans": (directory_name(**(MAKER | {"model": "a\u202eb"})),)}, "the TPM's model"),
    "expired": ({"not_after": NOW - DAY / 2}, "root that is trusted"),
    "of-tomorrow": ({"not_before": NOW + DAY}, "root that is trusted"),
}


@pytest.mark.parametrize("name", list(CERTIFICATES))
def test_other_certificates_are_refused(bench: Bench, tpm: Tpm, name: str) -> None:
    fields, said = CERTIFICATES[name]
    assert said in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, ak=tpm.certificate(**fields)))


def test_a_ca_is_no_attestation_key(bench: Bench, tpm: Tpm) -> None:
    certificate = tpm.certificate("CN=ak", is_ca=True, key_usage=("keyCertSign",))
    assert "root that is trusted" in bench.refusal(SERIAL, tpm.attest(KEY_AUTHORIZATION, ak=certificate))


def test_the_usage_may_stand_beside_others(bench: Bench, tpm: Tpm) -> None:
    certificate = tpm.certificate(ekus=("1.3.6.1.4.1.311.21.36", oids.OID_TCG_AIK_CERTIFICATE))
    assert bench.judge(SERIAL, tpm.attest(KEY_AUTHORIZATION, ak=certificate)).attested_key == key_hash(tpm.key)


def test_the_certificate_of_another_attestation_key_is_refused(bench: Bench, tpm: Tpm) -> None:
    """A key in software that says of itself what the TPM would say."""
    impostor = replace(tpm, ak=generate_private_key("rsa-2048"))
    assert "did not sign" in bench.refusal(SERIAL, impostor.attest(KEY_AUTHORIZATION, ak=tpm.certificate()))


def test_another_maker_is_refused(bench: Bench) -> None:
    for stranger in (Maker.create("Chips"), bench.apple, bench.step):
        assert "root that is trusted" in bench.refusal(SERIAL, Tpm(stranger).attest(KEY_AUTHORIZATION))
