"""What is not a good SCEP message: refused in the right form, counted, and never an inner error."""

import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki import cms, der
from gateway.wire.scep import attributes
from gateway.wire.scep.client import ScepRequest
from gateway.wire.scep.pkimessage import MessageType, decode_pki_message
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.fleet import seal
from tests.flow.scep.service import OTHER_KEY, Client, Device, Service


async def counted(service: Service) -> dict[str, int]:
    """Flush the counters and return what the audit trail says of them."""
    await service.endpoints.floods.flush()
    rows = [json.loads(body) for body in await service.audit()]
    return {row["reason"]: row["count"] for row in rows if row["event"] == "request.refused"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"\x30\x80", id="unfinished"),
        pytest.param(b"\x30\x82\xff\xff", id="lies-about-its-length"),
        pytest.param(b"\x30\x80" * 16000, id="16000-deep"),
        pytest.param(der.sequence(der.tlv(0x06, b"\x2a" + b"\x81" * 60000 + b"\x01")), id="60-kb-oid"),
        pytest.param(der.sequence(*[der.null()] * 20000), id="20000-elements"),
    ],
)
async def test_malformed_messages(service: Service, client: Client, body: bytes) -> None:
    status, text, media_type = await client.post(body)
    assert status == 400
    assert media_type == "text/plain; charset=utf-8"
    assert b"Traceback" not in text
    assert b"gateway" not in text
    await client.post(body)
    assert await counted(service) == {"malformed": 2}


async def test_a_large_body(service: Service, client: Client) -> None:
    assert (await client.post(b"\x30" * 1048576))[0] == 413


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("", 501, id="nothing"),
        pytest.param("operation=GetNextCACert", 501, id="next-ca"),
        pytest.param("operation=%00%ff", 501, id="garbage"),
        pytest.param("operation=GetCACaps&operation=GetCACert", 400, id="twice"),
        pytest.param("operation=PKIOperation&message=!!!", 400, id="not-base64"),
        pytest.param("operation=PKIOperation", 400, id="no-message"),
        pytest.param("&".join("abcdefghijklmnopqrstuvwxyz"), 400, id="many-parameters"),
    ],
)
async def test_bad_queries(client: Client, session: aiohttp.ClientSession, query: str, status: int) -> None:
    async with session.get(f"{client.url}?{query}") as reply:
        assert reply.status == status


@pytest.mark.parametrize("path", ["/scep/nope", "/scep/demo%2f..", "/scep/demo/other.exe", "/scep/", "/", "/scep"])
async def test_unknown_paths(service: Service, session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(f"{service.url}{path}?operation=GetCACaps") as reply:
        assert reply.status == 404


async def test_unknown_profiles_are_counted_without_their_names(service: Service, session: aiohttp.ClientSession) -> None:
    for name in range(50):
        async with session.get(f"{service.url}/scep/scan{name}?operation=GetCACaps") as reply:
            assert reply.status == 404
    assert await counted(service) == {"unknown_profile": 50}
    assert "scan" not in "".join(await service.audit())


async def test_other_methods(service: Service, session: aiohttp.ClientSession) -> None:
    async with session.delete(f"{service.url}/scep/demo") as reply:
        assert reply.status == 405
        assert set(reply.headers["Allow"].split(",")) == {"GET", "POST"}


async def test_a_changed_signature(service: Service, client: Client) -> None:
    request, _ = Device().request(client.ra, service.static_challenge)
    status, body, media_type = await client.post(request.message[:-1] + bytes([request.message[-1] ^ 1]))
    assert (status, media_type) == (200, "application/x-pki-message")
    assert body
    assert await counted(service) == {"bad_signature": 1}
    assert await service.run("GET", "/v1/certificates") == []


async def test_a_message_for_another_recipient(service: Service, client: Client) -> None:
    device = Device()
    request, signer = device.request(device.own_signer().certificate, service.static_challenge)
    reply = await client.send(request, signer)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)


@pytest.mark.parametrize("options", [{"digest": "sha1"}, {"cipher": "des-ede3-cbc"}], ids=["sha-1", "3des"])
async def test_old_algorithms(service: Service, client: Client, options: dict[str, str]) -> None:
    reply = await client.enroll(Device(), service.static_challenge, **options)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


@pytest.mark.parametrize(
    "message_type", [MessageType.GET_CERT, MessageType.GET_CRL, MessageType.CERT_REP], ids=lambda m: m.name.lower()
)
async def test_message_types_without_a_service(service: Service, client: Client, message_type: MessageType) -> None:
    reply = await client.enroll(Device(), service.static_challenge, message_type=message_type)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert await service.run("GET", "/v1/certificates") == []


TRANSACTION = cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T"))
PKCS_REQ = attributes.code(asn1.OID_MESSAGE_TYPE, MessageType.PKCS_REQ)
NONCE = attributes.nonce(asn1.OID_SENDER_NONCE, b"n" * 16)
LATE = cms.attribute(asn1.OID_SIGNING_TIME, der.time(datetime.now(UTC) - timedelta(hours=2)))


