"""CMS EnvelopedData: decode, decrypt with uniform failure, encrypt to an RSA key or a password (RFC 5652 §6, RFC 8894 §3.1)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from gateway.asn1 import cms as asn1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der, password
from gateway.pki.ciphers import CbcCipher, find_cipher, parse_cipher
from gateway.pki.cms import CertificateId, algorithm_oid, open_content_info, parse_certificate_id

__all__ = [
    "MAX_RECIPIENTS",
    "OID_RSAES_OAEP",
    "OID_RSA_ENCRYPTION",
    "UNREADABLE",
    "EnvelopedData",
    "Plaintext",
    "Recipient",
    "decipher",
    "decipher_with_password",
    "decrypt",
    "decrypt_with_password",
    "encrypt",
    "encrypt_with_password",
    "find_cipher",
    "parse_enveloped_data",
]

MAX_RECIPIENTS = 16
_MAX_CACHED_BYTES = 512

OID_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
OID_RSAES_OAEP = "1.2.840.113549.1.1.7"
_OID_MGF1 = "1.2.840.113549.1.1.8"

UNREADABLE = "the message could not be decrypted and verified"
"""The one public text for all that goes wrong behind the decryption: telling faults apart would make an oracle."""


_OAEP_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "1.3.14.3.2.26": hashes.SHA1,
    "2.16.840.1.101.3.4.2.1": hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}
_SHA1 = "1.3.14.3.2.26"

_ENVELOPED = "CMS EnvelopedData"
_RECIPIENT = (der.INTEGER, der.SEQUENCE, der.OCTET_STRING)
"""Version, key encryption algorithm and encrypted key; what stands second names the certificate."""
_ORIGINATOR = 0xA0
_ENCRYPTED_CONTENT = (der.OBJECT_IDENTIFIER, der.SEQUENCE, 0x80)
_MEMBERS = ([der.SET, der.SEQUENCE], [der.SET, der.SEQUENCE, 0xA1])
"""Recipients, encrypted content and perhaps unprotected attributes."""

_DATA = der.oid(asn1.OID_DATA)
_ENVELOPED_DATA = der.oid(asn1.OID_ENVELOPED_DATA)
_PKCS1_TRANSPORT = der.sequence(der.oid(OID_RSA_ENCRYPTION), der.null())
_SHA256_ALGORITHM = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null())
_OAEP_SHA256_TRANSPORT = der.sequence(
    der.oid(OID_RSAES_OAEP),
    der.sequence(der.context(0, _SHA256_ALGORITHM), der.context(1, der.sequence(der.oid(_OID_MGF1), _SHA256_ALGORITHM))),
)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One KeyTransRecipientInfo; `parameters` is the element after its algorithm's OID, empty when absent."""

    rid: CertificateId
    algorithm: str
    parameters: bytes = field(repr=False)
    encrypted_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnvelopedData:
    """A decoded EnvelopedData; `cipher` is a name such as `aes-128-cbc`, or the dotted OID of one that we do not have."""

    recipients: tuple[Recipient, ...]
    cipher: str
    iv: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)
    passwords: tuple[password.PasswordRecipient, ...] = ()


@dataclass(frozen=True, slots=True)
class Plaintext:
    """What a decryption gave: its first SEQUENCE, empty where there is none, and whether the padding behind that is right.

    Whoever answers strangers reads `element` first and looks at `sound` only when what he read has proved good: an answer that
    depends on the padding alone would decrypt any message for them, block by block (Vaudenay).
    """

    element: bytes = field(repr=False)
    sound: bool


def parse_enveloped_data(data: bytes) -> EnvelopedData:
    """Decode a ContentInfo with EnvelopedData, BER or DER; its recipients by RSA key and by password are kept.

    Raises MalformedMessage.
    """
    normal = der.normalize(data)
    members = open_content_info(normal, asn1.OID_ENVELOPED_DATA, _ENVELOPED)
    tags = [member[0] for member in members]
    first = 2 if tags[1:2] == [_ORIGINATOR] else 1
    if tags[:1] != [der.INTEGER] or tags[first:] not in _MEMBERS:
        raise MalformedMessage(f"message is not {_ENVELOPED}", "its members are others than RFC 5652 §6.1 has")
    _, _, start, end = members[first]
    found = der.elements(normal, start, end)
    if len(found) > MAX_RECIPIENTS:
        raise MalformedMessage("message has too many recipients", f"{len(found)} recipients")
    recipients = tuple(_parse_recipient(normal, start, end) for tag, _, start, end in found if tag == der.SEQUENCE)
    passwords = tuple(password.parse_password_recipient(normal[start:end]) for tag, start, _, end in found if tag == password.TAG)
    _, _, start, end = members[first + 1]
    return EnvelopedData(recipients, *_parse_encrypted_content(normal[start:end]), passwords)


