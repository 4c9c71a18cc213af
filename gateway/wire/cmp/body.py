"""PKIBody of requests: what a client asks, confirms, revokes or polls for (RFC 9810 §5.2, §5.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateway.cmp import (
    P10CR_ID,
    BodyType,
    CertRequestMessage,
    CertStatus,
    ClientError,
    Confirmation,
    Enrollment,
    General,
    Nested,
    PkiStatus,
    Poll,
    Possession,
    Request,
    RevocationDetails,
    Revocations,
)
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Extension, RevocationReason
from gateway.pki import der, extensions
from gateway.pki.crmf import parse_cert_req_msg, parse_cert_template
from gateway.pki.csr import parse_csr
from gateway.wire.cmp.general import decode_infos

MAX_STATUSES = 16
MAX_REVOCATIONS = 16
MAX_POLLS = 16
MAX_NESTED = 64
MAX_CERT_HASH = 64
MAX_TEXTS = 16
MAX_TEXT = 1024


def decode_body(type: BodyType, element: bytes) -> Request:
    """Read the body of a request, the element inside of its explicit tag.

    Raises MalformedMessage; Rejection UNSUPPORTED_MESSAGE for a body that no client sends or this server does not serve, and for
    more or fewer requests than one; UNSUPPORTED_ALGORITHM for a key that cannot be used.
    """
    decoder = _DECODERS.get(type)
    if decoder is None:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"a body of type {type.operation} is not served")
    return decoder(element)


# ir, cr, kur and p10cr


def _decode_requests(type: BodyType) -> Callable[[bytes], Enrollment]:
    def decode(element: bytes) -> Enrollment:
        body = der.content(der.SEQUENCE, element)
        found = der.elements(body, limit=_MAX_COUNTED)
        if len(found) != 1:
            # RFC 9483 §4.1.1; several keys in one message would be one transaction with several ends.
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a message must hold exactly one certificate request")
        _, start, _, end = found[0]
        return Enrollment(type, (parse_cert_req_msg(body[start:end]),))

    return decode


_MAX_COUNTED = 256


def _decode_p10cr(element: bytes) -> Enrollment:
    problem = ""
    try:
        request = parse_csr(element)
    except Rejection as error:
        if error.reason is not Reason.BAD_PROOF_OF_POSSESSION:
            raise
        request, problem = parse_csr(element, proof=False), error.detail
    return Enrollment(BodyType.P10CR, (CertRequestMessage(request, P10CR_ID, Possession.SIGNATURE, problem),))


# certConf


def _decode_confirmation(element: bytes) -> Confirmation:
    body = der.content(der.SEQUENCE, element)
    return Confirmation(tuple([_cert_status(body[start:end]) for _, start, _, end in der.elements(body, limit=MAX_STATUSES)]))


def _cert_status(element: bytes) -> CertStatus:
    """Read CertStatus (RFC 9810 §5.3.18): certHash, certReqId, statusInfo and hashAlg, the latter two optional."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=4)
    tags = [e[0] for e in found]
    if tags[:2] != [der.OCTET_STRING, der.INTEGER] or tags[2:] not in ([], [der.SEQUENCE], [0xA0], [der.SEQUENCE, 0xA0]):
        raise MalformedMessage("certificate status is broken")
    (_, _, hash_start, hash_end), (_, _, number, number_end) = found[:2]
    if hash_end - hash_start > MAX_CERT_HASH or number_end - number > 8:
        raise MalformedMessage("certificate status is broken", "hash or certReqId is too long")
    info, algorithm = None, None
    for tag, start, content, end in found[2:]:
        if tag == 0xA0:
            algorithm = body[content:end]
            der.content(der.SEQUENCE, algorithm)
        else:
            info = body[start:end]
    status, text = decode_status_info(info) if info is not None else (PkiStatus.ACCEPTED, "")
    return CertStatus(
        cert_hash=body[hash_start:hash_end],
        cert_req_id=der.decode_integer(body[number:number_end]),
        accepted=status in {PkiStatus.ACCEPTED, PkiStatus.GRANTED_WITH_MODS},
        text=text,
        digest_algorithm=algorithm,
    )


def decode_status_info(element: bytes) -> tuple[int, str]:
    """Read the status and the text of a PKIStatusInfo (RFC 9810 §5.2.3); its failInfo is for people who read logs of clients."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=3)
    tags = [e[0] for e in found]
    if tags[:1] != [der.INTEGER] or tags[1:] not in _STATUS_MEMBERS or found[0][3] - found[0][2] > 4:
        raise MalformedMessage("status information is broken")
    text = decode_free_text(body[found[1][1] : found[1][3]]) if len(found) > 1 and tags[1] == der.SEQUENCE else ""
    return der.decode_integer(body[found[0][2] : found[0][3]]), text


_STATUS_MEMBERS: tuple[list[int], ...] = ([], [der.SEQUENCE], [der.BIT_STRING], [der.SEQUENCE, der.BIT_STRING])


def decode_free_text(element: bytes) -> str:
    """Read PKIFreeText, lines joined by `; `; what is no UTF-8 is replaced, and long text is cut."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=MAX_TEXTS)
    return "; ".join(body[start : min(end, start + MAX_TEXT)].decode("utf-8", "replace") for _, _, start, end in found)[:MAX_TEXT]


