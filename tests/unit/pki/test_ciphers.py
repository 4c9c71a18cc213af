from __future__ import annotations

import pytest

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.ciphers import find_cipher, parse_cipher

NAMES = ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"]


@pytest.mark.parametrize("name", NAMES)
def test_an_identifier_is_read_back(name: str) -> None:
    cipher = find_cipher(name)
    iv = bytes(range(cipher.block_size))
    assert parse_cipher(der.content(der.SEQUENCE, cipher.identifier(iv))) == (name, iv)


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_goes_on_from_update_to_update(name: str) -> None:
    cipher = find_cipher(name)
    key, iv, block = b"k" * cipher.key_size, bytes(cipher.block_size), b"b" * cipher.block_size
    encryptor = cipher.encryptor(key, iv)
    ciphertext = encryptor.update(block) + encryptor.update(block)
    assert ciphertext == cipher.encryptor(key, iv).update(block * 2)
    assert cipher.decryptor(key, iv).update(ciphertext) == block * 2


def test_of_an_unknown_cipher_the_oid_is_told() -> None:
    assert parse_cipher(der.oid("1.2.840.113549.3.2") + der.sequence(der.integer(58))) == ("1.2.840.113549.3.2", b"")
    with pytest.raises(Rejection) as refused:
        find_cipher("1.2.840.113549.3.2")
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(b"", id="absent"),
        pytest.param(der.null(), id="null"),
        pytest.param(der.octet_string(bytes(15)), id="short"),
        pytest.param(der.octet_string(bytes(17)), id="long"),
        pytest.param(der.octet_string(bytes(16)) + b"\0", id="followed-by-a-byte"),
    ],
)
def test_an_iv_that_does_not_fit(parameters: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_cipher(der.oid(find_cipher("aes-128-cbc").oid) + parameters)
