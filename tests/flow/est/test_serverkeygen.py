"""serverkeygen through the whole service: plain and encrypted keys, read by a MIME parser and by openssl (RFC 7030 §4.4)."""

from __future__ import annotations

import base64
import email
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import load_der_private_key
from structlog.testing import capture_logs

from gateway.asn1 import cms as asn1_cms
from gateway.asn1 import key_package as asn1
from gateway.asn1.est import OID_ASYMMETRIC_DECRYPT_KEY_ID, OID_DECRYPT_KEY_ID, OID_SMIME_CAPABILITIES
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.signed_content import content_info
from gateway.wire.est.client import post_request
from tests.flow.est.connection import decoded
from tests.flow.est.fleet import EstFleet, Holder, Settings, Wanted, serving, write_pair
from tests.flow.scep.fleet import challenge_file, static, write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.flow.scep.service import make_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEK = bytes(range(32))
OPERATION = "serverkeygen"
AES_256_CBC, AES_256_GCM = (f"2.16.840.1.101.3.4.1.{n}" for n in (42, 46))
KINDS = ["ec-p256", "rsa-2048"]
MAKERS, DOCKS = OtherCA.create("Makers"), OtherCA.create("Docks")


@dataclass(frozen=True)
class Dock:
    """Somebody that private keys are encrypted to."""

    key: PrivateKey
    certificate: bytes

    @classmethod
    def create(cls, name: str, kind: str, *usage: str) -> Dock:
        key = generate_private_key(kind)
        return cls(key, DOCKS.issue(key, f"CN={name}", usage=usage))

    @property
    def key_id(self) -> bytes:
        found = parse_certificate(self.certificate).subject_key_id
        assert found
        return found


RSA_DOCK = Dock.create("rsa dock", "rsa-2048", "keyEncipherment")
EC_DOCK = Dock.create("ec dock", "ec-p384", "keyAgreement")
MAKER_KEY = generate_private_key("ec-p256")
MAKER = Holder("device", MAKERS.issue(MAKER_KEY, "CN=device-1", usage=("digitalSignature", "keyAgreement")), MAKER_KEY)
SIGNING_ONLY = Holder("signing", MAKERS.issue(MAKER_KEY, "CN=device-2", usage=("digitalSignature",)), MAKER_KEY)


def profiles(folder: Path) -> dict[str, Settings]:
    signer = write_pair(folder, "keygen-signer")
    write_secret(folder / "secrets" / "dock-7", KEK.hex().encode())
    (folder / "docks.pem").write_bytes(der_to_pem(RSA_DOCK.certificate) + der_to_pem(EC_DOCK.certificate))
    (folder / "makers.pem").write_bytes(MAKERS.pem)
    full: dict[str, Any] = {
        "keys": KINDS,
        "symmetric_keys": {"dock-7": {"file": "secrets/dock-7"}, "hex:00ff": {"file": "secrets/dock-7"}},
        "recipients": "docks.pem",
        "signer": signer,
    }
    maker = {"type": "tls_certificate", "anchors": "makers.pem", "names": "any"}
    return {
        "keygen": {"credentials": [static("keygen")], "est": {"server_keygen": full}},
        "strict": {"credentials": [static("strict")], "est": {"server_keygen": {**full, "require_encryption": True}}},
        "plain": {"credentials": [static("plain")], "est": {"server_keygen": {"keys": KINDS}}},
        "maker": {"credentials": [maker], "est": {"server_keygen": full}},
        "without": {"credentials": [static("without")]},
        "counted": {
            "credentials": [static("counted")],
            "est": {"server_keygen": full},
            "limits": {"failures_per_address": {"count": 2, "window": "10m"}},
        },
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path_factory.mktemp("keygen") / "state")
    async with serving(folder, profiles(folder)) as fleet:
        yield fleet


def secret(fleet: EstFleet, profile: str) -> str:
    return (fleet.folder / challenge_file(profile)).read_text()


def names_key(oid: str, identifier: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(der.octet_string(identifier)))


