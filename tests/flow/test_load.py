"""Two worker processes share one store under load: every request one certificate, and the file stays whole."""

import asyncio
import json

import pytest

from bench.load import prepare_requests, run_load
from tests.conftest import RunningServer, StartServer

COUNT = 300


@pytest.fixture
def loaded(start_server: StartServer) -> RunningServer:
    return start_server(workers=2)


def test_two_workers_share_one_store(loaded: RunningServer) -> None:
    result = asyncio.run(run_load(loaded, prepare_requests(loaded, COUNT), connections=24))
    assert result.granted == COUNT
    certificates = [json.loads(line) for line in loaded.cli("certs", "export").stdout.splitlines()]
    assert len({row["serial"] for row in certificates}) == len(certificates) == COUNT
    assert json.loads(loaded.cli("store", "check", "--format", "json").stdout)["problems"] == []
    assert loaded.cli("audit", "verify").returncode == 0
    assert loaded.stop() == 0
    assert json.loads(loaded.cli("store", "check", "--format", "json").stdout)["problems"] == []


def test_the_same_request_many_times_is_one_certificate(loaded: RunningServer) -> None:
    [prepared] = prepare_requests(loaded, 1)
    result = asyncio.run(run_load(loaded, [prepared] * 40, connections=20))
    assert result.granted == 40
    assert len(loaded.cli("certs", "export").stdout.splitlines()) == 1
