"""EncryptedValue: what CRMF encrypts with before EnvelopedData (RFC 4211 §2.1), for clients of CMP version 2."""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.errors import Reason, Rejection
from gateway.pki import der
from gateway.pki.ciphers import find_cipher
from gateway.pki.keys import load_public_key

_CIPHER = find_cipher("aes-256-cbc")
_RSA_ENCRYPTION = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())


def encrypt_value(value: bytes, spki: bytes) -> bytes:
    """Return an EncryptedValue element that the holder of an RSA key, SubjectPublicKeyInfo in DER, can open.

    The key of the cipher goes in PKCS #1 v1.5, which is all that keyAlg rsaEncryption says. Raises Rejection
    UNSUPPORTED_ALGORITHM for a key of another kind: nothing can be encrypted to it in this form.
    """
    key = load_public_key(spki)
    if not isinstance(key, RSAPublicKey):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "only with CMP version 3 can anything be encrypted to this kind of key")
    content_key, iv = secrets.token_bytes(_CIPHER.key_size), secrets.token_bytes(_CIPHER.block_size)
    algorithm = _CIPHER.identifier(iv)
    return der.sequence(
        der.context(1, der.content(der.SEQUENCE, algorithm)),
        der.context(2, b"\0" + key.encrypt(content_key, padding.PKCS1v15()), constructed=False),
        der.context(3, der.content(der.SEQUENCE, _RSA_ENCRYPTION)),
        der.bit_string(_CIPHER.encryptor(content_key, iv).update(_CIPHER.pad(value))),
    )
