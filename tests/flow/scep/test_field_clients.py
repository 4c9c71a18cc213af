"""Clients of the field with their peculiarities, one by one: what each sends is understood, and what it chokes on is not sent."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
import pytest_asyncio

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.model import SanKind
from gateway.pki import cms, der
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.envelope import parse_enveloped_data
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client as scep
from gateway.wire.scep.client import CertRep, ScepRequest
from gateway.wire.scep.pkimessage import MessageType
from tests.flow.scep.field import TESTDATA, Field, running
from tests.flow.scep.quirks import (
    CMS_ALGORITHM_PROTECTION,
    RSA_ENCRYPTION,
    Quirks,
    seal_for,
    sign_message,
    unsorted_csr,
)
from tests.flow.scep.raw import RawAnswer, exchange, post
from tests.flow.scep.service import KEY, OTHER_KEY, Client, Device, leaf_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

UUID = "CN=0B1D9C5E-6A1F-4F7C-9D39-8F8D2C6B7A10"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    async with running(tmp_path_factory.mktemp("field") / "s") as field:
        yield field


def parts(body: bytes) -> tuple[cms.SignedData, cms.SignerInfo]:
    """Take a CertRep apart."""
    signed = cms.parse_signed_data(body)
    return signed, signed.signers[0]


def read(answer: RawAnswer, asked: tuple[ScepRequest, cms.Signer], client: Client) -> CertRep:
    assert (answer.status, answer.media_type) == (200, "application/x-pki-message"), answer
    return client.read(answer.body, *asked)


def standard(message: bytes) -> str:
    return base64.b64encode(message).decode()


def apple_transaction(device: Device) -> str:
    """The hash of the public key: the same for every retry and for the renewal."""
    return hashlib.sha1(public_key_der(device.key), usedforsecurity=False).hexdigest()


# Windows


async def test_windows_enrolls_by_pkiclient_with_oaep(field: Field) -> None:
    client = await field.client()
    client.url += "/pkiclient.exe"
    device = Device(subject="CN=windows-1")
    reply = await client.enroll(device, field.challenge(), oaep=True)
    assert reply.status is PkiStatus.SUCCESS
    assert parse_certificate(leaf_of(reply)).not_before <= datetime.now(UTC) - timedelta(minutes=59), "its clock is behind"


async def test_windows_finds_what_it_demands_in_the_bundle(field: Field) -> None:
    """Key usage and Certificate Request Agent, else 0x8010002c; the trusted root, else "hash value is not correct"."""
    client = await field.client()
    async with field.session.get(client.url, params={"operation": "GetCACert", "message": "default"}) as reply:
        bundle = scep.decode_ca_certificates(await reply.read(), reply.headers["Content-Type"])
    ra = parse_certificate(bundle[0])
    assert {"digitalSignature", "keyEncipherment"} <= (ra.key_usage or frozenset())
    assert "1.3.6.1.4.1.311.20.2.1" in (ra.ekus or ())
    assert bundle[-1] == pem_to_ders((field.service.folder / "ca" / "root.pem").read_bytes())[0]


async def test_windows_finds_every_authenticated_attribute(field: Field) -> None:
    client = await field.client()
    for challenge in (field.challenge(), None):
        request, _ = Device(subject="CN=windows-2").request(client.ra, challenge, transaction=f"W{challenge}")
        _, info = parts((await client.post(request.message))[1])
        assert {
            asn1.OID_MESSAGE_TYPE,
            asn1.OID_PKI_STATUS,
            asn1.OID_TRANSACTION_ID,
            asn1.OID_SENDER_NONCE,
            asn1.OID_RECIPIENT_NONCE,
            "1.2.840.113549.1.9.3",
            "1.2.840.113549.1.9.4",
        } <= info.attributes.keys()


async def test_windows_mdm_renews_by_enrolling_again(field: Field) -> None:
    client = await field.client()
    device = Device(subject="CN=windows-3")
    replies = [await client.enroll(device, await field.service.new_challenge("modern"), transaction=f"MDM-{n}") for n in range(2)]
    assert len({leaf_of(reply) for reply in replies}) == 2


async def test_windows_gets_no_retry_from_a_failure_it_shows(field: Field) -> None:
    """Failures are CertReps under 200 with a text: HTTP errors are retried or shown as numbers."""
    reply = await (await field.client()).enroll(Device(subject="CN=windows-4"), "0123456789")
    assert (reply.status, reply.fail_info, bool(reply.fail_info_text)) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST, True)


# Apple


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(standard, id="raw"),
        pytest.param(lambda m: standard(m).replace("=", "%3D"), id="padding-escaped"),
        pytest.param(lambda m: standard(m).replace("+", " ").replace(" ", "%20"), id="plus-became-a-space"),
    ],
)
async def test_apple_enrolls_by_get_in_ber(field: Field, encode: Callable[[bytes], str]) -> None:
    client = await field.client()
    device = Device(subject="CN=iphone")
    signer = Device(subject=UUID).own_signer()
    content = seal_for(device.csr(field.challenge()), [client.ra], "aes-128-cbc")
    request = sign_message(content, signer, apple_transaction(device), Quirks(indefinite=True))
    assert read(await field.get("/scep/modern", encode(request.message)), (request, signer), client).status is PkiStatus.SUCCESS


async def test_apple_compares_media_types_and_the_signer(field: Field) -> None:
    client = await field.client()
    async with field.session.get(client.url, params={"operation": "GetCACert"}) as reply:
        assert reply.headers["Content-Type"] == "application/x-x509-ca-ra-cert"
        bundle = scep.decode_ca_certificates(await reply.read(), reply.headers["Content-Type"])
    assert [parse_certificate(c).is_ca for c in bundle] == [False, True, True], "RA first, then one chain up to one top CA"
    assert "keyEncipherment" not in (parse_certificate(bundle[1]).key_usage or ())
    request, _ = Device(subject="CN=mac").request(client.ra, field.challenge())
    _, body, media_type = await client.post(request.message)
    assert media_type == "application/x-pki-message"
    assert cms.parse_signed_data(body).certificates[0] == bundle[0]


async def test_apple_renews_with_its_old_certificate_under_the_same_transaction(field: Field) -> None:
    client = await field.client()
    assert "Renewal" in await capabilities(client)
    device = Device(subject="CN=ipad")
    transaction = apple_transaction(device)
    old = leaf_of(await client.enroll(device, field.challenge(), transaction=transaction))
    renewed = await client.enroll(device.renewing(old, KEY), None, transaction=transaction)
    assert renewed.status is PkiStatus.SUCCESS
    assert leaf_of(renewed) != old


async def test_apple_asks_for_1024_bits_unless_it_is_told(field: Field) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    client = await field.client()
    device = Device(rsa.generate_private_key(65537, 1024), "CN=default-payload")
    reply = await client.enroll(device, field.challenge())
    assert reply.status is PkiStatus.FAILURE
    assert "2048" in reply.fail_info_text


async def test_apple_retries_at_once_while_it_waits(field: Field) -> None:
    client = await field.client("manual")
    request, signer = Device(subject="CN=waiting").request(client.ra, field.challenge("manual"))
    assert [(await client.send(request, signer)).status for _ in range(3)] == [PkiStatus.PENDING] * 3


async def capabilities(client: Client) -> list[str]:
    async with client.session.get(client.url, params={"operation": "GetCACaps"}) as reply:
        assert reply.headers["Content-Type"] == "text/plain"
        return (await reply.text()).split()


# Cisco and Juniper


async def test_cisco_ios_enrolls_by_get_in_lines(field: Field) -> None:
    client = await field.client()
    asked = Device(subject="CN=router").request(client.ra, field.challenge(), cipher="aes-128-cbc")
    text = standard(asked[0].message)
    lines = "".join(f"{text[at : at + 64]}\n" for at in range(0, len(text), 64))
    path = "/scep/modern/cgi-bin/pkiclient.exe"
    answer = await field.get(path, quote(lines, safe=""), "User-Agent: Cisco PKI\r\n")
    assert read(answer, asked, client).status is PkiStatus.SUCCESS
    assert parse_enveloped_data(parts(answer.body)[0].content or b"").cipher == "aes-128-cbc", "no other than it has sent"


async def test_old_cisco_ios_enrolls_with_des_and_md5(field: Field) -> None:
    client = await field.client("legacy")
    asked = Device(subject="CN=old-router").request(client.ra, field.challenge("legacy"), cipher="des-cbc", digest="md5")
    answer = await field.get("/scep/legacy/pkiclient.exe", quote(standard(asked[0].message), safe=""))
    assert client.read(answer.body, *asked, accept_md5=True).status is PkiStatus.SUCCESS
    modern = await field.client()
    refused = await modern.enroll(Device(subject="CN=old-router"), field.challenge(), cipher="des-cbc", digest="sha256")
    assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


async def test_juniper_gets_the_leaf_alone_and_cisco_vpn_the_chain(field: Field) -> None:
    for profile, count in (("modern", 1), ("chain", 3)):
        client = await field.client(profile)
        reply = await client.enroll(Device(subject="CN=srx"), field.challenge(profile), transaction=f"J-{profile}")
        assert len(reply.certificates) == count
        assert reply.certificates[0] == leaf_of(reply)


# MikroTik, Palo Alto, printers


async def test_mikrotik_finds_a_fresh_sender_nonce(field: Field) -> None:
    client = await field.client()
    request, _ = Device(subject="CN=mikrotik").request(client.ra, field.challenge())
    nonces = {parts((await client.post(request.message))[1])[1].attributes[asn1.OID_SENDER_NONCE] for _ in range(3)}
    assert len(nonces) == 3
    assert {len(value) for (value,) in nonces} == {18}


@pytest.mark.parametrize("message_type", [MessageType.RENEWAL_REQ, MessageType.PKCS_REQ], ids=["as-17", "as-19"])
async def test_palo_alto_renews_by_either_type(field: Field, message_type: MessageType) -> None:
    client = await field.client()
    device = Device(subject=f"CN=panw-{message_type}")
    old = leaf_of(await client.enroll(device, field.challenge(), transaction=f"P{message_type}"))
    renewed = await client.enroll(device.renewing(old, OTHER_KEY), None, message_type=message_type)
    assert renewed.status is PkiStatus.SUCCESS


ODDITIES = [
    pytest.param(Quirks(nonce=bytes(range(8))), id="printer-nonce-of-8-bytes"),
    pytest.param(Quirks(nonce=None), id="no-nonce"),
    pytest.param(Quirks(as_integer=True), id="palo-alto-message-type-as-integer"),
    pytest.param(Quirks(transaction_tag=0x0C), id="transaction-as-utf8string"),
    pytest.param(Quirks(extra=(CMS_ALGORITHM_PROTECTION,)), id="jscep-algorithm-protection"),
    pytest.param(
        Quirks(extra=(cms.attribute(asn1.OID_SIGNING_TIME, der.time(datetime(2001, 1, 1, tzinfo=UTC))),)), id="clock-of-2001"
    ),
    pytest.param(Quirks(indefinite=True), id="palo-alto-indefinite-lengths"),
    pytest.param(Quirks(indefinite=True, digest="sha512", extra=(CMS_ALGORITHM_PROTECTION,)), id="jscep"),
]


@pytest.mark.parametrize("quirks", ODDITIES)
async def test_odd_messages_are_understood(field: Field, quirks: Quirks, request: pytest.FixtureRequest) -> None:
    client = await field.client()
    device = Device(subject="CN=odd")
    signer = device.own_signer()
    content = seal_for(device.csr(field.challenge()), [client.ra], "aes-256-cbc")
    asked = sign_message(content, signer, request.node.name[-40:].strip("[]"), quirks)
    _, body, _ = await client.post(asked.message)
    _, info = parts(body)
    assert info.attributes[asn1.OID_PKI_STATUS] == (der.printable_string("0"),)
    assert info.attributes.get(asn1.OID_RECIPIENT_NONCE) == ((der.octet_string(quirks.nonce),) if quirks.nonce else None)
    [transaction] = info.attributes[asn1.OID_TRANSACTION_ID]
    assert transaction == der.tlv(quirks.transaction_tag, asked.transaction_id.encode()), "echoed byte for byte"


async def test_a_printer_whose_certificate_is_of_another_century(field: Field) -> None:
    client = await field.client()
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    device = Device(subject="CN=printer")
    old = scep.self_signed_signer(KEY, parse_name_text(device.subject).der, begin, begin + timedelta(days=1))
    assert (await client.enroll(replace(device, signer=old), field.challenge())).status is PkiStatus.SUCCESS


async def test_a_printer_with_sha1_and_3des_over_http_1_0(field: Field) -> None:
    client = await field.client("legacy")
    asked = Device(subject="CN=mfp").request(client.ra, field.challenge("legacy"), cipher="des-ede3-cbc", digest="sha1")
    answer = await exchange(field.service.port, post("/scep/legacy", asked[0].message, version="1.0"))
    assert read(answer, asked, client).status is PkiStatus.SUCCESS
    assert parse_enveloped_data(parts(answer.body)[0].content or b"").cipher == "des-ede3-cbc"
    assert {"SHA-1", "DES3"} <= set(await capabilities(client))


@pytest.mark.parametrize(("profile", "status"), [("rolled", PkiStatus.SUCCESS), ("modern", PkiStatus.FAILURE)])
async def test_a_printer_that_remembers_an_old_ra(field: Field, profile: str, status: PkiStatus) -> None:
    client = await field.client(profile)
    client.ra = client.ra_signer = pem_to_ders((TESTDATA / "ra.pem").read_bytes())[0]
    asked = Device(subject="CN=stale").request(client.ra, field.challenge(profile))
    _, body, _ = await client.post(asked[0].message)
    if profile == "modern":
        client.ra_signer = await client.fetch_ra()
    reply = client.read(body, *asked)
    assert (reply.status, reply.fail_info) == (status, None if status is PkiStatus.SUCCESS else FailInfo.BAD_MESSAGE_CHECK)


# strongSwan, sscep, certmonger, scepclient, jscep


async def test_strongswan_enrolls_and_renews_under_a_new_transaction(field: Field) -> None:
    client = await field.client()
    assert "SHA-384" in await capabilities(client), "without it 5.9.8 believes in no SHA-256"
    device = Device(subject="CN=moon,O=lab,C=CH", sans=((SanKind.DNS, "moon.example.org"),))
    csr = unsorted_csr(device.key, device.subject, field.challenge(), "moon.example.org")
    asked = device.request(client.ra, None, message_data=csr, cipher="aes-128-cbc")
    answer = await exchange(field.service.port, post("/scep/modern?operation=PKIOperation", asked[0].message))
    assert parts(answer.body)[1].signature_algorithm == RSA_ENCRYPTION
    old = leaf_of(read(answer, asked, client))
    renewing = device.renewing(old, OTHER_KEY)
    csr = unsorted_csr(OTHER_KEY, device.subject, field.challenge(), "moon.example.org")
    renewed = await client.enroll(renewing, None, message_type=MessageType.RENEWAL_REQ, message_data=csr)
    assert renewed.status is PkiStatus.SUCCESS


async def test_sscep_renews_as_pkcsreq_and_looks_up_under_one_transaction(field: Field) -> None:
    client = await field.client()
    device = Device(subject="CN=ss1,C=CH")
    old = leaf_of(await client.enroll(device, field.challenge(), transaction="946E068F41A9E9497A53EEC1C22051CE"))
    renewed = await client.enroll(device.renewing(old, OTHER_KEY), field.challenge(), digest="sha512")
    assert renewed.status is PkiStatus.SUCCESS
    await look_up(field, replace(device, signer=cms.Signer.create(old, KEY)), old, "SSCEP transactionId")


async def test_jscep_counts_its_transactions_from_zero(field: Field) -> None:
    client = await field.client()
    device = Device(subject="CN=jscep1,C=CH")
    own = leaf_of(await client.enroll(device, field.challenge(), transaction="622d82f4", digest="sha512"))
    holder = replace(device, signer=cms.Signer.create(own, KEY))
    await look_up(field, holder, own, "0")
    await look_up(field, holder, own, "0")


async def look_up(field: Field, holder: Device, certificate: bytes, transaction: str) -> None:
    """Ask for a certificate and a CRL, which all have the same transactionID."""
    client = await field.client()
    await field.service.run("POST", "/v1/crl/publish")
    parsed = parse_certificate(certificate)
    for kind in (MessageType.GET_CERT, MessageType.GET_CRL):
        data = scep.encode_issuer_and_serial(parsed.issuer_der, parsed.serial)
        reply = await client.enroll(holder, None, message_type=kind, message_data=data, transaction=transaction)
        assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
        assert (len(reply.certificates), len(reply.crls)) == ((1, 0) if kind is MessageType.GET_CERT else (0, 1))


async def test_certmonger_asks_by_get_and_needs_content_in_a_failure(field: Field) -> None:
    client = await field.client()
    async with field.session.get(client.url, params={"operation": "GetCACert", "message": "0"}) as reply:
        assert reply.headers["Content-Type"] == "application/x-x509-ca-ra-cert"
    asked = Device(subject="CN=certmonger").request(client.ra, "wrong-but-long-enough")
    answer = await field.get("/scep/modern", quote(standard(asked[0].message), safe=""))
    assert read(answer, asked, client).status is PkiStatus.FAILURE
    assert parts(answer.body)[0].content == b"", "an OCTET STRING that is empty, not one that is absent"


async def test_scepclient_enrolls_and_renews_as_it_does(field: Field) -> None:
    """SHA-1 and DES, two recipients, the ciphertext constructed, no NULL; a renewal keeps challenge, key and transaction."""
    client = await field.client("legacy")
    [issuing] = pem_to_ders((field.service.folder / "ca" / "issuing.pem").read_bytes())
    device = Device(subject="CN=dev1,OU=MDM,O=scep-client,C=CH")
    signers = [Device(subject="CN=SCEP SIGNER,O=scep-client").own_signer()]
    for number in (19, 17):
        content = seal_for(device.csr(field.challenge("legacy")), [issuing, client.ra], "des-cbc", chunked=True, null=False)
        asked = sign_message(content, signers[-1], "bP8yPFWgqlnsEA7dRNwcYGO/mKU=", Quirks(number=number, digest="sha1"))
        message = base64.urlsafe_b64encode(asked.message).decode().rstrip("=")
        reply = read(await field.get("/scep/legacy", message), (asked, signers[-1]), client)
        assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
        signers.append(cms.Signer.create(leaf_of(reply), device.key))
    assert len({signer.certificate for signer in signers}) == 3, "the renewal is a new certificate"


# Fleets: Android, ChromeOS and Jamf


async def test_android_is_served_by_tls_with_the_root_in_the_bundle(field: Field) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(field.service.folder / "ca" / "root.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    url = f"https://localhost:{field.service.tls_port}/scep/modern"
    async with field.session.get(url, params={"operation": "GetCACert"}, ssl=context) as reply:
        bundle = [parse_certificate(c) for c in scep.decode_ca_certificates(await reply.read(), reply.headers["Content-Type"])]
    assert bundle[-1].subject == bundle[-1].issuer


async def test_jamf_enrolls_a_fleet_from_one_address(field: Field) -> None:
    """Its proxy and ChromeOS's connector speak for all devices: failures of one must not shut out the next."""
    client = await field.client()
    for number in range(20):
        await client.enroll(Device(subject=f"CN=mac-{number}"), "wrong-but-long-enough", transaction=f"jamf-{number}")
    reply = await client.enroll(
        Device(generate_private_key("rsa-2048"), "CN=mac-21"), await field.service.new_challenge("modern")
    )
    assert reply.status is PkiStatus.SUCCESS
