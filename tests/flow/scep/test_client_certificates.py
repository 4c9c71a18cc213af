"""Profiles that speak only to TLS clients with a good certificate below their own anchors, on every message (RFC 8446 §4.4.2)."""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, serialize_private_key
from gateway.wire.scep.client import CertRep, encode_issuer_and_serial
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.conftest import StartService
from tests.flow.scep.other_ca import DAY, OtherCA
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, Service, configure, leaf_of, make_folder

DEVICE = Device()
TLS_KEY = generate_private_key("ec-p256")
LISTENER = {"listen": "127.0.0.1:3", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}


@dataclass(frozen=True)
class Shown:
    """What a TLS client shows: a certificate and the key of it."""

    certificate: bytes
    key: PrivateKey


@dataclass(frozen=True)
class Gate:
    """A service whose profile `demo` asks for client certificates of `ours`; `other` is the anchor of profile `other`."""

    service: Service
    ours: OtherCA
    other: OtherCA

    def context(self, shown: Shown | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.service.folder / "ca" / "root.pem"))
        if shown is not None:
            path = self.service.folder / "client.pem"
            path.write_bytes(serialize_private_key(shown.key) + der_to_pem(shown.certificate))
            context.load_cert_chain(path)
        return context

    def url(self, path: str = "/scep-mtls/demo", *, mtls: bool = True) -> str:
        return f"https://localhost:{self.service.mtls_port if mtls else self.service.tls_port}{path}"

    async def client(self, shown: Shown | None, url: str | None = None) -> Client:
        """Return a client of one TLS session; it must be closed."""
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context(shown)))
        client = Client(session, url or self.url())
        try:
            await client.fetch_ra()
        except BaseException:
            await session.close()
            raise
        return client

    async def enroll(self, shown: Shown | None, url: str | None = None, device: Device = DEVICE, **options: object) -> CertRep:
        client = await self.client(shown, url)
        try:
            challenge = options.pop("challenge", self.service.static_challenge)
            return await client.enroll(device, challenge, **options)  # type: ignore[arg-type]
        finally:
            await client.session.close()


async def open_gate(start: StartService, folder: Path, scep: Mapping[str, object] | None = None) -> Gate:
    ours, other = OtherCA.create("Device CA"), OtherCA.create("Another CA")
    make_folder(folder)
    (folder / "ca" / "devices.pem").write_bytes(ours.pem)
    (folder / "ca" / "devices.crl").write_bytes(ours.crl())
    (folder / "ca" / "other.pem").write_bytes(other.pem)
    require = {"client_certificate": "require"}
    configure(
        folder,
        server={"https_mtls": LISTENER},
        demo={"endpoints": {"scep": {**require, "client_anchors": "ca/devices.pem", **(scep or {})}}},
        other={"endpoints": {"scep": {**require, "client_anchors": "ca/other.pem"}}},
    )
    return Gate(await start(), ours, other)


@pytest.fixture
async def gate(start: StartService, tmp_path: Path) -> Gate:
    return await open_gate(start, tmp_path / "s")


def shown_by(ca: OtherCA, **options: object) -> Shown:
    return Shown(ca.issue(TLS_KEY, "CN=tls-client", **options), TLS_KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/scep-mtls/demo", "/scep/demo", "/SCEP-MTLS/Demo/pkiclient.exe"])
async def test_a_certificate_below_the_anchors(gate: Gate, path: str) -> None:
    shown = shown_by(gate.ours)
    reply = await gate.enroll(shown, gate.url(path))
    assert reply.status is PkiStatus.SUCCESS
    opened = [json.loads(body) for body in await gate.service.audit() if '"enrollment.opened"' in body]
    serial = parse_certificate(shown.certificate).serial
    assert [event["detail"] for event in opened] == [f"TLS client CN=tls-client, serial {serial:x}"]


async def test_the_challenge_is_asked_for_all_the_same(gate: Gate) -> None:
    reply = await gate.enroll(shown_by(gate.ours), challenge="wrong-but-long-enough")
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)


def missing(reply: CertRep) -> bool:
    return (reply.status, reply.fail_info, reply.fail_info_text) == (
        PkiStatus.FAILURE,
        FailInfo.BAD_REQUEST,
        "a TLS client certificate is required",
    )


async def test_no_certificate(gate: Gate) -> None:
    assert missing(await gate.enroll(None))


async def test_a_listener_that_asks_for_none(gate: Gate) -> None:
    assert missing(await gate.enroll(shown_by(gate.ours), gate.url("/scep/demo", mtls=False)))
    assert missing(await gate.enroll(None, f"{gate.service.url}/scep-mtls/demo"))
    assert missing(await gate.enroll(None, f"{gate.service.url}/scep/demo"))


async def test_a_certificate_in_a_header_is_none(gate: Gate) -> None:
    client = await gate.client(None)
    try:
        pem = der_to_pem(shown_by(gate.ours).certificate).decode().replace("\n", " ")
        client.session.headers.update({"X-Client-Cert": pem, "X-SSL-Client-Cert": pem, "Client-Cert": pem})
        assert missing(await client.enroll(Device(), gate.service.static_challenge))
    finally:
        await client.session.close()


