"""Arguments of operations: read in one strict way, or refused by name."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assemble.arguments import Arguments, BadArgumentError
from gateway.model import RevocationReason, SanKind
from gateway.store.interfaces import LedgerState


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        pytest.param(lambda a: a.text("x"), "demo", "demo", id="text"),
        pytest.param(lambda a: a.integer("x", 1, 0, 10), None, 1, id="default"),
        pytest.param(lambda a: a.integer("x", 1, 0, 10), "7", 7, id="integer-of-a-query"),
        pytest.param(lambda a: a.integer("x", 1, 0, 10), 7, 7, id="integer-of-json"),
        pytest.param(lambda a: a.flag("x"), "true", True, id="flag-of-a-query"),
        pytest.param(lambda a: a.flag("x"), False, False, id="flag-of-json"),
        pytest.param(lambda a: a.time("x"), "2027-01-31", datetime(2027, 1, 31, tzinfo=UTC), id="date"),
        pytest.param(lambda a: a.time("x"), "2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC), id="zone"),
        pytest.param(lambda a: a.serial("x"), "0a:FF", 0x0AFF, id="serial"),
        pytest.param(lambda a: a.members("x", LedgerState), "open,unknown", (LedgerState.OPEN, LedgerState.UNKNOWN), id="states"),
        pytest.param(lambda a: a.members("x", LedgerState), None, (), id="no-states"),
        pytest.param(lambda a: a.sans("x"), ["dns:a.b", "ip:::1"], ((SanKind.DNS, "a.b"), (SanKind.IP, "::1")), id="sans"),
        pytest.param(lambda a: a.sans("x"), [], (), id="no-sans"),
        pytest.param(lambda a: a.sans("x"), None, None, id="unbound"),
        pytest.param(
            lambda a: a.revocation_reason("x", RevocationReason.UNSPECIFIED),
            "keyCompromise",
            RevocationReason.KEY_COMPROMISE,
            id="rfc-name",
        ),
        pytest.param(
            lambda a: a.revocation_reason("x", RevocationReason.UNSPECIFIED),
            "key_compromise",
            RevocationReason.KEY_COMPROMISE,
            id="our-name",
        ),
    ],
)
def test_what_is_read(read: Callable[[Arguments], Any], value: object, expected: object) -> None:
    assert read(Arguments({} if value is None else {"x": value})) == expected


READERS: list[Callable[[Arguments], Any]] = [
    lambda a: a.text("x"),
    lambda a: a.optional_integer("x", 1, 9),
    lambda a: a.flag("x"),
    lambda a: a.time("x"),
    lambda a: a.serial("x"),
    lambda a: a.members("x", LedgerState),
    lambda a: a.sans("x"),
    lambda a: a.certificates("x"),
    lambda a: a.revocation_reason("x", RevocationReason.UNSPECIFIED),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_anything_is_read_or_refused(value: object) -> None:
    for read in READERS:
        with suppress(BadArgumentError):
            read(Arguments({"x": value}))


@pytest.mark.parametrize("value", [True, 10, -1, "10", "1.0", "٣", "9" * 5000, 1.5], ids=repr)
def test_integers_out_of_bounds(value: object) -> None:
    with pytest.raises(BadArgumentError):
        Arguments({"x": value}).integer("x", 1, 0, 9)
