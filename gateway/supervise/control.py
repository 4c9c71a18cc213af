"""What supervisor and worker say to each other: messages on a socket pair, a JSON header and bytes each, answered by `id`."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

LENGTHS = struct.Struct(">IQ")
"""Bytes of the header, bytes of the body."""
MAX_HEADER = 4194304
MAX_BODY = 1 << 30
MAX_PROBLEMS = 100
"""Sentences that are shown of what is wrong with a configuration."""
MAX_TEXT = 100_000
"""Characters of a text in a message: JSON writes twelve bytes for one at the worst, and the header has room for more."""
TEMPORARY = 75
"""The exit status of a worker that could not begin now, but may later (EX_TEMPFAIL, sysexits.h(3head))."""


class ControlError(Exception):
    """What was read is no message: the other end is of another version, or out of its mind."""


@dataclass(frozen=True, slots=True)
class Start:
    """Down, first: build this generation from these bytes and answer; `Commit` then says that connections are accepted.

    The descriptors are the worker's own copies of the listening sockets, and of the memory in which workers tell each other
    what they hold; `share` is this one's place there. `slot` counts from one and outlives a worker.
    """

    worker: str
    slot: int
    generation: int
    http: int
    https: int
    admin: int
    https_mtls: int | None
    balance: int
    share: int | None
    log_format: str | None
    log_level: str
    drain_seconds: float
    sources: bytes = field(repr=False)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Prepare:
    """Down: build this generation beside the one in force, prove it, and answer. It takes the place of any prepared before."""

    generation: int
    sources: bytes = field(repr=False)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """Down: from now on requests see this generation, which was started with or is prepared; the first one opens the doors."""

    generation: int
    id: int = 0


@dataclass(frozen=True, slots=True)
class Abort:
    """Down: forget what is prepared. Not answered."""

    generation: int


@dataclass(frozen=True, slots=True)
class Check:
    """Down: are you ready for requests?"""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """Down: write one audit row; the supervisor has no store."""

    event: str
    actor: str
    decision: str
    detail: str
    generation: int
    id: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """Up: done."""

    id: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Up: not done, and why; `code` is the exit status that the command should have, TEMPORARY when it is worth another try."""

    id: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ReloadWanted:
    """Up: an operator wants the configuration read again."""

    actor: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class RestartWanted:
    """Up: an operator wants every worker replaced, one after another."""

    actor: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """Down: what became of what an operator wanted; `reason` is a word for it, `found` what the operator is shown."""

    id: int
    ok: bool
    reason: str
    text: str
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beat:
    """Up, every second: the worker's event loop turns."""


Question = Start | Prepare | Commit | Check | Record | ReloadWanted | RestartWanted
Answer = Ready | Refused | Ended
Message = Question | Answer | Abort | Beat

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Start, Prepare, Commit, Abort, Check, Record, Ready, Refused, ReloadWanted, RestartWanted, Ended, Beat)
}
_BODY = "sources"


def show_problems(problems: Sequence[str]) -> str:
    """Return a line for each problem as far as a message and an operator can take them, and how many more there are."""
    shown, more = "\n".join(problems[:MAX_PROBLEMS]), len(problems) - MAX_PROBLEMS
    return cut(shown) if more <= 0 else f"{cut(shown, MAX_TEXT - 100)}\nand {more} more"


def cut(text: str, length: int = MAX_TEXT) -> str:
    """Return a text, or so many characters of it and a mark that there was more."""
    return text if len(text) <= length else f"{text[:length]}…"


def encode(message: Message) -> bytes:
    """Return a message framed."""
    header = asdict(message)
    body: bytes = header.pop(_BODY, b"")
    raw = json.dumps({"kind": type(message).__name__, **header}).encode()
    return b"".join((LENGTHS.pack(len(raw), len(body)), raw, body))


def decode_lengths(frame: bytes) -> tuple[int, int]:
    """Return how many bytes of header and body follow. Raises ControlError when that is absurd."""
    header, body = LENGTHS.unpack(frame)
    if header > MAX_HEADER or body > MAX_BODY:
        raise ControlError(f"a message of {header} and {body} bytes")
    return header, body


def decode(header: bytes, body: bytes) -> Message:
    """Read what `encode` wrote. Raises ControlError for anything else."""
    try:
        raw = json.loads(header)
        kind = _KINDS[raw.pop("kind")]
        if any(known.name == _BODY for known in fields(kind)):
            raw[_BODY] = body
        return kind(**raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ControlError(f"no message: {type(error).__name__}") from error
