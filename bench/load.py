"""Real SCEP requests against a running server on loopback, by as many keep-alive connections as asked for."""

from __future__ import annotations

import asyncio
import os
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import aiohttp

from gateway.asn1.scep import PkiStatus
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client
from tests.conftest import RunningServer

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, ready to be sent, and what is needed to check its answer."""

    request: client.ScepRequest
    signer: Signer
    ra: bytes


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load showed; times in seconds but where milliseconds are named."""

    granted: int
    seconds: float
    cpu_seconds: float
    latencies: tuple[float, ...]
    other_p99: float
    """99th percentile of a GetCACaps asked for meanwhile, in milliseconds."""

    def percentile(self, n: int) -> float:
        """Return the n-th percentile of the latencies in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[n - 1] * 1000


def prepare_requests(server: RunningServer, count: int) -> list[Prepared]:
    """Build `count` different requests: own subject and transaction each, one key."""
    authorities = client.decode_ca_certificates(server.get("/scep/demo?operation=GetCACert"), "application/x-x509-ca-ra-cert")
    ra = client.choose_ra_certificate(authorities)
    key = generate_private_key("rsa-2048")
    now = datetime.now(UTC)
    name = parse_name_text("CN=bench")
    signer = client.self_signed_signer(key, name.der, now - timedelta(hours=1), now + timedelta(days=1))
    identifier = client.transaction_id(public_key_der(key))
    prepared = []
    for number in range(count):
        csr = build_csr(key, parse_name_text(f"CN=bench-{number}").der, challenge_password=server.static_challenge)
        request = client.encode_request(csr, signer, ra, transaction=f"{identifier}-{number}")
        prepared.append(Prepared(request, signer, ra))
    return prepared


async def run_load(server: RunningServer, requests: list[Prepared], connections: int) -> LoadResult:
    """Send every request once, `connections` at a time, and check every answer afterwards."""
    answers: list[tuple[Prepared, bytes]] = []
    latencies: list[float] = []
    others: list[float] = []
    waiting = iter(requests)
    url = f"{server.url}/scep/demo"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections + 1)) as session:

        async def send_all() -> None:
            for prepared in waiting:
                begun = perf_counter()
                async with session.post(f"{url}?operation=PKIOperation", data=prepared.request.message) as reply:
                    answers.append((prepared, await reply.read()))
                latencies.append(perf_counter() - begun)

        async def ask_meanwhile() -> None:
            while True:
                begun = perf_counter()
                async with session.get(f"{url}?operation=GetCACaps") as reply:
                    await reply.read()
                others.append((perf_counter() - begun) * 1000)
                await asyncio.sleep(0.02)

        cpu, begun = cpu_seconds(server.process.pid), perf_counter()
        watcher = asyncio.create_task(ask_meanwhile())
        await asyncio.gather(*(send_all() for _ in range(connections)))
        seconds, cpu = perf_counter() - begun, cpu_seconds(server.process.pid) - cpu
        watcher.cancel()
    granted = sum(client.decode_cert_rep(a, p.request, p.signer, p.ra).status is PkiStatus.SUCCESS for p, a in answers)
    return LoadResult(granted, seconds, cpu, tuple(latencies), statistics.quantiles(others, n=100)[98])


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of a process and its children so far."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    total = 0
    for pid in (str(parent), *children):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS
