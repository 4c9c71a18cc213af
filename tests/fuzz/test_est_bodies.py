"""Bodies of EST requests and answers as strangers send them: refused in the words of the house, and each is cheap."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from types import MappingProxyType

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from structlog.testing import capture_logs

from gateway.asn1.est import OID_ASYMMETRIC_DECRYPT_KEY_ID, OID_DECRYPT_KEY_ID, OID_SMIME_CAPABILITIES
from gateway.errors import MalformedMessage, Rejection
from gateway.model import CertificateRequest
from gateway.pki import der
from gateway.pki.certificate import der_to_pem
from gateway.pki.cms import certs_only
from gateway.pki.csr import EST_LINKING_ATTRIBUTES, parse_csr, read_est_attributes
from gateway.pki.keys import generate_private_key
from gateway.ra.server_keys import choose_kind
from gateway.web.proxies import TrustedProxy, is_encrypted, read_certificate
from gateway.wire.est import client, messages
from gateway.wire.est.multipart import Part, encode_multipart
from gateway.wire.est.server_keygen import KeyRecipients, find_protection
from tests.flow.est.connection import Connection
from tests.flow.est.fleet import OPERATIONS, EstFleet, Wanted, serving, write_pair
from tests.flow.scep.fleet import static
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.service import make_folder
from tests.fuzz.mutations import MUTATIONS, Mutator, refused_cheaply

CA = OtherCA.create("Fuzz")
KEYS = {kind: generate_private_key(kind) for kind in ("ec-p256", "rsa-2048", "ed25519")}
LEAF = CA.issue(KEYS["ec-p256"], "CN=leaf")
CAPABILITIES = der.sequence(*(der.sequence(der.oid(f"2.16.840.1.101.3.4.1.{n}")) for n in (2, 22, 42)))
ATTRIBUTES = (
    der.sequence(der.oid(OID_DECRYPT_KEY_ID), der.set_of(der.octet_string(b"transport"))),
    der.sequence(der.oid(OID_SMIME_CAPABILITIES), der.set_of(CAPABILITIES)),
)
REQUESTS = {
    kind: Wanted("CN=device-1,O=lab", key, "device.example.org", "password", "otp", "link", ATTRIBUTES).csr
    for kind, key in KEYS.items()
}
RECIPIENTS = KeyRecipients(MappingProxyType({b"transport": bytes(32)}), (), None, False)


def read(body: bytes) -> CertificateRequest:
    """Do all that simpleenroll does before anybody is asked."""
    csr = parse_csr(messages.decode_request(body), linking=EST_LINKING_ATTRIBUTES)
    messages.read_secrets(csr, read_est_attributes(csr.der), "link", "")
    return csr


def read_for_a_key(body: bytes) -> None:
    """Do all that serverkeygen does before anybody is asked: the signature says nothing there."""
    csr = parse_csr(messages.decode_request(body), linking=EST_LINKING_ATTRIBUTES, proof=False)
    find_protection(read_est_attributes(csr.der), RECIPIENTS, LEAF)
    choose_kind(("ec-p256", "rsa-2048"), csr.public_key)


@pytest.mark.parametrize("kind", list(REQUESTS))
@pytest.mark.parametrize("reader", [read, read_for_a_key])
def test_mutated_requests(reader: Callable[[bytes], object], kind: str) -> None:
    for number, data in enumerate(Mutator(REQUESTS[kind], f"{reader.__name__}-{kind}").mutations(MUTATIONS)):
        refused_cheaply(partial(reader, base64.b64encode(data)), f"{kind} {number}")


def meaning(csr: CertificateRequest) -> tuple[object, ...]:
    """What the signature must bind: the whole certificationRequestInfo."""
    secrets = messages.read_secrets(csr, read_est_attributes(csr.der), None)
    return (csr.subject, csr.sans, csr.public_key, csr.challenge_password, csr.digest, csr.extensions, secrets)


@pytest.mark.parametrize("kind", list(REQUESTS))
def test_no_mutation_verifies_and_means_something_else(kind: str) -> None:
    original = meaning(read(base64.b64encode(REQUESTS[kind])))
    for data in Mutator(REQUESTS[kind], f"meaning-{kind}").mutations(MUTATIONS):
        with suppress(Rejection):
            assert meaning(read(base64.b64encode(data))) == original


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "lines": base64.encodebytes,
    "pem": lambda data: der_to_pem(data, "CERTIFICATE REQUEST"),
    "der": lambda data: data,
}

TEXT_PIECES = (b"", b"-", b"=", b"\0", b"\n", b"-----", b"\xff", b"A" * 99)


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_mutated_texts(encoding: str) -> None:
    body = ENCODINGS[encoding](REQUESTS["ec-p256"])
    source = random.Random(encoding)
    for number in range(MUTATIONS):
        broken = bytearray(body)
        for _ in range(source.choice((1, 2, 16))):
            at = source.randrange(len(broken))
            broken[at : at + source.choice((0, 1, 40))] = source.choice(
                (b"", b"-", b"=", b"\0", b"\n", b"-----", b"\xff", b"A" * 99)
            )
        refused_cheaply(lambda text=bytes(broken): read(text), f"{encoding} {number}")  # type: ignore[misc]


def many(count: int) -> tuple[bytes, ...]:
    return tuple(der.sequence(der.oid(f"1.3.6.1.4.1.99999.{n}"), der.set_of(der.null())) for n in range(count))


def attribute(oid: str, *values: bytes) -> tuple[bytes, ...]:
    return (der.sequence(der.oid(oid), der.set_of(*values)),)


HOSTILE = {
    "many-attributes": many(2000),
    "long-key-identifier": attribute(OID_DECRYPT_KEY_ID, der.octet_string(bytes(40000))),
    "empty-key-identifier": attribute(OID_DECRYPT_KEY_ID, der.octet_string(b"")),
    "two-key-identifiers": attribute(OID_ASYMMETRIC_DECRYPT_KEY_ID, der.octet_string(b"1"), der.octet_string(b"2")),
    "many-capabilities": attribute(OID_SMIME_CAPABILITIES, der.sequence(*[der.sequence(der.oid("1.2.3"))] * 5000)),
    "the-same-attribute-twice": attribute(OID_DECRYPT_KEY_ID, der.octet_string(b"1")) * 2,
    "long-oid": (der.sequence(der.tlv(der.OBJECT_IDENTIFIER, b"\x81" * 20000 + b"\x01"), der.set_of(der.null())),),
    "deep": attribute("1.2.3", b"\x30\x80" * 10000),
}


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("reader", [read, read_for_a_key])
def test_hostile_attributes(reader: Callable[[bytes], object], name: str) -> None:
    body = base64.b64encode(Wanted(key=KEYS["ec-p256"], attributes=HOSTILE[name]).csr)
    assert refused_cheaply(lambda: reader(body), name)


HEADERS = ("Client-Cert", "Client-Cert-Chain", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Proto")
VALUE = base64.b64encode(LEAF).decode()
PEM = "-----BEGIN CERTIFICATE-----"
PIECES = st.sampled_from((":", VALUE, f":{VALUE}:", "Cert=", '"', "\\", ";", ",", "Hash=", "%0A", PEM, "=", " "))
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join)


@given(
    st.sampled_from(("rfc9440", "nginx", "envoy", "haproxy")),
    st.lists(st.tuples(st.sampled_from(HEADERS), TEXTS), max_size=6),
)
def test_headers_of_proxies(form: str, pairs: list[tuple[str, str]]) -> None:
    """What a listed proxy lets through of its client's own headers must not stop the server either."""
    headers = CIMultiDict(pairs)
    is_encrypted(headers)
    with suppress(MalformedMessage):
        shown = read_certificate(TrustedProxy((), form), headers)  # type: ignore[arg-type]
        assert shown.certificate is None or shown.certificate == LEAF or len(shown.certificate) > 0


