"""Nonces that were used, as bits of a file that the workers of a machine share: no nonce costs a write of the database.

Used nonces are remembered by when they were handed out, in spans of ten minutes, each with a Bloom filter of its own: what it
says was used may, once in a thousand times under full load, have been another one, and its client tries again with a fresh nonce
(RFC 8555 §6.5); what was used is never taken for unused. The file is not synced: it holds while the machine runs, across restarts
of the program, and after a restart of the machine every nonce from before it is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from struct import Struct

from gateway.errors import StoreUnavailable
from gateway.store.sqlite.connection import identify

SPAN_SECONDS = 600
LIFE_SPANS = 7
"""How many spans before its own can hold a nonce that is good at the same time: an hour, and clocks five minutes apart."""
PLACES = 16
"""Spans that the file has room for: those that live, and those that a clock has filled which ran ahead for a while."""
FILTER_BYTES = 1 << 22
HASHES = 3

_VERSION = b"nonces 1"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_HEADER = Struct(f"<8s36sd{PLACES}Q")
"""Version, which start of the machine this is, since when its nonces are good, and the span of each place."""
_FILTERS = 4096
_WORDS = Struct(f"<{HASHES}Q")


class UsedNonces:
    """One worker's view of the file beside `database`; opened when it is first needed, and anew when it was removed."""

    def __init__(self, database: Path, clock: Callable[[], datetime]) -> None:
        self._path = database.with_name(database.name + ".nonces")
        self._clock = clock
        self._boot = _BOOT.read_bytes().strip()
        self._fd: int | None = None
        self._file: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Begin the file where this start of the machine has none, before nonces are handed out. Raises StoreUnavailable."""
        with self._held() as descriptor:
            self._read_header(descriptor)

    def redeem(self, nonce: bytes, issued_at: datetime) -> bool:
        """Use up a nonce that is not older than an hour; False when it was used before. Raises StoreUnavailable."""
        with self._held() as descriptor:
            place = self._find_place(descriptor, issued_at.timestamp())
            return place is not None and _set(descriptor, place, nonce)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = self._file = None

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Hold the file's lock, for microseconds."""
        try:
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield descriptor
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise StoreUnavailable(f"cannot use {self._path}: {error.strerror}") from error

    def _open(self) -> int:
        if self._fd is not None and identify(self._path) == self._file:
            return self._fd
        self.close()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = identify(self._path)
        return self._fd

    def _find_place(self, descriptor: int, issued_at: float) -> int | None:
        """Return the place of the filter for a time; None for a time of which the file cannot tell."""
        since, spans = self._read_header(descriptor)
        span = int(issued_at) // SPAN_SECONDS
        if issued_at < since:
            return None
        if span in spans:
            return spans.index(span)
        place = _choose(spans, span)
        if place is not None:
            os.pwrite(descriptor, bytes(FILTER_BYTES), _FILTERS + place * FILTER_BYTES)
            spans[place] = span
            self._write_header(descriptor, since, spans)
        return place

    def _read_header(self, descriptor: int) -> tuple[float, list[int]]:
        """Return since when nonces are good, and the spans by place; a file of another start of the machine begins anew."""
        now = self._clock().timestamp() // 1
        data = os.pread(descriptor, _HEADER.size, 0)
        if len(data) == _HEADER.size:
            version, boot, since, *spans = _HEADER.unpack(data)
            if (version, boot) == (_VERSION, self._boot):
                if since <= now + SPAN_SECONDS:
                    return since, spans
                self._write_header(descriptor, now, spans)  # it was begun under a clock that ran ahead
                return now, spans
        os.ftruncate(descriptor, 0)
        self._write_header(descriptor, now, [0] * PLACES)
        return now, [0] * PLACES

    def _write_header(self, descriptor: int, since: float, spans: list[int]) -> None:
        os.pwrite(descriptor, _HEADER.pack(_VERSION, self._boot, since, *spans), 0)


def _choose(spans: list[int], span: int) -> int | None:
    """Return the place for a new span: one whose nonces are over, else one that lies far ahead; None where there is neither."""
    oldest, newest = min(spans), max(spans)
    if oldest < span - LIFE_SPANS:
        return spans.index(oldest)
    return spans.index(newest) if newest > span + LIFE_SPANS else None


def _set(descriptor: int, place: int, nonce: bytes) -> bool:
    """Set the bits of a nonce; False when all were set."""
    fresh = False
    for word in _WORDS.unpack(hashlib.sha256(nonce).digest()[: _WORDS.size]):
        offset = _FILTERS + place * FILTER_BYTES + (word >> 3) % FILTER_BYTES
        bit = 1 << (word & 7)
        found = int.from_bytes(os.pread(descriptor, 1, offset))
        if not found & bit:
            fresh = True
            os.pwrite(descriptor, bytes((found | bit,)), offset)
    return fresh
