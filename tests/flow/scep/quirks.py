"""Messages with the peculiarities of real clients: encodings, attributes and recipients that our own client never writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.model import SanKind
from gateway.pki import cms, der
from gateway.pki.certificate import parse_certificate
from gateway.pki.ciphers import find_cipher
from gateway.pki.csr import CHALLENGE_PASSWORD, EXTENSION_REQUEST
from gateway.pki.extensions import SUBJECT_ALT_NAME, encode_extension, encode_sans, make_san
from gateway.pki.keys import PrivateKey, public_key_der, sign, signature_algorithm
from gateway.pki.names import parse_name_text
from gateway.pki.public_keys import load_public_key
from gateway.wire.scep.client import ScepRequest

RSA_ENCRYPTION = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())
CMS_ALGORITHM_PROTECTION = cms.attribute("1.2.840.113549.1.9.52", der.sequence(der.sequence(der.oid("2.16.840.1.101.3.4.2.3"))))
"""What BouncyCastle adds (RFC 6211)."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a client writes the signed attributes, the key transport and the encoding."""

    number: int = 19
    as_integer: bool = False
    nonce: bytes | None = field(default_factory=lambda: secrets.token_bytes(16))
    transaction_tag: int = 0x13
    extra: tuple[bytes, ...] = ()
    digest: str = "sha256"
    indefinite: bool = False


def sign_message(content: bytes, signer: cms.Signer, transaction: str, quirks: Quirks) -> ScepRequest:
    """Sign a PKIMessage with these peculiarities."""
    number = der.integer(quirks.number) if quirks.as_integer else der.printable_string(str(quirks.number))
    attributes = [
        cms.attribute(asn1.OID_MESSAGE_TYPE, number),
        cms.attribute(asn1.OID_TRANSACTION_ID, der.tlv(quirks.transaction_tag, transaction.encode())),
        *quirks.extra,
    ]
    if quirks.nonce is not None:
        attributes.append(cms.attribute(asn1.OID_SENDER_NONCE, der.octet_string(quirks.nonce)))
    message = cms.sign_data(to_indefinite(content) if quirks.indefinite else content, signer, quirks.digest, attributes)
    return ScepRequest(to_indefinite(message) if quirks.indefinite else message, transaction, quirks.nonce or b"")


def seal_for(
    content: bytes, recipients: Iterable[bytes], cipher_name: str, *, chunked: bool = False, rid: bytes = b"", null: bool = True
) -> bytes:
    """Encrypt to several certificates; `chunked` as a constructed [0], `rid` replaces the RecipientIdentifier of all."""
    cipher = find_cipher(cipher_name)
    key, iv = secrets.token_bytes(cipher.key_size), secrets.token_bytes(cipher.block_size)
    count = cipher.block_size - len(content) % cipher.block_size
    ciphertext = cipher.encryptor(key, iv).update(content + bytes((count,)) * count)
    half = len(ciphertext) // 2
    text = (
        der.context(0, der.octet_string(ciphertext[:half]), der.octet_string(ciphertext[half:]))
        if chunked
        else der.context(0, ciphertext, constructed=False)
    )
    infos = [_transport(certificate, key, rid, null=null) for certificate in recipients]
    encrypted = der.sequence(der.oid(asn1_cms.OID_DATA), cipher.identifier(iv), text)
    enveloped = der.sequence(der.integer(0), der.set_of(*infos), encrypted)
    return der.sequence(der.oid(asn1_cms.OID_ENVELOPED_DATA), der.context(0, enveloped))


def _transport(certificate: bytes, key: bytes, rid: bytes, *, null: bool) -> bytes:
    public_key = load_public_key(parse_certificate(certificate).public_key.der)
    assert isinstance(public_key, RSAPublicKey)
    return der.sequence(
        der.integer(0),
        rid or cms.issuer_and_serial(certificate),
        RSA_ENCRYPTION if null else der.sequence(der.oid("1.2.840.113549.1.1.1")),
        der.octet_string(public_key.encrypt(key, padding.PKCS1v15())),
    )


def to_indefinite(data: bytes, depth: int = 6) -> bytes:
    """Write the outer constructed elements in BER of indefinite length, and long OCTET STRINGs in segments (X.690 §8.1.3.6)."""
    tag, start, end = der.read(data)
    content = data[start:end]
    if depth and tag == der.OCTET_STRING and len(content) > 1000:
        segments = [der.octet_string(content[at : at + 1000]) for at in range(0, len(content), 1000)]
        return b"".join((b"\x24\x80", *segments, b"\0\0"))
    if not depth or not tag & 0x20:
        return data
    members = (content[begin:stop] for _, begin, _, stop in der.elements(content))
    return b"".join((bytes((tag, 0x80)), *(to_indefinite(member, depth - 1) for member in members), b"\0\0"))


def unsorted_csr(key: PrivateKey, subject: str, challenge: str, dns: str) -> bytes:
    """Return a CSR as strongSwan writes it: attributes not in DER order, the challenge a UTF8String."""
    san = encode_extension(SUBJECT_ALT_NAME, False, encode_sans((make_san(SanKind.DNS, dns),)))
    asked = (
        der.sequence(der.oid(EXTENSION_REQUEST), der.set_of(der.sequence(san))),
        der.sequence(der.oid(CHALLENGE_PASSWORD), der.set_of(der.utf8_string(challenge))),
    )
    attributes = sorted(asked, reverse=True)
    info = der.sequence(der.integer(0), parse_name_text(subject).der, public_key_der(key), der.context(0, *attributes))
    return der.sequence(info, signature_algorithm(key), der.bit_string(sign(key, info)))