def _parse_recipient(data: bytes, start: int, end: int) -> Recipient:
    members = der.elements(data, start, end)
    if len(members) != 4 or (members[0][0], members[2][0], members[3][0]) != _RECIPIENT:
        raise MalformedMessage(f"message is not {_ENVELOPED}", "a recipient has other members than RFC 5652 §6.2.1 has")
    _, (_, rid, _, rid_end), (_, _, start, end), (_, _, key, key_end) = members
    algorithm = data[start:end]
    _, _, oid_end = der.read(algorithm)
    return Recipient(
        rid=_parse_rid(data[rid:rid_end]),
        algorithm=algorithm_oid(algorithm),
        parameters=algorithm[oid_end:],
        encrypted_key=data[key:key_end],
    )


def _parse_rid(data: bytes) -> CertificateId:
    """Decode a RecipientIdentifier: most of them name one RA."""
    return _parse_rid_cached(data) if len(data) <= _MAX_CACHED_BYTES else parse_certificate_id(data)


_parse_rid_cached = lru_cache(maxsize=32)(parse_certificate_id)


def _parse_encrypted_content(contents: bytes) -> tuple[str, bytes, bytes]:
    """Return cipher, IV and ciphertext of an EncryptedContentInfo whose [0] was made primitive (RFC 5652 §6.1)."""
    members = der.elements(contents)
    if len(members) != 3 or (members[0][0], members[1][0], members[2][0]) != _ENCRYPTED_CONTENT:
        raise MalformedMessage("encrypted content is broken")
    (_, _, type_start, type_end), (_, _, start, end), (_, _, text_start, text_end) = members
    if contents[type_start - 2 : type_end] != _DATA:
        raise MalformedMessage("encrypted content is not id-data")
    return *parse_cipher(contents[start:end]), contents[text_start:text_end]


def decrypt(enveloped: EnvelopedData, recipient: Recipient, key: RSAPrivateKey) -> bytes:
    """Return the content of an EnvelopedData, which must be one SEQUENCE element, for a reader whom nobody else watches.

    Raises Rejection UNSUPPORTED_ALGORITHM like `decipher`, and DECRYPTION_FAILED for everything else.
    """
    return _sound_element(decipher(enveloped, recipient, key))


def decrypt_with_password(enveloped: EnvelopedData, recipient: password.PasswordRecipient, secret: bytes) -> bytes:
    """Return the content of an EnvelopedData under a password, as `decrypt` does and with its refusals."""
    return _sound_element(decipher_with_password(enveloped, recipient, secret))


def _sound_element(plaintext: Plaintext) -> bytes:
    if not plaintext.sound:
        raise Rejection(Reason.DECRYPTION_FAILED, UNREADABLE, "the content or its key did not decrypt")
    return plaintext.element


def decipher(enveloped: EnvelopedData, recipient: Recipient, key: RSAPrivateKey) -> Plaintext:
    """Decrypt the content of an EnvelopedData without telling what went wrong.

    Whatever does, there is one RSA operation and one CBC pass, under a random key if need be (RFC 3218 §2.3.2). Raises Rejection
    UNSUPPORTED_ALGORITHM for a cipher or key transport, which the message names in clear.
    """
    cipher = find_cipher(enveloped.cipher)
    transport = _transport_padding(recipient)
    return _decrypt_content(enveloped, cipher, _decrypt_key(recipient.encrypted_key, key, transport, cipher.key_size))


def decipher_with_password(enveloped: EnvelopedData, recipient: password.PasswordRecipient, secret: bytes) -> Plaintext:
    """Decrypt the content of an EnvelopedData under a password without telling what went wrong.

    Whatever does, there is one key derivation and one CBC pass, under a random key if need be. Raises Rejection
    UNSUPPORTED_ALGORITHM for a cipher or a derivation, which the message names in clear. Takes milliseconds of CPU by
    the iterations that the message asks for, `password.MAX_ITERATIONS` at most.
    """
    cipher = find_cipher(enveloped.cipher)
    return _decrypt_content(enveloped, cipher, password.unwrap(recipient, secret, cipher.key_size))


def _decrypt_content(enveloped: EnvelopedData, cipher: CbcCipher, content_key: bytes) -> Plaintext:
    whole = len(enveloped.ciphertext) - len(enveloped.ciphertext) % cipher.block_size
    padded = cipher.decryptor(content_key, enveloped.iv).update(enveloped.ciphertext[:whole])
    element = _first_sequence(padded)
    rest = padded[len(element) :]
    good = 0 < len(rest) <= cipher.block_size and rest == bytes((len(rest),)) * len(rest)
    return Plaintext(element, bool(element) and good and whole == len(enveloped.ciphertext))


def _decrypt_key(encrypted: bytes, key: RSAPrivateKey, transport: asymmetric.AsymmetricPadding, size: int) -> bytes:
    """Return the content key, or a random one of `size` bytes whatever is wrong with it; one RSA operation in any case.

    OpenSSL's implicit rejection gives bytes of random length for bad PKCS #1 v1.5 padding, and OAEP raises. A number above the
    modulus it refuses without any operation.
    """
    substitute = secrets.token_bytes(size)
    modulus_size = (key.key_size + 7) // 8
    fits = len(encrypted) == modulus_size and int.from_bytes(encrypted) < _modulus(key)
    try:
        content_key = key.decrypt(encrypted if fits else b"\x02".rjust(modulus_size, b"\0"), transport)
    except ValueError:
        content_key = b""
    return content_key if fits and len(content_key) == size else substitute


