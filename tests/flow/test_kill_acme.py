"""kill -9 before and after every turn of an order's finalization: one order gets one certificate, whoever goes on with it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.acme import Account, Order, OrderStatus
from gateway.audit import verify_chain
from gateway.model import Pending, RequestId
from gateway.ra.acme.authority import AcmeAuthority
from gateway.store.interfaces import CertificateFilter, LedgerState
from tests.contract.store.rows import audit_rows
from tests.flow.enrollment.acme_world import AcmeWorld, account, csr, finalize, ready
from tests.flow.enrollment.kill_harness import BACKENDS, make_acme_world, take_up
from tests.flow.enrollment.killer import Killer
from tests.flow.enrollment.world import AUDIT_KEY, PROFILE, FaultyCA

OPERATOR = "uid:0 (root)"
NAME = "www.example.com"
MOST_STEPS = 600
AFTER_LEASE = 61.0
ROUNDS = 12


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    running = Killer()
    yield running
    running.close()


async def prepare(folder: Path, backend: str) -> tuple[Account, Order]:
    """Make a store, a CA, an account and an order that is ready."""
    folder.mkdir()
    world = make_acme_world(folder, backend, 0)
    acme = await world.worker("setup")
    who = await account(world, acme)
    order = await ready(world, acme, who, NAME)
    await world.close()
    return who, order


def told(folder: Path, backend: str, who: Account, order: Order) -> dict[str, Any]:
    return {"folder": str(folder), "backend": backend, "account": who.id, "order": order.id, "name": NAME}


async def finish(folder: Path, backend: str, who: Account, order: Order, ahead: float) -> None:
    """Be the client that comes back, and the workers that know nothing of the dead one."""
    world = make_acme_world(folder, backend, ahead)
    acme = await world.worker("successor")
    try:
        current = await acme.find_order(world.snapshot, PROFILE, who, order.id, wait=False)
        if current.status is OrderStatus.READY:
            assert await world.rows() == (), "something was opened for an order that is still ready"
            current = await finalize(world, acme, who, order, csr(NAME))
        for _ in range(ROUNDS):
            if current.status is not OrderStatus.PROCESSING:
                break
            world.clock.advance(timedelta(seconds=AFTER_LEASE))
            await take_up(world, acme)
            await resolve(world)
            current = await acme.find_order(world.snapshot, PROFILE, who, order.id, wait=False)
        assert current.status is OrderStatus.VALID
        await check_end(world, acme, who, current)
    finally:
        await world.close()


async def resolve(world: AcmeWorld) -> None:
    """End a held request as an operator does who has looked at the CA."""
    for row in await world.rows([LedgerState.UNKNOWN]):
        if row.worker or not isinstance(world.ca, FaultyCA) or world.ca.capabilities:
            continue
        made = world.ca.issued_for(row.id)
        held = Pending(RequestId(row.id), 1)
        if made:
            await world.administration().attach(held.request_id, made[0], OPERATOR)
        else:
            await world.administration().reissue(held.request_id, OPERATOR)


async def check_end(world: AcmeWorld, acme: AcmeAuthority, who: Account, order: Order) -> None:
    """One certificate, whoever counts, and the account has it."""
    leaf, *_ = await acme.certificate(world.snapshot, PROFILE, who, order.id)
    [certificate] = await world.store.list_certificates(CertificateFilter())
    assert certificate.der == leaf
    [row] = await world.rows()
    assert (row.state, row.id, row.transaction_id) == (LedgerState.DELIVERED, order.request_id, order.id)
    if isinstance(world.ca, FaultyCA):
        assert world.ca.issued() == [leaf]
    assert not verify_chain(audit_rows(world.store), AUDIT_KEY).problems
    assert (await world.events()).count("acme.order.valid") == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_finalization_killed_at_every_step(tmp_path: Path, killer: Killer, backend: str) -> None:
    for k in range(1, MOST_STEPS):
        folder = tmp_path / str(k)
        who, order = await prepare(folder, backend)
        died = killer.dies(**told(folder, backend, who, order), act="finalize", ahead=0, k=k)
        await finish(folder, backend, who, order, ahead=0)
        if not died:
            assert k > 20, "a finalization has awaits, or nothing was counted"
            return
    pytest.fail("the finalization has no end")


@pytest.mark.parametrize("backend", ["local", "exec with find"])
async def test_taking_up_an_order_killed_at_every_step(tmp_path: Path, killer: Killer, backend: str) -> None:
    first_death = await find_step(tmp_path, killer, backend)
    for k in range(1, MOST_STEPS):
        folder = tmp_path / f"taken-up-{k}"
        who, order = await prepare(folder, backend)
        orders = told(folder, backend, who, order)
        assert killer.dies(**orders, act="finalize", ahead=0, k=first_death)
        died = killer.dies(**orders, act="take up", ahead=AFTER_LEASE, k=k)
        await finish(folder, backend, who, order, ahead=AFTER_LEASE)
        if not died:
            assert k > 20, "taking up has awaits, or nothing was counted"
            return
    pytest.fail("taking up has no end")


async def find_step(tmp_path: Path, killer: Killer, backend: str) -> int:
    """Return the first step at which a death leaves an order processing with nothing in the ledger."""
    for k in range(1, MOST_STEPS):
        folder = tmp_path / f"search-{k}"
        who, order = await prepare(folder, backend)
        assert killer.dies(**told(folder, backend, who, order), act="finalize", ahead=0, k=k)
        world = make_acme_world(folder, backend, 0)
        acme = await world.worker("looks")
        current = await acme.find_order(world.snapshot, PROFILE, who, order.id, wait=False)
        rows = await world.rows()
        await world.close()
        if current.status is OrderStatus.PROCESSING and not rows:
            return k
    raise AssertionError("no step leaves the order so")
