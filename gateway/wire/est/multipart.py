"""The two parts of a serverkeygen answer: written for every client, read for our own (RFC 7030 §4.4.2, RFC 2046 §5.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its media type and what its base64 stands for, DER."""

    media_type: str
    data: bytes = field(repr=False)


def encode_multipart(parts: Iterable[Part], wrap: bool) -> tuple[bytes, str]:
    """Return body and Content-Type of a multipart/mixed answer; each part is base64 and says so."""
    raise NotImplementedError


def decode_multipart(body: bytes, content_type: str) -> tuple[Part, ...]:
    """Return the parts of a multipart/mixed answer, base64 decoded; raises MalformedMessage."""
    raise NotImplementedError
