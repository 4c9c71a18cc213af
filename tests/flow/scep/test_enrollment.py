"""SCEP end to end in one process: HTTP, PKIMessage, registration authority, local CA, store."""

import asyncio
import base64
import json
import threading
from datetime import timedelta
from urllib.parse import quote

import aiohttp
import pytest

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.model import SanKind
from gateway.pki import cms
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.names import format_name, parse_name_text
from gateway.pki.trust import verify_chain
from gateway.wire.scep import client as scep
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import StartService
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, Service, leaf_of, record_threads

MINUTE = timedelta(minutes=1)


async def rejections(service: Service) -> list[tuple[str, str]]:
    rows = [json.loads(body) for body in await service.audit()]
    return [(row["reason"], row["actor"]) for row in rows if row["event"] == "enrollment.rejected"]


async def test_one_time_challenge_enrolls(service: Service, client: Client) -> None:
    device = Device(sans=((SanKind.DNS, "device-1.example"),))
    reply = await client.enroll(device, await service.new_challenge())
    assert reply.status is PkiStatus.SUCCESS
    leaf = parse_certificate(leaf_of(reply))
    assert format_name(leaf.subject) == "CN=device-1"
    assert [(san.kind, san.value) for san in leaf.sans] == [(SanKind.DNS, "device-1.example")]
    chain = tuple(
        parse_certificate(der)
        for name in ("issuing", "root")
        for der in pem_to_ders((service.folder / "ca" / f"{name}.pem").read_bytes())
    )
    verify_chain(leaf, chain, service.clock())
    [row] = await service.run("GET", "/v1/certificates")
    assert row["serial"] == format(leaf.serial, "x")
    assert row["requester"].startswith("one_time:")


async def test_static_challenge_enrolls(service: Service, client: Client) -> None:
    reply = await client.enroll(Device(), service.static_challenge)
    assert reply.status is PkiStatus.SUCCESS


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cipher": "aes-128-cbc"}, id="aes-128"),
        pytest.param({"cipher": "aes-192-cbc"}, id="aes-192"),
        pytest.param({"digest": "sha512"}, id="sha-512"),
        pytest.param({"oaep": True}, id="oaep"),
    ],
)
async def test_algorithms(service: Service, client: Client, options: dict[str, object]) -> None:
    assert (await client.enroll(Device(), service.static_challenge, **options)).status is PkiStatus.SUCCESS


@pytest.mark.parametrize("encode", [pytest.param(quote, id="escaped"), pytest.param(str, id="macos-unescaped")])
@pytest.mark.parametrize("suffix", ["", "/pkiclient.exe", "/cgi-bin/pkiclient.exe"])
async def test_get(service: Service, client: Client, encode: object, suffix: str) -> None:
    request, signer = Device().request(client.ra, service.static_challenge)
    message = encode(base64.b64encode(request.message).decode())  # type: ignore[operator]
    head = f"GET /scep/demo{suffix}?operation=PKIOperation&message={message} HTTP/1.0\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.0 200"), answer[:300]
    assert scep.decode_cert_rep(body, request, signer, client.ra).status is PkiStatus.SUCCESS


async def test_ca_capabilities_and_certificates(client: Client, session: aiohttp.ClientSession) -> None:
    async with session.get(client.url, params={"operation": "GetCACaps", "message": "default"}) as reply:
        assert reply.headers["Content-Type"] == "text/plain"
        assert {"AES", "POSTPKIOperation", "SHA-256", "SCEPStandard", "Renewal"} <= set((await reply.text()).split())
    async with session.get(client.url, params={"operation": "GetCACert", "message": "0"}) as reply:
        assert reply.headers["Content-Type"] == "application/x-x509-ca-ra-cert"


async def test_https_has_no_tickets_and_asks_for_no_certificate(service: Service, session: aiohttp.ClientSession) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(service.folder / "ca" / "root.pem"))
    async with session.get(f"https://localhost:{service.tls_port}/scep/demo?operation=GetCACaps", ssl=context) as reply:
        assert reply.status == 200


async def test_the_same_request_gets_the_same_certificate(service: Service, client: Client) -> None:
    challenge = await service.new_challenge()
    request, signer = Device().request(client.ra, challenge)
    first = leaf_of(await client.send(request, signer))
    assert leaf_of(await client.send(request, signer)) == first
    assert leaf_of(await client.enroll(Device(), challenge)) == first


async def test_many_at_once_get_one_certificate(service: Service, client: Client) -> None:
    request, signer = Device().request(client.ra, await service.new_challenge())
    replies = await asyncio.gather(*(client.send(request, signer) for _ in range(20)))
    assert len({leaf_of(reply) for reply in replies}) == 1
    assert len(await service.run("GET", "/v1/certificates")) == 1


