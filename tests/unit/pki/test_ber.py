from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedMessage, Reason
from gateway.pki import der
from gateway.pki.ber import Bounds, normalize

TESTDATA = Path(__file__).parents[3] / "testdata"
MESSAGES = sorted((*TESTDATA.glob("pkcs10/*.der"), *TESTDATA.glob("scep/*.der")))


@pytest.mark.parametrize("path", MESSAGES, ids=lambda p: p.name)
def test_real_messages_normalize_and_stay_so(path: Path) -> None:
    data = path.read_bytes()
    once = normalize(data)
    assert normalize(once) is once


@pytest.mark.parametrize(
    ("ber", "expected"),
    [
        pytest.param("3080 020101 0000", "3003020101", id="indefinite-sequence"),
        pytest.param("3080 3080 020101 0000 0500 0000", "3007 3003020101 0500", id="nested-indefinite"),
        pytest.param("3080 0000", "3000", id="empty-indefinite"),
        pytest.param("2480 0402aabb 0401cc 0000", "0403aabbcc", id="octet-string-indefinite"),
        pytest.param("2407 0402aabb 0401cc", "0403aabbcc", id="octet-string-constructed"),
        pytest.param("2400", "0400", id="octet-string-empty"),
        pytest.param("240a 2405 0401aa 0400 0401bb", "0402aabb", id="octet-string-in-octet-string"),
        pytest.param("2c06 0401 61 0c01 62", "0c026162", id="utf8-of-octet-strings"),
        pytest.param("2308 030200aa 030204b0", "030304aab0", id="bit-string"),
        pytest.param("a080 0401aa 0000", "a003 0401aa", id="explicit-context-stays"),
        pytest.param(
            "3015 06092a864886f70d010701 3000 a006 0401aa 0401bb",
            "3011 06092a864886f70d010701 3000 8002aabb",
            id="encrypted-content-of-go-clients",
        ),
        pytest.param(
            "3080 06092a864886f70d010701 3080 0000 a080 0401aa 0401bb 0000 0000",
            "3011 06092a864886f70d010701 3000 8002aabb",
            id="encrypted-content-indefinite",
        ),
    ],
)
def test_rewrites(ber: str, expected: str) -> None:
    assert normalize(bytes.fromhex(ber)) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    "same",
    [
        pytest.param("3010 06092a864886f70d010701 a003 0401aa", id="encapsulated-content-is-explicit"),
        pytest.param("300a 06012a 3000 a003 0401aa", id="another-object-identifier-first"),
        pytest.param("3012 06092a864886f70d010701 3000 a003 0201aa", id="no-octet-string-inside"),
        pytest.param("308103 020101", id="length-longer-than-needed"),
        pytest.param("bf8001 03 020101", id="tag-number-of-two-bytes"),
        pytest.param("0400", id="primitive"),
    ],
)
def test_leaves_alone_and_returns_the_same_object(same: str) -> None:
    data = bytes.fromhex(same)
    assert normalize(data) is data


def test_unchanged_elements_keep_their_bytes() -> None:
    inner = bytes.fromhex("308103 020101")  # a length longer than needed, maybe signed over
    assert normalize(b"\x30\x80" + inner + b"\0\0") == b"\x30\x06" + inner


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30", id="tag-only"),
        pytest.param(b"\x30\x05\x02\x01\x01", id="length-beyond-end"),
        pytest.param(b"\x30\x03\x02\x02\x01\x01", id="child-beyond-parent"),
        pytest.param(b"\x30\x03\x02\x01\x01\x00", id="byte-behind"),
        pytest.param(b"\x05\x00\x05\x00", id="second-value"),
        pytest.param(b"\x30\x80\x00\x00\x05\x00", id="second-value-behind-indefinite"),
        pytest.param(b"\x30\x80", id="indefinite-without-end"),
        pytest.param(b"\x30\x80\x00", id="half-an-end"),
        pytest.param(b"\x30\x80" * 20, id="nested-indefinite-without-end"),
        pytest.param(b"\x30\x04\x30\x80\x00\x00\x00\x00", id="end-outside-parent"),
        pytest.param(b"\x04\x80\x00\x00", id="primitive-indefinite"),
        pytest.param(b"\x30\x02\x00\x00", id="end-without-beginning"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="length-of-4-gb"),
        pytest.param(b"\x30\x85\x00\x00\x00\x00\x01\x00", id="length-of-five-bytes"),
        pytest.param(b"\x30\xff", id="reserved-length"),
        pytest.param(b"\x06\x00", id="empty-object-identifier"),
        pytest.param(b"\x24\x03\x02\x01\x01", id="integer-in-octet-string"),
        pytest.param(b"\x23\x06\x03\x02\x04\xb0\x03\x00", id="bit-string-segment-empty"),
        pytest.param(b"\x23\x08\x03\x02\x04\xb0\x03\x02\x00\xaa", id="unused-bits-in-the-middle"),
        pytest.param(b"\x3f\xff\xff\xff\xff\xff\x01\x00", id="endless-tag"),
        pytest.param(b"\x30\x80\x06\x80\x00\x00\x00\x00", id="object-identifier-indefinite"),
    ],
)
def test_refuses(broken: bytes) -> None:
    with pytest.raises(MalformedMessage):
        normalize(broken)


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x30" + der.tlv(4, data)[1:]
    return data


