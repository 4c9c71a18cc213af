"""Old algorithms: each behind its own flag, in the log line and counted in the audit trail when used (RFC 8894 §2.9)."""

import json

import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki import cms, envelope
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import Client, Device, Service

CASES = [
    pytest.param("sha1", {"digest": "sha1"}, ["sha1"], id="sha-1"),
    pytest.param("md5", {"digest": "md5"}, ["md5"], id="md5"),
    pytest.param("triple_des", {"cipher": "des-ede3-cbc"}, ["des-ede3-cbc"], id="3des"),
    pytest.param("des", {"cipher": "des-cbc"}, ["des-cbc"], id="des"),
]


async def uses(service: Service) -> list[tuple[str, str, int]]:
    await service.endpoints.floods.flush()
    rows = [json.loads(body) for body in await service.audit()]
    return [(row["profile"], row["detail"], row["count"]) for row in rows if row["event"] == "algorithm.legacy"]


async def send(
    client: Client, service: Service, options: dict[str, str], subject: str = "CN=device-1"
) -> tuple[PkiStatus, bytes]:
    request, signer = Device(subject=subject).request(client.ra, service.static_challenge, transaction=subject, **options)  # type: ignore[arg-type]
    status, body, _ = await client.post(request.message)
    assert status == 200
    return client.read(body, request, signer, accept_md5=True).status, body


@pytest.mark.parametrize(("flag", "options", "names"), CASES)
async def test_with_its_flag(start: StartService, connect: Connect, flag: str, options: dict[str, str], names: list[str]) -> None:
    service = await start(demo={"endpoints": {"scep": {"legacy": {flag: True}}}})
    client = await connect(service)
    with capture_logs() as lines:
        status, body = await send(client, service, options)
        await send(client, service, options, "CN=device-2")
        await send(client, service, {})
    assert status is PkiStatus.SUCCESS
    told = [line["legacy"] for line in lines if line["event"] == "scep"]
    assert told == [" ".join(names), " ".join(names), None]
    assert await uses(service) == [("demo", name, 2) for name in names]
    content = cms.parse_signed_data(body).content
    assert content is not None
    expected = "des-ede3-cbc" if "des" in options.get("cipher", "") else "aes-256-cbc"
    assert envelope.parse_enveloped_data(content).cipher == expected


@pytest.mark.parametrize(("flag", "options", "names"), CASES)
async def test_with_every_flag_but_its_own(
    start: StartService, connect: Connect, flag: str, options: dict[str, str], names: list[str]
) -> None:
    flags = {name: name != flag for name in ("sha1", "md5", "triple_des", "des")}
    service = await start(demo={"endpoints": {"scep": {"legacy": flags}}})
    client = await connect(service)
    reply = await client.enroll(Device(), service.static_challenge, **options)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    assert reply.fail_info_text
    assert await uses(service) == []
    assert await service.run("GET", "/v1/certificates") == []


async def test_two_at_once(start: StartService, connect: Connect) -> None:
    service = await start(demo={"endpoints": {"scep": {"legacy": {"sha1": True, "des": True}}}})
    client = await connect(service)
    with capture_logs() as lines:
        await send(client, service, {"digest": "sha1", "cipher": "des-cbc"})
    assert {line["legacy"] for line in lines if line["event"] == "scep"} == {"sha1 des-cbc"}
    assert await uses(service) == [("demo", "sha1", 1), ("demo", "des-cbc", 1)]
