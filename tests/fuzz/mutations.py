"""Messages broken in many ways, and what a broken one may cost."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from gateway.errors import MalformedMessage, Rejection
from gateway.pki import der

CPU_SECONDS = 0.050
MUTATIONS = 1000
"""Of each message and each layer; all layers together stay below 20 seconds on one core."""

HOSTILE = (
    b"\x00",
    b"\x80",
    b"\xff",
    b"\x30\x80",
    b"\x06\x00",
    b"\x1f\xff",
    b"\xa0\x80",
    b"\x24\x80",
    b"\x84\xff\xff\xff\xff",
    b"\x00\x00",
)


def elements_of(data: bytes) -> list[tuple[int, int]]:
    """Return the extent of every element at any depth, as far as the data is definite and makes sense."""
    found: list[tuple[int, int]] = []
    waiting = [(0, len(data))]
    while waiting and len(found) < 2000:
        start, stop = waiting.pop()
        try:
            children = der.elements(data, start, stop)
        except MalformedMessage:
            continue
        for tag, begin, inner, end in children:
            found.append((begin, end))
            if tag & 0x20 or (tag == der.OCTET_STRING and end - inner > 64):
                waiting.append((inner, end))
    return found


class Mutator:
    """Breaks one message in many ways; the same seed breaks it the same way."""

    def __init__(self, data: bytes, seed: str) -> None:
        self.data = data
        self.random = random.Random(seed)
        self.elements = elements_of(der.normalize(data))
        self.normal = der.normalize(data)

    def mutations(self, count: int) -> Iterator[bytes]:
        kinds: tuple[Callable[[], bytes], ...] = (
            self.flip,
            self.flip,
            self.overwrite,
            self.cut,
            self.insert,
            self.drop,
            self.double,
            self.swap,
        )
        for _ in range(count):
            yield self.random.choice(kinds)()

    def flip(self) -> bytes:
        broken = bytearray(self.data)
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            broken[self.random.randrange(len(broken))] ^= 1 << self.random.randrange(8)
        return bytes(broken)

    def overwrite(self) -> bytes:
        position, piece = self.random.randrange(len(self.data)), self.random.choice(HOSTILE)
        return self.data[:position] + piece + self.data[position + len(piece) :]

    def cut(self) -> bytes:
        return self.data[: self.random.randrange(len(self.data))]

    def insert(self) -> bytes:
        position = self.random.randrange(len(self.data))
        return self.data[:position] + self.random.choice(HOSTILE) * self.random.choice((1, 2, 100)) + self.data[position:]

    def drop(self) -> bytes:
        """Remove one element and mend every length around it, so that the break is one of meaning."""
        begin, end = self.random.choice(self.elements)
        return self.splice(begin, end, b"")

    def double(self) -> bytes:
        begin, end = self.random.choice(self.elements)
        return self.splice(begin, end, self.normal[begin:end] * 2)

    def swap(self) -> bytes:
        begin, end = self.random.choice(self.elements)
        other = self.random.choice(self.elements)
        return self.splice(begin, end, self.normal[other[0] : other[1]])

    def splice(self, begin: int, end: int, piece: bytes) -> bytes:
        around = sorted((e for e in self.elements if e[0] < begin and end <= e[1]), reverse=True)
        replaced, stop = piece, end
        start = begin
        for outer_begin, outer_end in around:
            tag, content, _ = der.read(self.normal, outer_begin)
            body = self.normal[content:start] + replaced + self.normal[stop:outer_end]
            replaced, start, stop = der.tlv(tag, body), outer_begin, outer_end
        return self.normal[:start] + replaced + self.normal[stop:]


def refused_cheaply(work: Callable[[], object], what: str) -> bool:
    """Run `work`; True when it was refused. Fails when anything but a Rejection escapes or when it costs too much CPU."""
    for attempt in range(3):
        started = time.process_time()
        refused = True
        with suppress(Rejection):
            work()
            refused = False
        if time.process_time() - started < CPU_SECONDS:
            return refused
        gc.collect()
        assert attempt < 2, f"{what} cost more than {CPU_SECONDS * 1000:.0f} ms of CPU, three times"
    raise AssertionError
