"""Medians of many calls."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter


def median_microseconds(work: Callable[[], object], rounds: int = 200) -> float:
    """Return the median time of one call."""
    times = []
    for _ in range(rounds):
        begun = perf_counter()
        work()
        times.append(perf_counter() - begun)
    return statistics.median(times) * 1e6
