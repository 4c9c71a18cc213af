"""`make bench`: one table of enrollments over HTTP at real servers, each beside the ceiling that was measured in the same turns.

The durable store and the audit trail are on, requests are made before, the client is a process of its own. Other work on the
machine hits all rows alike, since each turn gives every row its share; so ratios hold where absolute numbers do not.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bench import rival
from bench.ceiling import Cryptography, HollowServer
from bench.client import Client, read_frames, write_frames
from bench.devices import Device, make_devices
from bench.inside import print_stages
from bench.processes import cpu_seconds, resident_megabytes
from tests.conftest import launch

TURNS = 20
P256, RSA = "P-256", "RSA-2048"
TARGETS = "targets: 2.2x the ceiling, 1.08x with two workers, 3x scepserver's rate, /livez 20 ms, 150 MB a worker"


@dataclass
class Row:
    """One server, its client, and what its turns showed."""

    name: str
    ca: str
    client: Client
    pid: int
    answers: Path
    devices: Sequence[Device] = ()
    probe: Callable[[], object] | None = None
    costs: list[float] = field(default_factory=list)
    """CPU microseconds of one request, by turn, granted or not."""
    client_costs: list[float] = field(default_factory=list)
    """CPU microseconds that the client took for one request, by turn."""
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    resident: float = 0.0
    granted: int = 0

    def take_turn(self, first: int, last: int) -> None:
        """Send one turn's requests."""
        before = cpu_seconds(self.pid)
        seen = self.client.send(first, last, self.probe)
        self.costs.append((cpu_seconds(self.pid) - before) / (last - first) * 1e6)
        self.client_costs.append(seen.cpu / (last - first) * 1e6)
        self.latencies += seen.latencies
        self.seconds += seen.seconds

    def finish(self) -> None:
        """End the client and see how many answers granted."""
        workers = resident_megabytes(self.pid)
        self.resident = max(workers[1:] or workers)
        self.client.close()
        answers = read_frames(self.answers)
        self.granted = sum(device.is_granted(answer) for device, answer in zip(self.devices, answers, strict=False))

    @property
    def rate(self) -> float:
        """Certificates a second."""
        return self.granted / self.seconds

    def percentile(self, n: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[n - 1] * 1000


class Bench:
    """All servers at once, idle but for the one whose turn it is."""

    def __init__(self, folder: Path, stack: ExitStack, requests: int, connections: int) -> None:
        self._folder = folder
        self._stack = stack
        self._requests = requests
        self._connections = connections
        self.livez: list[float] = []

    def hollow(self) -> Row:
        """Return the row of HTTP alone; it gets the same bytes as the first server."""
        server = HollowServer()
        self._stack.callback(server.stop)
        messages = next(self._folder.glob("*.requests"))
        answers = self._folder / "hollow.answers"
        return Row("empty POST", "-", Client(server.url, messages, answers, self._connections), server.process.pid, answers)

    def gateway(self, workers: int, ca: str) -> Row:
        """Return the row of a gateway with an empty store."""
        state = self._folder / f"{workers}-{ca}"
        flags = () if ca == P256 else ("--ca-key", "rsa-2048")
        server = launch(state, workers=workers, init_flags=flags)
        self._stack.callback(server.stop)
        url = f"{server.url}/scep/demo"
        devices = make_devices(server.get("/scep/demo?operation=GetCACert"), server.static_challenge, self._requests)
        probe = self._livez(server.monitoring_url) if workers == 2 and ca == P256 else None
        return self._row(f"gateway, {workers} worker{'s' * (workers > 1)}", ca, url, devices, server.process.pid, (), probe)

    def rival(self) -> Row:
        """Return the row of scepserver."""
        folder = self._folder / "rival"
        folder.mkdir()
        server = rival.ScepServer(folder)
        self._stack.callback(server.stop)
        devices = make_devices(server.ca, rival.CHALLENGE, self._requests)
        return self._row("scepserver", RSA, server.url, devices, server.process.pid, server.prefix, None)

    def _row(
        self,
        name: str,
        ca: str,
        url: str,
        devices: Sequence[Device],
        pid: int,
        prefix: Sequence[str],
        probe: Callable[[], object] | None,
    ) -> Row:
        messages, answers = (self._folder / f"{name}-{ca}.{what}" for what in ("requests", "answers"))
        write_frames(messages, (device.request.message for device in devices))
        client = Client(f"{url}?operation=PKIOperation", messages, answers, self._connections, prefix)
        return Row(name, ca, client, pid, answers, devices, probe)

    def _livez(self, url: str) -> Callable[[], None]:
        where = urlsplit(url)
        address = (where.hostname or "", where.port or 80)

        def ask() -> None:
            begun = perf_counter()
            with socket.create_connection(address, timeout=10) as probe:
                probe.sendall(f"GET /livez HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: probe.recv(4096), b""))
            self.livez.append((perf_counter() - begun) * 1000)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"/livez answered {answer[:40]!r}")

        return ask


def _turns(requests: int) -> Iterator[tuple[int, int]]:
    size = requests // TURNS
    return ((turn * size, (turn + 1) * size) for turn in range(TURNS))


def run(requests: int, connections: int) -> None:
    """Measure everything in turns and print the table."""
    ceilings = {
        P256: Cryptography(ec.generate_private_key(ec.SECP256R1())),
        RSA: Cryptography(rsa.generate_private_key(65537, 2048)),
    }
    costs: dict[str, list[float]] = {name: [] for name in ceilings}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack, requests, connections)
        rows = [bench.gateway(1, P256), bench.gateway(2, P256), bench.gateway(2, RSA)]
        rows += [bench.rival()] if rival.is_installed() else []
        hollow = bench.hollow()
        for first, last in _turns(requests):
            for name, cryptography in ceilings.items():
                costs[name].append(cryptography.microseconds(last - first))
            for row in (hollow, *rows):
                row.take_turn(first, last)
        print(f"{requests} requests a row in {TURNS} turns, {connections} connections, client on the same machine")
        for row in (hollow, *rows):
            row.finish()
        _print_rows(rows, hollow, costs)
        print(
            f"/livez beside two loaded workers: p99 {statistics.quantiles(bench.livez, n=100)[98]:.1f} ms of {len(bench.livez)}"
        )


