"""`make bench`: enrollments a second over HTTP, what signed challenges cost, the stages of one request, and the floor of RSA.

`python -m bench uniformity` times every fault behind the decryption against all others.
The exit status is 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.challenges import GOAL, measure_challenges
from bench.floor import floor_microseconds
from bench.load import LoadResult, prepare_requests, run_load
from bench.stages import stage_microseconds
from bench.uniformity import print_uniformity
from tests.conftest import launch


def main() -> None:
    """Run the benchmarks; numbers of one run compare with each other only."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=["costs", "challenges", "uniformity"], default="costs")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.what == "uniformity":
        sys.exit(0 if print_uniformity(options.requests) else 1)
    if options.what == "costs":
        print_costs(options)
    sys.exit(0 if print_challenges(options) else 1)


def print_costs(options: argparse.Namespace) -> None:
    """Print floor, stages and load."""
    floor = floor_microseconds()
    print(f"floor: RSA-2048 decrypt + sign, 3 RSA public operations, P-256 sign: {floor:8.0f} µs of CPU a request")
    for name, microseconds in stage_microseconds().items():
        print(f"stage: {name:<34} {microseconds:8.0f} µs  {microseconds / floor:5.2f} x floor")
    with tempfile.TemporaryDirectory() as folder:
        result = measure_server(Path(folder) / "state", options.requests, options.connections, options.workers)
    cpu = result.cpu_seconds / result.granted * 1e6
    print(f"server: {options.workers} workers, {options.connections} connections, {result.granted} granted of {options.requests}")
    print(f"        {result.granted / result.seconds:8.0f} enrollments/s (client on the same machine)")
    print(f"        {cpu:8.0f} µs of server CPU each, {cpu / floor:5.2f} x floor")
    print(f"        p50 {result.percentile(50):.1f} ms, p99 {result.percentile(99):.1f} ms")
    print(f"        p99 {result.other_p99:.1f} ms of a GetCACaps meanwhile")


def print_challenges(options: argparse.Namespace) -> bool:
    """Print what each kind of challenge costs beside a static one; returns whether none costs more than the goal."""
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_challenges(Path(folder) / "state", options.requests, options.connections, options.workers)
    for cost in costs:
        line = f"challenge: {cost.profile:<13} {cost.microseconds:8.0f} µs of server CPU each, {cost.granted} granted"
        print(f"{line}, {(cost.ratio - 1) * 100:+5.1f} % beside static (goal: {GOAL * 100:.0f} %)")
    return all(cost.ratio <= 1 + GOAL for cost in costs)


def measure_server(state: Path, count: int, connections: int, workers: int) -> LoadResult:
    """Serve a fresh configuration and enroll `count` devices at it."""
    server = launch(state, workers=workers)
    try:
        requests = prepare_requests(server, count)
        return asyncio.run(run_load(server, requests, connections))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
