"""CMS SignedData over content of any type, bare or in a ContentInfo (RFC 5652 §3, §5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gateway.asn1 import cms as asn1
from gateway.pki import der
from gateway.pki.algorithms import NO_DIGEST, digest_oid
from gateway.pki.cms import Signer, attribute
from gateway.pki.keys import default_digest, sign, signature_algorithm

_IMPLICIT_SET = 0xA0


def content_info(content_type: str, content: bytes) -> bytes:
    """Return a ContentInfo (RFC 5652 §3)."""
    return der.sequence(der.oid(content_type), der.context(0, content))


def sign_content(
    content_type: str, content: bytes, signer: Signer, beside: Iterable[bytes] = (), key_id: bytes | None = None
) -> bytes:
    """Return a bare SignedData over `content`, by one signer whose certificate is in it; those `beside` it go unsigned.

    The digest is the one that fits the key: SHA-512 where the key hashes by itself (RFC 8419 §3.1, RFC 9882 §3.3). The version
    says that the content is not id-data (RFC 5652 §5.1). With `key_id`, its subjectKeyIdentifier, the signer is named by that.
    """
    own = default_digest(signer.key)
    digest = "sha512" if own == NO_DIGEST else own
    digest_algorithm = der.sequence(der.oid(digest_oid(digest)))
    signed_attributes = der.set_of(
        attribute(asn1.OID_CONTENT_TYPE, der.oid(content_type)),
        attribute(asn1.OID_MESSAGE_DIGEST, der.octet_string(hashlib.new(digest, content).digest())),
    )
    signer_info = der.sequence(
        der.integer(1 if key_id is None else 3),
        signer.issuer_and_serial if key_id is None else der.context(0, key_id, constructed=False),
        digest_algorithm,
        bytes((_IMPLICIT_SET,)) + signed_attributes[1:],
        signature_algorithm(signer.key, own),
        der.octet_string(sign(signer.key, signed_attributes, own)),
    )
    return der.sequence(
        der.integer(3),
        der.set_of(digest_algorithm),
        der.sequence(der.oid(content_type), der.context(0, der.octet_string(content))),
        der.context(0, signer.certificate, *beside),
        der.set_of(signer_info),
    )
