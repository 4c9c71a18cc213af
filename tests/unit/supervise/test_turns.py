"""Short turns are for the supervisor alone, whoever it starts, and change nothing that an operator chose."""

import ctypes
import errno
import os
import platform
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from gateway.supervise import turns

_TAKE = """
import os, subprocess, sys, threading
from gateway.supervise.turns import take_short_turns

def show():
    flags = os.sched_getscheduler(0)
    print(flags & ~os.SCHED_RESET_ON_FORK, bool(flags & os.SCHED_RESET_ON_FORK), os.getpriority(os.PRIO_PROCESS, 0), flush=True)

took = take_short_turns()
print(took)
show()
thread = threading.Thread(target=show)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0), False, os.getpriority(os.PRIO_PROCESS, 0))"])
"""


def take(nice: int = 0, policy: int = os.SCHED_OTHER) -> list[str]:
    def prepare() -> None:
        os.nice(nice)
        os.sched_setscheduler(0, policy, os.sched_param(0))

    done = subprocess.run(
        [sys.executable, "-c", _TAKE], preexec_fn=prepare, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("nice", [0, 5])
def test_neither_priority_nor_children_are_touched(nice: int) -> None:
    took, own, thread, child = take(nice)
    expected = min(os.getpriority(os.PRIO_PROCESS, 0) + nice, 19)
    assert own == f"{os.SCHED_OTHER} {took} {expected}"
    assert thread == child == f"{os.SCHED_OTHER} False {expected}"


def test_a_policy_that_somebody_chose_is_kept() -> None:
    took, own, *_ = take(policy=os.SCHED_BATCH)
    assert (took, own) == ("False", f"{os.SCHED_BATCH} False {os.getpriority(os.PRIO_PROCESS, 0)}")


@pytest.mark.skipif(platform.machine() not in turns._NUMBERS, reason="the call's number is not known here")
def test_what_the_kernel_or_a_filter_refuses_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def syscall(self, *_: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    with capture_logs() as logs:
        assert not turns.take_short_turns()
    assert [(line["log_level"], line["cause"]) for line in logs] == [("info", "Operation not permitted")]
