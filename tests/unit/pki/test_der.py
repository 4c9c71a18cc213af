from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from asn1crypto import core
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedMessage
from gateway.pki import der


@given(st.integers(min_value=-(1 << 200), max_value=1 << 200))
def test_integers_are_what_asn1crypto_writes(value: int) -> None:
    encoded = der.integer(value)
    assert encoded == core.Integer(value).dump()
    assert der.decode_integer(der.content(der.INTEGER, encoded)) == value


@pytest.mark.parametrize(
    ("dotted", "encoded"),
    [
        pytest.param("1.2.840.113549.1.7.1", "06092a864886f70d010701", id="pkcs7-data"),
        pytest.param("2.5.4.3", "0603550403", id="common-name"),
        pytest.param("2.999.3", "0603883703", id="second-arc-above-39"),
        pytest.param("0.9.2342.19200300.100.1.25", "060a0992268993f22c640119", id="domain-component"),
        pytest.param("0.0", "060100", id="smallest"),
        pytest.param("2.47", "06017f", id="one-byte"),
        pytest.param("2.48", "06028100", id="two-bytes"),
    ],
)
def test_object_identifiers(dotted: str, encoded: str) -> None:
    assert der.oid(dotted).hex() == encoded
    assert der.decode_oid(bytes.fromhex(encoded)[2:]) == dotted


@pytest.mark.parametrize(
    "dotted", ["", "1", "3.1", "1.40", "1.2.", "1..2", "1.02", "a.b", "1.2.-3", "1.2.3\n", "1." + "1" * 4000, "1.٣"]
)
def test_object_identifiers_that_are_none(dotted: str) -> None:
    with pytest.raises(ValueError, match="object identifier"):
        der.oid(dotted)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x2a\x80", id="unfinished"),
        pytest.param(b"\x2a\x80\x01", id="padded"),
        pytest.param(b"\x01" * 65, id="long"),
    ],
)
def test_broken_object_identifiers(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        der.decode_oid(content)


@pytest.mark.parametrize(
    ("moment", "encoded"),
    [
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b"\x17\x0d260102030405Z", id="utc-time"),
        pytest.param(datetime(1950, 1, 1, tzinfo=UTC), b"\x17\x0d500101000000Z", id="first-utc-time"),
        pytest.param(datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x17\x0d491231235959Z", id="last-utc-time"),
        pytest.param(datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z", id="first-generalized-time"),
        pytest.param(datetime(1949, 12, 31, tzinfo=UTC), b"\x18\x0f19491231000000Z", id="before-1950"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x18\x0f99991231235959Z", id="unlimited"),
        pytest.param(datetime(999, 1, 1, tzinfo=UTC), b"\x18\x0f09990101000000Z", id="three-digit-year"),
    ],
)
def test_times(moment: datetime, encoded: bytes) -> None:
    assert der.time(moment) == encoded
    assert der.decode_time(encoded[0], encoded[2:]) == moment


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    moment = datetime(2026, 1, 1, 1, 0, 0, 999999, tzinfo=timezone(timedelta(hours=1)))
    assert der.time(moment) == b"\x17\x0d260101000000Z"
    with pytest.raises(ValueError, match="zone"):
        der.time(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    ("tag", "content", "moment"),
    [
        pytest.param(0x17, b"2601020304Z", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), id="no-seconds"),
        pytest.param(0x17, b"260102030405+0100", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC), id="east"),
        pytest.param(0x18, b"20260102030405-0130", datetime(2026, 1, 2, 4, 34, 5, tzinfo=UTC), id="west"),
    ],
)
def test_times_of_old_encoders(tag: int, content: bytes, moment: datetime) -> None:
    assert der.decode_time(tag, content) == moment


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        pytest.param(0x17, b"", id="empty"),
        pytest.param(0x17, b"261302030405Z", id="month-13"),
        pytest.param(0x17, b"260102030460Z", id="second-60"),
        pytest.param(0x17, b"260102240000Z", id="hour-24"),
        pytest.param(0x17, b"260229030405Z", id="day-that-is-not"),
        pytest.param(0x17, b"2601020304 5Z", id="space"),
        pytest.param(0x17, b"20260102030405Z", id="four-digit-year-in-utc-time"),
        pytest.param(0x18, b"00000101000000Z", id="year-0"),
        pytest.param(0x18, b"00010101000000+2300", id="before-year-1"),
        pytest.param(0x18, b"20260102030405+2460", id="offset-of-a-day"),
        pytest.param(0x18, b"20260102030405", id="no-zone"),
        pytest.param(0x18, b"20260102030405.5Z", id="fraction"),
        pytest.param(0x18, "2026010203040\u0665Z".encode(), id="other-digits"),
        pytest.param(0x0C, b"20260102030405Z", id="no-time"),
    ],
)
def test_broken_times(tag: int, content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        der.decode_time(tag, content)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_the_shortest(size: int) -> None:
    encoded = der.octet_string(bytes(size))
    assert encoded == core.OctetString(bytes(size)).dump()
    assert der.read(encoded) == (4, len(encoded) - size, len(encoded))
    assert der.elements(encoded) == [(4, 0, len(encoded) - size, len(encoded))]


def test_sets_are_sorted() -> None:
    assert der.set_of(b"\x02\x01\x02", b"\x02\x01\x01") == bytes.fromhex("3106020101020102")


def test_tags_of_context_and_strings() -> None:
    assert der.context(3, b"\x05\x00").hex() == "a3020500"
    assert der.context(0, b"x", constructed=False).hex() == "800178"
    assert der.directory_string("a b?") == b"\x13\x04a b?"
    assert der.directory_string("a*") == b"\x0c\x02a*"
    assert der.bit_string(b"\xa0", 5).hex() == "030205a0"
    with pytest.raises(ValueError, match="ascii"):
        der.ia5_string("ä")


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"\x30", 0, id="tag-only"),
        pytest.param(b"\x30\x01", 0, id="cut-short"),
        pytest.param(b"\x30\x82\x01", 0, id="length-cut-short"),
        pytest.param(b"\x30\x80\x00\x00", 0, id="indefinite"),
        pytest.param(b"\x1f\x81\x01\x00", 0, id="tag-number-above-30"),
        pytest.param(b"\x05\x00", 2, id="behind-the-end"),
    ],
)
def test_reading_refuses(data: bytes, offset: int) -> None:
    with pytest.raises(MalformedMessage):
        der.read(data, offset)


