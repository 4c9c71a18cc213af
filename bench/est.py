"""`python -m bench.est`: enrollments over EST with a P-256 client certificate, beside an empty handler under the same TLS.

Kept-alive connections are measured against the ceiling: TLS and HTTP of the empty handler, and the cryptography that no server
can do without, the CSR's proof of possession and the CA's signature. Full handshakes are measured against the rate of the empty
handler. All rows take turns, so that other work on the machine hits them alike.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import thread_time_ns

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from bench.client import Client, read_frames, write_frames
from bench.processes import cpu_seconds
from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, self_signed_ca
from gateway.pki.cms import parse_signed_data
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.est.messages import MEDIA_PKCS10
from tests.conftest import free_port, launch

TURNS = 20
ANSWER_BYTES = 900
"""A certs-only message with one P-256 certificate, in base64."""
PATH = "/.well-known/est/devices/simpleenroll"
TARGETS = "targets: kept alive 2.5x the ceiling and 2500/s on two workers; handshakes 60 % of the empty handler's rate"


@dataclass
class Row:
    """One kind of load on one server, and what its turns showed."""

    name: str
    client: Client
    pids: tuple[int, ...]
    answers: Path
    costs: list[float] = field(default_factory=list)
    """CPU microseconds of one request, by turn."""
    rates: list[float] = field(default_factory=list)
    """Requests a second, by turn."""
    latencies: list[float] = field(default_factory=list)

    def take_turn(self, first: int, last: int) -> None:
        """Send one turn's requests."""
        before = self._cpu()
        seen = self.client.send(first, last)
        self.costs.append((self._cpu() - before) / (last - first) * 1e6)
        self.rates.append((last - first) / seen.seconds)
        self.latencies += seen.latencies

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def percentile(self, n: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[n - 1] * 1000


class Cryptography:
    """What an enrollment cannot do without: a P-256 signature is verified, and another one made."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._data = bytes(500)
        self._signature = self._key.sign(self._data, ec.ECDSA(SHA256()))

    def microseconds(self, rounds: int) -> float:
        """Return the mean CPU time of one enrollment's operations."""
        public = self._key.public_key()
        begun = thread_time_ns()
        for _ in range(rounds):
            public.verify(self._signature, self._data, ec.ECDSA(SHA256()))
            self._key.sign(self._data, ec.ECDSA(SHA256()))
        return (thread_time_ns() - begun) / rounds / 1000


class Bench:
    """A gateway, empty handlers, and the makers' CA whose devices come."""

    def __init__(self, folder: Path, stack: ExitStack, requests: int, connections: int, workers: int) -> None:
        self._folder = folder
        self._stack = stack
        self._requests = requests
        self._connections = connections
        self._workers = workers
        self._anchors, self._pair = folder / "maker.pem", folder / "device.pem"
        self._make_maker()
        self._state = folder / "state"
        self.port = free_port()
        server = launch(self._state, workers=workers, edit=self._configure)
        stack.callback(server.stop)
        self.pid = server.process.pid

    def gateway(self, mode: str) -> Row:
        """Return a row of the gateway."""
        return self._row(f"gateway, {mode}", mode, self.port, (self.pid,))

    def hollow(self, mode: str) -> Row:
        """Return a row of as many empty handlers as the gateway has workers."""
        port = free_port()
        pids = tuple(self._start_hollow(port) for _ in range(self._workers))
        return self._row(f"empty handler, {mode}", mode, port, pids)

    def _start_hollow(self, port: int) -> int:
        arguments = (str(port), str(ANSWER_BYTES), str(self._state), str(self._anchors))
        command = [sys.executable, "-m", "bench.est_hollow", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stack.callback(process.communicate, timeout=30)
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the empty handler does not start")
        return process.pid

    def _row(self, name: str, mode: str, port: int, pids: tuple[int, ...]) -> Row:
        requests, answers = (self._folder / f"{name}.{what}" for what in ("requests", "answers"))
        write_frames(requests, make_requests(self._requests, mode))
        arguments = (str(self._pair), str(self._state / "ca/root.pem"), mode)
        client = Client(str(port), requests, answers, self._connections, (), "bench.est_client", arguments)
        self._stack.callback(client.close)
        return Row(name, client, pids, answers)

    def _make_maker(self) -> None:
        """Write a maker's CA and the pair of one device, both P-256."""
        now = datetime.now(UTC).replace(microsecond=0)
        ca_key, key = generate_private_key("ec-p256"), generate_private_key("ec-p256")
        ca = self_signed_ca(ca_key, "CN=Maker", now - timedelta(days=1), now + timedelta(days=30))
        subject, usage = parse_name_text("CN=device").der, (eku_oid("clientAuth"),)
        grant = Grant(subject, (), ("digitalSignature",), usage, now - timedelta(hours=1), now + timedelta(days=1))
        leaf = build_certificate(Issuer.from_certificate(ca, ca_key), new_serial(), grant, public_key_der(key))
        self._anchors.write_bytes(der_to_pem(ca))
        self._pair.touch(0o600)
        self._pair.write_bytes(serialize_private_key(key) + der_to_pem(leaf))

    def _configure(self, text: str) -> str:
        config = yaml.safe_load(text)
        listener = {"listen": f"127.0.0.1:{self.port}", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}
        config["server"]["https_mtls"] = listener
        devices = {"type": "tls_certificate", "anchors": str(self._anchors), "names": "any"}
        profile = {name: value for name, value in config["profiles"]["demo"].items() if name != "renewal"}
        config["profiles"]["devices"] = {**profile, "endpoints": {"est": {}}, "credentials": [devices]}
        return yaml.safe_dump(config, sort_keys=False)


def make_requests(count: int, prefix: str) -> list[bytes]:
    """Return HTTP requests, each for a name and, within a hundred of them, a P-256 key of its own."""
    keys = [generate_private_key("ec-p256") for _ in range(min(count, 100))]
    return [_make_request(keys[number % len(keys)], f"{prefix}-{number}") for number in range(count)]


def _make_request(key: PrivateKey, name: str) -> bytes:
    body = base64.b64encode(build_csr(key, parse_name_text(f"CN={name}").der))
    fields = f"Host: localhost\r\nUser-Agent: bench\r\nContent-Type: {MEDIA_PKCS10}\r\nContent-Length: {len(body)}"
    return f"POST {PATH} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


def is_granted(answer: bytes) -> bool:
    """Whether an answer is 200 with one certificate."""
    status, _, body = answer.partition(b"\n")
    if b" 200 " not in status:
        return False
    [certificate] = parse_signed_data(base64.b64decode(body), max_signers=0).certificates
    return parse_certificate(certificate).serial > 0


def run(requests: int, connections: int, workers: int) -> None:
    """Measure everything in turns and print the table."""
    cryptography, costs = Cryptography(), []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack, requests, connections, workers)
        rows = [make(mode) for mode in ("kept", "fresh") for make in (bench.hollow, bench.gateway)]
        size = requests // TURNS
        for turn in range(TURNS):
            costs.append(cryptography.microseconds(size))
            for row in rows:
                row.take_turn(turn * size, (turn + 1) * size)
        granted = [sum(map(is_granted, read_frames(row.answers))) for row in rows[1::2]]
        print(f"{size * TURNS} requests a row in {TURNS} turns, {connections} connections, {workers} workers, client beside them")
        print(f"granted: {granted[0]} kept alive, {granted[1]} with a handshake each")
        _print_rows(rows, costs)


def _print_rows(rows: list[Row], costs: list[float]) -> None:
    print(f"{'':<24}{'/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}")
    for row in rows:
        rate, cost = statistics.median(row.rates), statistics.median(row.costs)
        print(f"{row.name:<24}{rate:>8.0f}{row.percentile(50):>9.1f}{row.percentile(99):>9.1f}{cost:>9.0f}")
    hollow, kept, empty, fresh = rows
    ceilings = [c + h for c, h in zip(costs, hollow.costs, strict=True)]
    ratio = statistics.median(cost / ceiling for cost, ceiling in zip(kept.costs, ceilings, strict=True))
    limit, least = statistics.median(ceilings), statistics.median(costs)
    print(f"kept alive: {ratio:.2f}x the ceiling of {limit:.0f} µs, of which {least:.0f} are cryptography")
    share = statistics.median(mine / other for mine, other in zip(fresh.rates, empty.rates, strict=True))
    more = statistics.median(mine / other for mine, other in zip(fresh.costs, empty.costs, strict=True))
    print(f"handshakes: {share * 100:.0f} % of the empty handler's rate, {more:.2f}x its CPU")
    print(TARGETS)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.est", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="of each row")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    run(options.requests, options.connections, options.workers)


if __name__ == "__main__":
    main()
