"""SCEP PKIMessage: decode and verify requests, write CertReps (RFC 8894 §3).

A request passes three steps, each of which costs more and trusts more than the one before: `decode_pki_message` takes the
structure apart, `verify_signature` checks who signed, `decode_request` judges what is said in clear, decrypts, and reads the CSR.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import scep as asn1
from gateway.asn1.scep import FailInfo, MessageType, PkiStatus
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, SignerCertificate
from gateway.pki import cms, der, envelope
from gateway.pki.algorithms import digest_name
from gateway.pki.certificate import Certificate, parse_certificate, to_signer
from gateway.pki.csr import parse_csr
from gateway.pki.keys import load_public_key
from gateway.wire.scep import attributes, errors
from gateway.wire.scep.identity import Algorithms, RaIdentity

__all__ = [
    "Algorithms",
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
_REQUESTS = frozenset({MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL})
_CERT_REP = attributes.code(asn1.OID_MESSAGE_TYPE, MessageType.CERT_REP)
_STATUS = {status: attributes.code(asn1.OID_PKI_STATUS, status) for status in PkiStatus}
_FAIL_INFO = {info: attributes.code(asn1.OID_FAIL_INFO, info) for info in FailInfo}
_REPLY_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
_DES = frozenset({"des-cbc", "des-ede3-cbc"})


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


def decode_pki_message(data: bytes) -> PkiMessage:
    """Take a PKIMessage apart, BER or DER (RFC 8894 §3.1).

    Raises MalformedMessage where no CertRep could be made: not SignedData over id-data with exactly one signer that has
    signed attributes, a certificate and a transactionID.
    """
    signed = cms.parse_signed_data(data)
    if signed.content_type != asn1_cms.OID_DATA or signed.content is None:
        raise MalformedMessage("message does not sign id-data", f"eContentType {signed.content_type}")
    if not signed.signers:
        raise MalformedMessage("message is not signed")
    info = signed.signers[0]
    if not info.signed_attributes:
        raise MalformedMessage("message has no signed attributes")
    transaction = attributes.read_text(info.attributes, asn1.OID_TRANSACTION_ID)
    if transaction is None:
        raise MalformedMessage("message has no transactionID")
    return PkiMessage(
        message_type=_message_type(attributes.read_number(info.attributes, asn1.OID_MESSAGE_TYPE)),
        transaction_id=transaction[0],
        transaction_id_der=transaction[1],
        sender_nonce=attributes.read_nonce(info.attributes, asn1.OID_SENDER_NONCE),
        signer=to_signer(find_certificate(signed.certificates, info.sid)),
        digest=_digest(info.digest_algorithm),
        signed_data=signed,
        envelope=_parse_envelope(signed.content),
    )


def _message_type(number: int | None) -> MessageType | None:
    return MessageType(number) if number is not None and number in _MESSAGE_TYPES else None


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
    for certificate in map(parse_certificate, certificates):
        if sid.key_id is not None:
            if sid.key_id == certificate.subject_key_id:
                return certificate
        elif sid.serial == certificate.serial and sid.issuer_der == certificate.issuer_der:
            return certificate
    raise MalformedMessage("message does not carry its signer's certificate")


def verify_signature(message: PkiMessage, ra: RaIdentity) -> None:
    """Check the signature of a request and that a reply can be encrypted to its signer.

    Raises Rejection BAD_SIGNATURE, or UNSUPPORTED_ALGORITHM for digests that `ra` does not accept (RFC 8894 §2.9) and
    signers whose key cannot receive a reply.
    """
    info = message.signed_data.signers[0]
    _check_digest(message.digest, ra.algorithms)
    _check_digest(cms.verify_signer(message.signed_data, info, message.signer.public_key.der), ra.algorithms)
    if message.signer.public_key.algorithm != "rsa":
        raise Rejection(
            Reason.UNSUPPORTED_ALGORITHM,
            "the reply can only be encrypted to an RSA key",
            f"the signer's key is {message.signer.public_key.algorithm}",
        )


def _check_digest(digest: str, algorithms: Algorithms) -> None:
    if digest == "sha1" and not algorithms.sha1:
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "SHA-1 is not accepted here, use SHA-256", "the message uses SHA-1")


def decode_request(message: PkiMessage, ra: RaIdentity) -> CertificateRequest | None:
    """Return the certification request of a verified PKCSReq or RenewalReq, None for a CertPoll (RFC 8894 §3.3).

    A CertPoll is told by its transactionID and signer alone; what it encrypts is not even decrypted.
    Raises what the message says in clear: Rejection UNSUPPORTED_MESSAGE for every other type, MalformedMessage when there is no
    envelope, UNSUPPORTED_ALGORITHM for a cipher or key transport. For all else there is one uniform DECRYPTION_FAILED, and only
    its cause says more: whoever sends a captured envelope with changed bytes learns nothing from the answer or its time.
    RSA work: one private-key operation.
    """
    if message.message_type not in _REQUESTS:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "this message type is not supported", f"message type {message.operation}")
    enveloped = _check_envelope(message, ra)
    if message.message_type is MessageType.CERT_POLL:
        return None
    # by identifier, never by position: scepclient encrypts to every RSA certificate of the bundle
    recipient = next((r for r in enveloped.recipients if ra.is_named_by(r.rid)), None)
    if recipient is None:
        raise _unreadable("no recipient is this RA's certificate: the client has an old one, or one of another profile")
    plaintext = envelope.decipher(enveloped, recipient, ra.key)
    request = _read_csr(plaintext.element, ra)
    if not plaintext.sound:
        raise _unreadable("bytes follow the certification request, or the padding is wrong")
    return request


def _check_envelope(message: PkiMessage, ra: RaIdentity) -> envelope.EnvelopedData:
    """Return the envelope, whose cipher the reply will use too."""
    enveloped = message.envelope
    if enveloped is None:
        enveloped = envelope.parse_enveloped_data(message.signed_data.content or b"")  # raises again, saying why
    if (enveloped.cipher == "des-cbc" and not ra.algorithms.single_des) or (
        enveloped.cipher == "des-ede3-cbc" and not ra.algorithms.triple_des
    ):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "DES is not accepted here, use AES", f"content cipher {enveloped.cipher}")
    envelope.find_cipher(enveloped.cipher)
    return enveloped


def _read_csr(data: bytes, ra: RaIdentity) -> CertificateRequest:
    """Read a certification request; where it is none, one proof of possession is verified all the same."""
    try:
        return parse_csr(data)
    except Rejection as rejection:
        if rejection.reason is not Reason.BAD_PROOF_OF_POSSESSION:
            with suppress(Rejection):
                parse_csr(ra.decoy)
        raise _unreadable(f"messageData: {rejection.reason}: {rejection.cause}") from None


def _unreadable(cause: str) -> Rejection:
    return Rejection(Reason.DECRYPTION_FAILED, envelope.UNREADABLE, cause)


def encode_success(message: PkiMessage, ra: RaIdentity, certificates: tuple[bytes, ...]) -> bytes:
    """Return a CertRep SUCCESS with `certificates`, leaf first, encrypted to the request's signer (RFC 8894 §3.3.2.1).

    Cipher and digest are the request's own where they are in use today. Raises Rejection UNSUPPORTED_ALGORITHM when the
    signer's key cannot encrypt, which `verify_signature` has told before. RSA work: one private-key operation.
    """
    key = load_public_key(message.signer.public_key.der)
    if not isinstance(key, RSAPublicKey):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the reply can only be encrypted to an RSA key")
    # DES is answered by 3DES, which every client that knows DES can read (RFC 8894 §2.9 forbids DES itself)
    cipher = "des-ede3-cbc" if message.cipher in _DES else message.cipher
    content = envelope.encrypt(cms.certs_only(certificates), cipher, key, cms.issuer_and_serial(message.signer.der))
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
    mirrored = message.digest in _REPLY_DIGESTS or (message.digest == "sha1" and ra.algorithms.sha1)
    answered = [attributes.nonce(asn1.OID_RECIPIENT_NONCE, message.sender_nonce)] if message.sender_nonce else []
    return cms.sign_data(
        content,
        ra.signer,
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
