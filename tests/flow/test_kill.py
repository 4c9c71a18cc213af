"""kill -9 before and after every turn of a walk: a retry gets the same certificate or a clean first one; the books are right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit import verify_chain
from gateway.errors import Reason
from gateway.model import Issued, Pending, Rejected
from gateway.store.interfaces import CertificateFilter, LedgerState
from tests.contract.store.rows import audit_rows
from tests.flow.enrollment.kill_harness import BACKENDS, make_world
from tests.flow.enrollment.killer import Killer
from tests.flow.enrollment.world import AUDIT_KEY, PROFILE, QUICK, FaultyCA, World

OPERATOR = "uid:0 (root)"
MOST_STEPS = 400
AFTER_LEASE = QUICK.lease.total_seconds() + 1


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    running = Killer()
    yield running
    running.close()


async def prepare(folder: Path, backend: str) -> str:
    """Make a store, a CA and one challenge."""
    folder.mkdir()
    world = make_world(folder, backend, 0)
    await world.start("setup")
    challenge = (await world.administration().new_challenge(PROFILE, OPERATOR)).challenge
    await world.close()
    return challenge


async def check_books(world: World) -> None:
    report = verify_chain(audit_rows(world.store), AUDIT_KEY)
    assert not report.problems
    [challenge] = await world.administration().list_challenges()
    rows = await world.rows()
    assert challenge.used_by == (rows[0].id if rows else None)
    assert len(rows) <= 1


async def finish(folder: Path, backend: str, challenge: str, ahead: float) -> None:
    """Retry in a process that knows nothing of the dead one; `ahead` is where its clock stands, in seconds."""
    world = make_world(folder, backend, ahead)
    authority = await world.start("successor")
    try:
        await check_books(world)
        before = await world.rows([LedgerState.DELIVERED])
        held = await world.rows()
        if not await world.store.find_lapsed(world.clock(), 10):
            assert await authority.recover(world.snapshot) == 0
            assert await world.rows() == held, "a row was taken over inside its lease"
        await world.lapse()
        outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
        if isinstance(outcome, Pending):
            assert backend == "exec without find"
            await resolve(world, outcome)
            outcome = await authority.enroll(world.snapshot, world.request(challenge=challenge))
        assert isinstance(outcome, Issued)
        assert not before or before[0].certificate == outcome.certificate
        await check_end(world, outcome)
        await check_books(world)
        other = await authority.enroll(world.snapshot, world.request("other", challenge=challenge))
        assert isinstance(other, Rejected)
        assert other.reason is Reason.CREDENTIAL_USED
    finally:
        await world.close()


async def resolve(world: World, held: Pending) -> None:
    """End a held request as an operator does who has looked at the CA."""
    made = world.ca.issued_for(held.request_id)
    if made:
        await world.administration().attach(held.request_id, made[0], OPERATOR)
    else:
        await world.administration().reissue(held.request_id, OPERATOR)


async def check_end(world: World, outcome: Issued) -> None:
    """One certificate, whoever counts."""
    [certificate] = await world.store.list_certificates(CertificateFilter())
    assert certificate.der == outcome.certificate
    [row] = await world.rows()
    assert (row.state, row.id) == (LedgerState.DELIVERED, outcome.request_id)
    events = await world.events()
    assert events.count("enrollment.issued") + events.count("request.attached") == 1
    if isinstance(world.ca, FaultyCA):
        assert world.ca.issued() == [outcome.certificate]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_enrollment_killed_at_every_step(tmp_path: Path, killer: Killer, backend: str) -> None:
    for k in range(1, MOST_STEPS):
        folder = tmp_path / str(k)
        challenge = await prepare(folder, backend)
        died = killer.dies(folder=str(folder), backend=backend, challenge=challenge, act="enroll", ahead=0, k=k)
        await finish(folder, backend, challenge, ahead=0)
        if not died:
            assert k > 10, "the walk has awaits, or nothing was counted"
            return
    pytest.fail("the walk has no end")


@pytest.mark.parametrize(
    ("backend", "issued"),
    [
        pytest.param("local", False, id="local"),
        pytest.param("exec with find", False, id="exec that issued nothing"),
        pytest.param("exec with find", True, id="exec that issued"),
    ],
)
async def test_recovery_killed_at_every_step(tmp_path: Path, killer: Killer, backend: str, issued: bool) -> None:
    first_death = await find_step(tmp_path, killer, backend, issued)
    for k in range(1, MOST_STEPS):
        folder = tmp_path / f"recovery-{k}"
        challenge = await prepare(folder, backend)
        order = {"folder": str(folder), "backend": backend, "challenge": challenge}
        assert killer.dies(**order, act="enroll", ahead=0, k=first_death)
        died = killer.dies(**order, act="recover", ahead=AFTER_LEASE, k=k)
        await finish(folder, backend, challenge, ahead=AFTER_LEASE)
        if not died:
            assert k > 10, "recovery has awaits, or nothing was counted"
            return
    pytest.fail("recovery has no end")


async def find_step(tmp_path: Path, killer: Killer, backend: str, issued: bool) -> int:
    """Return the first step at which a death leaves an open row, and a certificate at the CA or none."""
    for k in range(1, MOST_STEPS):
        folder = tmp_path / f"search-{k}"
        challenge = await prepare(folder, backend)
        assert killer.dies(folder=str(folder), backend=backend, challenge=challenge, act="enroll", ahead=0, k=k)
        world = make_world(folder, backend, 0)
        await world.start("looks")
        rows = await world.rows([LedgerState.OPEN])
        made = backend != "local" and bool(world.ca.issued())
        await world.close()
        if rows and made == issued:
            return k
    raise AssertionError("no step leaves the row so")
