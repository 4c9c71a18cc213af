"""Several worker processes on one file, and what is left when one is killed while it writes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import AuditHead
from gateway.store.keys import KeyRing
from gateway.store.sqlite import backup, check, connection, migrate

ROOT = Path(__file__).parents[3]
HAMMER = Path(__file__).with_name("hammer.py")
KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "gateway.db", KEYS, AUDIT_KEY)
    return tmp_path / "gateway.db"


def start(path: Path, worker: str, count: int | str, concurrency: int = 8) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HAMMER), str(path), worker, str(count), str(concurrency)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> list[list[str]]:
    out, err = process.communicate(timeout=100)
    assert err == ""
    return [line.split(" ", 2) for line in out.splitlines()]


def heads_of(lines: list[list[str]]) -> list[AuditHead]:
    return [AuditHead.from_json(" ".join(words[1:])) for words in lines if words[0] == "head"]


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    reader = connection.open_reader(path)
    try:
        return reader.execute(sql).fetchall()
    finally:
        reader.close()


def check_whole(path: Path, lines: list[list[str]]) -> None:
    """Integrity, chain and heads, and everything that a caller was told is there, once."""
    report = check(path, KEYS, AUDIT_KEY, heads_of(lines))
    assert report.problems == ()
    states: dict[str, str] = dict(rows(path, "SELECT id, state FROM ledger"))
    certificates = {sha256.hex() for (sha256,) in rows(path, "SELECT sha256 FROM inventory")}
    for words in lines:
        if words[0] == "opened":
            assert words[1] in states
        if words[0] == "issued":
            assert states[words[1]] == "delivered"
            assert words[2] in certificates
    openings = Counter(words[2] for words in lines if words[0] == "opened")
    assert set(openings.values()) <= {1}, "two requests were told that they have the same challenge"
    assert report.audit.rows == len(states) + len(certificates)
    assert rows(path, "SELECT COUNT(*) FROM reservations") == [(len(states),)]
    assert rows(path, "SELECT COUNT(*) FROM request_keys") == [(len(states),)]


def test_workers_share_one_file_and_no_challenge(path: Path, tmp_path: Path) -> None:
    count = 250
    processes = [start(path, f"w{n}", count) for n in range(4)]
    backup(path, tmp_path / "meanwhile.db")
    lines = [line for process in processes for line in said(process)]
    assert [process.returncode for process in processes] == [0] * 4
    check_whole(path, lines)
    assert rows(path, "SELECT COUNT(*) FROM ledger WHERE state = 'delivered'") == [(count,)]
    assert check(tmp_path / "meanwhile.db", KEYS, AUDIT_KEY).problems == ()


def test_no_worker_starves(path: Path) -> None:
    """Two workers that never pause both get their turn."""
    processes = [start(path, f"w{n}", "forever", concurrency=32) for n in range(2)]
    time.sleep(3)
    for process in processes:
        process.kill()
    lines = [line for process in processes for line in said(process)]
    check_whole(path, lines)
    shares = Counter(words[1].split("-")[0] for words in lines if words[0] == "issued")
    assert min(shares["w0"], shares["w1"]) > 0.15 * sum(shares.values()), shares


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_writing(path: Path, seed: int) -> None:
    """The other worker goes on, and nothing that a caller was told is lost."""
    chance = random.Random(seed)
    survivor = start(path, "w0", 60)
    lines = []
    for life in range(3):
        process = start(path, f"k{life}", "forever", concurrency=chance.choice([1, 8, 32]))
        assert process.stdout is not None
        first = process.stdout.readline()  # it is writing
        time.sleep(chance.random() * 0.15)
        process.kill()
        lines += [first.split(), *said(process)]
    lines += said(survivor)
    assert survivor.returncode == 0
    check_whole(path, lines)


def test_all_killed_at_once_and_started_again(path: Path) -> None:
    lines = []
    for life in range(3):
        processes = [start(path, f"k{life}{n}", "forever", concurrency=16) for n in range(2)]
        time.sleep(1.0)
        for process in processes:
            process.kill()
        lines += [line for process in processes for line in said(process)]
    last = start(path, "last", 20)
    lines += said(last)
    assert last.returncode == 0
    check_whole(path, lines)
