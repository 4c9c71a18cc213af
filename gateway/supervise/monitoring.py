"""The supervisor's own server: probes and metrics for all workers at once, however busy they are."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from gateway.assemble.certificates import NamedCertificate, Standing
from gateway.config.document import DataPath, dotted
from gateway.metrics.registry import CertificateKind
from gateway.metrics.supervisor import Ending, SupervisorMetrics
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.monitoring import MonitoringEndpoint
from gateway.web.ops import Probe, Readiness
from gateway.web.server import HttpLimits, HttpServer

_CAPS = ConnectionCaps(total=64, per_address=32)
_LIMITS = HttpLimits(request_line=8192, header=8192, body=BodyLimits(max_bytes=1024, deadline=timedelta(seconds=5)), in_flight=16)
_DRAIN_SECONDS = 1.0
_FOLDER_SUFFIX = ".metrics"


class MonitoringServer:
    """Serves the monitoring listener from the supervisor's event loop.

    `is_alive` says that a worker's loop turned lately; `check` returns when every worker could take requests, and raises
    otherwise. Upstream CAs are no part of either: their outage concerns their own profiles.
    """

    def __init__(self, metrics: SupervisorMetrics, is_alive: Callable[[], bool], check: Callable[[], Awaitable[None]]) -> None:
        readiness = Readiness((Probe("workers", check),))
        endpoint = MonitoringEndpoint(is_alive, readiness, lambda ready: metrics.exposition(ready=ready))
        self._readiness = readiness
        self._server = HttpServer(endpoint.routes(), _LIMITS, _DRAIN_SECONDS)

    async def open(self, sock: socket.socket) -> None:
        """Begin to answer on `sock`, which stays the caller's."""
        await self._server.start()
        self._server.listen(sock, Admission(_CAPS))

    def drain(self) -> None:
        """Say from now on that the service should get no requests."""
        self._readiness.draining = True

    async def close(self) -> None:
        """Answer no more."""
        await self._server.stop()


def metrics_folder(admin_socket: Path) -> Path:
    """Return where the workers of a service count: beside the one socket that is its own."""
    return admin_socket.with_suffix(_FOLDER_SUFFIX)


def endings(certificates: Iterable[NamedCertificate]) -> Iterator[Ending]:
    """Yield when each configured certificate ends; the second and following ones of one field are numbered (`#2`)."""
    seen: dict[str, int] = {}
    for named in certificates:
        field = dotted(named.path)
        number = seen[field] = seen.get(field, 0) + 1
        name = field if number == 1 else f"{field}#{number}"
        yield Ending(_kind(named.path, named.standing), name, named.certificate.not_after)


def _kind(path: DataPath, standing: Standing) -> CertificateKind:
    match standing:
        case Standing.CHALLENGE_ANCHOR:
            return CertificateKind.CHALLENGE_ANCHOR
        case Standing.CLIENT_ANCHOR:
            return CertificateKind.CLIENT_ANCHOR
        case Standing.RETIRED:
            return CertificateKind.NEXT_CA if "next_ca" in path else CertificateKind.PREVIOUS_RA
        case Standing.CURRENT if path[0] == "server":
            return CertificateKind.TLS
        case Standing.CURRENT if path[0] == "upstream_cas":
            return CertificateKind.CA
        case Standing.CURRENT:
            return CertificateKind.RA
