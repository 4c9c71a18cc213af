"""A profile may bear a number of failures of one address: beyond, that address gets 429 for a while, and nobody else."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.asn1.scep import PkiStatus
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import KEY, Client, Device, Service, configure, make_folder

WRONG = "wrong-but-long-enough"
LIMITED = {"limits": {"failures_per_address": {"count": 2, "window": "10m"}}}

Fail = Callable[[Service, Client], Awaitable[object]]


async def malformed(service: Service, client: Client) -> object:
    return await client.post(b"no message")


async def no_base64(service: Service, client: Client) -> object:
    async with client.session.get(f"{client.url}?operation=PKIOperation&message=!!!") as reply:
        return reply.status


async def wrong_challenge(service: Service, client: Client) -> object:
    return await client.enroll(Device(), WRONG)


async def bad_signature(service: Service, client: Client) -> object:
    request, _ = Device().request(client.ra, None)
    return await client.post(request.message[:-1] + bytes([request.message[-1] ^ 1]))


async def unknown_transaction(service: Service, client: Client) -> object:
    return await client.enroll(Device(), None, message_type=MessageType.CERT_POLL, transaction="nowhere")


async def refused_by_policy(service: Service, client: Client) -> object:
    return await client.enroll(Device(subject="CN=" + "x" * 70), service.static_challenge)


@pytest.mark.parametrize(
    "fail",
    [malformed, no_base64, wrong_challenge, bad_signature, unknown_transaction, refused_by_policy],
    ids=lambda f: f.__name__,
)
async def test_failures(start: StartService, connect: Connect, fail: Fail) -> None:
    service = await start(demo=LIMITED)
    client = await connect(service)
    await fail(service, client)
    reply = await client.enroll(Device(), service.static_challenge)
    assert reply.status is PkiStatus.SUCCESS, "one failure more is borne"
    await fail(service, client)
    request, _ = Device().request(client.ra, service.static_challenge)
    async with client.session.post(f"{client.url}?operation=PKIOperation", data=request.message) as refused:
        assert refused.status == 429
        assert 590 <= int(refused.headers["Retry-After"]) <= 600
        assert "too many failed requests" in await refused.text()


async def test_what_is_refused_so_is_counted(start: StartService, connect: Connect) -> None:
    service = await start(demo=LIMITED)
    client = await connect(service)
    for _ in range(5):
        await wrong_challenge(service, client) if _ < 2 else await client.post(b"x")
    assert await counts(service) == [("rate_limited", 3)]


async def counts(service: Service) -> list[tuple[str, int]]:
    await service.endpoints.floods.flush()
    rows: list[dict[str, Any]] = [json.loads(body) for body in await service.audit()]
    return [(row["reason"], row["count"]) for row in rows if row["event"] == "request.refused"]


async def test_success_is_never_counted(start: StartService, connect: Connect) -> None:
    service = await start(demo=LIMITED)
    client = await connect(service)
    for number in range(5):
        device = Device(KEY, f"CN=device-{number}")
        reply = await client.enroll(device, service.static_challenge, transaction=f"T{number}")
        assert reply.status is PkiStatus.SUCCESS


async def test_another_profile_is_not_concerned(start: StartService, connect: Connect, tmp_path: Path) -> None:
    configure(make_folder(tmp_path / "s"), other={})
    service = await start(demo=LIMITED)
    demo, other = await connect(service), await connect(service, "other")
    for _ in range(3):
        await demo.post(b"x")
    assert (await demo.post(b"x"))[0] == 429
    assert (await other.post(b"x"))[0] == 400


async def test_nobody_is_limited_who_was_not_told_to_be(service: Service, client: Client) -> None:
    for _ in range(100):
        assert (await client.post(b"x"))[0] == 400
