"""Private keys in transit: AsymmetricKeyPackage in SignedData in EnvelopedData (RFC 5958 §4, RFC 5652 §6, RFC 5753 §3.1).

The same envelopes carry certificates to keys that cannot sign (RFC 9810 §5.2.8.3.2).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import key_package as asn1
from gateway.errors import Reason, Rejection
from gateway.pki import der, password
from gateway.pki.certificate import parse_certificate
from gateway.pki.ciphers import CbcCipher, find_cipher
from gateway.pki.cms import Signer, issuer_and_serial
from gateway.pki.keys import load_public_key
from gateway.pki.signed_content import content_info, sign_content

KEK_SIZES = (16, 24, 32)
"""Bytes of a key-encryption key: AES-128, AES-192, AES-256."""

_WRAP_BY_SIZE = MappingProxyType({16: asn1.OID_AES_128_WRAP, 24: asn1.OID_AES_192_WRAP, 32: asn1.OID_AES_256_WRAP})
_SIZE_BY_WRAP = {oid: size for size, oid in _WRAP_BY_SIZE.items()}
_CIPHERS = {c.oid: c for c in map(find_cipher, ("aes-256-cbc", "aes-192-cbc", "aes-128-cbc"))}
_AGREEMENTS = MappingProxyType(
    {
        asn1.OID_ECDH_SHA256_KDF: hashes.SHA256(),
        asn1.OID_ECDH_SHA384_KDF: hashes.SHA384(),
        asn1.OID_ECDH_SHA512_KDF: hashes.SHA512(),
    }
)
_SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null())
_OAEP_PARAMETERS = der.sequence(der.context(0, _SHA256), der.context(1, der.sequence(der.oid("1.2.840.113549.1.1.8"), _SHA256)))
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Algorithms:
    """What a recipient can decrypt, by OID in its order of preference (RFC 8551 §2.5.2); None: it did not say."""

    capabilities: Sequence[str] | None = None

    def choose(self, ours: Sequence[str], kind: frozenset[str], what: str) -> str:
        """Return the first of the recipient's that is among `ours`; the first of ours where it names none of this `kind`.

        Raises Rejection UNSUPPORTED_ALGORITHM where it names others only.
        """
        named = [oid for oid in self.capabilities or () if oid in kind]
        found = [oid for oid in named if oid in ours]
        if named and not found:
            raise Rejection(
                Reason.UNSUPPORTED_ALGORITHM,
                f"none of the algorithms for {what} that the request names is supported",
                f"{what}: {', '.join(named[:8])}",
            )
        return (*found, *ours)[0]


class Recipient(Protocol):
    """Who may read a key package."""

    def wrap(self, content_key: bytes, algorithms: Algorithms) -> tuple[int, bytes]:
        """Return the RecipientInfo for a content-encryption key, and the version of EnvelopedData that it needs (RFC 5652 §6.1).

        Raises Rejection UNSUPPORTED_ALGORITHM.
        """


@dataclass(frozen=True, slots=True)
class SymmetricRecipient:
    """Whoever has a key-encryption key of 16, 24 or 32 bytes (KEKRecipientInfo, RFC 5652 §6.2.3)."""

    identifier: bytes
    key: bytes = field(repr=False)

    def wrap(self, content_key: bytes, algorithms: Algorithms) -> tuple[int, bytes]:
        """Wrap under the key, by the one algorithm that it is for."""
        wrap = algorithms.choose((_WRAP_BY_SIZE[len(self.key)],), asn1.KEY_WRAPS, "key wrap")
        return 2, der.context(
            2,
            der.integer(4),
            der.sequence(der.octet_string(self.identifier)),
            der.sequence(der.oid(wrap)),
            der.octet_string(aes_key_wrap(self.key, content_key)),
        )


@dataclass(frozen=True, slots=True)
class CertificateRecipient:
    """Whoever has the key of a certificate: RSA by key transport, EC by key agreement (RFC 5652 §6.2.1, §6.2.2)."""

    key_id: bytes
    """Its subjectKeyIdentifier, or SHA-1 of its key where it has none (RFC 5280 §4.2.1.2)."""
    public_key: RSAPublicKey | ec.EllipticCurvePublicKey = field(repr=False)
    issuer_and_serial: bytes | None = field(repr=False)
    """None: the certificate says its identifier itself, and so it is named by it."""

    @classmethod
    def of_key(cls, spki: bytes) -> CertificateRecipient:
        """Prepare a key, SubjectPublicKeyInfo in DER, that no certificate says anything of yet; ValueError as `create`."""
        return cls(_hash_of_bits(spki), _load(spki), None)

    @classmethod
    def create(cls, certificate_der: bytes) -> CertificateRecipient:
        """Prepare a certificate, DER; ValueError, with a sentence, where nothing can be encrypted to it.

        Its key must be for key transport or key agreement, or for anything (RFC 7030 §4.4.1.2). Raises MalformedMessage.
        """
        certificate = parse_certificate(certificate_der)
        key = _load(certificate.public_key.der)
        needed = "keyEncipherment" if isinstance(key, RSAPublicKey) else "keyAgreement"
        if certificate.key_usage is not None and needed not in certificate.key_usage:
            raise ValueError(f"its key usage lacks {needed}")
        named = certificate.subject_key_id
        key_id = named or _hash_of_bits(certificate.public_key.der)
        return cls(key_id, key, None if named else issuer_and_serial(certificate_der))

    def wrap(self, content_key: bytes, algorithms: Algorithms) -> tuple[int, bytes]:
        """Encrypt to the certificate's key."""
        if isinstance(self.public_key, RSAPublicKey):
            return self._transport(self.public_key, content_key, algorithms)
        return 2, self._agree(self.public_key, content_key, algorithms)

    def _transport(self, key: RSAPublicKey, content_key: bytes, algorithms: Algorithms) -> tuple[int, bytes]:
        """Return a KeyTransRecipientInfo: OAEP with SHA-256, or PKCS #1 v1.5 where only that is named (RFC 4055 §4.1)."""
        ours = (asn1.OID_RSAES_OAEP, asn1.OID_RSA_ENCRYPTION)
        scheme = algorithms.choose(ours, asn1.KEY_TRANSPORTS, "key transport")
        if scheme == asn1.OID_RSAES_OAEP:
            encrypted = key.encrypt(content_key, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
            algorithm = der.sequence(der.oid(scheme), _OAEP_PARAMETERS)
        else:
            encrypted = key.encrypt(content_key, padding.PKCS1v15())
            algorithm = der.sequence(der.oid(scheme), der.null())
        version = 2 if self.issuer_and_serial is None else 0
        rid = self.issuer_and_serial or der.context(0, self.key_id, constructed=False)
        return version, der.sequence(der.integer(version), rid, algorithm, der.octet_string(encrypted))

    def _agree(self, key: ec.EllipticCurvePublicKey, content_key: bytes, algorithms: Algorithms) -> bytes:
        """Return a KeyAgreeRecipientInfo with an ephemeral key of ours (RFC 5753 §3.1.1, §7.2)."""
        scheme = algorithms.choose(tuple(_AGREEMENTS), asn1.KEY_AGREEMENTS, "key agreement")
        ours = tuple(_SIZE_BY_WRAP)[::-1]
        wrap_oid = algorithms.choose(ours, asn1.KEY_WRAPS, "key wrap")
        wrap, size = der.sequence(der.oid(wrap_oid)), _SIZE_BY_WRAP[wrap_oid]
        ephemeral = ec.generate_private_key(key.curve)
        shared_info = der.sequence(wrap, der.context(2, der.octet_string((size * 8).to_bytes(4, "big"))))
        kek = X963KDF(_AGREEMENTS[scheme], size, shared_info).derive(ephemeral.exchange(ec.ECDH(), key))
        originator = ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        rid = self.issuer_and_serial or der.context(0, der.octet_string(self.key_id))
        return der.context(
            1,
            der.integer(3),
            der.context(0, der.context(1, der.content(der.SEQUENCE, originator))),
            der.sequence(der.oid(scheme), wrap),
            der.sequence(der.sequence(rid, der.octet_string(aes_key_wrap(kek, content_key)))),
        )


@dataclass(frozen=True, slots=True)
class SecretRecipient:
    """Whoever knows a shared secret (PasswordRecipientInfo, RFC 5652 §6.2.4).

    With `wraps` the content key is under AES key wrap, which RFC 9483 §4.1.6.3 asks for; without it under PWRI-KEK (RFC 3211
    §2.3), the only one that OpenSSL and Bouncy Castle read.
    """

    secret: bytes = field(repr=False)
    wraps: bool = False

    def wrap(self, content_key: bytes, algorithms: Algorithms) -> tuple[int, bytes]:
        """Encrypt under a key that is derived from the secret and a salt of its own."""
        if not self.wraps:
            return 3, password.wrap(content_key, self.secret, "aes-256-cbc")
        algorithm = algorithms.choose((asn1.OID_AES_256_WRAP,), asn1.KEY_WRAPS, "key wrap")
        key, derivation = password.derive_key(self.secret, _SIZE_BY_WRAP[algorithm])
        return 3, der.context(
            3, der.integer(0), derivation, der.sequence(der.oid(algorithm)), der.octet_string(aes_key_wrap(key, content_key))
        )


def _load(spki: bytes) -> RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        key = load_public_key(spki)
    except Rejection as error:
        raise ValueError(f"its key cannot be read: {error.cause}") from None
    if isinstance(key, RSAPublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)):
        return key
    raise ValueError("its key is neither RSA nor EC over P-256, P-384 or P-521")


