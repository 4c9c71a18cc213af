"""The memory in which workers tell each other how many connections they hold: made once, one slot a worker (memfd_create(2))."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Self

from gateway.web.share import SLOT_BYTES

SLOTS_A_WORKER = 4
"""The one that serves, its successor, and those before that still drain."""


class Balance:
    """Hands out slots; the descriptor goes to every worker."""

    def __init__(self, descriptor: int, count: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, count * SLOT_BYTES)
        self._free = list(range(count))

    @classmethod
    def create(cls, workers: int) -> Self:
        """Make memory for so many workers and their successors. Raises OSError."""
        count = workers * SLOTS_A_WORKER
        descriptor = os.memfd_create("pki-gateway-balance", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, count * SLOT_BYTES)
            # No worker can make another one fault by cutting the memory short.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(descriptor, count)
        except BaseException:
            os.close(descriptor)
            raise

    def take(self) -> int | None:
        """Return a slot that no living process has; None when more processes drain than have slots: the worker does without."""
        return self._free.pop(0) if self._free else None

    def give_back(self, slot: int | None) -> None:
        """Clear the slot of a process that is gone, so that nobody leaves connections to it."""
        if slot is None:
            return
        self._memory[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES] = bytes(SLOT_BYTES)
        # Low slots first: what workers look through is written in few cache lines.
        self._free.append(slot)
        self._free.sort()

    def close(self) -> None:
        """Let go of the memory; workers keep theirs."""
        self._memory.close()
        os.close(self.descriptor)
