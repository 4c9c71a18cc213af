"""CRLs of CAs beyond this machine: fetched by one worker, judged, kept over restarts, and served while their CA is away."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from gateway.ca.interfaces import Capability, NotSent
from gateway.model import Issued, Protocol, RevocationReason, UpstreamCAName
from gateway.pki.certificate import Issuer, parse_certificate, self_signed_ca
from gateway.pki.crl import build_crl, parse_crl
from gateway.pki.keys import generate_private_key
from gateway.ra import crl_keeper
from gateway.ra.crl_keeper import CrlKeeper
from gateway.ra.requests import Found, LookUpRequest, Sought
from gateway.store.interfaces import CRLRow
from gateway.store.sqlite import SqliteStore
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import PROFILE, FaultyCA, World

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class PublishingCA(FaultyCA):
    """Signs a CRL as a test wants it."""

    answer: bytes | None = None
    asked = 0

    async def crl(self) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(0)
        self._refuse_while_down()
        return self.answer

    def sign_crl(
        self,
        at: datetime,
        until: datetime,
        number: int = 7,
        entries: Iterable[tuple[int, datetime, RevocationReason]] = (),
    ) -> bytes:
        return build_crl(self._issuer, number, at.replace(microsecond=0), until.replace(microsecond=0), entries)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    world = new_world()
    world.ca = PublishingCA(world.folder / "ca", Capability.CRL)
    return world


async def keeper(world: World, worker: str = "w1", store: SqliteStore | None = None) -> CrlKeeper:
    return CrlKeeper(store or await world.open_store(worker), world.ca, world.clock, worker)


def fresh(world: World, **more: object) -> bytes:
    return world.ca.sign_crl(world.clock(), world.clock() + DAY, **more)  # type: ignore[no-any-return]


async def kept(world: World) -> CRLRow | None:
    return await world.store.newest_crl(world.ca.name)


async def test_it_is_fetched_kept_and_served_while_the_ca_is_away(world: World) -> None:
    keeps = await keeper(world)
    assert await keeps.current() is None
    world.ca.answer = fresh(world)
    assert await keeps.look_after()
    world.ca.down = True
    for _ in range(10):
        world.clock.advance(HOUR)
        assert not await keeps.look_after()
    row = await keeps.current()
    assert row is not None
    assert (row.der, row.number) == (world.ca.answer, 7)
    again = await keeper(world, "w2")
    assert await again.current() == row


async def test_ca_is_asked_regularly_and_soon_where_it_did_not_answer(world: World) -> None:
    keeps = await keeper(world)
    world.ca.answer = fresh(world)
    await keeps.look_after()
    for _ in range(9):
        world.clock.advance(MINUTE)
        await keeps.look_after()
    assert world.ca.asked == 1
    world.ca.down = True
    world.clock.advance(2 * MINUTE)
    await keeps.look_after()
    assert world.ca.asked == 2
    world.clock.advance(crl_keeper.RETRY)
    await keeps.look_after()
    assert world.ca.asked == 3


async def test_revocation_has_it_fetched_soon(world: World) -> None:
    authority = await world.start()
    keeps = await keeper(world, store=world.store)
    issued = await authority.enroll(world.snapshot, world.request())
    assert isinstance(issued, Issued)
    leaf = parse_certificate(issued.certificate)
    world.ca.answer = fresh(world)
    await keeps.look_after()
    await world.administration().revoke_certificate(leaf.sha256.hex(), RevocationReason.SUPERSEDED, "test")
    world.clock.advance(MINUTE + SECOND)
    entry = (leaf.serial, world.clock().replace(microsecond=0), RevocationReason.SUPERSEDED)
    world.ca.answer = fresh(world, entries=(entry,))
    assert await keeps.look_after()
    row = await kept(world)
    assert row is not None
    assert leaf.serial in parse_crl(row.der).serials
    world.clock.advance(MINUTE + SECOND)
    assert not await keeps.look_after()
    assert world.ca.asked == 2


async def test_one_of_many_workers_asks(world: World) -> None:
    keepers = [await keeper(world, f"w{n}") for n in range(3)]
    world.ca.answer = fresh(world)
    assert sum(await asyncio.gather(*(one.look_after() for one in keepers))) == 1
    for one in keepers:
        await one.look_after()
    assert world.ca.asked == 1
    rows = [await world.stores[number].newest_crl(world.ca.name) for number in range(3)]
    assert {row.der for row in rows if row} == {world.ca.answer}


async def test_successor_of_a_worker_that_died_asks_later(world: World) -> None:
    first = await keeper(world)
    world.ca.answer = fresh(world)
    await first.look_after()
    second = await keeper(world, "w2")
    assert not await second.look_after()
    world.clock.advance(crl_keeper.REFRESH + SECOND)
    world.ca.answer = fresh(world)
    assert await second.look_after()


async def test_where_none_is_kept_the_successor_does_not_wait_long(world: World) -> None:
    first = await keeper(world)
    world.ca.down = True
    await first.look_after()
    second = await keeper(world, "w2")
    world.ca.down, world.ca.answer = False, fresh(world)
    world.clock.advance(crl_keeper.SOON + SECOND)
    assert await second.look_after()


async def test_ca_that_was_made_anew_is_asked_at_once(world: World) -> None:
    keeps = await keeper(world)
    world.ca.answer = fresh(world)
    await keeps.look_after()
    other = PublishingCA(world.folder / "other", Capability.CRL)
    other.answer = other.sign_crl(world.clock() - HOUR, world.clock() + DAY, 1)
    keeps.follow(other)  # type: ignore[arg-type]  # as much of a CA as it asks for
    assert await keeps.look_after()
    row = await kept(world)
    assert row is not None
    assert row.der == other.answer
    keeps.follow(other)  # type: ignore[arg-type]  # as much of a CA as it asks for
    assert not await keeps.look_after()


def _foreign(world: World) -> bytes:
    key, now = generate_private_key("ec-p256"), world.clock()
    der = self_signed_ca(key, "CN=Test CA", now - DAY, now + DAY)
    return build_crl(Issuer.from_certificate(der, key), 1, now.replace(microsecond=0), now + DAY, ())


REFUSED: dict[str, Callable[[World], bytes]] = {
    "no CRL": lambda world: b"<html>Bad Gateway</html>",
    "nothing": lambda world: b"",
    "another CA of the same name": _foreign,
    "has ended": lambda world: world.ca.sign_crl(world.clock() - 2 * DAY, world.clock() - DAY),
    "comes from the future": lambda world: world.ca.sign_crl(world.clock() + HOUR, world.clock() + DAY),
    "older than what is kept": lambda world: world.ca.sign_crl(world.clock() - HOUR, world.clock() + 2 * DAY, 9),
    "tampered with": lambda world: fresh(world)[:-1] + bytes([fresh(world)[-1] ^ 1]),
    "too long": lambda world: bytes(crl_keeper.LONGEST + 1),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_of_no_use_replaces_nothing(world: World, what: str) -> None:
    keeps = await keeper(world)
    good = world.ca.answer = fresh(world)
    await keeps.look_after()
    world.clock.advance(crl_keeper.REFRESH + SECOND)
    world.ca.answer = REFUSED[what](world)
    with capture_logs() as logs:
        assert not await keeps.look_after()
    assert [line["log_level"] for line in logs] == ["warning"]
    assert logs[0]["cause"]
    row = await kept(world)
    assert row is not None
    assert row.der == good


async def test_ca_without_a_crl_is_no_failure(world: World) -> None:
    keeps = await keeper(world)
    with capture_logs() as logs:
        assert not await keeps.look_after()
    assert not logs


@pytest.mark.parametrize("number", [0, (1 << 159) - 1], ids=["nought", "too long for the column"])
async def test_number_that_cannot_be_kept_is_left_out(world: World, number: int) -> None:
    keeps = await keeper(world)
    world.ca.answer = fresh(world, number=number)
    assert await keeps.look_after()
    row = await kept(world)
    assert row is not None
    assert (row.number, row.der) == (0, world.ca.answer)


async def test_it_answers_those_who_ask_the_registration_authority(world: World) -> None:
    authority = await world.start()
    keeps = await keeper(world, store=world.store)
    world.ca.answer = fresh(world)
    await keeps.look_after()
    issuer = parse_certificate(world.ca.chain()[0]).subject.der
    asked = LookUpRequest(PROFILE, Protocol.SCEP, "GetCRL", Sought.CRL, "192.0.2.7", issuer, 1)
    assert await authority.look_up(world.snapshot, asked) == Found((world.ca.answer,))


async def test_work_goes_on_after_a_bug(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crl_keeper, "CHECK_SECONDS", 0.01)
    keeps = await keeper(world)
    world.ca.answer = fresh(world)
    answers = [KeyError("crl"), NotSent("connection refused")]
    good = world.ca.crl

    async def fail() -> bytes:
        if answers:
            world.clock.advance(2 * MINUTE)
            raise answers.pop(0)
        return await good()  # type: ignore[no-any-return]

    world.ca.crl = fail
    running = asyncio.create_task(keeps.run())
    async with asyncio.timeout(5):
        while await kept(world) is None:
            await asyncio.sleep(0.01)
            world.clock.advance(MINUTE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await kept(world)) is not None
    assert world.ca.name == UpstreamCAName("issuing")
