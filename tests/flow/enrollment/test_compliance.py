"""Compliance checks on the way of an enrollment: after policy, before anything is taken."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from gateway.config.policy import PolicyConfig, SubjectRule
from gateway.errors import Reason
from gateway.model import EnrollmentRequest, Issued, Rejected, Requester, Unavailable
from gateway.ra.profile import Snapshot
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import ONE_AN_HOUR, World


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


@dataclass
class Check:
    """Finds the faults that it is told, one a call."""

    faults: list[str | Exception] = field(default_factory=list)
    asked: list[Requester] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None

    async def find_fault(self, request: EnrollmentRequest, requester: Requester, now: datetime) -> str | None:
        self.asked.append(requester)
        self.reached.set()
        if self.gate:
            await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return fault


def checked(world: World, check: Check, **options: Any) -> Snapshot:
    return world.make_snapshot(compliance=(check,), **options)


async def test_a_compliant_device_is_certified(world: World) -> None:
    authority, check = await world.start(), Check()
    assert isinstance(await authority.enroll(checked(world, check), world.request()), Issued)
    [requester] = check.asked
    assert requester.identity.startswith("static:corp:")


@pytest.mark.parametrize("fault", [pytest.param("its disk is open", id="fault"), pytest.param(OSError("x"), id="failure")])
async def test_a_device_that_is_not_has_taken_nothing(world: World, fault: str | Exception) -> None:
    authority, check = await world.start(), Check([fault])
    snapshot = checked(world, check, per_requester=ONE_AN_HOUR)
    challenge = await world.administration().new_challenge("corp", actor="uid:0")
    request = world.request(challenge=challenge.challenge)
    refused = await authority.enroll(snapshot, request)
    assert refused == Rejected(Reason.NOT_COMPLIANT, "the device is not compliant")
    assert await world.rows() == ()
    assert not world.ca.calls
    event = (await world.audit())[-1]
    assert (event["event"], event["reason"]) == ("enrollment.rejected", "not_compliant")
    assert isinstance(await authority.enroll(snapshot, request), Issued)


async def test_nobody_is_asked_about_what_policy_refuses(world: World) -> None:
    authority, check = await world.start(), Check()
    policy = PolicyConfig(subject=SubjectRule(require=("serialNumber",)))
    assert isinstance(await authority.enroll(checked(world, check, policy=policy), world.request()), Rejected)
    assert not check.asked


async def test_nobody_is_asked_again_for_a_retransmission(world: World) -> None:
    authority, check = await world.start(), Check()
    for _ in range(2):
        assert isinstance(await authority.enroll(checked(world, check), world.request()), Issued)
    assert len(check.asked) == 1


async def test_requests_that_meet_at_a_slow_check_get_one_certificate(world: World) -> None:
    authority, check = await world.start(), Check(gate=asyncio.Event())
    work = [asyncio.create_task(authority.enroll(checked(world, check), world.request())) for _ in range(5)]
    await check.reached.wait()
    assert check.gate is not None
    check.gate.set()
    outcomes = await asyncio.gather(*work)
    assert {getattr(outcome, "certificate", None) for outcome in outcomes} == set(world.ca.issued())
    assert len(world.ca.issued()) == 1


async def test_nothing_is_begun_by_a_worker_that_has_drained_meanwhile(world: World) -> None:
    authority, check = await world.start(), Check(gate=asyncio.Event())
    work = asyncio.create_task(authority.enroll(checked(world, check), world.request()))
    await check.reached.wait()
    assert await authority.drain(1) == 0
    assert check.gate is not None
    check.gate.set()
    outcome = await work
    assert isinstance(outcome, Unavailable)
    assert outcome.reason is Reason.OVERLOADED
    assert not world.ca.calls