def can(*oids: str) -> bytes:
    """SMIMECapabilities."""
    return der.sequence(der.oid(OID_SMIME_CAPABILITIES), der.set_of(der.sequence(*(der.sequence(der.oid(oid)) for oid in oids))))


async def ask(
    fleet: EstFleet, profile: str = "keygen", wanted: Wanted | None = None, holder: Holder | None = None, **changes: Any
) -> RawAnswer:
    asked = wanted or Wanted(password=secret(fleet, profile), **changes)
    return await fleet.send(holder, profile, OPERATION, asked)


def parts_of(answer: RawAnswer) -> list[Message]:
    assert answer.status == 200, answer
    head = f"MIME-Version: 1.0\r\nContent-Type: {answer.media_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.get_content_type() == "multipart/mixed"
    payload = message.get_payload()
    assert isinstance(payload, list)
    parts = [part for part in payload if isinstance(part, Message)]
    assert [part["Content-Transfer-Encoding"] for part in parts] == ["base64", "base64"]
    return parts


def leaf_of(part: Message) -> bytes:
    assert part["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    [certificate] = cms.parse_signed_data(payload(part), max_signers=0).certificates
    return certificate


def payload(part: Message) -> bytes:
    found = part.get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


def belongs(key: bytes, certificate: bytes) -> bool:
    loaded = load_der_private_key(key, None)
    return public_key_der(loaded) == parse_certificate(certificate).public_key.der  # type: ignore[arg-type]


def opened(message: bytes, folder: Path, *options: str) -> bytes:
    """Decrypt with openssl; return the private key, PKCS#8 DER, whose package is signed."""
    source = folder / "key.p7m"
    source.write_bytes(message)
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(source), *options]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    signed = cms.parse_signed_data(content_info(asn1_cms.OID_SIGNED_DATA, done.stdout))
    assert signed.content_type == asn1.OID_ASYMMETRIC_KEY_PACKAGE
    assert signed.content is not None
    [certificate] = map(parse_certificate, signed.certificates)
    assert [a.value for rdn in certificate.subject.rdns for a in rdn] == ["keygen-signer"]
    cms.verify_signer(signed, signed.signers[0], certificate.public_key.der)
    return der.content(der.SEQUENCE, signed.content)


def pair_options(folder: Path, certificate: bytes, key: PrivateKey) -> tuple[str, ...]:
    path = folder / "recipient.pem"
    path.touch(0o600)
    path.write_bytes(serialize_private_key(key) + der_to_pem(certificate))
    return "-recip", str(path), "-inkey", str(path)


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
async def test_a_plain_key_of_the_kind_that_the_request_shows(fleet: EstFleet, kind: str) -> None:
    placeholder = generate_private_key(kind)
    answer = await ask(fleet, key=placeholder)
    assert "content-transfer-encoding" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert "transfer-encoding" not in answer.headers
    key, certificate = parts_of(answer)
    assert key["Content-Type"] == "application/pkcs8"
    assert belongs(payload(key), leaf_of(certificate))
    description = parse_certificate(leaf_of(certificate)).public_key
    assert kind == {"ec": "ec-p256", "rsa": "rsa-2048"}[description.algorithm]
    assert description.der != public_key_der(placeholder)


async def test_our_own_client_reads_it(fleet: EstFleet) -> None:
    taken = decoded(OPERATION, await ask(fleet))
    assert taken.key is not None
    assert not taken.key_encrypted
    assert belongs(taken.key, taken.certificates[0])


@pytest.mark.parametrize("agent", ["libest 3.2.0p", ""], ids=["wrapped", "one-line"])
async def test_lines_are_as_the_client_wants_them(fleet: EstFleet, agent: str) -> None:
    wanted = Wanted(password=secret(fleet, "keygen"))
    answer = await fleet.send(None, "keygen", OPERATION, wanted, {"User-Agent": agent} if agent else {})
    longest = max(len(line) for line in answer.body.split(b"\r\n"))
    assert (longest <= 76) is bool(agent)
    assert belongs(payload(parts_of(answer)[0]), leaf_of(parts_of(answer)[1]))


