"""Block ciphers in CBC mode, by name and OID, that encrypt CMS content and the keys of content (RFC 3370 §5, RFC 3565)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherContext, algorithms, modes

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der


@dataclass(frozen=True, slots=True)
class CbcCipher:
    """A CBC block cipher by its OID; sizes in bytes."""

    name: str
    oid: str
    key_size: int
    block_size: int

    def encryptor(self, key: bytes, iv: bytes) -> CipherContext:
        """Return what encrypts under `key`, of `key_size` bytes; each `update` goes on where the last one ended."""
        return Cipher(self._algorithm(key), modes.CBC(iv)).encryptor()

    def decryptor(self, key: bytes, iv: bytes) -> CipherContext:
        """Return what decrypts under `key`, of `key_size` bytes; each `update` goes on where the last one ended."""
        return Cipher(self._algorithm(key), modes.CBC(iv)).decryptor()

    def identifier(self, iv: bytes) -> bytes:
        """Return the AlgorithmIdentifier, whose parameters are `iv`."""
        return der.sequence(der.oid(self.oid), der.octet_string(iv))

    def pad(self, content: bytes) -> bytes:
        """Return `content` filled up to whole blocks (RFC 5652 §6.3)."""
        missing = self.block_size - len(content) % self.block_size
        return content + bytes((missing,)) * missing

    def _algorithm(self, key: bytes) -> BlockCipherAlgorithm:
        # a DES key of 8 bytes is three equal keys of 3DES
        return algorithms.AES(key) if self.block_size == 16 else TripleDES(key * (24 // self.key_size))


_CIPHERS = (
    CbcCipher("aes-128-cbc", "2.16.840.1.101.3.4.1.2", 16, 16),
    CbcCipher("aes-192-cbc", "2.16.840.1.101.3.4.1.22", 24, 16),
    CbcCipher("aes-256-cbc", "2.16.840.1.101.3.4.1.42", 32, 16),
    CbcCipher("des-ede3-cbc", "1.2.840.113549.3.7", 24, 8),
    CbcCipher("des-cbc", "1.3.14.3.2.7", 8, 8),
)
_BY_OID = {c.oid: c for c in _CIPHERS}
_BY_NAME = {c.name: c for c in _CIPHERS}


def find_cipher(name: str) -> CbcCipher:
    """Return a cipher by its name; raises Rejection UNSUPPORTED_ALGORITHM for a dotted OID, which stands for none of ours."""
    cipher = _BY_NAME.get(name)
    if cipher is None:
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the content cipher is not supported", f"content cipher {name}")
    return cipher


def parse_cipher(algorithm: bytes) -> tuple[str, bytes]:
    """Return name and IV, given the content of an AlgorithmIdentifier; of a cipher that we do not have its OID and no IV.

    Raises MalformedMessage when the IV does not fit the cipher.
    """
    start, end = der.read_as(der.OBJECT_IDENTIFIER, algorithm)
    oid = der.decode_oid(algorithm[start:end])
    cipher = _BY_OID.get(oid)
    if cipher is None:
        return oid, b""
    iv = der.content(der.OCTET_STRING, algorithm[end:])
    if len(iv) != cipher.block_size:
        raise MalformedMessage("initialisation vector has a wrong length")
    return cipher.name, iv
