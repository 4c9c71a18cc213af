"""Signatures of keys in a PKCS#11 token (SoftHSM2) by one worker process and by two: each has its session, and none waits.

`python -m bench.hsm`; the exit status is 1 when two workers do not reach the goal. Other work on the machine takes from two
workers what it leaves to one. So the same key is used in software in the same turns: it says what two processes can reach, and
where that is less than twice, the goal is as much of it as 1.8 is of two.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway.ca.pin_guard import PinGuard
from gateway.ca.token import KeyName, find_token
from gateway.ca.token_keys import open_key
from gateway.pki.keys import PrivateKey, generate_private_key, sign
from tests.peers.softhsm import PACKAGE, PIN, SoftHsm, module

GOAL = 1.8
TURNS, SECONDS = 9, 0.5
KEYS = ("rsa-2048", "ec-p256")
DATA = bytes(1000)


def main() -> None:
    """Print a row for each kind of key."""
    if len(sys.argv) > 1:
        _work(*sys.argv[1:])
        return
    if module() is None:
        print(f"PKCS#11: left out, {PACKAGE} is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        hsm = SoftHsm.create(Path(folder) / "softhsm")
        hsm.add_token("bench")
        for number, spec in enumerate(KEYS, start=1):
            hsm.add_key("bench", spec, spec, f"{number:02}")
        ratios = [_measure(hsm, spec, Path(folder)) for spec in KEYS]
    sys.exit(0 if all(ratio >= GOAL for ratio in ratios) else 1)


def _measure(hsm: SoftHsm, spec: str, folder: Path) -> float:
    processes = [_start(hsm, spec, folder) for _ in range(2)]
    rates: dict[tuple[str, int], list[float]] = {(where, count): [] for where in ("token", "software") for count in (1, 2)}
    try:
        for turn in range(TURNS):
            for (where, count), seen in rates.items():
                seen.append(_turn(processes if count == 2 else [processes[turn % 2]], where))
    finally:
        for process in processes:
            process.communicate("")
    middle = {row: statistics.median(seen) for row, seen in rates.items()}
    ratio, possible = (middle[where, 2] / middle[where, 1] for where in ("token", "software"))
    text = f"{middle['token', 1]:7.0f} signatures/s by one worker, {middle['token', 2]:7.0f} by two: {ratio:.2f}x"
    print(f"PKCS#11 {spec:<9} {text}; in software {possible:.2f}x (goal: {GOAL}x where that is 2x)")
    return ratio * max(1.0, 2 / possible)


def _start(hsm: SoftHsm, spec: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.hsm", str(hsm.module), spec, str(folder)],
        env={**os.environ, **hsm.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _turn(processes: list[subprocess.Popen[str]], where: str) -> float:
    """Return the signatures a second of some workers together, by the key in the token or by its like in software."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{where}\n")
        process.stdin.flush()
    return sum(float(process.stdout.readline()) for process in processes if process.stdout is not None)


def _work(path: str, spec: str, folder: str) -> None:
    token = find_token(path, "bench")
    token.log_in(PIN.encode(), PinGuard(Path(folder), b"bench"))
    in_token = open_key(token, KeyName(spec, None))
    keys: dict[str, PrivateKey] = {"token": in_token, "software": generate_private_key(spec)}
    print("ready", flush=True)
    for line in sys.stdin:
        key = keys[line.strip()]
        begun, count = time.perf_counter(), 0
        while time.perf_counter() < begun + SECONDS:
            sign(key, DATA)
            count += 1
        print(count / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
