"""What is encrypted to a key is decrypted by openssl, and signed by whoever drew it (RFC 5958 §4)."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc5280, rfc5652, rfc5958, rfc8018, rfc9480

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import key_package as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms, der
from gateway.pki.ciphers import find_cipher
from gateway.pki.cms import Signer
from gateway.pki.key_package import (
    Algorithms,
    CertificateRecipient,
    KeyGenerationAuthority,
    Recipient,
    SecretRecipient,
    SymmetricRecipient,
    encrypt_key,
    envelope_choice,
    one_asymmetric_key,
    probe,
    seal_certificate,
)
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.public_keys import describe_public_key
from gateway.pki.signed_content import content_info

KEK_ID = b"dock-7"
NOW = datetime.now(UTC).replace(microsecond=0)
AES_128_CBC, AES_256_CBC, AES_256_GCM = (f"2.16.840.1.101.3.4.1.{n}" for n in (2, 42, 46))
TRIPLE_DES = "1.2.840.113549.3.7"
TRIPLE_DES_WRAP = "1.2.840.113549.1.9.16.3.6"
ECDH_SHA1 = "1.3.133.16.840.63.0.2"


@cache
def key(spec: str, number: int = 0) -> PrivateKey:
    return generate_private_key(spec)


@cache
def certificate(spec: str, usage: str | None = None, *, named: bool = True) -> bytes:
    """A self-signed certificate whose key usage is `usage`, with its subjectKeyIdentifier or without."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{spec} {usage} {named}")])
    own = key(spec)
    assert isinstance(own, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(days=2))
    if usage is not None:
        bits = dict.fromkeys(("key_cert_sign", "crl_sign", "content_commitment", "data_encipherment"), False)
        bits |= dict.fromkeys(("digital_signature", "key_encipherment", "key_agreement"), False) | {usage: True}
        builder = builder.add_extension(x509.KeyUsage(**bits, encipher_only=False, decipher_only=False), critical=True)
    if named:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    return builder.sign(own, SHA256()).public_bytes(Encoding.DER)


@cache
def signer(spec: str = "rsa-2048") -> Signer:
    return Signer.create(certificate(spec, "digital_signature"), key(spec))