@pytest.mark.parametrize(
    ("content", "signed", "info"),
    [
        pytest.param(b"", (TRANSACTION, PKCS_REQ, NONCE), FailInfo.BAD_REQUEST, id="empty-content"),
        pytest.param(b"hello", (TRANSACTION, PKCS_REQ, NONCE), FailInfo.BAD_REQUEST, id="no-envelope"),
        pytest.param(None, (TRANSACTION, NONCE), FailInfo.BAD_REQUEST, id="no-message-type"),
        *(
            pytest.param(
                None, (TRANSACTION, attributes.code(asn1.OID_MESSAGE_TYPE, number), NONCE), FailInfo.BAD_REQUEST, id=name
            )
            for number, name in {0: "reserved", 3: "certrep", 18: "updatereq", 99: "type-99", 255: "type-255"}.items()
        ),
        pytest.param(
            None,
            (TRANSACTION, PKCS_REQ, attributes.nonce(asn1.OID_SENDER_NONCE, b"n" * 65)),
            FailInfo.BAD_REQUEST,
            id="long-nonce",
        ),
        pytest.param(None, (TRANSACTION, PKCS_REQ, NONCE, LATE), FailInfo.BAD_TIME, id="two-hours-late"),
    ],
)
async def test_whoever_can_be_answered_is_answered_by_a_signed_failure(
    start: StartService, connect: Connect, content: bytes | None, signed: tuple[bytes, ...], info: FailInfo
) -> None:
    service = await start(demo={"endpoints": {"scep": {"signing_time_skew": "1h"}}})
    client = await connect(service)
    signer = Device().own_signer()
    sealed = seal(Device().csr(service.static_challenge), client.ra) if content is None else content
    nonce = b"n" * 16 if NONCE in signed else b""
    reply = await client.send(ScepRequest(cms.sign_data(sealed, signer, "sha256", signed), "T", nonce), signer)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, info)
    assert reply.fail_info_text
    assert await service.run("GET", "/v1/certificates") == []


@pytest.mark.parametrize("minutes", [pytest.param(-59, id="behind"), pytest.param(59, id="ahead")])
async def test_a_clock_that_is_right_enough(start: StartService, connect: Connect, minutes: int) -> None:
    service = await start(demo={"endpoints": {"scep": {"signing_time_skew": "1h"}}})
    client = await connect(service)
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    assert (await client.enroll(Device(), service.static_challenge, signing_time=when)).status is PkiStatus.SUCCESS


async def test_a_clock_is_not_judged_unless_asked_for(service: Service, client: Client) -> None:
    when = datetime.now(UTC) - timedelta(days=3650)
    assert (await client.enroll(Device(), service.static_challenge, signing_time=when)).status is PkiStatus.SUCCESS


async def test_every_message_type_without_a_challenge_issues_nothing(service: Service, client: Client) -> None:
    for number in (0, 1, 18, 255):
        request, _ = Device().request(client.ra, None, message_type=number)  # type: ignore[arg-type]
        await client.post(request.message)
    assert await service.run("GET", "/v1/certificates") == []


async def test_the_proof_of_possession_is_checked(service: Service, client: Client) -> None:
    csr = Device(OTHER_KEY).csr(service.static_challenge)
    broken = csr[:-1] + bytes([csr[-1] ^ 1])
    reply = await client.enroll(Device(), None, message_data=broken)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)


async def test_a_captured_request_serves_nobody_else(service: Service, client: Client) -> None:
    """A stranger signs the envelope of a device's request anew, with a certificate of his own."""
    challenge = await service.new_challenge()
    captured, _ = Device().request(client.ra, challenge)
    stolen = decode_pki_message(captured.message).signed_data.content
    assert stolen is not None
    stranger = Device(OTHER_KEY).own_signer()
    attributes = (
        cms.attribute(asn1.OID_MESSAGE_TYPE, der.printable_string("19")),
        cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string("T")),
        cms.attribute(asn1.OID_SENDER_NONCE, der.octet_string(b"n" * 16)),
    )
    forged = ScepRequest(cms.sign_data(stolen, stranger, "sha256", attributes), "T", b"n" * 16)
    reply = await client.send(forged, stranger)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)
    assert "another key" in reply.fail_info_text
    assert (await client.enroll(Device(), challenge)).status is PkiStatus.SUCCESS, "and its challenge is not used up"


async def test_nothing_is_granted_without_the_store(service: Service, client: Client) -> None:
    challenge = await service.new_challenge()
    request, _ = Device().request(client.ra, challenge)
    await service.gateway.store.close()
    async with client.session.post(f"{client.url}?operation=PKIOperation", data=request.message) as reply:
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(service.admin))) as operators:
        async with operators.get("http://localhost/readyz") as reply:
            assert reply.status == 503
        async with operators.get("http://localhost/livez") as reply:
            assert reply.status == 200