@lru_cache(maxsize=64)
def _modulus(key: RSAPrivateKey) -> int:
    return key.public_key().public_numbers().n


def _first_sequence(padded: bytes) -> bytes:
    """Return the SEQUENCE that `padded` begins with, which every SCEP messageData is, without a look at the padding.

    One of indefinite length ends with the last two zeros: padding has none.
    """
    if padded[:2] == b"\x30\x80":
        return padded[: padded.rfind(b"\0\0") + 2]
    try:
        tag, _, end = der.read(padded)
    except MalformedMessage:
        return b""
    return padded[:end] if tag == der.SEQUENCE else b""


def _transport_padding(recipient: Recipient) -> asymmetric.AsymmetricPadding:
    if recipient.algorithm == OID_RSA_ENCRYPTION:
        return asymmetric.PKCS1v15()
    if recipient.algorithm == OID_RSAES_OAEP:
        return _parse_oaep(recipient.parameters)
    raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the key transport is not supported", f"key transport {recipient.algorithm}")


def _parse_oaep(parameters: bytes) -> asymmetric.OAEP:
    """Decode RSAES-OAEP-params, whose defaults are SHA-1, MGF1 with SHA-1 and no label (RFC 4055 §4.1)."""
    content = der.content(der.SEQUENCE, parameters) if parameters else b""
    found = der.elements(content)
    fields = {tag: content[start:end] for tag, _, start, end in found}
    hash_oid = mgf_hash_oid = _SHA1
    if 0xA0 in fields:
        hash_oid = algorithm_oid(der.content(der.SEQUENCE, fields[0xA0]))
    if 0xA1 in fields:
        mgf = der.content(der.SEQUENCE, fields[0xA1])
        _, _, end = der.read(mgf)
        if algorithm_oid(mgf) == _OID_MGF1:
            mgf_hash_oid = algorithm_oid(der.content(der.SEQUENCE, mgf[end:]))
        else:
            mgf_hash_oid = algorithm_oid(mgf)
    if not {hash_oid, mgf_hash_oid} <= _OAEP_HASHES.keys() or fields.keys() - {0xA0, 0xA1} or len(found) != len(fields):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the OAEP parameters are not supported", f"{hash_oid}, {mgf_hash_oid}")
    return asymmetric.OAEP(asymmetric.MGF1(_OAEP_HASHES[mgf_hash_oid]()), _OAEP_HASHES[hash_oid](), None)


def encrypt(content: bytes, cipher_name: str, public_key: RSAPublicKey, rid: bytes, *, oaep: bool = False) -> bytes:
    """Return ContentInfo with EnvelopedData for the one recipient that the IssuerAndSerialNumber element `rid` names.

    Key transport is PKCS #1 v1.5, which every SCEP client has, or OAEP with SHA-256. Raises Rejection UNSUPPORTED_ALGORITHM for
    an unknown cipher name.
    """
    cipher = find_cipher(cipher_name)
    content_key = secrets.token_bytes(cipher.key_size)
    transport: asymmetric.AsymmetricPadding = asymmetric.PKCS1v15()
    if oaep:
        transport = asymmetric.OAEP(asymmetric.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    recipient = der.sequence(
        b"\x02\x01\x00",
        rid,
        _OAEP_SHA256_TRANSPORT if oaep else _PKCS1_TRANSPORT,
        der.octet_string(public_key.encrypt(content_key, transport)),
    )
    return _enveloped_data(0, recipient, _encrypt_content(content, cipher, content_key))


def encrypt_with_password(content: bytes, cipher_name: str, secret: bytes) -> bytes:
    """Return ContentInfo with EnvelopedData for whoever knows the password `secret` (RFC 8894 §3.1).

    Raises Rejection UNSUPPORTED_ALGORITHM for an unknown cipher name.
    """
    cipher = find_cipher(cipher_name)
    content_key = secrets.token_bytes(cipher.key_size)
    recipient = password.wrap(content_key, secret, cipher_name)
    # version 3 says that there is a PasswordRecipientInfo (RFC 5652 §6.1)
    return _enveloped_data(3, recipient, _encrypt_content(content, cipher, content_key))


def _encrypt_content(content: bytes, cipher: CbcCipher, content_key: bytes) -> bytes:
    iv = secrets.token_bytes(cipher.block_size)
    pad = cipher.block_size - len(content) % cipher.block_size
    ciphertext = cipher.encryptor(content_key, iv).update(content + bytes((pad,)) * pad)
    return der.sequence(_DATA, cipher.identifier(iv), der.context(0, ciphertext, constructed=False))


def _enveloped_data(version: int, recipient: bytes, encrypted_content: bytes) -> bytes:
    enveloped = der.sequence(der.integer(version), der.set_of(recipient), encrypted_content)
    return der.sequence(_ENVELOPED_DATA, der.context(0, enveloped))
