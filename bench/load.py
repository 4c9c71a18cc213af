"""Real SCEP requests against a running server on loopback, by as many keep-alive connections as asked for."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterable
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, ready to be sent, and what is needed to check its answer."""

    request: client.ScepRequest
    signer: Signer
    ra: bytes
    url: str

    def is_granted(self, answer: bytes) -> bool:
        """Whether an answer is a CertRep SUCCESS."""
        return client.decode_cert_rep(answer, self.request, self.signer, self.ra).status is PkiStatus.SUCCESS


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


def prepare_requests(
    server: RunningServer, count: int, profile: str = "demo", challenge: Callable[[str], str] | None = None
) -> list[Prepared]:
    """Build `count` different requests: own subject and transaction each, one key.

    `challenge` makes the challenge of a device by its CN; without it all have the static one of `demo`.
    """
    url = f"{server.url}/scep/{profile}"
    body = server.get(f"/scep/{profile}?operation=GetCACert")
    ra = client.choose_ra_certificate(client.decode_ca_certificates(body, "application/x-x509-ca-ra-cert"))
    key = generate_private_key("rsa-2048")
    now = datetime.now(UTC)
    signer = client.self_signed_signer(key, parse_name_text("CN=bench").der, now - timedelta(hours=1), now + timedelta(days=1))
    identifier = client.transaction_id(public_key_der(key))
    static = server.static_challenge
    prepared = []
    for number in range(count):
        device = f"bench-{number}"
        password = challenge(device) if challenge else static
        csr = build_csr(key, parse_name_text(f"CN={device}").der, challenge_password=password)
        request = client.encode_request(csr, signer, ra, transaction=f"{identifier}-{number}")
        prepared.append(Prepared(request, signer, ra, url))
    return prepared


async def send_all(
    session: aiohttp.ClientSession, requests: Iterable[Prepared], connections: int
) -> list[tuple[Prepared, bytes]]:
    """Send every request once, `connections` at a time, and return the answers."""
    answers: list[tuple[Prepared, bytes]] = []
    waiting = iter(requests)

    async def send_some() -> None:
        for prepared in waiting:
            async with session.post(f"{prepared.url}?operation=PKIOperation", data=prepared.request.message) as reply:
                answers.append((prepared, await reply.read()))

    await asyncio.gather(*(send_some() for _ in range(connections)))
    return answers


async def run_load(server: RunningServer, requests: list[Prepared], connections: int) -> LoadResult:
    """Send every request once, `connections` at a time, and check every answer afterwards."""
    answers: list[tuple[Prepared, bytes]] = []
    latencies: list[float] = []
    others: list[float] = []
    waiting = iter(requests)
    url = f"{server.url}/scep/demo"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections + 1)) as session:

        async def send_some() -> None:
            for prepared in waiting:
                begun = perf_counter()
                async with session.post(f"{prepared.url}?operation=PKIOperation", data=prepared.request.message) as reply:
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
        await asyncio.gather(*(send_some() for _ in range(connections)))
        seconds, cpu = perf_counter() - begun, cpu_seconds(server.process.pid) - cpu
        watcher.cancel()
    granted = sum(prepared.is_granted(answer) for prepared, answer in answers)
    return LoadResult(granted, seconds, cpu, tuple(latencies), statistics.quantiles(others, n=100)[98])


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of a process and its children so far, to the nanosecond as the scheduler counts it."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    threads = (thread for pid in (str(parent), *children) for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9
