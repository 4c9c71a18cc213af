"""Full PKI Requests with one PKCS#10, and the Full PKI Responses to them (RFC 5272 §3.2, §4.2; RFC 7030 §4.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.asn1 import cmc as asn1
from gateway.asn1 import cms as asn1_cms
from gateway.asn1.cmc import CmcFailInfo, CmcStatus
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, Pending, Rejected, Unavailable
from gateway.pki import cms, der
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import EST_LINKING_ATTRIBUTES, parse_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER
from gateway.pki.signed_content import content_info, sign_content
from gateway.wire.est.cmc_errors import FAIL_INFO, UNSERVED_CONTROLS

MAX_CONTROLS = 32
MAX_PARTS = 16
"""Requests, and other objects, of one PKIData."""
MAX_TRANSACTION_ID = 64
MAX_NONCE = 256
MAX_DATA_RETURN = 8192
MAX_BODY_PART = 0xFFFFFFFF

WHOLE = 0
"""The bodyPartID that means the PKIData itself (RFC 5272 §3.2.2)."""
_TCR, _CRM, _ORM = 0xA0, 0xA1, 0xA2
_WEAK = frozenset({"md5", "sha1"})
_BROKEN = "the message is no PKIData"


@dataclass(frozen=True, slots=True)
class Echo:
    """What an answer repeats of its request, as elements (RFC 5272 §6.4, §6.6)."""

    transaction_id: bytes | None = None
    sender_nonce: bytes | None = None
    data_return: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CmcRequest:
    """What a Full PKI Request asks for; `body_part` names its certification request."""

    csr: CertificateRequest
    body_part: int
    echo: Echo


class CmcRefusal(Rejection):
    """A PKIData that is refused in CMC's own words: `parts` are what it is refused for."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        parts: Sequence[int] = (WHOLE,),
        *,
        cause: str = "",
        status: CmcStatus = CmcStatus.FAILED,
        fail_info: CmcFailInfo | None = None,
        echo: Echo = Echo(),
    ) -> None:
        super().__init__(reason, detail, cause)
        self.parts = tuple(parts)
        self.status = status
        self.fail_info = FAIL_INFO[reason] if fail_info is None else fail_info
        self.echo = echo


@dataclass(frozen=True, slots=True)
class _Control:
    """One TaggedAttribute; `value` is the content of its SET."""

    body_part: int
    oid: str
    value: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    """One TaggedRequest; `content` is a PKCS#10 where the tag says so."""

    tag: int
    body_part: int
    content: bytes


def decode_request(message: bytes, client: bytes | None) -> CmcRequest:
    """Decode a Full PKI Request, BER or DER, and verify its signature.

    It is signed by the key of its request, or by the TLS `client`, whose certificate (DER) TLS has shown to be its own: other
    signers prove nothing here. Raises MalformedMessage for what is no PKIData in SignedData, and CmcRefusal for all that CMC has
    a word for.
    """
    signed = cms.parse_signed_data(message)
    if signed.content_type != asn1.OID_PKI_DATA or signed.content is None:
        raise MalformedMessage(_BROKEN, f"content of type {signed.content_type}")
    controls, requests = _split(der.normalize(signed.content))
    echo = _read_echo(controls)
    request = _single_request(requests, echo)
    csr = _parse_csr(request, echo)
    _verify(signed, csr, client, echo)
    _refuse_controls(controls, echo)
    return CmcRequest(csr, request.body_part, echo)


def _split(data: bytes) -> tuple[tuple[_Control, ...], tuple[_Request, ...]]:
    """Return controls and requests of a PKIData; what else it holds serves controls only (RFC 5272 §3.2.1)."""
    start, end = der.read_as(der.SEQUENCE, data)
    lists = der.elements(data, start, end, limit=4)
    if end != len(data) or [m[0] for m in lists] != [der.SEQUENCE] * 4:
        raise MalformedMessage(_BROKEN, "it is not four lists")
    controls = tuple(_control(data, *element) for element in der.elements(data, *lists[0][2:], limit=MAX_CONTROLS))
    requests = tuple(_request(data, *element) for element in der.elements(data, *lists[1][2:], limit=MAX_PARTS))
    for _, _, start, end in lists[2:]:
        der.elements(data, start, end, limit=MAX_PARTS)
    ids = [control.body_part for control in controls] + [request.body_part for request in requests]
    if len(set(ids)) != len(ids) or WHOLE in ids:
        raise MalformedMessage(_BROKEN, "body part identifiers are not unique, or one is 0")
    return controls, requests


def _control(data: bytes, tag: int, _: int, start: int, end: int) -> _Control:
    members = der.elements(data, start, end, limit=3)
    if tag != der.SEQUENCE or [m[0] for m in members] != [der.INTEGER, der.OBJECT_IDENTIFIER, der.SET]:
        raise MalformedMessage(_BROKEN, "a control is broken")
    identifier, oid, values = members
    return _Control(_body_part(data, identifier), der.decode_oid(data[oid[2] : oid[3]]), data[values[2] : values[3]])


