from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import lcm

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.errors import MalformedMessage
from gateway.pki import der, keys
from gateway.pki.keys import public_key_der
from gateway.pki.public_keys import describe_algorithm, describe_public_key

KeyOf = Callable[[str], keys.PrivateKey]


@pytest.mark.parametrize(
    ("spec", "algorithm", "bits", "curve", "digest"),
    [
        pytest.param("ec-p256", "ec", 256, "P-256", "sha256", id="ec-p256"),
        pytest.param("ec-p384", "ec", 384, "P-384", "sha384", id="ec-p384"),
        pytest.param("ec-p521", "ec", 521, "P-521", "sha512", id="ec-p521"),
        pytest.param("rsa-2048", "rsa", 2048, None, "sha256", id="rsa-2048"),
        pytest.param("ed25519", "ed25519", 256, None, "none", id="ed25519"),
        pytest.param("ml-dsa-44", "ml-dsa-44", 10496, None, "none", id="ml-dsa-44"),
        pytest.param("ml-dsa-65", "ml-dsa-65", 15616, None, "none", id="ml-dsa-65"),
        pytest.param("ml-dsa-87", "ml-dsa-87", 20736, None, "none", id="ml-dsa-87"),
    ],
)
def test_keys_of_every_kind(spec: str, algorithm: str, bits: int, curve: str | None, digest: str, key_of: KeyOf) -> None:
    key = key_of(spec)
    spki = keys.public_key_der(key)
    described = keys.describe_public_key(spki)
    assert (described.algorithm, described.bits, described.curve) == (algorithm, bits, curve)
    assert (described.der, described.sha256) == (spki, hashlib.sha256(spki).digest())
    assert keys.default_digest(key) == digest
    pem = keys.serialize_private_key(key)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert keys.key_matches(keys.load_private_key(pem), spki)
    assert spec in keys.KEY_SPECS


def test_ed448_is_read_and_signs() -> None:
    key = keys.load_private_key(keys.serialize_private_key(ed448.Ed448PrivateKey.generate()))
    assert keys.describe_public_key(keys.public_key_der(key)).algorithm == "ed448"
    assert len(keys.sign(key, b"x")) == 114


def test_other_words_make_no_key() -> None:
    with pytest.raises(ValueError, match="ec-p256"):
        keys.generate_private_key("rsa-1024")


def test_encrypted_keys_need_their_password(key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert keys.key_matches(keys.load_private_key(pem, b"secret"), keys.public_key_der(key))
    for password in (None, b"wrong"):
        with pytest.raises(ValueError, match="password") as raised:
            keys.load_private_key(pem, password)
        assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="password"):
        keys.load_private_key(keys.serialize_private_key(key), b"secret")


def small_rsa() -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = rsa.generate_private_key(65537, 1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="broken"),
        pytest.param(
            x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), id="cannot-sign"
        ),
    ],
)
def test_what_is_no_signing_key(pem: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        keys.load_private_key(pem)


def test_legacy_pem_forms_are_read(key_of: KeyOf) -> None:
    for spec in ("rsa-2048", "ec-p256"):
        pem = key_of(spec).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert keys.key_matches(keys.load_private_key(pem), keys.public_key_der(key_of(spec)))


def test_another_encoding_of_the_same_point_matches() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    compressed = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    algorithm = der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.2.840.10045.3.1.7"))
    spki = der.sequence(algorithm, der.bit_string(compressed))
    assert keys.key_matches(key, spki)
    assert keys.describe_public_key(spki).curve == "P-256"
    assert not keys.key_matches(ec.generate_private_key(ec.SECP256R1()), spki)


@pytest.mark.parametrize(
    ("algorithm", "kind", "curve"),
    [
        pytest.param(der.sequence(der.oid("1.2.3.4")), "unknown", None, id="unknown"),
        pytest.param(der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.3.132.0.10")), "ec", "secp256k1", id="secp256k1"),
        pytest.param(der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.2.3.4")), "ec", "1.2.3.4", id="unknown-curve"),
        pytest.param(der.sequence(der.oid("1.2.840.10045.2.1"), der.sequence()), "ec", "explicit", id="explicit-curve"),
    ],
)
def test_keys_that_policy_will_refuse_are_described(algorithm: bytes, kind: str, curve: str | None) -> None:
    described = keys.describe_public_key(der.sequence(algorithm, der.bit_string(b"\x04" + bytes(64))))
    assert (described.algorithm, described.curve) == (kind, curve)


@pytest.mark.parametrize(
    "spki",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x00", id="no-fields"),
        pytest.param(der.sequence(der.sequence(), der.bit_string(b"x")), id="no-algorithm"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2.3")), der.octet_string(b"x")), id="no-bit-string"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2.3")), der.bit_string(b"x", 3)), id="unused-bits"),
        pytest.param(der.sequence(der.sequence(der.oid("1.2.3")), der.bit_string(b"x"), der.null()), id="field-behind"),
        pytest.param(der.sequence(der.sequence(der.oid("1.3.101.112")), der.bit_string(bytes(31))), id="ed25519-of-31-bytes"),
        pytest.param(
            der.sequence(der.sequence(der.oid("1.3.101.112"), der.null()), der.bit_string(bytes(32))), id="ed25519-with-null"
        ),
        pytest.param(der.sequence(der.sequence(der.oid("1.2.840.10045.2.1")), der.bit_string(b"x")), id="ec-without-curve"),
        pytest.param(
            der.sequence(
                der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()),
                der.bit_string(der.sequence(der.integer(-3), der.integer(3))),
            ),
            id="negative-modulus",
        ),
    ],
)
def test_broken_public_keys(spki: bytes) -> None:
    with pytest.raises(MalformedMessage):
        keys.describe_public_key(spki)


