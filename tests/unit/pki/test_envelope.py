from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from gateway.asn1 import cms as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der, envelope, password
from gateway.pki.keys import generate_private_key

RID = der.sequence(der.sequence(), der.integer(7))
CONTENT = der.sequence(der.octet_string(b"x" * 100))
SHA1, SHA256 = (der.sequence(der.oid(o), der.null()) for o in ("1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"))
MGF1 = "1.2.840.113549.1.1.8"


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    made = generate_private_key("rsa-2048")
    assert isinstance(made, RSAPrivateKey)
    return made


@pytest.fixture(scope="module")
def public_key(key: RSAPrivateKey) -> RSAPublicKey:
    return key.public_key()


@pytest.mark.parametrize("size", [0, 1, 14, 15, 16, 17, 5000])
@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"])
def test_what_is_encrypted_decrypts(cipher: str, size: int, key: RSAPrivateKey, public_key: RSAPublicKey) -> None:
    content = der.sequence(der.octet_string(b"x" * size))
    enveloped = envelope.parse_enveloped_data(envelope.encrypt(content, cipher, public_key, RID))
    assert (enveloped.cipher, enveloped.recipients[0].rid.serial) == (cipher, 7)
    assert envelope.decrypt(enveloped, enveloped.recipients[0], key) == content


def test_every_message_has_its_own_key_and_iv(public_key: RSAPublicKey) -> None:
    one, other = (envelope.parse_enveloped_data(envelope.encrypt(CONTENT, "aes-128-cbc", public_key, RID)) for _ in range(2))
    assert one.iv != other.iv
    assert one.ciphertext != other.ciphertext


TRANSPORT = der.sequence(der.integer(0), RID, der.sequence(der.oid(envelope.OID_RSA_ENCRYPTION)), der.octet_string(b""))


def built(
    recipients: bytes = TRANSPORT,
    content_type: str = asn1.OID_DATA,
    algorithm: bytes = der.sequence(der.oid("2.16.840.1.101.3.4.1.2"), der.octet_string(b"i" * 16)),
    content: bytes = der.context(0, b"c" * 16, constructed=False),
) -> bytes:
    encrypted = der.sequence(der.oid(content_type), algorithm, content)
    return der.sequence(
        der.oid(asn1.OID_ENVELOPED_DATA), der.context(0, der.sequence(der.integer(0), der.tlv(der.SET, recipients), encrypted))
    )


def test_the_builder_itself_passes() -> None:
    assert envelope.parse_enveloped_data(built()).ciphertext == b"c" * 16


def test_segmented_content_is_joined() -> None:
    segmented = der.context(0, der.octet_string(b"a" * 8), der.octet_string(b"b" * 8))
    assert envelope.parse_enveloped_data(built(content=segmented)).ciphertext == b"a" * 8 + b"b" * 8


def test_recipients_of_other_kinds_are_left_out() -> None:
    kinds = b"".join(der.context(n, der.integer(3)) for n in (1, 2, 4))
    enveloped = envelope.parse_enveloped_data(built(recipients=kinds))
    assert (enveloped.recipients, enveloped.passwords) == ((), ())


def test_recipients_of_both_kinds_are_kept_apart(public_key: RSAPublicKey) -> None:
    one = envelope.parse_enveloped_data(built(recipients=password.wrap(bytes(16), b"secret", "aes-128-cbc") + TRANSPORT))
    assert (len(one.recipients), len(one.passwords)) == (1, 1)


@pytest.mark.parametrize("size", [0, 1, 14, 15, 16, 17, 5000])
@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"])
def test_what_is_encrypted_with_a_password_decrypts(cipher: str, size: int) -> None:
    content = der.sequence(der.octet_string(b"x" * size))
    enveloped = envelope.parse_enveloped_data(envelope.encrypt_with_password(content, cipher, b"secret"))
    assert (enveloped.cipher, enveloped.recipients) == (cipher, ())
    assert envelope.decrypt_with_password(enveloped, enveloped.passwords[0], b"secret") == content
    plaintext = envelope.decipher_with_password(enveloped, enveloped.passwords[0], b"Secret")
    assert (plaintext.sound, plaintext.element == content) == (False, False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda e: replace(e, ciphertext=e.ciphertext[:-1] + bytes((e.ciphertext[-1] ^ 1,))), id="padding"),
        pytest.param(lambda e: replace(e, ciphertext=bytes(len(e.ciphertext))), id="content"),
        pytest.param(lambda e: replace(e, ciphertext=e.ciphertext[:-1]), id="part-of-a-block"),
        pytest.param(lambda e: replace(e, iv=bytes(16)), id="iv"),
        pytest.param(
            lambda e: replace(e, passwords=(replace(e.passwords[0], encrypted_key=bytes(32)),)), id="check-value-of-the-key"
        ),
        pytest.param(lambda e: replace(e, cipher="aes-256-cbc"), id="length-of-the-key"),
    ],
)
def test_faults_behind_a_password_look_alike(change: Callable[[envelope.EnvelopedData], envelope.EnvelopedData]) -> None:
    broken = change(envelope.parse_enveloped_data(envelope.encrypt_with_password(CONTENT, "aes-128-cbc", b"secret")))
    with pytest.raises(Rejection) as refused:
        envelope.decrypt_with_password(broken, broken.passwords[0], b"secret")
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)
    assert not envelope.decipher_with_password(broken, broken.passwords[0], b"secret").sound


