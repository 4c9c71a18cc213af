"""What an answer leaves in the metrics, and what a worker looks up for its gauges."""

from pathlib import Path

import pytest

from gateway.asn1.scep import PkiStatus
from gateway.metrics.worker import REGISTRY
from gateway.ra.credentials.challenge_labels import ChallengeLabel
from gateway.supervise.gauges import Gauges
from tests.flow.scep.challenge_fleet import open_fleet
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import Client, Device, Service


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def answers(operation: str, result: str, reason: str = "") -> float:
    of = {"protocol": "scep", "profile": "demo", "operation": operation, "result": result, "reason": reason}
    return sample("gateway_enrollments_total", **of)


async def test_answers_are_counted_by_what_became_of_them(service: Service, client: Client) -> None:
    issued, refused = answers("PKCSReq", "issued"), answers("PKCSReq", "rejected", "credential_invalid")
    failures = sample("gateway_auth_failures_total", protocol="scep", profile="demo", reason="credential_invalid")
    upstream = {"upstream_ca": "local", "operation": "issue", "result": "answered"}
    asked = sample("gateway_upstream_request_duration_seconds_count", **upstream)
    commits = sample("gateway_store_commit_seconds_count", result="durable")
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
    assert (await client.enroll(Device(), "not-the-challenge")).status is PkiStatus.FAILURE
    assert answers("PKCSReq", "issued") == issued + 1
    assert answers("PKCSReq", "rejected", "credential_invalid") == refused + 1
    assert sample("gateway_auth_failures_total", protocol="scep", profile="demo", reason="credential_invalid") == failures + 1
    assert sample("gateway_upstream_request_duration_seconds_count", **upstream) == asked + 1
    assert sample("gateway_store_commit_seconds_count", result="durable") >= commits + 2


async def test_what_cannot_be_read_is_counted(client: Client) -> None:
    before = answers("unknown", "rejected", "malformed")
    assert (await client.post(b"no PKIMessage"))[0] == 400
    assert answers("unknown", "rejected", "malformed") == before + 1


async def test_answers_that_are_withheld_are_counted(service: Service, client: Client) -> None:
    before = sample("gateway_audit_write_failures_total")
    request, _ = Device().request(client.ra, service.static_challenge)
    await service.gateway.store.close()
    assert (await client.post(request.message))[0] == 503
    assert sample("gateway_audit_write_failures_total") == before + 1
    assert answers("PKCSReq", "unavailable", "store_unavailable") >= 1


async def test_legacy_algorithms_are_counted(start: StartService, connect: Connect) -> None:
    service = await start(demo={"endpoints": {"scep": {"legacy": {"sha1": True}}}})
    of = {"protocol": "scep", "profile": "demo", "algorithm": "sha1"}
    before = sample("gateway_legacy_algorithms_total", **of)
    await (await connect(service)).enroll(Device(), service.static_challenge, digest="sha1")
    assert sample("gateway_legacy_algorithms_total", **of) == before + 1


async def test_signed_challenges_are_counted_by_their_label(tmp_path: Path) -> None:
    async with open_fleet(tmp_path / "s") as fleet:
        before = {label: sample("gateway_signed_challenges_total", profile="devices", result=label) for label in ChallengeLabel}
        challenge = fleet.challenge(device_name="gate-1")
        await fleet.enroll(challenge, Device(subject="CN=gate-1"), "devices")
        await fleet.enroll(fleet.challenge(device_name="other"), Device(subject="CN=gate-1"), "devices")
        after = {label: sample("gateway_signed_challenges_total", profile="devices", result=label) for label in ChallengeLabel}
    grown = {label.value: after[label] - before[label] for label in ChallengeLabel if after[label] != before[label]}
    assert grown == {"success": 1, "claim_mismatch": 1}


async def test_gauges_are_looked_up(service: Service, client: Client) -> None:
    gauges = Gauges(service.gateway, service.endpoints)
    await gauges.note_load()
    assert sample("gateway_connections") >= 1
    assert sample("gateway_inflight") == 0
    await client.enroll(Device(), await service.new_challenge())
    await service.run("POST", "/v1/crl/publish")
    await gauges.note_store()
    assert sample("gateway_reservations", kind="one_time") == 1
    assert sample("gateway_pending_requests", waiting_for="doubt") == 0
    crl = await service.gateway.store.newest_crl(next(iter(service.gateway.generation.publications)))
    assert crl is not None
    assert sample("gateway_crl_next_update_timestamp_seconds", upstream_ca="local") == pytest.approx(crl.next_update.timestamp())
