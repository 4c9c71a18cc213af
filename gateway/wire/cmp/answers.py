"""Answers: from gateway.cmp.Answer to protected PKIMessages (RFC 9810 §5.3, RFC 9483 §3-§5)."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from gateway.asn1.cmp import OID_CONFIRM_WAIT_TIME, OID_IMPLICIT_CONFIRM, FailInfo
from gateway.cmp import (
    Answer,
    AnswerBody,
    BodyType,
    CertAnswer,
    CertId,
    ErrorAnswer,
    General,
    Header,
    NestedAnswer,
    PkiConf,
    PollAnswer,
    Revoked,
    StatusInfo,
)
from gateway.pki import der
from gateway.wire.cmp.errors import FAIL_INFO
from gateway.wire.cmp.general import encode_infos
from gateway.wire.cmp.protection import Envelope, Protector, directory_name, seal

VERSIONS = range(2, 4)
MAX_TEXT = 500
"""Characters of a statusString."""

_ENVELOPED_DATA = 0xA0
_IMPLICIT_CONFIRM = der.sequence(der.oid(OID_IMPLICIT_CONFIRM), der.null())


def encode_answer(header: Header, answer: Answer, protector: Protector, now: datetime) -> bytes:
    """Return the PKIMessage that answers a request with `header`.

    The client's pvno is repeated, as OpenSSL 3.0 knows none but its own; one that this server does not know becomes the nearest.
    """
    envelope = Envelope(
        pvno=max(VERSIONS[0], min(header.pvno, VERSIONS[-1])),
        recipient=header.sender,
        message_time=now,
        transaction_id=answer.transaction_id or header.transaction_id,
        sender_nonce=answer.sender_nonce,
        recipient_nonce=header.sender_nonce,
        general_info=_encode_general_info(answer, now),
    )
    body = _encode_body(answer.body, protector, now)
    return seal(envelope, body, protector.answering(answer.protect_for), answer.extra_certs)


def _encode_general_info(answer: Answer, now: datetime) -> bytes:
    """Return what the header grants: no certConf at all, or one until then (RFC 9810 §5.1.1.1, §5.1.1.2)."""
    granted = _IMPLICIT_CONFIRM if answer.implicit_confirm else b""
    if answer.confirm_wait is None:
        return granted
    return granted + der.sequence(der.oid(OID_CONFIRM_WAIT_TIME), der.generalized_time(now + answer.confirm_wait))


def _encode_body(body: AnswerBody, protector: Protector, now: datetime) -> bytes:
    """Return a PKIBody (RFC 9810 §5.1.2)."""
    match body:
        case CertAnswer():
            return der.context(body.type, _encode_cert_answer(body))
        case NestedAnswer():
            messages = [encode_answer(header, answer, protector, now) for header, answer in body.answers]
            return der.context(BodyType.NESTED, der.sequence(*messages))
        case PkiConf():
            return _PKICONF
        case _:
            return _encode_other(body)


_PKICONF = der.context(BodyType.PKICONF, der.null())


def _encode_other(body: ErrorAnswer | Revoked | PollAnswer | General) -> bytes:
    match body:
        case ErrorAnswer():
            return der.context(BodyType.ERROR, der.sequence(_encode_status(body.status)))
        case Revoked():
            return der.context(BodyType.RP, _encode_revoked(body))
        case PollAnswer():
            return der.context(BodyType.POLLREP, _encode_poll_answer(body))
        case General():
            return der.context(BodyType.GENP, encode_infos(body.infos))


def _encode_cert_answer(answer: CertAnswer) -> bytes:
    """Return a CertRepMessage with one CertResponse (RFC 9810 §5.3.4)."""
    trusted = der.context(1, der.sequence(*answer.ca_pubs)) if answer.ca_pubs else b""
    response = der.sequence(der.integer(answer.cert_req_id), _encode_status(answer.status), _encode_key_pair(answer))
    return der.sequence(trusted, der.sequence(response))


def _encode_key_pair(answer: CertAnswer) -> bytes:
    """Return a CertifiedKeyPair, or nothing where there is no certificate."""
    private_key = b"" if answer.private_key is None else der.context(0, _encrypted(answer.private_key))
    if answer.certificate is not None:
        return der.sequence(der.context(0, answer.certificate), private_key)
    if answer.encrypted_certificate is not None:
        return der.sequence(der.context(1, _encrypted(answer.encrypted_certificate)), private_key)
    return b""


def _encrypted(element: bytes) -> bytes:
    """Return the EncryptedKey of an EnvelopedData, which alone begins with a version, or of an EncryptedValue (RFC 4211 §2.1)."""
    _, start, _ = der.read(element)
    return bytes((_ENVELOPED_DATA,)) + element[1:] if element[start : start + 1] == b"\x02" else element


def _encode_revoked(answer: Revoked) -> bytes:
    """Return a RevRepContent (RFC 9810 §5.3.10)."""
    named = der.context(0, der.sequence(*map(encode_cert_id, answer.cert_ids))) if answer.cert_ids else b""
    return der.sequence(der.sequence(*map(_encode_status, answer.statuses)), named)


def encode_cert_id(cert_id: CertId) -> bytes:
    """Return a CertId (RFC 4211 §6.5)."""
    return der.sequence(directory_name(cert_id.issuer), der.integer(cert_id.serial))


def _encode_poll_answer(answer: PollAnswer) -> bytes:
    """Return a PollRepContent (RFC 9810 §5.3.22)."""
    return der.sequence(der.sequence(der.integer(answer.cert_req_id), der.integer(answer.check_after), free_text(answer.text)))


def _encode_status(status: StatusInfo) -> bytes:
    return _status_info(int(status.status), None if status.reason is None else FAIL_INFO[status.reason], status.text)


@lru_cache(maxsize=64)
def _status_info(status: int, info: FailInfo | None, text: str) -> bytes:
    """Return a PKIStatusInfo (RFC 9810 §5.2.3)."""
    return der.sequence(der.integer(status), free_text(text), b"" if info is None else encode_fail_info(info))


def encode_fail_info(info: FailInfo) -> bytes:
    """Return a PKIFailureInfo with one bit, which is its last (X.690 §11.2.2)."""
    octets = bytearray(info // 8 + 1)
    octets[-1] = 0x80 >> info % 8
    return der.bit_string(bytes(octets), 7 - info % 8)


def free_text(text: str) -> bytes:
    """Return a PKIFreeText of one line, or nothing where there is none."""
    line = "".join([c if c.isprintable() else " " for c in text[:MAX_TEXT]])
    return der.sequence(der.utf8_string(line)) if line else b""