def test_an_unknown_cipher_is_refused_before_any_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    enveloped = envelope.parse_enveloped_data(envelope.encrypt_with_password(CONTENT, "aes-128-cbc", b"secret"))
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", None)
    with pytest.raises(Rejection) as refused:
        envelope.decipher_with_password(replace(enveloped, cipher="1.2.3"), enveloped.passwords[0], b"secret")
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_nothing_is_encrypted_with_an_unknown_cipher(public_key: RSAPublicKey) -> None:
    with pytest.raises(Rejection) as refused:
        envelope.encrypt(CONTENT, "rc2", public_key, RID)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
    with pytest.raises(Rejection) as refused:
        envelope.encrypt_with_password(CONTENT, "rc2", b"secret")
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(built(content_type=asn1.OID_SIGNED_DATA), id="content is not id-data"),
        pytest.param(built(content=b""), id="no content"),
        pytest.param(built(content=der.octet_string(b"c" * 16)), id="content without its tag"),
        pytest.param(built(algorithm=der.sequence(der.oid("2.16.840.1.101.3.4.1.2"))), id="no IV"),
        pytest.param(built(algorithm=der.sequence(der.oid("2.16.840.1.101.3.4.1.2"), der.octet_string(b"i" * 8))), id="short IV"),
        pytest.param(built(algorithm=der.sequence()), id="no cipher"),
        pytest.param(built(recipients=der.sequence(der.integer(0))), id="recipient cut short"),
        pytest.param(built(recipients=der.context(3, der.integer(0))), id="password recipient cut short"),
        pytest.param(built(recipients=der.context(1) * (envelope.MAX_RECIPIENTS + 1)), id="too many recipients"),
        pytest.param(built() + b"\0", id="trailing byte"),
        pytest.param(built()[:-1], id="cut short"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_broken_enveloped_data(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        envelope.parse_enveloped_data(data)


def transport(algorithm: str, parameters: bytes = b"") -> envelope.EnvelopedData:
    key_encryption = der.sequence(der.oid(algorithm), parameters)
    recipient = der.sequence(der.integer(0), RID, key_encryption, der.octet_string(b"k" * 256))
    return envelope.parse_enveloped_data(built(recipients=recipient))


def oaep(*fields: bytes) -> bytes:
    return der.sequence(*fields)


@pytest.mark.parametrize(
    "enveloped",
    [
        pytest.param(transport("1.2.3"), id="unknown transport"),
        pytest.param(transport(envelope.OID_RSAES_OAEP, oaep(der.context(0, der.sequence(der.oid("1.2.3"))))), id="unknown hash"),
        pytest.param(transport(envelope.OID_RSAES_OAEP, oaep(der.context(1, der.sequence(der.oid("1.2.3"))))), id="unknown mask"),
        pytest.param(transport(envelope.OID_RSAES_OAEP, oaep(der.context(2, SHA256))), id="a label"),
        pytest.param(transport(envelope.OID_RSAES_OAEP, oaep(der.context(0, SHA1), der.context(0, SHA256))), id="two hashes"),
    ],
)
def test_transports_that_we_do_not_have(enveloped: envelope.EnvelopedData, key: RSAPrivateKey) -> None:
    with pytest.raises(Rejection) as refused:
        envelope.decrypt(enveloped, enveloped.recipients[0], key)
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(b"", id="absent"),
        pytest.param(oaep(), id="defaults"),
        pytest.param(oaep(der.context(0, SHA256), der.context(1, der.sequence(der.oid(MGF1), SHA1))), id="SHA-256, mask SHA-1"),
        pytest.param(oaep(der.context(1, der.sequence(der.oid(MGF1), SHA256))), id="SHA-1, mask SHA-256"),
    ],
)
def test_transports_that_we_have_fail_uniformly(parameters: bytes, key: RSAPrivateKey) -> None:
    enveloped = transport(envelope.OID_RSAES_OAEP, parameters)
    with pytest.raises(Rejection) as refused:
        envelope.decrypt(enveloped, enveloped.recipients[0], key)
    assert (refused.value.reason, refused.value.detail) == (Reason.DECRYPTION_FAILED, envelope.UNREADABLE)
