"""Keys that are drawn for CMP clients: which kind, and sealed to whoever protected the request (RFC 9483 §4.1.6)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.cmp import CertRequestMessage, Header, MacSender, Sender
from gateway.errors import Reason, Rejection
from gateway.model import IssuedWithKey, PublicKey
from gateway.pki.certificate import parse_certificate
from gateway.pki.key_package import CertificateRecipient, KeyGenerationAuthority, Recipient, SecretRecipient, envelope_choice
from gateway.pki.public_keys import describe_algorithm
from gateway.ra.profile import CmpTerms
from gateway.ra.server_keys import choose_kind, kind_fits

CMP_2021 = 3
"""pvno of messages that know EnvelopedData (RFC 9810 §7)."""


@dataclass(frozen=True, slots=True)
class WantedKey:
    """The kind of key to draw, and how it will be sealed; known before anything is drawn or issued."""

    kind: str
    recipient: Recipient
    authority: KeyGenerationAuthority
    bare: bool

    async def seal(self, drawn: IssuedWithKey) -> bytes:
        """Return the key as EncryptedKey, away from the event loop: it is signed and encrypted."""
        spki = parse_certificate(drawn.issued.certificate).public_key.der
        return await asyncio.get_running_loop().run_in_executor(None, self._seal, drawn.key, spki)

    def _seal(self, pkcs8: bytes, spki: bytes) -> bytes:
        return envelope_choice(self.authority.seal_key(pkcs8, spki, self.recipient, bare=self.bare))


def plan_key(terms: CmpTerms, header: Header, asked: CertRequestMessage, sender: Sender) -> WantedKey:
    """Return what is to be drawn for a request without a key, and for whom it is sealed.

    Clients of version 2 get their key bare in its SignedData: RFCs give keys in EnvelopedData to version 3 only, and what asks in
    version 2 is OpenSSL 3.5, which reads no AsymmetricKeyPackage. Raises Rejection: no keys are drawn here, or none of the kind
    that is asked for, or nothing can be encrypted to the sender.
    """
    generation, authority = terms.config.key_generation, terms.key_authority
    if generation is None or authority is None:
        raise Rejection(Reason.BAD_TEMPLATE, "the template has no public key, and no keys are drawn here")
    kinds = generation.keys
    wanted = None if asked.wanted_key is None else describe_algorithm(asked.wanted_key)
    if wanted is not None:
        kinds = tuple(kind for kind in kinds if kind_fits(kind, wanted))
        if not kinds:
            raise Rejection(Reason.BAD_TEMPLATE, f"keys of this kind are not drawn here: {', '.join(generation.keys)} are")
    kind = choose_kind(kinds, wanted or PublicKey(b"", b"", "", 0))
    return WantedKey(kind, _recipient(terms, sender), authority, header.pvno < CMP_2021)


def _recipient(terms: CmpTerms, sender: Sender) -> Recipient:
    """Return whoever protected the request: by shared secret, by key transport or by key agreement (RFC 9483 §4.1.6.1-3)."""
    if isinstance(sender, MacSender):
        return SecretRecipient(sender.secret.secret, wraps=terms.config.strictness == "lightweight")
    try:
        return CertificateRecipient.create(sender.signer.der)
    except ValueError as problem:
        raise Rejection(
            Reason.UNSUPPORTED_ALGORITHM, f"no key can be sent to the certificate that signed the request: {problem}"
        ) from None
