"""CMS PasswordRecipientInfo: a content key under a password (RFC 5652 §6.2.4, RFC 3211 §2.3.1, RFC 8018 §5.2)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.ciphers import CbcCipher, find_cipher, parse_cipher

OID_PBKDF2 = "1.2.840.113549.1.5.12"
OID_PWRI_KEK = "1.2.840.113549.1.9.16.3.9"

TAG = 0xA3
"""The tag of a PasswordRecipientInfo among RecipientInfos (RFC 5652 §6.2)."""

MIN_ITERATIONS, MAX_ITERATIONS = 1_000, 100_000
"""What a stranger may make us compute; OpenSSL writes 2,048, RFC 8018 §4.2 asks for at least 1,000."""
MIN_SALT, MAX_SALT = 8, 64
MAX_WRAPPED_KEY = 272
"""The longest content key that the count byte can tell, with its count, check value and padding."""

_HEADER = 4
_DERIVATION = 0xA0
_PRFS = MappingProxyType(
    {
        "1.2.840.113549.2.7": "sha1",
        "1.2.840.113549.2.8": "sha224",
        "1.2.840.113549.2.9": "sha256",
        "1.2.840.113549.2.10": "sha384",
        "1.2.840.113549.2.11": "sha512",
    }
)
_DEFAULT_PRF = "1.2.840.113549.2.7"
_KEY_CIPHERS = frozenset({"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc"})

_OWN_ITERATIONS = 10_000
_OWN_SALT = 16
_OWN_PRF = der.sequence(der.oid("1.2.840.113549.2.9"), der.null())


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """PBKDF2-params; `prf` is the digest of the HMAC, or the dotted OID of one that we do not have (RFC 8018 §A.2)."""

    salt: bytes = field(repr=False)
    iterations: int
    key_length: int | None
    prf: str


@dataclass(frozen=True, slots=True)
class PasswordRecipient:
    """One PasswordRecipientInfo as the message has it in clear.

    `derivation` is None where the key-encryption key comes from anything but PBKDF2 with a salt; `cipher` is a name such as
    `aes-128-cbc`, or the dotted OID of an algorithm that we do not have.
    """

    derivation: Pbkdf2 | None
    cipher: str
    iv: bytes = field(repr=False)
    encrypted_key: bytes = field(repr=False)


def parse_password_recipient(element: bytes) -> PasswordRecipient:
    """Decode a RecipientInfo element `[3]`; raises MalformedMessage."""
    _, start, end = der.read(element)
    members = der.elements(element, start, end)
    tags = [member[0] for member in members]
    first = 2 if tags[1:2] == [_DERIVATION] else 1
    if tags[:1] != [der.INTEGER] or tags[first:] != [der.SEQUENCE, der.OCTET_STRING]:
        raise MalformedMessage("message is not CMS EnvelopedData", "a recipient has other members than RFC 5652 §6.2.4 has")
    (_, _, start, end), (_, _, key, key_end) = members[first:]
    encryption = element[start:end]
    start, end = der.read_as(der.OBJECT_IDENTIFIER, encryption)
    cipher, iv = der.decode_oid(encryption[start:end]), b""
    if cipher == OID_PWRI_KEK:
        cipher, iv = parse_cipher(der.content(der.SEQUENCE, encryption[end:]))
    return PasswordRecipient(
        derivation=parse_derivation(element[members[1][2] : members[1][3]]) if first == 2 else None,
        cipher=cipher,
        iv=iv,
        encrypted_key=element[key:key_end],
    )


def parse_derivation(algorithm: bytes) -> Pbkdf2 | None:
    """Read a KeyDerivationAlgorithmIdentifier's content: salt, iterationCount, keyLength OPTIONAL, prf DEFAULT hmacWithSHA1."""
    start, end = der.read_as(der.OBJECT_IDENTIFIER, algorithm)
    if der.decode_oid(algorithm[start:end]) != OID_PBKDF2:
        return None
    parameters = der.content(der.SEQUENCE, algorithm[end:])
    members = [(tag, parameters[begin:stop]) for tag, _, begin, stop in der.elements(parameters, limit=4)]
    tags = tuple(tag for tag, _ in members)
    if tags[:1] == (der.SEQUENCE,):
        return None  # a salt from another source (RFC 8018 §A.2)
    if tags[:2] != (der.OCTET_STRING, der.INTEGER) or tags[2:] not in _OPTIONAL_PARAMETERS:
        raise MalformedMessage("PBKDF2 parameters are broken")
    key_length = next((_small(value) for tag, value in members[2:] if tag == der.INTEGER), None)
    prf = next((_parse_prf(value) for tag, value in members[2:] if tag == der.SEQUENCE), _PRFS[_DEFAULT_PRF])
    return Pbkdf2(members[0][1], _small(members[1][1]), key_length, prf)


_OPTIONAL_PARAMETERS = frozenset({(), (der.INTEGER,), (der.SEQUENCE,), (der.INTEGER, der.SEQUENCE)})


def _small(content: bytes) -> int:
    if len(content) > 8:
        raise MalformedMessage("PBKDF2 parameters are broken", "an integer of more than 64 bits")
    return der.decode_integer(content)


def _parse_prf(algorithm: bytes) -> str:
    start, end = der.read_as(der.OBJECT_IDENTIFIER, algorithm)
    if algorithm[end:] not in {b"", der.null()}:
        raise MalformedMessage("PBKDF2 parameters are broken", "the PRF has parameters")
    oid = der.decode_oid(algorithm[start:end])
    return _PRFS.get(oid, oid)


def check_recipient(recipient: PasswordRecipient) -> None:
    """Raise Rejection UNSUPPORTED_ALGORITHM unless `unwrap` can take `recipient`; all of it stands in the message in clear."""
    _find_key_cipher(recipient)
    _find_derivation(recipient)


