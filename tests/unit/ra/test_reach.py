"""CAs that cannot be reached: longer and longer rests, one trial after each, and none that lasts for ever."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.model import UpstreamCAName
from gateway.ra.reach import Reach
from gateway.ra.timing import Timing

CA, OTHER = UpstreamCAName("far"), UpstreamCAName("near")
TIMING = Timing()
SECOND = timedelta(seconds=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reach(clock: Clock) -> Reach:
    return Reach(clock, TIMING)


def test_nothing_is_known_at_first(reach: Reach) -> None:
    assert reach.admit(CA)
    assert reach.is_reached(CA)
    assert reach.resting() == frozenset()


def test_rests_grow_up_to_a_bound(reach: Reach, clock: Clock) -> None:
    rests = []
    for _ in range(8):
        rests.append(reach.fail(CA))
        clock.now += rests[-1]
        assert reach.admit(CA)
    assert rests[:3] == [TIMING.first_trial, TIMING.first_trial * 2, TIMING.first_trial * 4]
    assert rests[-1] == TIMING.longest_trial


@pytest.mark.parametrize(
    ("wish", "rest"),
    [
        pytest.param(0, TIMING.first_trial, id="none"),
        pytest.param(-5, TIMING.first_trial, id="negative"),
        pytest.param(60, 60 * SECOND, id="longer"),
        pytest.param(10**15, TIMING.longest_trial, id="absurd"),
    ],
)
def test_wish_of_the_ca_is_kept_within_bounds(reach: Reach, wish: int, rest: timedelta) -> None:
    assert reach.fail(CA, wish) == rest


def test_failures_of_others_do_not_lengthen_a_rest(reach: Reach, clock: Clock) -> None:
    rest = reach.fail(CA)
    clock.now += SECOND
    assert {reach.fail(CA, 60) for _ in range(100)} == {rest - SECOND}
    clock.now += rest - SECOND
    assert reach.admit(CA)


def test_one_trial_after_a_rest(reach: Reach, clock: Clock) -> None:
    rest = reach.fail(CA)
    assert not reach.admit(CA)
    assert reach.resting() == {CA}
    clock.now += rest
    assert reach.resting() == frozenset()
    assert reach.admit(CA)
    assert not reach.admit(CA)
    assert reach.resting() == {CA}
    assert not reach.is_reached(CA)


def test_trial_that_has_no_end_is_followed_by_another(reach: Reach, clock: Clock) -> None:
    clock.now += reach.fail(CA)
    assert reach.admit(CA)
    clock.now += TIMING.trial
    assert reach.admit(CA)


def test_answer_ends_the_rest_and_forgets_how_long_it_was(reach: Reach, clock: Clock) -> None:
    for _ in range(5):
        clock.now += reach.fail(CA)
    reach.answer(CA)
    assert reach.admit(CA)
    assert reach.is_reached(CA)
    assert reach.fail(CA) == TIMING.first_trial


def test_each_ca_rests_for_itself(reach: Reach) -> None:
    reach.fail(CA)
    assert reach.admit(OTHER)
    reach.answer(OTHER)
    assert not reach.admit(CA)


def test_clock_that_ran_ahead_keeps_nobody_from_a_trial(reach: Reach, clock: Clock) -> None:
    clock.now += timedelta(days=10)
    reach.fail(CA)
    clock.now -= timedelta(days=10)
    assert reach.resting() == frozenset()
    assert reach.admit(CA)
