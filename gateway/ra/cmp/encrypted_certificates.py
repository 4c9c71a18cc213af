"""Certificates that are sent encrypted to their own keys, whose possession certConf then proves (RFC 9810 §5.2.8.3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.cmp import CertRequestMessage, Header, Possession
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.encrypted_value import encrypt_value
from gateway.pki.key_package import CertificateRecipient, envelope_choice, seal_certificate
from gateway.ra.cmp.key_generation import CMP_2021
from gateway.ra.profile import CmpTerms

LATER = frozenset({Possession.KEY_ENCIPHERMENT, Possession.KEY_AGREEMENT})
"""What a request says whose key cannot sign: possession is proved by a later message."""


@dataclass(frozen=True, slots=True)
class CertificateSeal:
    """How one certificate is encrypted to its own key; known before it is issued."""

    spki: bytes = field(repr=False)
    enveloped: bool

    def seal(self, certificate: bytes) -> bytes:
        """Return a certificate, DER, as EncryptedKey."""
        if not self.enveloped:
            return encrypt_value(certificate, self.spki)
        return envelope_choice(seal_certificate(certificate, CertificateRecipient.of_key(self.spki)))


def plan_encryption(terms: CmpTerms, header: Header, asked: CertRequestMessage) -> CertificateSeal | None:
    """Return how the certificate is to be encrypted; None where the request proves possession in another way.

    Raises Rejection where that is not offered, or where nothing can be encrypted to the key.
    """
    if asked.possession not in LATER:
        return None
    if not asked.encrypted_certificate:
        raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, "possession of this key is proved by encrCert only")
    if not terms.config.encrypted_certificates:
        raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, "certificates are not sent encrypted here: the request must be signed")
    return seal_for(header, asked.request.public_key.der)


def seal_for(header: Header, spki: bytes) -> CertificateSeal:
    """Return how a certificate is encrypted to its SubjectPublicKeyInfo, in the form that the client's version knows.

    Raises Rejection UNSUPPORTED_ALGORITHM.
    """
    enveloped = header.pvno >= CMP_2021
    try:
        seal = CertificateSeal(spki, enveloped)
        seal.seal(b"\x30\x00")
    except (ValueError, MalformedMessage):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "nothing can be encrypted to a key of this kind") from None
    return seal
