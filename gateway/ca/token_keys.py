"""Private keys in tokens, in the shape that the rest of the gateway knows: `cryptography`'s RSA and EC private keys.

Data is hashed here and the token signs what is left: the mechanisms that every token has (CKM_RSA_PKCS, CKM_ECDSA).
"""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, Hash, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.ca.token import KeyName, Token, TokenFault
from gateway.pki import der
from gateway.pki.algorithms import digest_oid

_DIGEST_NAMES = {"sha1": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512", "md5": "md5"}
_TEST_DATA = b"pki-gateway test signature"
_ABOUT_DATA = ("DataInvalid", "DataLenRange", "MechanismInvalid", "MechanismParamInvalid", "KeyTypeInconsistent")
_STAYS = "the key does not leave its token"


class TokenPrivateKey:
    """What keys in tokens share; signing and decrypting block and may raise KeyUnavailable."""

    def __init__(self, token: Token, name: KeyName) -> None:
        self._token = token
        self._name = name

    def private_numbers(self) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(_STAYS)

    def private_bytes(self, *_: object) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(_STAYS)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Any:
        return self


class TokenRSAKey(TokenPrivateKey, rsa.RSAPrivateKey):
    """An RSA key that signs PKCS#1 v1.5 and decrypts PKCS#1 v1.5 and OAEP with SHA-1."""

    def __init__(self, token: Token, name: KeyName, public: rsa.RSAPublicKey) -> None:
        super().__init__(token, name)
        self._public = public

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public half."""
        return self._public

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        """Sign by RSASSA-PKCS1-v1_5 (RFC 8017 §8.2). Raises UnsupportedAlgorithm, KeyUnavailable."""
        if not isinstance(padding, _PKCS1):
            raise UnsupportedAlgorithm("keys in tokens sign by PKCS #1 v1.5 alone")
        kind, digest = _hash(algorithm, bytes(data))
        identifier = der.sequence(der.oid(digest_oid(_DIGEST_NAMES[kind.name])), der.null())
        info = der.sequence(identifier, der.octet_string(digest))
        mechanism = self._token.module.pkcs11.Mechanism.RSA_PKCS
        return self._token.use(self._name, lambda key: bytes(key.sign(info, mechanism=mechanism)), _ABOUT_DATA)

    def decrypt(self, ciphertext: Any, padding: Any) -> bytes:
        """Decrypt; ValueError for everything that may lie at the ciphertext, whatever the token says of it.

        Raises KeyUnavailable for what cannot. A session is never opened anew for what a stranger's ciphertext can bring about.
        """
        pkcs11 = self._token.module.pkcs11
        if isinstance(padding, _PKCS1):
            arguments = {"mechanism": pkcs11.Mechanism.RSA_PKCS}
        elif _is_oaep_sha1(padding):
            parameters = (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None)
            arguments = {"mechanism": pkcs11.Mechanism.RSA_PKCS_OAEP, "mechanism_param": parameters}
        else:
            raise ValueError("tokens decrypt OAEP with SHA-1 alone")
        return self._token.use(self._name, lambda key: bytes(key.decrypt(bytes(ciphertext), **arguments)), ("*",))


_PKCS1 = padding.PKCS1v15


def _is_oaep_sha1(scheme: Any) -> bool:
    if not isinstance(scheme, padding.OAEP):
        return False
    mgf = scheme.mgf
    return isinstance(scheme.algorithm, SHA1) and isinstance(mgf, padding.MGF1) and isinstance(mgf._algorithm, SHA1)


class TokenECKey(TokenPrivateKey, ec.EllipticCurvePrivateKey):
    """An EC key that signs by ECDSA."""

    def __init__(self, token: Token, name: KeyName, public: ec.EllipticCurvePublicKey) -> None:
        super().__init__(token, name)
        self._public = public

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self._public.key_size

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Raise UnsupportedAlgorithm: nothing here agrees on keys."""
        raise UnsupportedAlgorithm("keys in tokens sign alone")

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        """Sign by ECDSA; DER (RFC 3279 §2.2.3). Raises UnsupportedAlgorithm, KeyUnavailable."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm("keys in tokens sign by ECDSA alone")
        _, digest = _hash(signature_algorithm.algorithm, bytes(data))
        size = (self.key_size + 7) // 8
        mechanism = self._token.module.pkcs11.Mechanism.ECDSA
        # a digest longer than the order is cut (FIPS 186-5 §6.4.1), which some tokens leave to the caller
        raw = self._token.use(self._name, lambda key: bytes(key.sign(digest[:size], mechanism=mechanism)), _ABOUT_DATA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


def _hash(algorithm: Any, data: bytes) -> tuple[HashAlgorithm, bytes]:
    """Return the algorithm and the digest of data, which may be one already. Raises UnsupportedAlgorithm."""
    kind = algorithm._algorithm if isinstance(algorithm, Prehashed) else algorithm
    if not isinstance(kind, HashAlgorithm) or kind.name not in _DIGEST_NAMES:
        raise UnsupportedAlgorithm("this digest is not signed by keys in tokens")
    if isinstance(algorithm, Prehashed):
        return kind, data
    digest = Hash(kind)
    digest.update(data)
    return kind, digest.finalize()


def open_key(token: Token, name: KeyName) -> TokenRSAKey | TokenECKey:
    """Return a key after a test signature. Raises TokenFault for one of no use, KeyUnavailable."""
    key = token.public_attributes(name, lambda private, public: _read(token, name, private, public))
    try:
        if isinstance(key, TokenRSAKey):
            key.public_key().verify(key.sign(_TEST_DATA, _PKCS1(), SHA256()), _TEST_DATA, _PKCS1(), SHA256())
        else:
            scheme = ec.ECDSA(SHA256())
            key.public_key().verify(key.sign(_TEST_DATA, scheme), _TEST_DATA, scheme)
    except TokenFault:
        raise
    except (ValueError, InvalidSignature) as error:
        raise TokenFault("a test signature fails: the key may not sign, or its public key is another's") from error
    return key


def _read(token: Token, name: KeyName, private: Any, public: Any) -> TokenRSAKey | TokenECKey:
    pkcs11 = token.module.pkcs11
    attribute, kind = pkcs11.Attribute, private.key_type
    if kind == pkcs11.KeyType.RSA:
        source = public if public is not None else private
        modulus, exponent = (int.from_bytes(source[a]) for a in (attribute.MODULUS, attribute.PUBLIC_EXPONENT))
        return TokenRSAKey(token, name, _checked(lambda: rsa.RSAPublicNumbers(exponent, modulus).public_key()))
    if kind != pkcs11.KeyType.EC:
        raise TokenFault("keys in tokens must be RSA or EC")
    if public is None:
        raise TokenFault("the token has no public key of the same label and id beside this EC key: import it there")
    spki = pkcs11.util.ec.encode_ec_public_key(public)
    found = _checked(lambda: load_der_public_key(spki))
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise TokenFault("the public key in the token is not of the same kind")
    return TokenECKey(token, name, found)


def _checked(make: Any) -> Any:
    try:
        return make()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TokenFault("the public key in the token cannot be read, or is of a kind that is not known here") from error