def _find_key_cipher(recipient: PasswordRecipient) -> CbcCipher:
    if recipient.cipher not in _KEY_CIPHERS:
        raise _unsupported(f"key encryption {recipient.cipher}")
    cipher = find_cipher(recipient.cipher)
    size = len(recipient.encrypted_key)
    if size % cipher.block_size or not 2 * cipher.block_size <= size <= MAX_WRAPPED_KEY:
        raise _unsupported(f"an encrypted key of {size} bytes")
    return cipher


def _find_derivation(recipient: PasswordRecipient) -> Pbkdf2:
    derivation = recipient.derivation
    if derivation is None:
        raise _unsupported("no PBKDF2 with a salt")
    if derivation.prf not in _PRFS.values():
        raise _unsupported(f"PRF {derivation.prf}")
    if not MIN_ITERATIONS <= derivation.iterations <= MAX_ITERATIONS:
        raise _unsupported(f"{derivation.iterations} iterations")
    if not MIN_SALT <= len(derivation.salt) <= MAX_SALT:
        raise _unsupported(f"a salt of {len(derivation.salt)} bytes")
    if derivation.key_length not in {None, find_cipher(recipient.cipher).key_size}:
        raise _unsupported(f"keyLength {derivation.key_length} for {recipient.cipher}")
    return derivation


def _unsupported(cause: str) -> Rejection:
    return Rejection(Reason.UNSUPPORTED_ALGORITHM, "the password-based key encryption is not supported", cause)


def unwrap(recipient: PasswordRecipient, password: bytes, size: int) -> bytes:
    """Return the content key of `size` bytes, or a random one whatever is wrong with it.

    A wrong password, check value or count costs one derivation and two CBC passes, like the right ones. Raises Rejection
    UNSUPPORTED_ALGORITHM before any of that, as `check_recipient` does.
    """
    cipher, derivation = _find_key_cipher(recipient), _find_derivation(recipient)
    key = hashlib.pbkdf2_hmac(derivation.prf, password, derivation.salt, derivation.iterations, cipher.key_size)
    return unwrap_key(cipher, key, recipient.iv, recipient.encrypted_key, size)


def unwrap_key(cipher: CbcCipher, key: bytes, iv: bytes, wrapped: bytes, size: int) -> bytes:
    """Return the content key of `size` bytes that `wrap_key` wrapped, or a random one (RFC 3211 §2.3.1).

    `wrapped` is two or more whole blocks.
    """
    block = cipher.block_size
    substitute = secrets.token_bytes(size)
    # the outer pass was chained to the last block of the inner one, which the last two blocks give
    last_inner = cipher.decryptor(key, wrapped[-2 * block : -block]).update(wrapped[-block:])
    formatted = cipher.decryptor(key, iv).update(cipher.decryptor(key, last_inner).update(wrapped))
    content_key = formatted[_HEADER : _HEADER + size].ljust(size, b"\0")
    good = hmac.compare_digest(formatted[:_HEADER], _header(content_key)) and len(formatted) >= _HEADER + size
    return content_key if good else substitute


def wrap_key(cipher: CbcCipher, key: bytes, iv: bytes, content_key: bytes) -> bytes:
    """Return `content_key` with count, check value and random padding, encrypted twice in one CBC chain (RFC 3211 §2.3.1)."""
    formatted = _header(content_key) + content_key
    whole = max(2 * cipher.block_size, -(-len(formatted) // cipher.block_size) * cipher.block_size)
    encryptor = cipher.encryptor(key, iv)
    inner = encryptor.update(formatted + secrets.token_bytes(whole - len(formatted)))
    return encryptor.update(inner)


def _header(content_key: bytes) -> bytes:
    """Return the count byte and the complement of the first three bytes."""
    return bytes((len(content_key), *(0xFF - octet for octet in content_key[:3])))


def wrap(content_key: bytes, password: bytes, cipher_name: str) -> bytes:
    """Return the RecipientInfo element `[3]` that gives `content_key` to whoever knows `password`.

    PBKDF2 with HMAC-SHA-256, a salt of 16 bytes and 10,000 iterations; the key-encryption key is one of `cipher_name`, of 3DES
    for single DES. Raises Rejection UNSUPPORTED_ALGORITHM for an unknown cipher.
    """
    cipher = find_cipher("des-ede3-cbc" if cipher_name == "des-cbc" else cipher_name)
    iv = secrets.token_bytes(cipher.block_size)
    key, derivation = _derive(password, cipher.key_size, None)
    return der.context(
        3,
        der.integer(0),
        derivation,
        der.sequence(der.oid(OID_PWRI_KEK), cipher.identifier(iv)),
        der.octet_string(wrap_key(cipher, key, iv, content_key)),
    )


def derive_key(password: bytes, size: int) -> tuple[bytes, bytes]:
    """Return a key-encryption key of `size` bytes under a salt of its own, and the KeyDerivationAlgorithmIdentifier `[0]`.

    The parameters name the size, as whoever unwraps with another algorithm than PWRI-KEK may need it (RFC 8018 §A.2).
    """
    return _derive(password, size, size)


def _derive(password: bytes, size: int, told: int | None) -> tuple[bytes, bytes]:
    salt = secrets.token_bytes(_OWN_SALT)
    key_length = b"" if told is None else der.integer(told)
    parameters = der.sequence(der.octet_string(salt), der.integer(_OWN_ITERATIONS), key_length, _OWN_PRF)
    key = hashlib.pbkdf2_hmac("sha256", password, salt, _OWN_ITERATIONS, size)
    return key, der.context(0, der.oid(OID_PBKDF2), parameters)
