"""Slots are handed out once, and those of processes that are gone are cleared."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.supervise.balance import SLOTS_A_WORKER, Balance
from gateway.web.share import SLOT_BYTES, Share


@pytest.fixture
def balance() -> Iterator[Balance]:
    made = Balance.create(2)
    yield made
    made.close()


def holding(balance: Balance, count: int) -> tuple[int, Share]:
    slot = balance.take()
    assert slot is not None
    share = Share.attach(balance.descriptor, slot)
    share.offer()
    for _ in range(count):
        share.enter()
    return slot, share


def test_no_slot_is_handed_out_twice(balance: Balance) -> None:
    slots = [balance.take() for _ in range(2 * SLOTS_A_WORKER)]
    assert slots == list(range(2 * SLOTS_A_WORKER))
    assert balance.take() is None
    balance.give_back(5)
    balance.give_back(3)
    assert (balance.take(), balance.take(), balance.take()) == (3, 5, None)


def test_who_has_no_slot_gives_none_back(balance: Balance) -> None:
    balance.give_back(None)
    assert balance.take() == 0


def test_nobody_leaves_connections_to_a_dead_worker(balance: Balance) -> None:
    _, busy = holding(balance, 3)
    slot, _ = holding(balance, 0)
    assert busy.less_loaded() is not None
    balance.give_back(slot)
    assert busy.less_loaded() is None


def test_one_slot_is_cleared_and_no_other(balance: Balance) -> None:
    first, _ = holding(balance, 3)
    _, second = holding(balance, 2)
    _, third = holding(balance, 1)
    balance.give_back(first)
    found = second.less_loaded()
    assert found is not None
    assert (found.slot, third.less_loaded()) == (2, None)


def test_another_process_sees_the_same_memory(balance: Balance) -> None:
    _, busy = holding(balance, 2)
    program = (
        "import sys; from gateway.web.share import Share; s = Share.attach(int(sys.argv[1]), 1); s.offer(); s.enter();"
        "print(s.less_loaded())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(balance.descriptor)],
        pass_fds=(balance.descriptor,),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    found = busy.less_loaded()
    assert found is not None
    assert (found.slot, found.taken) == (1, 1)


def test_nobody_changes_the_size_of_the_memory(balance: Balance) -> None:
    seals = fcntl.fcntl(balance.descriptor, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    assert seals & fcntl.F_SEAL_GROW
    with pytest.raises(PermissionError):
        os.ftruncate(balance.descriptor, 0)
    assert os.fstat(balance.descriptor).st_size == 2 * SLOTS_A_WORKER * SLOT_BYTES


def test_the_descriptor_is_inherited_only_where_it_is_passed(balance: Balance) -> None:
    assert not os.get_inheritable(balance.descriptor)
