"""Keys that are drawn for clients (RFC 9483 §4.1.6), and certificates that come encrypted (RFC 9810 §5.2.8.3.2)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc5652

from gateway.asn1 import cms as asn1_cms
from gateway.asn1.cmp import FailInfo
from gateway.cmp import BodyType, CertAnswer
from gateway.model import RequestForm
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.cms import Signer
from gateway.pki.crmf_writer import KEY_ENCIPHERMENT
from gateway.pki.key_package import KeyGenerationAuthority
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.signed_content import content_info
from gateway.store.interfaces import LedgerState
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import MacIdentity
from tests.flow.cmp.cmp_world import CmpWorld, Told, certify, cr, ir, key_of, kur

WITHOUT_KEY: dict[str, Any] = {"public_key": None, "proof": None}
SIGNER = {"certificate": "kga.pem", "key": {"file": "kga.key"}}


@pytest.fixture
def drawing(world: CmpWorld) -> CmpWorld:
    """A world whose CA takes PKCS#10 alone, and where keys are drawn."""
    certificate = certify("Key CA", "kga", "CN=key generation authority", ekus=("cmKGA",))
    authority = KeyGenerationAuthority.create(Signer.create(certificate, key_of("kga")))
    world.corp.config = {"key_generation": {"keys": ("ec-p256", "rsa-2048"), "signer": SIGNER}}
    world.corp.terms = {"key_authority": authority}
    world.ca.accepts = frozenset({RequestForm.PKCS10})
    return world


