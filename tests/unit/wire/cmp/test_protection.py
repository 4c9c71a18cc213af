from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from pyasn1.codec.der import encoder

from gateway.asn1.cmp import OID_PASSWORD_BASED_MAC, OID_PBMAC1
from gateway.cmp import PkiConf
from gateway.pki import der
from gateway.pki.algorithms import verify_signature
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.password_mac import MacWindows, fresh_mac, parse_mac, verify_mac
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.messages import decode_parts
from gateway.wire.cmp.protection import Envelope, MacProtector, Strictness, directory_name, seal
from gateway.wire.cmp.requests import error
from tests.unit.wire.cmp.parties import CA, NOW, SECRET, SERVER, answer, header, leaf, mac_sender, oracle, protector


@pytest.mark.parametrize(
    "key",
    [
        *[
            pytest.param(generate_private_key(spec), id=spec)
            for spec in ("ec-p256", "ec-p384", "ec-p521", "rsa-2048", "ed25519", "ml-dsa-44", "ml-dsa-87")
        ],
        pytest.param(Ed448PrivateKey.generate(), id="ed448"),
    ],
)
def test_signatures_cover_header_and_body(key: PrivateKey) -> None:
    message = encode_answer(header(), answer(PkiConf()), protector(pair=leaf("CN=signer", key)), NOW)
    protection = decode_parts(message).protection
    assert protection is not None
    verify_signature(public_key_der(key), protection.algorithm, protection.value, protection.covered)


def _asked(*, pbmac1: bool = False, mac: str = "1.2.840.113549.2.9") -> bytes:
    """Return the protectionAlg of a client that uses this MAC."""
    base = fresh_mac()[1]
    return fresh_mac(replace(base, pbmac1=pbmac1, mac_algorithm=der.sequence(der.oid(mac), der.null())))[0]


@pytest.mark.parametrize(
    ("algorithm", "oid", "mac"),
    [
        pytest.param(_asked(), OID_PASSWORD_BASED_MAC, "sha256", id="PBM"),
        pytest.param(_asked(mac="1.2.840.113549.2.7"), OID_PASSWORD_BASED_MAC, "sha1", id="PBM with HMAC-SHA1"),
        pytest.param(_asked(pbmac1=True), OID_PBMAC1, "sha256", id="PBMAC1"),
    ],
)
def test_macs_are_answered_in_kind(algorithm: bytes, oid: str, mac: str) -> None:
    message = encode_answer(header(), answer(PkiConf(), mac_sender(algorithm)), protector(), NOW)
    decoded, parts = oracle(message), decode_parts(message)
    assert parts.protection is not None
    parameters = parse_mac(parts.protection.algorithm, MacWindows(hmac_sha1=True))
    assert str(decoded["header"]["protectionAlg"]["algorithm"]) == oid
    assert parameters.mac == mac
    assert verify_mac(parameters, SECRET.secret, parts.protection.covered, parts.protection.value)
    assert bytes(decoded["header"]["senderKID"]) == SECRET.reference
    assert parts.extra_certs == ()


@pytest.mark.parametrize(
    ("strictness", "name"), [pytest.param("rfc4210", "CN=CMP signer", id="rfc4210"), ("lightweight", "CN=ref-1")]
)
def test_sender_under_a_mac(strictness: Strictness, name: str) -> None:
    message = encode_answer(header(), answer(PkiConf(), mac_sender(fresh_mac()[0])), protector(strictness), NOW)
    sender = encoder.encode(oracle(message)["header"]["sender"])
    assert sender == directory_name(parse_name_text(name).der)


def test_nobody_is_answered_by_the_signer() -> None:
    message = encode_answer(header(), answer(PkiConf(), None), protector(), NOW)
    assert decode_parts(message).extra_certs == (SERVER.certificate, CA)


def test_unprotected_messages_are_of_nobody() -> None:
    envelope = Envelope(2, directory_name(b"0\0"), None, None, None)
    decoded = oracle(seal(envelope, error("no"), None))
    assert not decoded["protection"].isValue
    assert not decoded["header"]["protectionAlg"].isValue
    assert not decoded["extraCerts"].isValue
    assert encoder.encode(decoded["header"]["sender"]) == directory_name(b"0\0")


@pytest.mark.parametrize("reference", [b"ref", bytes(range(256))], ids=["text", "octets"])
def test_any_reference_number_can_be_named(reference: bytes) -> None:
    envelope = Envelope(2, directory_name(b"0\0"), None, None, None)
    decoded = oracle(seal(envelope, error("no"), MacProtector.create(reference, b"secret")))
    assert bytes(decoded["header"]["senderKID"]) == reference


def test_secrets_and_keys_stay_out_of_representations() -> None:
    made = MacProtector.create(b"ref", b"a secret")
    assert "a secret" not in repr(made)
    assert "key" not in repr(protector().signature)
