"""The two parts of a serverkeygen answer: written for every client, read for our own (RFC 7030 §4.4.2, RFC 2046 §5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.errors import MalformedMessage
from gateway.wire.est.messages import TRANSFER_ENCODING, TRANSFER_ENCODING_HEADER, decode_base64, encode_base64

BOUNDARY = "pki-gateway-est-part"
"""No base64 has a hyphen, so that it occurs in no part."""
MAX_PARTS = 4
MAX_MULTIPART = 1 << 20

_BOUNDARY = re.compile(r'multipart/mixed\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))\s*(?:;.*)?', re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"content-type:[ \t]*([^\r\n]{1,256})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its media type and what its base64 stands for, DER."""

    media_type: str
    data: bytes = field(repr=False)


def encode_multipart(parts: Iterable[Part], wrap: bool) -> tuple[bytes, str]:
    """Return body and Content-Type of a multipart/mixed answer; each part is base64 and says so.

    libest drops a part whose Content-Transfer-Encoding is missing. `wrap` as in `messages.wrap_for`.
    """
    body = b"".join(_encode_part(part, wrap) for part in parts)
    return body + f"--{BOUNDARY}--\r\n".encode("ascii"), f"multipart/mixed; boundary={BOUNDARY}"


def _encode_part(part: Part, wrap: bool) -> bytes:
    lines = (f"--{BOUNDARY}", f"Content-Type: {part.media_type}", f"{TRANSFER_ENCODING_HEADER}: {TRANSFER_ENCODING}", "", "")
    header = "\r\n".join(lines).encode("ascii")
    return header + encode_base64(part.data, wrap).replace(b"\n", b"\r\n")


def decode_multipart(body: bytes, content_type: str) -> tuple[Part, ...]:
    """Return the parts of a multipart/mixed answer, base64 decoded; raises MalformedMessage."""
    found = _BOUNDARY.fullmatch(content_type.strip()[:512])
    if found is None or len(body) > MAX_MULTIPART:
        raise MalformedMessage("the answer is not multipart/mixed with a boundary, or it is too long")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("utf-8", "replace")
    # what stands before the first delimiter and behind the last is to be ignored (RFC 2046 §5.1.1)
    _, *pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if len(pieces) < 2 or len(pieces) > MAX_PARTS + 1 or not pieces[-1].startswith(b"--"):
        raise MalformedMessage("the answer has no parts, too many, or no end")
    return tuple(map(_decode_part, pieces[:-1]))


def _decode_part(piece: bytes) -> Part:
    header, blank, content = piece.partition(b"\r\n\r\n")
    types = [match[1] for line in header.split(b"\r\n") if (match := _CONTENT_TYPE.fullmatch(line.strip()))]
    if not blank or len(types) != 1:
        raise MalformedMessage("a part of the answer does not say what it is")
    return Part(types[0].decode("ascii", "replace").strip(), decode_base64(content))
