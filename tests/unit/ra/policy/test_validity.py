"""Times that were asked for: given as they are, or refused; and what the credential bounds (RFC 8555 §7.4)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.config.policy import ValidityRule
from gateway.model import UNLIMITED_NOT_AFTER, AskedValidity
from gateway.ra.policy.validity import judge_validity

NOW = datetime(2027, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
WHOLE = NOW.replace(microsecond=0)
BEGIN = WHOLE - HOUR


def rule(**fields: Any) -> ValidityRule:
    return ValidityRule.model_validate({"default": "90d", "max": "100d", "backdate": "1h"} | fields, strict=False)


def asked(begin: timedelta | None = None, end: timedelta | None = None, at: timedelta | None = None) -> AskedValidity:
    times = [None if shift is None else NOW + shift for shift in (begin, end, at)]
    return AskedValidity(*times)


@pytest.mark.parametrize(
    ("wish", "begin", "end"),
    [
        pytest.param(AskedValidity(), BEGIN, WHOLE + 90 * DAY, id="nothing"),
        pytest.param(asked(end=30 * DAY), BEGIN, WHOLE + 30 * DAY, id="end"),
        pytest.param(asked(begin=2 * DAY), WHOLE + 2 * DAY, WHOLE + 92 * DAY, id="begin to come, then the usual length"),
        pytest.param(asked(begin=-HOUR), BEGIN, WHOLE + 90 * DAY, id="begin as far back as it may lie"),
        pytest.param(asked(begin=-3 * HOUR, at=-2 * HOUR), BEGIN - 2 * HOUR, WHOLE + 90 * DAY, id="it asked a while ago"),
        pytest.param(asked(2 * DAY, 5 * DAY), WHOLE + 2 * DAY, WHOLE + 5 * DAY, id="both"),
        pytest.param(asked(end=100 * DAY - HOUR - SECOND), BEGIN, WHOLE + 100 * DAY - HOUR - SECOND, id="all that is allowed"),
    ],
)
def test_times_are_given_as_asked(wish: AskedValidity, begin: datetime, end: datetime) -> None:
    times, verdicts = judge_validity(rule(), NOW, None, None, wish)
    assert times == (begin, end)
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("fields", "wish", "limits"),
    [
        pytest.param({}, asked(end=101 * DAY), {}, id="longer than max"),
        pytest.param({}, asked(end=100 * DAY), {}, id="longer than max by the backdating"),
        pytest.param({}, asked(begin=-2 * HOUR), {}, id="begins too early"),
        pytest.param({}, asked(begin=-4 * HOUR, at=-2 * HOUR), {}, id="began too early when it asked"),
        pytest.param({}, asked(end=-SECOND), {}, id="ends in the past"),
        pytest.param({}, asked(5 * DAY, 4 * DAY), {}, id="ends before it begins"),
        pytest.param({}, asked(50 * DAY, 120 * DAY), {}, id="short, and ends later than one from now could"),
        pytest.param({}, asked(begin=120 * DAY), {}, id="begins later than one from now could end"),
        pytest.param({}, asked(4 * DAY, 8 * DAY), {"cap": 7 * DAY}, id="short, and ends later than the account's from now could"),
        pytest.param({}, asked(end=30 * DAY), {"ca_not_after": NOW + 29 * DAY}, id="ends after its CA"),
        pytest.param({}, asked(begin=-HOUR), {"ca_not_before": NOW - SECOND}, id="begins before its CA"),
        pytest.param({"mode": "warn"}, asked(end=30 * DAY), {"ca_not_after": NOW + 29 * DAY}, id="after its CA, in mode warn"),
        pytest.param({"mode": "off"}, asked(5 * DAY, 4 * DAY), {}, id="backwards, in mode off"),
        pytest.param({"not_after": "unlimited"}, asked(end=30 * DAY), {"ca_not_after": NOW + 29 * DAY}, id="unlimited, after CA"),
        pytest.param({}, asked(end=8 * DAY), {"cap": 7 * DAY}, id="longer than the account may"),
        pytest.param({"mode": "off"}, asked(end=8 * DAY), {"cap": 7 * DAY}, id="longer than the account may, in mode off"),
    ],
)
def test_times_that_cannot_be_given_are_refused(fields: dict[str, Any], wish: AskedValidity, limits: dict[str, Any]) -> None:
    given = {"ca_not_before": None, "ca_not_after": None} | limits
    _, verdicts = judge_validity(rule(**fields), NOW, given["ca_not_before"], given["ca_not_after"], wish, given.get("cap"))
    assert [verdict for verdict in verdicts if not verdict.passed and verdict.mode == "enforce"]


def test_rule_that_warns_gives_more_than_max_and_tells() -> None:
    (_, end), verdicts = judge_validity(rule(mode="warn"), NOW, None, None, asked(end=200 * DAY))
    assert end == WHOLE + 200 * DAY
    assert [verdict.mode for verdict in verdicts if not verdict.passed] == ["warn"]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        pytest.param({}, BEGIN + 7 * DAY - SECOND, id="default is cut"),
        pytest.param({"default": "2d"}, WHOLE + 2 * DAY, id="default is shorter"),
        pytest.param({"not_after": "unlimited"}, BEGIN + 7 * DAY - SECOND, id="unlimited is cut"),
    ],
)
def test_cap_of_the_account_cuts_what_was_not_asked_for(fields: dict[str, Any], end: datetime) -> None:
    (_, until), verdicts = judge_validity(rule(**fields), NOW, None, None, None, 7 * DAY)
    assert until == end
    assert all(verdict.passed for verdict in verdicts)


def test_unlimited_certificate_that_begins_later_has_no_end() -> None:
    (begin, end), _ = judge_validity(rule(not_after="unlimited"), NOW, None, None, asked(begin=DAY))
    assert (begin, end) == (WHOLE + DAY, UNLIMITED_NOT_AFTER)