def _request(data: bytes, tag: int, _: int, start: int, end: int) -> _Request:
    members = der.elements(data, start, end, limit=4)
    if tag == _CRM and members and members[0][0] == der.SEQUENCE:
        # a CertReqMsg is named by the certReqId of its CertRequest (RFC 5272 §3.2.2)
        inner = der.elements(data, *members[0][2:])
        if inner and inner[0][0] == der.INTEGER:
            return _Request(tag, _body_part(data, inner[0]), b"")
    if tag == _ORM and members and members[0][0] == der.INTEGER:
        return _Request(tag, _body_part(data, members[0]), b"")
    if tag != _TCR or [m[0] for m in members] != [der.INTEGER, der.SEQUENCE]:
        raise MalformedMessage(_BROKEN, "a request is broken")
    return _Request(tag, _body_part(data, members[0]), data[members[1][1] : members[1][3]])


def _body_part(data: bytes, element: tuple[int, int, int, int]) -> int:
    _, _, start, end = element
    number = der.decode_integer(data[start : min(end, start + 6)])
    if not 0 <= number <= MAX_BODY_PART:
        raise MalformedMessage(_BROKEN, "a body part identifier is out of range")
    return number


def _read_echo(controls: Iterable[_Control]) -> Echo:
    """Take what the answer has to repeat; raises MalformedMessage for one that occurs twice or is not of its type."""
    found: dict[str, bytes] = {}
    for control in controls:
        tag, limit = _ECHOED.get(control.oid, (0, 0))
        if not limit:
            continue
        start, end = der.read_as(tag, control.value)
        if end != len(control.value) or not 0 < end - start <= limit or control.oid in found:
            raise MalformedMessage(_BROKEN, f"control {control.oid} has a wrong value, or occurs twice")
        found[control.oid] = control.value
    return Echo(*(found.get(oid) for oid in _ECHOED))


_ECHOED: Mapping[str, tuple[int, int]] = {
    asn1.OID_TRANSACTION_ID: (der.INTEGER, MAX_TRANSACTION_ID),
    asn1.OID_SENDER_NONCE: (der.OCTET_STRING, MAX_NONCE),
    asn1.OID_DATA_RETURN: (der.OCTET_STRING, MAX_DATA_RETURN),
}
"""Controls that are served, in the order of Echo: the tag and the most bytes of each."""


def _single_request(requests: Sequence[_Request], echo: Echo) -> _Request:
    """Return the one PKCS#10; other kinds of request are not supported, and no others are processed then (RFC 5272 §3.2.1)."""
    others = [request.body_part for request in requests if request.tag != _TCR]
    if others:
        detail = "only PKCS#10 requests are supported"
        raise CmcRefusal(Reason.UNSUPPORTED_MESSAGE, detail, others, status=CmcStatus.NO_SUPPORT, echo=echo)
    if len(requests) != 1:
        parts = [request.body_part for request in requests] or [WHOLE]
        raise CmcRefusal(Reason.UNSUPPORTED_MESSAGE, "a message must have exactly one request", parts, echo=echo)
    return requests[0]


def _parse_csr(request: _Request, echo: Echo) -> CertificateRequest:
    try:
        return parse_csr(request.content, linking=EST_LINKING_ATTRIBUTES)
    except Rejection as error:
        raise CmcRefusal(error.reason, error.detail, (request.body_part,), cause=error.cause, echo=echo) from None


def _verify(signed: cms.SignedData, csr: CertificateRequest, client: bytes | None, echo: Echo) -> None:
    """Check the message's one signature (RFC 5272 §3.2, §3.2.1.3.4)."""
    if len(signed.signers) != 1:
        raise CmcRefusal(Reason.BAD_SIGNATURE, "the message must have exactly one signer", echo=echo)
    signer = signed.signers[0]
    try:
        digest = cms.verify_signer(signed, signer, _signing_key(signed, signer.sid, csr, client))
    except Rejection as error:
        raise CmcRefusal(error.reason, error.detail, cause=error.cause, echo=echo) from None
    if digest in _WEAK:
        raise CmcRefusal(Reason.UNSUPPORTED_ALGORITHM, f"the message is signed with {digest}, use SHA-256", echo=echo)


def _signing_key(signed: cms.SignedData, sid: cms.CertificateId, csr: CertificateRequest, client: bytes | None) -> bytes:
    """Return the SubjectPublicKeyInfo that the message must be signed under."""
    own = sid.key_id is not None and sid.key_id in tuple(_key_ids(csr))
    if own or _carries(signed.certificates, sid, csr.public_key.sha256):
        return csr.public_key.der
    shown = parse_certificate(client) if client is not None else None
    if shown is not None and _is_named(shown, sid):
        return shown.public_key.der
    raise Rejection(
        Reason.BAD_SIGNATURE, "the message must be signed by the key of its request or by the TLS client", "another signer"
    )


