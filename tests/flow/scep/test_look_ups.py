"""GetCert and GetCRL: a device sees certificates of its own and its CA's CRL, and nobody sees more (RFC 8894 §3.3.4)."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki import cms
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.crl import parse_crl
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client as scep
from gateway.wire.scep.client import CertRep
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, Service, configure, leaf_of, make_folder

CERT, CRL = MessageType.GET_CERT, MessageType.GET_CRL
NOT_FOUND = (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID, "there is nothing here that this signer may see")
NOT_ALLOWED = (PkiStatus.FAILURE, FailInfo.BAD_REQUEST, "the signer may not look up anything here")


@dataclass(frozen=True)
class Holder:
    """A device with a certificate, which signs its queries."""

    device: Device
    certificate: bytes

    @property
    def serial(self) -> int:
        return parse_certificate(self.certificate).serial


@dataclass(frozen=True)
class Desk:
    """Where holders ask."""

    service: Service
    client: Client

    @property
    def issuer(self) -> bytes:
        [certificate] = pem_to_ders((self.service.folder / "ca" / "issuing.pem").read_bytes())
        return parse_certificate(certificate).subject.der

    async def enroll(self, device: Device) -> Holder:
        certificate = leaf_of(await self.client.enroll(device, self.service.static_challenge), device.key)
        return Holder(replace(device, signer=cms.Signer.create(certificate, device.key)), certificate)

    async def ask(
        self, what: MessageType, holder: Holder, serial: int, *, issuer: bytes | None = None, data: bytes | None = None
    ) -> CertRep:
        """Ask with a transactionID that everybody uses, as jscep and sscep do."""
        query = scep.encode_issuer_and_serial(self.issuer if issuer is None else issuer, serial)
        return await self.client.enroll(
            holder.device, None, message_type=what, message_data=query if data is None else data, transaction="1"
        )


@pytest.fixture
def desk(service: Service, client: Client) -> Desk:
    return Desk(service, client)


@pytest.fixture
async def holder(desk: Desk) -> Holder:
    return await desk.enroll(Device())


@pytest.fixture
async def other(desk: Desk) -> Holder:
    return await desk.enroll(Device(OTHER_KEY, "CN=device-2"))


def told(reply: CertRep) -> tuple[PkiStatus, FailInfo | None, str]:
    assert (reply.certificates, reply.crls) == ((), ())
    return reply.status, reply.fail_info, reply.fail_info_text


async def test_a_device_gets_its_certificate(desk: Desk, holder: Holder) -> None:
    with capture_logs() as lines:
        reply = await desk.ask(CERT, holder, holder.serial)
    assert (reply.status, reply.certificates, reply.crls) == (PkiStatus.SUCCESS, (holder.certificate,), ())
    [line] = [line for line in lines if line["event"] == "scep"]
    assert (line["operation"], line["outcome"], line["reason"]) == ("GetCert", "found", None)


async def test_a_device_gets_the_certificate_of_its_name_under_another_key(desk: Desk, holder: Holder) -> None:
    renewed = await desk.enroll(Device(OTHER_KEY))
    assert (await desk.ask(CERT, renewed, holder.serial)).certificates == (holder.certificate,)
    assert (await desk.ask(CERT, holder, renewed.serial)).certificates == (renewed.certificate,)


async def test_a_chain_is_for_what_was_issued_only(start: StartService, connect: Connect) -> None:
    service = await start(demo={"endpoints": {"scep": {"reply_chain": True}}})
    desk = Desk(service, await connect(service))
    holder = await desk.enroll(Device())
    assert (await desk.ask(CERT, holder, holder.serial)).certificates == (holder.certificate,)


async def test_a_device_gets_the_crl(desk: Desk, holder: Holder, other: Holder) -> None:
    await desk.service.run("POST", f"/v1/certificates/{other.serial:x}/revoke", reason="superseded")
    reply = await desk.ask(CRL, holder, holder.serial)
    assert (reply.status, reply.certificates) == (PkiStatus.SUCCESS, ())
    [crl] = reply.crls
    assert [serial for serial, *_ in parse_crl(crl).entries] == [other.serial]


async def test_look_ups_by_get(desk: Desk, holder: Holder) -> None:
    query = scep.encode_issuer_and_serial(desk.issuer, holder.serial)
    request, signer = holder.device.request(desk.client.ra, None, message_type=CERT, message_data=query)
    async with desk.client.session.get(scep.pki_operation_url(desk.client.url, request.message)) as reply:
        assert desk.client.read(await reply.read(), request, signer).certificates == (holder.certificate,)


Query = Callable[[Desk, Holder, Holder], Awaitable[CertRep]]

NOT_FOUND_QUERIES = [
    pytest.param(lambda d, h, o: d.ask(CERT, h, o.serial), id="of-another-device"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, 4711), id="of-nobody"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, 0), id="serial-0"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, h.serial, issuer=parse_name_text("CN=Other").der), id="of-another-ca"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, h.serial, issuer=b"\x30\x00"), id="of-a-ca-without-name"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, 0, data=b"hello"), id="no-query"),
    pytest.param(lambda d, h, o: d.ask(CERT, h, 0, data=h.device.csr(None)), id="a-csr"),
    pytest.param(lambda d, h, o: d.ask(CRL, h, h.serial, issuer=parse_name_text("CN=Other").der), id="crl-of-another-ca"),
    pytest.param(lambda d, h, o: d.ask(CRL, h, 0, data=b"\x30\x03\x02\x01\x01"), id="crl-no-query"),
]


@pytest.mark.parametrize("query", NOT_FOUND_QUERIES)
async def test_what_is_not_there_for_a_device(desk: Desk, holder: Holder, other: Holder, query: Query) -> None:
    assert told(await query(desk, holder, other)) == NOT_FOUND


@pytest.mark.parametrize("what", [CERT, CRL], ids=lambda what: what.name.lower())
class TestWhoMaySeeNothing:
    async def test_a_self_signed_certificate(self, desk: Desk, holder: Holder, what: MessageType) -> None:
        stranger = Holder(Device(), b"")
        assert told(await desk.ask(what, stranger, holder.serial)) == NOT_ALLOWED

    async def test_a_self_signed_certificate_without_a_readable_query(self, desk: Desk, what: MessageType) -> None:
        assert told(await desk.ask(what, Holder(Device(), b""), 0, data=b"hello")) == NOT_ALLOWED

    async def test_a_revoked_certificate(self, desk: Desk, holder: Holder, what: MessageType) -> None:
        await desk.service.run("POST", f"/v1/certificates/{holder.serial:x}/revoke", reason="superseded")
        assert told(await desk.ask(what, holder, holder.serial)) == NOT_ALLOWED

    async def test_an_expired_certificate(self, desk: Desk, holder: Holder, what: MessageType) -> None:
        desk.service.clock.ahead = timedelta(days=366)
        assert told(await desk.ask(what, holder, holder.serial)) == NOT_ALLOWED

    async def test_a_certificate_of_another_profile(
        self, start: StartService, connect: Connect, tmp_path: Path, what: MessageType
    ) -> None:
        configure(make_folder(tmp_path / "s"), other={})
        service = await start()
        here, there = Desk(service, await connect(service)), Desk(service, await connect(service, "other"))
        holder = await here.enroll(Device())
        assert told(await there.ask(what, holder, holder.serial)) == NOT_ALLOWED
        assert (await here.ask(CERT, holder, holder.serial)).status is PkiStatus.SUCCESS


async def test_there_is_no_crl_before_the_first(start: StartService, connect: Connect) -> None:
    service = await start(
        edit={
            "    crl:\n      lifetime: 7d\n      refresh: 24h                  # and at once when a certificate is revoked\n": ""
        }
    )
    desk = Desk(service, await connect(service))
    holder = await desk.enroll(Device())
    assert told(await desk.ask(CRL, holder, holder.serial)) == NOT_FOUND


async def test_the_audit_trail_names_who_looked(desk: Desk, holder: Holder, other: Holder) -> None:
    await desk.ask(CERT, holder, holder.serial)
    await desk.ask(CERT, holder, other.serial)
    await desk.ask(CERT, Holder(Device(KEY), b""), other.serial)
    rows = [row for row in map(json.loads, await desk.service.audit()) if row["event"].startswith("look_up")]
    named = f"certificate:{parse_certificate(holder.certificate).sha256.hex()}"
    assert [(row["event"], row["decision"], row["actor"], row.get("reason")) for row in rows] == [
        ("look_up.answered", "done", named, None),
        ("look_up.rejected", "refused", named, "unknown_certificate"),
        ("look_up.rejected", "refused", "unauthenticated", "not_authorized"),
    ]
