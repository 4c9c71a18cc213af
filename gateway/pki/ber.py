"""Bounded scan of tags and lengths, and BER to DER normalisation (ITU-T X.690).

Every input passes `normalize` before it is decoded, so that what its reader meets is small, shallow and of definite length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import MalformedMessage, Reason

SEQUENCE = 0x30
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06

_CONSTRUCTED = 0x20
_ENCRYPTED_CONTENT = 0xA0
_STRING_NUMBERS = frozenset({3, 4, 12, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30})
_CONSTRUCTED_STRINGS = frozenset(n | _CONSTRUCTED for n in _STRING_NUMBERS)
_CONTENT_TYPE_ARCS = (bytes.fromhex("2a864886f70d0107"), bytes.fromhex("2a864886f70d01091001"))
"""PKCS#7 and S/MIME content types: the first field of an EncryptedContentInfo (RFC 5652 §6.1)."""
_OUTSIDE, _FIRST = -2, -1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one encoded value may cost; bytes, levels and elements."""

    max_bytes: int = 65536
    max_depth: int = 32
    max_oid_bytes: int = 64
    max_elements: int = 8192


_DEFAULT_BOUNDS = Bounds()


def normalize(data: bytes, bounds: Bounds = _DEFAULT_BOUNDS) -> bytes:
    """Return `data`, one BER value, with definite lengths and primitive strings; the same object when it was so already.

    Bytes of an element in which nothing had to change stay as they came, so signatures over them still verify. The
    constructed encryptedContent `[0]` that Go clients send (RFC 5652 §6.1) becomes primitive.
    Raises MalformedMessage when a bound is broken, a length runs over, or bytes follow the value.
    """
    if len(data) > bounds.max_bytes:
        raise MalformedMessage("message is too large", f"{len(data)} bytes exceed {bounds.max_bytes}", Reason.TOO_LARGE)
    try:
        return data if _is_definite(data, bounds) else _rewrite(data, bounds)
    except IndexError:
        raise MalformedMessage("message is truncated") from None


def _is_definite(data: bytes, bounds: Bounds) -> bool:  # noqa: PLR0912 - hot path: a call for each element would double its cost
    """Scan every tag and length; False as soon as something may have to be rewritten (no recursion, one pass)."""
    max_depth, max_oid, left = bounds.max_depth, bounds.max_oid_bytes, bounds.max_elements
    ends: list[int] = []
    end = len(data)
    position, previous = 0, _OUTSIDE
    while True:
        tag = data[position]
        start = position + 2
        length = data[position + 1]
        if tag & 0x1F == 0x1F:
            start = _skip_high_tag(data, position) + 1
            length = data[start - 1]
        if length >= 0x80:
            if length == 0x80:
                return False
            if length == 0x82 and start + 2 <= end:
                length = data[start] << 8 | data[start + 1]
                start += 2
            elif length == 0x81:
                length = data[start]
                start += 1
            else:
                start, length = long_length(data, start, length)
        stop = start + length
        if stop > end:
            raise MalformedMessage("message is truncated", f"element at {position} runs over its container")
        left -= 1
        if left < 0:
            raise MalformedMessage("message has too many elements")
        if tag & _CONSTRUCTED:
            if tag in _CONSTRUCTED_STRINGS or (tag == _ENCRYPTED_CONTENT and previous == SEQUENCE and _is_string(data, start)):
                return False
            if length:
                if len(ends) >= max_depth:
                    raise MalformedMessage("message is nested too deeply")
                ends.append(end)
                end, position, previous = stop, start, _FIRST
                continue
            previous = SEQUENCE
        else:
            if tag == OBJECT_IDENTIFIER:
                if not length or length > max_oid:
                    raise MalformedMessage("object identifier is too long or empty", f"{length} bytes")
            elif not tag:
                raise MalformedMessage("message is not BER", f"end-of-contents without a beginning at {position}")
            previous = tag
        position = stop
        while position == end:
            if not ends:
                return True
            end, previous = ends.pop(), SEQUENCE
        if not ends:
            raise MalformedMessage("bytes follow the message", f"{end - position} bytes")


def _is_string(data: bytes, start: int) -> bool:
    return start < len(data) and data[start] in {OCTET_STRING, OCTET_STRING | _CONSTRUCTED}


def _skip_high_tag(data: bytes, position: int) -> int:
    """Return the offset behind a tag of several bytes (X.690 §8.1.2.4); four bytes of number are plenty."""
    for offset in range(position + 1, position + 5):
        if data[offset] < 0x80:
            return offset + 1
    raise MalformedMessage("tag number is too large")


def long_length(data: bytes, start: int, first: int) -> tuple[int, int]:
    """Return content offset and length of a long-form length (X.690 §8.1.3.5); `first` is its first byte, before `start`."""
    size = first & 0x7F
    if size == 1:
        return start + 1, data[start]
    if size > 4:
        raise MalformedMessage("length is too large")
    stop = start + size
    if stop > len(data):
        raise MalformedMessage("message is truncated")
    return stop, int.from_bytes(data[start:stop])


@dataclass(slots=True)
class _Frame:
    """A constructed element that is still open; `end` is None for indefinite length, `limit` the last byte it may reach."""

    tag: bytes
    offset: int
    end: int | None
    limit: int
    parts: list[bytes] = field(default_factory=list)
    changed: bool = False

    def is_encrypted_content_info(self) -> bool:
        """Whether the next child is EncryptedContentInfo's third: after a content type and an AlgorithmIdentifier."""
        if self.tag != b"\x30" or len(self.parts) != 2 or self.parts[0][0] != OBJECT_IDENTIFIER:
            return False
        return self.parts[1][0] == SEQUENCE and self.parts[0][2:].startswith(_CONTENT_TYPE_ARCS)


