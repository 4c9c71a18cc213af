"""What supervisor and worker say to each other on their socket pair: one order down, one answer up."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

_LENGTH = struct.Struct(">Q")


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """How a worker is to serve; the descriptors are its own copies of the listening sockets."""

    worker: str
    generation: int
    http: int
    https: int
    admin: int
    log_format: str | None
    log_level: str
    drain_seconds: float
    https_mtls: int | None = None

    def encode(self, sources: bytes) -> bytes:
        """Return the order and the accepted configuration's bytes, framed."""
        header = json.dumps(asdict(self)).encode()
        return b"".join((_LENGTH.pack(len(header)), header, _LENGTH.pack(len(sources)), sources))

    @classmethod
    def read(cls, stream: _Reader) -> tuple[Self, bytes]:
        """Read what `encode` wrote; raises EOFError when the supervisor went away."""
        return cls(**json.loads(_read_frame(stream))), _read_frame(stream)


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's one line: ready, or why not (with the exit status that the command should have)."""

    ready: bool
    code: int = 0
    message: str = ""

    def encode(self) -> bytes:
        """Return one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read what `encode` wrote."""
        raw: dict[str, Any] = json.loads(line)
        return cls(**raw)


def _read_frame(stream: _Reader) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    return _read_exactly(stream, length)


def _read_exactly(stream: _Reader, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = stream.read(size - len(parts))
        if not part:
            raise EOFError("the supervisor went away")
        parts += part
    return bytes(parts)