@cache
def drawn() -> bytes:
    return key("ec-p256", 1).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Openssl:
    """Debian's openssl in a folder of its own."""

    folder: Path

    def run(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return name

    def decrypt(self, message: bytes, *options: str) -> bytes:
        """Decrypt EnvelopedData; what comes out is the bare SignedData."""
        return self.run("cms", "-decrypt", "-inform", "DER", "-in", self.write("message.der", message), *options)

    def verify(self, signed: bytes, by: bytes) -> bytes:
        """Check the signature of a bare SignedData, and return its content."""
        whole = self.write("signed.der", content_info(asn1_cms.OID_SIGNED_DATA, signed))
        anchor = self.write("anchor.pem", x509.load_der_x509_certificate(by).public_bytes(Encoding.PEM))
        options = ("-inform", "DER", "-in", whole, "-CAfile", anchor, "-purpose", "any", "-binary")
        return self.run("cms", "-verify", *options)

    def recipient(self, spec: str, recipient: bytes) -> tuple[str, ...]:
        pem = x509.load_der_x509_certificate(recipient).public_bytes(Encoding.PEM)
        secret = key(spec).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return ("-recip", self.write("recipient.pem", pem), "-inkey", self.write("key.pem", secret))


@pytest.fixture
def openssl(tmp_path: Path) -> Openssl:
    return Openssl(tmp_path)


def package_of(signed: bytes) -> bytes:
    """The one private key of a bare SignedData over an AsymmetricKeyPackage."""
    parsed = cms.parse_signed_data(content_info(asn1_cms.OID_SIGNED_DATA, signed))
    assert parsed.content_type == asn1.OID_ASYMMETRIC_KEY_PACKAGE
    assert parsed.content is not None
    body = der.content(der.SEQUENCE, parsed.content)
    [(tag, start, _, end)] = der.elements(body)
    assert tag == der.SEQUENCE
    return body[start:end]


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_symmetric_key_decrypts(openssl: Openssl, size: int) -> None:
    kek = bytes(range(size))
    message = encrypt_key(drawn(), signer(), SymmetricRecipient(KEK_ID, kek))
    signed = openssl.decrypt(message, "-secretkey", kek.hex(), "-secretkeyid", KEK_ID.hex())
    assert package_of(signed) == drawn()


@pytest.mark.parametrize(
    ("capabilities", "padding_name"),
    [
        pytest.param(None, "rsaesOaep", id="nothing-said"),
        pytest.param((asn1.OID_RSAES_OAEP,), "rsaesOaep", id="oaep"),
        pytest.param((asn1.OID_RSA_ENCRYPTION,), "rsaEncryption", id="pkcs1"),
        pytest.param((asn1.OID_RSA_ENCRYPTION, asn1.OID_RSAES_OAEP), "rsaEncryption", id="as-preferred"),
        pytest.param((AES_128_CBC,), "rsaesOaep", id="only-a-cipher"),
    ],
)
def test_an_rsa_key_decrypts(openssl: Openssl, capabilities: Sequence[str] | None, padding_name: str) -> None:
    own = certificate("rsa-2048", "key_encipherment")
    message = encrypt_key(drawn(), signer("ec-p256"), CertificateRecipient.create(own), Algorithms(capabilities))
    assert padding_name in openssl.run("cms", "-cmsout", "-print", "-inform", "DER", "-in", openssl.write("m", message)).decode()
    assert package_of(openssl.decrypt(message, *openssl.recipient("rsa-2048", own))) == drawn()


@pytest.mark.parametrize("capabilities", [None, *((oid,) for oid in (asn1.OID_ECDH_SHA384_KDF, asn1.OID_ECDH_SHA512_KDF))])
@pytest.mark.parametrize("wrap", [asn1.OID_AES_128_WRAP, asn1.OID_AES_192_WRAP, asn1.OID_AES_256_WRAP])
@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "ec-p521"])
def test_an_ec_key_decrypts(openssl: Openssl, spec: str, wrap: str, capabilities: Sequence[str] | None) -> None:
    own = certificate(spec, "key_agreement")
    algorithms = Algorithms((*(capabilities or ()), wrap))
    message = encrypt_key(drawn(), signer(), CertificateRecipient.create(own), algorithms)
    assert package_of(openssl.decrypt(message, *openssl.recipient(spec, own))) == drawn()


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
def test_a_certificate_without_identifier_is_named_by_issuer_and_serial(openssl: Openssl, spec: str) -> None:
    own = certificate(spec, named=False)
    recipient = CertificateRecipient.create(own)
    expected = x509.SubjectKeyIdentifier.from_public_key(x509.load_der_x509_certificate(own).public_key())
    assert recipient.key_id == expected.digest
    message = encrypt_key(drawn(), signer(), recipient)
    assert package_of(openssl.decrypt(message, *openssl.recipient(spec, own))) == drawn()


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256", "ec-p384", "ec-p521"])
def test_the_package_is_signed(openssl: Openssl, spec: str) -> None:
    kek = bytes(32)
    message = encrypt_key(drawn(), signer(spec), SymmetricRecipient(KEK_ID, kek))
    signed = openssl.decrypt(message, "-secretkey", kek.hex(), "-secretkeyid", KEK_ID.hex())
    assert openssl.verify(signed, signer(spec).certificate) == der.sequence(drawn())


def test_the_private_key_is_not_there_in_clear() -> None:
    message = encrypt_key(drawn(), signer(), SymmetricRecipient(KEK_ID, bytes(32)))
    numbers = key("ec-p256", 1).private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    assert numbers in drawn()
    assert numbers not in message
    assert bytes(32).hex() not in repr(SymmetricRecipient(KEK_ID, bytes(32)))