def opened(folder: Path, enveloped: bytes, *options: str) -> bytes:
    """What openssl decrypts."""
    whole = content_info(asn1_cms.OID_ENVELOPED_DATA, b"\x30" + enveloped[1:])
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", *options]
    done = subprocess.run(command, input=whole, cwd=folder, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def key_in(folder: Path, told: Told, *options: str) -> PrivateKey:
    """The private key of an answer."""
    body = told.received.body
    assert isinstance(body, CertAnswer)
    assert body.private_key is not None
    signed, _ = decode(opened(folder, body.private_key, *options), rfc5652.SignedData())
    content = signed["encapContentInfo"]
    package = content["eContent"].asOctets()
    return load_der_private_key(_as_pkcs8(package), None)  # type: ignore[return-value]


def _as_pkcs8(package: bytes) -> bytes:
    """Leave out AsymmetricKeyPackage and the public key beside the private one."""
    body = der.content(der.SEQUENCE, package)
    members = der.elements(body)
    if len(members) > 1:
        return package
    key = body[members[0][2] : members[0][3]]
    parts = der.elements(key)
    return der.sequence(der.integer(0), key[parts[1][1] : parts[2][3]])


def by_password(identity: MacIdentity) -> tuple[str, ...]:
    return ("-pwri_password", identity.secret.decode())


@pytest.mark.parametrize("pvno", [2, 3])
async def test_a_key_is_drawn_for_who_knows_a_secret(drawing: CmpWorld, tmp_path: Path, pvno: int) -> None:
    identity = await drawing.secret()
    told = await drawing.send(ir(**WITHOUT_KEY), identity, pvno=pvno)
    key = key_in(tmp_path, told, *by_password(identity))
    assert public_key_der(key) == parse_certificate(told.certificate).public_key.der
    assert (await drawing.confirm(told, identity, pvno=pvno)).type is BodyType.PKICONF
    [row] = await drawing.rows()
    assert (row.state, row.form) == (LedgerState.CONFIRMED, RequestForm.PKCS10)


async def test_a_key_is_drawn_for_a_certificate(drawing: CmpWorld, tmp_path: Path) -> None:
    """An update with a key of the server's, sealed to the certificate that signed it."""
    drawing.ca.accepts = frozenset(RequestForm)
    drawing.corp.options = {"policy": _agreeing(drawing)}
    own = await drawing.device()
    told = await drawing.send(kur(**WITHOUT_KEY, old=drawing.ca.issued()[0]), own)
    (tmp_path / "own.key").write_bytes(key_of("device").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = key_in(tmp_path, told, "-inkey", "own.key")
    assert public_key_der(key) == parse_certificate(told.certificate).public_key.der


def _agreeing(world: CmpWorld) -> object:
    policy = world.profile(world.corp).policy
    usages = ("digitalSignature", "keyAgreement")
    return policy.model_copy(update={"key_usage": policy.key_usage.model_copy(update={"allow": usages, "default": usages})})


async def test_a_certificate_that_only_signs_gets_no_key(drawing: CmpWorld) -> None:
    drawing.ca.accepts = frozenset(RequestForm)
    own = await drawing.device()
    issued = len(drawing.ca.issued())
    told = await drawing.send(cr(**WITHOUT_KEY), own)
    assert told.failed == {FailInfo.BAD_ALG}
    assert len(drawing.ca.issued()) == issued


async def test_the_same_request_again_gets_another_key_and_the_first_certificate_is_revoked(
    drawing: CmpWorld, tmp_path: Path
) -> None:
    identity = await drawing.secret()
    body = ir(**WITHOUT_KEY)
    first = await drawing.send(body, identity)
    again = await drawing.send(body, identity, transaction_id=first.sent.transaction_id)
    keys = [public_key_der(key_in(tmp_path, told, *by_password(identity))) for told in (first, again)]
    assert keys[0] != keys[1]
    serials = [parse_certificate(told.certificate).serial for told in (first, again)]
    assert drawing.ca.revoked == serials[:1]
    assert (await drawing.confirm(again, identity)).type is BodyType.PKICONF


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
async def test_whoever_recorded_a_request_cannot_revoke_its_certificate_by_it(drawing: CmpWorld, *, implicit: bool) -> None:
    identity = await drawing.secret()
    told = await drawing.send(ir(**WITHOUT_KEY), identity, implicit_confirm=implicit)
    again = await drawing.deliver(told.sent, identity)
    assert again.failed == {FailInfo.TRANSACTION_ID_IN_USE}
    assert (drawing.ca.issued(), drawing.ca.revoked) == ([told.certificate], [])


async def test_the_key_is_kept_nowhere(drawing: CmpWorld, tmp_path: Path) -> None:
    identity = await drawing.secret()
    told = await drawing.send(ir(**WITHOUT_KEY), identity)
    number = key_in(tmp_path, told, *by_password(identity)).private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if number in path.read_bytes()]


@pytest.mark.parametrize(
    ("settings", "failed"),
    [
        pytest.param({"config": {}, "terms": {}}, FailInfo.BAD_CERT_TEMPLATE, id="none-are-drawn"),
        pytest.param({"options": {"manual_approval": True}}, FailInfo.BAD_REQUEST, id="approval"),
    ],
)
async def test_refused(drawing: CmpWorld, settings: dict[str, object], failed: FailInfo) -> None:
    drawing.corp = replace(drawing.corp, **settings)  # type: ignore[arg-type]
    told = await drawing.send(ir(**WITHOUT_KEY), await drawing.secret())
    assert told.failed == {failed}
    assert drawing.ca.issued() == []


# Certificates for keys that do not sign


@cache
def rsa_key() -> PrivateKey:
    return generate_private_key("rsa-2048")


def unsigned(key: PrivateKey) -> bytes:
    return ir(public_key=public_key_der(key), proof=KEY_ENCIPHERMENT)


@pytest.fixture
def sealing(world: CmpWorld) -> CmpWorld:
    world.corp.config = {"encrypted_certificates": True}
    return world


def sealed_in(told: Told) -> bytes:
    body = told.received.body
    assert isinstance(body, CertAnswer)
    assert body.certificate is None
    assert body.encrypted_certificate is not None
    return body.encrypted_certificate


async def unsealed(world: CmpWorld, told: Told) -> bytes:
    """The one certificate that was issued, which the answer does not show."""
    certificate: bytes
    [certificate] = world.ca.issued()
    assert certificate not in sealed_in(told)
    return certificate


@pytest.mark.parametrize(("spec", "pvno"), [pytest.param("rsa-2048", 3, id="rsa"), pytest.param("ec-p384", 3, id="ec")])
async def test_a_certificate_is_opened_by_its_key_and_confirmed(sealing: CmpWorld, tmp_path: Path, spec: str, pvno: int) -> None:
    key = generate_private_key(spec)
    (tmp_path / "own.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    identity = await sealing.secret()
    told = await sealing.send(unsigned(key), identity, pvno=pvno, implicit_confirm=True)
    assert told.received.header.implicit_confirm is None, "confirming it is the proof"
    certificate = opened(tmp_path, sealed_in(told), "-inkey", "own.key")
    assert certificate == await unsealed(sealing, told)
    done = await sealing.follow(told, requests.cert_conf(certificate), identity, pvno=pvno)
    assert done.type is BodyType.PKICONF
    [row] = await sealing.rows()
    assert row.state is LedgerState.CONFIRMED


async def test_version_2_has_encrypted_value(sealing: CmpWorld) -> None:
    told = await sealing.send(unsigned(rsa_key()), await sealing.secret(), pvno=2)
    assert sealed_in(told)[0] == der.SEQUENCE
    await unsealed(sealing, told)


async def test_the_same_message_again_is_sealed_again(sealing: CmpWorld) -> None:
    identity = await sealing.secret()
    first = await sealing.send(unsigned(rsa_key()), identity)
    again = await sealing.deliver(first.sent, identity)
    assert sealed_in(again) != sealed_in(first)
    await unsealed(sealing, again)


async def test_what_was_polled_for_is_sealed(sealing: CmpWorld) -> None:
    sealing.ca.faults = ["pending"]
    identity = await sealing.secret()
    waiting = await sealing.send(unsigned(rsa_key()), identity)
    sealing.clock.advance(timedelta(minutes=2))
    told = await sealing.follow(waiting, requests.poll_req(0), identity)
    await unsealed(sealing, told)


async def test_who_cannot_open_it_cannot_confirm_it(sealing: CmpWorld) -> None:
    """What is confirmed is a certificate that the client has seen."""
    identity = await sealing.secret()
    told = await sealing.send(unsigned(rsa_key()), identity)
    other = certify("Key CA", "kga", "CN=device")
    done = await sealing.follow(told, requests.cert_conf(other), identity)
    assert done.failed == {FailInfo.BAD_CERT_ID}
    [row] = await sealing.rows()
    assert row.state is not LedgerState.CONFIRMED


@pytest.mark.parametrize(
    ("config", "spec", "pvno", "failed"),
    [
        pytest.param({}, "rsa-2048", 3, FailInfo.BAD_POP, id="not-offered"),
        pytest.param({"encrypted_certificates": True}, "ec-p256", 2, FailInfo.BAD_ALG, id="ec-by-version-2"),
        pytest.param({"encrypted_certificates": True}, "ed25519", 3, FailInfo.BAD_ALG, id="a-key-that-only-signs"),
    ],
)
async def test_not_sealed(world: CmpWorld, config: dict[str, object], spec: str, pvno: int, failed: FailInfo) -> None:
    world.corp.config = config
    told = await world.send(unsigned(generate_private_key(spec)), await world.secret(), pvno=pvno)
    assert told.failed == {failed}
    assert world.ca.issued() == []
