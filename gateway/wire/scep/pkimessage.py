"""SCEP PKIMessage: decode and verify requests, write CertReps (RFC 8894 §3).

A request passes three steps, each of which costs more and trusts more than the one before: `decode_pki_message` takes the
structure apart, `verify_signature` checks who signed and when, `decode_request` judges what is said in clear, decrypts, and reads
what was asked for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.asn1.scep import FailInfo, MessageType, PkiStatus
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, SignerCertificate
from gateway.pki import cms, der, envelope
from gateway.pki.algorithms import digest_name, signature_digest
from gateway.pki.certificate import Certificate, parse_certificate, to_signer
from gateway.pki.keys import load_public_key
from gateway.wire.scep import attributes, errors, message_data
from gateway.wire.scep.identity import Algorithms, RaIdentity
from gateway.wire.scep.message_data import CertificateQuery

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = [
    "Algorithms",
    "CertificateQuery",
    "FailInfo",
    "MessageType",
    "PkiMessage",
    "PkiStatus",
    "RaIdentity",
    "decode_pki_message",
    "decode_request",
    "encode_failure",
    "encode_pending",
    "encode_success",
    "verify_signature",
]

NONCE_SIZE = 16
MAX_FAIL_INFO_TEXT = 255

_OPERATIONS = {
    MessageType.CERT_REP: "CertRep",
    MessageType.RENEWAL_REQ: "RenewalReq",
    MessageType.PKCS_REQ: "PKCSReq",
    MessageType.CERT_POLL: "CertPoll",
    MessageType.GET_CERT: "GetCert",
    MessageType.GET_CRL: "GetCRL",
}
_MESSAGE_TYPES = frozenset(MessageType)
_QUERIES = frozenset({MessageType.GET_CERT, MessageType.GET_CRL})
_REQUESTS = frozenset({MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL}) | _QUERIES
_CERT_REP = attributes.code(asn1.OID_MESSAGE_TYPE, MessageType.CERT_REP)
_STATUS = {status: attributes.code(asn1.OID_PKI_STATUS, status) for status in PkiStatus}
_FAIL_INFO = {info: attributes.code(asn1.OID_FAIL_INFO, info) for info in FailInfo}
_REPLY_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
_DES = frozenset({"des-cbc", "des-ede3-cbc"})
LEGACY = ("md5", "sha1", "des-ede3-cbc", "des-cbc")
"""What `PkiMessage.legacy` may name."""


@dataclass(frozen=True, slots=True)
class PkiMessage:
    """A request taken apart; nothing in it may be believed before `verify_signature`.

    `message_type` is None for a type that is not in use, such as the obsolete UpdateReq. `digest` is a name such as
    `sha256`, or the dotted OID of one that we do not have. `envelope` is None when the content is no EnvelopedData.
    """

    message_type: MessageType | None
    transaction_id: str
    transaction_id_der: bytes = field(repr=False)
    """The attribute's value as received, to be echoed byte for byte (RFC 8894 §3.2.1.1)."""
    sender_nonce: bytes
    signer: SignerCertificate
    digest: str
    signed_data: cms.SignedData = field(repr=False)
    envelope: envelope.EnvelopedData | None = field(repr=False)
    fault: MalformedMessage | None = field(default=None, repr=False)
    """What is wrong with a message that can only be answered by saying so."""

    @property
    def operation(self) -> str:
        """The message type by the name that the standard gives it; `unknown` where it gives none."""
        return _OPERATIONS[self.message_type] if self.message_type is not None else "unknown"

    @property
    def cipher(self) -> str:
        """The content cipher, such as `aes-128-cbc`; empty when nothing is enveloped."""
        return self.envelope.cipher if self.envelope else ""

    @property
    def recipients(self) -> tuple[cms.CertificateId, ...]:
        """Whom the message is encrypted to."""
        return tuple(r.rid for r in self.envelope.recipients) if self.envelope else ()

    @property
    def legacy(self) -> tuple[str, ...]:
        """The legacy algorithms that the message uses: any of `md5`, `sha1`, `des-ede3-cbc` and `des-cbc`."""
        used = {self.digest, self.cipher, _signature_digest(self.signed_data.signers[0])}
        if self.envelope:
            used.update(recipient.cipher for recipient in self.envelope.passwords)
        return () if used.isdisjoint(LEGACY) else tuple(name for name in LEGACY if name in used)

    @property
    def uses_password(self) -> bool:
        """Whether reading or answering it may derive a key from a password, which takes milliseconds (RFC 8894 §3.1)."""
        return bool(self.envelope and self.envelope.passwords) or self.signer.public_key.algorithm != "rsa"


