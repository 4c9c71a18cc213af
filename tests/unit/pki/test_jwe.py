"""JWE by password: what smallstep's library makes is opened; everything else is refused in a sentence."""

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from gateway.pki import base64url
from gateway.pki.jwe import MAX_ITERATIONS, MAX_JWE, decrypt_jwe, is_jwe

PLAIN = b'{"kty":"EC"}'
PASSWORD = b"correct horse"
SALT = bytes(range(16))
IV = bytes(12)
DERIVED = {"PBES2-HS256+A128KW": ("sha256", 16), "PBES2-HS384+A192KW": ("sha384", 24), "PBES2-HS512+A256KW": ("sha512", 32)}

# By go.step.sm/crypto/jose of Debian 12, GenerateDefaultKeyPair with the password `a password, long`.
SMALLSTEP = (
    "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ciLCJjdHkiOiJqd2sranNvbiIsImVuYyI6IkEyNTZHQ00iLCJwMmMiOjEwMDAwMCwicDJzIjoiZT"
    "RCdVBVSkhzNlRGdUFmNkZ1R09XdyJ9.cjXu2Iur6NR9GE5JS1GhPjOVPOczogNVlTJdeA3OMwg2ojI_LE5AHw.RmPqV08vtMQko0kg.m0vQz9_"
    "9WaUUONLGUQbooPvBCCdgojdfUhx691GhgNtGDUfjRMzxo-KhKrc1dw1MkOiiKGePvNmbHE5k16BC52x9wHjFbP0h2Mdyks936nlZWTo28l3ZL"
    "ZFpBVyjo8OzyekD-WE-0WnBVDlHHqOz3gUSTFSRRxXquVLyOkyjriXebp71QGEV1la4AUbjlexeHmqp7P9wY1dfkQ0heveVyjJHI1I-0_Cx_ss"
    "sQXwz9i8gFV6sC9z-nk5EuBG3G_zYq62gzjWDocjT9KR3kbpI7QGlvNu4ASRhmA5fPA6RTPI1klp2SYT5qaXqOTYOhRF3YkJalpf0iV3bYjkw0"
    "8Q.mDVwblMruje1lv0g18Xocg"
)


def encrypt(alg: str = "PBES2-HS256+A128KW", enc: str = "A256GCM", size: int = 32) -> list[str]:
    """Return the five parts of a JWE of PLAIN."""
    digest, length = DERIVED[alg]
    wrapping = hashlib.pbkdf2_hmac(digest, PASSWORD, alg.encode() + b"\0" + SALT, 1000, length)
    protected = base64url.encode(json.dumps({"alg": alg, "enc": enc, "p2s": base64url.encode(SALT), "p2c": 1000}).encode())
    sealed = AESGCM(bytes(size)).encrypt(IV, PLAIN, protected.encode())
    parts = (aes_key_wrap(wrapping, bytes(size)), IV, sealed[:-16], sealed[-16:])
    return [protected, *map(base64url.encode, parts)]


def as_json(parts: list[str]) -> dict[str, Any]:
    return dict(zip(("protected", "encrypted_key", "iv", "ciphertext", "tag"), parts, strict=True))


@pytest.mark.parametrize(
    ("alg", "enc", "size"),
    [("PBES2-HS256+A128KW", "A256GCM", 32), ("PBES2-HS384+A192KW", "A192GCM", 24), ("PBES2-HS512+A256KW", "A128GCM", 16)],
)
def test_algorithms(alg: str, enc: str, size: int) -> None:
    assert decrypt_jwe(".".join(encrypt(alg, enc, size)), PASSWORD) == PLAIN


def test_flattened_and_general_json() -> None:
    flat = as_json(encrypt())
    assert decrypt_jwe(json.dumps(flat), PASSWORD) == PLAIN
    general = {**flat, "recipients": [{"encrypted_key": flat["encrypted_key"]}]}
    del general["encrypted_key"]
    assert decrypt_jwe(json.dumps(general), PASSWORD) == PLAIN


def test_smallsteps_own() -> None:
    assert json.loads(decrypt_jwe(SMALLSTEP, b"a password, long"))["kty"] == "EC"


def test_another_password() -> None:
    with pytest.raises(ValueError, match="the password is another one"):
        decrypt_jwe(".".join(encrypt()), b"wrong")


@pytest.mark.parametrize("part", range(5))
def test_every_part_counts(part: int) -> None:
    parts = encrypt()
    parts[part] = ("B" if parts[part][0] == "A" else "A") + parts[part][1:]
    with pytest.raises(ValueError, match=r"^(is not a JWE|cannot be decrypted)"):
        decrypt_jwe(".".join(parts), PASSWORD)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"p2c": MAX_ITERATIONS + 1}, "rounds outside"),
        ({"p2c": 0}, "rounds outside"),
        ({"p2c": "1000"}, "rounds outside"),
        ({"p2s": None}, "salt that is missing"),
        ({"p2s": "AAAA"}, "salt that is missing or short"),
        ({"p2s": "=!"}, "salt that is missing"),
        ({"enc": "A128CBC-HS256"}, "is encrypted by 'A128CBC-HS256'"),
        ({"enc": None}, "is encrypted by 'None'"),
        ({"zip": "DEF"}, "extensions"),
        ({"crit": ["x"]}, "extensions"),
        ({"alg": "dir"}, "wrapped by 'dir'"),
        ({"alg": None}, "wrapped by 'None'"),
        ({"alg": ["PBES2-HS256+A128KW"]}, "wrapped by"),
    ],
)
def test_headers_that_are_refused(more: dict[str, Any], sentence: str) -> None:
    parts = encrypt()
    header = {**json.loads(base64url.decode(parts[0])), **more}
    header = {name: value for name, value in header.items() if value is not None}
    with pytest.raises(ValueError, match=sentence):
        decrypt_jwe(".".join([base64url.encode(json.dumps(header).encode()), *parts[1:]]), PASSWORD)


def test_what_has_another_form() -> None:
    parts = encrypt()
    flat = as_json(parts)
    for text in (
        "",
        "a.b.c",
        ".".join([*parts, ""]),
        "{",
        "[]",
        json.dumps({**flat, "tag": 7}),
        json.dumps({**flat, "header": {"alg": "dir"}}),
        json.dumps({**flat, "aad": "AAAA"}),
        json.dumps({**flat, "recipients": []}),
        json.dumps({**flat, "recipients": 7}),
        ".".join([*parts[:2], "AAAA", *parts[3:]]),
    ):
        with pytest.raises(ValueError, match="is not a JWE that can be read"):
            decrypt_jwe(text, PASSWORD)
    with pytest.raises(ValueError, match="characters"):
        decrypt_jwe("." * (MAX_JWE + 1), PASSWORD)


def test_forms() -> None:
    parts = encrypt()
    assert is_jwe(".".join(parts))
    assert is_jwe(json.dumps(as_json(parts)))
    assert not is_jwe('{"kty":"EC"}')
    assert not is_jwe("{")
    assert not is_jwe("a.b.c")
