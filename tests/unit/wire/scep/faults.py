"""Every way to break an encrypted request behind its signature, for both kinds of recipient: one table for test and timing."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType
from gateway.model import Extension
from gateway.pki import cms, der, password
from gateway.pki.ciphers import find_cipher
from gateway.pki.csr import build_csr
from gateway.pki.extensions import SUBJECT_ALT_NAME
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep import attributes
from gateway.wire.scep.identity import RaIdentity

PASSWORD = b"the challenge of this profile"
CIPHER = find_cipher("aes-128-cbc")
BLOCK = 16
ITERATIONS = 1000
"""As few as are accepted: what a derivation costs must not hide what the rest does."""

DEVICE_KEY = generate_private_key("rsa-2048")
SUBJECT = parse_name_text("CN=device-1").der
NO_SAN = Extension(SUBJECT_ALT_NAME, False, der.null())
_UNKNOWN_ALGORITHM = (der.oid("1.2.840.113549.1.1.11"), der.oid("1.2.840.113549.1.1.99"))
_CHALLENGE_TYPE = der.oid("1.2.840.113549.1.9.7")


class Transport(StrEnum):
    """How the content key travels."""

    RSA = "rsa"
    PASSWORD = "password"


def pad(data: bytes) -> bytes:
    """PKCS#7 padding."""
    count = BLOCK - len(data) % BLOCK
    return data + bytes((count,)) * count


@dataclass(frozen=True, slots=True)
class Fault:
    """One change to a good request: to its plaintext, to the content key in transport, or to the ciphertext's length."""

    name: str
    content: Callable[[bytes], bytes] = pad
    content_key: Callable[[bytes], bytes] = lambda key: key
    transported: Callable[[bytes], bytes] = lambda wrapped: wrapped
    cut: int = 0
    password: bytes = PASSWORD


def csr_of(key: PrivateKey = DEVICE_KEY, *extensions: Extension) -> bytes:
    """A good request."""
    return build_csr(key, SUBJECT, challenge_password=PASSWORD.decode(), other_extensions=extensions)


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def _same_size(plain: bytes, start: bytes) -> bytes:
    """Return a SEQUENCE as long as `plain` whose content begins with `start`."""
    head, size = (4, len(plain) - 4) if len(plain) > 259 else (2, len(plain) - 2)
    body = start + der.octet_string(bytes(max(0, size - len(start) - head)))
    return der.sequence(body)


NOT_SOUND = (
    Fault("no padding that is right", lambda plain: pad(plain)[:-1] + b"\0"),
    Fault("padding longer than a block", lambda plain: pad(plain)[:-1] + b"\x11"),
    Fault("padding that differs in itself", lambda plain: _flip(pad(plain + bytes(-len(plain) % BLOCK)), -2)),
    Fault("a byte behind the content", lambda plain: pad(plain + b"\0")),
    Fault("a SEQUENCE behind the content", lambda plain: pad(plain + b"\x30\x00")),
)
"""The content is good, and something behind it is not."""

NO_CONTENT = (
    Fault("content of another kind", lambda plain: pad(_same_size(plain, der.integer(1)))),
    Fault("content of another kind, bad padding", lambda plain: pad(_same_size(plain, der.integer(1)))[:-1] + b"\0"),
    Fault("a SEQUENCE that is empty", lambda plain: pad(b"\x30\x00" + bytes(len(plain) - 2))),
    Fault("a SEQUENCE without an end", lambda plain: pad(b"\x30\x80" + b"\1" * (len(plain) - 2))),
    Fault("no SEQUENCE", lambda plain: pad(b"\x31" + plain[1:])),
    Fault("content cut short", lambda plain: pad(plain[:-1])),
    Fault("zeros", lambda plain: bytes(len(pad(plain)))),
    Fault("only padding", lambda plain: pad(b"")),
    Fault("nothing", lambda plain: b""),
)
"""What was decrypted is not what the message type needs."""