def _rewrite(data: bytes, bounds: Bounds) -> bytes:
    """Walk `data` with a stack of open elements and re-encode what is indefinite or a constructed string."""
    root = _Frame(b"", 0, len(data), len(data))
    frames, position, count = [root], 0, 0
    while True:
        frame = frames[-1]
        closed = _closing(data, position, frame)
        if closed is not None:
            if frame is root:
                return root.parts[0] if root.changed else data
            frames.pop()
            position = closed
            _close(data, position, frame, frames[-1])
            continue
        count += 1
        _check_room(frame, root, frames, count, bounds)
        position = _open(data, position, frames, bounds)


def _closing(data: bytes, position: int, frame: _Frame) -> int | None:
    """Return where parsing goes on when `frame` ends at `position`, else None."""
    if frame.end is not None:
        return position if position == frame.end else None
    if data[position] == 0 and position + 2 <= frame.limit and data[position + 1] == 0:
        return position + 2
    return None


def _check_room(frame: _Frame, root: _Frame, frames: list[_Frame], count: int, bounds: Bounds) -> None:
    if frame is root and root.parts:
        raise MalformedMessage("bytes follow the message")
    if count > bounds.max_elements:
        raise MalformedMessage("message has too many elements")
    if len(frames) > bounds.max_depth + 1:
        raise MalformedMessage("message is nested too deeply")


def _open(data: bytes, position: int, frames: list[_Frame], bounds: Bounds) -> int:
    """Read one header: take a primitive whole, or push a frame. Returns the next offset."""
    frame = frames[-1]
    tag, after_tag = data[position], position + 1
    if tag & 0x1F == 0x1F:
        after_tag = _skip_high_tag(data, position)
    start, length = after_tag + 1, data[after_tag]
    indefinite = length == 0x80
    if length > 0x80:
        start, length = long_length(data, start, length)
    stop = start if indefinite else start + length
    if stop > frame.limit:
        raise MalformedMessage("message is truncated", f"element at {position} runs over its container")
    if tag & _CONSTRUCTED:
        end, limit = (None, frame.limit) if indefinite else (stop, stop)
        frames.append(_Frame(data[position:after_tag], position, end, limit))
        return start
    if indefinite or tag == 0:
        raise MalformedMessage("message is not BER", f"primitive element of indefinite length at {position}")
    if tag == OBJECT_IDENTIFIER and not 0 < length <= bounds.max_oid_bytes:
        raise MalformedMessage("object identifier is too long or empty", f"{length} bytes")
    frame.parts.append(data[position:stop])
    return stop


def _close(data: bytes, position: int, frame: _Frame, parent: _Frame) -> None:
    """Append the finished element to its parent, rewritten where it must be."""
    tag = frame.tag[0]
    if tag in _CONSTRUCTED_STRINGS:
        element = _collapse(tag & ~_CONSTRUCTED, tag & 0x1F, frame.parts)
    elif tag == _ENCRYPTED_CONTENT and parent.is_encrypted_content_info() and all(p[0] == OCTET_STRING for p in frame.parts):
        element = _collapse(0x80, OCTET_STRING, frame.parts)
    elif frame.changed or frame.end is None:
        body = b"".join(frame.parts)
        element = frame.tag + encode_length(len(body)) + body
    else:
        parent.parts.append(data[frame.offset : position])
        return
    parent.parts.append(element)
    parent.changed = True


def _collapse(tag: int, number: int, parts: list[bytes]) -> bytes:
    """Join the segments of a constructed string (X.690 §8.6.4, §8.7.3, §8.23.6) into one primitive element."""
    contents = []
    for part in parts:
        if part[0] != number and (part[0] != OCTET_STRING or number == BIT_STRING):
            raise MalformedMessage("constructed string holds something else")
        contents.append(_content(part))
    if number == BIT_STRING:
        contents = _join_bits(contents)
    body = b"".join(contents)
    return bytes((tag,)) + encode_length(len(body)) + body


def _content(element: bytes) -> bytes:
    """Return the content of a primitive element with a single-byte tag that was scanned before."""
    return element[2:] if element[1] < 0x80 else element[long_length(element, 2, element[1])[0] :]


def _join_bits(segments: list[bytes]) -> list[bytes]:
    """Join BIT STRING contents: only the last may have unused bits (X.690 §8.6.4)."""
    if not all(segments) or any(s[0] for s in segments[:-1]):
        raise MalformedMessage("constructed BIT STRING is broken")
    unused = segments[-1][:1] if segments else b"\x00"
    return [unused, *(s[1:] for s in segments)]


def encode_length(size: int) -> bytes:
    """Return the shortest definite length of `size` content octets (X.690 §10.1)."""
    if size < 0x80:
        return bytes((size,))
    encoded = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((0x80 | len(encoded),)) + encoded
