"""Has a process do a piece of work and die by SIGKILL before a step of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gateway

ROOT = Path(gateway.__file__).parents[1]


class Killer:
    """Orders work from the harness, which dies by itself before its k-th step."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.flow.enrollment.kill_harness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def dies(self, **order: Any) -> bool:
        """Run one; False when it came to its end before its k-th step."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0, "the work itself failed"
        return False

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        assert self._server.wait(30) == 0
        self._server.stdout.close()
