"""`python -m bench.acme`: certificates over ACME, of accounts that stay, beside Debian's pebble (package pebble).

The same client drives both: P-256 keys, TLS connections that stay, one order a certificate, every authorization read and its
challenge posted, nothing but the server deciding how fast. Both validate nothing; the gateway's store is durable and its accounts
are bound to an external account, as it demands where nothing is validated; pebble keeps all in memory. Further rows have no
yardstick: names that are good at once, and http-01 answered on loopback. All rows take turns, so that other work on the machine
hits them alike. What one certificate costs in statements of the store is counted in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import urlopen

import yaml

from bench.acme_client import Applicant
from bench.client import Client, read_frames, write_frames
from bench.processes import cpu_seconds, resident_megabytes
from gateway.logging import LogFormat, configure_logging
from gateway.model import ProfileName, SanKind
from gateway.pki import base64url
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.store.sqlite import connection
from gateway.wire.acme.client import ExternalKey
from tests.conftest import COMMAND, RunningServer, free_port, launch
from tests.flow.scep.service import configure, make_folder, start_service

TURNS = 10
WARM_UP = 20
COUNTED = 20
"""Certificates whose statements are counted."""
DOMAIN = "bench.test"
KID = "bench"
START_SECONDS = 10.0
TARGET = "target: at least pebble's rate on two workers"

_OFF = {"external_account": "required", "validation": {"mode": "none", "acknowledge_no_validation": True}}
_AT_ONCE = {
    "external_account": "required",
    "validation": {"mode": "prevalidated", "prevalidated": {"dns": [rf"d[0-9]+\.{DOMAIN.replace('.', '[.]')}"]}},
}
_PROVED = {
    "validation": {
        "mode": "standard",
        "challenges": ["http-01"],
        "resolver": {"hosts": {f"*.{DOMAIN}": ["127.0.0.1"]}},
        "allow_cidrs": ["127.0.0.0/8"],
    }
}


@dataclass
class Row:
    """One kind of load on one server, and what its turns showed."""

    name: str
    client: Client
    pid: int
    answers: Path
    rates: list[float] = field(default_factory=list)
    """Certificates a second, by turn."""
    costs: list[float] = field(default_factory=list)
    """CPU milliseconds of the server for one certificate, by turn."""
    client_costs: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def take_turn(self, first: int, last: int) -> None:
        """Have one turn's certificates issued."""
        before, count = cpu_seconds(self.pid), last - first
        seen = self.client.send(first, last)
        self.costs.append((cpu_seconds(self.pid) - before) / count * 1e3)
        self.client_costs.append(seen.cpu / count * 1e3)
        self.rates.append(count / seen.seconds)
        self.latencies += seen.latencies

    def forget(self) -> None:
        """Drop what warming up showed."""
        for each in (self.rates, self.costs, self.client_costs, self.latencies):
            each.clear()

    def percentile(self, n: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[n - 1] * 1000

    def issued(self) -> int:
        """Return how many certificates came back, each with another serial number."""
        return len({parse_certificate(der).serial for der in read_frames(self.answers)})


class Bench:
    """Gateways, pebble if it is installed, and the clients that drive them."""

    def __init__(self, folder: Path, stack: ExitStack, count: int, connections: int) -> None:
        self._folder = folder
        self._stack = stack
        self._connections = connections
        self._csrs = folder / "csrs"
        self._key = secrets.token_bytes(32)
        write_frames(self._csrs, make_csrs(count))

    def gateway(self, workers: int) -> Callable[[str], Row]:
        """Start a gateway and return what makes its rows, by profile."""
        state, http_port = self._folder / f"state-{workers}", free_port()
        server = launch(state, workers=workers, edit=lambda text: configuration(text, http_port))
        self._stack.callback(server.stop)
        for profile in ("off", "at-once"):
            self._bind(server, profile)
        names = {"off": "validation off", "at-once": "names good at once", "proved": "http-01 answered"}
        plural = "worker" if workers == 1 else "workers"

        def make(profile: str) -> Row:
            port = http_port if profile == "proved" else 0
            external = ("-", "-") if profile == "proved" else (f"{KID}-{profile}", base64url.encode(self._key))
            directory = f"https://localhost:{server.https_port}/acme/{profile}/directory"
            return self._row(f"{workers} {plural}, {names[profile]}", directory, server.root, external, port, server.process.pid)

        return make

    def _bind(self, server: RunningServer, profile: str) -> None:
        """Have the gateway know the key by which accounts are bound."""
        path = self._folder / "eab.key"
        path.touch(0o600)
        path.write_text(base64url.encode(self._key))
        arguments = ("--kid", f"{KID}-{profile}", "--key-file", str(path), "--max-accounts", "0")
        command = [*COMMAND, "eab", "create", profile, *arguments, "--config", str(server.config)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def pebble(self) -> Row | None:
        """Return a row of pebble, None where it is not installed."""
        program = shutil.which("pebble")
        if program is None:
            return None
        state, port = self._folder / "state-2", free_port()
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "certificate": str(state / "tls/server.pem"),
            "privateKey": str(state / "secrets/tls.key"),
            "httpPort": 5002,
            "tlsPort": 5001,
        }
        path = self._folder / "pebble.json"
        path.write_text(json.dumps({"pebble": settings}))
        always = {
            "PEBBLE_VA_ALWAYS_VALID": "1",
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": "0",
            "PEBBLE_AUTHZREUSE": "0",
        }
        with (self._folder / "pebble.log").open("wb") as log:
            process = subprocess.Popen([program, "-config", str(path)], env={**os.environ, **always}, stdout=log, stderr=log)
        self._stack.callback(_stop, process)
        root = state / "ca/root.pem"
        _wait(f"https://localhost:{port}/dir", root)
        return self._row("pebble, validation off", f"https://localhost:{port}/dir", root, ("-", "-"), 0, process.pid)

    def _row(self, name: str, directory: str, root: Path, external: tuple[str, str], port: int, pid: int) -> Row:
        answers = self._folder / f"{name}.answers"
        arguments = (str(root), DOMAIN, *external, str(port))
        client = Client(directory, self._csrs, answers, self._connections, (), "bench.acme_client", arguments)
        self._stack.callback(client.close)
        return Row(name, client, pid, answers)


def _wait(url: str, root: Path) -> None:
    context, until = ssl.create_default_context(cafile=str(root)), time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with suppress(OSError), urlopen(url, context=context, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def configuration(text: str, http_port: int) -> str:
    """Return the file that `init` wrote with three profiles that open ACME alone."""
    config = yaml.safe_load(text)
    for name, endpoint in settings(http_port).items():
        config["profiles"][name] = profile(config["profiles"]["demo"], endpoint)
    return yaml.safe_dump(config, sort_keys=False)


def settings(http_port: int) -> Mapping[str, Mapping[str, Any]]:
    """Return the ACME endpoints that are measured, by profile."""
    proved = {"validation": {**_PROVED["validation"], "http01_port": http_port}}
    return {"off": _OFF, "at-once": _AT_ONCE, "proved": proved}


def profile(demo: Mapping[str, Any], endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile for names below `DOMAIN`, without quotas of orders."""
    kept = {name: value for name, value in demo.items() if name not in {"renewal", "credentials"}}
    policy = {**kept["policy"], "san": {"dns": {"patterns": [rf"d[0-9]+\.{DOMAIN.replace('.', '[.]')}"]}, "unlisted": "refuse"}}
    limits = {"orders_per_account": None, "accounts_per_address": None}
    return {**kept, "policy": policy, "endpoints": {"acme": {**endpoint, "limits": limits}}}


def make_csrs(count: int) -> list[bytes]:
    """Return CSRs, each for a name and, within a hundred of them, a P-256 key of its own."""
    keys = [generate_private_key("ec-p256") for _ in range(min(count, 100))]
    empty = parse_name_text("").der
    return [build_csr(keys[n % len(keys)], empty, (make_san(SanKind.DNS, f"d{n}.{DOMAIN}"),)) for n in range(count)]


# Statements


async def count_statements(folder: Path) -> Mapping[str, tuple[float, float]]:
    """Return statements and commits of one certificate with validation off and with names that are good at once."""
    seen: list[str] = []
    opened = connection._connect

    def watched(*arguments: Any) -> Any:
        found = opened(*arguments)
        found.set_trace_callback(seen.append)
        return found

    make_folder(folder)
    configure(folder)
    path = folder / "profiles.yaml"
    with patch.object(connection, "_connect", watched):
        path.write_text(configuration(path.read_text(), free_port()))
        service = await start_service(folder)
        counts = {}
        try:
            for name in ("off", "at-once"):
                arguments = {"kid": f"{KID}-{name}", "key": base64url.encode(bytes(32)), "max_accounts": 0}
                await service.run("POST", "/v1/eab", profile=name, **arguments)
                directory = f"{service.gateway.generation.acme[ProfileName(name)].base}/directory"
                context = ssl.create_default_context(cafile=str(folder / "ca/root.pem"))
                applicant = Applicant(directory, context, DOMAIN, {}, service.tls_port)
                await applicant.register(ExternalKey(f"{KID}-{name}", bytes(32)))
                counts[name] = await _count(applicant, seen)
        finally:
            await service.gateway.acme.drain(5)
            await service.close()
        return counts


async def _count(applicant: Applicant, seen: list[str]) -> tuple[float, float]:
    csrs = make_csrs(COUNTED + 1)
    await applicant.issue(COUNTED, csrs[COUNTED])
    seen.clear()
    for number in range(COUNTED):
        await applicant.issue(number, csrs[number])
    applicant.close()
    words = [text.split(None, 1)[0].upper() for text in seen]
    work = sum(word in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"} for word in words)
    return work / COUNTED, words.count("COMMIT") / COUNTED


def run(count: int, connections: int) -> None:
    """Measure everything in turns and print the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack, WARM_UP + count, connections)
        two, one = bench.gateway(2), bench.gateway(1)
        pebble = bench.pebble()
        rows = [*([pebble] if pebble else []), two("off"), one("off"), two("at-once"), two("proved"), one("proved")]
        for row in rows:
            row.take_turn(0, WARM_UP)
            row.forget()
        size = count // TURNS
        for turn in range(TURNS):
            for row in rows:
                row.take_turn(WARM_UP + turn * size, WARM_UP + (turn + 1) * size)
        print(f"{size * TURNS} certificates a row in {TURNS} turns, {connections} connections, the client beside the server")
        _print_rows(rows, size * TURNS + WARM_UP)
        if pebble is None:
            print("pebble is not installed (package pebble): no yardstick")
        else:
            _compare(pebble, rows[1])
    configure_logging(LogFormat.JSON, "error")
    with tempfile.TemporaryDirectory() as folder:
        for name, (statements, commits) in asyncio.run(count_statements(Path(folder) / "state")).items():
            print(f"{name}: {statements:.1f} statements and {commits:.1f} commits for one certificate")


def _print_rows(rows: list[Row], expected: int) -> None:
    print(f"{'':<32}{'/s':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'client':>9}{'MB':>7}{'issued':>8}")
    for row in rows:
        rate, cost, mine = map(statistics.median, (row.rates, row.costs, row.client_costs))
        memory, issued = sum(resident_megabytes(row.pid)), row.issued()
        print(
            f"{row.name:<32}{rate:>7.0f}{row.percentile(50):>9.1f}{row.percentile(99):>9.1f}{cost:>9.2f}{mine:>9.2f}"
            f"{memory:>7.0f}{issued:>8}{'' if issued == expected else ' (!)'}"
        )


def _compare(pebble: Row, mine: Row) -> None:
    share = statistics.median(ours / theirs for ours, theirs in zip(mine.rates, pebble.rates, strict=True))
    print(f"{share:.2f}x pebble's rate; {TARGET}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.acme", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--certificates", type=int, default=1000, help="of each row")
    parser.add_argument("--connections", type=int, default=6)
    options = parser.parse_args()
    run(options.certificates, options.connections)


if __name__ == "__main__":
    main()
