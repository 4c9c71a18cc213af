"""The client's side of CMP: write and protect requests, verify and read their answers (RFC 9810 §5, RFC 9483 §3, §4)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from gateway.asn1.cmp import OID_CERT_PROFILE, OID_IMPLICIT_CONFIRM, FailInfo
from gateway.cmp import BodyType, Header, Protection
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.algorithms import signature_digest, unsupported, verify_signature
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.password_mac import MacParameters, MacWindows, fresh_mac, is_mac, parse_mac, verify_mac
from gateway.wire.cmp.messages import Parts, decode_parts
from gateway.wire.cmp.protection import Envelope, MacProtector, MessageProtector, SignatureProtector, directory_name, seal
from gateway.wire.cmp.responses import ReplyBody, decode_reply

NONCE_BYTES = 16
MAX_CANDIDATES = 4
"""Certificates whose key is tried on an answer."""
WINDOWS = MacWindows(pbm=(1, 100_000), pbmac1=(1, 1_000_000), hmac_sha1=True)
"""What a server may ask for: OpenSSL takes as much."""

_ANSWERS: Mapping[BodyType, frozenset[BodyType]] = MappingProxyType(
    {
        BodyType.IR: frozenset({BodyType.IP}),
        BodyType.CR: frozenset({BodyType.CP}),
        BodyType.P10CR: frozenset({BodyType.CP}),
        BodyType.KUR: frozenset({BodyType.KUP}),
        BodyType.RR: frozenset({BodyType.RP}),
        BodyType.GENM: frozenset({BodyType.GENP}),
        BodyType.CERTCONF: frozenset({BodyType.PKICONF}),
        BodyType.ERROR: frozenset({BodyType.PKICONF}),
        BodyType.POLLREQ: frozenset(
            {BodyType.POLLREP, BodyType.IP, BodyType.CP, BodyType.KUP, BodyType.RP, BodyType.GENP, BodyType.NESTED}
        ),
    }
)
"""What answers what, error aside; anything may answer a nested message, which its inner one decides."""


@dataclass(frozen=True, slots=True)
class MacIdentity:
    """A shared secret by its reference number; each message gets parameters of its own.

    `sender` is a Name, DER, None for a common name that says the reference number (RFC 9483 §3.1).
    """

    reference: bytes
    secret: bytes = field(repr=False)
    pbmac1: bool = False
    iterations: int | None = None
    sender: bytes | None = field(default=None, repr=False)

    def protector(self) -> MacProtector:
        """Return what protects one message."""
        name = None if self.sender is None else directory_name(self.sender)
        like = _PBMAC1 if self.pbmac1 else None
        return MacProtector.create(self.reference, self.secret, name, like, self.iterations)


_OWN = fresh_mac()[1]
_PBMAC1 = MacParameters(True, _OWN.salt, _OWN.iterations, _OWN.digest, _OWN.mac, _OWN.mac_algorithm)

Identity = MacIdentity | SignatureProtector


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it goes over the wire, and what its answer must repeat."""

    message: bytes = field(repr=False)
    type: BodyType
    transaction_id: bytes
    sender_nonce: bytes
    earlier_nonces: tuple[bytes, ...] = ()
    """Of the same transaction, which an answer after polling may repeat in its place (RFC 9810 §5.3.22)."""


def encode_message(
    body: bytes,
    identity: Identity | None,
    *,
    now: datetime,
    recipient: bytes = der.sequence(),
    transaction_id: bytes | None = None,
    sender_nonce: bytes | None = None,
    recipient_nonce: bytes | None = None,
    earlier_nonces: tuple[bytes, ...] = (),
    implicit_confirm: bool = False,
    cert_profile: str | None = None,
    pvno: int = 2,
    extra_certs: tuple[bytes, ...] = (),
) -> Sent:
    """Return a PKIMessage around `body`, one of `wire.cmp.requests`; without `identity` it is not protected.

    `recipient` is a Name, DER; transactionID and senderNonce are drawn where they are not given.
    """
    transaction = transaction_id or secrets.token_bytes(NONCE_BYTES)
    nonce = sender_nonce or secrets.token_bytes(NONCE_BYTES)
    envelope = Envelope(
        pvno=pvno,
        recipient=directory_name(recipient),
        message_time=now,
        transaction_id=transaction,
        sender_nonce=nonce,
        recipient_nonce=recipient_nonce,
        general_info=_general_info(implicit_confirm=implicit_confirm, cert_profile=cert_profile),
    )
    message = seal(envelope, body, _protector(identity), extra_certs)
    return Sent(message, BodyType(body[0] & 0x1F), transaction, nonce, earlier_nonces)


def _protector(identity: Identity | None) -> MessageProtector | None:
    return identity.protector() if isinstance(identity, MacIdentity) else identity


def _general_info(*, implicit_confirm: bool, cert_profile: str | None) -> bytes:
    granted = der.sequence(der.oid(OID_IMPLICIT_CONFIRM), der.null()) if implicit_confirm else b""
    if cert_profile is None:
        return granted
    return granted + der.sequence(der.oid(OID_CERT_PROFILE), der.sequence(der.utf8_string(cert_profile)))


