"""Password derivations take turns off the loop, a short queue waits, and more are turned away."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.errors import Reason, Rejection
from gateway.web import derivations
from gateway.web.derivations import Derivations


class Work:
    """Blocks until it is let go, and knows how many ran at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = self.most = 0

    def __call__(self, number: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.go.wait(10)
        self.running -= 1
        return number


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.set()


async def started(*tasks: asyncio.Task[int]) -> None:
    """Let every task come as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_one_at_a_time(executor: ThreadPoolExecutor, work: Work) -> None:
    queue = Derivations(executor)
    tasks = [asyncio.create_task(queue.begin("192.0.2.1", work, number)) for number in range(4)]
    await started(*tasks)
    work.go.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]
    assert work.most == 1


async def test_more_than_can_wait_are_turned_away(
    executor: ThreadPoolExecutor, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derivations, "MAX_WAITING", 2)
    queue = Derivations(executor)
    tasks = [asyncio.create_task(queue.begin("192.0.2.1", work, number)) for number in range(3)]
    await started(*tasks)
    with pytest.raises(Rejection) as refused:
        await queue.begin("192.0.2.1", work, 3)
    assert refused.value.reason is Reason.OVERLOADED
    answer = asyncio.create_task(queue.finish(work, 4))
    await started(answer)
    work.go.set()
    assert await asyncio.gather(*tasks, answer) == [0, 1, 2, 4]
    assert await queue.begin("192.0.2.1", work, 5) == 5, "and there is room again"


async def test_who_no_longer_waits_frees_no_thread(executor: ThreadPoolExecutor, work: Work) -> None:
    queue = Derivations(executor)
    gone = asyncio.create_task(queue.begin("192.0.2.1", work, 0))
    await started(gone)
    gone.cancel()
    after = asyncio.create_task(queue.begin("192.0.2.1", work, 1))
    await asyncio.gather(gone, return_exceptions=True)
    await started(after)
    work.go.set()
    assert await after == 1
    assert work.most == 1


async def test_a_failure_gives_the_turn_on(executor: ThreadPoolExecutor) -> None:
    queue = Derivations(executor)
    with pytest.raises(ZeroDivisionError):
        await queue.begin("192.0.2.1", lambda: 1 // 0)
    assert await queue.begin("192.0.2.1", lambda: 1) == 1


async def test_one_source_does_not_turn_others_away(executor: ThreadPoolExecutor, work: Work) -> None:
    queue = Derivations(executor)
    of_one = [asyncio.create_task(queue.begin("192.0.2.1", work, number)) for number in range(derivations.MAX_OF_ONE_SOURCE)]
    await started(*of_one)
    with pytest.raises(Rejection) as refused:
        await queue.begin("192.0.2.1", work, 98)
    assert refused.value.reason is Reason.OVERLOADED
    other = asyncio.create_task(queue.begin("192.0.2.2", work, 99))
    await started(other)
    work.go.set()
    assert (await asyncio.gather(*of_one, other))[-1] == 99
    assert await queue.begin("192.0.2.1", work, 5) == 5, "and there is room again"
