"""What monitors see of a served installation: probes and metrics of all workers, on a listener of their own."""

import os
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import RunningServer, StartServer

Series = tuple[str, frozenset[tuple[str, str]]]
ISSUED = {"protocol": "scep", "profile": "demo", "operation": "PKCSReq", "result": "issued", "reason": ""}


def get(url: str, data: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(server: RunningServer) -> dict[Series, float]:
    status, text = get(f"{server.monitoring_url}/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(server: RunningServer, name: str, **labels: str) -> float | None:
    return scrape(server).get((name, frozenset(labels.items())))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_probes_and_metrics(server: RunningServer, require_program: Callable[[str, str], str]) -> None:
    before = value(server, "gateway_enrollments_total", **ISSUED)
    assert before is not None
    server.cli("test-enroll", "--profile", "demo")
    assert get(f"{server.monitoring_url}/livez") == (200, "ok\n")
    assert get(f"{server.monitoring_url}/readyz") == (200, "ok\n")
    found = scrape(server)
    assert found["gateway_enrollments_total", frozenset(ISSUED.items())] == before + 1
    assert found["gateway_workers", frozenset()] == 2
    assert found["gateway_ready", frozenset()] == 1
    names = {name for name, _ in found}
    assert {"gateway_upstream_request_duration_seconds_count", "gateway_store_commit_seconds_count"} <= names
    assert {"gateway_inflight", "gateway_connections", "gateway_pending_requests", "gateway_reservations"} <= names
    assert {"gateway_crl_next_update_timestamp_seconds", "gateway_worker_resident_memory_bytes"} <= names
    kinds = {dict(labels)["kind"] for name, labels in found if name == "gateway_certificate_not_after_timestamp_seconds"}
    assert kinds == {"ra", "ca", "tls"}
    for path in ("/livez", "/readyz", "/metrics"):
        assert get(server.url + path)[0] == 404


@pytest.mark.interop
def test_prometheus_finds_no_fault_with_the_metrics(server: RunningServer, require_program: Callable[[str, str], str]) -> None:
    text = get(f"{server.monitoring_url}/metrics")[1]
    check = [require_program("promtool", "prometheus"), "check", "metrics"]
    done = subprocess.run(check, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_clients_make_no_series(server: RunningServer) -> None:
    def knock() -> None:
        name = secrets.token_hex(8)
        for path in (f"/scep/{name}", f"/scep/demo?operation={name}", f"/{name}", f"/scep/demo/{name}"):
            get(server.url + path)
        for path in ("/scep/demo?operation=PKIOperation", f"/scep/{name}?operation=PKIOperation"):
            get(server.url + path, secrets.token_bytes(100))

    def series() -> set[Series]:
        # What the two workers have counted, however the kernel shares connections out.
        return {key for key in scrape(server) if not key[0].startswith("gateway_worker")}

    knock()
    before = series()
    for _ in range(10):
        knock()
    assert series() == before
    unknown = {"protocol": "scep", "profile": "", "operation": "unknown", "result": "rejected", "reason": "unknown_profile"}
    assert (value(server, "gateway_enrollments_total", **unknown) or 0) >= 22


def test_counters_never_go_back(start_server: StartServer) -> None:
    server = start_server(workers=2)
    for _ in range(6):
        server.cli("test-enroll", "--profile", "demo")
    before = {key: number for key, number in scrape(server).items() if key[0].endswith(("_total", "_count", "_bucket"))}
    folder = server.state / "run" / "admin.metrics"
    for path in list(folder.glob("counter_[0-9]*.db")):
        os.kill(int(path.stem.removeprefix("counter_")), signal.SIGKILL)
    wait_for(lambda: value(server, "gateway_worker_restarts_total", cause="died") == 2)
    wait_for(lambda: value(server, "gateway_workers") == 2)
    after = scrape(server)
    assert not [key for key, number in before.items() if "worker" not in key[0] and after[key] < number]
    assert after["gateway_enrollments_total", frozenset(ISSUED.items())] == 6
    server.cli("restart")
    wait_for(lambda: value(server, "gateway_worker_restarts_total", cause="rolling") == 2)
    assert value(server, "gateway_enrollments_total", **ISSUED) == 6
    wait_for(lambda: len(list(folder.glob("counter_*.db"))) == 3)


def test_reloads_are_told(start_server: StartServer) -> None:
    server = start_server()
    text = server.config.read_text()
    server.config.write_text(text.replace("max: 365d", "max: 0d"))
    assert server.cli("reload", check=False).returncode == 1
    assert value(server, "gateway_config_last_reload_successful") == 0
    assert value(server, "gateway_config_generation") == 1
    since = value(server, "gateway_config_last_reload_success_timestamp_seconds") or 0
    server.config.write_text(text.replace("max: 365d", "max: 364d").replace("default: 365d", "default: 364d"))
    server.cli("reload")
    assert value(server, "gateway_config_last_reload_successful") == 1
    assert value(server, "gateway_config_generation") == 2
    assert (value(server, "gateway_config_last_reload_success_timestamp_seconds") or 0) > since


def test_a_store_that_is_gone_makes_the_service_not_ready_until_it_is_back(start_server: StartServer) -> None:
    server = start_server(workers=2)
    database = server.state / "store" / "gateway.db"
    away = database.with_suffix(".away")
    database.rename(away)
    wait_for(lambda: get(f"{server.monitoring_url}/readyz") == (503, "not ready: store\n"))
    assert value(server, "gateway_ready") == 0
    assert get(f"{server.monitoring_url}/livez") == (200, "ok\n")
    assert (value(server, "gateway_store_commit_seconds_count", result="failed") or 0) > 0
    away.rename(database)
    wait_for(lambda: get(f"{server.monitoring_url}/readyz") == (200, "ok\n"))
    assert value(server, "gateway_ready") == 1