def _hash_of_bits(spki: bytes) -> bytes:
    """Return the SHA-1 of the key's bits, which most certificates name it by (RFC 5280 §4.2.1.2)."""
    return hashlib.sha1(key_bits(spki), usedforsecurity=False).digest()


def key_bits(spki: bytes) -> bytes:
    """Return the subjectPublicKey of a SubjectPublicKeyInfo."""
    whole = der.content(der.SEQUENCE, spki)
    _, (_, _, start, end) = der.elements(whole, limit=2)
    return der.decode_bits(whole[start:end])


def encrypt_key(pkcs8: bytes, signer: Signer, recipient: Recipient, algorithms: Algorithms = Algorithms()) -> bytes:
    """Return ContentInfo with EnvelopedData that holds a private key, PKCS#8 DER, signed by whoever drew it (RFC 7030 §4.4.2).

    Raises Rejection UNSUPPORTED_ALGORITHM where the recipient can read nothing that we can write.
    """
    signed = sign_content(asn1.OID_ASYMMETRIC_KEY_PACKAGE, der.sequence(pkcs8), signer)
    return content_info(asn1_cms.OID_ENVELOPED_DATA, _envelop(asn1_cms.OID_SIGNED_DATA, signed, recipient, algorithms))


@dataclass(frozen=True, slots=True)
class KeyGenerationAuthority:
    """Who signs keys that were drawn for others: a certificate with id-kp-cmKGA, and what leads from it to its root, DER."""

    signer: Signer
    key_id: bytes
    chain: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def create(cls, signer: Signer, chain: Sequence[bytes] = ()) -> KeyGenerationAuthority:
        """Prepare a signer; ValueError, with a sentence, where its certificate has no subjectKeyIdentifier to name it by."""
        key_id = parse_certificate(signer.certificate).subject_key_id
        if not key_id:
            raise ValueError("it has no subject key identifier")
        return cls(signer, key_id, tuple(chain))

    def seal_key(self, pkcs8: bytes, spki: bytes, recipient: Recipient, *, bare: bool = False) -> bytes:
        """Return an EnvelopedData element with a private key, PKCS#8 DER, and its SubjectPublicKeyInfo (RFC 9483 §4.1.6).

        `bare` leaves it as it is, without AsymmetricKeyPackage, which is all that OpenSSL 3.5 reads. Raises Rejection
        UNSUPPORTED_ALGORITHM.
        """
        content_type, content = asn1.OID_ASYMMETRIC_KEY_PACKAGE, der.sequence(one_asymmetric_key(pkcs8, spki))
        if bare:
            content_type, content = asn1_cms.OID_DATA, pkcs8
        signed = sign_content(content_type, content, self.signer, self.chain, self.key_id)
        return _envelop(asn1_cms.OID_SIGNED_DATA, signed, recipient, Algorithms())