async def test_one_challenge_serves_one_device(service: Service, client: Client) -> None:
    challenge = await service.new_challenge()
    devices = [Device(KEY), Device(OTHER_KEY, "CN=device-2")]
    replies = await asyncio.gather(*(client.enroll(device, challenge) for device in devices))
    assert sorted(reply.status for reply in replies) == [PkiStatus.SUCCESS, PkiStatus.FAILURE]


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        pytest.param(None, "credential_missing", id="none"),
        pytest.param("wrong-but-long-enough", "credential_invalid", id="wrong"),
        pytest.param("x", "credential_invalid", id="short"),
    ],
)
async def test_bad_challenges(service: Service, client: Client, challenge: str | None, reason: str) -> None:
    reply = await client.enroll(Device(), challenge)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert reply.fail_info_text
    assert reply.certificates == ()
    assert await rejections(service) == [(reason, "unauthenticated")]
    assert await service.run("GET", "/v1/certificates") == []


async def test_expired_and_revoked_challenges(service: Service, client: Client) -> None:
    expired, revoked = await service.new_challenge(), await service.new_challenge(ttl=7200)
    [row] = [r for r in await service.run("GET", "/v1/challenges") if r["expires_at"] > _later(service, 90)]
    await service.run("POST", f"/v1/challenges/{row['id']}/revoke")
    service.clock.ahead = 61 * MINUTE
    assert (await client.enroll(Device(), expired)).status is PkiStatus.FAILURE
    assert (await client.enroll(Device(), revoked)).status is PkiStatus.FAILURE
    assert [reason for reason, _ in await rejections(service)] == ["credential_expired", "credential_revoked"]


def _later(service: Service, minutes: int) -> str:
    return (service.clock() + minutes * MINUTE).isoformat()


async def test_a_bound_challenge_serves_its_name_only(service: Service, client: Client) -> None:
    challenge = await service.new_challenge(subject="CN=device-1", sans=["dns:a.example"])
    assert (await client.enroll(Device(subject="CN=device-2"), challenge)).status is PkiStatus.FAILURE
    assert (await client.enroll(Device(), challenge)).status is PkiStatus.FAILURE
    bound = Device(sans=((SanKind.DNS, "a.example"),))
    assert (await client.enroll(bound, challenge)).status is PkiStatus.SUCCESS


async def test_policy_says_what_is_wrong_and_burns_nothing(service: Service, client: Client) -> None:
    challenge = await service.new_challenge()
    reply = await client.enroll(Device(sans=((SanKind.IP, "8.8.8.8"),)), challenge)
    assert reply.status is PkiStatus.FAILURE
    assert (await client.enroll(Device(), challenge)).status is PkiStatus.SUCCESS


@pytest.mark.parametrize("name", ["ca/root.pem", "ca/issuing.pem", "ca/ra.pem"])
async def test_nobody_gets_the_name_of_a_ca_or_an_ra(service: Service, client: Client, name: str) -> None:
    certificate = parse_certificate(pem_to_ders((service.folder / name).read_bytes())[0])
    reply = await client.enroll(Device(subject=format_name(certificate.subject)), service.static_challenge)
    assert (reply.status, "the name of a CA" in reply.fail_info_text) == (PkiStatus.FAILURE, True)


@pytest.mark.parametrize("message_type", [MessageType.RENEWAL_REQ, MessageType.PKCS_REQ], ids=lambda kind: kind.name.lower())
async def test_renewal_by_the_old_certificate(service: Service, client: Client, message_type: MessageType) -> None:
    device = Device()
    old = leaf_of(await client.enroll(device, await service.new_challenge()))
    renewed = await client.enroll(device.renewing(old, OTHER_KEY), None, message_type=message_type)
    assert renewed.status is PkiStatus.SUCCESS
    assert leaf_of(renewed, OTHER_KEY) != old


async def test_a_renewal_keeps_its_names(service: Service, client: Client) -> None:
    device = Device()
    old = leaf_of(await client.enroll(device, await service.new_challenge()))
    thief = Device(subject="CN=admin").renewing(old, OTHER_KEY)
    assert (await client.enroll(thief, None, message_type=MessageType.RENEWAL_REQ)).status is PkiStatus.FAILURE


