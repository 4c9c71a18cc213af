"""Profiles of signed challenges in one service, and devices that bring them."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.wire.scep.client import CertRep
from tests.flow.scep import service as service_module
from tests.flow.scep.fleet import static, write_fleet
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, MovableClock, Service, leaf_of, start_service
from tests.golden_challenges import AUDIENCE, anchor, claims, issuer_key, sign_challenge

RSA, EC = issuer_key("rsa"), issuer_key("ec")
POLICY: Mapping[str, Any] = MappingProxyType(
    {
        "key": {"rsa": {"min_bits": 2048, "max_bits": 4096}},
        "subject": {"allow": ["CN", "O"], "patterns": {"CN": "[ -~]+"}, "max_common_names": 2, "allow_empty": True},
        "san": {
            "dns": {"patterns": ["[a-z0-9.-]+"]},
            "ip": {"networks": ["192.0.2.0/24", "2001:db8::/32"]},
            "email": {"patterns": [".+"]},
            "uri": {"patterns": [".+"]},
            "upn": {"patterns": [".+"]},
            "sid": {"max": 1},
        },
        "validity": {"default": "90d", "max": "90d"},
    }
)


def intune(**settings: Any) -> dict[str, Any]:
    """A profile of signed challenges."""
    credential = {"type": "intune_jws", "anchors": "challenge-anchors.pem", "audience": AUDIENCE} | settings
    return {"credentials": [credential], "policy": dict(POLICY)}


PROFILES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "devices": intune(per_device=None),
        "other": intune(audience=None, per_device=None, max_age="2h"),
        "limited": intune(),
        "once": intune(per_device={"count": 1, "window": "1d"}),
        "full": intune(per_device=None, replay_capacity=2),
        "open": intune(per_device=None, absent_claims="unconstrained"),
        "manual": intune() | {"approval": "manual"},
        "renewing": intune() | {"renewal": {"from": ["renewing"], "messages": ["RenewalReq", "PKCSReq"]}},
        "mixed": {
            "credentials": [*intune(with_other_challenges=True)["credentials"], {"type": "one_time"}, static("mixed")],
            "policy": dict(POLICY),
        },
    }
)


@dataclass
class Fleet:
    """One service with a profile for each rule."""

    service: Service
    session: aiohttp.ClientSession
    clients: dict[str, Client] = field(default_factory=dict)

    async def client(self, profile: str) -> Client:
        if profile not in self.clients:
            self.clients[profile] = Client(self.session, f"{self.service.url}/scep/{profile}")
            await self.clients[profile].fetch_ra()
        return self.clients[profile]

    def challenge(self, subject: str = "gate-1", **changes: Any) -> str:
        """Return a fresh challenge for the device `CN=subject` without other names."""
        issued = int(self.service.clock().timestamp())
        fresh = {"iat": issued, "exp": issued + 3000, "nonce": secrets.token_hex(8), "device_name": subject}
        none = {"san_dns": None, "san_rfc822": None, "sub": f"guid-{secrets.token_hex(4)}"}
        return sign_challenge(RSA, claims(**none | fresh | changes))

    async def enroll(self, challenge: str | None, device: Device, profile: str = "devices") -> tuple[CertRep, str | None]:
        """Return the answer, and the word that the log has for what became of the challenge."""
        client = await self.client(profile)
        with capture_logs() as logs:
            reply = await client.enroll(device, challenge)
        lines = [line for line in logs if line["event"] == "scep"]
        assert challenge is None or challenge not in str(logs)
        return reply, lines[0]["challenge"] if lines else None

    async def audit(self, profile: str) -> list[dict[str, Any]]:
        rows = [json.loads(body) for body in await self.service.audit()]
        return [row for row in rows if row["profile"] == profile]


@asynccontextmanager
async def open_fleet(
    folder: Path, profiles: Mapping[str, dict[str, Any]] = PROFILES, *, anchors: bytes = b"", now: datetime | None = None
) -> AsyncIterator[Fleet]:
    """Serve these profiles; at `now`, whatever the time is."""
    write_fleet(folder, profiles, now=None if now is None else now - timedelta(days=1))
    (folder / "challenge-anchors.pem").write_bytes(anchors or anchor("rsa") + anchor("ec"))
    with pytest.MonkeyPatch.context() as patch:
        if now is not None:
            patch.setattr(service_module, "MovableClock", lambda: MovableClock(now - datetime.now(UTC)))
        service = await start_service(folder)
    try:
        async with aiohttp.ClientSession() as session:
            yield Fleet(service, session)
    finally:
        await service.close()


DEVICE = Device(KEY, "CN=gate-1")
OTHER_DEVICE = Device(OTHER_KEY, "CN=gate-1")
SID = "S-1-5-21-1-2-3-1001"
SID_URI = f"tag:microsoft.com,2022-09-14:sid:{SID}"


def is_refused(answer: tuple[CertRep, str | None], label: str | None, info: FailInfo = FailInfo.BAD_REQUEST) -> None:
    reply, told = answer
    assert (reply.status, reply.fail_info, told) == (PkiStatus.FAILURE, info, label), reply.fail_info_text
    assert reply.fail_info_text


def is_granted(answer: tuple[CertRep, str | None], device: Device = DEVICE) -> bytes:
    reply, told = answer
    assert (reply.status, told) == (PkiStatus.SUCCESS, "success"), reply.fail_info_text
    return leaf_of(reply, device.key)
