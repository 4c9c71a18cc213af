"""The servers of one worker: the network's and the operators', over one gateway."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gateway.assemble import Gateway
from gateway.config.schema import Limits
from gateway.tracing import Tracer
from gateway.web.acme.endpoint import AcmeEndpoint
from gateway.web.admin import AdminEndpoint
from gateway.web.cmp import CmpEndpoint
from gateway.web.est import EstEndpoint
from gateway.web.floods import FloodCounter
from gateway.web.http01 import Http01Endpoint
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.ops import OpsEndpoint, Readiness
from gateway.web.revocation import RevocationEndpoint
from gateway.web.scep import ScepEndpoint
from gateway.web.server import HttpLimits, HttpServer
from gateway.web.share import Share

KEY_THREADS = 2
"""Threads for slow RSA keys: more only add switches, since workers are processes."""
ADMIN_BODY = 8 << 20
"""An incident may name more than a hundred thousand serial numbers."""
ADMIN_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that are worked on, and connections that are open."""

    in_flight: int
    connections: int


class Endpoints:
    """Owns what is between the sockets and the registration authority; the gateway stays the caller's."""

    def __init__(self, gateway: Gateway, drain_seconds: float, share: Share | None = None, tracer: Tracer | None = None) -> None:
        """`share` tells the other workers what this one holds; without one it is alone."""
        server = gateway.config.server
        limits = server.limits
        self._executor = ThreadPoolExecutor(KEY_THREADS, thread_name_prefix="ra-key")
        self._admission = Admission(ConnectionCaps(limits.connections, limits.connections_per_address), share)
        self._gateway = gateway
        self._readiness = Readiness(gateway.probes())
        self.floods = FloodCounter(gateway.store.append_audit, gateway.clock)
        ops = OpsEndpoint(self._readiness).routes()
        shared = (lambda: gateway.generation, gateway.authority, self.floods, self._executor, gateway.clock, tracer)
        scep, est = ScepEndpoint(*shared), EstEndpoint(*shared)
        acme = AcmeEndpoint(lambda: gateway.generation, gateway.acme, self.floods, gateway.clock, tracer)
        revocation = RevocationEndpoint(lambda: gateway.generation, gateway.clock)
        cmp = CmpEndpoint(lambda: gateway.generation, gateway.cmp, self.floods, self._executor, gateway.clock, tracer)
        admin = AdminEndpoint(gateway.operations.run)
        http01 = Http01Endpoint(lambda: gateway.generation)
        # CMP is last: it has paths anywhere, where its aliases say so
        routes = [*scep.routes(), *est.routes(), *acme.routes(), *revocation.routes(), *http01.routes(), *cmp.routes()]
        self._network = HttpServer(routes, _network_limits(limits), drain_seconds, acme.spell)
        self._operators = HttpServer([*admin.routes(), *ops], _operator_limits(limits), drain_seconds)

    async def open(
        self, http: socket.socket, https: socket.socket, admin: socket.socket, https_mtls: socket.socket | None = None
    ) -> None:
        """Begin to accept on all sockets, which stay the caller's; `https_mtls` goes with the configuration's.

        Every connection gets the TLS context that is in force when it is accepted, and keeps it.
        """
        await self._network.start()
        await self._operators.start()
        self._network.listen(http, self._admission)
        self._network.listen(https, self._admission, lambda: self._gateway.generation.tls_context("https"))
        if https_mtls is not None:
            self._network.listen(https_mtls, self._admission, lambda: self._gateway.generation.tls_context("https_mtls"))
        await self._operators.listen_unix(admin)

    async def failures(self) -> tuple[str, ...]:
        """Return the names of what keeps this worker from taking requests; empty when it is ready."""
        return await self._readiness.failures()

    @property
    def load(self) -> Load:
        """What clients ask of this worker now."""
        return Load(self._network.in_flight, self._admission.total)

    async def close(self) -> None:
        """Accept no more, finish requests in flight, and write what was only counted."""
        self._readiness.draining = True
        await asyncio.gather(self._network.stop(), self._operators.stop())
        self._executor.shutdown()
        await self.floods.flush()


def _network_limits(limits: Limits) -> HttpLimits:
    return HttpLimits(
        request_line=limits.request_line_bytes,
        header=limits.header_bytes,
        body=BodyLimits(limits.body_bytes, limits.body_timeout),
        in_flight=limits.requests_in_flight,
    )


def _operator_limits(limits: Limits) -> HttpLimits:
    return HttpLimits(
        request_line=limits.request_line_bytes,
        header=limits.header_bytes,
        body=BodyLimits(ADMIN_BODY, limits.body_timeout),
        in_flight=ADMIN_IN_FLIGHT,
    )
