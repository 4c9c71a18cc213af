"""store.key: parsing, HMACs under older keys, sealed values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError, StoreRefused
from gateway.store.keys import MAX_KEYS, KeyRing, generate_store_key

A, B = bytes(range(32)), bytes(range(1, 33))


def test_parses_newest_first() -> None:
    assert KeyRing.parse(f"# newest\n{A.hex()}\n\n  {B.hex().upper()}\r\n".encode()).keys == (A, B)


def test_generated_key_parses() -> None:
    line = generate_store_key()
    assert KeyRing.parse(line.encode()).keys == (bytes.fromhex(line),)
    assert generate_store_key() != line


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"# only a comment\n", id="comment"),
        pytest.param(b"00" * 31, id="short"),
        pytest.param(b"00" * 33, id="long"),
        pytest.param(b"zz" * 32, id="no hex"),
        pytest.param(b"\xff\xfe" * 32, id="no text"),
        pytest.param(A.hex().encode() + b"\n" + b"deadbeef", id="second line"),
        pytest.param((A.hex() + "\n").encode() * 2, id="twice the same"),
        pytest.param(b"\n".join(bytes([n] * 32).hex().encode() for n in range(MAX_KEYS + 1)), id="too many"),
    ],
)
def test_refuses_and_never_repeats(text: bytes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        KeyRing.parse(text)
    assert "deadbeef" not in str(refused.value)
    assert A.hex() not in str(refused.value)


def test_repr_shows_no_key() -> None:
    ring = KeyRing((A,))
    assert A.hex() not in repr(ring)
    assert repr(A) not in repr(ring)


def test_older_keys_still_recognise() -> None:
    before, after = KeyRing((A,)), KeyRing((B, A))
    assert before.mac("challenge", b"x") in after.macs("challenge", b"x")
    assert after.mac("challenge", b"x") == after.macs("challenge", b"x")[0] != before.mac("challenge", b"x")
    assert before.newest_id == after.ids[1]


def test_purposes_are_apart() -> None:
    ring = KeyRing((A,))
    assert ring.mac("a", b"x") != ring.mac("b", b"x")
    with pytest.raises(StoreRefused, match="changed"):
        ring.decrypt("b", ring.encrypt("a", b"x"))


@given(st.binary(max_size=200), st.text(max_size=20))
def test_opens_what_it_sealed(data: bytes, purpose: str) -> None:
    sealed = KeyRing((A,)).encrypt(purpose, data)
    assert KeyRing((B, A)).decrypt(purpose, sealed) == data
    assert KeyRing((A,)).encrypt(purpose, data) != sealed


@given(st.data())
def test_notices_every_changed_byte(data: st.DataObject) -> None:
    ring = KeyRing((A,))
    sealed = bytearray(ring.encrypt("p", b"secret"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreRefused):
        ring.decrypt("p", bytes(sealed))


@given(st.integers(0, 42))
def test_refuses_what_is_cut(length: int) -> None:
    ring = KeyRing((A,))
    with pytest.raises(StoreRefused):
        ring.decrypt("p", ring.encrypt("p", b"secret")[:length])


def test_other_key_is_named_as_the_cause() -> None:
    with pytest.raises(StoreRefused, match="does not hold"):
        KeyRing((B,)).decrypt("p", KeyRing((A,)).encrypt("p", b"x"))
