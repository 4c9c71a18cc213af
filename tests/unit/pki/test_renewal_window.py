"""When to renew follows from a certificate's life."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pki.renewal_window import opening_window, past_window, suggest_window

START = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("life", "before", "point"),
    [
        pytest.param(90 * DAY, None, 60 * DAY, id="a third before the end"),
        pytest.param(10 * DAY, None, 10 * DAY - 10 * DAY / 3, id="ten days are not short"),
        pytest.param(6 * DAY, None, 3 * DAY, id="half of a short life"),
        pytest.param(90 * DAY, 14 * DAY, 76 * DAY, id="as the profile says"),
    ],
)
def test_the_window_is_around_a_point(life: timedelta, before: timedelta | None, point: timedelta) -> None:
    start, end = suggest_window(START, START + life, before)
    assert abs(start - (START + point - life / 100)) < timedelta(seconds=1)
    assert abs(end - (START + point + life / 100)) < timedelta(seconds=1)


def test_a_profile_that_asks_for_more_than_the_life_means_at_once() -> None:
    start, end = suggest_window(START, START + DAY, 30 * DAY)
    assert start == START
    assert end == START + timedelta(minutes=14, seconds=24)


@given(
    st.integers(min_value=0, max_value=10**9),
    st.none() | st.integers(min_value=0, max_value=10**9),
    st.integers(min_value=0, max_value=999999),
)
def test_it_always_begins_before_it_ends_and_is_inside(life: int, before: int | None, microseconds: int) -> None:
    begin = START.replace(microsecond=microseconds)
    end_of_life = begin + timedelta(seconds=life)
    start, end = suggest_window(begin, end_of_life, None if before is None else timedelta(seconds=before))
    assert end - start >= timedelta(seconds=1)
    assert begin - timedelta(seconds=1) <= start
    assert end <= max(end_of_life, begin + timedelta(seconds=2))


@pytest.mark.parametrize(
    ("since", "end"),
    [
        pytest.param(START + 5 * DAY, START + 5 * DAY, id="while it is in force"),
        pytest.param(START - 5 * DAY, START + timedelta(seconds=1), id="before it began"),
    ],
)
def test_what_must_be_replaced_has_a_window_that_is_over(since: datetime, end: datetime) -> None:
    assert past_window(START, since) == (START, end)


@pytest.mark.parametrize(
    ("opens", "left"),
    [
        pytest.param(None, 30 * DAY, id="the last third"),
        pytest.param(14 * DAY, 14 * DAY, id="as the profile allows"),
        pytest.param(100 * DAY, 90 * DAY, id="the whole life"),
    ],
)
def test_half_of_the_time_in_which_renewal_is_open(opens: timedelta | None, left: timedelta) -> None:
    end = START + 90 * DAY
    assert opening_window(START, end, opens) == (end - left, end - left / 2)
