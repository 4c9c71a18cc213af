"""Durations as the configuration and the commands write them: a whole number and a unit."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(0|[1-9][0-9]{0,9})([smhdw])", re.ASCII)
_MAX_SECONDS = 36500 * 86400


def parse_duration(value: object) -> timedelta:
    """Read "90s", "15m", "12h", "30d" or "2w"; a number without a unit is refused. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a whole number with a unit: "90s", "15m", "12h", "30d" or "2w"')
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > _MAX_SECONDS:
        raise ValueError("must not be longer than 36500d")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration as the configuration does, in the largest unit that divides it; weeks are written as days."""
    seconds = int(duration.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"
