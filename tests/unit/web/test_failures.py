"""Failures of one address are limited where a profile says so, for a window, and nobody else is."""

from datetime import timedelta

import pytest

from gateway.model import ProfileName
from gateway.web import failures
from gateway.web.failures import FailureCounter
from gateway.web.generation import FailureLimit

CORP, LAB = ProfileName("corp"), ProfileName("lab")
LIMIT = FailureLimit(3, timedelta(seconds=60))
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counter(clock: Clock) -> FailureCounter:
    return FailureCounter(clock)


def fail(counter: FailureCounter, times: int, source: str = HERE, profile: ProfileName = CORP) -> None:
    for _ in range(times):
        counter.count(profile, LIMIT, source)


def test_an_address_is_refused_from_its_last_failure_on(counter: FailureCounter, clock: Clock) -> None:
    fail(counter, 2)
    assert counter.retry_after(CORP, LIMIT, HERE) is None
    clock.now += 20.5
    fail(counter, 1)
    assert counter.retry_after(CORP, LIMIT, HERE) == 40
    clock.now += 39.4
    assert counter.retry_after(CORP, LIMIT, HERE) == 1


def test_a_window_ends_by_itself(counter: FailureCounter, clock: Clock) -> None:
    fail(counter, 3)
    clock.now += 60
    assert counter.retry_after(CORP, LIMIT, HERE) is None
    fail(counter, 2)
    assert counter.retry_after(CORP, LIMIT, HERE) is None
    fail(counter, 1)
    assert counter.retry_after(CORP, LIMIT, HERE) == 60


@pytest.mark.parametrize(
    ("profile", "source", "heard"),
    [
        pytest.param(CORP, HERE, False, id="itself"),
        pytest.param(CORP, ELSEWHERE, True, id="another-address"),
        pytest.param(LAB, HERE, True, id="another-profile"),
    ],
)
def test_whom_it_concerns(counter: FailureCounter, profile: ProfileName, source: str, heard: bool) -> None:
    fail(counter, 3)
    assert (counter.retry_after(profile, LIMIT, source) is None) == heard


@pytest.mark.parametrize(
    ("other", "heard"),
    [
        pytest.param("2001:db8::ffff", False, id="same-64"),
        pytest.param("2001:db8:0:1::1", True, id="another-64"),
        pytest.param("2001:db8::1%eth0", False, id="scoped"),
    ],
)
def test_ipv6_counts_by_64(counter: FailureCounter, other: str, heard: bool) -> None:
    fail(counter, 3, "2001:db8::1")
    assert (counter.retry_after(CORP, LIMIT, other) is None) == heard


def test_without_a_limit_nothing_is_kept(counter: FailureCounter) -> None:
    for _ in range(100):
        counter.count(CORP, None, HERE)
    assert counter.retry_after(CORP, None, HERE) is None
    assert counter.retry_after(CORP, LIMIT, HERE) is None


def test_a_tighter_limit_applies_at_once(counter: FailureCounter) -> None:
    fail(counter, 1)
    assert counter.retry_after(CORP, FailureLimit(1, timedelta(seconds=10)), HERE) == 10


def test_memory_is_bounded(counter: FailureCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_ADDRESSES", 4)
    fail(counter, 3)
    fail(counter, 3, ELSEWHERE)
    for n in range(3):
        fail(counter, 1, f"198.51.100.{n}")
    assert counter.retry_after(CORP, LIMIT, HERE) is None, "the one that failed first makes room"
    assert counter.retry_after(CORP, LIMIT, ELSEWHERE) is not None


def test_who_fails_again_in_a_new_window_is_not_the_oldest(
    counter: FailureCounter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MAX_ADDRESSES", 2)
    fail(counter, 3)
    fail(counter, 3, ELSEWHERE)
    clock.now += 61
    fail(counter, 3)
    fail(counter, 1, "198.51.100.1")
    assert counter.retry_after(CORP, LIMIT, HERE) == 60
