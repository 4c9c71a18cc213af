from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedMessage
from gateway.model import SanKind
from gateway.pki import der, extensions
from gateway.pki.extensions import EKU_OIDS, KEY_USAGE_BITS, encode_sans, make_san, parse_sans


@pytest.mark.parametrize(
    ("kind", "value", "encoded"),
    [
        pytest.param(SanKind.DNS, "*.gate.example", b"\x82\x0e*.gate.example", id="dns"),
        pytest.param(SanKind.EMAIL, "a@b.example", b"\x81\x0ba@b.example", id="email"),
        pytest.param(SanKind.URI, "urn:uuid:1", b"\x86\x0aurn:uuid:1", id="uri"),
        pytest.param(SanKind.IP, "10.0.0.1", b"\x87\x04\x0a\x00\x00\x01", id="ipv4"),
        pytest.param(SanKind.IP, "2001:db8::1", b"\x87\x10" + bytes.fromhex("20010db8") + bytes(11) + b"\x01", id="ipv6"),
        pytest.param(
            SanKind.UPN, "ä@ad.example", bytes.fromhex("a01d060a2b060104018237140203a00f0c0d") + "ä@ad.example".encode(), id="upn"
        ),
        pytest.param(
            SanKind.SID, "S-1-5-21-1-2-3-1001", b"\x86\x34tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-1001", id="sid"
        ),
        pytest.param(SanKind.DIRECTORY_NAME, "CN=x", bytes.fromhex("a40e300c310a300806035504030c0178"), id="directory-name"),
    ],
)
def test_names_are_made_and_read(kind: SanKind, value: str, encoded: bytes) -> None:
    san = make_san(kind, value)
    assert (san.kind, san.value) == (kind, value)
    assert san.der == encoded
    assert parse_sans(encode_sans([san])) == (san,)


