"""Columns: exact times, wide serial numbers, packed chains."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import UNLIMITED_NOT_AFTER
from gateway.store.rows import from_micros, pack_chain, to_micros, to_serial, unpack_chain


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact(at: datetime) -> None:
    assert from_micros(to_micros(at)) == at


def test_times_of_other_zones_become_utc() -> None:
    at = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert from_micros(to_micros(at)) == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_end_of_time_fits_a_column() -> None:
    assert to_micros(UNLIMITED_NOT_AFTER) < 1 << 63


def test_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        to_micros(datetime(2026, 1, 1))  # noqa: DTZ001


@given(st.integers(0, 1 << 160))
def test_serials(serial: int) -> None:
    text = to_serial(serial)
    assert text is not None
    assert int(text, 16) == serial


@given(st.lists(st.binary(max_size=50), max_size=5).map(tuple))
def test_chains(chain: tuple[bytes, ...]) -> None:
    digest, packed = pack_chain(chain)
    assert unpack_chain(packed) == chain
    assert pack_chain(chain)[0] == digest