# rr


def _decode_revocations(element: bytes) -> Revocations:
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=MAX_REVOCATIONS)
    if not found:
        raise MalformedMessage("revocation request names no certificate", reason=Reason.UNSUPPORTED_MESSAGE)
    return Revocations(tuple([_revocation_details(body[start:end]) for _, start, _, end in found]))


def _revocation_details(element: bytes) -> RevocationDetails:
    """Read RevDetails: certDetails, a template, and crlEntryDetails (RFC 9810 §5.3.9)."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=2)
    if not found or any(tag != der.SEQUENCE for tag, *_ in found):
        raise MalformedMessage("revocation request is broken")
    template = parse_cert_template(body[found[0][2] : found[0][3]])
    reason, revive, problem = _entry_reason(body[found[1][1] : found[1][3]] if len(found) > 1 else None)
    if template.version not in {None, 2}:
        problem = "the template names a version other than v3"
    return RevocationDetails(
        issuer=template.issuer,
        serial=template.serial,
        subject=template.subject.der if template.subject is not None else None,
        public_key=template.public_key,
        reason=reason,
        revive=revive,
        problem=problem,
    )


_REMOVE_FROM_CRL = 8
_REASONS: Mapping[int, RevocationReason] = MappingProxyType({reason.value: reason for reason in RevocationReason})


def _entry_reason(element: bytes | None) -> tuple[RevocationReason | None, bool, str]:
    """Return reason, whether it is to be taken off the CRL, and what is wrong with the entry extensions (RFC 5280 §5.3.1)."""
    try:
        entry = extensions.parse_extensions(element) if element is not None else ()
        return _read_reason(entry)
    except MalformedMessage as error:
        return RevocationReason.UNSPECIFIED, False, error.detail


def _read_reason(entry: tuple[Extension, ...]) -> tuple[RevocationReason | None, bool, str]:
    codes = [e.value for e in entry if e.oid == extensions.CRL_REASON]
    unknown = [e.oid for e in entry if e.critical and e.oid != extensions.CRL_REASON]
    problem = f"CRL entry extension {unknown[0]} is critical and not understood" if unknown else ""
    if not codes:
        return RevocationReason.UNSPECIFIED, False, problem
    code = der.decode_integer(der.content(_ENUMERATED, codes[0])[:2])
    if code == _REMOVE_FROM_CRL:
        return None, True, problem
    reason = _REASONS.get(code)
    return reason or RevocationReason.UNSPECIFIED, False, problem if reason else "the reason code does not exist"


_ENUMERATED = 0x0A


# pollReq, genm, nested and error


def _decode_poll(element: bytes) -> Poll:
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=MAX_POLLS)
    if not found:
        raise MalformedMessage("poll request names no certificate request", reason=Reason.UNSUPPORTED_MESSAGE)
    return Poll(tuple([_poll_id(body[start:end]) for _, start, _, end in found]))


def _poll_id(element: bytes) -> int:
    number = der.content(der.INTEGER, der.content(der.SEQUENCE, element))
    if len(number) > 8:
        raise MalformedMessage("certReqId is too long")
    return der.decode_integer(number)


def _decode_general(element: bytes) -> General:
    return General(decode_infos(element))


def _decode_nested(element: bytes) -> Nested:
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=MAX_NESTED)
    if not found or any(tag != der.SEQUENCE for tag, *_ in found):
        raise MalformedMessage("nested message holds something else than messages", reason=Reason.UNSUPPORTED_MESSAGE)
    return Nested(tuple([body[start:end] for _, start, _, end in found]))


def _decode_error(element: bytes) -> ClientError:
    """Read ErrorMsgContent (RFC 9810 §5.3.21): what its client reports, for the log."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=3)
    if not found:
        raise MalformedMessage("error message is broken")
    _, text = decode_status_info(body[found[0][1] : found[0][3]])
    details = [body[start:end] for tag, start, _, end in found[1:] if tag == der.SEQUENCE]
    return ClientError("; ".join(filter(None, (text, *map(decode_free_text, details)))))


_DECODERS: Mapping[BodyType, Callable[[bytes], Request]] = MappingProxyType(
    {
        BodyType.IR: _decode_requests(BodyType.IR),
        BodyType.CR: _decode_requests(BodyType.CR),
        BodyType.KUR: _decode_requests(BodyType.KUR),
        BodyType.P10CR: _decode_p10cr,
        BodyType.CERTCONF: _decode_confirmation,
        BodyType.RR: _decode_revocations,
        BodyType.POLLREQ: _decode_poll,
        BodyType.GENM: _decode_general,
        BodyType.NESTED: _decode_nested,
        BodyType.ERROR: _decode_error,
    }
)
