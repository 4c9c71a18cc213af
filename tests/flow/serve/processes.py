"""What tests of a served installation see of its processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import COMMAND, RunningServer

FAULTS = Path(__file__).parent / "faults"


def wait_for(condition: Callable[[], bool], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def workers(server: RunningServer) -> set[int]:
    """Return the worker processes that live."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(server.process.pid)], capture_output=True, text=True, timeout=10, check=False
    )
    rows = [line.split() for line in found.stdout.splitlines()]
    return {int(pid) for pid, state in rows if not state.startswith("Z")}


def logged(server: RunningServer, event: str) -> list[dict[str, Any]]:
    """Return the log lines of one event."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def audited(server: RunningServer, event: str) -> list[dict[str, Any]]:
    """Return the audit rows of one event."""
    rows = map(json.loads, server.cli("audit", "export").stdout.splitlines())
    return [row for row in rows if row["event"] == event]


def generations(server: RunningServer, asked: int = 12) -> set[int]:
    """Return the generations that workers say are in force, asked over connections of their own."""
    code = f"""
import sys; from pathlib import Path; from gateway.cli.client import AdminClient
print(*{{AdminClient(Path({str(server.config)!r})).get("/v1/status")["generation"] for _ in range({asked})}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(map(int, done.stdout.split()))


def begin(server: RunningServer, *arguments: str) -> subprocess.Popen[str]:
    """Begin a command against the server without waiting for it."""
    return subprocess.Popen(
        [*COMMAND, *arguments, "--config", str(server.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def change(server: RunningServer, old: str, new: str) -> None:
    """Change the configuration file, by a rename as editors do."""
    text = server.config.read_text()
    assert old in text
    other = server.config.with_suffix(".new")
    other.write_text(text.replace(old, new))
    other.chmod(server.config.stat().st_mode & 0o777)
    other.rename(server.config)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def requests_meanwhile(server: RunningServer, path: str = "/scep/demo?operation=GetCACaps") -> Iterator[list[str]]:
    """Ask for something all the time, each time over a new connection; yields the failures, with one `ok` a success."""
    found: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                with urllib.request.urlopen(server.url + path, timeout=20) as reply:
                    found.append("ok" if reply.status == 200 else str(reply.status))
            except OSError as error:
                found.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
