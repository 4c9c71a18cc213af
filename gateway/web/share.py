"""How many connections each worker of a service holds, in memory that its workers share (memfd_create(2)).

One slot of eight bytes a worker: the lower half is its open connections plus one, zero while it accepts none; the upper half
counts those it ever took, so that others see that it takes what they leave to it. A slot has one writer and is written at once.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Self

SLOT_BYTES = 8
_HALF = 32
_LOW = (1 << _HALF) - 1
EVEN_OUT_OF = 8
"""Differences between workers up to this part of what one holds are not evened out."""


@dataclass(frozen=True, slots=True)
class Other:
    """The least loaded worker, and how many connections it had ever taken."""

    slot: int
    taken: int


class Share:
    """One worker's slot, and its view of the others."""

    __slots__ = ("_offered", "_open", "_own", "_slots", "_taken")

    def __init__(self, slots: memoryview, own: int) -> None:
        """`slots` holds unsigned 64-bit numbers, `own` is this worker's place among them."""
        self._slots = slots
        self._own = own
        self._open = 0
        self._taken = 0
        self._offered = False

    @classmethod
    def alone(cls) -> Self:
        """Return the share of one that nobody shares with."""
        return cls(memoryview(bytearray(SLOT_BYTES)).cast("Q"), 0)

    @classmethod
    def attach(cls, descriptor: int, own: int) -> Self:
        """Map the memory behind an inherited descriptor, which may be closed afterwards. Raises OSError."""
        return cls(memoryview(mmap.mmap(descriptor, 0)).cast("Q"), own)

    def offer(self) -> None:
        """Tell the others that this worker accepts connections."""
        self._offered = True
        self._write()

    def withdraw(self) -> None:
        """Tell the others to wait no more for this worker."""
        self._offered = False
        self._slots[self._own] = 0

    def enter(self) -> None:
        """Count a connection that was taken."""
        self._open += 1
        self._taken = (self._taken + 1) & _LOW
        self._write()

    def leave(self) -> None:
        """Count a connection that ended."""
        self._open -= 1
        self._write()

    def _write(self) -> None:
        if self._offered:
            self._slots[self._own] = self._taken << _HALF | self._open + 1

    @property
    def tolerance(self) -> int:
        """How many connections more than the least loaded worker this one may hold: none while it holds few."""
        return self._open // EVEN_OUT_OF

    def has_others(self) -> bool:
        """Whether another worker accepts connections."""
        return any(slot and number != self._own for number, slot in enumerate(self._slots))

    def less_loaded(self) -> Other | None:
        """Return the worker that should take the next connection; None while this one has not more than its share.

        With few connections every single one counts; with many, small differences come from those that ended and are not worth
        a delay.
        """
        least, found = self._open, None
        if not least:
            return None
        for number, slot in enumerate(self._slots):
            held = slot & _LOW
            if held and held <= least:
                least, found = held - 1, Other(number, slot >> _HALF)
        return found if self._open - least > self.tolerance else None