def decode_pki_message(data: bytes) -> PkiMessage:
    """Take a PKIMessage apart, BER or DER (RFC 8894 §3.1).

    Raises MalformedMessage where no CertRep could be made: not SignedData with exactly one signer that has signed attributes, a
    certificate and a transactionID, or attributes that could mean two things.
    """
    signed = cms.parse_signed_data(data)
    if not signed.signers:
        raise MalformedMessage("message is not signed")
    info = signed.signers[0]
    if not info.signed_attributes:
        raise MalformedMessage("message has no signed attributes")
    transaction = attributes.read_text(info.attributes, asn1.OID_TRANSACTION_ID)
    if transaction is None:
        raise MalformedMessage("message has no transactionID")
    nonce, fault = _read_nonce(info.attributes)
    if signed.content_type != asn1_cms.OID_DATA or signed.content is None:
        fault = MalformedMessage("message does not sign id-data", f"eContentType {signed.content_type}")
    return PkiMessage(
        message_type=_message_type(attributes.read_number(info.attributes, asn1.OID_MESSAGE_TYPE)),
        transaction_id=transaction[0],
        transaction_id_der=transaction[1],
        sender_nonce=nonce,
        signer=to_signer(find_certificate(signed.certificates, info.sid)),
        digest=_digest(info.digest_algorithm),
        signed_data=signed,
        envelope=None if fault else _parse_envelope(signed.content or b""),
        fault=fault,
    )


def _read_nonce(received: attributes.Attributes) -> tuple[bytes, MalformedMessage | None]:
    """Return senderNonce, or what is wrong with it: an answer without nonces can say so."""
    try:
        return attributes.read_nonce(received, asn1.OID_SENDER_NONCE), None
    except MalformedMessage as fault:
        return b"", fault


def _message_type(number: int | None) -> MessageType | None:
    return MessageType(number) if number is not None and number in _MESSAGE_TYPES else None


def _signature_digest(info: cms.SignerInfo) -> str:
    """Return the digest that the signature's algorithm names, empty where it names none or is none that we know."""
    try:
        return signature_digest(info.signature_algorithm) or ""
    except Rejection:
        return ""


def _digest(oid: str) -> str:
    try:
        return digest_name(oid)
    except Rejection:
        return oid


def _parse_envelope(content: bytes) -> envelope.EnvelopedData | None:
    try:
        return envelope.parse_enveloped_data(content)
    except MalformedMessage:
        return None


def find_certificate(certificates: tuple[bytes, ...], sid: cms.CertificateId) -> Certificate:
    """Return the certificate that a SignerIdentifier means, wherever it stands in the set; MalformedMessage when none does."""
    for data in certificates:
        if _may_be_named(data, sid):
            certificate = parse_certificate(data)
            if sid.key_id in {None, certificate.subject_key_id}:
                return certificate
    raise MalformedMessage("message does not carry its signer's certificate")


def _may_be_named(certificate: bytes, sid: cms.CertificateId) -> bool:
    """Whether a certificate can be the one that is meant, told without reading all of it: strangers send others before it."""
    if sid.key_id is not None:
        return sid.key_id in certificate
    return cms.is_named_by(certificate, sid)


def verify_signature(message: PkiMessage, ra: RaIdentity, now: datetime) -> None:
    """Check the signature of a request, that a reply can be encrypted to its signer, and signingTime where `ra` judges it.

    Raises Rejection BAD_SIGNATURE, UNSUPPORTED_ALGORITHM for digests that `ra` does not accept (RFC 8894 §2.9) and signers whose
    key cannot receive a reply, or BAD_TIME.
    """
    if message.fault is not None:
        raise message.fault
    info = message.signed_data.signers[0]
    _check_digest(message.digest, ra.algorithms)
    used = cms.verify_signer(message.signed_data, info, message.signer.public_key.der, accept_md5=ra.algorithms.md5)
    _check_digest(used, ra.algorithms)
    if message.signer.public_key.algorithm != "rsa" and ra.password is None:
        raise _no_reply(message)
    _check_time(info.attributes, ra, now)


def _no_reply(message: PkiMessage) -> Rejection:
    cause = f"the signer's key is {message.signer.public_key.algorithm}"
    return Rejection(Reason.UNSUPPORTED_ALGORITHM, "the reply can only be encrypted to an RSA key", cause)


def _check_digest(digest: str, algorithms: Algorithms) -> None:
    accepted = {"sha1": algorithms.sha1, "md5": algorithms.md5}
    if not accepted.get(digest, True):
        name = {"sha1": "SHA-1", "md5": "MD5"}[digest]
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, f"{name} is not accepted here, use SHA-256", f"the message uses {name}")


def _check_time(received: attributes.Attributes, ra: RaIdentity, now: datetime) -> None:
    """Compare signingTime, which is signed but optional, with our clock (RFC 5652 §11.3, RFC 8894 §3.2.1.4)."""
    if ra.signing_time_skew is None:
        return
    signed = attributes.read_time(received, asn1.OID_SIGNING_TIME)
    if signed is not None and abs(now - signed) > ra.signing_time_skew:
        raise Rejection(
            Reason.BAD_TIME,
            "the message's signingTime is too far from the time here: set the clock",
            f"signingTime {signed.isoformat()}, now {now.isoformat()}",
        )


