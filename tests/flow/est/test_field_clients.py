"""Clients of the field with their habits, one by one: what each sends is understood, and what it chokes on is not sent."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.cms import parse_signed_data
from gateway.pki.csr import EXTENSION_REQUEST
from gateway.pki.extensions import encode_extension
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.ra.credentials.digest import digest_ha1
from gateway.ra.credentials.passwords import hash_password
from gateway.wire.est.client import basic_authorization
from tests.flow.est.connection import Connection
from tests.flow.est.fleet import EstFleet, Holder, Settings, Wanted, serving
from tests.flow.est.nobody import respond
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.flow.scep.service import make_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "field password"
USER = basic_authorization("user-of-digest", PASSWORD)
BASIC = {"type": "basic", "users": {"file": "secrets/users"}, "names": "any"}
WLC = OtherCA.create("Cisco manufacturing")
ROOT = "/.well-known/est"
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HEAD = 1024
"""What strongSwan reads of a head, in one call."""

PROFILES: Mapping[str, Settings] = {
    "modern": {
        "credentials": [BASIC, {"type": "one_time"}],
        "renewal": {"from": ["modern"], "messages": ["simplereenroll"]},
        "est": {"default": True, "server_keygen": {"keys": ["rsa-2048", "ec-p256"]}},
    },
    "tied": {"credentials": [BASIC], "est": {"pop_linking": "require"}},
    "manual": {"credentials": [BASIC], "approval": "manual"},
    "old": {"credentials": [{"type": "digest_md5_legacy", "users": {"file": "secrets/digests"}, "names": "any"}]},
    "aruba": {"credentials": [BASIC], "est": {"label": "ca:1"}},
    "aruba-enroll": {"credentials": [BASIC], "est": {"label": "switches-enrollment"}},
    "aruba-renew": {
        "renewal": {"from": ["aruba-enroll"], "messages": ["simplereenroll"]},
        "est": {"label": "switches-reenrollment"},
    },
    "relay": {
        "credentials": [{"type": "ra_certificate", "anchors": "ca/wlc.pem", "subjects": ["CN=C9800,O=Cisco"]}],
        "renewal": {"from": ["relay"], "messages": ["simplereenroll"]},
    },
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path_factory.mktemp("field") / "s")
    write_secret(folder / "secrets/users", f"user-of-digest:{hash_password(PASSWORD.encode())}\n".encode())
    ha1 = digest_ha1("user-of-digest", "pki-gateway", PASSWORD)
    write_secret(folder / "secrets/digests", f"user-of-digest:{ha1}\n".encode())
    (folder / "ca" / "wlc.pem").write_bytes(WLC.pem)
    async with serving(folder, PROFILES) as field:
        yield field


@pytest.fixture(autouse=True)
def _ended(field: EstFleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test leaves open."""
    opened: list[Connection] = []
    connect = field.connect

    async def counted(*arguments: Any, **options: Any) -> Connection:
        opened.append(await connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(field, "connect", counted)
    yield
    kept = field.connections.values()
    for connection in opened:
        if connection not in kept:
            connection.close()


def in_lines(data: bytes, width: int, end: bytes = b"\n") -> bytes:
    text = base64.b64encode(data)
    return b"".join(text[at : at + width] + end for at in range(0, len(text), width))


def post(operation: str, body: bytes, *headers: str, version: str = "1.1", label: str = "") -> bytes:
    """Write a request as one client does, its headers in its own order and spelling."""
    path = f"{ROOT}/{label}/{operation}" if label else f"{ROOT}/{operation}"
    lines = (f"POST {path} HTTP/{version}", *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


def leaf_of(answer: RawAnswer) -> bytes:
    assert answer.status == 200, answer
    [leaf] = parse_signed_data(base64.b64decode(answer.body), max_signers=0).certificates
    return leaf


# libest: HTTP/1.0, TLS 1.2 at most, base64 in lines of 64

LIBEST = (
    "User-Agent: libest 3.2.0p",
    "Connection: close",
    "Host: 127.0.0.1:8443",
    "Accept: */*",
    "Content-Type: application/pkcs10",
    "Content-Transfer-Encoding: base64",
)


def libest(operation: str, wanted: Wanted, authorization: str = USER) -> bytes:
    return post(operation, in_lines(wanted.csr, 64), *LIBEST, f"Authorization: {authorization}", version="1.0")


def holds_lines_of_64(body: bytes) -> bool:
    *full, last = body.rstrip(b"\n").split(b"\n")
    return all(len(line) == 64 for line in full) and 0 < len(last) <= 64 and bool(full)


async def libest_asks(field: EstFleet, request: bytes, holder: Holder | None = None) -> tuple[RawAnswer, str]:
    """Send one request on a connection of its own, which the server closes after it; return the answer and its head."""
    connection = await field.connect(holder)
    answer = await connection.send(request)
    assert await connection.reader.read() == b"", "nothing follows, and the connection ends"
    connection.close()
    return answer, connection.head


async def test_libest_enrolls(field: EstFleet) -> None:
    answer, head = await libest_asks(field, libest("simpleenroll", Wanted("CN=libest")))
    assert parse_certificate(leaf_of(answer)).subject.rdns
    assert holds_lines_of_64(answer.body), "cisco/libest#100: it reads no longer line"
    names = [line.partition(":")[0] for line in head.split("\r\n")[1:]]
    assert {"Content-Type", "Content-Length"} <= set(names), "it compares them to the letter"
    assert answer.media_type.startswith("application/pkcs7-mime; smime-type=certs-only")


async def test_libest_fetches_ca_certificates_and_attributes(field: EstFleet) -> None:
    for operation, media_type in (("cacerts", "application/pkcs7-mime"), ("csrattrs", "application/csrattrs")):
        request = f"GET {ROOT}/{operation} HTTP/1.0\r\nUser-Agent: libest 3.2.0p\r\nConnection: close\r\n\r\n"
        answer, _ = await libest_asks(field, request.encode())
        assert (answer.status, answer.media_type) == (200, media_type)
        assert holds_lines_of_64(answer.body)


async def test_libest_ties_its_request_to_the_connection(field: EstFleet) -> None:
    """challengePassword is tls-unique in base64; it does so after csrattrs has asked for it, or with -z."""
    connection = await field.connect()
    wanted = Wanted("CN=libest-pop", password=connection.binding)
    assert leaf_of(await connection.send(libest("simpleenroll", wanted)))
    other = await field.connect()
    refused = await other.send(libest("simpleenroll", wanted))
    assert (refused.status, refused.body) == (
        400,
        b"the request is not tied to its TLS connection: it was made for another one\n",
    )


async def test_libest_comes_back_to_resume_its_session_and_is_not_let(field: EstFleet) -> None:
    """It asks without a password first. What it is told makes it connect again, where only a full handshake ties anything."""
    context = field.context()

    def ask(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None, bytes]:
        """Connect, ask for a certificate as libest does, and return the session and what came."""
        with (
            socket.create_connection(("127.0.0.1", field.service.mtls_port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            unique = tls.get_channel_binding("tls-unique")
            assert unique
            wanted = Wanted("CN=libest-resumes", password=base64.b64encode(unique).decode())
            headers = (*LIBEST, f"Authorization: {USER}") if session else LIBEST
            tls.sendall(post("simpleenroll", in_lines(wanted.csr, 64), *headers, version="1.0", label="tied"))
            return tls.session, tls.session_reused, tls.recv(65536)

    session, _, asked = await asyncio.to_thread(ask, None)
    assert b" 401 " in asked[:20]
    _, resumed, answer = await asyncio.to_thread(ask, session)
    assert (resumed, b" 200 " in answer[:20]) == (False, True), answer


async def test_libest_copies_the_attributes_that_it_was_told_into_its_request(field: EstFleet) -> None:
    """As empty attributes: an OID and a SET of nothing, or of an empty string."""
    for value in (der.set_of(), der.set_of(der.printable_string(""))):
        empty = der.sequence(der.oid("1.2.840.113549.1.9.16.2.61"), value)
        answer, _ = await libest_asks(field, libest("simpleenroll", Wanted("CN=libest-attributes", attributes=(empty,))))
        assert answer.status == 200, answer


async def test_libest_renews_with_the_extensions_of_its_old_certificate(field: EstFleet) -> None:
    """All of them, identifiers and pointers to the CRL too: what policy does not list is dropped."""
    wanted = Wanted("CN=libest-renewing", dns="libest.example.org")
    answer, _ = await libest_asks(field, libest("simpleenroll", wanted))
    old = Holder("libest", leaf_of(answer), wanted.key)
    parsed = parse_certificate(old.certificate)
    copied = [encode_extension(e.oid, e.critical, e.value) for e in parsed.extensions]
    attribute = der.sequence(der.oid(EXTENSION_REQUEST), der.set_of(der.sequence(*copied)))
    renewal = Wanted("CN=libest-renewing", key=wanted.key, attributes=(attribute,))
    renewed, _ = await libest_asks(field, libest("simplereenroll", renewal), old)
    assert parse_certificate(leaf_of(renewed)).subject_key_id == parsed.subject_key_id


async def test_libest_enrolls_with_a_key_of_4096_bits(field: EstFleet) -> None:
    answer, _ = await libest_asks(field, libest("simpleenroll", Wanted("CN=libest-rsa", generate_private_key("rsa-4096"))))
    assert answer.status == 200


async def test_libest_gets_a_key_in_parts_that_say_their_encoding(field: EstFleet) -> None:
    """It drops parts without Content-Transfer-Encoding, and keys below 256 characters: EC. It asks with an RSA key of its own."""
    wanted = Wanted("CN=libest-keygen", generate_private_key("rsa-2048"))
    answer, _ = await libest_asks(field, libest("serverkeygen", wanted))
    assert answer.status == 200
    message = message_from_bytes(f"Content-Type: {answer.media_type}\r\n\r\n".encode() + answer.body)
    assert [part["Content-Transfer-Encoding"] for part in parts_of(message)] == ["base64", "base64"]
    types = [part["Content-Type"] for part in parts_of(message)]
    assert types == ["application/pkcs8", "application/pkcs7-mime; smime-type=certs-only"]
    key, certificate = (part.get_payload(decode=True) for part in parts_of(message))
    assert isinstance(key, bytes)
    assert isinstance(certificate, bytes)
    assert len(base64.b64encode(key)) >= 256
    drawn = load_der_private_key(key, None)
    [leaf] = parse_signed_data(certificate, max_signers=0).certificates
    public = drawn.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert parse_certificate(leaf).public_key.der == public
    assert public != public_key_der(wanted.key)


def parts_of(message: Message) -> list[Message]:
    return [part for part in message.walk() if not part.is_multipart()]


async def test_libest_waits(field: EstFleet) -> None:
    """It comes back on another connection, with a CSR that is signed anew."""
    wanted = Wanted("CN=libest-waiting")
    request = replace(wanted).csr
    again = replace(wanted).csr
    assert request != again, "an ECDSA signature is never the same twice"
    for csr in (request, again):
        data = post("simpleenroll", in_lines(csr, 64), *LIBEST, f"Authorization: {USER}", version="1.0", label="manual")
        answer, _ = await libest_asks(field, data)
        assert answer.status == 202
        assert answer.headers["retry-after"].isdigit(), "seconds: strongSwan reads no dates"
    [row] = await field.service.run("GET", "/v1/requests", profile="manual")
    assert row["subject"] == "CN=libest-waiting"


async def test_a_waiting_request_tied_to_its_connection_is_one_request(field: EstFleet) -> None:
    """tls-unique makes another CSR of it each time; it waits by identity and key (RFC 7030 §4.2.3)."""
    wanted = Wanted("CN=tied-and-waiting")
    for _ in range(2):
        connection = await field.connect()
        tied = replace(wanted, password=connection.binding)
        data = post("simpleenroll", in_lines(tied.csr, 64), *LIBEST, f"Authorization: {USER}", version="1.0", label="manual")
        assert (await connection.send(data)).status == 202
        connection.close()
    rows = await field.service.run("GET", "/v1/requests", profile="manual")
    assert [row["subject"] for row in rows].count("CN=tied-and-waiting") == 1


async def test_libest_answers_a_digest(field: EstFleet) -> None:
    """MD5 alone, which no algorithm means; "Unsupported digest algorithm" for SHA-256. It asks without credentials first."""
    wanted = Wanted("CN=libest-digest")
    body = in_lines(wanted.csr, 64)
    asked, _ = await libest_asks(field, post("simpleenroll", body, *LIBEST, version="1.0", label="old"))
    assert asked.status == 401
    challenge = asked.headers["www-authenticate"]
    assert challenge.startswith("Digest ")
    assert "algorithm" not in challenge, "MD5 without a word: Bouncy Castle cannot read it unquoted, others not quoted"
    nonce = challenge.partition('nonce="')[2].partition('"')[0]
    authorization = respond(nonce, f"{ROOT}/old/simpleenroll", PASSWORD)
    request = post("simpleenroll", body, *LIBEST, f"Authorization: {authorization}", version="1.0", label="old")
    assert leaf_of((await libest_asks(field, request))[0])


# strongSwan: HTTP/1.1, no User-Agent, Basic at once, TLS 1.2 at most

STRONGSWAN = ("Host: localhost:8443", "Content-Type: application/pkcs10", f"Authorization: {USER}")


async def test_old_strongswan_enrolls(field: EstFleet) -> None:
    connection = await field.connect()
    answer = await connection.send(post("simpleenroll", base64.b64encode(Wanted("CN=moon").csr), *STRONGSWAN))
    assert leaf_of(answer)
    assert b"\n" not in answer.body.rstrip(b"\n"), "strongswan#1616: before 5.9.11 it reads one line"
    assert connection.head.startswith("HTTP/1.1 200 ")
    assert len(connection.head) + 4 < HEAD
    assert "Content-Length: " in connection.head


async def test_old_strongswan_fetches_ca_certificates(field: EstFleet) -> None:
    connection = await field.connect()
    answer = await connection.send(f"GET {ROOT}/cacerts HTTP/1.1\r\nHost: localhost:8443\r\n\r\n".encode())
    assert answer.status == 200
    assert b"\n" not in answer.body.rstrip(b"\n")
    assert len(connection.head) + 4 < HEAD


async def test_strongswan_asks_for_a_renewal_under_another_subject(field: EstFleet) -> None:
    first = Wanted("CN=moon-1")
    connection = await field.connect()
    old = Holder(
        "moon", leaf_of(await connection.send(post("simpleenroll", base64.b64encode(first.csr), *STRONGSWAN))), first.key
    )
    renewing = await field.connect(old)
    answer = await renewing.send(post("simplereenroll", base64.b64encode(Wanted("CN=moon-2").csr), *STRONGSWAN))
    assert (answer.status, answer.body) == (403, b"a renewal keeps subject and subject alternative names\n")


# globalsign: TLS 1.3, a chunked request, base64 in lines of 76 with CRLF


async def test_globalsign_sends_chunks(field: EstFleet) -> None:
    connection = await field.connect(version=TLS_1_3)
    body = in_lines(Wanted("CN=globalsign").csr, 76, b"\r\n")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:100], body[100:])) + b"0\r\n\r\n"
    headers = (
        "Host: localhost:8443",
        "User-Agent: globalsign.com/est_client",
        "Transfer-Encoding: chunked",
        "Accept: application/pkcs7-mime",
        f"Authorization: {USER}",
        "Content-Transfer-Encoding: base64",
        "Content-Type: application/pkcs10",
        "Accept-Encoding: gzip",
    )
    lines = "\r\n".join((f"POST {ROOT}/modern/simpleenroll HTTP/1.1", *headers, "", ""))
    answer = await connection.send(lines.encode() + chunks)
    assert leaf_of(answer), "exactly one: it refuses a second"
    assert "content-encoding" not in answer.headers
    assert "transfer-encoding" not in answer.headers


# Bouncy Castle: asks without a password first


async def test_bouncy_castle_is_asked_for_its_password_without_a_body(field: EstFleet) -> None:
    """It closes that answer unread, and fails where there was more than one byte to read (ESTResponse.close)."""
    connection = await field.connect(version=TLS_1_3)
    headers = ("Host: localhost:8443", "Content-Type: application/pkcs10", "Content-Transfer-Encoding: base64")
    body = base64.b64encode(Wanted("CN=bc").csr)
    asked = await connection.send(post("simpleenroll", body, *headers))
    assert (asked.status, asked.body) == (401, b"")
    assert asked.headers["www-authenticate"].startswith("Basic realm=")
    assert leaf_of(await connection.send(post("simpleenroll", body, *headers, f"Authorization: {USER}")))
    wrong = f"Authorization: {basic_authorization('user-of-digest', 'wrong')}"
    refused = await connection.send(post("simpleenroll", body, *headers, wrong))
    assert (refused.status, refused.body) == (401, b"name or password is not valid\n")


async def test_curl_asks_for_a_digest_with_an_empty_body(field: EstFleet) -> None:
    connection = await field.connect(version=TLS_1_3)
    headers = ("Host: localhost:8443", "User-Agent: curl/7.88.1", "Content-Type: application/pkcs10")
    asked = await connection.send(post("simpleenroll", b"", *headers, label="old"))
    assert (asked.status, asked.headers["www-authenticate"].partition(" ")[0]) == (401, "Digest")


async def test_ca_certificates_have_the_type_that_old_bouncy_castle_demands(field: EstFleet) -> None:
    connection = await field.connect()
    answer = await connection.send(f"GET {ROOT}/cacerts HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Java\r\n\r\n".encode())
    assert answer.media_type == "application/pkcs7-mime", "bc-java#901: before 1.69b04 no parameter"


# Aruba and Cisco


@pytest.mark.parametrize("label", ["ca:1", "ca%3A1", "ca%3a1"])
async def test_aruba_has_a_colon_in_its_label(field: EstFleet, label: str) -> None:
    connection = await field.connect()
    assert leaf_of(await connection.send(post("simpleenroll", base64.b64encode(Wanted("CN=ap").csr), *STRONGSWAN, label=label)))


@pytest.mark.parametrize("label", ["ca%2F1", "..", "%2e%2e", "ca:1/x", "ca%3A1%00", "simpleenroll", "CA:1"])
async def test_labels_that_are_none(field: EstFleet, label: str) -> None:
    connection = await field.connect()
    body = base64.b64encode(Wanted("CN=ap").csr)
    answer = await connection.send(post("simpleenroll", body, *STRONGSWAN, label=label))
    assert answer.status in {400, 404}
    assert b"certs-only" not in answer.body


async def test_aruba_renews_under_another_label(field: EstFleet) -> None:
    """AOS-CX: `NAME-enrollment` and `NAME-reenrollment`, which are two profiles, one the heir of the other."""
    first = Wanted("CN=switch-1")
    connection = await field.connect()
    request = post("simpleenroll", base64.b64encode(first.csr), *STRONGSWAN, label="switches-enrollment")
    old = Holder("switch", leaf_of(await connection.send(request)), first.key)
    renewing = await field.connect(old)
    again = base64.b64encode(Wanted("CN=switch-1").csr)
    assert (await renewing.send(post("simplereenroll", again, *STRONGSWAN, label="switches-enrollment"))).status == 403
    assert leaf_of(await renewing.send(post("simplereenroll", again, *STRONGSWAN, label="switches-reenrollment")))


async def test_cisco_wlc_asks_for_its_access_points(field: EstFleet) -> None:
    """A controller is a registration authority: its own certificate, others' requests, first ones and renewals."""
    key = generate_private_key("rsa-2048")
    wlc = Holder("wlc", WLC.issue(key, "CN=C9800,O=Cisco", ekus=("clientAuth", "cmcRA")), key)
    connection = await field.connect(wlc)
    headers = ("Host: localhost:8443", "Content-Type: application/pkcs10")
    for number in range(2):
        wanted = Wanted(f"CN=ap-{number}", password="not the wlc's binding")
        for operation in ("simpleenroll", "simplereenroll"):
            answer = await connection.send(post(operation, base64.b64encode(wanted.csr), *headers, label="relay"))
            assert leaf_of(answer)
    stranger = Holder("other wlc", WLC.issue(key, "CN=C9801,O=Cisco", ekus=("clientAuth", "cmcRA")), key)
    other = await field.connect(stranger)
    assert (await other.send(post("simpleenroll", base64.b64encode(Wanted().csr), *headers, label="relay"))).status == 403


# What else is met


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls-1.2", "tls-1.3"])
async def test_one_connection_carries_many_requests(field: EstFleet, version: ssl.TLSVersion) -> None:
    connection = await field.connect(version=version)
    found = set()
    for number in range(5):
        request = post("simpleenroll", base64.b64encode(Wanted(f"CN=kept-alive-{number}").csr), *STRONGSWAN)
        found.add(leaf_of(await connection.send(request)))
    assert len(found) == 5


async def test_a_password_in_the_request_and_a_link_beside_it(field: EstFleet) -> None:
    """RFC 7894: otpChallenge is the secret, estIdentityLinking the link, and challengePassword neither."""
    connection = await field.connect()
    code = await field.service.new_challenge("modern")
    wanted = Wanted("CN=rfc-7894", otp=code, link=connection.binding)
    headers = ("Host: localhost:8443", "Content-Type: application/pkcs10")
    assert leaf_of(await connection.send(post("simpleenroll", base64.b64encode(wanted.csr), *headers)))


async def test_connections_that_cannot_be_tied(field: EstFleet) -> None:
    connection = await field.connect(version=TLS_1_3)
    body = base64.b64encode(Wanted("CN=tls-1.3", link=connection.binding).csr)
    answer = await connection.send(post("simpleenroll", body, *STRONGSWAN, label="tied"))
    assert answer.status == 400
    assert b"TLSv1.3 does not define tls-unique" in answer.body


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(post("simpleenroll", b"", *STRONGSWAN), id="empty"),
        pytest.param(post("simpleenroll", b"\0" * 100, *STRONGSWAN), id="zeros"),
        pytest.param(post("simpleenroll", b"{}", *STRONGSWAN), id="json"),
        pytest.param(post("simpleenroll", b"AAAA" * 4000, *STRONGSWAN), id="long"),
    ],
)
async def test_nonsense_is_refused_and_the_connection_lives(field: EstFleet, request_: bytes) -> None:
    connection = await field.connect()
    refused = await connection.send(request_)
    assert (refused.status, refused.media_type) == (400, "text/plain")
    assert leaf_of(await connection.send(post("simpleenroll", base64.b64encode(Wanted().csr), *STRONGSWAN)))


async def test_both_lengths_are_smuggling(field: EstFleet) -> None:
    connection = await field.connect()
    body = base64.b64encode(Wanted().csr)
    answer = await connection.send(post("simpleenroll", body, *STRONGSWAN, "Transfer-Encoding: chunked"))
    assert answer.status in {0, 400}