@pytest.mark.parametrize("part", ["signature", "key"])
async def test_signature_and_key_of_the_request_do_not_count(fleet: EstFleet, part: str) -> None:
    placeholder = generate_private_key("rsa-2048")
    body = bytearray(Wanted(password=secret(fleet, "keygen"), key=placeholder).csr)
    at = -1 if part == "signature" else body.index(b"\x02\x82\x01\x01\x00")
    body[at] ^= 1
    connection = await fleet.connect()
    answer = await connection.ask(post_request(OPERATION, bytes(body), "keygen"))
    connection.close()
    key, certificate = parts_of(answer)
    assert belongs(payload(key), leaf_of(certificate))


@pytest.mark.parametrize("identifier", [b"dock-7", b"\x00\xff"], ids=["text", "hex"])
async def test_a_symmetric_key_opens_it(fleet: EstFleet, tmp_path: Path, identifier: bytes) -> None:
    attributes = (names_key(OID_DECRYPT_KEY_ID, identifier), can(AES_256_CBC, asn1.OID_AES_256_WRAP))
    key, certificate = parts_of(await ask(fleet, attributes=attributes))
    assert key["Content-Type"] == "application/pkcs7-mime; smime-type=server-generated-key"
    options = ("-secretkey", KEK.hex(), "-secretkeyid", identifier.hex())
    assert belongs(opened(payload(key), tmp_path, *options), leaf_of(certificate))


@pytest.mark.parametrize("dock", [RSA_DOCK, EC_DOCK], ids=["key-transport", "key-agreement"])
async def test_a_configured_certificate_opens_it(fleet: EstFleet, tmp_path: Path, dock: Dock) -> None:
    key, certificate = parts_of(await ask(fleet, attributes=(names_key(OID_ASYMMETRIC_DECRYPT_KEY_ID, dock.key_id),)))
    decrypted = opened(payload(key), tmp_path, *pair_options(tmp_path, dock.certificate, dock.key))
    assert belongs(decrypted, leaf_of(certificate))


async def test_the_tls_clients_own_certificate_opens_it(fleet: EstFleet, tmp_path: Path) -> None:
    key_id = parse_certificate(MAKER.certificate).subject_key_id
    assert key_id is not None
    wanted = Wanted("CN=device-1", attributes=(names_key(OID_ASYMMETRIC_DECRYPT_KEY_ID, key_id),))
    key, certificate = parts_of(await ask(fleet, "maker", wanted, MAKER))
    decrypted = opened(payload(key), tmp_path, *pair_options(tmp_path, MAKER.certificate, MAKER.key))
    assert belongs(decrypted, leaf_of(certificate))


UNKNOWN = names_key(OID_DECRYPT_KEY_ID, b"dock-8")
KNOWN = names_key(OID_DECRYPT_KEY_ID, b"dock-7")
EC_NAMED = names_key(OID_ASYMMETRIC_DECRYPT_KEY_ID, EC_DOCK.key_id)


@pytest.mark.parametrize(
    ("profile", "attributes", "status", "sentence"),
    [
        pytest.param("keygen", (UNKNOWN,), 403, b"is not known here", id="unknown-symmetric-key"),
        pytest.param(
            "keygen", (names_key(OID_ASYMMETRIC_DECRYPT_KEY_ID, b"dock-7"),), 403, b"is not known here", id="unknown-certificate"
        ),
        pytest.param("keygen", (KNOWN, EC_NAMED), 403, b"names two keys", id="two-keys"),
        pytest.param("keygen", (KNOWN, can(AES_256_GCM)), 400, b"content encryption", id="cipher"),
        pytest.param("keygen", (KNOWN, can(AES_256_CBC, asn1.OID_AES_128_WRAP)), 400, b"key wrap", id="wrap"),
        pytest.param("keygen", (EC_NAMED, can("1.3.132.1.14.1")), 400, b"key agreement", id="agreement"),
        pytest.param("keygen", (names_key(OID_DECRYPT_KEY_ID, b""),), 400, b"empty or too long", id="no-identifier"),
        pytest.param("plain", (KNOWN,), 403, b"not encrypted here", id="nothing-to-sign-with"),
        pytest.param("strict", (), 403, b"must name a key", id="encryption-demanded"),
        pytest.param("without", (), 404, b"no such EST operation", id="not-offered"),
    ],
)
async def test_refused_in_a_sentence_and_never_answered_with_less(
    fleet: EstFleet, profile: str, attributes: tuple[bytes, ...], status: int, sentence: bytes
) -> None:
    before = await fleet.certificates()
    answer = await ask(fleet, profile, attributes=attributes)
    assert answer.status == status, answer
    assert answer.media_type == "text/plain"
    assert sentence in answer.body
    assert await fleet.certificates() == before


