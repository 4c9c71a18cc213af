"""Who is in a slot when several want to replace it at once."""

import asyncio
from typing import Any, cast

import pytest

from gateway.supervise.plan import Plan
from gateway.supervise.process import WorkerRefusedError
from gateway.supervise.supervisor import Supervisor
from tests.unit.supervise.processes import FakeWorker


class Service:
    """A supervisor with one slot, whose workers begin when the test lets them."""

    def __init__(self, plan: Plan) -> None:
        self.supervisor = cast("Any", Supervisor(plan))
        self.workers = self.supervisor.workers
        self.workers.begin = self.begin
        [self.slot] = self.supervisor._slots
        self.old = self.slot.current = self.add()
        self.may_begin = asyncio.Event()

    async def begin(self, _slot: int) -> FakeWorker:
        await self.may_begin.wait()
        return self.add()

    def add(self) -> FakeWorker:
        worker = FakeWorker(f"worker {len(self.workers._living)}")
        self.workers._living.add(worker)
        return worker


@pytest.fixture
async def service(plan: Plan) -> Any:
    made = Service(plan)
    yield made
    made.workers._balance.close()


async def test_a_worker_that_a_restart_has_replaced_is_not_replaced_again(service: Service) -> None:
    restart = asyncio.create_task(service.supervisor._restarts.roll("SIGUSR2", None, lambda _: None))
    await asyncio.sleep(0.01)
    replace = asyncio.create_task(service.supervisor._replace_in_order(service.old))
    await asyncio.sleep(0.01)
    service.may_begin.set()
    await asyncio.gather(restart, replace)
    assert service.workers.serving() == (service.slot.current,)
    assert service.slot.current is not service.old
    assert not service.old.lives


async def test_a_worker_that_does_not_answer_is_replaced_and_ended(service: Service) -> None:
    service.may_begin.set()
    await service.supervisor._replace_in_order(service.old)
    assert service.workers.serving() == (service.slot.current,)
    assert not service.old.lives


async def test_a_worker_that_died_while_its_successor_began_is_not_ended_twice(service: Service) -> None:
    replace = asyncio.create_task(service.supervisor._replace_in_order(service.old))
    await asyncio.sleep(0.01)
    service.old.kill()
    service.slot.current = None
    service.may_begin.set()
    await replace
    assert service.workers.serving() == (service.slot.current,)


async def test_a_slot_whose_worker_cannot_be_replaced_keeps_it(service: Service) -> None:
    async def refuse(_slot: int) -> FakeWorker:
        raise WorkerRefusedError("no")

    service.workers.begin = refuse
    await service.supervisor._replace_in_order(service.old)
    assert service.slot.current is service.old
    assert service.old.lives
