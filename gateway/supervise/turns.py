"""Short turns on the processor, so that a probe is answered beside workers that keep every core busy (sched_setattr(2))."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import structlog

log = structlog.get_logger(__name__)

TURN_NANOSECONDS = 100_000
"""The shortest turn that the kernel grants."""
_NUMBERS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Of the system call: the C library has no function for it before glibc 2.41."""
_ATTRIBUTES = struct.Struct("IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period."""
_RESET_ON_FORK = 1


def take_short_turns() -> bool:
    """Have this thread run in short turns; returns whether the kernel agreed, which no right depends on.

    From Linux 6.12 on, what asks for short turns runs as soon as it wakes, where it would wait for others to end their turns of
    some milliseconds. It gets no more of the processor for that, and older kernels change nothing. Workers and threads that are
    begun later take usual turns; a process with a policy or a priority from its operator keeps that.
    """
    number = _NUMBERS.get(platform.machine())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if number is None or nice < 0 or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, TURN_NANOSECONDS, 0, 0)
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(number, 0, attributes, 0) == 0:
        return True
    # By the kernel, or by a filter of system calls (SystemCallFilter=sched_setattr in the unit allows it).
    log.info("no short turns: probes may wait for busy workers", cause=os.strerror(ctypes.get_errno()))
    return False