def test_a_small_rsa_key_is_refused_or_read_by_its_size() -> None:
    assert keys.describe_public_key(keys.public_key_der(keys.load_private_key(small_rsa()))).bits == 1024


def rsa_numbers(*, of: Callable[[int], int] = lambda prime: prime, **wrong: int) -> bytes:
    """Return the PEM of an RSA key whose p is made by `of` from a prime, with some numbers replaced."""
    first, second = RSA.private_numbers(), OTHER_RSA.private_numbers()
    p, q, e = of(first.p), second.q, 65537
    d = pow(e, -1, lcm(p - 1, q - 1))
    values = {"p": p, "q": q, "d": d, "dmp1": d % (p - 1), "dmq1": d % (q - 1), "iqmp": pow(q, -1, p)} | wrong
    numbers = rsa.RSAPrivateNumbers(public_numbers=rsa.RSAPublicNumbers(e, p * q), **values)
    return keys.serialize_private_key(numbers.private_key(unsafe_skip_rsa_key_validation=True))


RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))


def test_an_rsa_key_is_read_by_its_numbers() -> None:
    assert isinstance(keys.load_private_key(rsa_numbers()), rsa.RSAPrivateKey)


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(lambda: rsa_numbers(d=RSA.private_numbers().d), id="d of another key"),
        pytest.param(lambda: rsa_numbers(dmp1=RSA.private_numbers().dmp1 + 2), id="d mod p-1"),
        pytest.param(lambda: rsa_numbers(dmq1=OTHER_RSA.private_numbers().dmq1 + 2), id="d mod q-1"),
        pytest.param(lambda: rsa_numbers(iqmp=3), id="inverse of q"),
        pytest.param(lambda: rsa_numbers(of=lambda prime: prime + 2 if (prime + 2) % 65537 != 1 else prime + 4), id="no prime"),
    ],
)
def test_a_damaged_rsa_key_is_refused(pem: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match="not a PEM private key that can be read"):
        keys.load_private_key(pem())


@pytest.mark.parametrize(
    ("spec", "bits"), [("rsa-2048", 0), ("ec-p256", 256), ("ec-p521", 521), ("ed25519", 256), ("ml-dsa-65", 15616)]
)
def test_an_algorithm_names_a_kind_of_key(key_of: KeyOf, spec: str, bits: int) -> None:
    whole = public_key_der(key_of(spec))
    described, named = describe_public_key(whole), describe_algorithm(_algorithm(whole))
    assert (named.algorithm, named.curve, named.bits) == (described.algorithm, described.curve, bits)


def test_an_algorithm_of_no_key_is_unknown() -> None:
    assert describe_algorithm(der.sequence(der.oid("1.3.101.110"))).algorithm == "unknown"


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(der.null(), id="another-type"),
        pytest.param(der.sequence(), id="empty"),
        pytest.param(der.sequence(der.oid("1.2.840.113549.1.1.1")) + b"\0", id="something-behind"),
        pytest.param(der.sequence(der.oid("1.2.840.10045.2.1")), id="ec-without-curve"),
        pytest.param(der.sequence(der.oid("1.3.101.112"), der.null()), id="ed25519-with-parameters"),
        pytest.param(b"\x30\x02\x06\x09", id="cut"),
    ],
)
def test_broken_key_algorithms(algorithm: bytes) -> None:
    with pytest.raises(MalformedMessage):
        describe_algorithm(algorithm)


def _algorithm(spki: bytes) -> bytes:
    whole = der.content(der.SEQUENCE, spki)
    _, _, end = der.read(whole)
    return whole[:end]