Choose = Callable[[Gate], Shown]


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(lambda g: shown_by(g.other), id="another-profiles-ca"),
        pytest.param(lambda g: shown_by(g.ours, begins=-10 * DAY, ends=-DAY), id="expired"),
        pytest.param(lambda g: shown_by(g.ours, begins=DAY), id="not-yet-valid"),
    ],
)
async def test_a_certificate_that_does_not_do(gate: Gate, choose: Choose) -> None:
    reply = await gate.enroll(choose(gate))
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
    assert reply.fail_info_text
    assert not missing(reply)
    assert await gate.service.run("GET", "/v1/certificates") == []


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(lambda g: Shown(OtherCA.create("Stranger").issue(TLS_KEY, "CN=x"), TLS_KEY), id="unknown-ca"),
        pytest.param(lambda g: shown_by(g.ours, ekus=("serverAuth",)), id="server-certificate"),
    ],
)
async def test_what_tls_itself_turns_away(gate: Gate, choose: Choose) -> None:
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, OSError)):
        await gate.enroll(choose(gate))


async def test_every_message_is_asked(gate: Gate) -> None:
    enrolled = leaf_of(await gate.enroll(shown_by(gate.ours)))
    renewing = Device().renewing(enrolled, OTHER_KEY)
    [issuing] = pem_to_ders((gate.service.folder / "ca" / "issuing.pem").read_bytes())
    query = encode_issuer_and_serial(parse_certificate(issuing).subject.der, parse_certificate(enrolled).serial)
    for what, data in {
        MessageType.RENEWAL_REQ: None,
        MessageType.CERT_POLL: query,
        MessageType.GET_CERT: query,
        MessageType.GET_CRL: query,
    }.items():
        assert missing(await gate.enroll(None, device=renewing, challenge=None, message_type=what, message_data=data))
    found = await gate.enroll(
        shown_by(gate.ours), device=renewing, challenge=None, message_type=MessageType.GET_CERT, message_data=query
    )
    assert found.certificates == (enrolled,)


async def test_what_was_issued_here_and_revoked(start: StartService, tmp_path: Path) -> None:
    """A device renews on the strength of its certificate, until that is revoked, even on the connection that it holds."""
    gate = await open_gate(start, tmp_path / "s")
    folder = gate.service.folder
    await gate.service.close()
    issuing = (folder / "ca" / "issuing.pem").read_bytes()
    (folder / "ca" / "devices.pem").write_bytes(gate.ours.pem + issuing + (folder / "ca" / "root.pem").read_bytes())
    again = Gate(await start(worker="test:2"), gate.ours, gate.other)
    enrolled = leaf_of(await again.enroll(shown_by(again.ours)))
    client = await again.client(Shown(enrolled, KEY))
    try:
        ok = await client.enroll(Device(subject="CN=device-2"), again.service.static_challenge, transaction="T2")
        assert ok.status is PkiStatus.SUCCESS
        serial = format(parse_certificate(enrolled).serial, "x")
        await again.service.run("POST", f"/v1/certificates/{serial}/revoke", reason="key_compromise")
        refused = await client.enroll(Device(OTHER_KEY, "CN=device-3"), again.service.static_challenge)
        assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
        assert "revoked" in refused.fail_info_text
    finally:
        await client.session.close()


async def test_the_gateways_own_keys_are_nobody(gate: Gate) -> None:
    key = load_private_key((gate.service.folder / "secrets" / "ra.key").read_bytes())
    shown = Shown(gate.ours.issue(key, "CN=ra"), key)
    reply = await gate.enroll(shown)
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)


async def test_where_crls_are_kept_one_in_force_is_needed(start: StartService, tmp_path: Path) -> None:
    gate = await open_gate(start, tmp_path / "s", {"client_crls": "ca/devices.crl"})
    shown = shown_by(gate.ours, ends=1000 * DAY)
    assert (await gate.enroll(shown)).status is PkiStatus.SUCCESS
    gate.service.clock.ahead = timedelta(days=301)
    late = await gate.enroll(shown, device=Device(OTHER_KEY, "CN=device-2"))
    assert late.status is PkiStatus.FAILURE


async def test_public_answers_need_no_certificate(gate: Gate, session: aiohttp.ClientSession) -> None:
    for operation in ("GetCACaps", "GetCACert", "GetCACertChain"):
        async with session.get(f"{gate.service.url}/scep/demo?operation={operation}") as reply:
            assert reply.status == 200


async def test_refusals_are_on_record(gate: Gate) -> None:
    await gate.enroll(None)
    await gate.enroll(shown_by(gate.other))
    rows = [json.loads(body) for body in await gate.service.audit()]
    assert [row["reason"] for row in rows if row["event"] == "enrollment.rejected"] == ["credential_missing", "not_authorized"]
