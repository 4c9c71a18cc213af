from __future__ import annotations

import sys
import unicodedata
from types import SimpleNamespace

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedMessage
from gateway.model import Name, NameAttribute
from gateway.pki import der, names
from gateway.pki.names import (
    ATTRIBUTE_OIDS,
    MAX_ATTRIBUTES,
    attribute_name,
    attribute_oid,
    encode_name,
    format_name,
    make_attribute,
    normalize_name,
    parse_name,
    parse_name_text,
)

CN = ATTRIBUTE_OIDS["CN"]


def name_of(tag: int, value: bytes, oid: str = CN) -> bytes:
    return der.sequence(der.set_of(der.sequence(der.oid(oid), der.tlv(tag, value))))


@pytest.mark.parametrize(
    ("tag", "value", "text"),
    [
        pytest.param(12, "Käse €".encode(), "Käse €", id="utf8"),
        pytest.param(18, b"0123 4", "0123 4", id="numeric"),
        pytest.param(19, b"Example (CH)", "Example (CH)", id="printable"),
        pytest.param(19, b"a@b_c*", "a@b_c*", id="printable-with-what-it-must-not-hold"),
        pytest.param(20, "Käse".encode("latin-1"), "Käse", id="t61"),
        pytest.param(22, b"a@b.example", "a@b.example", id="ia5"),
        pytest.param(26, b"visible", "visible", id="visible"),
        pytest.param(27, b"general", "general", id="general"),
        pytest.param(28, "Käse €".encode("utf-32-be"), "Käse €", id="universal"),
        pytest.param(30, "Käse €".encode("utf-16-be"), "Käse €", id="bmp"),
        pytest.param(30, "😀".encode("utf-16-be"), "😀", id="bmp-with-surrogates"),
        pytest.param(12, b"", "", id="empty"),
        pytest.param(3, b"\x00\xff", "#030200ff", id="bit-string"),
        pytest.param(4, b"x", "#040178", id="octet-string"),
        pytest.param(0x30, b"", "#3000", id="sequence"),
    ],
)
def test_every_string_type_is_read_and_written_back(tag: int, value: bytes, text: str) -> None:
    data = name_of(tag, value)
    name = parse_name(data)
    assert name.values(CN) == (text,)
    assert name.der == data
    assert encode_name(name.rdns) == data


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        pytest.param(12, b"\xff", id="utf8"),
        pytest.param(12, b"\xed\xa0\x80", id="surrogate-in-utf8"),
        pytest.param(19, b"\xe4", id="printable"),
        pytest.param(22, b"\xe4", id="ia5"),
        pytest.param(28, b"\x00\x00\x00", id="universal-of-three-bytes"),
        pytest.param(28, b"\x00\x11\x00\x00", id="universal-beyond-unicode"),
        pytest.param(30, b"\x00", id="bmp-of-one-byte"),
        pytest.param(30, b"\xd8\x00", id="bmp-half-a-surrogate"),
    ],
)
def test_text_that_its_type_cannot_hold(tag: int, value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_name(name_of(tag, value))


ONE = der.sequence(der.oid(CN), der.utf8_string("x"))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(der.sequence(der.sequence(ONE)), id="no-set"),
        pytest.param(der.sequence(der.set_of()), id="empty-set"),
        pytest.param(der.sequence(der.set_of(der.set_of(ONE))), id="attribute-is-a-set"),
        pytest.param(der.sequence(der.set_of(der.sequence(der.oid(CN)))), id="no-value"),
        pytest.param(der.sequence(der.set_of(der.sequence(der.oid(CN), der.null(), der.null()))), id="two-values"),
        pytest.param(der.sequence(der.set_of(der.sequence(der.utf8_string("x"), der.oid(CN)))), id="turned-round"),
        pytest.param(der.sequence(*[der.set_of(ONE)] * (MAX_ATTRIBUTES + 1)), id="too-many"),
        pytest.param(der.sequence(der.tlv(0x31, ONE * (MAX_ATTRIBUTES + 1))), id="too-many-in-one-rdn"),
        pytest.param(der.sequence(der.set_of(ONE)) + b"\x00", id="byte-behind"),
        pytest.param(name_of(12, b"x", "1.2.3")[:-1], id="cut-short"),
        pytest.param(name_of(12, b"x" * 8192), id="too-large"),
        pytest.param(
            der.sequence(der.set_of(der.sequence(der.tlv(6, b"\x81" * 60000), der.null()))), id="long-object-identifier"
        ),
    ],
)
def test_broken_names(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_name(data)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param("CN=gate.example,O=Example,C=CH", "CN=gate.example,O=Example,C=CH", id="plain"),
        pytest.param("cn = a , o=b", "CN=a,O=b", id="spaces-and-case"),
        pytest.param("", "", id="empty"),
        pytest.param(r"CN=gate\, north", r"CN=gate\, north", id="comma"),
        pytest.param("CN=a+serialNumber=7,O=x", None, id="two-in-one-rdn"),
        pytest.param(r"CN=\#a\ ,O=\ b", r"CN=\#a\ ,O=\ b", id="hash-and-outer-spaces"),
        pytest.param(r"CN=\c3\84rger\0a", r"CN=Ärger\0a", id="hex-pairs-and-control-character"),
        pytest.param(r"CN=a=b", r"CN=a\=b", id="equals"),
        pytest.param(r"CN=\22\5c\;\<\>", r"CN=\"\\\;\<\>", id="specials"),
        pytest.param("2.5.4.3=a,OID.1.2.3.4=b", "CN=a,1.2.3.4=b", id="dotted-types"),
        pytest.param("1.2.3.4=#0c0162,CN=#130163", "1.2.3.4=b,CN=c", id="hex-of-strings"),
        pytest.param("x500UniqueIdentifier=#030200ff", "x500UniqueIdentifier=#030200ff", id="hex-of-bits"),
        pytest.param("E=a@b.example,givenName=x,S=ZH", "emailAddress=a@b.example,GN=x,ST=ZH", id="aliases"),
        pytest.param("CN=日本", "CN=日本", id="beyond-latin"),
    ],
)
def test_text(text: str, written: str | None) -> None:
    name = parse_name_text(text)
    again = parse_name_text(format_name(name))
    assert normalize_name(again) == normalize_name(name)
    if written is not None:
        assert format_name(name) == written