def decode_request(message: PkiMessage, ra: RaIdentity) -> CertificateRequest | CertificateQuery | None:
    """Return what a verified message asks for: a certification request, a query, or None for a CertPoll (RFC 8894 §3.3).

    A CertPoll is told by its transactionID and signer alone; what it encrypts is not even decrypted.
    Raises what the message says in clear: Rejection UNSUPPORTED_MESSAGE for a type that is not served, MalformedMessage when it
    has no envelope, UNSUPPORTED_ALGORITHM for a cipher, key transport or derivation, DECRYPTION_FAILED when it is encrypted to
    others. For all else a PKCSReq or RenewalReq gets one uniform DECRYPTION_FAILED, and a GetCert or GetCRL becomes a query that
    names nothing: whoever sends a captured envelope with changed bytes learns nothing from the answer or its time.
    RSA work: one private-key operation; instead of it one key derivation where the message is encrypted under the password alone.
    """
    if message.message_type not in _REQUESTS:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "this message type is not supported", f"message type {message.operation}")
    enveloped = _check_envelope(message, ra)
    if message.message_type is MessageType.CERT_POLL:
        return None
    if message.message_type in _QUERIES:
        return message_data.open_query(enveloped, ra)
    return message_data.open_request(enveloped, ra)


def _check_envelope(message: PkiMessage, ra: RaIdentity) -> envelope.EnvelopedData:
    """Return the envelope, whose cipher the reply will use too."""
    enveloped = message.envelope
    if message.fault is not None:
        raise message.fault
    if enveloped is None:
        enveloped = envelope.parse_enveloped_data(message.signed_data.content or b"")  # raises again, saying why
    message_data.check_cipher(enveloped.cipher, ra.algorithms)
    envelope.find_cipher(enveloped.cipher)
    return enveloped


def encode_success(message: PkiMessage, ra: RaIdentity, certificates: tuple[bytes, ...], crls: tuple[bytes, ...] = ()) -> bytes:
    """Return a CertRep SUCCESS with `certificates`, leaf first, or the CRL of a GetCRL (RFC 8894 §3.3.2.1).

    It is encrypted to the request's signer, or under the password of `ra` where the signer's key cannot encrypt (§3.1).
    Cipher and digest are the request's own where they are in use today. Raises Rejection UNSUPPORTED_ALGORITHM when it can be
    encrypted neither way, which `verify_signature` has told before. RSA work: one private-key operation.
    """
    data = cms.certs_only(certificates, crls)
    # DES is answered by 3DES, which every client that knows DES can read (RFC 8894 §2.9 forbids DES itself)
    cipher = "des-ede3-cbc" if message.cipher in _DES else message.cipher
    key = load_public_key(message.signer.public_key.der)
    if message.signer.public_key.algorithm == "rsa":
        content = envelope.encrypt(data, cipher, cast("RSAPublicKey", key), cms.issuer_and_serial(message.signer.der))
    elif ra.password is not None:
        content = envelope.encrypt_with_password(data, cipher, ra.password)
    else:
        raise _no_reply(message)
    return _encode_cert_rep(message, ra, PkiStatus.SUCCESS, content)


def encode_failure(message: PkiMessage, ra: RaIdentity, reason: Reason, detail: str) -> bytes:
    """Return a CertRep FAILURE with failInfo and `detail` as failInfoText (RFC 8894 §3.3.2.2)."""
    info = _FAIL_INFO[errors.fail_info(reason)]
    text = cms.attribute(asn1.OID_FAIL_INFO_TEXT, der.utf8_string(detail[:MAX_FAIL_INFO_TEXT]))
    return _encode_cert_rep(message, ra, PkiStatus.FAILURE, b"", info, text)


def encode_pending(message: PkiMessage, ra: RaIdentity) -> bytes:
    """Return a CertRep PENDING; the client polls with the same transactionID (RFC 8894 §3.3.2.3)."""
    return _encode_cert_rep(message, ra, PkiStatus.PENDING, b"")


def _encode_cert_rep(message: PkiMessage, ra: RaIdentity, status: PkiStatus, content: bytes, *extra: bytes) -> bytes:
    """Sign a CertRep over `content`.

    Without an envelope the content is an empty OCTET STRING: certmonger fails on an absent one, and all others take both.
    senderNonce is fresh though the standard no longer asks for it: MikroTik, old Apple and Windows clients do.
    """
    legacy = {"sha1": ra.algorithms.sha1, "md5": ra.algorithms.md5}
    mirrored = message.digest in _REPLY_DIGESTS or legacy.get(message.digest, False)
    answered = [attributes.nonce(asn1.OID_RECIPIENT_NONCE, message.sender_nonce)] if message.sender_nonce else []
    return cms.sign_data(
        content,
        ra.signer_for(message.recipients),
        message.digest if mirrored else "sha256",
        (
            _CERT_REP,
            _STATUS[status],
            cms.attribute(asn1.OID_TRANSACTION_ID, message.transaction_id_der),
            attributes.nonce(asn1.OID_SENDER_NONCE, secrets.token_bytes(NONCE_SIZE)),
            *answered,
            *extra,
        ),
    )
