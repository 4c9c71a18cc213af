"""The client's side of SCEP: write requests, read CertReps and CA certificates (RFC 8894 §3, §4)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import FailInfo, MessageType, PkiStatus
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import cms, der, envelope
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import encode_key_usage
from gateway.pki.keys import PrivateKey, load_public_key, public_key_der, sign, signature_algorithm
from gateway.wire.scep import attributes
from gateway.wire.scep.operations import MEDIA_CA_CERT
from gateway.wire.scep.pkimessage import NONCE_SIZE, find_certificate

_OID_KEY_USAGE = "2.5.29.15"


@dataclass(frozen=True, slots=True)
class ScepRequest:
    """A request as it goes over the wire, and what its answer must repeat."""

    message: bytes = field(repr=False)
    transaction_id: str
    sender_nonce: bytes


@dataclass(frozen=True, slots=True)
class CertRep:
    """A verified answer; on SUCCESS `certificates` holds what was issued or asked for, DER, and `crls` the answer to a GetCRL."""

    status: PkiStatus
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    fail_info: FailInfo | None = None
    fail_info_text: str = ""


def self_signed_signer(key: PrivateKey, subject_der: bytes, not_before: datetime, not_after: datetime) -> cms.Signer:
    """Return a signer with the throw-away certificate that a first request needs (RFC 8894 §2.3).

    Subject and key should be the CSR's.
    """
    algorithm = signature_algorithm(key)
    usages = {"digitalSignature", "keyEncipherment"} if isinstance(key, RSAPrivateKey) else {"digitalSignature"}
    usage = der.sequence(der.oid(_OID_KEY_USAGE), der.boolean(True), der.octet_string(encode_key_usage(frozenset(usages))))
    to_be_signed = der.sequence(
        der.context(0, der.integer(2)),
        der.integer(secrets.randbits(127) | 1),
        algorithm,
        subject_der,
        der.sequence(der.time(not_before), der.time(not_after)),
        subject_der,
        public_key_der(key),
        der.context(3, der.sequence(usage)),
    )
    certificate = der.sequence(to_be_signed, algorithm, der.bit_string(sign(key, to_be_signed)))
    return cms.Signer.create(certificate, key)


def transaction_id(public_key: bytes) -> str:
    """Return an identifier made of the SubjectPublicKeyInfo, so that a request repeated later finds its transaction."""
    return hashlib.sha256(public_key).hexdigest().upper()


def encode_issuer_and_subject(issuer_der: bytes, subject_der: bytes) -> bytes:
    """Return the messageData of a CertPoll (RFC 8894 §3.3.3)."""
    return der.sequence(issuer_der, subject_der)


def encode_issuer_and_serial(issuer_der: bytes, serial: int) -> bytes:
    """Return the messageData of a GetCert or GetCRL (RFC 8894 §3.3.4)."""
    return der.sequence(issuer_der, der.integer(serial))


def encode_request(
    message_data: bytes,
    signer: cms.Signer,
    ra_certificate: bytes,
    *,
    message_type: MessageType = MessageType.PKCS_REQ,
    transaction: str,
    cipher: str = "aes-256-cbc",
    digest: str = "sha256",
    oaep: bool = False,
    password: bytes | None = None,
    signing_time: datetime | None = None,
) -> ScepRequest:
    """Encrypt `message_data`, such as a CSR, to the RA, or under `password`, and sign it (RFC 8894 §3.1).

    Raises MalformedMessage or Rejection UNSUPPORTED_ALGORITHM when the RA certificate is no RSA certificate.
    """
    if password is not None:
        content = envelope.encrypt_with_password(message_data, cipher, password)
    else:
        content = _encrypt_to(ra_certificate, message_data, cipher, oaep=oaep)
    nonce = secrets.token_bytes(NONCE_SIZE)
    timed = () if signing_time is None else (cms.attribute(asn1.OID_SIGNING_TIME, der.time(signing_time)),)
    signed = cms.sign_data(
        content,
        signer,
        digest,
        (
            attributes.code(asn1.OID_MESSAGE_TYPE, message_type),
            cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string(transaction)),
            attributes.nonce(asn1.OID_SENDER_NONCE, nonce),
            *timed,
        ),
    )
    return ScepRequest(signed, transaction, nonce)


def _encrypt_to(ra_certificate: bytes, data: bytes, cipher: str, *, oaep: bool) -> bytes:
    public_key = load_public_key(parse_certificate(ra_certificate).public_key.der)
    if not isinstance(public_key, RSAPublicKey):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the RA certificate does not hold an RSA key")
    return envelope.encrypt(data, cipher, public_key, cms.issuer_and_serial(ra_certificate), oaep=oaep)


def decode_cert_rep(
    data: bytes,
    request: ScepRequest,
    signer: cms.Signer,
    ra_certificate: bytes,
    *,
    password: bytes | None = None,
    accept_md5: bool = False,
) -> CertRep:
    """Verify an answer to `request` and decrypt what it carries (RFC 8894 §3.2, §3.3.2).

    The answer must be signed by `ra_certificate` and repeat transactionID and nonce. It is decrypted with the key of the
    request's `signer`, or with `password` where that key cannot decrypt.
    Raises MalformedMessage, or Rejection BAD_SIGNATURE, UNSUPPORTED_ALGORITHM or DECRYPTION_FAILED.
    """
    signed, info = _verify_signed(data, ra_certificate, accept_md5=accept_md5)
    _check_answer(info.attributes, request)
    status = attributes.read_number(info.attributes, asn1.OID_PKI_STATUS)
    if status == PkiStatus.SUCCESS:
        opened = cms.parse_signed_data(_decrypt(signed.content or b"", signer, password))
        return CertRep(PkiStatus.SUCCESS, opened.certificates, opened.crls)
    if status == PkiStatus.PENDING:
        return CertRep(PkiStatus.PENDING)
    if status == PkiStatus.FAILURE:
        return _failure(info.attributes)
    raise MalformedMessage("the answer has no pkiStatus that we know", f"pkiStatus {status}")


def _verify_signed(data: bytes, ra_certificate: bytes, *, accept_md5: bool = False) -> tuple[cms.SignedData, cms.SignerInfo]:
    """Return what `ra_certificate`, and nobody else, has signed."""
    signed = cms.parse_signed_data(data)
    if not signed.signers:
        raise MalformedMessage("the answer is not signed")
    info = signed.signers[0]
    certificate = find_certificate((*signed.certificates, ra_certificate), info.sid)
    if certificate.der != ra_certificate:
        raise Rejection(Reason.BAD_SIGNATURE, "the answer is signed by another certificate than the RA's")
    cms.verify_signer(signed, info, certificate.public_key.der, accept_md5=accept_md5)
    return signed, info


def _check_answer(received: attributes.Attributes, request: ScepRequest) -> None:
    if attributes.read_number(received, asn1.OID_MESSAGE_TYPE) != MessageType.CERT_REP:
        raise MalformedMessage("the answer is no CertRep")
    transaction = attributes.read_text(received, asn1.OID_TRANSACTION_ID)
    if transaction is None or transaction[0] != request.transaction_id:
        raise MalformedMessage("the answer belongs to another transaction")
    if attributes.read_nonce(received, asn1.OID_RECIPIENT_NONCE) != request.sender_nonce:
        raise MalformedMessage("the answer does not repeat the request's nonce")


def _failure(received: attributes.Attributes) -> CertRep:
    number = attributes.read_number(received, asn1.OID_FAIL_INFO)
    text = attributes.read_text(received, asn1.OID_FAIL_INFO_TEXT)
    if number is None or number not in frozenset(FailInfo):
        raise MalformedMessage("the answer has no failInfo that we know", f"failInfo {number}")
    return CertRep(PkiStatus.FAILURE, fail_info=FailInfo(number), fail_info_text=text[0] if text else "")


def _decrypt(content: bytes, signer: cms.Signer, password: bytes | None) -> bytes:
    enveloped = envelope.parse_enveloped_data(content)
    if enveloped.passwords and password is not None:
        return envelope.decrypt_with_password(enveloped, enveloped.passwords[0], password)
    if not isinstance(signer.key, RSAPrivateKey):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "the answer can only be decrypted with an RSA key")
    own = cms.parse_certificate_id(signer.issuer_and_serial)
    recipient = next((r for r in enveloped.recipients if r.rid == own), None)
    if recipient is None:
        raise Rejection(Reason.DECRYPTION_FAILED, "the answer is not encrypted to the certificate that signed the request")
    return envelope.decrypt(enveloped, recipient, signer.key)


def decode_ca_certificates(body: bytes, media_type: str) -> tuple[bytes, ...]:
    """Return the certificates of a GetCACert answer, DER (RFC 8894 §4.2.1); raises MalformedMessage."""
    if media_type == MEDIA_CA_CERT:
        return (parse_certificate(body).der,)
    return cms.parse_signed_data(body).certificates


def decode_next_ca_certificates(body: bytes, ra_certificate: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a GetNextCACert answer, DER, which `ra_certificate` must have signed (RFC 8894 §4.7.1).

    Raises MalformedMessage, or Rejection BAD_SIGNATURE or UNSUPPORTED_ALGORITHM.
    """
    signed, _ = _verify_signed(body, ra_certificate)
    return cms.parse_signed_data(signed.content or b"").certificates


