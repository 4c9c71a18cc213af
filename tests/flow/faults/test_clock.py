"""Clocks that jump by an hour or a day, both ways, while the service runs: what was used stays used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from gateway.asn1.scep import PkiStatus
from gateway.pki.jws import parse_compact_jws, parse_json_object
from gateway.store.interfaces import CertificateFilter, LedgerState
from gateway.store.sqlite.store import SqliteStore
from tests.flow.scep.challenge_fleet import DEVICE, OTHER_DEVICE, Fleet, intune, open_fleet
from tests.flow.scep.fleet import static
from tests.flow.scep.service import OTHER_KEY, Client, Device, Service, leaf_of

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
JUMPS = [
    pytest.param(HOUR, id="an-hour-ahead"),
    pytest.param(DAY, id="a-day-ahead"),
    pytest.param(-HOUR, id="an-hour-back"),
    pytest.param(-DAY, id="a-day-back"),
]
PROFILES = {
    "signed": intune(per_device=None),
    "once": intune(per_device={"count": 1, "window": "2h"}),
    "single": {"credentials": [{"type": "one_time"}]},
    "shared": {"credentials": [static("shared")], "limits": {"total": {"count": 2, "window": "2h"}}},
}
WAYS_BACK = [pytest.param(True, id="and-back"), pytest.param(False, id="for-good")]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_fleet(tmp_path / "s", PROFILES) as fleet:
        yield fleet


async def jump(service: Service, by: timedelta) -> None:
    """Move the clock, and have everything happen that is done now and then."""
    service.clock.ahead += by
    await service.gateway.expire()
    await service.gateway.recover()


async def jumps(service: Service, by: timedelta, back: bool) -> None:
    await jump(service, by)
    if back:
        await jump(service, -by)


async def certificates(service: Service) -> int:
    assert isinstance(service.gateway.store, SqliteStore)
    return len(await service.gateway.store.list_certificates(CertificateFilter()))


@pytest.mark.parametrize("by", JUMPS)
@pytest.mark.parametrize("back", WAYS_BACK)
async def test_a_used_challenge_stays_used(fleet: Fleet, by: timedelta, back: bool) -> None:
    challenge = await fleet.service.new_challenge("single")
    client = await fleet.client("single")
    assert (await client.enroll(Device(), challenge)).status is PkiStatus.SUCCESS
    await jumps(fleet.service, by, back)
    for device in (Device(key=OTHER_KEY), Device(subject="CN=other")):
        assert (await client.enroll(device, challenge)).status is PkiStatus.FAILURE
    assert await certificates(fleet.service) == 1


@pytest.mark.parametrize("by", JUMPS)
@pytest.mark.parametrize("back", WAYS_BACK)
async def test_a_used_signed_challenge_stays_used(fleet: Fleet, by: timedelta, back: bool) -> None:
    challenge = fleet.challenge()
    reply, _ = await fleet.enroll(challenge, DEVICE, "signed")
    assert reply.status is PkiStatus.SUCCESS
    await jumps(fleet.service, by, back)
    reply, told = await fleet.enroll(challenge, OTHER_DEVICE, "signed")
    assert (reply.status, told != "success") == (PkiStatus.FAILURE, True)
    assert await certificates(fleet.service) == 1


@pytest.mark.parametrize("by", [HOUR, DAY, 3 * DAY], ids=str)
async def test_a_challenge_used_under_a_clock_ahead_is_used_when_it_is_put_right(fleet: Fleet, by: timedelta) -> None:
    await jump(fleet.service, by)
    signed, single = fleet.challenge(), await fleet.service.new_challenge("single")
    assert (await fleet.enroll(signed, DEVICE, "signed"))[0].status is PkiStatus.SUCCESS
    client = await fleet.client("single")
    assert (await client.enroll(Device(), single)).status is PkiStatus.SUCCESS
    await jump(fleet.service, -by)
    assert (await fleet.enroll(signed, OTHER_DEVICE, "signed"))[0].status is PkiStatus.FAILURE
    assert (await client.enroll(Device(key=OTHER_KEY), single)).status is PkiStatus.FAILURE


@pytest.mark.parametrize("by", [HOUR, DAY], ids=str)
async def test_a_challenge_whose_life_the_clock_leaves_backwards(fleet: Fleet, by: timedelta) -> None:
    """Set back to before it was made, a signed challenge is refused; it is good once when the clock is right, and only once."""
    signed = fleet.challenge()
    await jump(fleet.service, -by)
    assert (await fleet.enroll(signed, DEVICE, "signed"))[0].status is PkiStatus.FAILURE
    await jump(fleet.service, by)
    assert (await fleet.enroll(signed, DEVICE, "signed"))[0].status is PkiStatus.SUCCESS
    assert (await fleet.enroll(signed, OTHER_DEVICE, "signed"))[0].status is PkiStatus.FAILURE


@pytest.mark.parametrize("by", JUMPS)
async def test_a_retransmission_gets_the_same_certificate_once_the_clock_is_right(fleet: Fleet, by: timedelta) -> None:
    async with aiohttp.ClientSession() as session:
        for profile in ("single", "shared"):
            challenge = await challenge_of(fleet.service, profile)
            client = Client(session, f"{fleet.service.url}/scep/{profile}")
            await client.fetch_ra()
            request, signer = Device().request(client.ra, challenge)
            first = await client.send(request, signer)
            await jumps(fleet.service, by, True)
            again = await client.send(request, signer)
            assert (first.status, again.status) == (PkiStatus.SUCCESS, PkiStatus.SUCCESS)
            assert leaf_of(first) == leaf_of(again)
    assert await certificates(fleet.service) == 2


async def challenge_of(service: Service, profile: str) -> str:
    if profile == "single":
        return await service.new_challenge("single")
    return (service.folder / "secrets" / f"{profile}-challenge").read_text().strip()


@pytest.mark.parametrize("by", JUMPS)
async def test_a_full_quota_stays_full(fleet: Fleet, by: timedelta) -> None:
    client = await fleet.client("shared")
    challenge = await challenge_of(fleet.service, "shared")
    for number in range(2):
        assert (await client.enroll(Device(subject=f"CN=d{number}"), challenge)).status is PkiStatus.SUCCESS
    device = fleet.challenge()
    assert (await fleet.enroll(device, DEVICE, "once"))[0].status is PkiStatus.SUCCESS
    await jumps(fleet.service, by, True)
    status, _, _ = await client.post(Device(subject="CN=d2").request(client.ra, challenge)[0].message)
    assert status in {200, 429, 503}
    assert await certificates(fleet.service) == 3
    other = fleet.challenge(sub=device_of(device))
    assert (await fleet.enroll(other, DEVICE, "once"))[0].status is PkiStatus.FAILURE
    assert await certificates(fleet.service) == 3


def device_of(challenge: str) -> str:
    return str(parse_json_object(parse_compact_jws(challenge).payload)["sub"])


@pytest.mark.parametrize("by", JUMPS)
async def test_a_jump_while_the_ca_signs_gives_one_certificate(
    fleet: Fleet, by: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that seems to have lapsed, or to last for a day, does not have it signed twice."""
    service = fleet.service
    ca = next(iter(service.gateway.generation.snapshot.upstream_cas.values()))
    issue = ca.issue

    async def issue_while_the_clock_jumps(request: object) -> object:
        await jump(service, by)
        return await issue(request)  # type: ignore[arg-type]

    monkeypatch.setattr(ca, "issue", issue_while_the_clock_jumps)
    client = await fleet.client("single")
    challenge = await service.new_challenge("single")
    request, signer = Device().request(client.ra, challenge)
    await client.post(request.message)
    monkeypatch.undo()
    await jump(service, -by)
    reply = await client.send(request, signer)
    assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
    assert await certificates(service) == 1
    assert isinstance(service.gateway.store, SqliteStore)
    [row] = await service.gateway.store.list_rows(frozenset({LedgerState.DELIVERED}), None, 10)
    assert row.certificate == leaf_of(reply)
