"""PKIMessage: take one apart, with what its protection covers as received (RFC 9810 §5.1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from gateway.cmp import BodyType, Header, Message, Protection
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.wire.cmp.body import decode_body
from gateway.wire.cmp.header import decode_header

MAX_MESSAGE_BYTES = 262144
MAX_EXTRA_CERTS = 32
BOUNDS = der.Bounds(max_bytes=MAX_MESSAGE_BYTES, max_elements=32768)

_PROTECTION, _EXTRA_CERTS = 0xA0, 0xA1
_FIRST_BODY, _LAST_BODY = 0xA0, 0xA0 | max(BodyType)


@dataclass(frozen=True, slots=True)
class Parts:
    """A PKIMessage, of a client or of a server, whose body is not read yet; `body` is the element in its explicit tag, DER.

    `fault` is what is wrong with values of the header that an answer can do without.
    """

    header: Header
    type: BodyType
    body: bytes = field(repr=False)
    protection: Protection | None
    extra_certs: tuple[bytes, ...] = field(repr=False)
    covered: bytes = field(repr=False)
    """DER of ProtectedPart, whether or not it is protected."""
    fault: MalformedMessage | None


def decode_message(data: bytes) -> Message:
    """Read a request, BER or DER; proof of possession in it is verified, its protection is not.

    Raises MalformedMessage where nothing of it can be answered in CMP's words; what is wrong with the body, or with a value
    of the header, is `Message.body_problem`.
    """
    parts = decode_parts(data)
    digest = hashlib.sha256(parts.covered).digest()
    problem: Rejection | None = parts.fault
    body = None
    if problem is None:
        try:
            body = decode_body(parts.type, parts.body)
        except Rejection as error:
            problem = error
    return Message(
        header=parts.header,
        type=parts.type,
        body=body,
        protection=parts.protection,
        extra_certs=parts.extra_certs,
        digest=digest,
        body_problem=problem.reason if problem is not None else None,
        body_text=problem.detail if problem is not None else "",
    )


def decode_parts(data: bytes) -> Parts:
    """Take a PKIMessage apart: header, body as received, protection and what it covers, certificates beside it.

    Raises MalformedMessage, TOO_LARGE for more than 256 KiB.
    """
    message = der.content(der.SEQUENCE, der.normalize(data, BOUNDS))
    found = der.elements(message, limit=4)
    if len(found) < 2 or found[0][0] != der.SEQUENCE or not _FIRST_BODY <= found[1][0] <= _LAST_BODY:
        raise MalformedMessage("message is no PKIMessage")
    (_, header_start, header, header_end), (tag, _, body, body_end) = found[:2]
    optional = {element[0]: message[element[2] : element[3]] for element in found[2:]}
    if [element[0] for element in found[2:]] != sorted(optional) or not optional.keys() <= {_PROTECTION, _EXTRA_CERTS}:
        raise MalformedMessage("message is no PKIMessage", "other members than RFC 9810 §5.1 has")
    decoded = decode_header(message[header:header_end])
    # Both stand one after the other, as they were protected (§5.1.3).
    covered = der.sequence(message[header_start:body_end])
    value, algorithm, fault = _protection_value(optional.get(_PROTECTION)), decoded.algorithm, decoded.fault
    if (value is None) is not (algorithm is None):
        fault = MalformedMessage("protection lacks its value or its algorithm", reason=Reason.BAD_MESSAGE_CHECK)
    return Parts(
        header=decoded.header,
        type=BodyType(tag & 0x1F),
        body=message[body:body_end],
        protection=Protection(algorithm, covered, value) if algorithm is not None and value is not None else None,
        extra_certs=_extra_certs(optional.get(_EXTRA_CERTS)),
        covered=covered,
        fault=fault,
    )


def _protection_value(element: bytes | None) -> bytes | None:
    return der.decode_bits(der.content(der.BIT_STRING, element)) if element is not None else None


def _extra_certs(element: bytes | None) -> tuple[bytes, ...]:
    if element is None:
        return ()
    body = der.content(der.SEQUENCE, element)
    found = der.elements(body, limit=MAX_EXTRA_CERTS)
    if any(tag != der.SEQUENCE for tag, *_ in found):
        raise MalformedMessage("extraCerts holds something else than certificates")
    return tuple([body[start:end] for _, start, _, end in found])
