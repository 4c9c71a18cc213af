"""`python -m bench.cmp`: certificates over CMP, ir and certConf each, beside an empty handler.

Rows are requests signed by one maker's certificate with a P-256 key, and requests under one shared secret, PasswordBasedMac with
500 iterations as OpenSSL has them. The ceiling is what no server can do without: HTTP of two messages, as the empty handler has
it, and the cryptography: both protections verified, both answers protected, the proof of possession and the CA's signature. All
rows take turns, so that other work on the machine hits them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import thread_time_ns
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from bench.ceiling import HollowServer
from bench.client import Client, read_frames, write_frames
from bench.cmp_client import ITERATIONS
from bench.processes import cpu_seconds
from gateway.cmp import BodyType
from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, self_signed_ca
from gateway.pki.crmf_writer import encode_cert_req_msg, encode_cert_request, encode_cert_template, prove_by_signature
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.pki.password_mac import compute_mac, fresh_mac
from gateway.wire.cmp.client import MacIdentity, encode_message
from gateway.wire.cmp.requests import enrollment
from tests.conftest import COMMAND, RunningServer, launch

TURNS = 10
WARM_UP = 20
USES = 100_000
"""Certificates that the shared secret is good for."""
TARGET = "target: at least 25 % of the ceiling"


@dataclass
class Row:
    """One kind of load on the gateway, and what its turns showed."""

    name: str
    client: Client
    pid: int
    answers: Path
    cryptography: Callable[[int], float]
    ceilings: list[float] = field(default_factory=list)
    """CPU microseconds of one certificate where nothing but HTTP and cryptography are done, by turn."""
    costs: list[float] = field(default_factory=list)
    """CPU microseconds of one certificate, by turn."""
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def take_turn(self, first: int, last: int, http: float) -> None:
        """Have one turn's certificates issued; `http` is what two messages cost the empty handler."""
        self.ceilings.append(http + self.cryptography(last - first))
        before, count = cpu_seconds(self.pid), last - first
        seen = self.client.send(first, last)
        self.costs.append((cpu_seconds(self.pid) - before) / count * 1e6)
        self.rates.append(count / seen.seconds)
        self.latencies += seen.latencies

    def forget(self) -> None:
        """Drop what warming up showed."""
        for each in (self.ceilings, self.costs, self.rates, self.latencies):
            each.clear()

    def percentile(self, n: int) -> float:
        """Return a percentile of one message's latencies in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[n - 1] * 1000

    def issued(self) -> int:
        """Return how many certificates came back and were confirmed, each with another serial number."""
        return len({parse_certificate(der).serial for der in read_frames(self.answers)})


class Cryptography:
    """What one certificate cannot do without, under either protection."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._data = bytes(700)
        self._signature = self._key.sign(self._data, ec.ECDSA(SHA256()))

    def signed(self, rounds: int) -> float:
        """Return the mean CPU time of two signed messages, their answers, proof of possession and certificate."""
        return self._mean(rounds, 3, 3)

    def authenticated(self, rounds: int) -> float:
        """Return that of two messages under a shared secret and their answers."""
        return self._mean(rounds, 1, 1, 2)

    def _mean(self, rounds: int, verified: int, made: int, macs: int = 0) -> float:
        public, theirs, ours = self._key.public_key(), fresh_mac(iterations=ITERATIONS)[1], fresh_mac()[1]
        begun = thread_time_ns()
        for _ in range(rounds):
            for _ in range(verified):
                public.verify(self._signature, self._data, ec.ECDSA(SHA256()))
            for _ in range(made):
                self._key.sign(self._data, ec.ECDSA(SHA256()))
            for _ in range(macs):
                compute_mac(theirs, b"a shared secret", self._data)
                compute_mac(ours, b"a shared secret", self._data)
        return (thread_time_ns() - begun) / rounds / 1000


class Hollow:
    """The empty handler, which is asked twice for each certificate."""

    def __init__(self, folder: Path, stack: ExitStack, connections: int, count: int) -> None:
        server = HollowServer()
        stack.callback(server.stop)
        self._pid = server.process.pid
        requests = folder / "hollow.requests"
        made = enrollment(BodyType.IR, make_requests(1))
        message = encode_message(made, MacIdentity(b"reference", b"secret"), now=datetime.now(UTC)).message
        write_frames(requests, [message] * count)
        self._client = Client(server.url, requests, folder / "hollow.answers", connections)
        stack.callback(self._client.close)

    def two_messages(self, first: int, last: int) -> float:
        """Return the CPU microseconds of two messages."""
        before = cpu_seconds(self._pid)
        self._client.send(first, last)
        return (cpu_seconds(self._pid) - before) / (last - first) * 2e6