ANSWERS = {
    "cacerts": (messages.MEDIA_CACERTS, messages.encode_certs_only((CA.certificate,), wrap=True)),
    "csrattrs": (messages.MEDIA_CSRATTRS, messages.encode_base64(der.sequence(der.oid("1.2.3")), wrap=False)),
    "simpleenroll": (messages.MEDIA_CERTS_ONLY, messages.encode_certs_only((LEAF,), wrap=True)),
    "fullcmc": (messages.MEDIA_CMC_RESPONSE, messages.encode_certs_only((LEAF,), wrap=True)),
}


@pytest.mark.parametrize("operation", list(ANSWERS))
def test_mutated_answers(operation: str) -> None:
    """Our own client is told lies too."""
    media_type, body = ANSWERS[operation]
    for number, data in enumerate(Mutator(base64.b64decode(body), operation).mutations(MUTATIONS // 4)):
        headers = {"Content-Type": media_type}
        work = partial(client.decode_answer, operation, 200, headers, base64.b64encode(data))
        refused_cheaply(work, f"{operation} {number}")


def test_mutated_parts() -> None:
    parts = (Part(messages.MEDIA_PKCS8, bytes(200)), Part(messages.MEDIA_CERTS_ONLY, certs_only((LEAF,))))
    body, media_type = encode_multipart(parts, wrap=True)
    source = random.Random("parts")
    for number in range(MUTATIONS):
        broken = bytearray(body)
        for _ in range(source.choice((1, 2, 8))):
            at = source.randrange(len(broken))
            broken[at : at + source.choice((0, 1, 30))] = source.choice((b"", b"--", b"\r\n", b"\n", b":", b"\0", b"boundary"))
        work = partial(client.decode_answer, "serverkeygen", 200, {"Content-Type": media_type}, bytes(broken))
        refused_cheaply(work, f"parts {number}")


# Through the door


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path_factory.mktemp("fuzz") / "s")
    pair = write_pair(folder, "signer")
    symmetric = {"transport": {"file": "secrets/transport.key"}}
    (folder / "secrets" / "transport.key").touch(0o600)
    (folder / "secrets" / "transport.key").write_text("00" * 16)
    est = {"cmc": pair, "server_keygen": {"keys": ["ec-p256"], "signer": pair, "symmetric_keys": symmetric}}
    renewal = {"from": ["fuzz"], "messages": ["simplereenroll"]}
    async with serving(folder, {"fuzz": {"credentials": [static("fuzz")], "renewal": renewal, "est": est}}) as fleet:
        yield fleet


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_broken_bodies_are_refused_and_the_connection_lives(fleet: EstFleet, operation: str) -> None:
    wanted = Wanted(password="wrong password", attributes=ATTRIBUTES)
    connection = await fleet.connect()
    before = await fleet.certificates()
    with capture_logs() as lines:
        for data in Mutator(wanted.body(operation), f"door-{operation}").mutations(MUTATIONS // 5):
            connection = await send(fleet, connection, operation, data)
    assert [line for line in lines if line["log_level"] in {"error", "critical"}] == []
    assert await fleet.certificates() == before
    connection.close()


async def send(fleet: EstFleet, connection: Connection, operation: str, data: bytes) -> Connection:
    """Send a body, DER, which must be refused with a sentence or a CMC response."""
    answer = await connection.ask(client.post_request(operation, data, "fuzz"))
    assert 400 <= answer.status < 500, (answer, data.hex())
    assert answer.body
    if answer.headers.get("connection") == "close":
        connection.close()
        return await fleet.connect()
    return connection
