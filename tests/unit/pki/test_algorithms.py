from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import algorithms, der, keys
from gateway.pki.algorithms import digest_name, digest_oid, hash_algorithm, verify_signature

KeyOf = Callable[[str], keys.PrivateKey]

FAST_SPECS = ["rsa-2048", "ec-p256", "ec-p384", "ec-p521", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]


@pytest.mark.parametrize("spec", FAST_SPECS)
def test_what_a_key_signs_it_verifies(spec: str, key_of: KeyOf) -> None:
    key = key_of(spec)
    digest = keys.default_digest(key)
    signature, algorithm = keys.sign(key, b"data", digest), keys.signature_algorithm(key, digest)
    assert verify_signature(keys.public_key_der(key), algorithm, signature, b"data") == digest
    for bad_signature, data in ((signature, b"other"), (signature[:-1] + bytes((signature[-1] ^ 1,)), b"data"), (b"", b"data")):
        with pytest.raises(Rejection) as raised:
            verify_signature(keys.public_key_der(key), algorithm, bad_signature, data)
        assert raised.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
def test_every_digest(spec: str, digest: str, key_of: KeyOf) -> None:
    key = key_of(spec)
    algorithm = keys.signature_algorithm(key, digest)
    assert verify_signature(keys.public_key_der(key), algorithm, keys.sign(key, b"x", digest), b"x") == digest
    assert digest_name(digest_oid(digest)) == digest
    assert hash_algorithm(digest).name == digest


def test_rsa_encryption_takes_the_digest_from_beside_it(key_of: KeyOf) -> None:
    key = key_of("rsa-2048")
    spki, signature = keys.public_key_der(key), keys.sign(key, b"x", "sha384")
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())
    assert verify_signature(spki, algorithm, signature, b"x", "sha384") == "sha384"
    with pytest.raises(Rejection) as raised:
        verify_signature(spki, algorithm, signature, b"x", "sha256")
    assert raised.value.reason is Reason.BAD_SIGNATURE
    with pytest.raises(Rejection) as raised:
        verify_signature(spki, algorithm, signature, b"x")
    assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM
    assert verify_signature(spki, keys.signature_algorithm(key, "sha384"), signature, b"x", "sha1") == "sha384"


def pss_parameters(digest: str | None, mask: str | None, salt: int | None, trailer: int | None = None) -> bytes:
    parts = []
    if digest:
        parts.append(der.context(0, der.sequence(der.oid(digest_oid(digest)), der.null())))
    if mask:
        parts.append(der.context(1, der.sequence(der.oid(algorithms.MGF1), der.sequence(der.oid(digest_oid(mask))))))
    if salt is not None:
        parts.append(der.context(2, der.integer(salt)))
    if trailer is not None:
        parts.append(der.context(3, der.integer(trailer)))
    return der.sequence(*parts)


@pytest.mark.parametrize(
    ("digest", "mask", "salt"),
    [
        pytest.param("sha256", "sha256", 32, id="usual"),
        pytest.param("sha512", "sha256", 20, id="mixed"),
        pytest.param("sha256", "sha256", 0, id="no-salt"),
        pytest.param(None, None, None, id="defaults-are-sha1-and-20"),
    ],
)
def test_pss(digest: str | None, mask: str | None, salt: int | None, key_of: KeyOf) -> None:
    key = key_of("rsa-2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    mgf = padding.MGF1(hash_algorithm(mask or "sha1"))
    signature = key.sign(b"x", padding.PSS(mgf, 20 if salt is None else salt), hash_algorithm(digest or "sha1"))
    algorithm = der.sequence(der.oid(algorithms.RSASSA_PSS), pss_parameters(digest, mask, salt))
    assert verify_signature(keys.public_key_der(key), algorithm, signature, b"x") == (digest or "sha1")
    longer_salt = der.sequence(der.oid(algorithms.RSASSA_PSS), pss_parameters(digest, mask, 21 if salt is None else salt + 1))
    with pytest.raises(Rejection) as raised:
        verify_signature(keys.public_key_der(key), longer_salt, signature, b"x")
    assert raised.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(b"", id="absent"),
        pytest.param(der.null(), id="null"),
        pytest.param(der.sequence(der.context(2, der.integer(-1))), id="negative-salt"),
        pytest.param(der.sequence(der.context(2, der.integer(1 << 40))), id="huge-salt"),
        pytest.param(der.sequence(der.context(3, der.integer(2))), id="other-trailer"),
        pytest.param(der.sequence(der.context(2, der.integer(20)), der.context(2, der.integer(20))), id="repeated"),
        pytest.param(der.sequence(der.context(4, der.integer(1))), id="unknown-field"),
        pytest.param(der.sequence(der.integer(1)), id="no-field"),
        pytest.param(
            der.sequence(der.context(0, der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.integer(1)))), id="digest-parameters"
        ),
    ],
)
def test_broken_pss_parameters(parameters: bytes, key_of: KeyOf) -> None:
    with pytest.raises(MalformedMessage):
        verify_signature(
            keys.public_key_der(key_of("rsa-2048")), der.sequence(der.oid(algorithms.RSASSA_PSS), parameters), bytes(256), b"x"
        )


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(der.sequence(der.oid("1.2.840.113549.1.1.4"), der.null()), id="md5-with-rsa"),
        pytest.param(der.sequence(der.oid("1.2.840.113549.1.1.2"), der.null()), id="md2-with-rsa"),
        pytest.param(der.sequence(der.oid("1.2.840.10040.4.3")), id="dsa-with-sha1"),
        pytest.param(der.sequence(der.oid("1.2.3.4")), id="unknown"),
        pytest.param(der.sequence(der.oid("1.2.3.4"), der.octet_string(bytes(60000))), id="60-kB"),
        pytest.param(
            der.sequence(
                der.oid(algorithms.RSASSA_PSS),
                der.sequence(der.context(0, der.sequence(der.oid("1.2.840.113549.2.5"), der.null()))),
            ),
            id="pss-with-md5",
        ),
        pytest.param(
            der.sequence(
                der.oid(algorithms.RSASSA_PSS), der.sequence(der.context(1, der.sequence(der.oid("1.2.3"), der.sequence())))
            ),
            id="pss-with-unknown-mask",
        ),
    ],
)
def test_unsupported_algorithms(algorithm: bytes, key_of: KeyOf) -> None:
    with pytest.raises(Rejection) as raised:
        verify_signature(keys.public_key_der(key_of("rsa-2048")), algorithm, bytes(256), b"x")
    assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize("digest", ["md4", "none", "SHA256", ""])
