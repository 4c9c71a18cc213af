"""The system's clock jumps by an hour and a day, both ways, under a service of two workers (libfaketime of Debian)."""

from __future__ import annotations

import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.asn1.scep import PkiStatus
from gateway.wire.scep import client
from tests.conftest import RunningServer, StartServer
from tests.flow.scep.service import KEY, OTHER_KEY, Device
from tests.flow.serve.processes import logged, workers


@dataclass
class Clock:
    """What the server's processes take for the time; their monotonic clock is the system's."""

    file: Path

    def jump(self, to: str) -> None:
        other = self.file.with_suffix(".new")
        other.write_text(f"{to}\n")
        other.rename(self.file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("libfaketime is missing: apt-get install libfaketime")
        pytest.skip("libfaketime is missing: apt-get install libfaketime")
    clock = Clock(tmp_path / "clock")
    clock.jump("+0")
    monkeypatch.setenv("LD_PRELOAD", str(found))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock.file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return clock


def enroll(server: RunningServer, device: Device, challenge: str, transaction: str) -> PkiStatus:
    found = server.get("/scep/demo?operation=GetCACert")
    ra = client.choose_ra_certificate(client.decode_ca_certificates(found, "application/x-x509-ca-ra-cert"))
    request, signer = device.request(ra, challenge, transaction=transaction)
    post = urllib.request.Request(f"{server.url}/scep/demo?operation=PKIOperation", request.message)
    with urllib.request.urlopen(post, timeout=30) as reply:
        return client.decode_cert_rep(reply.read(), request, signer, ra).status


def test_the_clock_of_the_machine_jumps(clock: Clock, start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_server(workers=2)
    monkeypatch.delenv("LD_PRELOAD")
    before = workers(server)
    first = server.new_challenge("--ttl", "1d")
    assert enroll(server, Device(), first, "first") is PkiStatus.SUCCESS
    # What is valid begins a little before: a day back the CA itself is not valid yet, and nothing is granted.
    for number, to in enumerate(("+1h", "+1d", "+0", "-1h", "-1d", "+0")):
        clock.jump(to)
        other = Device(key=OTHER_KEY, subject=f"CN=other-{number}")
        assert enroll(server, other, first, f"replay-{number}") is PkiStatus.FAILURE, to
        with urllib.request.urlopen(f"{server.monitoring_url}/readyz", timeout=20) as reply:
            assert reply.status == 200
        if to == "-1d":
            continue
        later = server.new_challenge()
        assert enroll(server, Device(KEY, f"CN=later-{number}"), later, f"later-{number}") is PkiStatus.SUCCESS, to
    assert workers(server) == before
    assert not logged(server, "a worker died and is replaced")
    rows = [json.loads(line) for line in server.cli("audit", "export").stdout.splitlines()]
    assert [row["event"] for row in rows].count("enrollment.issued") == 6
    assert server.cli("audit", "verify").returncode == 0
    assert server.cli("reload").returncode == 0
