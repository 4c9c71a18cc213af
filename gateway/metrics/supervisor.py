"""What the supervisor counts itself, and the one exposition of it and of all workers."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.metrics import registry
from gateway.metrics.files import VARIABLE, clear, keep, readable
from gateway.metrics.processes import ProcessCollector
from gateway.metrics.registry import CertificateKind, Family, RestartCause


@dataclass(frozen=True, slots=True)
class CertificateEnding:
    """When a configured certificate ends; `name` is the configuration field that names it."""

    kind: CertificateKind
    name: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CrlEnding:
    """When the CRL of another CA ends; `name` is the configuration field, `next_update` None where there is no CRL."""

    name: str
    next_update: datetime | None


class WorkerCollector(MultiProcessCollector):
    """What all workers counted, read from those of their files that can be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        merged: Iterable[Metric] = self.merge(readable(self._folder))  # type: ignore[no-untyped-call]
        return merged


class SupervisorMetrics:
    """Belongs to one service from start to end; `folder` is its own, and what an earlier run left in it is deleted."""

    def __init__(self, folder: Path) -> None:
        clear(folder)
        disable_created_metrics()  # when a series began says nothing of what is counted here
        self._folder = folder
        self._exclusive = asyncio.Lock()
        self._registry = CollectorRegistry()
        self._certificates = self._gauge(registry.CERTIFICATE_NOT_AFTER)
        self._crls = self._gauge(registry.CLIENT_CRL_NEXT_UPDATE)
        self._generation = self._gauge(registry.CONFIG_GENERATION)
        self._reload_successful = self._gauge(registry.CONFIG_LAST_RELOAD_SUCCESSFUL)
        self._reload_success = self._gauge(registry.CONFIG_LAST_RELOAD_SUCCESS)
        self._ready = self._gauge(registry.READY)
        self._gauge(registry.BUILD_INFO).labels(version("pki-gateway"), platform.python_version()).set(1)
        family = registry.WORKER_RESTARTS
        self._restarts = Counter(family.name, family.help, family.labels, registry=self._registry)
        for cause in RestartCause:
            self._restarts.labels(cause.value)
        self._registry.register(WorkerCollector(folder))

    @property
    def worker_environment(self) -> Mapping[str, str]:
        """What a worker's environment holds beside ours, so that it counts where we read."""
        return MappingProxyType({VARIABLE: str(self._folder)})

    def watch(self, processes: Callable[[], Mapping[int, int]]) -> None:
        """Show what workers use; `processes` returns the ids of those that serve, by their slots."""
        self._registry.register(ProcessCollector(processes))

    def accept_configuration(
        self, generation: int, certificates: Iterable[CertificateEnding], at: datetime, crls: Iterable[CrlEnding] = ()
    ) -> None:
        """Note what is in force now, at the start and after each reload."""
        self._generation.set(generation)
        self._reload_successful.set(1)
        self._reload_success.set(at.timestamp())
        self._certificates.clear()
        for ending in certificates:
            self._certificates.labels(ending.kind.value, ending.name).set(ending.not_after.timestamp())
        self._crls.clear()
        for crl in crls:
            self._crls.labels(crl.name).set(crl.next_update.timestamp() if crl.next_update else 0)

    def refuse_configuration(self) -> None:
        """Note that a reload was refused; what was in force still is."""
        self._reload_successful.set(0)

    async def worker_ended(self, process: int, cause: RestartCause | None) -> None:
        """Keep what a worker counted that has ended; `cause` None: it is not replaced."""
        if cause is not None:
            self._restarts.labels(cause.value).inc()
        async with self._exclusive:
            await asyncio.to_thread(keep, self._folder, process)

    async def exposition(self, *, ready: bool) -> bytes:
        """Return everything in the text format, version 0.0.4."""
        self._ready.set(1 if ready else 0)
        async with self._exclusive:
            return await asyncio.to_thread(generate_latest, self._registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.help, family.labels, registry=self._registry)
