"""Run the tests that are not extra, a part of them a process, several at once: python .ci/tests.py [PYTEST FLAGS...].

Most tests wait for servers, so there is one process more than cores. Fails when any test fails.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PARTS = (
    ("tests/flow/serve/test_[a-q]*.py",),
    ("tests/flow/serve/test_r*.py",),
    ("tests/interop/test_acme_*.py",),
    ("tests/interop/test_[b-r]*.py",),
    ("tests/flow/enrollment",),
    ("tests/interop/test_[s-z]*.py",),
    ("tests/contract",),
    ("tests/flow/serve/test_[s-z]*.py",),
    ("tests/flow/acme",),
    ("tests/unit",),
    ("tests/flow/scep", "tests/flow/cmp"),
    ("tests/flow/faults", "tests/flow/test_*.py"),
    ("tests/flow/est", "tests/flow/store", "tests/flow/web", "tests/fuzz", "tests/test_*.py"),
)
"""What takes long comes first."""
NOTHING_COLLECTED = 5
"""Pytest's status where flags leave nothing of a part, which is no failure."""


def run(part: tuple[str, ...], flags: list[str]) -> int:
    """Run one part and print what it printed when it ends; returns its status."""
    paths = [str(path) for pattern in part for path in sorted(Path().glob(pattern))]
    # Each server and command that a test starts would compile the whole package anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-m", "not extra", *flags, *paths]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603 - our own
    sys.stdout.buffer.write(f"======== {' '.join(part)}\n".encode() + done.stdout)
    sys.stdout.flush()
    return done.returncode


def main(flags: list[str]) -> int:
    """Run all parts; 1 when one of them failed."""
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        statuses = list(pool.map(lambda part: run(part, flags), PARTS))
    return int(any(status not in {0, NOTHING_COLLECTED} for status in statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
