"""Object identifiers of key packages and of what encrypts them (RFC 5958 §2, RFC 3565 §2.3.2, RFC 5753 §7.1.4)."""

from __future__ import annotations

OID_ASYMMETRIC_KEY_PACKAGE = "2.16.840.1.101.2.1.2.78.5"
"""id-ct-KP-aKeyPackage."""

OID_AES_128_WRAP = "2.16.840.1.101.3.4.1.5"
OID_AES_192_WRAP = "2.16.840.1.101.3.4.1.25"
OID_AES_256_WRAP = "2.16.840.1.101.3.4.1.45"
OID_ECDH_SHA256_KDF = "1.3.132.1.11.1"
"""dhSinglePass-stdDH-sha256kdf-scheme."""
OID_ECDH_SHA384_KDF = "1.3.132.1.11.2"
OID_ECDH_SHA512_KDF = "1.3.132.1.11.3"
OID_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
OID_RSAES_OAEP = "1.2.840.113549.1.1.7"

CONTENT_CIPHERS = frozenset(
    {
        *(f"2.16.840.1.101.3.4.1.{n}" for n in (2, 6, 7, 22, 26, 27, 42, 46, 47)),
        "1.2.840.113549.3.7",
        "1.2.840.113549.3.2",
        "1.3.14.3.2.7",
        "1.2.840.113549.1.9.16.3.18",
    }
)
"""AES in CBC, GCM and CCM, 3DES, RC2, DES, ChaCha20-Poly1305: capabilities that speak of content encryption."""
KEY_WRAPS = frozenset(
    {
        *(f"2.16.840.1.101.3.4.1.{n}" for n in (5, 8, 25, 28, 45, 48)),
        "1.2.840.113549.1.9.16.3.6",
        "1.2.840.113549.1.9.16.3.7",
    }
)
"""AES with and without padding, 3DES, RC2."""
KEY_TRANSPORTS = frozenset({OID_RSA_ENCRYPTION, OID_RSAES_OAEP, "1.0.18033.2.2.4", "1.2.840.113549.1.9.16.3.14"})
"""RSA in PKCS #1 v1.5, OAEP and KEM."""
KEY_AGREEMENTS = frozenset(
    {
        *(f"1.3.132.1.{arc}.{n}" for arc in (11, 14, 15) for n in range(4)),
        *(f"1.3.133.16.840.63.0.{n}" for n in (2, 3, 16)),
        "1.2.840.113549.1.9.16.3.5",
    }
)
"""ECDH by its modes and digests, and Diffie-Hellman."""