async def test_where_encryption_is_demanded_it_is_given(fleet: EstFleet, tmp_path: Path) -> None:
    key, certificate = parts_of(await ask(fleet, "strict", attributes=(KNOWN,)))
    options = ("-secretkey", KEK.hex(), "-secretkeyid", b"dock-7".hex())
    assert belongs(opened(payload(key), tmp_path, *options), leaf_of(certificate))


async def test_a_client_certificate_for_signatures_is_no_recipient(fleet: EstFleet) -> None:
    key_id = parse_certificate(SIGNING_ONLY.certificate).subject_key_id
    assert key_id is not None
    wanted = Wanted("CN=device-2", attributes=(names_key(OID_ASYMMETRIC_DECRYPT_KEY_ID, key_id),))
    assert (await ask(fleet, "maker", wanted, SIGNING_ONLY)).status == 403


PROOFS: list[Any] = [
    pytest.param(lambda _: Wanted(), 403, id="no-credential"),
    pytest.param(lambda _: Wanted(password="wrong-wrong-wrong"), 403, id="wrong-credential"),
    pytest.param(lambda f: Wanted("C=XX,CN=*", password=secret(f, "keygen") + "x"), 403, id="almost-right"),
]


@pytest.mark.parametrize(("make", "status"), PROOFS)
async def test_nobody_gets_a_key_without_proof(fleet: EstFleet, make: Callable[[EstFleet], Wanted], status: int) -> None:
    before = await fleet.certificates()
    answer = await ask(fleet, "keygen", make(fleet))
    assert answer.status == status, answer
    assert await fleet.certificates() == before


async def test_the_same_request_again_revokes_the_first_certificate(fleet: EstFleet) -> None:
    wanted = Wanted("CN=again", password=secret(fleet, "keygen"))
    answers = [await ask(fleet, "keygen", wanted) for _ in range(2)]
    first, second = (leaf_of(parts_of(answer)[1]) for answer in answers)
    assert first != second
    found = {row["serial"]: row for row in await fleet.service.run("GET", "/v1/certificates", limit=10000)}
    rows = [found[format(parse_certificate(leaf).serial, "x")] for leaf in (first, second)]
    assert [row["revoked_at"] is not None for row in rows] == [True, False]


async def test_nothing_of_a_key_is_logged_or_kept(fleet: EstFleet) -> None:
    with capture_logs() as lines:
        taken = decoded(OPERATION, await ask(fleet))
    assert taken.key is not None
    loaded = load_der_private_key(taken.key, None)
    number = loaded.private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    kept = [path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file()]
    kept += [repr(lines).encode(), *(row.encode() for row in await fleet.service.audit())]
    needles = (number, number.hex().encode(), base64.b64encode(taken.key))
    assert not [needle for needle in needles if any(needle in data for data in kept)]
    assert [line["operation"] for line in lines if line["event"] == "est"] == [OPERATION]


async def test_who_guesses_identifiers_of_keys_is_not_heard_for_long(fleet: EstFleet) -> None:
    guesses = [Wanted(attributes=(names_key(OID_DECRYPT_KEY_ID, b"dock-%d" % n),)) for n in range(3)]
    assert [(await ask(fleet, "counted", guess)).status for guess in guesses] == [403, 403, 429]
