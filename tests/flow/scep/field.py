"""One service with the profiles that the clients of the field need: modern, legacy, with a chain, by hand, of an earlier RA."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest

from gateway.config import credential_checks
from tests.flow.scep.fleet import challenge_file, static, write_fleet, write_secret
from tests.flow.scep.raw import RawAnswer, exchange, get
from tests.flow.scep.service import Client, Service, start_service

TESTDATA = Path(__file__).parents[3] / "testdata" / "scep"
LEGACY = {"sha1": True, "md5": True, "triple_des": True, "des": True}
BOTH = ["RenewalReq", "PKCSReq"]
RECORDED_CHALLENGE = "secret"


def _enrolls(name: str, **more: Any) -> dict[str, Any]:
    return {"credentials": [static(name), {"type": "one_time"}], "renewal": {"from": [name], "messages": BOTH}, **more}


PROFILES = MappingProxyType(
    {
        "modern": _enrolls("modern"),
        "legacy": _enrolls("legacy", endpoints={"legacy": LEGACY}),
        "chain": _enrolls("chain", endpoints={"reply_chain": True}),
        "manual": _enrolls("manual", approval="manual"),
        "recorded": _enrolls(
            "recorded",
            endpoints={"ra_certificate": "ca/recorded.pem", "ra_key": {"file": "secrets/recorded.key"}, "legacy": LEGACY},
        ),
        "rolled": _enrolls(
            "rolled", endpoints={"previous_ra": [{"certificate": "ca/recorded.pem", "key": {"file": "secrets/recorded.key"}}]}
        ),
    }
)


@dataclass
class Field:
    """The service and one profile of it as a client knows it."""

    service: Service
    session: aiohttp.ClientSession

    async def client(self, profile: str = "modern") -> Client:
        client = Client(self.session, f"{self.service.url}/scep/{profile}")
        await client.fetch_ra()
        return client

    def challenge(self, profile: str = "modern") -> str:
        return (self.service.folder / challenge_file(profile)).read_text()

    async def get(self, path: str, message: str, headers: str = "") -> RawAnswer:
        """Send a message by GET over HTTP/1.0 without a Host."""
        target = f"{path}?operation=PKIOperation&message={message}"
        return await exchange(self.service.port, get(target, version="1.0", headers=headers))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Field]:
    """Serve all these profiles; the challenge of the recordings is shorter than any that the gateway takes."""
    write_fleet(folder, PROFILES, ca_key="rsa-2048")
    (folder / "ca" / "recorded.pem").write_bytes((TESTDATA / "ra.pem").read_bytes())
    write_secret(folder / "secrets" / "recorded.key", (TESTDATA / "ra.key").read_bytes())
    write_secret(folder / challenge_file("recorded"), RECORDED_CHALLENGE.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credential_checks, "MIN_CHALLENGE", len(RECORDED_CHALLENGE))
        service = await start_service(folder)
    try:
        async with aiohttp.ClientSession() as session:
            yield Field(service, session)
    finally:
        await service.close()
