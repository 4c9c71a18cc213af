"""When an upstream CA is left alone, when it is tried again, and what still reaches it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gateway.ca.circuit import FAILURES, FIRST_REST_SECONDS, LONGEST_REST_SECONDS, TRIAL_SECONDS, Circuit, GuardedCA
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamCA, UpstreamRejected
from gateway.metrics import worker as metrics
from gateway.model import RevocationReason


class TestCircuit:
    @staticmethod
    def opened() -> Circuit:
        circuit = Circuit()
        for _ in range(FAILURES):
            circuit.fail(0)
        return circuit

    def test_opens_after_failures_one_after_the_other(self) -> None:
        circuit = Circuit()
        for _ in range(3):
            for _ in range(FAILURES - 1):
                circuit.fail(0)
            circuit.succeed()
        assert (circuit.is_open, circuit.wait(0)) == (False, 0)
        assert self.opened().is_open

    def test_rests_and_then_lets_one_try(self) -> None:
        circuit = self.opened()
        assert circuit.wait(1) == FIRST_REST_SECONDS - 1
        assert circuit.wait(FIRST_REST_SECONDS) == 0
        assert circuit.wait(FIRST_REST_SECONDS) == TRIAL_SECONDS
        circuit.succeed()
        assert (circuit.is_open, circuit.wait(FIRST_REST_SECONDS)) == (False, 0)

    def test_a_trial_that_fails_doubles_the_rest(self) -> None:
        circuit, now, rests = self.opened(), 0.0, []
        for _ in range(8):
            rests.append(circuit.wait(now))
            now += rests[-1]
            assert circuit.wait(now) == 0
            circuit.fail(now)
        assert rests == [10, 20, 40, 80, 160, 300, 300, 300]
        assert max(rests) == LONGEST_REST_SECONDS

    def test_what_fails_late_changes_nothing(self) -> None:
        circuit = self.opened()
        for _ in range(50):
            circuit.fail(5)
        assert circuit.wait(5) == FIRST_REST_SECONDS - 5

    @pytest.mark.parametrize(("asked", "rest"), [(0, 10), (60, 60), (86400, LONGEST_REST_SECONDS)])
    def test_rests_as_long_as_the_ca_asks_for(self, asked: int, rest: float) -> None:
        circuit = Circuit()
        for _ in range(FAILURES):
            circuit.fail(0, asked)
        assert circuit.wait(0) == rest

    def test_a_trial_without_an_end_is_followed_by_another(self) -> None:
        circuit = self.opened()
        assert circuit.wait(10) == 0
        assert circuit.wait(10 + TRIAL_SECONDS) == 0


class FailingCA:
    """Answers as told, and counts what reaches it."""

    def __init__(self, *answers: object) -> None:
        self.name, self.capabilities, self.accepts = "corporate", None, frozenset[str]()
        self.asked: list[str] = []
        self._answers = list(answers)

    def __getattr__(self, name: str) -> Any:
        async def answer(*_arguments: object) -> object:
            self.asked.append(name)
            found = self._answers.pop(0) if self._answers else "issued"
            if found == "hangs":
                await asyncio.sleep(3600)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


REQUEST = cast("Any", SimpleNamespace())


def guard(ca: FailingCA, now: list[float]) -> GuardedCA:
    return GuardedCA(cast("UpstreamCA", ca), lambda: now[0])


async def fail(guarded: GuardedCA, times: int = FAILURES) -> None:
    for _ in range(times):
        with pytest.raises((NotSent, UnknownResult, TimeoutError, OSError)):
            async with asyncio.timeout(0.01):
                await guarded.issue(REQUEST)


def is_open() -> float | None:
    return metrics.REGISTRY.get_sample_value("gateway_upstream_circuit_open", {"upstream_ca": "corporate"})


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NotSent("no route"), id="not sent"),
        pytest.param(UnknownResult("broke off"), id="in doubt"),
        pytest.param(OSError("gone"), id="anything else"),
        pytest.param("hangs", id="no answer in time"),
    ],
)
async def test_a_ca_that_fails_is_left_alone_and_tried_again(fault: object) -> None:
    now = [100.0]
    ca = FailingCA(*[fault] * FAILURES)
    guarded = guard(ca, now)
    assert is_open() == 0
    with capture_logs() as lines:
        await fail(guarded)
        with pytest.raises(NotSent, match="left alone") as refused:
            await guarded.issue(REQUEST)
        assert refused.value.retry_after == FIRST_REST_SECONDS
        assert len(ca.asked) == FAILURES, "nothing reaches it while it rests"
        assert is_open() == 1
        now[0] += FIRST_REST_SECONDS
        assert cast("Any", await guarded.issue(REQUEST)) == "issued"
    assert is_open() == 0
    assert [line["log_level"] for line in lines] == ["error", "info"]


async def test_a_refusal_is_an_answer() -> None:
    ca = FailingCA(*[UpstreamRejected("no")] * FAILURES * 2)
    guarded = guard(ca, [0.0])
    for _ in range(FAILURES * 2):
        with pytest.raises(UpstreamRejected):
            await guarded.issue(REQUEST)


async def test_questions_about_earlier_requests_reach_a_ca_that_rests_and_end_its_rest() -> None:
    ca = FailingCA(*[NotSent("no route")] * FAILURES)
    guarded = guard(ca, [0.0])
    await fail(guarded)
    await guarded.find(REQUEST)
    assert is_open() == 0
    await guarded.poll(REQUEST, "reference")
    await guarded.revoke(b"", 1, RevocationReason.SUPERSEDED, datetime.now(UTC))
    assert ca.asked[FAILURES:] == ["find", "poll", "revoke"]


async def test_a_ca_that_asks_for_time_gets_it() -> None:
    now = [0.0]
    guarded = guard(FailingCA(*[Unavailable("503", 90)] * FAILURES), now)
    await fail(guarded)
    with pytest.raises(NotSent) as refused:
        await guarded.issue(REQUEST)
    assert refused.value.retry_after == 90


async def test_credentials_that_are_not_taken_are_told_once() -> None:
    guarded = guard(FailingCA(*[AuthFailed("the token has expired")] * 3, "issued", AuthFailed("again")), [0.0])
    with capture_logs() as lines:
        await fail(guarded, 3)
        await guarded.issue(REQUEST)
        await fail(guarded, 1)
    assert [(line["event"], line["cause"]) for line in lines] == [
        ("the upstream CA does not take our credentials", "the token has expired"),
        ("the upstream CA does not take our credentials", "again"),
    ]


@pytest.mark.parametrize(
    ("ask", "failed"),
    [
        pytest.param(lambda ca: ca.revoke(b"", 1, RevocationReason.SUPERSEDED, datetime.now(UTC)), UnknownResult, id="revoke"),
        pytest.param(lambda ca: ca.revive(b"", 1, datetime.now(UTC)), UnknownResult, id="revive"),
        pytest.param(lambda ca: ca.crl(), NotSent, id="crl"),
        pytest.param(lambda ca: ca.health(), NotSent, id="health"),
        pytest.param(lambda ca: ca.renewal_hint(b""), NotSent, id="renewal hint"),
    ],
)
async def test_no_question_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch, ask: Any, failed: type[Exception]) -> None:
    monkeypatch.setattr("gateway.ca.circuit.UPSTREAM_CALL_SECONDS", 0.01)
    with pytest.raises(failed, match="did not answer within"):
        await ask(guard(FailingCA("hangs"), [0.0]))


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        pytest.param(NotSent("no route"), "broke off: no route", id="its own words"),
        pytest.param(KeyError("password"), "broke off: KeyError", id="not those of others"),
        pytest.param("hangs", "broke off: the CA did not answer within 0.01 seconds", id="no end"),
    ],
)
async def test_a_trial_that_breaks_off_is_a_finding(monkeypatch: pytest.MonkeyPatch, fault: object, finding: str) -> None:
    monkeypatch.setattr("gateway.ca.circuit.UPSTREAM_CALL_SECONDS", 0.01)
    with capture_logs():
        [trial] = await guard(FailingCA(fault), [0.0]).check()
    assert (trial.good, trial.finding) == (False, finding)