def test_unsupported_digests(digest: str) -> None:
    for use in (digest_oid, hash_algorithm, digest_name):
        with pytest.raises(Rejection) as raised:
            use(digest)
        assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize("beside", [False, True], ids=["md5WithRSAEncryption", "rsaEncryption"])
def test_md5_with_rsa_is_refused_unless_the_caller_accepts_it(beside: bool, key_of: KeyOf) -> None:
    key = key_of("rsa-2048")
    spki, signature = keys.public_key_der(key), keys.sign(key, b"x", "md5")
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()) if beside else keys.signature_algorithm(key, "md5")
    digest = "md5" if beside else None
    assert verify_signature(spki, algorithm, signature, b"x", digest, accept_md5=True) == "md5"
    for data, accept, reason in ((b"x", False, Reason.UNSUPPORTED_ALGORITHM), (b"y", True, Reason.BAD_SIGNATURE)):
        with pytest.raises(Rejection) as raised:
            verify_signature(spki, algorithm, signature, data, digest, accept_md5=accept)
        assert raised.value.reason is reason


def test_md5_is_for_rsa_alone(key_of: KeyOf) -> None:
    key = key_of("ec-p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(b"x", ec.ECDSA(hash_algorithm("md5")))
    algorithm = der.sequence(der.oid("1.2.840.10045.2.1"))
    with pytest.raises(Rejection) as raised:
        verify_signature(keys.public_key_der(key), algorithm, signature, b"x", "md5", accept_md5=True)
    assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM
    with pytest.raises(Rejection):
        keys.signature_algorithm(key, "md5")


@pytest.mark.parametrize("number", [0, 1], ids=["digest", "mask"])
def test_pss_with_md5_is_refused_whatever_the_caller_accepts(number: int, key_of: KeyOf) -> None:
    md5 = der.sequence(der.oid(digest_oid("md5")), der.null())
    field = der.context(number, md5 if number == 0 else der.sequence(der.oid(algorithms.MGF1), md5))
    algorithm = der.sequence(der.oid(algorithms.RSASSA_PSS), der.sequence(field))
    with pytest.raises(Rejection) as raised:
        verify_signature(keys.public_key_der(key_of("rsa-2048")), algorithm, bytes(256), b"x", accept_md5=True)
    assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_an_algorithm_of_another_key_is_a_bad_signature(key_of: KeyOf) -> None:
    algorithm = keys.signature_algorithm(key_of("ec-p256"), "sha256")
    with pytest.raises(Rejection) as raised:
        verify_signature(keys.public_key_der(key_of("rsa-2048")), algorithm, b"", b"x")
    assert raised.value.reason is Reason.BAD_SIGNATURE


def test_parameters_that_may_not_be_there(key_of: KeyOf) -> None:
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.integer(1))
    with pytest.raises(MalformedMessage):
        verify_signature(keys.public_key_der(key_of("rsa-2048")), algorithm, b"", b"x")


def rsa_spki(modulus: int, exponent: int) -> bytes:
    key = der.sequence(der.integer(modulus), der.integer(exponent))
    return der.sequence(der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()), der.bit_string(key))


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        pytest.param((1 << 511) + 1, 65537, id="512-bits"),
        pytest.param((1 << 1022) + 1, 65537, id="1023-bits"),
        pytest.param((1 << 8192) + 1, 65537, id="8193-bits"),
        pytest.param((1 << 65000) + 1, 65537, id="65001-bits"),
        pytest.param((1 << 2047) + 1, 1, id="exponent-1"),
        pytest.param((1 << 2047) + 1, 65536, id="even-exponent"),
        pytest.param((1 << 2047) + 1, (1 << 32) + 1, id="exponent-of-33-bits"),
        pytest.param((1 << 8191) + 1, (1 << 8190) + 1, id="exponent-as-long-as-the-modulus"),
    ],
)
def test_rsa_keys_out_of_bounds_are_not_computed_with(modulus: int, exponent: int) -> None:
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.null())
    with pytest.raises(Rejection) as raised:
        verify_signature(rsa_spki(modulus, exponent), algorithm, bytes(256), b"x")
    assert raised.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_dsa_keys_are_unsupported() -> None:
    key = dsa.generate_private_key(1024)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert keys.describe_public_key(spki).algorithm == "unknown"
    with pytest.raises(Rejection):
        verify_signature(spki, der.sequence(der.oid("2.16.840.1.101.3.4.3.2")), key.sign(b"x", hashes.SHA256()), b"x")


def test_a_point_off_the_curve_is_malformed() -> None:
    spki = bytearray(keys.public_key_der(ec.generate_private_key(ec.SECP256R1())))
    spki[-1] ^= 1
    with pytest.raises(MalformedMessage):
        keys.load_public_key(bytes(spki))
