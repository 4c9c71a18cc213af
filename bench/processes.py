"""What a server's processes have used so far, from /proc: CPU of every thread, and resident memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def processes(parent: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [parent]
    for pid in found:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError):
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of all threads of a process and its descendants, to the nanosecond as the scheduler counts it."""
    threads = (thread for pid in processes(parent) for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def resident_megabytes(parent: int) -> list[float]:
    """Return the resident memory of a process and of each of its descendants, the parent first."""
    return [_resident(pid) / 1024 for pid in processes(parent)]


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
