"""One signed challenge, sixty-four requests at once, two worker processes: one certificate."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.asn1.scep import PkiStatus
from gateway.wire.scep.client import CertRep
from tests.conftest import RunningServer, StartServer
from tests.flow.scep.challenge_fleet import DEVICE, EC, intune
from tests.flow.scep.service import Client, Device, leaf_of
from tests.golden_challenges import anchor, claims, sign_challenge

USES = 64


def with_profile(state: Path) -> Callable[[str], str]:
    """Add the profile `devices` beside `demo`."""

    def edit(text: str) -> str:
        (state / "challenge-anchors.pem").write_bytes(anchor("ec"))
        config: dict[str, Any] = yaml.safe_load(text)
        demo = config["profiles"]["demo"]
        credentials = intune(per_device={"count": 1, "window": "1d"})["credentials"]
        endpoints = {"scep": demo["endpoints"]["scep"]}
        config["profiles"]["devices"] = {"endpoints": endpoints, "upstream_ca": "local", "policy": demo["policy"]}
        config["profiles"]["devices"]["credentials"] = credentials
        return yaml.safe_dump(config, sort_keys=False)

    return edit


@pytest.fixture
def workers(start_server: StartServer, tmp_path: Path) -> RunningServer:
    return start_server("state", workers=2, edit=with_profile(tmp_path / "state"))


def challenge(**changes: Any) -> str:
    issued = int(datetime.now(UTC).timestamp())
    fresh = {"iat": issued, "exp": issued + 600, "nonce": secrets.token_hex(8), "device_name": "gate-1"}
    return sign_challenge(EC, claims(**{"san_dns": None, "san_rfc822": None, **fresh, **changes}))


async def send_at_once(server: RunningServer, devices: list[Device], secret: str) -> list[CertRep]:
    """Send one request for each device, each over a connection of its own so that both workers get some."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        client = Client(session, f"{server.url}/scep/devices")
        await client.fetch_ra()
        requests = [device.request(client.ra, secret) for device in devices]
        return list(await asyncio.gather(*(client.send(*request) for request in requests)))


async def test_one_certificate(workers: RunningServer) -> None:
    """Of sixty-four CSRs one wins; of sixty-four copies of it each gets the winner's certificate, or is told to wait for it."""
    secret = challenge()
    rivals = [Device(DEVICE.key, f"CN=gate-1,O={n}") for n in range(USES)]
    replies = await send_at_once(workers, rivals, secret)
    assert sorted(reply.status for reply in replies) == [PkiStatus.SUCCESS] + [PkiStatus.FAILURE] * (USES - 1)
    [winner] = [n for n, reply in enumerate(replies) if reply.status is PkiStatus.SUCCESS]
    copies = await send_at_once(workers, [rivals[winner]] * USES, secret)
    assert {leaf_of(reply, DEVICE.key) for reply in copies} == {leaf_of(replies[winner], DEVICE.key)}
    twins = await send_at_once(workers, [DEVICE] * USES, challenge(sub="another"))
    assert {reply.status for reply in twins} <= {PkiStatus.SUCCESS, PkiStatus.PENDING}
    assert len({leaf_of(reply, DEVICE.key) for reply in twins if reply.status is PkiStatus.SUCCESS}) == 1
    rows = json.loads(workers.cli("certs", "list", "--format", "json").stdout)
    assert len(rows) == 2
    assert workers.stop() == 0
    answered = [json.loads(line) for line in workers.log.read_text().splitlines() if '"scep"' in line]
    assert len({line["worker"] for line in answered}) == 2, "both workers took some of them"
    workers.cli("audit", "verify")