class Bench:
    """A gateway with a profile for each kind of protection, and the makers' CA whose device signs."""

    def __init__(self, folder: Path, stack: ExitStack, connections: int, workers: int, count: int) -> None:
        self._folder = folder
        self._stack = stack
        self._connections = connections
        self._anchors, self._pair = folder / "maker.pem", folder / "device.pem"
        self._make_maker()
        self._requests = folder / "requests"
        write_frames(self._requests, make_requests(count))
        self._server: RunningServer = launch(folder / "state", workers=workers, edit=self._configure)
        stack.callback(self._server.stop)

    def signed(self, cryptography: Cryptography) -> Row:
        """Return the row of signed requests."""
        return self._row("signature", "signed", cryptography.signed, "sign", str(self._pair))

    def authenticated(self, cryptography: Cryptography) -> Row:
        """Return the row of requests under a shared secret."""
        arguments = ("--uses", str(USES), "--format", "json", "--config", str(self._server.config))
        command = [*COMMAND, "cmp-secret", "create", "secret", *arguments]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
        name = f"PBM, {ITERATIONS} iterations"
        return self._row(name, "secret", cryptography.authenticated, "mac", made["reference"], made["secret"])

    def _row(self, name: str, profile: str, cryptography: Callable[[int], float], *identity: str) -> Row:
        url = f"http://127.0.0.1:{self._server.http_port}/.well-known/cmp/p/{profile}"
        answers = self._folder / f"{profile}.answers"
        client = Client(url, self._requests, answers, self._connections, (), "bench.cmp_client", identity)
        self._stack.callback(client.close)
        return Row(name, client, self._server.process.pid, answers, cryptography)

    def _make_maker(self) -> None:
        """Write a maker's CA and the pair of one device, both P-256."""
        now = datetime.now(UTC).replace(microsecond=0)
        ca_key, key = generate_private_key("ec-p256"), generate_private_key("ec-p256")
        ca = self_signed_ca(ca_key, "CN=Maker", now - timedelta(days=1), now + timedelta(days=30))
        grant = Grant(
            parse_name_text("CN=device").der, (), ("digitalSignature",), (), now - timedelta(hours=1), now + timedelta(days=1)
        )
        leaf = build_certificate(Issuer.from_certificate(ca, ca_key), new_serial(), grant, public_key_der(key))
        self._anchors.write_bytes(der_to_pem(ca))
        self._pair.touch(0o600)
        self._pair.write_bytes(serialize_private_key(key) + der_to_pem(leaf))

    def _configure(self, text: str) -> str:
        config = yaml.safe_load(text)
        makers = {"type": "vendor_certificate", "anchors": str(self._anchors), "any_device": True, "names": "any"}
        credentials: dict[str, dict[str, Any]] = {
            "signed": {**makers, "identity_from": "common_name"},
            "secret": {"type": "cmp_secret", "max_uses": USES},
        }
        demo = config["profiles"]["demo"]
        endpoint = {**demo["endpoints"]["cmp"], "default": False}
        kept = {name: value for name, value in demo.items() if name != "renewal"}
        for name, credential in credentials.items():
            config["profiles"][name] = {**kept, "endpoints": {"cmp": endpoint}, "credentials": [credential]}
        return yaml.safe_dump(config, sort_keys=False)


def make_requests(count: int) -> list[bytes]:
    """Return CertReqMsgs, each for a name and, within a hundred of them, a P-256 key of its own."""
    keys = [generate_private_key("ec-p256") for _ in range(min(count, 100))]
    return [_make_request(keys[number % len(keys)], f"CN=device-{number}") for number in range(count)]


def _make_request(key: PrivateKey, name: str) -> bytes:
    template = encode_cert_template(subject=parse_name_text(name).der, public_key=public_key_der(key))
    request = encode_cert_request(0, template)
    return encode_cert_req_msg(request, prove_by_signature(request, key))


def run(certificates: int, connections: int, workers: int) -> None:
    """Measure everything in turns and print the table."""
    cryptography, size = Cryptography(), certificates // TURNS
    count = WARM_UP + size * TURNS
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        hollow = Hollow(Path(folder), stack, connections, count)
        bench = Bench(Path(folder), stack, connections, workers, count)
        rows = [bench.signed(cryptography), bench.authenticated(cryptography)]
        for row in rows:
            row.take_turn(0, WARM_UP, 0)
            row.forget()
        hollow.two_messages(0, WARM_UP)
        for turn in range(TURNS):
            first, last = WARM_UP + turn * size, WARM_UP + (turn + 1) * size
            http = hollow.two_messages(first, last)
            for row in rows:
                row.take_turn(first, last, http)
        print(f"{size * TURNS} certificates a row in {TURNS} turns, {connections} connections, {workers} workers, one client")
        _print_rows(rows, count)
        print(TARGET)


def _print_rows(rows: list[Row], expected: int) -> None:
    print(f"{'ir and certConf':<24}{'/s':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'ceiling':>9}{'share':>8}{'issued':>8}")
    for row in rows:
        rate, cost, ceiling = map(statistics.median, (row.rates, row.costs, row.ceilings))
        share = statistics.median(least / cost for least, cost in zip(row.ceilings, row.costs, strict=True))
        issued = row.issued()
        print(
            f"{row.name:<24}{rate:>7.0f}{row.percentile(50):>9.1f}{row.percentile(99):>9.1f}{cost:>9.0f}{ceiling:>9.0f}"
            f"{share * 100:>6.0f} %{issued:>8}{'' if issued == expected else ' (!)'}"
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cmp", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--certificates", type=int, default=2000, help="of each row")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    run(options.certificates, options.connections, options.workers)


if __name__ == "__main__":
    main()
