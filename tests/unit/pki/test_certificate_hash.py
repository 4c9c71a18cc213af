import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.certificate import self_signed_ca
from gateway.pki.certificate_hash import certificate_hash, hash_algorithm_identifier, needs_hash_algorithm
from gateway.pki.keys import PrivateKey, generate_private_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(key: PrivateKey) -> bytes:
    return self_signed_ca(key, "CN=CA", NOW, NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        pytest.param(generate_private_key("ec-p256"), lambda c: hashlib.sha256(c).digest(), id="ECDSA with SHA-256"),
        pytest.param(generate_private_key("ec-p384"), lambda c: hashlib.sha384(c).digest(), id="ECDSA with SHA-384"),
        pytest.param(generate_private_key("rsa-2048"), lambda c: hashlib.sha256(c).digest(), id="RSA with SHA-256"),
        pytest.param(generate_private_key("ed25519"), lambda c: hashlib.sha512(c).digest(), id="Ed25519"),
        pytest.param(Ed448PrivateKey.generate(), lambda c: hashlib.shake_256(c).digest(64), id="Ed448"),
    ],
)
def test_the_digest_of_its_signature(key: PrivateKey, digest: Callable[[bytes], bytes]) -> None:
    issued = certificate(key)
    assert certificate_hash(issued) == digest(issued)
    assert not needs_hash_algorithm(issued)


def test_ml_dsa_needs_a_digest_that_is_said() -> None:
    issued = certificate(generate_private_key("ml-dsa-44"))
    assert needs_hash_algorithm(issued)
    with pytest.raises(Rejection) as caught:
        certificate_hash(issued)
    assert caught.value.reason is Reason.UNSUPPORTED_ALGORITHM
    assert certificate_hash(issued, hash_algorithm_identifier("sha512")) == hashlib.sha512(issued).digest()


def test_what_hash_alg_says_comes_first() -> None:
    issued = certificate(generate_private_key("ec-p256"))
    assert certificate_hash(issued, hash_algorithm_identifier("sha384")) == hashlib.sha384(issued).digest()
    shake = der.sequence(der.oid("2.16.840.1.101.3.4.2.12"))
    assert certificate_hash(issued, shake) == hashlib.shake_256(issued).digest(64)


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(hash_algorithm_identifier("sha1"), id="SHA-1"),
        pytest.param(hash_algorithm_identifier("md5"), id="MD5"),
        pytest.param(der.sequence(der.oid("1.2.3")), id="unknown"),
    ],
)
def test_weak_digests_are_refused(algorithm: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        certificate_hash(certificate(generate_private_key("ec-p256")), algorithm)
    assert caught.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize("algorithm", [b"", der.null(), der.sequence(der.oid("1.2.3"), der.integer(1))])
def test_broken_algorithms(algorithm: bytes) -> None:
    with pytest.raises(MalformedMessage):
        certificate_hash(certificate(generate_private_key("ec-p256")), algorithm)