def _print_rows(rows: Sequence[Row], hollow: Row, costs: dict[str, list[float]]) -> None:
    print(
        f"{'':<22}{'CA':<10}{'granted':>8}{'/s':>7}{'p50 ms':>8}{'p99 ms':>8}{'CPU µs':>8}{'ceiling':>9}{'ratio':>7}{'MB':>6}"
        f"{'client µs':>11}"
    )
    for row in rows:
        ceiling = [c + h for c, h in zip(costs[row.ca], hollow.costs, strict=True)]
        ratio = statistics.median(cost / limit for cost, limit in zip(row.costs, ceiling, strict=True))
        print(
            f"{row.name:<22}{row.ca:<10}{row.granted:>8}{row.rate:>7.0f}{row.percentile(50):>8.1f}{row.percentile(99):>8.1f}"
            f"{statistics.median(row.costs):>8.0f}{statistics.median(ceiling):>9.0f}{ratio:>6.2f}x{row.resident:>6.0f}"
            f"{statistics.median(row.client_costs):>11.0f}"
        )
    print(
        f"ceiling: P-256 {statistics.median(costs[P256]):.0f} µs of cryptography + {statistics.median(hollow.costs):.0f} µs of an"
    )
    print(f"         empty POST; RSA-2048 {statistics.median(costs[RSA]):.0f} µs of cryptography")
    one, two = rows[0], rows[1]
    both = statistics.median(b / a for a, b in zip(one.costs, two.costs, strict=True))
    print(f"two workers cost {both:.3f}x the CPU of one")
    if rows[-1].name == "scepserver":
        print(f"two workers have {rows[2].rate / rows[-1].rate:.2f}x the rate of scepserver")
    print(TARGETS)


def describe_machine() -> str:
    """Return what numbers depend on: Python, kernel, processor, and how busy others keep it."""
    python = f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"
    load = " ".join(f"{average:.2f}" for average in os.getloadavg())
    return f"{python}, Linux {platform.release()}, {os.cpu_count()} x {_processor()}, load average {load}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def main() -> None:
    """Print the machine, the stages of one enrollment, then the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=main.__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="of each row")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--no-stages", action="store_true", help="the table alone")
    options = parser.parse_args()
    print(describe_machine())
    if not options.no_stages:
        print_stages()
    run(options.requests, options.connections)


if __name__ == "__main__":
    main()
