"""Attestation objects before anything in them is believed: base64url, bounded CBOR, formats, and what the policy can name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest

from gateway.config.policy import ATTESTED_CLAIMS
from gateway.errors import MalformedMessage
from gateway.model import IdentifierType
from gateway.validation.attestation import DeviceAttestation
from gateway.validation.attestation.statement import MAX_BYTES, MAX_DEPTH, MAX_ITEMS, decode_cbor
from gateway.validation.interfaces import ValidationFailed
from tests.attesting import NOW, AppleDevice, Tpm, YubiKey, envelope
from tests.unit.validation.attestation.conftest import KEY_AUTHORIZATION, TOKEN, Bench

PERMANENT = IdentifierType.PERMANENT_IDENTIFIER
PAYLOADS: dict[str, tuple[dict[str, object], str]] = {
    "empty": ({}, "no attObj"),
    "null": ({"attObj": None}, "no attObj"),
    "a-number": ({"attObj": 7}, "no attObj"),
    "an-object": ({"attObj": {}}, "no attObj"),
    "empty-text": ({"attObj": ""}, "no attObj"),
    "padded": ({"attObj": "oWNmbXQ="}, "base64url"),
    "standard-alphabet": ({"attObj": "+/+/"}, "base64url"),
    "white-space": ({"attObj": "oWNm\nbXQ"}, "base64url"),
    "impossible-length": ({"attObj": "oWNmb"}, "base64url"),
    "too-long": ({"attObj": "A" * (MAX_BYTES * 4 // 3 + 8)}, "too large"),
    "no-cbor": ({"attObj": "e30"}, "attestation"),
    "an-array": (envelope([]), "no map"),
    "a-text": (envelope("apple"), "no map"),
    "no-format": (envelope({"attStmt": {}}), "no fmt"),
    "no-statement": (envelope({"fmt": "apple"}), "no fmt or no attStmt"),
    "format-is-a-number": (envelope({"fmt": 1, "attStmt": {}}), "no fmt"),
    "statement-is-an-array": (envelope({"fmt": "apple", "attStmt": []}), "no attStmt"),
    "no-certificates": (envelope({"fmt": "apple", "attStmt": {}}), "no x5c"),
    "empty-certificates": (envelope({"fmt": "apple", "attStmt": {"x5c": []}}), "no x5c"),
    "certificates-are-a-map": (envelope({"fmt": "apple", "attStmt": {"x5c": {"a": b"b"}}}), "no x5c"),
    "certificate-is-text": (envelope({"fmt": "apple", "attStmt": {"x5c": ["MII"]}}), "no byte string"),
    "certificate-is-broken": (envelope({"fmt": "apple", "attStmt": {"x5c": [b"\x30\x03\x02\x01"]}}), "truncated"),
    "certificate-is-empty": (envelope({"fmt": "apple", "attStmt": {"x5c": [b""]}}), "truncated"),
    "too-many-certificates": (envelope({"fmt": "apple", "attStmt": {"x5c": [b"0"] * 9}}), "more than 8"),
    "format-none": (envelope({"fmt": "none", "attStmt": {"x5c": [b"0"]}}), "not taken here"),
    "format-android-key": (envelope({"fmt": "android-key", "attStmt": {"x5c": [b"0"]}}), "not taken here"),
}


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_other_payloads_are_refused(bench: Bench, name: str) -> None:
    payload, said = PAYLOADS[name]
    assert said in bench.refusal("serial", None, payload=payload)


def test_members_that_mean_nothing_are_ignored(bench: Bench) -> None:
    """Servers ignore them (§5); authData has no meaning here."""
    device = AppleDevice(bench.apple)
    payload = envelope(device.attest(TOKEN) | {"authData": b"\0" * 37}) | {"more": [1, 2]}
    assert bench.judge(device.serial, None, payload=payload).claims["format"] == "apple"


def test_nothing_that_was_sent_is_repeated(bench: Bench) -> None:
    detail = bench.refusal("serial", {"fmt": "<script>", "attStmt": {"x5c": [b"0"]}})
    assert "script" not in detail


CBOR: dict[str, bytes] = {
    "nothing": b"",
    "a-head-cut-short": b"\x19\x01",
    "a-string-cut-short": b"\x43ab",
    "a-long-string-cut-short": b"\x5b" + b"\xff" * 8,
    "an-array-cut-short": b"\x82\x01",
    "an-endless-array": b"\x9b" + b"\xff" * 8,
    "an-endless-map": b"\xbb" + b"\xff" * 8,
    "indefinite-array": b"\x9f\x01\xff",
    "indefinite-map": b"\xbf\x61a\x01\xff",
    "indefinite-string": b"\x5f\x41a\xff",
    "a-reserved-head": b"\x1c",
    "a-break": b"\xff",
    "two-values": b"\x01\x01",
    "a-tag": cbor2.dumps(datetime(2026, 1, 1, tzinfo=UTC)),
    "a-regular-expression": b"\xd8\x23\x61.",
    "a-shared-reference": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a-big-number": b"\xc2\x58\x20" + bytes(32),
    "a-float": cbor2.dumps(1.5),
    "true": b"\xf5",
    "null": b"\xf6",
    "undefined": b"\xf7",
    "a-simple-value": b"\xf8\xff",
    "a-name-twice": b"\xa2\x61a\x01\x61a\x02",
    "a-number-as-name": b"\xa1\x01\x02",
    "an-array-as-name": b"\xa1\x80\x02",
    "text-that-is-none": b"\x62\xff\xfe",
    "too-deep": b"\x81" * (MAX_DEPTH + 1) + b"\x01",
    "far-too-deep": b"\x81" * 40000 + b"\x01",
    "too-many": cbor2.dumps([0] * MAX_ITEMS),
    "too-many-in-small-arrays": cbor2.dumps([[0] * 100] * 3),
    "too-large": cbor2.dumps(bytes(MAX_BYTES)),
}


@pytest.mark.parametrize("name", list(CBOR))
def test_other_cbor_is_refused(name: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_cbor(CBOR[name])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"fmt": "tpm", "attStmt": {"alg": -65535, "x5c": [b"a", b"b"]}}, id="attestation"),
        pytest.param(-65535, id="negative"),
        pytest.param(2**64 - 1, id="largest"),
        pytest.param([[[[[[1]]]]]], id="deepest"),
        pytest.param("Gerät", id="text"),
        pytest.param({}, id="empty"),
        pytest.param([0] * (MAX_ITEMS - 1), id="most"),
    ],
)
def test_cbor_of_attestations(value: Any) -> None:
    assert decode_cbor(cbor2.dumps(value)) == value


def test_a_format_without_roots_is_refused(bench: Bench) -> None:
    device = AppleDevice(bench.apple)
    task = bench.task(device.serial, device.attest(TOKEN), kind=PERMANENT, payload=None)
    with pytest.raises(ValidationFailed, match="those that are: tpm, step"):
        DeviceAttestation(None, bench.tpm.anchors, bench.step.anchors).judge(task, NOW)
    with pytest.raises(ValidationFailed, match="those that are: none"):
        DeviceAttestation(None, None, None).judge(task, NOW)


def test_every_claim_can_be_named_in_a_template(bench: Bench) -> None:
    tpm, yubikey, device = Tpm(bench.tpm), YubiKey(bench.step), AppleDevice(bench.apple)
    found = {
        *bench.judge("TPM-SERIAL-0001", tpm.attest(KEY_AUTHORIZATION)).claims,
        *bench.judge("16023607", yubikey.attest(KEY_AUTHORIZATION)).claims,
        *bench.judge(device.udid, device.attest(TOKEN)).claims,
    }
    assert found <= set(ATTESTED_CLAIMS)
    assert set(ATTESTED_CLAIMS) - found == {"hardware_module", "llb_version"}
