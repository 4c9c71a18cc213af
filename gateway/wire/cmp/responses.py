"""Bodies of answers, as their client reads them (RFC 9810 §5.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.asn1.cmp import FailInfo
from gateway.cmp import (
    BodyType,
    CertAnswer,
    ErrorAnswer,
    General,
    Nested,
    PkiConf,
    PkiStatus,
    PollAnswer,
    Revoked,
    StatusInfo,
)
from gateway.errors import MalformedMessage
from gateway.pki import der
from gateway.wire.cmp.body import decode_free_text, decode_status_info
from gateway.wire.cmp.general import decode_infos

MAX_CERTIFICATES = 32
MAX_NESTED = 64
MAX_CHECK_AFTER = 1 << 31

ReplyBody = CertAnswer | Revoked | PkiConf | General | PollAnswer | ErrorAnswer | Nested
_Found = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """A body, and the bits of PKIFailureInfo that its status has: reasons are the gateway's own words, and None here."""

    body: ReplyBody
    fail_info: frozenset[FailInfo] = frozenset()

    @property
    def rejected(self) -> bool:
        """Whether it refuses what was asked."""
        match self.body:
            case ErrorAnswer(status) | CertAnswer(status=status):
                return status.status is PkiStatus.REJECTION
            case Revoked(statuses):
                return all(status.status is PkiStatus.REJECTION for status in statuses)
            case _:
                return False


def decode_reply(type_: BodyType, element: bytes) -> Reply:
    """Read the body of an answer, the element inside of its explicit tag; raises MalformedMessage."""
    decode = _DECODERS.get(type_)
    if decode is None:
        raise MalformedMessage("the answer is of another type than answers have", type_.operation)
    return decode(element)


def _decode_cert_answer(type_: BodyType) -> Callable[[bytes], Reply]:
    def decode(element: bytes) -> Reply:
        body = der.content(der.SEQUENCE, element)
        found = der.elements(body, limit=2)
        authorities: tuple[bytes, ...] = ()
        if found and found[0][0] == 0xA1:
            authorities = _sequences(body[found[0][2] : found.pop(0)[3]], MAX_CERTIFICATES)
        if len(found) != 1 or found[0][0] != der.SEQUENCE:
            raise MalformedMessage("the answer holds no certificate responses")
        responses = der.elements(body, *found[0][2:], limit=MAX_NESTED)
        if len(responses) != 1:
            raise MalformedMessage("the answer must hold exactly one certificate response", f"{len(responses)} of them")
        return _decode_response(type_, body[responses[0][1] : responses[0][3]], authorities)

    return decode


def _decode_response(type_: BodyType, element: bytes, authorities: tuple[bytes, ...]) -> Reply:
    """Read a CertResponse: certReqId, status, certifiedKeyPair and rspInfo, the latter two optional."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=4)
    tags = [member[0] for member in found]
    if tags[:2] != [der.INTEGER, der.SEQUENCE] or tags[2:] not in ([], [der.SEQUENCE], [der.OCTET_STRING], _BOTH):
        raise MalformedMessage("certificate response is broken")
    status, fail_info = _decode_status(body[found[1][1] : found[1][3]])
    pair = body[found[2][2] : found[2][3]] if tags[2:3] == [der.SEQUENCE] else b""
    certificate, encrypted, key = _decode_key_pair(pair)
    answer = CertAnswer(type_, _small(body, found[0]), status, certificate, encrypted, key, authorities)
    return Reply(answer, fail_info)


_BOTH = [der.SEQUENCE, der.OCTET_STRING]


def _decode_key_pair(body: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return certificate, encrypted certificate and encrypted key of a CertifiedKeyPair's content."""
    if not body:
        return None, None, None
    found = der.elements(body, limit=3)
    tags = [member[0] for member in found]
    if tags[0] != der.SEQUENCE and tags[0] not in {0xA0, 0xA1}:
        raise MalformedMessage("certified key pair is broken")
    held = body[found[0][2] : found[0][3]]
    key = next((body[start:end] for tag, _, start, end in found[1:] if tag == 0xA0), None)
    return (held, None, key) if tags[0] == 0xA0 else (None, held, key)


