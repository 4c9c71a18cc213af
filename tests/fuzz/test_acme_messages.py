"""What strangers send to ACME: JWS, JSON and attestations broken in many ways, refused in the words of the house and cheaply."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Rejection
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.pki import base64url
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, ML_DSA_ALGORITHMS, load_jwk
from gateway.pki.jws_signer import Signer, flatten_mac
from gateway.pki.keys import generate_private_key
from gateway.validation.attestation import DeviceAttestation
from gateway.validation.attestation.statement import decode_cbor
from gateway.validation.attestation.tpm_structures import parse_certify_info, parse_public_area, parse_signature
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from gateway.wire.acme import jws, requests
from tests.attesting import NOW, AppleDevice, Maker, Tpm, YubiKey, certify_info, envelope, public_area
from tests.fuzz.mutations import HOSTILE, MUTATIONS, refused_cheaply

ALGORITHMS = (*CLASSICAL_ALGORITHMS, *ML_DSA_ALGORITHMS)
URL = "https://pki.example.com/acme/corp/new-account"
NONCE = "oFvnlFP1wIhRlYS2jTaXbA"
SIGNERS = {kind: Signer.of(generate_private_key(kind)) for kind in ("ec-p256", "rsa-2048", "ed25519", "ml-dsa-65")}
BINDING = flatten_mac(b"k" * 32, "HS256", {"kid": "kid-1", "url": URL}, json.dumps(SIGNERS["ec-p256"].jwk).encode())
PAYLOADS: dict[str, dict[str, Any]] = {
    "account": {
        "contact": ["mailto:a@example.com"],
        "termsOfServiceAgreed": True,
        "onlyReturnExisting": False,
        "externalAccountBinding": BINDING,
    },
    "account_change": {"contact": ["mailto:a@example.com"], "status": "valid"},
    "order": {
        "identifiers": [
            {"type": "dns", "value": "*.a.example", "ancestorDomain": "example"},
            {"type": "ip", "value": "2001:db8::1"},
            {"type": "permanent-identifier", "value": "A/1.2.3"},
            {"type": "hardware-module", "value": "A/1.2.3"},
        ],
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2026-01-02T00:00:00.5+01:00",
        "replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
        "profile": "tlsserver",
    },
    "authorization": {"identifier": {"type": "dns", "value": "example.org"}, "subdomainAuthAllowed": True},
    "authorization_change": {"status": "deactivated"},
    "challenge": {"attObj": "oWNmbXQ"},
    "finalize": {"csr": base64url.encode(bytes(300))},
    "revocation": {"certificate": base64url.encode(bytes(300)), "reason": 1},
}
PARSERS: dict[str, Callable[[bytes], object]] = {
    "account": lambda data: requests.parse_account(data, URL, SIGNERS["ec-p256"].public),
    "account_change": requests.parse_account_change,
    "order": requests.parse_order,
    "authorization": requests.parse_authorization,
    "authorization_change": requests.parse_authorization_change,
    "challenge": requests.parse_challenge,
    "finalize": lambda data: (requests.parse_finalize(data), requests.parse_finalize(data, padded=True)),
    "revocation": requests.parse_revocation,
}


def request(signer: Signer, payload: bytes = b"{}", **header: object) -> bytes:
    return json.dumps(signer.flatten({"jwk": signer.jwk, "nonce": NONCE, "url": URL} | header, payload)).encode()


def read(body: bytes) -> tuple[object, ...]:
    """Do all that newAccount does before the store is asked; return what was signed."""
    found = jws.parse_request(body, ALGORITHMS)
    key = load_jwk(found.jwk or {})
    jws.check_signature(found, key, ALGORITHMS)
    jws.check_url(found, URL)
    return found.algorithm, found.nonce, found.url, found.payload, key.thumbprint


TEXTS = (
    b"",
    b'"',
    b"\\",
    b"{",
    b"[",
    b"}",
    b",",
    b":",
    b"null",
    b"\0",
    b"\xff",
    b"1e999",
    b"\\ud800",
    b"=",
    b"A" * 99,
    b"[" * 99,
)


def broken_texts(data: bytes, seed: str, count: int) -> Iterator[bytes]:
    """Yield JSON with pieces put in, taken out and overwritten."""
    source = random.Random(seed)
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(source.choice((1, 1, 2, 8))):
            at = source.randrange(len(broken) + 1)
            broken[at : at + source.choice((0, 1, 30))] = source.choice(TEXTS)
        yield bytes(broken)


# JWS


@pytest.mark.parametrize("kind", list(SIGNERS))
def test_broken_requests(kind: str) -> None:
    body = request(SIGNERS[kind], json.dumps(PAYLOADS["account"]).encode())
    meaning = read(body)
    for number, data in enumerate(broken_texts(body, f"jws-{kind}", MUTATIONS)):
        refused_cheaply(partial(read, data), f"{kind} {number}")
        with suppress(Rejection):
            assert read(data) == meaning, "what was not signed was believed"


@pytest.mark.parametrize("kind", list(SIGNERS))
def test_broken_headers(kind: str) -> None:
    """Whoever signs may sign nonsense: the header is broken first."""
    signer = SIGNERS[kind]
    header = json.dumps({"alg": signer.algorithm, "jwk": signer.jwk, "nonce": NONCE, "url": URL}).encode()
    for number, data in enumerate(broken_texts(header, f"header-{kind}", MUTATIONS // 4)):
        protected, payload = base64url.encode(data), base64url.encode(b"{}")
        signature = base64url.encode(signer.sign(f"{protected}.{payload}".encode()))
        body = json.dumps({"protected": protected, "payload": payload, "signature": signature}).encode()
        refused_cheaply(partial(read, body), f"{kind} {number}")


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(("", "a" * 70000, "\ud800", "\0", "../..", "*.", "*.*", "xn--", "1" * 5000, "2026-13-45T99:99:99Z"))
)
JSON = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4))
HEADER_NAMES = st.sampled_from(("alg", "jwk", "kid", "nonce", "url", "crit", "b64"))


@given(st.dictionaries(HEADER_NAMES, JSON | st.sampled_from(ALGORITHMS), max_size=5))
def test_headers_of_any_values(header: dict[str, Any]) -> None:
    protected = base64url.encode(json.dumps(header).encode())
    for parts in ({"payload": ""}, {"payload": "e30", "signature": ""}, {"payload": "e30", "signature": "AA"}):
        with suppress(Rejection):
            read(json.dumps({"protected": protected, **parts}).encode())


@given(
    st.dictionaries(
        st.sampled_from(("kty", "crv", "x", "y", "n", "e", "alg", "pub", "d")),
        JSON | st.sampled_from(("EC", "RSA", "OKP", "AKP", "P-256", "AQAB", "Ed25519", "ML-DSA-44")),
        max_size=6,
    )
)
def test_keys_of_any_values(members: dict[str, Any]) -> None:
    with suppress(Rejection):
        load_jwk(members)


# Payloads


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from paths(inner, (*at, name))


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**80,
    1.5,
    "",
    "a",
    "a" * 70000,
    "\0",
    "\u202e",
    "\ud800",
    [],
    [None],
    {},
    {"a": {}},
    [[]] * 500,
)


@pytest.mark.parametrize("name", list(PARSERS))
def test_odd_values_everywhere(name: str) -> None:
    for path in paths(PAYLOADS[name]):
        for odd in ODD:
            data = json.dumps(replaced(PAYLOADS[name], path, odd)).encode()
            refused_cheaply(partial(PARSERS[name], data), f"{name} {path} {odd!r:.40}")


@pytest.mark.parametrize("name", list(PARSERS))
def test_broken_payloads(name: str) -> None:
    for number, data in enumerate(broken_texts(json.dumps(PAYLOADS[name]).encode(), name, MUTATIONS // 2)):
        refused_cheaply(partial(PARSERS[name], data), f"{name} {number}")


@pytest.mark.parametrize("name", list(PARSERS))
@given(data=JSON)
def test_payloads_of_any_values(name: str, data: Any) -> None:
    with suppress(Rejection):
        PARSERS[name](json.dumps(data).encode())


DEEP = {
    "arrays": b"[" * 30000 + b"]" * 30000,
    "objects": b'{"a":' * 10000 + b"1" + b"}" * 10000,
    "digits": b'{"reason":' + b"9" * 60000 + b"}",
    "members": json.dumps({str(n): n for n in range(5000)}).encode(),
    "identifiers": json.dumps({"identifiers": [{"type": "dns", "value": "a.example"}] * 1500}).encode(),
    "a-name-twice": b'{"status":"valid","status":"deactivated"}',
    "not-utf-8": b'{"status":"\xff"}',
}


@pytest.mark.parametrize("shape", list(DEEP))
@pytest.mark.parametrize("name", list(PARSERS))
def test_large_and_deep_payloads(name: str, shape: str) -> None:
    refused_cheaply(partial(PARSERS[name], DEEP[shape]), f"{name} {shape}")


@pytest.mark.parametrize("kind", ["ec-p256", "ml-dsa-65"])
def test_broken_key_changes(kind: str) -> None:
    signer = SIGNERS[kind]
    asked = json.dumps({"account": "https://pki.example.com/acme/corp/acct/1", "oldKey": SIGNERS["rsa-2048"].jwk}).encode()
    body = json.dumps(signer.flatten({"jwk": signer.jwk, "url": URL}, asked)).encode()
    meaning = jws.parse_key_change(body, URL, ALGORITHMS)
    for number, data in enumerate(broken_texts(body, f"change-{kind}", MUTATIONS // 2)):
        refused_cheaply(partial(jws.parse_key_change, data, URL, ALGORITHMS), f"{kind} {number}")
        with suppress(Rejection):
            assert jws.parse_key_change(data, URL, ALGORITHMS) == meaning


# Attestations

MAKER = Maker.create("Fuzz")
ATTESTATION = DeviceAttestation(MAKER.anchors, MAKER.anchors, MAKER.anchors)
TOKEN, THUMBPRINT = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ", SIGNERS["ec-p256"].public.thumbprint
TPM = Tpm(MAKER)
ATTESTED: dict[str, tuple[str, dict[str, Any]]] = {
    "apple": ("C02XL0ATTEST", AppleDevice(MAKER).attest(TOKEN)),
    "step": ("16023607", YubiKey(MAKER).attest(f"{TOKEN}.{THUMBPRINT}")),
    "tpm": ("TPM-SERIAL-0001", TPM.attest(f"{TOKEN}.{THUMBPRINT}")),
}


def judge(identifier: str, payload: Mapping[str, object]) -> Validated:
    """Judge as a profile does; what is refused is a Rejection here, as all others are."""
    task = ValidationTask(
        ChallengeType.DEVICE_ATTEST_01,
        Identifier(IdentifierType.PERMANENT_IDENTIFIER, identifier),
        TOKEN,
        THUMBPRINT,
        URL,
        "192.0.2.1",
        payload=payload,
    )
    try:
        return ATTESTATION.judge(task, NOW)
    except ValidationFailed as error:
        raise Rejection(error.reason, error.detail) from None


def broken_bytes(data: bytes, seed: str, count: int) -> Iterator[bytes]:
    source = random.Random(seed)
    pieces = (*HOSTILE, b"\x9f", b"\xbf", b"\x5f", b"\xc2", b"\xd8\x1c", b"\xfb", b"\x9b" + b"\xff" * 8, b"\x5b" + b"\x7f" * 8)
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(source.choice((1, 1, 1, 2, 8))):
            at = source.randrange(len(broken) + 1)
            match source.randrange(4):
                case 0 if at < len(broken):
                    broken[at] ^= 1 << source.randrange(8)
                case 1:
                    del broken[at : at + source.choice((1, 2, 40))]
                case _:
                    broken[at : at + source.choice((0, 1, 2))] = source.choice(pieces)
        yield bytes(broken)


@pytest.mark.parametrize("name", list(ATTESTED))
def test_broken_attestations(name: str) -> None:
    identifier, whole = ATTESTED[name]
    key = judge(identifier, envelope(whole)).attested_key
    for number, data in enumerate(broken_bytes(cbor2.dumps(whole), name, MUTATIONS)):
        refused_cheaply(partial(judge, identifier, envelope(data)), f"{name} {number}")
        with suppress(Rejection):
            assert judge(identifier, envelope(data)).attested_key == key, "another key was believed"


@pytest.mark.parametrize("name", list(ATTESTED))
def test_odd_values_in_attestations(name: str) -> None:
    identifier, whole = ATTESTED[name]
    odd: tuple[Any, ...] = (0, -1, 2**64 - 1, b"", b"\0" * 1200, "", "x", [], [b"x"], {}, {"a": [{}]}, [[]] * 100)
    for path in paths(whole):
        for value in odd:
            payload = envelope(replaced(whole, path, value))
            assert refused_cheaply(partial(judge, identifier, payload), f"{name} {path} {value!r:.40}"), (path, value)


def test_broken_cbor() -> None:
    data = cbor2.dumps(ATTESTED["tpm"][1])
    for number, broken in enumerate(broken_bytes(data, "cbor", MUTATIONS)):
        refused_cheaply(partial(decode_cbor, broken), f"cbor {number}")


@given(st.binary(max_size=200))
def test_any_bytes_as_cbor(data: bytes) -> None:
    with suppress(Rejection):
        decode_cbor(data)


STRUCTURES: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "certInfo": (parse_certify_info, certify_info(bytes(32), b"")),
    "pubArea-ec": (parse_public_area, public_area(TPM.key)),
    "pubArea-rsa": (parse_public_area, public_area(generate_private_key("rsa-2048"))),
    "sig-rsa": (parse_signature, TPM.sign(b"")),
    "sig-ec": (parse_signature, Tpm(MAKER, ak=generate_private_key("ec-p256")).sign(b"")),
}


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_broken_structures_of_tpms(name: str) -> None:
    parse, data = STRUCTURES[name]
    parse(data)
    for number, broken in enumerate(broken_bytes(data, name, MUTATIONS)):
        refused_cheaply(partial(parse, broken), f"{name} {number}")
    for size in range(len(data)):
        assert refused_cheaply(partial(parse, data[:size]), f"{name} cut to {size}")


@pytest.mark.parametrize("name", list(STRUCTURES))
@given(data=st.binary(max_size=300))
def test_any_bytes_as_structures_of_tpms(name: str, data: bytes) -> None:
    with suppress(Rejection):
        STRUCTURES[name][0](data)
