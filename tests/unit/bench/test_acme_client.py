"""The client of the ACME benchmark takes no part of an answer for the whole."""

import pytest

from bench.acme_client import read_answer

HEAD = b"HTTP/1.1 200 OK\r\nReplay-Nonce: n1\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe\r\n0\r\n3;x=y\r\n\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(WHOLE, b"hello", id="length"),
        pytest.param(WHOLE.replace(b"Content-Length", b"content-length"), b"hello", id="lower case"),
        pytest.param(HEAD + b"Content-Length: 0\r\n\r\n", b"", id="empty"),
        pytest.param(CHUNKED, b"he\r\n0\r\n!", id="chunks that look like their end"),
    ],
)
def test_an_answer_is_whole_with_its_last_byte(data: bytes, body: bytes) -> None:
    found = read_answer(data, bodiless=False)
    assert found is not None
    assert (found.status, found.body, found.headers["replay-nonce"]) == (200, body, "n1")
    assert all(read_answer(data[:length], bodiless=False) is None for length in range(len(data)))


@pytest.mark.parametrize(
    ("data", "bodiless"),
    [
        pytest.param(HEAD + b"Content-Length: 5\r\n\r\n", True, id="to HEAD"),
        pytest.param(HEAD.replace(b"200 OK", b"204 No Content") + b"\r\n", False, id="no content"),
    ],
)
def test_answers_without_a_body(data: bytes, bodiless: bool) -> None:
    found = read_answer(data, bodiless=bodiless)
    assert found is not None
    assert found.body == b""
