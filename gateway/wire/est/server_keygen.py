"""serverkeygen on the wire: whom the private key is encrypted to, and the answer of two parts (RFC 7030 §4.4)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.errors import Reason, Rejection
from gateway.pki import cms
from gateway.pki.csr import EstAttributes
from gateway.pki.key_package import Algorithms, CertificateRecipient, Recipient, SymmetricRecipient, encrypt_key, probe
from gateway.wire.est.messages import MEDIA_CERTS_ONLY, MEDIA_PKCS8, MEDIA_SERVER_KEY
from gateway.wire.est.multipart import Part, encode_multipart


@dataclass(frozen=True, slots=True)
class KeyRecipients:
    """Whom private keys may be encrypted to; `signer` signs them, and without it none is encrypted."""

    symmetric_keys: Mapping[bytes, bytes] = field(repr=False)
    """Key-encryption keys of 16, 24 or 32 bytes by the identifier that a DecryptKeyIdentifier holds."""
    certificates: tuple[CertificateRecipient, ...] = field(repr=False)
    signer: cms.Signer | None
    required: bool
    """No key leaves under TLS alone."""


@dataclass(frozen=True, slots=True)
class Protection:
    """How one private key is encrypted in addition to TLS."""

    recipient: Recipient
    algorithms: Algorithms
    signer: cms.Signer


def find_protection(attributes: EstAttributes, recipients: KeyRecipients, client: bytes | None) -> Protection | None:
    """Return how the private key has to be encrypted, None where TLS is enough (RFC 7030 §4.4.1).

    `client` is the TLS client's certificate, DER, which AsymmetricDecryptKeyIdentifier may name too. Raises Rejection for a key
    that is not known here, and for algorithms that we do not have: such a request is not to be answered with less.
    """
    symmetric, asymmetric = attributes.decrypt_key_id, attributes.asymmetric_decrypt_key_id
    if symmetric is None and asymmetric is None:
        if recipients.required:
            raise Rejection(Reason.DENIED, "the request must name a key to encrypt the private key with")
        return None
    if recipients.signer is None:
        raise Rejection(Reason.DENIED, "private keys are not encrypted here: leave the key identifier out of the request")
    if symmetric is not None and asymmetric is not None:
        raise Rejection(Reason.DENIED, "the request names two keys to encrypt the private key with")
    recipient: Recipient | None = None
    if symmetric is not None:
        recipient = _find_symmetric(symmetric, recipients.symmetric_keys)
    elif asymmetric is not None:
        recipient = _find_certificate(asymmetric, (*_of_client(client), *recipients.certificates))
    if recipient is None:
        raise Rejection(Reason.DENIED, "the key that should encrypt the private key is not known here")
    algorithms = Algorithms(attributes.smime_capabilities)
    probe(recipient, algorithms)
    return Protection(recipient, algorithms, recipients.signer)


def _find_symmetric(identifier: bytes, keys: Mapping[bytes, bytes]) -> SymmetricRecipient | None:
    key = keys.get(identifier)
    return None if key is None else SymmetricRecipient(identifier, key)


def _find_certificate(identifier: bytes, certificates: Iterable[CertificateRecipient]) -> CertificateRecipient | None:
    return next((c for c in certificates if hmac.compare_digest(c.key_id, identifier)), None)


def _of_client(certificate: bytes | None) -> tuple[CertificateRecipient, ...]:
    """Return the TLS client as a recipient, where its certificate lets anything be encrypted to it."""
    try:
        return () if certificate is None else (CertificateRecipient.create(certificate),)
    except (ValueError, Rejection):
        return ()


def encode_answer(pkcs8: bytes, certificate: bytes, protection: Protection | None, wrap: bool) -> tuple[bytes, str]:
    """Return body and Content-Type of an answer: the private key, then the certificate as simpleenroll has it (RFC 7030 §4.4.2).

    `pkcs8` is PKCS#8 DER. `wrap` as in `messages.wrap_for`.
    """
    if protection is None:
        key = Part(MEDIA_PKCS8, pkcs8)
    else:
        encrypted = encrypt_key(pkcs8, protection.signer, protection.recipient, protection.algorithms)
        key = Part(MEDIA_SERVER_KEY, encrypted)
    return encode_multipart((key, Part(MEDIA_CERTS_ONLY, cms.certs_only((certificate,)))), wrap)
