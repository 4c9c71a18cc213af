"""A reload among workers that answer, refuse, hang and drain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from gateway.supervise.control import Abort, Commit, Prepare, Record
from gateway.supervise.observers import Observers
from gateway.supervise.outcome import Outcome
from gateway.supervise.plan import Plan
from gateway.supervise.process import Stage, WorkerProcess, WorkerRefusedError, WorkerSilentError
from gateway.supervise.reload import PREPARE_SECONDS, Reloads
from gateway.supervise.workers import Workers
from tests.unit.supervise.processes import FakeWorker


class Service:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.workers = Workers(plan, Observers([]), lambda _worker, _message: None)
        self.replaced: list[WorkerProcess] = []
        self.reloads = Reloads(plan, self.workers, Observers([]), self.replaced.append)

    def have(self, *workers: FakeWorker) -> None:
        self.workers._living = set(workers)
        self.workers._someone.set()

    async def reload(self, old: str, new: str) -> Outcome:
        self.plan.path.write_text(self.plan.path.read_text().replace(old, new))
        return await self.reloads.ask("uid:0")


@pytest.fixture
async def service(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr("gateway.supervise.reload.PAUSE_SECONDS", 0)
    service = Service(plan)
    running = asyncio.create_task(service.reloads.run())
    yield service
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    service.workers._balance.close()


@pytest.mark.parametrize("refused", [WorkerSilentError("silent"), WorkerRefusedError("no", 1)], ids=["silent", "refuses"])
async def test_a_draining_worker_that_does_not_follow_is_killed(service: Service, refused: WorkerRefusedError) -> None:
    serves, follows = FakeWorker("serves"), FakeWorker("follows", Stage.DRAINING)
    stays = FakeWorker("stays", Stage.DRAINING, Prepare=refused)
    service.have(serves, follows, stays)
    outcome = await service.reload("ttl: 1h", "ttl: 2h")
    assert (outcome.ok, service.workers.accepted.generation) == (True, 2)
    assert [worker.lives for worker in (serves, follows, stays)] == [True, True, False]
    assert [worker.generation for worker in (serves, follows)] == [2, 2]
    assert Commit(2) not in [question for question, _ in stays.asked]
    assert serves.asked[0][1] == PREPARE_SECONDS
    assert follows.asked[0][1] == stays.asked[0][1] <= 5


async def test_a_draining_worker_goes_on_when_nothing_is_put_in_force(service: Service) -> None:
    serves = FakeWorker("serves", Prepare=WorkerSilentError("silent"))
    drains = FakeWorker("drains", Stage.DRAINING, Prepare=WorkerSilentError("silent"))
    service.have(serves, drains)
    outcome = await service.reload("ttl: 1h", "ttl: 2h")
    assert (outcome.ok, outcome.text, service.replaced) == (False, "silent", [serves])
    assert serves.lives
    assert drains.lives
    assert drains.told == [Abort(2)]


@pytest.mark.parametrize("kind", ["Prepare", "Record"])
async def test_a_number_that_was_prepared_is_not_given_again(service: Service, kind: str) -> None:
    worker = FakeWorker("one")
    worker.refusals[kind] = WorkerSilentError("silent")
    service.have(worker)
    assert not (await service.reload("ttl: 1h", "ttl: 2h")).ok
    worker.refusals.clear()
    outcome = await service.reload("ttl: 1h", "ttl: 2h")
    assert (outcome.ok, outcome.generation) == (True, 3)
    assert [question.generation for question, _ in worker.asked if isinstance(question, Prepare)] == [2, 3]


async def test_what_is_wrong_takes_no_number(service: Service) -> None:
    service.have(FakeWorker("one"))
    assert not (await service.reload("ttl: 1h", "ttl: never")).ok
    assert (await service.reload("ttl: never", "ttl: 2h")).generation == 2


async def test_of_many_problems_all_are_told_the_same_few(service: Service) -> None:
    worker = FakeWorker("one")
    service.have(worker)
    many = "profiles:\n" + "".join(f"  p{number}: {{}}\n" for number in range(300))
    outcome = await service.reload("profiles:\n", many)
    assert (outcome.ok, outcome.reason) == (False, "configuration")
    *shown, last = outcome.text.splitlines()
    assert len(shown) == 100
    assert last.startswith("and ")
    [row] = [question for question, _ in worker.asked if isinstance(question, Record)]
    assert outcome.text.startswith(row.detail[:-1])


async def test_a_refusal_that_the_worker_could_not_record_is_recorded_by_the_one_in_its_place(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = FakeWorker("hangs", Record=WorkerRefusedError("a worker died meanwhile"))
    replacement = FakeWorker("replacement")
    service.have(hangs)
    someone = service.workers.someone

    async def replaced(seconds: float) -> bool:
        service.have(replacement)
        return await someone(seconds)

    monkeypatch.setattr(service.workers, "someone", replaced)
    assert not (await service.reload("ttl: 1h", "ttl: never")).ok
    [row] = [question for question, _ in replacement.asked if isinstance(question, Record)]
    assert row.event == "configuration.refused"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(OSError(24, "Too many open files"), "Too many open files", id="no-file"),
        pytest.param(OSError(28, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device", id="file"),
    ],
)
async def test_a_fault_of_the_machine_is_not_blamed_on_the_configuration(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
) -> None:
    def judge(*_: object) -> None:
        raise error

    monkeypatch.setattr("gateway.supervise.acceptance.judge", judge)
    service.have(FakeWorker("a"))
    outcome = await service.reload("ttl: 1h", "ttl: 2h")
    assert (outcome.ok, outcome.reason) == (False, "failed")
    assert outcome.text == f"the configuration cannot be judged at present: {text}"


async def test_a_file_that_is_gone_is_named(service: Service) -> None:
    service.have(FakeWorker("a"))
    service.plan.path.unlink()
    outcome = await service.reloads.ask("uid:0")
    assert (outcome.ok, outcome.reason) == (False, "configuration")
    assert outcome.text.endswith(f"{service.plan.path} cannot be read: No such file or directory")
