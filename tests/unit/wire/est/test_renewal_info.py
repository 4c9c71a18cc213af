"""Certificates are named as in ACME renewal information, and told when to be renewed (RFC 9773 §4)."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.errors import MalformedMessage
from gateway.wire.est.renewal_info import encode_window, format_certificate_id, parse_certificate_id


@pytest.mark.parametrize(
    ("text", "key_id", "serial"),
    [
        pytest.param(
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "69885b6b87464041e1b37b847ba0ae2cde01c8d4", 0x87654321, id="rfc-9773"
        ),
        pytest.param(
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ=.AIdlQyE=", "69885b6b87464041e1b37b847ba0ae2cde01c8d4", 0x87654321, id="padded"
        ),
        pytest.param("AQ.AQ", "01", 1, id="short"),
    ],
)
def test_names_of_certificates(text: str, key_id: str, serial: int) -> None:
    assert parse_certificate_id(text) == (bytes.fromhex(key_id), serial)
    assert format_certificate_id(bytes.fromhex(key_id), serial) == text.replace("=", "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("aYhba4dGQEHhs3uEe6CuLN4ByNQ", id="no-serial"),
        pytest.param(".AIdlQyE", id="no-key"),
        pytest.param("aYhb.AIdl.AIdl", id="three-parts"),
        pytest.param("aYh+.AIdl", id="not-url-safe"),
        pytest.param("A.AIdl", id="no-base64"),
        pytest.param("aYhb." + "A" * 40, id="long-serial"),
        pytest.param("A" * 200 + ".AIdl", id="long-key"),
        pytest.param("aYhb.AIdl\n", id="line-break"),
    ],
)
def test_what_names_no_certificate(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_certificate_id(text)


def test_a_window() -> None:
    start = datetime(2027, 1, 2, 3, 4, 5, 600000, tzinfo=timezone(timedelta(hours=1)))
    body = json.loads(encode_window(start, datetime(2027, 1, 3, tzinfo=UTC)))
    assert body == {"suggestedWindow": {"start": "2027-01-02T02:04:05Z", "end": "2027-01-03T00:00:00Z"}}