@pytest.mark.parametrize(
    ("recipient", "capabilities"),
    [
        pytest.param("kek", (TRIPLE_DES,), id="cipher-3des"),
        pytest.param("kek", (AES_256_GCM,), id="cipher-gcm"),
        pytest.param("kek", (AES_256_CBC, TRIPLE_DES_WRAP), id="wrap-3des"),
        pytest.param("kek", (AES_256_CBC, asn1.OID_AES_128_WRAP), id="wrap-of-another-size"),
        pytest.param("rsa-2048", ("1.0.18033.2.2.4",), id="transport-kem"),
        pytest.param("ec-p256", (ECDH_SHA1,), id="agreement-sha1"),
        pytest.param("ec-p256", (TRIPLE_DES_WRAP,), id="agreement-wrap-3des"),
    ],
)
def test_what_the_recipient_cannot_read_is_refused_before_there_is_a_key(recipient: str, capabilities: Sequence[str]) -> None:
    made: Recipient = SymmetricRecipient(KEK_ID, bytes(32))
    if recipient != "kek":
        made = CertificateRecipient.create(certificate(recipient))
    with pytest.raises(Rejection) as refused:
        probe(made, Algorithms(capabilities))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
    assert capabilities[-1] in refused.value.cause


def test_the_recipients_preference_counts() -> None:
    message = encrypt_key(drawn(), signer(), SymmetricRecipient(KEK_ID, bytes(16)), Algorithms((AES_128_CBC, AES_256_CBC)))
    assert der.oid(AES_128_CBC) in message
    assert der.oid(AES_256_CBC) not in message


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        pytest.param(("rsa-2048", "digital_signature"), "its key usage lacks keyEncipherment", id="rsa"),
        pytest.param(("ec-p256", "digital_signature"), "its key usage lacks keyAgreement", id="ec"),
        pytest.param(("ec-p256", "key_encipherment"), "its key usage lacks keyAgreement", id="ec-encipherment"),
    ],
)
def test_a_key_for_other_uses_is_refused(made: tuple[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CertificateRecipient.create(certificate(*made))


def test_a_key_that_nothing_can_be_encrypted_to_is_refused() -> None:
    own = generate_private_key("ed25519")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signs only")])
    builder = x509.CertificateBuilder(name, name, own.public_key(), 7, NOW, NOW + timedelta(days=1))
    der_bytes = builder.sign(own, None).public_bytes(Encoding.DER)
    assert describe_public_key(public_key_der(own)).algorithm == "ed25519"
    with pytest.raises(ValueError, match="neither RSA nor EC"):
        CertificateRecipient.create(der_bytes)


def test_what_is_no_certificate_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        CertificateRecipient.create(b"\x30\x00")


SECRET = b"a secret that two share"


def in_content_info(enveloped: bytes) -> bytes:
    return content_info(asn1_cms.OID_ENVELOPED_DATA, enveloped)


@cache
def drawn_public() -> bytes:
    return public_key_der(key("ec-p256", 1))


@cache
def generation_authority(spec: str = "ec-p256") -> KeyGenerationAuthority:
    return KeyGenerationAuthority.create(signer(spec), (certificate("rsa-2048", "key_cert_sign"),))


def test_a_shared_secret_opens_a_key(openssl: Openssl) -> None:
    enveloped = generation_authority().seal_key(drawn(), drawn_public(), SecretRecipient(SECRET))
    signed = openssl.decrypt(in_content_info(enveloped), "-pwri_password", SECRET.decode())
    assert package_of(signed) == one_asymmetric_key(drawn(), drawn_public())


def test_a_shared_secret_opens_a_key_under_aes_key_wrap() -> None:
    """OpenSSL reads no key wrap below a password: RFC 5652 §6.2.4 is done by hand."""
    enveloped = generation_authority().seal_key(drawn(), drawn_public(), SecretRecipient(SECRET, wraps=True))
    data, _ = decode(enveloped, rfc5652.EnvelopedData())
    assert int(data["version"]) == 3
    info = data["recipientInfos"][0]["pwri"]
    assert int(info["version"]) == 0
    assert str(info["keyEncryptionAlgorithm"]["algorithm"]) == asn1.OID_AES_256_WRAP
    assert not info["keyEncryptionAlgorithm"]["parameters"].isValue
    parameters, _ = decode(bytes(info["keyDerivationAlgorithm"]["parameters"]), rfc8018.PBKDF2_params())
    assert int(parameters["keyLength"]) == 32
    kek = hashlib.pbkdf2_hmac("sha256", SECRET, bytes(parameters["salt"]["specified"]), int(parameters["iterationCount"]), 32)
    content_key = aes_key_unwrap(kek, bytes(info["encryptedKey"]))
    content = data["encryptedContentInfo"]
    iv, _ = decode(bytes(content["contentEncryptionAlgorithm"]["parameters"]))
    padded = find_cipher("aes-256-cbc").decryptor(content_key, bytes(iv)).update(bytes(content["encryptedContent"]))
    assert package_of(padded[: -padded[-1]]) == one_asymmetric_key(drawn(), drawn_public())


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256", "ec-p384"])
def test_a_drawn_key_is_signed_by_its_authority(openssl: Openssl, spec: str) -> None:
    """Named by its subjectKeyIdentifier, with what leads to its root; both halves of the key are there (RFC 9483 §4.1.6)."""
    own = certificate("rsa-2048", "key_encipherment")
    made = generation_authority(spec).seal_key(drawn(), drawn_public(), CertificateRecipient.create(own))
    signed = openssl.decrypt(in_content_info(made), *openssl.recipient("rsa-2048", own))
    assert openssl.verify(signed, signer(spec).certificate) == der.sequence(one_asymmetric_key(drawn(), drawn_public()))
    parsed, _ = decode(signed, rfc5652.SignedData())
    assert int(parsed["version"]) == 3
    [info] = parsed["signerInfos"]
    assert (int(info["version"]), info["sid"].getName()) == (3, "subjectKeyIdentifier")
    assert bytes(info["sid"]["subjectKeyIdentifier"]) == generation_authority(spec).key_id
    assert len(parsed["certificates"]) == 2


def test_a_bare_key_is_a_signed_private_key(openssl: Openssl) -> None:
    own = certificate("ec-p256", "key_agreement")
    made = generation_authority().seal_key(drawn(), drawn_public(), CertificateRecipient.create(own), bare=True)
    signed = openssl.decrypt(in_content_info(made), *openssl.recipient("ec-p256", own))
    content = openssl.verify(signed, signer("ec-p256").certificate)
    shown = openssl.run("pkey", "-inform", "DER", "-in", openssl.write("drawn.der", content), "-pubout", "-outform", "DER")
    assert shown == drawn_public()


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p521", "rsa-2048", "ed25519", "ml-dsa-44"])
def test_both_halves_of_a_key_are_told(spec: str) -> None:
    pkcs8 = key(spec, 1).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    whole, rest = decode(one_asymmetric_key(pkcs8, public_key_der(key(spec, 1))), rfc5958.OneAsymmetricKey())
    assert (int(whole["version"]), rest) == (1, b"")
    expected, _ = decode(public_key_der(key(spec, 1)), rfc5280.SubjectPublicKeyInfo())
    assert whole["publicKey"].asOctets() == expected["subjectPublicKey"].asOctets()


def test_an_authority_without_identifier_is_none() -> None:
    unnamed = Signer.create(certificate("ec-p256", named=False), key("ec-p256"))
    with pytest.raises(ValueError, match="no subject key identifier"):
        KeyGenerationAuthority.create(unnamed)


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256", "ec-p521"])
def test_a_certificate_is_sealed_to_its_own_key(openssl: Openssl, spec: str) -> None:
    own = certificate(spec, "digital_signature")
    enveloped = seal_certificate(own, CertificateRecipient.of_key(public_key_der(key(spec))))
    assert openssl.decrypt(in_content_info(enveloped), *openssl.recipient(spec, own)) == own
    assert own not in enveloped


def test_nothing_is_sealed_to_a_key_that_only_signs() -> None:
    with pytest.raises(ValueError, match="neither RSA nor EC"):
        CertificateRecipient.of_key(public_key_der(key("ed25519")))


def test_the_choice_is_tagged() -> None:
    enveloped = seal_certificate(b"\x30\x00", SecretRecipient(SECRET))
    chosen, rest = decode(envelope_choice(enveloped), rfc9480.EncryptedKey())
    assert (chosen.getName(), rest) == ("envelopedData", b"")
