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
_UNFINISHED = ".new"
"""Ends the name of a file that has not all its bytes yet: nobody reads it."""
_HEADER = 8
"""Bytes at the beginning of each file that say how many are used."""


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
    for path in (*folder.glob("*.db"), *folder.glob(f"*{_UNFINISHED}")):
        path.unlink()
    for prefix in _KEPT:
        _reserve(_path(folder, prefix, ENDED), _RESERVED[prefix])


def readable(folder: Path) -> list[str]:
    """Return the paths of the files that can be read, those of ended processes included."""
    return [str(path) for path in sorted(folder.glob("*.db")) if _has_header(path)]


def keep(folder: Path, process: int) -> None:
    """Add what a process counted, which has ended, to what all ended ones have, and delete its files.

    Counters would go back otherwise, and a file stay for each worker that ever was. They are deleted also where one cannot be
    read: it would be in the way of all others for ever.
    """
    try:
        for prefix in _KEPT:
            path = _path(folder, prefix, process)
            if _has_header(path):
                _add(path, _path(folder, prefix, ENDED))
    finally:
        for prefix in _RESERVED:
            path = _path(folder, prefix, process)
            path.unlink(missing_ok=True)
            _unfinished(path).unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Give a file its name only when it has all its bytes: on a full disk it would have none, and no header."""
    if path.exists():
        return
    unfinished = _unfinished(path)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + _UNFINISHED)


def _has_header(path: Path) -> bool:
    try:
        return path.stat().st_size >= _HEADER
    except FileNotFoundError:
        return False


def _add(counted: Path, total: Path) -> None:
    sums = MmapedDict(str(total))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(counted)):
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()


def _path(folder: Path, prefix: str, process: int | str) -> Path:
    return folder / f"{prefix}_{process}.db"
