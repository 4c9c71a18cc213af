"""What worker processes use, read from /proc when somebody asks (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.metrics import registry

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_USER_TIME, _SYSTEM_TIME = 11, 12
"""Fields of /proc/PID/stat, counted from the one behind the command's name."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses; times in seconds, memory in bytes."""

    cpu: float
    resident: int
    open_files: int


def read_usage(process: int, root: Path = Path("/proc")) -> Usage | None:
    """Return what a process uses; None when it is gone."""
    folder = root / str(process)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        pages = (folder / "statm").read_text().split()[1]
        files = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    return Usage((int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / _TICK, int(pages) * _PAGE, files)


class ProcessCollector(Collector):
    """The workers' usage; `processes` returns process ids by the workers' slots, which count from one."""

    def __init__(self, processes: Callable[[], Mapping[int, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        cpu = CounterMetricFamily(
            registry.WORKER_CPU_SECONDS.name, registry.WORKER_CPU_SECONDS.help, labels=registry.WORKER_CPU_SECONDS.labels
        )
        memory, files = _gauge(registry.WORKER_RESIDENT_MEMORY), _gauge(registry.WORKER_OPEN_FILES)
        running = self._processes()
        for slot, process in sorted(running.items()):
            usage = read_usage(process)
            if usage is not None:
                cpu.add_metric((str(slot),), usage.cpu)
                memory.add_metric((str(slot),), usage.resident)
                files.add_metric((str(slot),), usage.open_files)
        workers = _gauge(registry.WORKERS)
        workers.add_metric((), len(running))
        return workers, cpu, memory, files


def _gauge(family: registry.Family) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.help, labels=family.labels)
