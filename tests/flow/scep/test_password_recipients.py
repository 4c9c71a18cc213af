"""Devices whose keys cannot encrypt: messages under the profile's challenge (RFC 8894 §3.1, PasswordRecipientInfo)."""

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki.keys import generate_private_key
from gateway.web import derivations
from gateway.wire.scep import pkimessage
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import Client, Device, Service, leaf_of, record_threads

STATIC = {"type": "static", "challenge": {"file": "secrets/demo-scep-challenge"}, "any_name": True}
PWRI = {"credentials": [STATIC], "endpoints": {"scep": {"pwri": True}}}
EC_DEVICE = Device(generate_private_key("ec-p256"))


@pytest.fixture
async def service(start: StartService) -> Service:
    return await start(demo=PWRI)


@pytest.fixture
async def client(service: Service, connect: Connect) -> Client:
    client = await connect(service)
    client.password = service.static_challenge.encode()
    return client


@pytest.mark.parametrize("spec", ["ec-p256", "ec-p384", "ed25519", "ml-dsa-65"])
async def test_keys_that_cannot_encrypt(service: Service, client: Client, spec: str) -> None:
    device = Device(generate_private_key(spec))
    reply = await client.enroll(device, service.static_challenge, password=client.password)
    assert reply.status is PkiStatus.SUCCESS
    assert leaf_of(reply, device.key)


async def test_encrypted_to_the_ra_and_answered_under_the_challenge(service: Service, client: Client) -> None:
    assert leaf_of(await client.enroll(EC_DEVICE, service.static_challenge), EC_DEVICE.key)


async def test_rsa_devices_are_served_as_ever(service: Service, client: Client) -> None:
    client.password = None
    assert leaf_of(await client.enroll(Device(), service.static_challenge))


async def test_renewal_and_look_up(service: Service, client: Client, start: StartService, connect: Connect) -> None:
    old = leaf_of(await client.enroll(EC_DEVICE, service.static_challenge, password=client.password), EC_DEVICE.key)
    new_key = generate_private_key("ec-p256")
    renewing = EC_DEVICE.renewing(old, new_key)
    renewed = await client.enroll(renewing, None, message_type=MessageType.RENEWAL_REQ, password=client.password)
    assert leaf_of(renewed, new_key) != old


@pytest.mark.parametrize(
    "guess", [pytest.param(b"wrong-but-long-enough", id="wrong"), pytest.param(b"", id="empty"), pytest.param(b"x", id="short")]
)
async def test_another_password(service: Service, client: Client, guess: bytes) -> None:
    reply = await client.enroll(EC_DEVICE, service.static_challenge, password=guess)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)
    assert await service.run("GET", "/v1/certificates") == []


async def test_the_password_is_no_credential(service: Service, client: Client) -> None:
    reply = await client.enroll(EC_DEVICE, None, password=client.password)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)


@pytest.mark.parametrize("under", ["challenge", "ra"])
async def test_a_profile_without(start: StartService, connect: Connect, under: str) -> None:
    service = await start("without")
    client = await connect(service)
    password = service.static_challenge.encode() if under == "challenge" else None
    reply = await client.enroll(EC_DEVICE, service.static_challenge, password=password)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


async def test_a_password_recipient_at_a_profile_without(start: StartService, connect: Connect) -> None:
    service = await start("without")
    client = await connect(service)
    reply = await client.enroll(Device(), service.static_challenge, password=service.static_challenge.encode())
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)


async def test_derivations_take_turns_and_others_are_served(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One derivation holds its turn; one waits; the third device is told to come again, and RSA devices notice nothing."""
    monkeypatch.setattr(derivations, "MAX_WAITING", 1)
    go, decode = threading.Event(), pkimessage.decode_request
    begun: list[str] = []

    def slow(message: pkimessage.PkiMessage, ra: pkimessage.RaIdentity) -> object:
        begun.append(message.transaction_id)
        if message.uses_password:
            assert go.wait(20)
        return decode(message, ra)

    monkeypatch.setattr(pkimessage, "decode_request", slow)

    def ask(number: int) -> asyncio.Task[tuple[int, bytes, str]]:
        device = Device(EC_DEVICE.key, f"CN=device-{number}")
        request, _ = device.request(client.ra, service.static_challenge, password=client.password, transaction=f"T{number}")
        return asyncio.create_task(client.post(request.message))

    with capture_logs() as lines:
        tasks = [ask(number) for number in range(3)]
        done, _ = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        [refused] = done
        assert refused.result()[0] == 503
        rsa = Device(subject="CN=rsa")
        request, signer = rsa.request(client.ra, service.static_challenge, transaction="rsa")
        assert (await client.send(request, signer)).status is PkiStatus.SUCCESS
        assert len(begun) == 2
        go.set()
        answers = await asyncio.gather(*(task for task in tasks if task is not refused))
    assert [status for status, _, _ in answers] == [200, 200]
    busy = [line for line in lines if line.get("reason") == "overloaded"]
    assert [(line["event"], line["outcome"]) for line in busy] == [("scep", "unavailable")]


async def test_slow_work_leaves_the_loop(service: Service, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = record_threads(monkeypatch, "decode_request", "encode_success")
    reply = await client.enroll(EC_DEVICE, service.static_challenge, password=client.password)
    assert reply.status is PkiStatus.SUCCESS
    assert threads.keys() == {"decode_request", "encode_success"}
    assert threading.main_thread() not in threads.values()


async def test_no_secret_in_the_log(service: Service, client: Client) -> None:
    with capture_logs() as lines:
        await client.enroll(EC_DEVICE, service.static_challenge, password=client.password)
        await client.enroll(EC_DEVICE, service.static_challenge, password=b"wrong-but-long-enough")
    assert service.static_challenge not in str(lines)
    assert "wrong-but-long-enough" not in str(lines)
