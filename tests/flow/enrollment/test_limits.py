"""Limits count devices, whatever they prove themselves by, and what a credential allows of itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from gateway.errors import Reason
from gateway.model import Allowance, CredentialKind, EnrollmentRequest, Issued, Outcome, Rejected, Requester
from gateway.ra.credentials.static import StaticCredential
from gateway.ra.profile import Quota
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import ONE_AN_HOUR, PROFILE, SECRET, World

HOUR = timedelta(hours=1)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


@dataclass
class Named:
    """A credential that calls its device by name, and is good for so many certificates."""

    device: str | None = None
    allowances: tuple[Allowance, ...] = ()
    kind = CredentialKind.ONE_TIME

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        if not request.challenge or request.challenge == SECRET:
            return None
        return Requester(f"one_time:{request.challenge}", self.kind, device=self.device, allowances=self.allowances)


async def enroll(world: World, provider: Named, name: str, challenge: str, quota: Quota | None = ONE_AN_HOUR) -> Outcome:
    authority = await world.start("w1", world.store if world.stores else None)
    snapshot = world.make_snapshot(credentials=(provider, StaticCredential(PROFILE, SECRET.encode())), per_requester=quota)
    request = world.request(name, challenge=challenge, transaction=f"{name} {challenge}")
    return await authority.enroll(snapshot, request)


def is_limited(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejected) and outcome.reason is Reason.RATE_LIMITED


async def test_a_device_is_known_by_the_names_that_it_asks_for(world: World) -> None:
    assert isinstance(await enroll(world, Named(), "gate-1", "first"), Issued)
    assert is_limited(await enroll(world, Named(), "gate-1", "second"))
    assert is_limited(await enroll(world, Named(), "gate-1", SECRET))
    assert is_limited(await enroll(world, Named(), "GATE-1", SECRET))
    assert isinstance(await enroll(world, Named(), "gate-2", "third"), Issued)


async def test_a_device_is_known_by_what_its_credential_calls_it(world: World) -> None:
    assert isinstance(await enroll(world, Named("device 7"), "gate-1", "first"), Issued)
    assert is_limited(await enroll(world, Named("device 7"), "gate-2", "second"))
    assert isinstance(await enroll(world, Named("device 8"), "gate-1", "third"), Issued)


async def test_what_a_credential_allows_is_counted_beside_the_profiles_limits(world: World) -> None:
    two = Named(allowances=(Allowance("intune:device 7", 2, 24 * HOUR), Allowance("intune:replay", 100, HOUR)))
    for name in ("gate-1", "gate-2"):
        assert isinstance(await enroll(world, two, name, name, None), Issued)
    refused = await enroll(world, two, "gate-3", "gate-3", None)
    assert refused == Rejected(Reason.RATE_LIMITED, "too many certificates were requested: try again later, in 1d at the latest")
    world.clock.advance(24 * HOUR + timedelta(seconds=1))
    assert isinstance(await enroll(world, two, "gate-3", "gate-3", None), Issued)


async def test_a_refusal_of_the_ca_gives_back_what_was_counted(world: World) -> None:
    once = Named(allowances=(Allowance("intune:device 7", 1, HOUR),))
    world.ca.faults = ["rejected"]
    assert isinstance(await enroll(world, once, "gate-1", "first"), Rejected)
    assert isinstance(await enroll(world, once, "gate-1", "second"), Issued)
    assert is_limited(await enroll(world, once, "gate-2", "third"))


async def test_windows_below_a_second_still_count(world: World) -> None:
    brief = Named(allowances=(Allowance("intune:device 7", 1, timedelta(milliseconds=1)),))
    assert isinstance(await enroll(world, brief, "gate-1", "first", None), Issued)
    assert is_limited(await enroll(world, brief, "gate-1", "second", None))