@pytest.mark.parametrize(
    ("encoded", "kind", "value"),
    [
        pytest.param(b"\x88\x03\x2a\x03\x04", SanKind.OTHER, "registeredID:1.2.3.4", id="registered-id"),
        pytest.param(b"\xa0\x0a\x06\x02\x2a\x03\xa0\x04\x0c\x02hi", SanKind.OTHER, "otherName:1.2.3:#0c026869", id="other-name"),
        pytest.param(b"\xa3\x02\x30\x00", SanKind.OTHER, "x400Address:#3000", id="x400"),
        pytest.param(b"\xa5\x02\x30\x00", SanKind.OTHER, "ediPartyName:#3000", id="edi"),
        pytest.param(b"\x86\x26TAG:Microsoft.com,2022-09-14:SID:S-1-5", SanKind.SID, "S-1-5", id="sid-in-any-case"),
        pytest.param(b"\x86\x21tag:microsoft.com,2022-09-14:sid:", SanKind.SID, "", id="sid-that-is-empty"),
    ],
)
def test_names_that_are_only_read(encoded: bytes, kind: SanKind, value: str) -> None:
    (san,) = parse_sans(der.sequence(encoded))
    assert (san.kind, san.value, san.der) == (kind, value, encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\x82\x00", id="empty-dns"),
        pytest.param(b"\x82\x05a\x00b.c", id="nul-in-dns"),
        pytest.param(b"\x81\x03a\n@", id="newline-in-email"),
        pytest.param(b"\x82\x02\xc3\xa4", id="utf8-in-dns"),
        pytest.param(b"\x87\x03\x01\x02\x03", id="ip-of-3-bytes"),
        pytest.param(b"\x87\x08" + bytes(8), id="ip-with-mask"),
        pytest.param(b"\x88\x00", id="empty-registered-id"),
        pytest.param(b"\x88\x82\xea\x60" + b"\x81" * 60000, id="registered-id-of-60-kB"),
        pytest.param(b"\x89\x01a", id="unknown-tag"),
        pytest.param(b"\x0c\x01a", id="universal-tag"),
        pytest.param(b"\xa2\x03\x16\x01a", id="constructed-dns"),
        pytest.param(b"\xa4\x02\x05\x00", id="directory-name-that-is-none"),
        pytest.param(b"\xa0\x04\x06\x02\x2a\x03", id="other-name-without-value"),
        pytest.param(bytes.fromhex("a010060a2b060104018237140203a0020500"), id="upn-that-is-no-utf8-string"),
        pytest.param(bytes.fromhex("a010060a2b060104018237140203a0020c00"), id="empty-upn"),
    ],
)
def test_broken_names(encoded: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_sans(der.sequence(encoded))


def test_too_many_names_and_no_names() -> None:
    with pytest.raises(MalformedMessage):
        parse_sans(der.sequence(*[b"\x82\x01a"] * 1025))
    assert parse_sans(der.sequence()) == ()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(SanKind.DNS, "", id="empty"),
        pytest.param(SanKind.DNS, "a..b", id="empty-label"),
        pytest.param(SanKind.DNS, "-a.example", id="leading-hyphen"),
        pytest.param(SanKind.DNS, "a b", id="space"),
        pytest.param(SanKind.DNS, "a.*.example", id="inner-wildcard"),
        pytest.param(SanKind.DNS, "müller.example", id="international"),
        pytest.param(SanKind.DNS, "a" * 64, id="long-label"),
        pytest.param(SanKind.DNS, ".".join(["abc"] * 64), id="long-name"),
        pytest.param(SanKind.DNS, "a\0b", id="nul"),
        pytest.param(SanKind.IP, "10.0.0.256", id="no-address"),
        pytest.param(SanKind.IP, "10.0.0.0/8", id="network"),
        pytest.param(SanKind.EMAIL, "a", id="no-mailbox"),
        pytest.param(SanKind.EMAIL, "a@b@c", id="two-ats"),
        pytest.param(SanKind.URI, "no scheme", id="no-scheme"),
        pytest.param(SanKind.URI, "TAG:microsoft.com,2022-09-14:sid:S-1-5-1", id="sid-as-uri"),
        pytest.param(SanKind.SID, "S-1", id="short-sid"),
        pytest.param(SanKind.SID, "S-1-5-٣", id="sid-of-other-digits"),
        pytest.param(SanKind.DIRECTORY_NAME, "nonsense", id="no-directory-name"),
        pytest.param(SanKind.OTHER, "registeredID:1.2.3", id="other"),
    ],
)
def test_names_that_cannot_be_made(kind: SanKind, value: str) -> None:
    with pytest.raises(ValueError):
        make_san(kind, value)


@given(st.sets(st.sampled_from(KEY_USAGE_BITS)))
def test_key_usage_goes_both_ways(names: set[str]) -> None:
    assert extensions.parse_key_usage(extensions.encode_key_usage(names)) == names


@pytest.mark.parametrize(
    ("names", "encoded"),
    [
        pytest.param((), "030100", id="none"),
        pytest.param(("digitalSignature",), "03020780", id="first"),
        pytest.param(("digitalSignature", "keyEncipherment"), "030205a0", id="usual"),
        pytest.param(("keyCertSign", "cRLSign"), "03020106", id="ca"),
        pytest.param(("encipherOnly",), "03020001", id="eighth"),
        pytest.param(("decipherOnly",), "0303070080", id="ninth"),
    ],
)
def test_key_usage_bits(names: tuple[str, ...], encoded: str) -> None:
    assert extensions.encode_key_usage(names).hex() == encoded


@pytest.mark.parametrize("broken", ["0300", "030101", "03020880", "0303070001", "0304000000ff", "040105", "05a0", "030205a000"])
def test_broken_key_usage(broken: str) -> None:
    with pytest.raises(MalformedMessage):
        extensions.parse_key_usage(bytes.fromhex(broken))


def test_unknown_usages() -> None:
    with pytest.raises(ValueError, match="digitalSignature"):
        extensions.encode_key_usage(["signing"])
    with pytest.raises(ValueError):
        extensions.eku_oid("nonsense")


