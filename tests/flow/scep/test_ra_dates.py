"""The RA certificate ends while the service runs: nothing is granted or used up, and a reload mends it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import PkiStatus
from gateway.web import reminder
from gateway.web.ops import Readiness
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.reloading import change, reload, write_pair
from tests.flow.scep.service import DAY, Client, Device, Service, configure, make_folder

SECOND = timedelta(seconds=1)
SAID = "what signs answers is not valid"


async def state(client: Client) -> dict[str, int]:
    """Return the status of each operation that needs no message."""
    found = {}
    for operation in ("GetCACert", "GetCACaps"):
        async with client.session.get(client.url, params={"operation": operation}) as reply:
            found[operation] = reply.status
    return found


async def failures(service: Service) -> tuple[str, ...]:
    return await Readiness(service.gateway.probes()).failures()


def installed(folder: Path, **certificates: tuple[timedelta, timedelta]) -> Path:
    """An RA whose certificates, by their fields, are valid between these times from now."""
    make_folder(folder)
    for field, dates in certificates.items():
        pair = write_pair(folder, field, dates=dates)
        settings = {"ra_certificate": pair["certificate"], "ra_key": pair["key"]} if field == "ra" else {field: pair}
        configure(folder, demo={"endpoints": {"scep": settings}})
    return folder


LONG, SHORT = (-DAY, 90 * DAY), (-DAY, 3 * DAY)


@pytest.mark.parametrize(
    ("certificates", "ahead", "what"),
    [
        pytest.param({"ra": SHORT}, 3 * DAY + SECOND, "expired", id="signs-and-decrypts"),
        pytest.param({"ra": SHORT, "ra_encryption": LONG}, 3 * DAY + SECOND, "expired", id="signs"),
        pytest.param({"ra": LONG, "ra_encryption": SHORT}, 3 * DAY + SECOND, "expired", id="decrypts"),
    ],
)
async def test_nothing_is_granted_and_nothing_used_up(
    tmp_path: Path,
    start: StartService,
    connect: Connect,
    certificates: dict[str, tuple[timedelta, timedelta]],
    ahead: timedelta,
    what: str,
) -> None:
    installed(tmp_path / "s", **certificates)
    service = await start()
    client = await connect(service)
    challenge = await service.new_challenge(ttl=7 * 86400)
    assert await failures(service) == ()
    request, signer = Device().request(client.ra, challenge)
    before = len(await service.audit())
    service.clock.ahead = ahead
    with capture_logs() as logs:
        for _ in range(3):
            async with client.session.post(f"{client.url}?operation=PKIOperation", data=request.message) as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (503, "300")
                assert b"expired" not in await reply.read()
    [said] = [line for line in logs if line["event"] == SAID]
    assert (said["log_level"], what in said["cause"]) == ("error", True)
    assert await state(client) == {"GetCACert": 200, "GetCACaps": 200}
    assert await failures(service) == ("ra certificates",)
    assert len(await service.audit()) == before
    await reload(service, lambda config: config["profiles"]["demo"]["endpoints"]["scep"].update(mended(service)))
    service.clock.ahead = timedelta(0)
    assert await failures(service) == ()
    await client.fetch_ra()
    request, signer = Device().request(client.ra, challenge)
    assert (await client.send(request, signer)).status is PkiStatus.SUCCESS


def mended(service: Service) -> dict[str, object]:
    main = write_pair(service.folder, "renewed", dates=(-2 * DAY, 90 * DAY))
    return {"ra_certificate": main["certificate"], "ra_key": main["key"], "ra_encryption": None}


async def test_previous_pairs_are_meant_to_end(tmp_path: Path, start: StartService, connect: Connect) -> None:
    installed(tmp_path / "s", ra=LONG)
    former = write_pair(tmp_path / "s", "former", dates=(-2 * DAY, -DAY))
    change(tmp_path / "s", lambda config: config["profiles"]["demo"]["endpoints"]["scep"].update(previous_ra=[former]))
    service = await start()
    client = await connect(service)
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
    assert await failures(service) == ()


async def test_it_is_said_again_every_hour(
    tmp_path: Path, start: StartService, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "s", ra=SHORT)
    service = await start()
    client = await connect(service)
    service.clock.ahead = 4 * DAY
    monkeypatch.setattr(reminder, "REMIND_SECONDS", 0.0)
    with capture_logs() as logs:
        for _ in range(2):
            async with client.session.get(client.url, params={"operation": "PKIOperation", "message": "AA=="}) as reply:
                assert reply.status == 503
    assert [line["event"] for line in logs].count(SAID) == 2
