"""`python -m bench.upstream`: SCEP enrollments whose certificates come from a CA over HTTP, beside those of its own CA.

Both servers take turns with the same load. A certificate from elsewhere must not cost a core much more than one of our own: the
time on the network is waited for, and others are served meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from bench.client import Client, write_frames
from bench.devices import make_devices
from bench.table import Row, describe_machine
from bench.upstream_ca import ROLE
from tests.conftest import launch
from tests.contract.ca.fake_vault import ROOT_TOKEN

TURNS = 20
LATENCY = 20
"""Milliseconds from a request to the CA until it begins to sign."""
TARGET = "target: 80 % of the local CA's rate on a core"


class Bench:
    """Gateways of one worker each."""

    def __init__(self, folder: Path, stack: ExitStack, requests: int, connections: int) -> None:
        self._folder = folder
        self._stack = stack
        self._requests = requests
        self._connections = connections

    def local(self) -> Row:
        """Return the row of the CA that `init` makes."""
        return self._row("local CA", self._folder / "local", {})

    def remote(self) -> Row:
        """Return the row of a CA over HTTP."""
        chain = self._folder / "far.pem"
        command = [sys.executable, "-m", "bench.upstream_ca", str(chain), str(LATENCY)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.communicate, timeout=30)
        if process.stdout is None or not (port := process.stdout.readline().strip()):
            raise RuntimeError("the CA does not start")
        token = self._folder / "token"
        token.touch(0o600)
        token.write_text(ROOT_TOKEN)
        section = {
            "type": "vault",
            "url": f"http://127.0.0.1:{port}",
            "chain": [str(chain)],
            "auth": {"type": "token", "token": {"file": str(token)}},
            "role": ROLE,
            "connection": {"concurrency": self._connections},
        }
        return self._row(f"CA {LATENCY} ms away", self._folder / "remote", {"far": section})

    def _row(self, name: str, state: Path, upstream_cas: dict[str, Any]) -> Row:
        def configure(text: str) -> str:
            document = yaml.safe_load(text)
            document["upstream_cas"] |= upstream_cas
            for chosen in upstream_cas:
                document["profiles"]["demo"]["upstream_ca"] = chosen
            return str(yaml.safe_dump(document))

        server = launch(state, edit=configure)
        self._stack.callback(server.stop)
        url = f"{server.url}/scep/demo"
        devices = make_devices(server.get("/scep/demo?operation=GetCACert"), server.static_challenge, self._requests)
        messages, answers = (self._folder / f"{state.name}.{what}" for what in ("requests", "answers"))
        write_frames(messages, (device.request.message for device in devices))
        client = Client(f"{url}?operation=PKIOperation", messages, answers, self._connections)
        return Row(name, "P-256", client, server.process.pid, answers, devices)


def run(requests: int, connections: int) -> None:
    """Measure in turns and print both rows and their ratio."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack, requests, connections)
        rows = [bench.local(), bench.remote()]
        size = requests // TURNS
        for turn in range(TURNS):
            for row in rows:
                row.take_turn(turn * size, (turn + 1) * size)
        for row in rows:
            row.finish()
        _print_rows(rows, requests, connections)


def _print_rows(rows: list[Row], requests: int, connections: int) -> None:
    print(f"{requests} requests a row in {TURNS} turns, {connections} connections, one worker, client on the same machine")
    print(f"{'':<18}{'granted':>8}{'/s':>7}{'p50 ms':>8}{'p99 ms':>8}{'CPU µs':>8}{'/s a core':>11}")
    for row in rows:
        cost = statistics.median(row.costs)
        print(
            f"{row.name:<18}{row.granted:>8}{row.rate:>7.0f}{row.percentile(50):>8.1f}{row.percentile(99):>8.1f}"
            f"{cost:>8.0f}{1e6 / cost:>11.0f}"
        )
    local, remote = rows
    share = statistics.median(a / b for a, b in zip(local.costs, remote.costs, strict=True))
    print(f"a CA over HTTP has {share:.0%} of the local CA's rate on a core; {TARGET}")


def main() -> None:
    """Print the machine, then the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=main.__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="of each row")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    print(describe_machine())
    run(options.requests, options.connections)


if __name__ == "__main__":
    main()