BAD_LENGTH = (
    Fault("no whole number of blocks", cut=1),
    Fault("a block is missing", cut=BLOCK),
    Fault("half is missing", lambda plain: pad(plain)[: len(pad(plain)) // 2 // BLOCK * BLOCK]),
)

BAD_CSR = (
    Fault("wrong signature in the CSR", lambda plain: pad(_flip(plain, -1))),
    Fault("wrong signature in the CSR, bad padding", lambda plain: pad(_flip(plain, -1))[:-1] + b"\0"),
    Fault("CSR signed by an unknown algorithm", lambda plain: pad(plain.replace(*_UNKNOWN_ALGORITHM))),
    Fault(
        "CSR with two challenges of which one is no text", lambda plain: pad(plain.replace(_CHALLENGE_TYPE, der.oid("2.5.4.3")))
    ),
    Fault("CSR with a changed subject", lambda plain: pad(plain.replace(b"device-1", b"device-2"))),
    Fault("CSR with a subject that is no text", lambda plain: pad(plain.replace(b"device-1", b"\xff" * 8))),
)

ELLIPTIC = MappingProxyType({spec: csr_of(generate_private_key(spec)) for spec in ("ec-p256", "ec-p384", "ec-p521")})
"""Good requests whose signatures verify slowly."""


def _unsigned_rsa(bits: int) -> bytes:
    """Return a request for a modulus of which nobody has the private key: such keys take seconds to make."""
    spki = RSAPublicNumbers(65537, (1 << bits) - 1).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = der.sequence(der.integer(0), SUBJECT, spki, der.context(0))
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.null())
    return der.sequence(info, algorithm, der.bit_string(bytes(bits // 8 - 1) + b"\2"))


UNSIGNED = MappingProxyType(
    {
        "rsa-1024": _unsigned_rsa(1024),
        "rsa-4096": _unsigned_rsa(4096),
        "rsa-8192": _unsigned_rsa(8192),
        **{spec: _flip(good, -1) for spec, good in ELLIPTIC.items()},
        "ed25519": _flip(csr_of(generate_private_key("ed25519")), -1),
        "ed448": _flip(csr_of(Ed448PrivateKey.generate()), -1),
        "ml-dsa-87": _flip(csr_of(generate_private_key("ml-dsa-87")), -1),
    }
)
"""Requests that are whole and are not signed by their keys, one of each kind of key that a policy can name."""


def _sealed(csr: bytes, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda _: change(csr)


OTHER_KEYS = (
    *(Fault(f"wrong signature in the CSR, {spec}", _sealed(csr, pad)) for spec, csr in UNSIGNED.items()),
    *(Fault(f"a byte behind the content, {spec}", _sealed(csr, lambda csr: pad(csr + b"\0"))) for spec, csr in ELLIPTIC.items()),
    *(
        Fault(f"CSR with a SAN that is none, {spec}", _sealed(csr_of(generate_private_key(spec), NO_SAN), pad))
        for spec in ELLIPTIC
    ),
)

BAD_KEY = (
    Fault("another key", content_key=lambda key: bytes(len(key))),
    Fault("a key too short", content_key=lambda key: key[:-1]),
    Fault("a key too long", content_key=lambda key: key + key),
    Fault("an empty key", content_key=lambda key: b""),
)

BAD_RSA_TRANSPORT = (
    Fault("garbage instead of a key", transported=lambda wrapped: b"\x01" * len(wrapped)),
    Fault("a flipped bit in the key transport", transported=lambda wrapped: _flip(wrapped, -1)),
    Fault("key transport above the modulus", transported=lambda wrapped: b"\xff" * len(wrapped)),
    Fault("key transport of zero", transported=lambda wrapped: bytes(len(wrapped))),
    Fault("key transport too short", transported=lambda wrapped: wrapped[:-1]),
    Fault("key transport too long", transported=lambda wrapped: wrapped + b"\0"),
    Fault("no key transport", transported=lambda wrapped: b""),
)

BAD_PASSWORD_TRANSPORT = (
    Fault("a wrong password", password=b"the challenge of this profilf"),
    Fault("an empty password", password=b""),
    Fault("a flipped bit in the wrapped key", transported=lambda wrapped: _flip(wrapped, 0)),
    Fault("a flipped bit at its end", transported=lambda wrapped: _flip(wrapped, -1)),
    Fault("a wrapped key of zeros", transported=lambda wrapped: bytes(len(wrapped))),
    Fault("a wrapped key with a block more", transported=lambda wrapped: wrapped + bytes(BLOCK)),
)


def faults(transport: Transport, kind: MessageType) -> Iterator[Fault]:
    """Yield all that can be wrong with a message of this type."""
    yield from BAD_KEY
    yield from BAD_RSA_TRANSPORT if transport is Transport.RSA else BAD_PASSWORD_TRANSPORT
    yield from BAD_LENGTH
    yield from NOT_SOUND
    yield from NO_CONTENT
    if kind is MessageType.PKCS_REQ:
        yield from BAD_CSR
        yield from OTHER_KEYS


def seal(fault: Fault, transport: Transport, ra: RaIdentity, plain: bytes) -> bytes:
    """Return the ContentInfo of an envelope with this fault."""
    key, iv = secrets.token_bytes(CIPHER.key_size), secrets.token_bytes(BLOCK)
    ciphertext = CIPHER.encryptor(key, iv).update(fault.content(plain))
    recipient = _recipient(fault, transport, ra, fault.content_key(key))
    content = der.sequence(
        der.oid(asn1_cms.OID_DATA),
        CIPHER.identifier(iv),
        der.context(0, ciphertext[: len(ciphertext) - fault.cut], constructed=False),
    )
    version = der.integer(0 if transport is Transport.RSA else 3)
    return der.sequence(
        der.oid(asn1_cms.OID_ENVELOPED_DATA), der.context(0, der.sequence(version, der.set_of(recipient), content))
    )


def _recipient(fault: Fault, transport: Transport, ra: RaIdentity, content_key: bytes) -> bytes:
    if transport is Transport.RSA:
        public_key = ra.key.public_key()
        assert isinstance(public_key, RSAPublicKey)
        return der.sequence(
            der.integer(0),
            cms.issuer_and_serial(ra.certificate.der),
            der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()),
            der.octet_string(fault.transported(public_key.encrypt(content_key, padding.PKCS1v15()))),
        )
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(BLOCK)
    key = hashlib.pbkdf2_hmac("sha256", fault.password, salt, ITERATIONS, CIPHER.key_size)
    prf = der.sequence(der.oid("1.2.840.113549.2.9"), der.null())
    return der.context(
        3,
        der.integer(0),
        der.context(0, der.oid(password.OID_PBKDF2), der.sequence(der.octet_string(salt), der.integer(ITERATIONS), prf)),
        der.sequence(der.oid(password.OID_PWRI_KEK), CIPHER.identifier(iv)),
        der.octet_string(fault.transported(password.wrap_key(CIPHER, key, iv, content_key))),
    )


def signed_message(content: bytes, kind: MessageType, signer: cms.Signer) -> bytes:
    """Return a PKIMessage over an envelope."""
    return cms.sign_data(
        content,
        signer,
        "sha256",
        (
            attributes.code(asn1.OID_MESSAGE_TYPE, kind),
            cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T-1")),
            attributes.nonce(asn1.OID_SENDER_NONCE, b"n" * 16),
        ),
    )


def plain_of(kind: MessageType, ra: RaIdentity, key: PrivateKey = DEVICE_KEY) -> bytes:
    """Return the messageData that a good message of this type has."""
    return csr_of(key) if kind is MessageType.PKCS_REQ else cms.issuer_and_serial(ra.certificate.der)