def test_extended_key_usages_go_both_ways() -> None:
    oids = tuple(EKU_OIDS.values())
    encoded = extensions.encode_ekus(oids)
    assert extensions.parse_ekus(encoded) == oids
    theirs = x509.ExtendedKeyUsage([x509.ObjectIdentifier(o) for o in oids])
    assert encoded == theirs.public_bytes()
    for name, oid in EKU_OIDS.items():
        assert extensions.eku_oid(name.upper()) == extensions.eku_oid(oid) == oid
        assert extensions.eku_name(oid) == name
    assert extensions.eku_name("1.2.3") == "1.2.3"
    for broken in (der.sequence(der.null()), der.sequence(*[der.oid("1.2")] * 65), b""):
        with pytest.raises(MalformedMessage):
            extensions.parse_ekus(broken)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param("3000", (False, None), id="end-entity"),
        pytest.param("30030101ff", (True, None), id="ca"),
        pytest.param("30060101ff020100", (True, 0), id="ca-with-path-length"),
        pytest.param("3003010100", (False, None), id="written-default"),
        pytest.param("300301012a", (True, None), id="any-true"),
    ],
)
def test_basic_constraints(encoded: str, expected: tuple[bool, int | None]) -> None:
    assert extensions.parse_basic_constraints(bytes.fromhex(encoded)) == expected


@pytest.mark.parametrize(
    "broken", ["", "0500", "30020100", "30030201ff", "30060101ff0101ff", "3006020100020100", "30080101ff02030fffff"]
)
def test_broken_basic_constraints(broken: str) -> None:
    with pytest.raises(MalformedMessage):
        extensions.parse_basic_constraints(bytes.fromhex(broken))


def test_basic_constraints_are_written_as_der() -> None:
    assert extensions.encode_basic_constraints(False, 3).hex() == "3000"
    assert extensions.encode_basic_constraints(True).hex() == "30030101ff"
    assert extensions.encode_basic_constraints(True, 0).hex() == "30060101ff020100"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(der.sequence(der.sequence(der.oid("1.2"))), id="no-value"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2"), der.boolean(True))), id="flag-without-value"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2"), der.integer(1), der.octet_string(b""))), id="flag-is-no-boolean"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2"), b"\x01\x00", der.octet_string(b""))), id="empty-flag"),
        pytest.param(der.sequence(der.set_of(der.oid("1.2"), der.octet_string(b""))), id="set"),
        pytest.param(der.sequence(*[der.sequence(der.oid("1.2"), der.octet_string(b""))] * 2), id="repeated"),
        pytest.param(der.sequence(*[der.sequence(der.oid(f"1.2.{n}"), der.octet_string(b"")) for n in range(65)]), id="too-many"),
    ],
)
def test_broken_extensions(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        extensions.parse_extensions(data)


def test_extensions_go_both_ways() -> None:
    encoded = der.sequence(
        extensions.encode_extension("1.2.3", True, b"a"),
        extensions.encode_extension("1.2.4", False, b"b"),
        der.sequence(der.oid("1.2.5"), der.boolean(False), der.octet_string(b"c")),
    )
    assert [(e.oid, e.critical, e.value) for e in extensions.parse_extensions(encoded)] == [
        ("1.2.3", True, b"a"),
        ("1.2.4", False, b"b"),
        ("1.2.5", False, b"c"),
    ]


def test_extensions_met_before_are_the_same() -> None:
    known = extensions.encode_extension(extensions.KEY_USAGE, True, b"\x03\x02\x05\xa0")
    other = extensions.encode_extension("1.2.3.4", False, bytes(200))
    first, second = (extensions.parse_extensions(der.sequence(*both)) for both in ((known, other), (other, known)))
    assert first == second[::-1]
    with pytest.raises(MalformedMessage, match="repeated"):
        extensions.parse_extensions(der.sequence(known, known))


def test_pointers_are_what_cryptography_writes() -> None:
    url = "http://127.0.0.1:8080/crl/issuing.crl"
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    assert extensions.encode_crl_distribution_point(url) == x509.CRLDistributionPoints([point]).public_bytes()
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
    assert extensions.encode_ca_issuers(url) == x509.AuthorityInformationAccess([access]).public_bytes()