def _decode_status(element: bytes) -> tuple[StatusInfo, frozenset[FailInfo]]:
    number, text = decode_status_info(element)
    body = der.content(der.SEQUENCE, element)
    bits = [body[start:end] for tag, _, start, end in der.elements(body, limit=3) if tag == der.BIT_STRING]
    try:
        status = PkiStatus(number)
    except ValueError:
        raise MalformedMessage("status of the answer is unknown", str(number)) from None
    return StatusInfo(status, text=text), _decode_fail_info(bits[0]) if bits else frozenset()


def _decode_fail_info(content: bytes) -> frozenset[FailInfo]:
    """Return the bits that are set; those without a name are left out."""
    if not content or content[0] > 7 or len(content) > 16:
        raise MalformedMessage("failure information is broken")
    number = int.from_bytes(content[1:])
    width = 8 * (len(content) - 1)
    return frozenset([info for info in FailInfo if info < width and number >> (width - 1 - info) & 1])


def _decode_revoked(element: bytes) -> Reply:
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=3)
    if not found or found[0][0] != der.SEQUENCE or found[0][2] == found[0][3]:
        raise MalformedMessage("revocation response is broken")
    inner = der.elements(body, *found[0][2:], limit=MAX_NESTED)
    statuses = [_decode_status(body[start:end]) for _, start, _, end in inner]
    fail_info: frozenset[FailInfo] = frozenset().union(*[bits for _, bits in statuses])
    return Reply(Revoked(tuple([status for status, _ in statuses])), fail_info)


def _decode_poll_answer(element: bytes) -> Reply:
    body = der.content(der.SEQUENCE, der.content(der.SEQUENCE, element))
    found = der.elements(body, limit=3)
    if [member[0] for member in found] not in ([der.INTEGER, der.INTEGER], [der.INTEGER, der.INTEGER, der.SEQUENCE]):
        raise MalformedMessage("poll response is broken")
    text = decode_free_text(body[found[2][1] : found[2][3]]) if len(found) == 3 else ""
    check_after = _small(body, found[1])
    if not 0 <= check_after < MAX_CHECK_AFTER:
        raise MalformedMessage("poll response asks to wait for a time that is none")
    return Reply(PollAnswer(_small(body, found[0]), check_after, text))


def _decode_error(element: bytes) -> Reply:
    """Read an ErrorMsgContent: status, errorCode and errorDetails, the latter two optional (RFC 9810 §5.3.21)."""
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=3)
    if not found:
        raise MalformedMessage("error message is broken")
    status, fail_info = _decode_status(body[found[0][1] : found[0][3]])
    details = [decode_free_text(body[start:end]) for tag, start, _, end in found[1:] if tag == der.SEQUENCE]
    texts = [text for text in (status.text, *details) if text]
    return Reply(ErrorAnswer(StatusInfo(status.status, text="; ".join(texts))), fail_info)


def _decode_pkiconf(element: bytes) -> Reply:
    if element != der.null():
        raise MalformedMessage("confirmation of the server is broken")
    return Reply(PkiConf())


def _decode_general(element: bytes) -> Reply:
    return Reply(General(decode_infos(element)))


def _decode_nested(element: bytes) -> Reply:
    return Reply(Nested(_sequences(element, MAX_NESTED)))


def _sequences(element: bytes, limit: int) -> tuple[bytes, ...]:
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=limit)
    if any(tag != der.SEQUENCE for tag, *_ in found):
        raise MalformedMessage("the answer holds something else than certificates or messages")
    return tuple([body[start:end] for _, start, _, end in found])


def _small(body: bytes, member: _Found) -> int:
    _, _, start, end = member
    if end - start > 8:
        raise MalformedMessage("a number of the answer is too long")
    return der.decode_integer(body[start:end])


_DECODERS: Mapping[BodyType, Callable[[bytes], Reply]] = MappingProxyType(
    {
        BodyType.IP: _decode_cert_answer(BodyType.IP),
        BodyType.CP: _decode_cert_answer(BodyType.CP),
        BodyType.KUP: _decode_cert_answer(BodyType.KUP),
        BodyType.RP: _decode_revoked,
        BodyType.PKICONF: _decode_pkiconf,
        BodyType.GENP: _decode_general,
        BodyType.POLLREP: _decode_poll_answer,
        BodyType.ERROR: _decode_error,
        BodyType.NESTED: _decode_nested,
    }
)
