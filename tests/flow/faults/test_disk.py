"""The disk under two workers is full: no certificate without its audit row, not ready, and ready again without a restart."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench.load import Prepared, prepare_requests
from gateway.asn1.scep import PkiStatus
from gateway.pki.certificate import parse_certificate
from gateway.wire.scep import client
from tests.conftest import RunningServer, StartServer
from tests.flow.faults.disks import MIB, can_mount, full, kept_full, limited, serve_on_small_disk
from tests.flow.serve.processes import kill, wait_for, workers

Fill = Callable[[], AbstractContextManager[None]]
BEFORE, MEANWHILE = 4, 12
DISK = 16 * MIB


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_for_status(url: str, status: int) -> None:
    until = time.monotonic() + 60
    while get(url) != status:
        assert time.monotonic() < until, url
        time.sleep(0.2)


def send(server: RunningServer, requests: list[Prepared]) -> tuple[dict[int, bytes], int]:
    """Send each request once; returns the certificates by the request's number, and how many came back with 503 or PENDING."""
    granted, again = {}, 0
    for number, prepared in enumerate(requests):
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        connection.request("POST", "/scep/demo?operation=PKIOperation", prepared.request.message)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        assert reply.status in {200, 503}, body
        if reply.status == 503:
            again += 1
            continue
        said = client.decode_cert_rep(body, prepared.request, prepared.signer, prepared.ra)
        assert said.status in {PkiStatus.SUCCESS, PkiStatus.PENDING}, said.fail_info_text
        if said.status is PkiStatus.SUCCESS:
            granted[number] = said.certificates[0]
    return granted, again


def check_books(server: RunningServer, granted: dict[int, bytes]) -> None:
    """Every certificate that a client has is in the inventory, and each there has one audit row."""
    known = {json.loads(line)["serial"] for line in server.cli("certs", "export").stdout.splitlines()}
    rows = map(json.loads, server.cli("audit", "export").stdout.splitlines())
    issued = sorted(row["serial"] for row in rows if row["event"] == "enrollment.issued")
    assert {f"{parse_certificate(der).serial:x}" for der in granted.values()} <= known
    assert issued == sorted(known)
    assert server.cli("audit", "verify").returncode == 0
    assert json.loads(server.cli("store", "check", "--format", "json").stdout)["problems"] == []


def deaths(server: RunningServer) -> list[str]:
    """Return what the supervisor said of workers that died, or could not begin, exit status included."""
    words = ("a worker died", "a worker cannot begin", "a worker stands still", "this worker cannot go on")
    return [line for line in server.log.read_text(errors="replace").splitlines() if any(word in line for word in words)]


def outlive(server: RunningServer, fill: Fill) -> None:
    try:
        _outlive(server, fill)
    finally:
        # Shown where the test fails: with which status a worker ended that should not have.
        print(*deaths(server), sep="\n")


def wait_for_all(server: RunningServer) -> None:
    """Wait until both workers serve: one that only begins has neither its files nor its connections yet."""
    server.wait_ready(2)
    wait_for_status(f"{server.monitoring_url}/readyz", 200)


def _outlive(server: RunningServer, fill: Fill) -> None:
    wait_for_all(server)
    before = workers(server)
    requests = prepare_requests(server, BEFORE + MEANWHILE)
    first, again = send(server, requests[:BEFORE])
    assert (len(first), again) == (BEFORE, 0)
    with fill():
        meanwhile, again = send(server, requests)
        assert again > 0
        wait_for_status(f"{server.monitoring_url}/readyz", 503)
        assert get(f"{server.monitoring_url}/livez") == 200
        assert get(f"{server.url}/scep/demo?operation=GetCACaps") == 200
    wait_for_status(f"{server.monitoring_url}/readyz", 200)
    assert workers(server) == before, "\n".join(deaths(server))
    later, again = send(server, requests)
    assert (len(later), again) == (len(requests), 0)
    assert (first | meanwhile).items() <= later.items()
    check_books(server, later)


def test_files_that_may_not_grow(start_server: StartServer) -> None:
    server = start_server(workers=2)
    outlive(server, lambda: limited(server, 0))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RunningServer]:
    if not can_mount():
        pytest.skip("this user may mount nothing")
    server = serve_on_small_disk(tmp_path, DISK, 2)
    yield server
    assert server.stop() == 0


def test_a_disk_without_a_byte_left(small: RunningServer) -> None:
    outlive(small, lambda: full(small.state))


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """Return the sum of a metric's series with these labels; fails unless /metrics answers."""
    with urllib.request.urlopen(f"{server.monitoring_url}/metrics", timeout=20) as reply:
        lines = reply.read().decode().splitlines()
    series = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in series if all(word in line for word in wanted))


def test_a_worker_that_dies_while_the_disk_is_full(small: RunningServer) -> None:
    """None can begin before there is room to count in; monitors see everything all the time, and nothing counted is lost."""
    wait_for_all(small)
    granted, again = send(small, prepare_requests(small, BEFORE))
    assert (len(granted), again) == (BEFORE, 0)
    counted = metric(small, "gateway_enrollments_total", result="issued")
    assert counted >= BEFORE
    with full(small.state), kept_full(small.state):
        kill(min(workers(small)))
        # It died, and another one was tried in vain.
        wait_for(lambda: metric(small, "gateway_worker_restarts_total", cause="died") >= 2)
        assert metric(small, "gateway_workers") == 1
        assert get(f"{small.monitoring_url}/livez") == 200
    wait_for(lambda: metric(small, "gateway_workers") == 2)
    wait_for_status(f"{small.monitoring_url}/readyz", 200)
    assert metric(small, "gateway_enrollments_total", result="issued") == counted
    assert not [path.name for path in (small.state / "run" / "admin.metrics").iterdir() if not path.stat().st_size]
    assert "Traceback" not in small.log.read_text(errors="replace")