def _key_ids(csr: CertificateRequest) -> Iterable[bytes]:
    """Yield the identifiers of a request's key: the one that it asks for (RFC 5272 §3.2), and that of RFC 5280 §4.2.1.2."""
    for extension in csr.extensions:
        if extension.oid == SUBJECT_KEY_IDENTIFIER:
            yield der.content(der.OCTET_STRING, extension.value)
    whole = der.content(der.SEQUENCE, csr.public_key.der)
    _, (_, _, start, end) = der.elements(whole, limit=2)
    yield hashlib.sha1(der.decode_bits(whole[start:end]), usedforsecurity=False).digest()


def _carries(certificates: Iterable[bytes], sid: cms.CertificateId, key_sha256: bytes) -> bool:
    """Whether the signer's certificate is in the message and says no more than the request's own key."""
    found = (parse_certificate(certificate) for certificate in certificates)
    return any(_is_named(certificate, sid) and certificate.public_key.sha256 == key_sha256 for certificate in found)


def _is_named(certificate: Certificate, sid: cms.CertificateId) -> bool:
    if sid.key_id is not None:
        return certificate.subject_key_id == sid.key_id
    return (certificate.issuer_der, certificate.serial) == (sid.issuer_der, sid.serial)


def _refuse_controls(controls: Iterable[_Control], echo: Echo) -> None:
    """Refuse the whole message for a control that is not served (RFC 5272 §3.2.1.1), all of one fault at once."""
    refused = [control for control in controls if control.oid not in _ECHOED]
    if not refused:
        return
    faults = {control.body_part: UNSERVED_CONTROLS.get(control.oid, CmcFailInfo.BAD_REQUEST) for control in refused}
    first = faults[refused[0].body_part]
    raise CmcRefusal(
        Reason.UNSUPPORTED_MESSAGE,
        "the message has a control that is not supported",
        [part for part, fault in faults.items() if fault is first],
        cause=f"control {', '.join(control.oid for control in refused)}"[:200],
        fail_info=first,
        echo=echo,
    )


def encode_success(request: CmcRequest, signer: cms.Signer, certificates: Iterable[bytes], nonce: bytes) -> bytes:
    """Return a Full PKI Response that brings certificates, DER: the issued one and those above it (RFC 5272 §4.2)."""
    status = _status_info(CmcStatus.SUCCESS, (request.body_part,))
    return _encode(status, request.echo, signer, nonce, certificates)


def encode_pending(request: CmcRequest, signer: cms.Signer, pending: Pending, at: datetime, nonce: bytes) -> bytes:
    """Return a Full PKI Response that says when the same request may be sent again; `at` is that moment."""
    information = der.sequence(der.octet_string(pending.request_id.encode("ascii")), der.generalized_time(at))
    status = _status_info(CmcStatus.PENDING, (request.body_part,), "the request waits: send it again", information)
    return _encode(status, request.echo, signer, nonce)


def encode_refusal(request: CmcRequest, signer: cms.Signer, refused: Rejected | Unavailable, nonce: bytes) -> bytes:
    """Return a Full PKI Response that says why there is no certificate."""
    detail = refused.detail if isinstance(refused, Rejected) else "not available now, try again"
    status = _status_info(CmcStatus.FAILED, (request.body_part,), detail, der.integer(FAIL_INFO[refused.reason]))
    return _encode(status, request.echo, signer, nonce)


def encode_unread(refusal: CmcRefusal, signer: cms.Signer, nonce: bytes) -> bytes:
    """Return a Full PKI Response to a message that was refused as it was read."""
    # failInfo stands only beside failed (RFC 5272 §6.1.1)
    information = der.integer(refusal.fail_info) if refusal.status is CmcStatus.FAILED else b""
    return _encode(_status_info(refusal.status, refusal.parts, refusal.detail, information), refusal.echo, signer, nonce)


def _status_info(status: CmcStatus, parts: Iterable[int], text: str = "", information: bytes = b"") -> bytes:
    """Return a CMCStatusInfoV2 (RFC 5272 §6.1.1)."""
    return der.sequence(
        der.integer(status),
        der.sequence(*map(der.integer, parts)),
        der.utf8_string(text) if text else b"",
        information,
    )


def _encode(status: bytes, echo: Echo, signer: cms.Signer, nonce: bytes, certificates: Iterable[bytes] = ()) -> bytes:
    """Return a PKIResponse in SignedData; `nonce` answers a senderNonce (RFC 5272 §4.2.1, §6.6)."""
    answered = echo.sender_nonce is not None
    controls = (
        (asn1.OID_STATUS_INFO_V2, status),
        (asn1.OID_TRANSACTION_ID, echo.transaction_id),
        (asn1.OID_SENDER_NONCE, der.octet_string(nonce) if answered else None),
        (asn1.OID_RECIPIENT_NONCE, echo.sender_nonce),
        (asn1.OID_DATA_RETURN, echo.data_return),
    )
    present = ((oid, value) for oid, value in controls if value is not None)
    tagged = (der.sequence(der.integer(n), der.oid(oid), der.set_of(value)) for n, (oid, value) in enumerate(present, start=1))
    response = der.sequence(der.sequence(*tagged), der.sequence(), der.sequence())
    return content_info(asn1_cms.OID_SIGNED_DATA, sign_content(asn1.OID_PKI_RESPONSE, response, signer, certificates))
