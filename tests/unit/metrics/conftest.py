"""Metrics as one process counts them, and as a process of its own counts into files."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.metrics.files import VARIABLE
from gateway.metrics.worker import REGISTRY

COUNTING = """
import os, sys
from gateway.errors import Reason
from gateway.metrics import worker
from gateway.metrics.registry import CommitResult
from gateway.model import Issued, ProfileName, Protocol, Rejected, RequestId

for _ in range(int(sys.argv[1])):
    worker.count_answer(Protocol.SCEP, ProfileName("demo"), "PKCSReq", Issued(b"", (), RequestId("r")), 0.004)
worker.count_answer(Protocol.SCEP, ProfileName("demo"), "PKCSReq", Rejected(Reason.CREDENTIAL_USED, ""), 20.0)
worker.observe_commit(CommitResult.DURABLE, 0.003)
worker.set_load(3, 7)
print(os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""

Sample = Callable[..., float]


@pytest.fixture
def sample() -> Sample:
    """Return the value of one series of this process, nought where it has not begun."""
    return lambda name, **labels: REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def count() -> Callable[[Path, int], int]:
    """Have a process of its own count so many enrollments into a folder, and die; returns its id."""

    def run(folder: Path, enrollments: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", COUNTING, str(enrollments)],
            env={**os.environ, VARIABLE: str(folder)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == -9, done.stderr
        return int(done.stdout)

    return run
