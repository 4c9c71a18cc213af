"""What years do to a server: the cost of an enrollment beside a full inventory, and memory over many enrollments.

`python -m bench.long inventory` compares an empty store with one of a million certificates; `python -m bench.long soak` enrolls
100,000 devices and prints how much memory the last quarter of them took.
"""

from __future__ import annotations

import argparse
import secrets
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bench.client import Client, write_frames
from bench.devices import make_devices
from bench.processes import cpu_seconds, resident_megabytes
from gateway.store import tables
from gateway.store.rows import insert
from tests.conftest import RunningServer, launch

TURNS = 20
CERTIFICATE_BYTES = 700
PORTION = 2000
STORE = Path("store/gateway.db")


def fill(store: Path, count: int) -> None:
    """Put certificates of other devices into the store of a server that is idle."""
    with closing(sqlite3.connect(store)) as connection:
        with connection:
            connection.executemany(insert(tables.inventory), _certificates(count))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _certificates(count: int) -> Iterator[dict[str, Any]]:
    year = 365 * 86_400 * 1_000_000
    for number in range(count):
        row: dict[str, Any] = {column.name: None for column in tables.inventory.columns}
        row |= {"sha256": secrets.token_bytes(32), "der": bytes(CERTIFICATE_BYTES), "upstream_ca": "local", "issuer_der": b"0\0"}
        row |= {"serial": secrets.token_hex(20), "profile": "demo", "protocol": "scep", "requester": f"static:{number}"}
        row |= {
            "request_sha256": secrets.token_bytes(32),
            "public_key_sha256": secrets.token_bytes(32),
            "subject": f"CN={number}",
        }
        row |= {"sans": "[]", "not_before": 0, "not_after": 60 * year, "issued_at": 50 * year + number}
        yield row


def compare_inventories(folder: Path, stack: ExitStack, rows: int, requests: int, connections: int) -> None:
    """Print the cost with `rows` certificates beside that of an empty store, in turns."""
    servers = [_serve(folder / name, stack) for name in ("empty", "full")]
    fill(servers[1].state / STORE, rows)
    clients = [_client(server, folder, stack, requests, connections) for server in servers]
    costs: list[list[float]] = [[], []]
    size = requests // TURNS
    for turn in range(TURNS):
        for server, client, found in zip(servers, clients, costs, strict=True):
            before = cpu_seconds(server.process.pid)
            client.send(turn * size, (turn + 1) * size)
            found.append((cpu_seconds(server.process.pid) - before) / size * 1e6)
    ratio = statistics.median(b / a for a, b in zip(*costs, strict=True))
    empty, filled = map(statistics.median, costs)
    print(f"CPU of an enrollment: empty {empty:.0f} µs, {rows} certificates {filled:.0f} µs, {ratio:.3f}x (target 1.1x)")


def soak(folder: Path, stack: ExitStack, count: int, connections: int) -> None:
    """Print the memory of a worker after each portion of `count` enrollments, and its slope in the last quarter."""
    server = _serve(folder / "soak", stack)
    sizes = [_worker(server)]
    for number in range(max(4, count // PORTION)):
        client = _client(server, folder, stack, PORTION, connections, f"{number}-")
        client.send(0, PORTION)
        client.close()
        sizes.append(_worker(server))
        print(f"{(number + 1) * PORTION:>8} enrollments {sizes[-1]:8.1f} MB", flush=True)
    granted = _certificates_in(server.state / STORE)
    print(f"{granted} certificates in the inventory")
    quarter = len(sizes) // 4
    slope = (sizes[-1] - sizes[-1 - quarter]) / (quarter * PORTION) * 10_000
    print(f"last quarter: {slope:+.2f} MB per 10,000 enrollments (target 1 MB)")


def _certificates_in(store: Path) -> int:
    with closing(sqlite3.connect(store)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM inventory").fetchone()[0])


def _worker(server: RunningServer) -> float:
    return max(resident_megabytes(server.process.pid)[1:])


def _serve(state: Path, stack: ExitStack) -> RunningServer:
    server = launch(state)
    stack.callback(server.stop)
    return server


def _client(
    server: RunningServer, folder: Path, stack: ExitStack, count: int, connections: int, prefix: str = "bench-"
) -> Client:
    devices = make_devices(server.get("/scep/demo?operation=GetCACert"), server.static_challenge, count, prefix)
    messages, answers = (folder / f"{server.state.name}.{what}" for what in ("requests", "answers"))
    for path in (messages, answers):
        path.unlink(missing_ok=True)
    write_frames(messages, (device.request.message for device in devices))
    return Client(f"{server.url}/scep/demo?operation=PKIOperation", messages, answers, connections)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(prog="python -m bench.long", description=__doc__)
    parser.add_argument("what", choices=("inventory", "soak"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--enrollments", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if options.what == "soak":
            soak(Path(folder), stack, options.enrollments, options.connections)
        else:
            compare_inventories(Path(folder), stack, options.rows, options.requests, options.connections)


if __name__ == "__main__":
    main()