def seal_certificate(certificate: bytes, recipient: Recipient) -> bytes:
    """Return a bare EnvelopedData with a certificate, DER, that its own key alone opens (RFC 9810 §5.2.8.3.2)."""
    return _envelop(asn1_cms.OID_DATA, certificate, recipient, Algorithms())


def envelope_choice(enveloped: bytes) -> bytes:
    """Return an EnvelopedData element as EncryptedKey has it: implicitly tagged `[0]` (RFC 4211 §2.1)."""
    return b"\xa0" + enveloped[1:]


def one_asymmetric_key(pkcs8: bytes, spki: bytes) -> bytes:
    """Return a private key, PKCS#8 DER, with its public one beside it: OneAsymmetricKey, version 2 (RFC 5958 §2)."""
    content = der.content(der.SEQUENCE, pkcs8)
    (_, start, _, _), (_, _, _, end) = der.elements(content, limit=5)[1:3]
    public = der.context(1, b"\0" + key_bits(spki), constructed=False)
    return der.sequence(der.integer(1), content[start:end], public)


def _envelop(content_type: str, content: bytes, recipient: Recipient, algorithms: Algorithms) -> bytes:
    """Return a bare EnvelopedData (RFC 5652 §6.1)."""
    cipher = _choose_cipher(algorithms)
    content_key = secrets.token_bytes(cipher.key_size)
    version, recipient_info = recipient.wrap(content_key, algorithms)
    encrypted = _encrypt_content(content_type, content, cipher, content_key)
    return der.sequence(der.integer(version), der.set_of(recipient_info), encrypted)


def probe(recipient: Recipient, algorithms: Algorithms) -> None:
    """Raise Rejection UNSUPPORTED_ALGORITHM where `encrypt_key` would, before there is a key to encrypt."""
    recipient.wrap(bytes(_choose_cipher(algorithms).key_size), algorithms)


def _choose_cipher(algorithms: Algorithms) -> CbcCipher:
    """Return the content cipher, AES in CBC mode; raises Rejection UNSUPPORTED_ALGORITHM."""
    return _CIPHERS[algorithms.choose(tuple(_CIPHERS), asn1.CONTENT_CIPHERS, "content encryption")]


def _encrypt_content(content_type: str, content: bytes, cipher: CbcCipher, content_key: bytes) -> bytes:
    """Return an EncryptedContentInfo (RFC 5652 §6.1)."""
    iv = secrets.token_bytes(cipher.block_size)
    ciphertext = cipher.encryptor(content_key, iv).update(cipher.pad(content))
    return der.sequence(der.oid(content_type), cipher.identifier(iv), der.context(0, ciphertext, constructed=False))
