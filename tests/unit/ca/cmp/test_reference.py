"""What is remembered of a transaction comes back from the ledger as it went there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ca.cmp.reference import Waiting
from gateway.ca.interfaces import UnknownResult

NONCES = st.none() | st.binary(min_size=1, max_size=64)


@given(st.builds(Waiting, st.integers(-1, 2**31), NONCES, NONCES, st.none() | st.binary(min_size=1, max_size=200)))
def test_there_and_back(waiting: Waiting) -> None:
    text = waiting.to_text()
    assert text.isascii()
    assert text.isprintable()
    assert Waiting.from_text(text) == waiting


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("x", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("null", id="null"),
        pytest.param("{}", id="no id"),
        pytest.param('{"id":true}', id="id is a boolean"),
        pytest.param('{"id":"0"}', id="id is text"),
        pytest.param('{"id":' + "9" * 30 + "}", id="id is huge"),
        pytest.param('{"id":0,"nonce":"zz"}', id="nonce is no hex"),
        pytest.param('{"id":0,"nonce":7}', id="nonce is a number"),
        pytest.param('{"id":0,"certificate":"?"}', id="certificate is no base64"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"id":0,"x":"' + "x" * 100_000 + '"}', id="long"),
    ],
)
def test_what_is_none_of_ours(text: str) -> None:
    with pytest.raises(UnknownResult):
        Waiting.from_text(text)
