"""The supervisor's own server: probes and metrics for all workers at once, however busy they are."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from gateway.assemble.anchors import NamedCrl
from gateway.assemble.certificates import NamedCertificate, Standing
from gateway.config.document import DataPath, dotted
from gateway.metrics.registry import CertificateKind, RestartCause
from gateway.metrics.supervisor import CertificateEnding, CrlEnding, SupervisorMetrics
from gateway.supervise.acceptance import utc_now
from gateway.supervise.observers import Observer
from gateway.supervise.outcome import Outcome
from gateway.supervise.process import Ending, WorkerProcess, WorkerRefusedError
from gateway.supervise.turns import take_short_turns
from gateway.supervise.workers import Workers
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.monitoring import MonitoringEndpoint, NotReadyError
from gateway.web.server import HttpLimits, HttpServer

_CAUSES: Mapping[Ending, RestartCause] = {Ending.DIED: RestartCause.DIED, Ending.REPLACED: RestartCause.ROLLING}
_CAPS = ConnectionCaps(total=64, per_address=32)
_LIMITS = HttpLimits(request_line=8192, header=8192, body=BodyLimits(max_bytes=1024, deadline=timedelta(seconds=5)), in_flight=16)
_DRAIN_SECONDS = 1.0
_FOLDER_SUFFIX = ".metrics"


class Monitoring(Observer):
    """Serves the monitoring listener from the supervisor's event loop, and counts what the supervisor sees."""

    def __init__(self, metrics: SupervisorMetrics, workers: Workers) -> None:
        self._metrics = metrics
        self._workers = workers
        self._endpoint = MonitoringEndpoint(workers.is_alive, self._check, lambda ready: metrics.exposition(ready=ready))
        self._server = HttpServer(self._endpoint.routes(), _LIMITS, _DRAIN_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.watch(workers.processes)
        self._accept()

    @asynccontextmanager
    async def answering(self, sock: socket.socket) -> AsyncIterator[None]:
        """Answer on `sock`, which stays the caller's, as soon as somebody asks: workers would be waited for otherwise."""
        take_short_turns()
        await self._server.start()
        self._server.listen(sock, Admission(_CAPS))
        try:
            yield
        finally:
            await self._server.stop()

    def reloaded(self, outcome: Outcome) -> None:
        """Note what is in force now."""
        if outcome.ok:
            self._accept()
        else:
            self._metrics.refuse_configuration()

    def worker_ended(self, worker: WorkerProcess, ending: Ending) -> None:
        """Keep what it counted."""
        task = asyncio.create_task(self._metrics.worker_ended(worker.process.pid, _CAUSES.get(ending)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stopping(self) -> None:
        """Say from now on that the service should get no requests."""
        self._endpoint.draining = True

    async def _check(self) -> None:
        try:
            await self._workers.check()
        except WorkerRefusedError as refused:
            raise NotReadyError(str(refused)) from refused

    def _accept(self) -> None:
        accepted = self._workers.accepted
        ends = crl_endings(accepted.crls)
        self._metrics.accept_configuration(accepted.generation, endings(accepted.certificates), utc_now(), ends)


def metrics_folder(admin_socket: Path) -> Path:
    """Return where the workers of a service count: beside the one socket that is its own."""
    return admin_socket.with_suffix(_FOLDER_SUFFIX)


def endings(certificates: Iterable[NamedCertificate]) -> Iterator[CertificateEnding]:
    """Yield when each configured certificate ends; the second and following ones of one field are numbered (`#2`)."""
    seen: Counter[str] = Counter()
    for named in certificates:
        yield CertificateEnding(_kind(named.path, named.standing), _name(named.path, seen), named.certificate.not_after)


def crl_endings(crls: Iterable[NamedCrl]) -> Iterator[CrlEnding]:
    """Yield when the CRL of each CA ends by which others' certificates are judged, numbered like certificates."""
    seen: Counter[str] = Counter()
    for named in crls:
        yield CrlEnding(_name(named.path, seen), named.ends)


def _name(path: DataPath, seen: Counter[str]) -> str:
    field = dotted(path)
    seen[field] += 1
    return field if seen[field] == 1 else f"{field}#{seen[field]}"


_KINDS = {
    Standing.CHALLENGE_ANCHOR: CertificateKind.CHALLENGE_ANCHOR,
    Standing.CLIENT_ANCHOR: CertificateKind.CLIENT_ANCHOR,
    Standing.RECIPIENT: CertificateKind.RECIPIENT,
}
_OURS = {"server": CertificateKind.TLS, "upstream_cas": CertificateKind.CA}


def _kind(path: DataPath, standing: Standing) -> CertificateKind:
    if standing is Standing.CURRENT:
        return _OURS.get(str(path[0]), CertificateKind.RA)
    if standing is Standing.RETIRED:
        return CertificateKind.NEXT_CA if {"next_ca", "rollover"} & set(path) else CertificateKind.PREVIOUS_RA
    return _KINDS[standing]