async def test_a_self_signed_certificate_renews_nothing(service: Service, client: Client) -> None:
    reply = await client.enroll(Device(), None, message_type=MessageType.RENEWAL_REQ)
    assert reply.status is PkiStatus.FAILURE
    assert reply.fail_info is FailInfo.BAD_CERT_ID
    assert [reason for reason, _ in await rejections(service)] == ["unknown_certificate"]


async def test_a_revoked_certificate_renews_nothing(service: Service, client: Client) -> None:
    device = Device()
    old = leaf_of(await client.enroll(device, await service.new_challenge()))
    serial = format(parse_certificate(old).serial, "x")
    revoked = await service.run("POST", f"/v1/certificates/{serial}/revoke", reason="key_compromise")
    assert revoked["crl_number"] == 1
    reply = await client.enroll(device.renewing(old, OTHER_KEY), None, message_type=MessageType.RENEWAL_REQ)
    assert reply.status is PkiStatus.FAILURE


async def test_manual_approval(start: StartService, session: aiohttp.ClientSession) -> None:
    service = await start(edit={"  demo:\n": "  demo:\n    approval: manual\n"})
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    device = Device()
    request, signer = device.request(client.ra, await service.new_challenge())
    assert (await client.send(request, signer)).status is PkiStatus.PENDING
    issuer = pem_to_ders((service.folder / "ca" / "issuing.pem").read_bytes())[0]
    poll_data = scep.encode_issuer_and_subject(parse_certificate(issuer).subject.der, parse_name_text("CN=device-1").der)

    async def poll(device: Device, signer: cms.Signer | None = None) -> scep.CertRep:
        asked, by = device.request(client.ra, None, message_type=MessageType.CERT_POLL, message_data=poll_data,
                                   transaction=request.transaction_id)  # fmt: skip
        return await client.send(asked, by)

    assert (await poll(device)).status is PkiStatus.PENDING
    stranger = await poll(Device(OTHER_KEY))
    assert (stranger.status, stranger.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)
    [row] = await service.run("GET", "/v1/requests")
    await service.run("POST", f"/v1/requests/{row['id']}/approve")
    assert service.gateway.wanted.is_set()
    await service.gateway.recover()
    assert leaf_of(await poll(device))


async def test_denial(start: StartService, session: aiohttp.ClientSession) -> None:
    service = await start(edit={"  demo:\n": "  demo:\n    approval: manual\n"})
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    request, signer = Device().request(client.ra, await service.new_challenge())
    assert (await client.send(request, signer)).status is PkiStatus.PENDING
    [row] = await service.run("GET", "/v1/requests")
    await service.run("POST", f"/v1/requests/{row['id']}/deny", detail="not this one")
    reply = await client.send(request, signer)
    assert (reply.status, reply.fail_info_text) == (PkiStatus.FAILURE, "not this one")


async def test_a_foreign_profiles_challenge(start: StartService, session: aiohttp.ClientSession) -> None:
    service = await start()
    await service.close()
    text = (service.folder / "profiles.yaml").read_text()
    block = text[text.index("  demo:\n") :]
    (service.folder / "profiles.yaml").write_text(text + block.replace("  demo:", "  other:", 1))
    again = await start(worker="test:2")
    client = Client(session, f"{again.url}/scep/demo")
    await client.fetch_ra()
    foreign = await again.new_challenge("other")
    assert (await client.enroll(Device(), foreign)).status is PkiStatus.FAILURE
    assert [reason for reason, _ in await rejections(again)] == ["credential_invalid"]


async def test_slow_ra_keys_work_off_the_loop(
    start: StartService, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(ra_key="rsa-3072")
    assert all(scep_service.offload for scep_service in service.gateway.generation.scep.values())
    threads = record_threads(monkeypatch, "decode_request", "encode_success", "encode_failure")
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
    assert (await client.enroll(Device(), "wrong-but-long-enough")).status is PkiStatus.FAILURE
    assert threads.keys() == {"decode_request", "encode_success", "encode_failure"}
    assert threading.main_thread() not in threads.values()


async def test_two_workers_share_one_store(start: StartService, session: aiohttp.ClientSession) -> None:
    one = await start(worker="test:1")
    two = await start(worker="test:2")
    clients = [Client(session, f"{service.url}/scep/demo") for service in (one, two)]
    for client in clients:
        await client.fetch_ra()
    challenge = await one.new_challenge()
    request, signer = Device().request(clients[0].ra, challenge)
    replies = await asyncio.gather(*(clients[n % 2].send(request, signer) for n in range(10)))
    assert len({leaf_of(reply) for reply in replies}) == 1
    assert (await clients[1].enroll(Device(OTHER_KEY, "CN=device-2"), challenge)).status is PkiStatus.FAILURE
