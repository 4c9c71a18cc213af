"""What a signed challenge costs the server beside a static one: CPU of both in one run, in turns, and their ratio."""

from __future__ import annotations

import asyncio
import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import aiohttp
import yaml

from bench.load import Prepared, cpu_seconds, prepare_requests, send_all
from tests.conftest import RunningServer, launch
from tests.golden_challenges import anchor, issuer_key, sign_challenge

TURNS = 40
STATIC = "demo"
SIGNED = {"signed-rs256": "rsa", "signed-es256": "ec"}
"""Profiles of signed challenges, and the issuer's key."""
GOAL = 0.08
"""By how much of the cost of a static challenge a signed one may be dearer."""
AUDIENCE = "https://bench.example/scep"


@dataclass(frozen=True, slots=True)
class ChallengeCost:
    """Server CPU for one enrollment, in microseconds, and how much that is beside the static challenge."""

    profile: str
    granted: int
    microseconds: float
    ratio: float


def measure_challenges(state: Path, count: int, connections: int, workers: int) -> list[ChallengeCost]:
    """Enroll `count` devices at each profile, a few here and a few there, so that noise hits all alike."""
    server = launch(state, workers=workers, edit=lambda text: _add_profiles(state, text))
    try:
        requests = {STATIC: prepare_requests(server, count, STATIC)}
        for profile, key in SIGNED.items():
            requests[profile] = prepare_requests(server, count, profile, _issuer(key))
        return asyncio.run(_take_turns(server, requests, connections))
    finally:
        server.stop()


def _add_profiles(state: Path, text: str) -> str:
    """Add profiles that differ from `demo` in their credential alone."""
    config = yaml.safe_load(text)
    for profile, key in SIGNED.items():
        (state / f"{key}.pem").write_bytes(anchor(key))
        credential = {"type": "intune_jws", "anchors": f"{key}.pem", "audience": AUDIENCE}
        scep = {"scep": config["profiles"][STATIC]["endpoints"]["scep"]}
        config["profiles"][profile] = config["profiles"][STATIC] | {"credentials": [credential], "endpoints": scep}
    static = [c for c in config["profiles"][STATIC]["credentials"] if c["type"] == "static"]
    config["profiles"][STATIC]["credentials"] = static
    return str(yaml.safe_dump(config, sort_keys=False))


def _issuer(name: str) -> Callable[[str], str]:
    """Return what makes a challenge with every required claim for a device."""
    key, now = issuer_key(name), int(datetime.now(UTC).timestamp())

    def challenge(device: str) -> str:
        claims = {"iss": "bench", "sub": f"{name}-{device}", "aud": AUDIENCE, "iat": now, "exp": now + 3000}
        return sign_challenge(key, {**claims, "nonce": secrets.token_hex(16), "device_name": device})

    return challenge


async def _take_turns(server: RunningServer, requests: dict[str, list[Prepared]], connections: int) -> list[ChallengeCost]:
    """Give every profile its share of each turn, in any order; the median of the turns leaves out what only one has met."""
    turns: dict[str, list[float]] = {profile: [] for profile in requests}
    granted = dict.fromkeys(requests, 0)
    size = max(1, len(requests[STATIC]) // TURNS)
    order, shuffle = list(requests), Random(1).shuffle
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        for turn in range(TURNS):
            shuffle(order)
            for profile in order:
                begun = cpu_seconds(server.process.pid)
                answers = await send_all(session, requests[profile][turn * size : (turn + 1) * size], connections)
                turns[profile].append((cpu_seconds(server.process.pid) - begun) / len(answers) * 1e6)
                granted[profile] += sum(prepared.is_granted(answer) for prepared, answer in answers)
    each = {profile: statistics.median(costs) for profile, costs in turns.items()}
    return [ChallengeCost(profile, granted[profile], cost, cost / each[STATIC]) for profile, cost in each.items()]
