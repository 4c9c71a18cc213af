"""What strangers and requesters may take: audit rows a minute, certificates an hour; and what the log says of each answer."""

import json
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.ra import strangers
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import StartService
from tests.flow.scep.service import OTHER_KEY, Client, Device, Service

WRONG = "wrong-but-long-enough"


async def refusals(service: Service) -> list[dict[str, Any]]:
    await service.endpoints.floods.flush()
    rows = [json.loads(body) for body in await service.audit()]
    return [{"count": 1, **row} for row in rows if row["decision"] == "refused"]


async def reasons(service: Service) -> list[str]:
    return [row["reason"] for row in await refusals(service)]


@pytest.mark.parametrize(
    ("challenge", "message_type", "reason"),
    [
        pytest.param(WRONG, MessageType.PKCS_REQ, "credential_invalid", id="guessing"),
        pytest.param(None, MessageType.PKCS_REQ, "credential_missing", id="no-challenge"),
        pytest.param(None, MessageType.CERT_POLL, "unknown_transaction", id="polling"),
        pytest.param(None, MessageType.RENEWAL_REQ, "unknown_certificate", id="renewing"),
    ],
)
async def test_failed_authentications_are_bounded(
    service: Service,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    challenge: str | None,
    message_type: MessageType,
    reason: str,
) -> None:
    monkeypatch.setattr(strangers, "ROWS_A_MINUTE", 3)
    for _ in range(8):
        assert (await client.enroll(Device(), challenge, message_type=message_type)).status is PkiStatus.FAILURE
    assert await reasons(service) == [reason] * 4
    assert [row["count"] for row in await refusals(service)][-1] == 5


async def test_a_stranger_does_not_lock_out_those_behind_his_address(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "ROWS_A_MINUTE", 2)
    for n in range(4):
        await client.enroll(Device(), WRONG)
        reply = await client.enroll(Device(subject=f"CN=device-{n}"), service.static_challenge, transaction=f"T{n}")
        assert reply.status is PkiStatus.SUCCESS


async def test_a_full_quota_is_a_signed_answer(start: StartService, session: aiohttp.ClientSession) -> None:
    service = await start(edit={"  demo:\n": "  demo:\n    limits: {total: {count: 1, window: 2h}}\n"})
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
    reply = await client.enroll(Device(OTHER_KEY, "CN=device-2"), service.static_challenge)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert reply.fail_info_text == "too many certificates were requested: try again later, in 2h at the latest"
    assert await reasons(service) == ["rate_limited"]


async def test_the_log_says_why(service: Service, client: Client) -> None:
    with capture_logs() as lines:
        await client.enroll(Device(), WRONG)
        await client.enroll(Device(subject="CN=" + "x" * 70), service.static_challenge)
        await client.enroll(Device(), service.static_challenge)
    invalid, refused, granted = [line for line in lines if line["event"] == "scep"]
    assert (invalid["reason"], invalid["subject"], invalid["requester"]) == ("credential_invalid", "CN=device-1", None)
    assert "static challenge" in invalid["cause"]
    assert refused["requester"].startswith("static:demo:")
    assert "longer than 64" in refused["cause"]
    assert (granted["outcome"], granted["cause"]) == ("issued", None)
    assert WRONG not in str(lines)
    assert service.static_challenge not in str(lines)


async def test_the_log_tells_what_only_warns(start: StartService, session: aiohttp.ClientSession) -> None:
    service = await start(edit={"        max_common_names: 1": "        max_common_names: 1\n        mode: warn"})
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    with capture_logs() as lines:
        reply = await client.enroll(Device(subject="CN=device-1,title=Boss"), service.static_challenge)
    assert reply.status is PkiStatus.SUCCESS
    [line] = [line for line in lines if line["event"] == "scep"]
    assert "subject attribute title is not allowed" in line["warnings"]
