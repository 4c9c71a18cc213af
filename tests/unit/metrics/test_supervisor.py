import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.registry import FAMILIES, CertificateKind, RestartCause
from gateway.metrics.supervisor import CertificateEnding, CrlEnding, SupervisorMetrics

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RA = CertificateEnding(CertificateKind.RA, "profiles.demo.endpoints.scep.ra_certificate", NOW + timedelta(days=30))
TLS = CertificateEnding(CertificateKind.TLS, "server.https.certificate", NOW)
Count = Callable[[Path, int], int]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def metrics(tmp_path: Path) -> SupervisorMetrics:
    return SupervisorMetrics(tmp_path / "admin.metrics")


async def samples(metrics: SupervisorMetrics, *, ready: bool = True) -> Samples:
    text = (await metrics.exposition(ready=ready)).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def value(metrics: SupervisorMetrics, name: str, **labels: str) -> float | None:
    return (await samples(metrics)).get((name, tuple(sorted(labels.items()))))


async def test_what_is_in_force(metrics: SupervisorMetrics) -> None:
    metrics.accept_configuration(1, (RA, TLS), NOW)
    metrics.accept_configuration(2, (RA,), NOW + timedelta(hours=1))
    found = await samples(metrics)
    name = "gateway_certificate_not_after_timestamp_seconds"
    assert {key: number for key, number in found.items() if key[0] == name} == {
        (name, (("kind", "ra"), ("name", RA.name))): RA.not_after.timestamp()
    }
    assert found["gateway_config_generation", ()] == 2
    assert found["gateway_config_last_reload_successful", ()] == 1
    assert found["gateway_config_last_reload_success_timestamp_seconds", ()] == (NOW + timedelta(hours=1)).timestamp()


async def test_a_refused_reload_changes_one_word(metrics: SupervisorMetrics) -> None:
    metrics.accept_configuration(3, (RA,), NOW)
    before = await samples(metrics)
    metrics.refuse_configuration()
    changed = {key[0] for key, number in (await samples(metrics)).items() if before[key] != number}
    assert changed == {"gateway_config_last_reload_successful"}
    metrics.accept_configuration(3, (RA,), NOW)
    assert await samples(metrics) == before


@pytest.mark.parametrize(("ready", "shown"), [pytest.param(True, 1, id="ready"), pytest.param(False, 0, id="not-ready")])
async def test_readiness(metrics: SupervisorMetrics, ready: bool, shown: int) -> None:
    assert (await samples(metrics, ready=ready))["gateway_ready", ()] == shown


@pytest.mark.parametrize(
    ("cause", "died", "rolling"),
    [
        pytest.param(RestartCause.DIED, 1, 0, id="died"),
        pytest.param(RestartCause.ROLLING, 0, 1, id="rolling"),
        pytest.param(None, 0, 0, id="end-of-the-service"),
    ],
)
async def test_workers_that_ended_are_counted_and_stay_counted(
    metrics: SupervisorMetrics, tmp_path: Path, count: Count, cause: RestartCause | None, died: int, rolling: int
) -> None:
    process = count(tmp_path / "admin.metrics", 4)
    of = {"protocol": "scep", "profile": "demo", "operation": "PKCSReq", "result": "issued", "reason": ""}
    assert await value(metrics, "gateway_enrollments_total", **of) == 4
    await metrics.worker_ended(process, cause)
    assert await value(metrics, "gateway_enrollments_total", **of) == 4
    assert await value(metrics, "gateway_worker_restarts_total", cause="died") == died
    assert await value(metrics, "gateway_worker_restarts_total", cause="rolling") == rolling


async def test_workers_count_where_the_supervisor_reads(metrics: SupervisorMetrics, tmp_path: Path) -> None:
    assert metrics.worker_environment == {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "admin.metrics")}


async def test_every_metric_has_one_place(metrics: SupervisorMetrics, tmp_path: Path, count: Count) -> None:
    count(tmp_path / "admin.metrics", 1)
    metrics.watch(lambda: {1: os.getpid()})
    metrics.accept_configuration(1, (RA,), NOW)
    text = (await metrics.exposition(ready=True)).decode()
    shown = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(shown) == len(set(shown))
    assert set(shown) <= {family.name for family in FAMILIES}
    assert not [line for line in text.splitlines() if "_created" in line]


async def test_an_empty_file_is_in_nobodys_way(metrics: SupervisorMetrics, tmp_path: Path, count: Count) -> None:
    process = count(tmp_path / "admin.metrics", 4)
    of = {"protocol": "scep", "profile": "demo", "operation": "PKCSReq", "result": "issued", "reason": ""}
    (tmp_path / "admin.metrics" / "counter_4711.db").touch()
    assert await value(metrics, "gateway_enrollments_total", **of) == 4
    await metrics.worker_ended(process, RestartCause.DIED)
    await metrics.worker_ended(4711, RestartCause.DIED)
    assert await value(metrics, "gateway_enrollments_total", **of) == 4


async def test_crls_of_others(metrics: SupervisorMetrics) -> None:
    name = "gateway_client_crl_next_update_timestamp_seconds"
    crls = (CrlEnding("a.client_crls", NOW), CrlEnding("a.client_crls#2", None))
    metrics.accept_configuration(1, (), NOW, crls)
    found = {key[1]: number for key, number in (await samples(metrics)).items() if key[0] == name}
    assert found == {(("name", "a.client_crls"),): NOW.timestamp(), (("name", "a.client_crls#2"),): 0}
    metrics.accept_configuration(2, (), NOW)
    assert not [key for key in await samples(metrics) if key[0] == name]
