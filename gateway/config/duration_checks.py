"""Durations that make no sense: of no length, or longer than what they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from gateway.config.document import DataPath, Problem

MAX_AGE = timedelta(days=7)
"""Most that `max_age` may be: a used challenge is remembered as long as it could be presented again."""
MAX_SKEW = timedelta(hours=1)
_ZERO = timedelta(0)


def positive(path: DataPath, duration: timedelta | None) -> Iterator[Problem]:
    """Yield a problem where a duration is there and not longer than zero."""
    if duration is not None and duration <= _ZERO:
        yield Problem(path, "must be longer than zero")


def check_token_times(max_age: timedelta, skew: timedelta) -> Iterator[Problem]:
    """Judge how old a signed token may be, and how wrong its issuer's clock; paths begin at the credential."""
    yield from positive(("max_age",), max_age)
    if max_age > MAX_AGE:
        yield Problem(("max_age",), f"must not be longer than {MAX_AGE.days}d")
    if skew > MAX_SKEW:
        yield Problem(("skew",), "must not be longer than 1h: so wrong a clock must be set")
    if skew >= max_age > _ZERO:
        yield Problem(("skew",), "must be shorter than max_age")