@dataclass(frozen=True, slots=True)
class Received:
    """An answer. What is not `protected` says no more than that somebody refuses: whether to believe that is its reader's."""

    header: Header
    body: ReplyBody
    fail_info: frozenset[FailInfo]
    extra_certs: tuple[bytes, ...] = field(repr=False)
    protected: bool
    signer: Certificate | None = field(default=None, repr=False)
    """Whose signature it has; None: a MAC, or nothing."""


Trusts = Callable[[Certificate, tuple[bytes, ...]], bool]
"""Says whether a signer may answer, given the certificates beside it, DER."""


def pinned(*certificates: bytes) -> Trusts:
    """Return trust in these certificates, DER, and no others."""
    return lambda signer, _: signer.der in certificates


def decode_answer(
    data: bytes, sent: Sent, *, secret: bytes | None = None, trusts: Trusts | None = None, known: tuple[bytes, ...] = ()
) -> Received:
    """Verify an answer to `sent` and read it; `known` are signers that need not be in its extraCerts.

    It must repeat transactionID and nonce, and be protected under `secret` or by a signer that `trusts` takes. A refusal is
    returned without protection, too. Raises MalformedMessage, or Rejection UNSUPPORTED_ALGORITHM, BAD_MESSAGE_CHECK,
    SIGNER_NOT_TRUSTED, BAD_RECIPIENT_NONCE or UNKNOWN_TRANSACTION.
    """
    parts = decode_parts(data)
    if parts.fault is not None:
        raise parts.fault
    reply = decode_reply(parts.type, parts.body)
    signer = None
    if parts.protection is not None:
        signer = _verify(parts, parts.protection, secret, trusts, known)
    elif not reply.rejected:
        raise Rejection(Reason.BAD_MESSAGE_CHECK, "the answer is not protected")
    _check_transaction(parts, sent, refused=reply.rejected)
    return Received(parts.header, reply.body, reply.fail_info, parts.extra_certs, parts.protection is not None, signer)


def _check_transaction(parts: Parts, sent: Sent, *, refused: bool) -> None:
    """Check what an answer must repeat; a server that could not read the request has nothing to repeat (RFC 9810 §5.1.1)."""
    header = parts.header
    lost = refused and parts.type is BodyType.ERROR
    if header.transaction_id != sent.transaction_id and not (lost and header.transaction_id is None):
        raise Rejection(Reason.UNKNOWN_TRANSACTION, "the answer is of another transaction")
    nonces = (sent.sender_nonce, *sent.earlier_nonces)
    if header.recipient_nonce not in nonces and not (lost and header.recipient_nonce is None):
        raise Rejection(Reason.BAD_RECIPIENT_NONCE, "the answer does not repeat the nonce")
    expected = _ANSWERS.get(sent.type)
    if expected is not None and parts.type not in expected and parts.type is not BodyType.ERROR:
        raise MalformedMessage("the answer is of another type", f"{parts.type.operation} to {sent.type.operation}")


def _verify(
    parts: Parts, protection: Protection, secret: bytes | None, trusts: Trusts | None, known: tuple[bytes, ...]
) -> Certificate | None:
    """Return whose signature an answer has, None where it has the right MAC."""
    if not is_mac(protection.algorithm):
        return _verify_signature(parts, protection, trusts, known)
    if secret is None or not verify_mac(parse_mac(protection.algorithm, WINDOWS), secret, protection.covered, protection.value):
        raise _unproved("the MAC is wrong, or there is no secret to check it by")
    return None


def _verify_signature(parts: Parts, protection: Protection, trusts: Trusts | None, known: tuple[bytes, ...]) -> Certificate:
    if signature_digest(protection.algorithm) in {None, "md5", "sha1"}:
        raise unsupported("an answer signed over MD5 or SHA-1")
    for signer in _candidates(parts, known):
        try:
            verify_signature(signer.public_key.der, protection.algorithm, protection.value, protection.covered)
        except Rejection as error:
            if error.reason is not Reason.BAD_SIGNATURE:
                raise
            continue
        if trusts is None or not trusts(signer, parts.extra_certs):
            raise Rejection(Reason.SIGNER_NOT_TRUSTED, "the answer's signer is not trusted")
        return signer
    raise _unproved("no certificate verifies its signature")


def _candidates(parts: Parts, known: tuple[bytes, ...]) -> list[Certificate]:
    """Return the certificates that may have signed, those first that the header names (RFC 9483 §3.1)."""
    found = [parse_certificate(der_) for der_ in dict.fromkeys((*parts.extra_certs, *known))]
    kid, name = parts.header.sender_kid, parts.header.sender_name
    named = [c for c in found if (kid is not None and c.subject_key_id == kid) or (kid is None and c.subject == name)]
    return (named or [c for c in found if c.subject == name])[:MAX_CANDIDATES]


def _unproved(cause: str) -> Rejection:
    return Rejection(Reason.BAD_MESSAGE_CHECK, "the answer's protection is wrong", cause)
