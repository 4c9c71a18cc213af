"""Many orders, several workers, a CA and a store that err as they like: each order ends with one certificate or none."""

import asyncio
import random
from datetime import timedelta

import pytest

from gateway.acme import OrderStatus
from gateway.errors import Rejection, StoreUnavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.acme.terms import Busy
from gateway.store.interfaces import LedgerState
from tests.flow.enrollment.acme_world import account, csr, finalize, ready
from tests.flow.enrollment.conftest import NewAcmeWorld
from tests.flow.enrollment.world import FIND, PROFILE, FlakyStore

ORDERS = 12
CA_FAULTS = ("", "", "not sent", "lost before", "lost after", "crash")
STORE_FAULTS = ("change_order", "open", "transition", "get_row", "find_transaction", "find_order", "find_authorizations")


@pytest.mark.parametrize("seed", range(3))
async def test_storm(new_acme_world: NewAcmeWorld, seed: int) -> None:
    world = new_acme_world(FIND, finalize_wait="1s", limits={})
    dice = random.Random(seed)
    stores = [FlakyStore(await world.open_store(f"w{n}")) for n in range(3)]
    workers = [await world.worker(f"w{n}", store) for n, store in enumerate(stores)]
    who = await account(world, workers[0])
    orders = [await ready(world, workers[n % 3], who, f"n{n}.example.com") for n in range(ORDERS)]
    world.ca.faults = [dice.choice(CA_FAULTS) for _ in range(3 * ORDERS)]

    async def client(n: int) -> None:
        for _ in range(3):
            acme = dice.choice(workers)
            store = stores[workers.index(acme)]
            store.faults.setdefault(dice.choice(STORE_FAULTS), []).append(dice.choice(("before", "after")))
            try:
                await finalize(world, acme, who, orders[n], csr(f"n{n}.example.com", key=f"k{n}"))
            except (Busy, StoreUnavailable):
                await asyncio.sleep(0.01)

    async def background() -> None:
        while True:
            for acme in workers:
                try:
                    await acme._means.authority.recover(world.snapshot)
                    await acme.run_due(world.snapshot)
                except StoreUnavailable:
                    pass
            world.clock.advance(timedelta(seconds=5))
            await asyncio.sleep(0.02)

    behind = asyncio.create_task(background())
    await asyncio.gather(*(client(n) for n in range(ORDERS)))
    for store in stores:
        store.faults.clear()
    ends = []
    for n, order in enumerate(orders):
        current = order
        for _ in range(400):
            try:
                current = await workers[0].find_order(world.snapshot, PROFILE, who, order.id, wait=False)
                if current.status is OrderStatus.READY:
                    current = await finalize(world, workers[0], who, order, csr(f"n{n}.example.com", key=f"k{n}"))
            except (Busy, StoreUnavailable):
                continue
            if current.status is not OrderStatus.PROCESSING:
                break
            await asyncio.sleep(0.02)
        ends.append(current)
    behind.cancel()
    await asyncio.gather(behind, return_exceptions=True)
    assert [(end.status, end.error) for end in ends] == [(OrderStatus.VALID, None)] * ORDERS
    names = [parse_certificate(der).sans[0].value for der in world.ca.issued()]
    assert sorted(names) == sorted(f"n{n}.example.com" for n in range(ORDERS))
    for end in ends:
        assert await workers[1].certificate(world.snapshot, PROFILE, who, end.id)
    delivered = await world.rows([LedgerState.DELIVERED])
    assert {row.id for row in delivered} == {end.request_id for end in ends}
    with pytest.raises(Rejection):
        await finalize(world, workers[2], who, orders[0], csr("n0.example.com", key="another"))