@pytest.mark.parametrize(
    "text",
    [
        "CN",
        "=x",
        "CN=",
        "CN=a,",
        ",CN=a",
        "CN=a,,O=b",
        "CN=a+",
        "nonsense=x",
        "CN=a\\",
        "CN=a\\zz",
        "CN=\\ff",
        'CN="a"',
        "CN=a;O=b",
        "CN=<a>",
        "CN=#",
        "CN=#0c",
        "CN=#0c05",
        "CN=#zz",
        "CN=#0c01ff",
        "C=CHE",
        "C=C1",
        "1.2=x,3.4=y",
        "+".join(["CN=a"] * 65),
        pytest.param("CN=" + "a" * 8192, id="too-large"),
    ],
)
def test_text_that_is_no_name(text: str) -> None:
    with pytest.raises(ValueError):
        parse_name_text(text)


values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
attributes = st.builds(
    make_attribute, st.sampled_from(["CN", "O", "OU", "DC", "emailAddress", "serialNumber", "1.2.3.4"]), values
)
rdns = st.lists(st.lists(attributes, min_size=1, max_size=3), max_size=5)


@settings(max_examples=200, deadline=None)
@given(rdns)
def test_text_and_der_carry_any_name(parts: list[list[NameAttribute]]) -> None:
    name = parse_name(encode_name(parts))
    text = format_name(name)
    again = parse_name_text(text)
    assert normalize_name(again) == normalize_name(name)
    assert [[a.value for a in rdn] for rdn in again.rdns] == [[a.value for a in rdn] for rdn in name.rdns]
    assert text.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_value_error(text: str) -> None:
    try:
        name = parse_name_text(text)
    except ValueError:
        return
    if all(a.value for rdn in name.rdns for a in rdn):
        assert normalize_name(parse_name_text(format_name(name))) == normalize_name(name)


def test_strings_have_the_types_of_rfc_5280() -> None:
    name = parse_name_text("CN=x,C=CH,serialNumber=7,DC=example,emailAddress=a@b")
    assert {attribute_name(a.oid): a.tag for rdn in name.rdns for a in rdn} == {
        "CN": 12,
        "C": 19,
        "serialNumber": 19,
        "DC": 22,
        "emailAddress": 22,
    }
    assert make_attribute("serialNumber", "a_b").tag == 12
    assert make_attribute("DC", "müller").tag == 12


def test_attributes_that_cannot_be_written() -> None:
    for attribute in (NameAttribute(CN, "ä", 19), NameAttribute(CN, "x", 4), NameAttribute("1", "x")):
        with pytest.raises(ValueError):
            encode_name([[attribute]])
    with pytest.raises(ValueError, match="empty"):
        make_attribute("CN", "")


