"""Permanent identifiers and hardware modules: text and otherName, each the other's mirror."""

from __future__ import annotations

import pytest

from gateway.asn1.acme import OID_HARDWARE_MODULE_NAME, OID_PERMANENT_IDENTIFIER
from gateway.model import SanKind
from gateway.pki import der
from gateway.pki.extensions import encode_sans, make_san, parse_sans

PERMANENT, MODULE = SanKind.PERMANENT_IDENTIFIER, SanKind.HARDWARE_MODULE


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(PERMANENT, "ABCDEF123456", id="without-assigner"),
        pytest.param(PERMANENT, "ABCDEF123456/1.2.3.4", id="with-assigner"),
        pytest.param(PERMANENT, "Gerät 7 ☂", id="utf-8"),
        pytest.param(PERMANENT, "a" * 255, id="longest"),
        pytest.param(MODULE, "ABCD/1.2.3.4", id="module"),
        pytest.param(MODULE, "0/2.25.329800735698586629295641978511506172918", id="module-of-a-long-type"),
    ],
)
def test_text_and_general_name_say_the_same(kind: SanKind, text: str) -> None:
    name = make_san(kind, text)
    assert parse_sans(encode_sans((name,))) == (name,)
    assert (name.kind, name.value) == (kind, text)


def test_encodings_are_those_of_their_rfcs() -> None:
    assert make_san(PERMANENT, "A/1.2.3.4").der.hex() == "a01606082b06010505070803a00a30080c014106032a0304"
    assert make_san(MODULE, "A/1.2.3.4").der.hex() == "a01606082b06010505070804a00a300806032a0304040141"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(PERMANENT, "", id="empty"),
        pytest.param(PERMANENT, "/1.2.3", id="assigner-alone"),
        pytest.param(PERMANENT, "A/", id="empty-assigner"),
        pytest.param(PERMANENT, "A/B", id="assigner-is-no-oid"),
        pytest.param(PERMANENT, "A/1.2.3/1.2.3", id="two-slashes"),
        pytest.param(PERMANENT, "A/3.1", id="impossible-arc"),
        pytest.param(PERMANENT, "A/1.02", id="leading-zero"),
        pytest.param(PERMANENT, "A\u202eB", id="invisible"),
        pytest.param(PERMANENT, "a" * 256, id="too-long"),
        pytest.param(MODULE, "ABCD", id="module-without-type"),
        pytest.param(MODULE, "/1.2.3", id="module-without-serial"),
    ],
)
def test_other_texts_make_no_name(kind: SanKind, text: str) -> None:
    with pytest.raises(ValueError, match=r"text|module|identifier|empty"):
        make_san(kind, text)


def other_name(oid: str, value: bytes) -> bytes:
    return der.sequence(der.context(0, der.oid(oid), der.context(0, value)))


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(), id="no-identifier-value"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(der.oid("1.2.3")), id="assigner-alone"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(der.utf8_string("a/b")), id="slash"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(der.utf8_string("")), id="empty"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(der.printable_string("A")), id="printable-string"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.sequence(der.tlv(0x0C, b"\xff")), id="not-utf-8"),
        pytest.param(OID_PERMANENT_IDENTIFIER, der.null(), id="no-sequence"),
        pytest.param(OID_HARDWARE_MODULE_NAME, der.sequence(der.oid("1.2.3"), der.octet_string(b"\x01\xfe")), id="binary-serial"),
        pytest.param(OID_HARDWARE_MODULE_NAME, der.sequence(der.oid("1.2.3"), der.octet_string(b"a/b")), id="serial-with-slash"),
        pytest.param(OID_HARDWARE_MODULE_NAME, der.sequence(der.octet_string(b"a")), id="no-type"),
        pytest.param(OID_HARDWARE_MODULE_NAME, der.sequence(der.oid("1.2.3")), id="no-serial"),
    ],
)
def test_names_without_a_text_are_of_no_kind(oid: str, value: bytes) -> None:
    """They are read, for devices have them (IEEE 802.1AR), and never certified."""
    [name] = parse_sans(other_name(oid, value))
    assert name.kind is SanKind.OTHER
