"""The files in which workers count: memory-mapped, one set a process, so that nothing is lost with the process that counted."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder to a worker; prometheus-client reads it when it is imported."""
ENDED = "ended"
"""Stands in a file's name where the process id of a worker stands that runs."""
_RESERVED = {"counter": 1048576, "histogram": 1048576, "gauge_livesum": 65536, "gauge_livemostrecent": 65536}
"""Bytes a file, by the prefix of its name: some thousand series."""
_KEPT = ("counter", "histogram")


def reserve(folder: Path, process: int | str) -> None:
    """Make the files of one process whole before anything is mapped. Raises OSError when the disk is full.

    A write into a hole of a mapped file kills the process (SIGBUS, mmap(2)) when the disk is full at that moment.
    """
    for prefix, size in _RESERVED.items():
        _reserve(_path(folder, prefix, process), size)


def clear(folder: Path) -> None:
    """Make an empty folder: what an earlier run counted is gone, as counters of a service that was started again are.

    Raises OSError when it cannot be written, or the disk is full.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob("*.db"):
        path.unlink()
    for prefix in _KEPT:
        _reserve(_path(folder, prefix, ENDED), _RESERVED[prefix])


def keep(folder: Path, process: int) -> None:
    """Add what a process counted, which has ended, to what all ended ones have, and delete its files.

    Counters would go back otherwise, and a file stay for each worker that ever was.
    """
    for prefix in _KEPT:
        path = _path(folder, prefix, process)
        if path.exists():
            _add(path, _path(folder, prefix, ENDED))
    for prefix in _RESERVED:
        _path(folder, prefix, process).unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _add(counted: Path, total: Path) -> None:
    sums = MmapedDict(str(total))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(counted)):
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()


def _path(folder: Path, prefix: str, process: int | str) -> Path:
    return folder / f"{prefix}_{process}.db"