def test_short_names_go_both_ways() -> None:
    for short, oid in ATTRIBUTE_OIDS.items():
        assert attribute_oid(short) == attribute_oid(short.upper()) == attribute_oid(oid) == oid
        assert attribute_name(oid) == short
    assert attribute_name("1.2.3") == "1.2.3"
    with pytest.raises(ValueError):
        attribute_oid("nonsense")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("CN=Example  Device,O=X", "cn=example device,o=x", True, id="case-and-spaces"),
        pytest.param(r"CN=\ a\ ", "CN=a", True, id="outer-spaces"),
        pytest.param("CN=#0c0161", "CN=#130161", True, id="string-types"),
        pytest.param("CN=a+O=b", "O=b+CN=a", True, id="order-in-an-rdn"),
        pytest.param("CN=STRASSE", "CN=Straße", True, id="case-folding"),
        pytest.param("CN=A", "CN=\uff21", True, id="compatibility-forms"),
        pytest.param("CN=a,O=b", "O=b,CN=a", False, id="order-of-rdns"),
        pytest.param("CN=a", "O=a", False, id="types"),
        pytest.param("CN=a+O=b", "CN=a,O=b", False, id="one-rdn-or-two"),
        pytest.param("CN=a b", "CN=ab", False, id="inner-space"),
        pytest.param("CN=a", "CN=a,O=b", False, id="prefix"),
        pytest.param("CN=a\\00", "CN=a", False, id="nul"),
        pytest.param("", "CN=a", False, id="empty"),
    ],
)
def test_comparison(one: str, other: str, same: bool) -> None:
    assert (normalize_name(parse_name_text(one)) == normalize_name(parse_name_text(other))) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("a" + "\u0301" * 30, "A" + "\u0301" * 30, True, id="as-many-as-may-be"),
        pytest.param("a\u0344" + "\u0334" * 29, "a\u0334\u0344" + "\u0334" * 28, True, id="as-many-in-another-order"),
        pytest.param("e\u0301" * 60, "\u00c9" * 60, True, id="many-but-never-in-a-row"),
        pytest.param("a" + "\u0301" * 31, "a" + "\u0301" * 31, True, id="too-many-as-written"),
        pytest.param("a" + "\u0301" * 31, "A" + "\u0301" * 31, False, id="too-many-in-another-case"),
        pytest.param("a" + "\u0344" * 30 + "\u0334", "a\u0334" + "\u0344" * 30, False, id="too-many-in-another-order"),
        pytest.param("a" + "\u0301" * 31, "a" + "\u0301" * 30, False, id="one-more"),
    ],
)
def test_comparison_of_combining_characters(one: str, other: str, same: bool) -> None:
    first, second = (normalize_name(parse_name(name_of(12, value.encode()))) for value in (one, other))
    assert (first == second) is same


@pytest.mark.parametrize("marks", ["\u0344\u0334", "\u0f73\u0334", "\uff9e\u0334", "\u0345\u0334", "\u0340\u0327"])
@pytest.mark.parametrize("start", ["", "a", "\u00e9" * 40], ids=["bare", "after a letter", "after many"])
def test_only_few_marks_in_a_row_are_put_in_order(marks: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordering takes the square of their number."""

    def refuse(_: str, value: str) -> str:
        raise AssertionError(f"{len(value)} characters are normalised")

    monkeypatch.setattr(names, "unicodedata", SimpleNamespace(normalize=refuse, combining=unicodedata.combining))
    name = parse_name(name_of(12, (start + marks[0] * 1200 + marks[1] * 1200).encode()))
    assert normalize_name(name) == (((CN, name.rdns[0][0].value),),)


def test_every_combining_character_counts() -> None:
    """Whatever decomposes to nothing else, in all of Unicode."""
    for code in range(0x80, sys.maxunicode + 1):
        decomposed = unicodedata.normalize("NFKD", chr(code))
        if unicodedata.combining(decomposed[0]):
            value = "a" + chr(code) * 31 + "A"
            assert normalize_name(Name(((NameAttribute(CN, value),),), b"")) == (((CN, value),),), hex(code)
        else:
            assert not unicodedata.combining(chr(code)), hex(code)


def test_text_agrees_with_cryptography() -> None:
    text = r"CN=gate\, north,OU=a\+b,O=Example,C=CH"
    theirs = x509.Name.from_rfc4514_string(text)
    ours = parse_name_text(text)
    assert ours.der == theirs.public_bytes()
    assert parse_name(theirs.public_bytes()) == ours


def test_encoding_as_received_does_not_count() -> None:
    name = parse_name(name_of(12, b"x"))
    assert name == Name(name.rdns, b"other")
    assert "x" in repr(name)