@pytest.mark.parametrize("tag", [0x1F, 0x3F], ids=["primitive", "constructed"])
def test_tag_numbers_above_30_are_never_expected(tag: int) -> None:
    with pytest.raises(MalformedMessage):
        der.read_as(tag, bytes((tag, 1, 0)))


@settings(max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 45))
def test_elements_stay_inside_or_are_refused(data: bytes, start: int, end: int) -> None:
    try:
        found = der.elements(data, start, min(end, len(data)))
    except MalformedMessage:
        return
    for tag, first, content_start, content_end in found:
        assert der.read(data, first) == (tag, content_start, content_end)
        assert content_end <= min(end, len(data))


def test_lists_are_limited() -> None:
    assert len(der.elements(b"\x05\x00" * 4096)) == 4096
    for data, limit in ((b"\x05\x00" * 4097, 4096), (b"\x05\x00" * 3, 2)):
        with pytest.raises(MalformedMessage, match="more than"):
            der.elements(data, limit=limit)


def test_whole_values_only() -> None:
    assert der.content(4, b"\x04\x01a") == b"a"
    assert der.content(4, b"\x04\x81\x02ab") == der.content(4, b"\x04\x82\x00\x02ab") == b"ab"
    for broken in (b"\x04\x01ab", b"\x02\x01a", b"", b"\x04", b"\x04\x82\x00\x01ab", b"\x04\x82\x00\x03ab", b"\x04\x80\0\0"):
        with pytest.raises(MalformedMessage):
            der.content(4, broken)
    with pytest.raises(MalformedMessage):
        der.content(0x1F, b"\x1f\x02ab")
    for broken in (b"", b"\x01\xff"):
        with pytest.raises(MalformedMessage):
            der.decode_bits(broken)
    with pytest.raises(MalformedMessage):
        der.decode_integer(b"")
