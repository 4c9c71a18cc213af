"""YubiKeys: the key of the certificate signs the key authorization."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from gateway.asn1 import attestation as oids
from gateway.model import IdentifierType
from gateway.pki import der
from gateway.pki.keys import generate_private_key
from tests.attesting import Maker, YubiKey
from tests.unit.validation.attestation.conftest import KEY_AUTHORIZATION, TOKEN, Bench, key_hash


@pytest.fixture(scope="module")
def yubikey(bench: Bench) -> YubiKey:
    return YubiKey(bench.step)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048", "ed25519"])
def test_keys_of_a_slot(bench: Bench, kind: str) -> None:
    yubikey = YubiKey(bench.step, key=generate_private_key(kind))
    proved = bench.judge("16023607", yubikey.attest(KEY_AUTHORIZATION))
    assert proved.attested_key == key_hash(yubikey.key)
    assert proved.claims == {
        "format": "step",
        "issuer": "Keys Sub CA",
        "serial": "16023607",
        "firmware": "5.7.4",
        "form_factor": "usb-c-keychain",
        "pin_policy": "once",
        "touch_policy": "cached",
        "permanent_identifier": "16023607",
    }


def test_a_device_of_the_operators_own_ca(bench: Bench, yubikey: YubiKey) -> None:
    values = {oids.OID_STEP_MANAGED_DEVICE: der.sequence(der.utf8_string("laptop-17"))}
    attested = yubikey.attest(KEY_AUTHORIZATION, values=values, left_out=(oids.OID_YUBICO_SERIAL_NUMBER,))
    assert bench.judge("laptop-17", attested).claims["permanent_identifier"] == "laptop-17"


OTHER_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "no-signature": ({"sig": None}, "has no sig"),
    "empty-signature": ({"sig": b""}, "has no sig"),
    "signature-is-text": ({"sig": "MEUC"}, "has no sig"),
    "signature-without-cbor": ({"sig": b"\x30\x45\x02\x20"}, "another|values|cut short|follow|CBOR"),
    "signature-of-cbor-text": ({"sig": cbor2.dumps("MEUC")}, "no CBOR byte string"),
    "signature-of-zeros": ({"sig": cbor2.dumps(bytes(64))}, "did not sign"),
    "no-serial-number": ({"left_out": (oids.OID_YUBICO_SERIAL_NUMBER,)}, "no permanent-identifier"),
    "another-serial-number": ({"values": {oids.OID_YUBICO_SERIAL_NUMBER: der.integer(16023608)}}, "about another"),
    "serial-number-is-text": ({"values": {oids.OID_YUBICO_SERIAL_NUMBER: der.utf8_string("16023607")}}, "structure"),
    "serial-number-too-long": ({"values": {oids.OID_YUBICO_SERIAL_NUMBER: der.integer(1 << 80)}}, "too long"),
    "serial-number-with-more": ({"values": {oids.OID_YUBICO_SERIAL_NUMBER: der.integer(16023607) + der.null()}}, "follow"),
}


@pytest.mark.parametrize("name", list(OTHER_PARTS))
def test_other_parts_are_refused(bench: Bench, yubikey: YubiKey, name: str) -> None:
    parts, said = OTHER_PARTS[name]
    detail = bench.refusal("16023607", yubikey.attest(KEY_AUTHORIZATION, **parts))
    assert any(word in detail for word in said.split("|")), detail


@pytest.mark.parametrize(
    "signed",
    [
        pytest.param("another-token." + KEY_AUTHORIZATION.partition(".")[2], id="another-token"),
        pytest.param(f"{TOKEN}.another-account", id="another-account"),
        pytest.param(TOKEN, id="the-token-alone"),
        pytest.param("", id="nothing"),
    ],
)
def test_other_signed_texts_are_refused(bench: Bench, yubikey: YubiKey, signed: str) -> None:
    assert "did not sign" in bench.refusal("16023607", yubikey.attest(signed))


def test_a_signature_of_another_key_is_refused(bench: Bench, yubikey: YubiKey) -> None:
    other = replace(yubikey, key=generate_private_key("ec-p256"))
    attested = yubikey.attest(KEY_AUTHORIZATION, sig=other.attest(KEY_AUTHORIZATION)["attStmt"]["sig"])
    assert "did not sign" in bench.refusal("16023607", attested)


@pytest.mark.parametrize("value", ["016023607", "16023607/1.2.3", "f47ff7"])
def test_the_serial_number_has_one_spelling(bench: Bench, yubikey: YubiKey, value: str) -> None:
    assert "about another" in bench.refusal(value, yubikey.attest(KEY_AUTHORIZATION))


def test_other_makers_and_kinds_of_name_are_refused(bench: Bench, yubikey: YubiKey) -> None:
    stranger = YubiKey(Maker.create("Keys"))
    assert "root that is trusted" in bench.refusal("16023607", stranger.attest(KEY_AUTHORIZATION))
    attested = yubikey.attest(KEY_AUTHORIZATION)
    assert "no hardware-module" in bench.refusal("16023607", attested, IdentifierType.HARDWARE_MODULE)


def test_kinds_of_key_that_sign_nothing_here(bench: Bench) -> None:
    large = YubiKey(bench.step, key=generate_private_key("ec-p521"))
    attested = large.attest(KEY_AUTHORIZATION)
    assert "keys of this kind" in bench.refusal("16023607", attested)
