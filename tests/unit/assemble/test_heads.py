"""Audit heads on their way into the configured file: what the file does not take is offered again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.assemble.gateway import open_gateway
from gateway.audit import parse_heads
from gateway.cli.init import make_files, write_directory
from gateway.config.load import read
from tests.contract.store.rows import NOW, event

HEADS = "store/audit-heads.jsonl"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "var"
    write_directory(folder, make_files("rsa-2048", "ec-p256", 1, 2, NOW))
    path = folder / "profiles.yaml"
    path.write_text(path.read_text().replace("head_interval: 60s", "head_interval: 1s"))
    return path


async def test_head_that_its_file_did_not_take_is_offered_again(config: Path) -> None:
    heads = config.parent / HEADS
    heads.mkdir()
    gateway = await open_gateway(*read(config), worker="w1", generation=1)
    await gateway.store.append_audit([event()])
    await gateway.store.append_audit([event()])
    heads.rmdir()
    await gateway.close()
    assert [head.seq for head in parse_heads(heads.read_text())] == [2]


async def test_worker_that_ends_last_writes_no_older_head(config: Path) -> None:
    first = await open_gateway(*read(config), worker="w1", generation=1)
    second = await open_gateway(*read(config), worker="w2", generation=1)
    await first.store.append_audit([event()])
    await first.store.append_audit([event()])
    await second.store.append_audit([event()])
    await second.close()
    await first.close()
    seqs = [head.seq for head in parse_heads((config.parent / HEADS).read_text())]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == 3
