"""Each worker counts what it holds in its own slot and finds out who holds less."""

import pytest

from gateway.web.share import SLOT_BYTES, Other, Share


def shares(*held: int | None) -> list[Share]:
    """Return a share for each worker, with so many open connections; None is one that does not accept."""
    slots = memoryview(bytearray(SLOT_BYTES * len(held))).cast("Q")
    made = [Share(slots, number) for number in range(len(held))]
    for share, count in zip(made, held, strict=True):
        for _ in range(count or 0):
            share.enter()
        if count is not None:
            share.offer()
    return made


@pytest.mark.parametrize(
    ("held", "to"),
    [
        pytest.param((0, 0), None, id="nobody holds any"),
        pytest.param((1, 1), None, id="equal"),
        pytest.param((1, 2), None, id="the other holds more"),
        pytest.param((1, 0), 1, id="one more than the other"),
        pytest.param((8, 7), None, id="one more of eight"),
        pytest.param((9, 7), 1, id="two more of nine"),
        pytest.param((100, 89), None, id="a surplus below an eighth"),
        pytest.param((100, 87), 1, id="a surplus above an eighth"),
        pytest.param((3, 2, 0, 1), 2, id="the least loaded of many"),
        pytest.param((3, 1, 1), 1, id="the first of the least loaded"),
        pytest.param((3, None), None, id="the other does not accept"),
        pytest.param((3, None, 1), 2, id="one of the others does not accept"),
        pytest.param((5,), None, id="alone"),
    ],
)
def test_the_least_loaded_worker_is_found(held: tuple[int | None, ...], to: int | None) -> None:
    found = shares(*held)[0].less_loaded()
    assert (None if found is None else found.slot) == to


def test_others_see_what_a_worker_ever_took() -> None:
    busy, other = shares(3, 1)
    assert busy.less_loaded() == Other(slot=1, taken=1)
    other.enter()
    other.leave()
    assert busy.less_loaded() == Other(slot=1, taken=2)


def test_a_worker_that_withdrew_is_waited_for_no_more() -> None:
    busy, other = shares(3, 1)
    other.withdraw()
    other.leave()
    assert busy.less_loaded() is None
    other.offer()
    assert busy.less_loaded() == Other(slot=1, taken=1)


def test_the_count_of_what_was_taken_never_reaches_the_open_connections() -> None:
    busy, other = shares(2, 0)
    other._taken = 0xFFFFFFFF
    other.enter()
    assert busy.less_loaded() == Other(slot=1, taken=0)
    other.leave()
    assert busy.less_loaded() == Other(slot=1, taken=0)


def test_one_that_is_alone_leaves_nothing() -> None:
    share = Share.alone()
    share.offer()
    share.enter()
    assert share.less_loaded() is None


def test_others_are_those_that_accept() -> None:
    share, other, _ = shares(1, 0, None)
    assert share.has_others()
    other.withdraw()
    assert not share.has_others()
    assert other.has_others()
    assert not Share.alone().has_others()
