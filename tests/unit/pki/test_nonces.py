"""Nonces are recognised without having been stored."""

import os
import re
from datetime import UTC, datetime, timedelta

import pytest

from gateway.pki.nonces import NONCE_LIFETIME, make_nonce, read_nonce

KEY, OLD = b"k" * 32, b"o" * 32
NOW = datetime(2027, 1, 1, 12, 0, 0, 700000, tzinfo=UTC)
RANDOM = bytes(range(12))


def test_a_nonce_is_read_again() -> None:
    text = make_nonce(KEY, NOW, RANDOM)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    found = read_nonce((KEY,), text, NOW)
    assert found is not None
    assert (found.id, found.issued_at) == (RANDOM, NOW.replace(microsecond=0))


def test_a_key_that_was_replaced_is_still_known() -> None:
    assert read_nonce((KEY, OLD), make_nonce(OLD, NOW, RANDOM), NOW) is not None
    assert read_nonce((KEY,), make_nonce(OLD, NOW, RANDOM), NOW) is None


@pytest.mark.parametrize(
    ("later", "known"),
    [
        pytest.param(NONCE_LIFETIME - timedelta(seconds=1), True, id="almost an hour old"),
        pytest.param(NONCE_LIFETIME + timedelta(seconds=1), False, id="more than an hour old"),
        pytest.param(-timedelta(minutes=4), True, id="of a clock that is ahead"),
        pytest.param(-timedelta(minutes=6), False, id="of the future"),
    ],
)
def test_it_lives_for_an_hour(later: timedelta, known: bool) -> None:
    assert (read_nonce((KEY,), make_nonce(KEY, NOW, RANDOM), NOW + later) is not None) is known


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("AQAB", id="short"),
        pytest.param("A" * 43, id="zeros"),
        pytest.param("A" * 4096, id="long"),
        pytest.param("!" * 43, id="not base64url"),
        pytest.param("ä" * 43, id="no ASCII"),
    ],
)
def test_what_was_not_handed_out(text: str) -> None:
    assert read_nonce((KEY,), text, NOW) is None


def test_no_character_can_be_changed() -> None:
    text = make_nonce(KEY, NOW, os.urandom(12))
    for place, letter in enumerate(text):
        other = "B" if letter != "B" else "C"
        assert read_nonce((KEY,), text[:place] + other + text[place + 1 :], NOW) is None, place


def test_random_has_its_length() -> None:
    with pytest.raises(ValueError):
        make_nonce(KEY, NOW, b"short")
