"""base64url of JOSE has one spelling for each value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pki import base64url


@given(st.binary(max_size=64))
def test_it_goes_both_ways(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        pytest.param("", b"", id="empty"),
        pytest.param("_-8", b"\xff\xef", id="its own alphabet"),
        pytest.param("AQAB", b"\x01\x00\x01", id="whole"),
    ],
)
def test_values(text: str, data: bytes) -> None:
    assert base64url.decode(text) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("AQ==", id="padding"),
        pytest.param("AQ=", id="half of the padding"),
        pytest.param("+/8", id="the other alphabet"),
        pytest.param("AQ AB", id="a space"),
        pytest.param("AQAB\n", id="a line break"),
        pytest.param("A", id="a single character"),
        pytest.param("AR", id="bits left over"),
        pytest.param("AQB", id="bits left over of two octets"),
        pytest.param("ÄÄÄÄ", id="no ASCII"),
        pytest.param("AQ\0B", id="NUL"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError):
        base64url.decode(text)
