"""Private JWKs: every kind that signs tokens, and refusals that tell nothing of the key."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.pki import base64url
from gateway.pki.jwk import jwk_of, load_jwk
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.private_jwk import MAX_JWK, load_private_jwk


def number(value: int, size: int | None = None) -> str:
    return base64url.encode(value.to_bytes(size or (value.bit_length() + 7) // 8))


def members(key: PrivateKey) -> dict[str, Any]:
    public: dict[str, Any] = json.loads(jwk_of(public_key_der(key)) or "")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {**public, "d": number(key.private_numbers().private_value, (key.curve.key_size + 7) // 8)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {**public, "d": base64url.encode(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))}
    assert isinstance(key, rsa.RSAPrivateKey)
    n = key.private_numbers()
    parts = {"d": n.d, "p": n.p, "q": n.q, "dp": n.dmp1, "dq": n.dmq1, "qi": n.iqmp}
    return {**public, **{name: number(value) for name, value in parts.items()}}


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048"])
def test_kinds(spec: str) -> None:
    key = generate_private_key(spec)
    loaded, kid = load_private_jwk(json.dumps(members(key)).encode())
    assert public_key_der(loaded) == public_key_der(key)
    assert kid == load_jwk(json.loads(jwk_of(public_key_der(key)) or "")).thumbprint


def test_its_own_kid() -> None:
    key = generate_private_key("ec-p256")
    assert load_private_jwk(json.dumps({**members(key), "kid": "mine", "use": "sig", "alg": "ES256"}).encode())[1] == "mine"
    with pytest.raises(ValueError, match="kid that is no text"):
        load_private_jwk(json.dumps({**members(key), "kid": 7}).encode())


def test_another_key_s_private_half() -> None:
    one, two = members(generate_private_key("ec-p256")), members(generate_private_key("ec-p256"))
    with pytest.raises(ValueError, match="not that of its public one"):
        load_private_jwk(json.dumps({**one, "d": two["d"]}).encode())


def test_rsa_numbers_that_do_not_fit() -> None:
    one = members(generate_private_key("rsa-2048"))
    with pytest.raises(ValueError, match=r"^is not a private JWK that can be read$"):
        load_private_jwk(json.dumps({**one, "dp": one["dq"]}).encode())


EC = members(generate_private_key("ec-p256"))


@pytest.mark.parametrize(
    "changes",
    [{"kty": "oct"}, {"crv": "P-224"}, {"crv": "secp256k1"}, {"x": "AA"}, {"d": "="}, {"d": "AA"}, {"d": ""}, {"kty": 7}],
    ids=str,
)
def test_what_cannot_be_read(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^is not a private JWK that can be read$|^has a private key that is not") as caught:
        load_private_jwk(json.dumps({**EC, **changes}).encode())
    assert EC["d"] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_private_key() -> None:
    public = {name: value for name, value in EC.items() if name != "d"}
    with pytest.raises(ValueError, match="holds no private key"):
        load_private_jwk(json.dumps(public).encode())
    for data in (b"", b"[]", b"-----BEGIN EC PRIVATE KEY-----", b'{"d":7}', b"\xff"):
        with pytest.raises(ValueError, match="is not a private JWK"):
            load_private_jwk(data)
    with pytest.raises(ValueError, match="bytes"):
        load_private_jwk(b" " * (MAX_JWK + 1))
