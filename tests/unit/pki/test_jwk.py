"""JSON Web Keys: names as in the standards' examples, signatures of every kind, and keys that are not taken."""

import json
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import Reason, Rejection
from gateway.pki import base64url
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, ML_DSA_ALGORITHMS, jwk_of, load_jwk, load_jwk_text, thumbprint_of
from gateway.pki.jws import verify_mac
from gateway.pki.jws_signer import Signer, flatten_mac
from gateway.pki.keys import PrivateKey

RFC_7638_N = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5Js"
    "GY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
    "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)
RFC_7515_EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC_8037_OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
PAYLOAD_7515 = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, PrivateKey] = {
    "RS256": RSA,
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate(),
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate(),
    "ML-DSA-87": mldsa.MLDSA87PrivateKey.generate(),
}


def spki(key: dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("members", "thumbprint"),
    [
        pytest.param(
            {"kty": "RSA", "n": RFC_7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"},
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            id="RFC 7638, whose other members do not count",
        ),
        pytest.param(RFC_8037_OKP, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", id="RFC 8037"),
    ],
)
def test_thumbprints_of_the_standards(members: Mapping[str, str], thumbprint: str) -> None:
    key = load_jwk(members)
    assert key.thumbprint == thumbprint == thumbprint_of(key.spki)
    assert load_jwk_text(key.text) is key
    assert jwk_of(key.spki) == key.text
    assert load_jwk(json.loads(key.text)) == key


@pytest.mark.parametrize(
    ("members", "algorithm", "signed", "signature"),
    [
        pytest.param(
            RFC_7515_EC,
            "ES256",
            f"eyJhbGciOiJFUzI1NiJ9.{PAYLOAD_7515}",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            id="RFC 7515 A.3",
        ),
        pytest.param(
            RFC_8037_OKP,
            "EdDSA",
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            id="RFC 8037 A.4",
        ),
    ],
)
def test_signatures_of_the_standards(members: Mapping[str, str], algorithm: str, signed: str, signature: str) -> None:
    key = load_jwk(members)
    assert key.verifies(algorithm, base64url.decode(signature), signed.encode())
    assert not key.verifies(algorithm, base64url.decode(signature), signed.encode() + b"x")


def test_mac_of_the_standard() -> None:
    key = base64url.decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
    signed = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD_7515}".encode()
    mac = base64url.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert verify_mac("HS256", key, signed, mac)
    assert not verify_mac("HS256", key, signed, mac[:-1])
    assert not verify_mac("HS256", key, signed, b"")
    assert not verify_mac("HS256", key + b"x", signed, mac)
    assert not verify_mac("HS384", key, signed, mac)
    assert not verify_mac("none", key, signed, mac)
    assert not verify_mac("none", key, signed, b"")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_macs_are_verified(algorithm: str) -> None:
    made = flatten_mac(b"k" * 32, algorithm, {"kid": "1"}, b"payload")
    signed = f"{made['protected']}.{made['payload']}".encode()
    assert verify_mac(algorithm, b"k" * 32, signed, base64url.decode(made["signature"]))


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_algorithm_signs_and_verifies(algorithm: str) -> None:
    signer = Signer.of(KEYS[algorithm], algorithm)
    signature = signer.sign(b"data")
    assert signer.public.verifies(algorithm, signature, b"data")
    assert not signer.public.verifies(algorithm, signature, b"Data")
    assert not signer.public.verifies(algorithm, signature[:-1], b"data")
    assert not signer.public.verifies(algorithm, b"", b"data")
    assert not signer.public.verifies(algorithm, bytes(len(signature)), b"data")


@pytest.mark.parametrize("algorithm", KEYS)
def test_no_algorithm_serves_a_key_of_another_kind(algorithm: str) -> None:
    signature = Signer.of(KEYS[algorithm], algorithm).sign(b"data")
    for other, key in KEYS.items():
        public = Signer.of(key).public
        if algorithm not in public.algorithms:
            assert not public.verifies(algorithm, signature, b"data"), other


def test_every_algorithm_of_the_lists_has_a_key() -> None:
    assert set(KEYS) == set(CLASSICAL_ALGORITHMS) | set(ML_DSA_ALGORITHMS)


def test_a_signature_in_der_is_none() -> None:
    signer = Signer.of(KEYS["ES256"])
    key = KEYS["ES256"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert not signer.public.verifies("ES256", key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data")


def test_a_salt_of_another_length_is_refused() -> None:
    signature = RSA.sign(b"data", padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256())
    assert not Signer.of(RSA, "PS256").public.verifies("PS256", signature, b"data")


def rsa_members(n: int, e: int) -> dict[str, str]:
    def number(value: int) -> str:
        return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8))

    return {"kty": "RSA", "n": number(n), "e": number(e)}


N = RSA.public_key().public_numbers().n
EC = RFC_7515_EC


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        pytest.param({}, "keys of this kind are not accepted", id="no kty"),
        pytest.param({"kty": "oct", "k": "AQAB"}, "the key is not a public key", id="a secret"),
        pytest.param({"kty": ["RSA"]}, "keys of this kind are not accepted", id="a kty that is no text"),
        pytest.param({"kty": "RSA", "n": RFC_7638_N}, "the key is broken", id="RSA without e"),
        pytest.param({**rsa_members(N, 65537), "d": "AQAB"}, "the key is not a public key", id="a private key"),
        pytest.param(rsa_members(N >> 1, 65537), "an RSA key of 2047 bits is not accepted", id="2047 bits"),
        pytest.param(rsa_members((1 << 8192) + 1, 65537), "an RSA key of 8193 bits is not accepted", id="8193 bits"),
        pytest.param(rsa_members(N, 1), "the RSA key is weak", id="exponent 1"),
        pytest.param(rsa_members(N, 65536), "the RSA key is weak", id="even exponent"),
        pytest.param(rsa_members(N, (1 << 33) + 1), "the RSA key is weak", id="long exponent"),
        pytest.param(rsa_members(N - 1, 65537), "the RSA key is weak", id="even modulus"),
        pytest.param(rsa_members(3 * (N >> 1 | 1), 65537), "the RSA key is weak", id="a small divisor"),
        pytest.param({"kty": "RSA", "n": "AA" + RFC_7638_N, "e": "AQAB"}, "the key is broken", id="leading zeros, another name"),
        pytest.param({"kty": "RSA", "n": RFC_7638_N + "==", "e": "AQAB"}, "the key is broken", id="padding"),
        pytest.param({"kty": "RSA", "n": "A" * 4097, "e": "AQAB"}, "the key is broken", id="a member that is too long"),
        pytest.param({**EC, "crv": "P-224"}, "keys on this curve are not accepted", id="P-224"),
        pytest.param({**EC, "crv": "secp256k1"}, "keys on this curve are not accepted", id="secp256k1"),
        pytest.param({**EC, "y": EC["x"]}, "the key is broken", id="a point that is not on the curve"),
        pytest.param({**EC, "x": "AA" + EC["x"]}, "the key is broken", id="a coordinate that is too long"),
        pytest.param({**EC, "x": base64url.encode(bytes(32)), "y": base64url.encode(bytes(32))}, "the key is broken", id="zeros"),
        pytest.param({**RFC_8037_OKP, "crv": "X25519"}, "keys on this curve are not accepted", id="X25519"),
        pytest.param({**RFC_8037_OKP, "x": "AQAB"}, "the key is broken", id="a short Ed25519 key"),
        pytest.param({"kty": "AKP", "alg": "SLH-DSA-SHA2-128s", "pub": "AQAB"}, "keys of this algorithm", id="SLH-DSA"),
        pytest.param({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AQAB"}, "the key is broken", id="a short ML-DSA key"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "x": "\ud800"}, "the key is broken", id="a lone surrogate"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "x": 7}, "the key is broken", id="a number"),
    ],
)
def test_keys_that_are_not_taken(members: Mapping[str, object], detail: str) -> None:
    with pytest.raises(Rejection) as caught:
        load_jwk(members)
    assert caught.value.reason is Reason.ACCOUNT_KEY
    assert detail in caught.value.detail


def test_keys_that_no_account_has() -> None:
    assert thumbprint_of(spki(ec.generate_private_key(ec.SECP256K1()))) is None
    assert thumbprint_of(spki(dsa.generate_private_key(1024))) is None
    assert thumbprint_of(b"nonsense") is None
    with pytest.raises(ValueError):
        Signer.of(ec.generate_private_key(ec.SECP256K1()))
