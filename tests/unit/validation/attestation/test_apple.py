"""Apple's attestations: what is said must be said by Apple, about this device, for this challenge."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gateway.asn1 import attestation as oids
from gateway.model import IdentifierType
from gateway.pki.certificate import self_signed_ca
from gateway.pki.keys import generate_private_key
from tests.attesting import DAY, NOW, AppleDevice, Maker
from tests.unit.validation.attestation.conftest import TOKEN, Bench, key_hash


@pytest.fixture(scope="module")
def device(bench: Bench) -> AppleDevice:
    return AppleDevice(bench.apple)


@pytest.mark.parametrize("name", ["serial", "udid"])
def test_serial_number_and_udid_name_the_device(bench: Bench, device: AppleDevice, name: str) -> None:
    value = getattr(device, name)
    proved = bench.judge(value, device.attest(TOKEN))
    assert proved.attested_key == key_hash(device.key)
    assert proved.claims == {
        "format": "apple",
        "issuer": "Fruit Sub CA",
        "serial": device.serial,
        "udid": device.udid,
        "os_version": "26.1",
        "sepos_version": "26.1",
        "permanent_identifier": value,
    }


def test_the_root_may_be_sent_along(bench: Bench, device: AppleDevice) -> None:
    attested = device.attest(TOKEN)
    attested["attStmt"]["x5c"].append(bench.apple.root)
    assert bench.judge(device.serial, attested).claims["format"] == "apple"


OTHER_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "nonce-absent": ({"left_out": (oids.OID_APPLE_NONCE,)}, "no freshness code"),
    "nonce-empty": ({"values": {oids.OID_APPLE_NONCE: b""}}, "another challenge"),
    "nonce-of-another-token": ({"values": {oids.OID_APPLE_NONCE: bytes(32)}}, "another challenge"),
    "nonce-is-the-token": ({"values": {oids.OID_APPLE_NONCE: TOKEN.encode()}}, "another challenge"),
    "no-identifiers": ({"left_out": (oids.OID_APPLE_SERIAL_NUMBER, oids.OID_APPLE_UDID)}, "no permanent-identifier"),
    "empty-identifiers": ({"values": dict.fromkeys((oids.OID_APPLE_SERIAL_NUMBER, oids.OID_APPLE_UDID), b"")}, "no permanent"),
    "another-serial-number": ({"values": {oids.OID_APPLE_SERIAL_NUMBER: b"C02XL0OTHER0"}}, "about another"),
    "serial-number-with-a-nul": ({"values": {oids.OID_APPLE_SERIAL_NUMBER: b"C02XL0ATTEST\0"}}, "cannot be printed"),
    "serial-number-not-utf-8": ({"values": {oids.OID_APPLE_SERIAL_NUMBER: b"\xff\xfe"}}, "text that is none"),
    "serial-number-too-long": ({"values": {oids.OID_APPLE_SERIAL_NUMBER: b"C" * 256}}, "too long"),
    "not-yet-valid": ({"not_before": NOW + DAY}, "root that is trusted"),
    "expired": ({"not_after": NOW - timedelta(seconds=1)}, "root that is trusted"),
}


@pytest.mark.parametrize("name", list(OTHER_VALUES))
def test_other_values_are_refused(bench: Bench, device: AppleDevice, name: str) -> None:
    fields, said = OTHER_VALUES[name]
    assert said in bench.refusal(device.serial, device.attest(TOKEN, **fields))


def test_an_attestation_of_another_challenge_is_refused(bench: Bench, device: AppleDevice) -> None:
    assert "another challenge" in bench.refusal(device.serial, device.attest("another-token"))


@pytest.mark.parametrize("value", ["c02xl0attest", "C02XL0ATTEST ", "C02XL0ATTEST/1.2.3", "C02XL0ATTES"])
def test_identifiers_are_compared_octet_for_octet(bench: Bench, device: AppleDevice, value: str) -> None:
    assert "another permanent-identifier" in bench.refusal(value, device.attest(TOKEN))


def test_a_device_is_no_module_and_no_host(bench: Bench, device: AppleDevice) -> None:
    attested = device.attest(TOKEN)
    assert "no hardware-module" in bench.refusal(device.serial, attested, IdentifierType.HARDWARE_MODULE)
    assert "names of hosts" in bench.refusal(device.serial, attested, IdentifierType.DNS)


def test_chains_that_lead_nowhere(bench: Bench, device: AppleDevice) -> None:
    told = "does not lead to a root that is trusted here"
    twin = Maker.create(bench.apple.name)
    assert told in bench.refusal(device.serial, AppleDevice(twin).attest(TOKEN))
    attested = device.attest(TOKEN)
    leaf, intermediate = attested["attStmt"]["x5c"]
    for chain in (
        [leaf],
        [leaf, twin.certificate],
        [intermediate, leaf],
        [leaf, leaf, intermediate],
        [intermediate],
        [bench.apple.root],
    ):
        attested["attStmt"]["x5c"] = chain
        assert told in bench.refusal(device.serial, attested), chain


def test_roots_of_another_format_do_not_count(bench: Bench) -> None:
    stranger = AppleDevice(bench.tpm)
    assert "root that is trusted" in bench.refusal(stranger.serial, stranger.attest(TOKEN))


def test_a_self_signed_certificate_is_refused(bench: Bench, device: AppleDevice) -> None:
    own = self_signed_ca(generate_private_key("ec-p384"), "CN=Fruit Root CA", NOW - DAY, NOW + DAY)
    attested = device.attest(TOKEN)
    attested["attStmt"]["x5c"] = [own]
    assert "root that is trusted" in bench.refusal(device.serial, attested)
