from datetime import UTC, datetime

import pytest

from gateway.errors import Reason
from gateway.metrics import registry, worker
from gateway.metrics.registry import CommitResult, Operation, UpstreamOperation, UpstreamResult, Waiting
from gateway.metrics.worker import REGISTRY
from gateway.model import Issued, Outcome, Pending, ProfileName, Protocol, Rejected, RequestId, Unavailable, UpstreamCAName
from gateway.ra.requests import Found
from tests.unit.metrics.conftest import Sample

SCEP, CA, ID = Protocol.SCEP, UpstreamCAName("issuing"), RequestId("r")


@pytest.mark.parametrize(
    ("answer", "result", "reason"),
    [
        pytest.param(Issued(b"", (), ID), "issued", "", id="issued"),
        pytest.param(Pending(ID, 5), "pending", "", id="pending"),
        pytest.param(Rejected(Reason.POLICY_SAN, "no"), "rejected", "policy_san", id="rejected"),
        pytest.param(Unavailable(Reason.STORE_UNAVAILABLE, 5), "unavailable", "store_unavailable", id="unavailable"),
        pytest.param(Found((b"",)), "found", "", id="found"),
    ],
)
def test_answers_are_counted_and_timed(sample: Sample, answer: Outcome | Found, result: str, reason: str) -> None:
    profile = ProfileName(f"timed-{result}")
    of = {"protocol": "scep", "profile": profile, "operation": "PKCSReq"}
    worker.count_answer(SCEP, profile, "PKCSReq", answer, 0.004)
    worker.count_answer(SCEP, profile, "PKCSReq", answer, 40.0)
    assert sample("gateway_enrollments_total", **of, result=result, reason=reason) == 2
    assert sample("gateway_request_duration_seconds_count", **of) == 2
    assert sample("gateway_request_duration_seconds_bucket", **of, le="0.005") == 1
    assert sample("gateway_auth_failures_total", protocol="scep", profile=profile, reason=reason) == 0


def test_refusals_for_who_asked_are_counted_as_such(sample: Sample) -> None:
    worker.count_answer(SCEP, ProfileName("asked"), "PKCSReq", Rejected(Reason.CREDENTIAL_INVALID, "no"), 0.1)
    assert sample("gateway_auth_failures_total", protocol="scep", profile="asked", reason="credential_invalid") == 1


def test_what_no_standard_names_is_unknown(sample: Sample) -> None:
    for name in ("UpdateReq", "x" * 10000, ""):
        worker.count_answer(SCEP, ProfileName("odd"), name, Pending(ID, 5), 0.1)
    of = {"protocol": "scep", "profile": "odd", "operation": "unknown", "result": "pending", "reason": ""}
    assert sample("gateway_enrollments_total", **of) == 3


def test_refusals_before_a_message_was_read(sample: Sample) -> None:
    of = {"protocol": "scep", "operation": "unknown", "result": "rejected"}
    before = sample("gateway_enrollments_total", **of, profile="", reason="unknown_profile")
    worker.count_refusal(SCEP, None, Reason.UNKNOWN_PROFILE)
    worker.count_refusal(SCEP, ProfileName("unread"), Reason.MALFORMED)
    assert sample("gateway_enrollments_total", **of, profile="", reason="unknown_profile") == before + 1
    assert sample("gateway_enrollments_total", **of, profile="unread", reason="malformed") == 1


def test_series_of_a_profile_begin_at_nought() -> None:
    worker.open_profile(SCEP, ProfileName("new"), ("success", "replay"))
    issued = {"protocol": "scep", "profile": "new", "operation": "PKCSReq", "result": "issued", "reason": ""}
    assert REGISTRY.get_sample_value("gateway_enrollments_total", issued) == 0
    assert REGISTRY.get_sample_value("gateway_signed_challenges_total", {"profile": "new", "result": "replay"}) == 0
    assert REGISTRY.get_sample_value("gateway_signed_challenges_total", {"profile": "other", "result": "replay"}) is None
    worker.open_profile(Protocol.EST, ProfileName("new"))
    est = issued | {"protocol": "est", "operation": "simplereenroll"}
    assert REGISTRY.get_sample_value("gateway_enrollments_total", est) == 0


def test_challenges_and_legacy_algorithms(sample: Sample) -> None:
    profile = ProfileName("old")
    worker.count_signed_challenge(profile, "claim_mismatch")
    worker.count_legacy_algorithm(SCEP, profile, "des-cbc")
    worker.count_legacy_algorithm(SCEP, profile, "what a client made up")
    assert sample("gateway_signed_challenges_total", profile="old", result="claim_mismatch") == 1
    families = {family.name: family for family in REGISTRY.collect()}
    told = [s.labels["algorithm"] for s in families["gateway_legacy_algorithms"].samples if s.labels["profile"] == "old"]
    assert set(told) == {"des-cbc"}


def test_upstream_cas_commits_and_audit(sample: Sample) -> None:
    worker.observe_upstream(CA, UpstreamOperation.FIND, UpstreamResult.TIMEOUT, 90.0)
    of = {"upstream_ca": "issuing", "operation": "find", "result": "timeout"}
    assert sample("gateway_upstream_request_duration_seconds_bucket", **of, le="90.0") == 1
    before = sample("gateway_store_commit_seconds_count", result="failed")
    worker.observe_commit(CommitResult.FAILED, 0.1)
    assert sample("gateway_store_commit_seconds_count", result="failed") == before + 1
    before = sample("gateway_audit_write_failures_total")
    worker.count_audit_write_failure()
    assert sample("gateway_audit_write_failures_total") == before + 1


def test_gauges(sample: Sample) -> None:
    worker.set_load(3, 40)
    worker.set_pending({Waiting.DOUBT: 2})
    worker.set_reservations({"one_time": 7})
    worker.set_crl_next_update(CA, datetime(2027, 1, 1, tzinfo=UTC))
    assert (sample("gateway_inflight"), sample("gateway_connections")) == (3, 40)
    assert [sample("gateway_pending_requests", waiting_for=w) for w in ("approval", "upstream", "doubt")] == [0, 0, 2]
    assert sample("gateway_reservations", kind="one_time") == 7
    assert sample("gateway_crl_next_update_timestamp_seconds", upstream_ca="issuing") == 1798761600


def test_workers_count_nothing_that_is_not_declared() -> None:
    declared = {family.name.removesuffix("_total"): family for family in registry.FAMILIES}
    for family in REGISTRY.collect():
        assert family.documentation == declared[family.name].help
        assert family.type == declared[family.name].kind
    assert Operation("PKCSReq") is Operation.PKCS_REQ