def choose_ra_certificate(certificates: tuple[bytes, ...]) -> bytes:
    """Return the certificate to encrypt to: RSA with keyEncipherment, an RA's before a CA's; MalformedMessage without one.

    Where the RA has two, the one that does nothing else goes first.
    """
    usable = [c for c in _with_usage(certificates, "keyEncipherment") if c.public_key.algorithm == "rsa"]
    if not usable:
        raise MalformedMessage("no certificate of the CA can receive a request")
    return min(usable, key=lambda c: (c.is_ca, "digitalSignature" in (c.key_usage or ()))).der


def choose_ra_signer(certificates: tuple[bytes, ...]) -> bytes:
    """Return the certificate that signs answers: with digitalSignature, an RA's before a CA's; MalformedMessage without one."""
    usable = _with_usage(certificates, "digitalSignature")
    if not usable:
        raise MalformedMessage("no certificate of the CA can sign an answer")
    return min(usable, key=lambda c: c.is_ca).der


def _with_usage(certificates: tuple[bytes, ...], usage: str) -> list[Certificate]:
    """Return the certificates that may be used so; one without key usages may be used for all (RFC 5280 §4.2.1.3)."""
    return [c for c in map(parse_certificate, certificates) if usage in (c.key_usage or {usage})]


def pki_operation_url(url: str, message: bytes) -> str:
    """Return the URL of a PKIOperation by GET (RFC 8894 §4.1)."""
    return f"{url}?operation=PKIOperation&message={quote(base64.b64encode(message).decode('ascii'), safe='')}"
