"""Who writes a message, and what protects it: a signature, or a MAC under a shared secret (RFC 9810 §5.1.3, RFC 9483 §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gateway.cmp import MacSender, Sender
from gateway.model import NameAttribute
from gateway.pki import cms, der
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import PrivateKey, default_digest, sign, signature_algorithm
from gateway.pki.names import encode_name
from gateway.pki.password_mac import MacParameters, compute_mac, fresh_mac, read_mac

Strictness = Literal["rfc4210", "lightweight"]

OID_COMMON_NAME = "2.5.4.3"
_DIRECTORY_NAME = 4


@dataclass(frozen=True, slots=True)
class SignatureProtector:
    """A certificate with its key, and the parts of its messages that are always the same."""

    sender: bytes = field(repr=False)
    """GeneralName, DER."""
    head: bytes = field(repr=False)
    """protectionAlg and senderKID as they follow each other in the header."""
    certificates: bytes = field(repr=False)
    """What begins extraCerts: its certificate first, then its chain (RFC 9483 §3.3)."""
    key: PrivateKey = field(repr=False)
    digest: str

    @classmethod
    def create(cls, certificates: tuple[bytes, ...], key: PrivateKey) -> SignatureProtector:
        """Prepare it from DER certificates, that of `key` first; raises MalformedMessage where that is none."""
        certificate = parse_certificate(certificates[0])
        digest = default_digest(key)
        identifier = b"" if certificate.subject_key_id is None else _key_id(certificate.subject_key_id)
        return cls(
            sender=directory_name(certificate.subject.der),
            head=der.context(1, signature_algorithm(key, digest)) + identifier,
            certificates=b"".join(certificates),
            key=key,
            digest=digest,
        )

    def protect(self, covered: bytes) -> bytes:
        """Return the signature over a ProtectedPart."""
        return sign(self.key, covered, self.digest)


@dataclass(frozen=True, slots=True)
class MacProtector:
    """A shared secret with parameters drawn for one message."""

    sender: bytes = field(repr=False)
    head: bytes = field(repr=False)
    parameters: MacParameters = field(repr=False)
    secret: bytes = field(repr=False)
    certificates: bytes = b""

    @classmethod
    def create(
        cls,
        reference: bytes,
        secret: bytes,
        sender: bytes | None = None,
        like: MacParameters | None = None,
        iterations: int | None = None,
    ) -> MacProtector:
        """Draw parameters for one message; `sender` None is a common name that says the reference number (RFC 9483 §3.1)."""
        algorithm, parameters = fresh_mac(like, iterations)
        named = reference_name(reference) if sender is None else sender
        return cls(named, der.context(1, algorithm) + _key_id(reference), parameters, secret)

    def protect(self, covered: bytes) -> bytes:
        """Return the MAC over a ProtectedPart."""
        return compute_mac(self.parameters, self.secret, covered)


MessageProtector = SignatureProtector | MacProtector


@dataclass(frozen=True, slots=True)
class Protector:
    """What protects the answers of one service, each in the kind of its request (RFC 9483 §3.2)."""

    signature: SignatureProtector
    strictness: Strictness

    @classmethod
    def create(cls, signer: cms.Signer, chain: tuple[bytes, ...], *, strictness: Strictness) -> Protector:
        """Prepare it from the CMP signer and the certificates above it, DER."""
        return cls(SignatureProtector.create((signer.certificate, *chain), signer.key), strictness)

    def answering(self, sender: Sender | None) -> MessageProtector:
        """Return what protects an answer to `sender`.

        Under a MAC the answer's sender is named by the reference number where RFC 9483 §3.1 is asked for, else by the name of the
        CMP signer, as the recipient that older clients know (RFC 4210 Appendix D.4).
        """
        if not isinstance(sender, MacSender):
            return self.signature
        name = None if self.strictness == "lightweight" else self.signature.sender
        secret = sender.secret
        return MacProtector.create(secret.reference, secret.secret, name, read_mac(sender.parameters))


def directory_name(name: bytes) -> bytes:
    """Return the GeneralName that is a Name, DER."""
    return der.context(_DIRECTORY_NAME, name)


def reference_name(reference: bytes) -> bytes:
    """Return the GeneralName of whoever has but a reference number: its text as common name (RFC 9483 §3.1)."""
    text = reference.decode("utf-8", "replace")
    return directory_name(encode_name([[NameAttribute(OID_COMMON_NAME, text)]]))


def _key_id(value: bytes) -> bytes:
    return der.context(2, der.octet_string(value))


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the header of a message says beside who protects it (RFC 9810 §5.1.1)."""

    pvno: int
    recipient: bytes = field(repr=False)
    """GeneralName, DER."""
    message_time: datetime | None
    transaction_id: bytes | None
    sender_nonce: bytes | None
    recipient_nonce: bytes | None = None
    general_info: bytes = b""
    """InfoTypeAndValues, DER, one after the other."""


def seal(envelope: Envelope, body: bytes, protector: MessageProtector | None, certificates: Iterable[bytes] = ()) -> bytes:
    """Return a PKIMessage around `body`, a PKIBody in DER; None leaves it unprotected.

    `certificates` follow the protector's own in extraCerts, each once.
    """
    header = _encode_header(envelope, protector)
    own = b"" if protector is None else protector.certificates
    extra = own + b"".join(dict.fromkeys([certificate for certificate in certificates if certificate not in own]))
    beside = der.context(1, der.sequence(extra)) if extra else b""
    if protector is None:
        return der.sequence(header, body, beside)
    protection = der.bit_string(protector.protect(der.sequence(header, body)))
    return der.sequence(header, body, der.context(0, protection), beside)


def _encode_header(envelope: Envelope, protector: MessageProtector | None) -> bytes:
    moment, nonces = envelope.message_time, (envelope.transaction_id, envelope.sender_nonce, envelope.recipient_nonce)
    return der.sequence(
        der.integer(envelope.pvno),
        _NOBODY if protector is None else protector.sender,
        envelope.recipient,
        b"" if moment is None else der.context(0, der.generalized_time(moment)),
        b"" if protector is None else protector.head,
        *[der.context(4 + number, der.octet_string(value)) for number, value in enumerate(nonces) if value is not None],
        der.context(8, der.sequence(envelope.general_info)) if envelope.general_info else b"",
    )


_NOBODY = directory_name(der.sequence())
"""NULL-DN: nothing is known about the sender (RFC 9810 §5.1.1)."""