HOSTILE = [
    pytest.param(b"\x30\x83\x10\x00\x05\x06\x83\x10\x00\x00" + b"\x81" * (1 << 20), id="object-identifier-of-1-MB"),
    pytest.param(b"\x30\x82\xea\x64\x06\x82\xea\x60" + b"\x81" * 60000, id="object-identifier-of-60-kB"),
    pytest.param(b"\x30\x80\x06\x82\xea\x60" + b"\x81" * 60000 + b"\0\0", id="object-identifier-of-60-kB-in-indefinite"),
    pytest.param(nested(16000), id="16000-deep"),
    pytest.param(b"\x30\x80" * 16000 + b"\0\0" * 16000, id="16000-deep-indefinite"),
    pytest.param(b"\x30\x80" * 32768, id="32768-deep-indefinite-without-end"),
    pytest.param(b"\x24\x80" * 16000 + b"\0\0" * 16000, id="16000-deep-octet-strings"),
    pytest.param(b"\x30\x82\xea\x60" + b"\x05\x00" * 30000, id="30000-elements"),
    pytest.param(b"\x30\x80" + b"\x05\x00" * 30000 + b"\0\0", id="30000-elements-indefinite"),
    pytest.param(b"\x30\x80" + b"\x04\x01\xaa" * 8190 + b"\0\0", id="8190-elements-are-fine"),
]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_input_costs_little(data: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(MalformedMessage):
        normalize(data)
    assert time.process_time() - began < 0.05


def test_each_bound_is_named() -> None:
    with pytest.raises(MalformedMessage, match="exceed") as raised:
        normalize(b"\x04\x82\xff\xff" + bytes(65535))
    assert raised.value.reason is Reason.TOO_LARGE
    with pytest.raises(MalformedMessage, match="deep"):
        normalize(nested(34))
    assert normalize(nested(32))
    with pytest.raises(MalformedMessage, match="deep"):
        normalize(b"\x30\x80" + nested(33) + b"\0\0")
    with pytest.raises(MalformedMessage, match="elements"):
        normalize(b"\x30\x06" + b"\x05\x00" * 3, Bounds(max_elements=3))
    with pytest.raises(MalformedMessage, match="65 bytes") as raised:
        normalize(b"\x06\x41" + b"\x01" * 65)
    assert raised.value.reason is Reason.MALFORMED


def test_large_messages_pass_with_other_bounds() -> None:
    data = der.octet_string(bytes(1 << 17))
    assert normalize(data, Bounds(max_bytes=1 << 18)) is data


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=64)
    | st.lists(st.sampled_from([b"\x30\x80", b"\x24\x80", b"\xa0\x80", b"\0\0", b"\x04\x01a", b"\x05\x00"])).map(b"".join)
)
def test_only_malformed_message_escapes(data: bytes) -> None:
    try:
        once = normalize(data)
    except MalformedMessage:
        return
    assert normalize(once) is once


trees = st.recursive(
    st.binary(max_size=200).map(lambda b: (4, b)),
    lambda children: st.tuples(st.just(0x30), st.lists(children, max_size=4)),
    max_leaves=12,
)


def encode(tree: tuple[int, object], indefinite: bool) -> bytes:
    tag, value = tree
    if isinstance(value, bytes):
        if indefinite and value:
            return b"\x24\x80" + b"".join(der.octet_string(value[i : i + 7]) for i in range(0, len(value), 7)) + b"\0\0"
        return der.tlv(tag, value)
    assert isinstance(value, list)
    body = b"".join(encode(child, indefinite) for child in value)
    return bytes((tag, 0x80)) + body + b"\0\0" if indefinite else der.tlv(tag, body)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_ber_tree_becomes_its_der(tree: tuple[int, object]) -> None:
    assert normalize(encode(tree, indefinite=True)) == encode(tree, indefinite=False)
