"""Requests as JWS: the one form that is taken, and all that is not."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import base64url
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, load_jwk
from gateway.pki.jws import verify_mac
from gateway.pki.jws_signer import Signer, flatten_mac
from gateway.wire.acme.jws import (
    MAX_BODY,
    UnsupportedAlgorithm,
    check_signature,
    check_url,
    parse_binding,
    parse_key_change,
    parse_object,
    parse_request,
)

SIGNER = Signer.of(ec.generate_private_key(ec.SECP256R1()))
OTHER = Signer.of(ed25519.Ed25519PrivateKey.generate())
URL = "https://pki.example/acme/corp/new-order"
KID = "https://pki.example/acme/corp/acct/1"
HEADER = {"nonce": "bm9uY2U", "url": URL}


def body(protected_header: dict[str, object], content: bytes = b"{}", **changes: object) -> bytes:
    return json.dumps({**SIGNER.flatten(protected_header, content), **changes}).encode()


def protected(text: bytes) -> str:
    return base64url.encode(text)


def test_a_request_by_account() -> None:
    request = parse_request(body({**HEADER, "kid": KID}, b'{"a":1}'), CLASSICAL_ALGORITHMS)
    assert (request.algorithm, request.nonce, request.url, request.kid, request.jwk) == ("ES256", "bm9uY2U", URL, KID, None)
    assert request.payload == b'{"a":1}'
    assert not request.is_read
    check_signature(request, SIGNER.public, CLASSICAL_ALGORITHMS)
    check_url(request, URL)


def test_a_request_by_key() -> None:
    request = parse_request(body({**HEADER, "jwk": SIGNER.jwk}), CLASSICAL_ALGORITHMS)
    assert request.kid is None
    assert request.jwk is not None
    assert load_jwk(request.jwk) == SIGNER.public


def test_post_as_get_has_an_empty_payload() -> None:
    assert parse_request(body({**HEADER, "kid": KID}, b""), CLASSICAL_ALGORITHMS).is_read
    assert not parse_request(body({**HEADER, "kid": KID}, b"{}"), CLASSICAL_ALGORITHMS).is_read


def test_members_that_nobody_knows_do_not_count() -> None:
    parse_request(body({**HEADER, "kid": KID, "typ": "x"}, surprise=1), CLASSICAL_ALGORITHMS)


BY_KID: dict[str, object] = {**HEADER, "kid": KID}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"{", id="broken JSON"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"{}", id="no members"),
        pytest.param(b'{"protected":"e30","payload":""}', id="no signature"),
        pytest.param(body(BY_KID, protected=None), id="protected is null"),
        pytest.param(body(BY_KID, signature=["AQ"]), id="a list of signatures"),
        pytest.param(body(BY_KID, signatures=[]), id="the general form"),
        pytest.param(body(BY_KID, header={}), id="an unprotected header"),
        pytest.param(body(BY_KID, protected=""), id="an empty header"),
        pytest.param(body(BY_KID, protected=protected(b"[]")), id="a header that is no object"),
        pytest.param(body(BY_KID, protected=protected(b'{"alg":"ES256","alg":"none"}')), id="a name twice"),
        pytest.param(body(BY_KID, signature="AQ=="), id="padding"),
        pytest.param(body(BY_KID, signature="A+/B"), id="the other alphabet"),
        pytest.param(json.dumps({"protected": "e30", "payload": "ä", "signature": ""}).encode(), id="no ASCII"),
        pytest.param(json.dumps({"protected": "\ud800", "payload": "", "signature": ""}).encode(), id="a lone surrogate"),
        pytest.param(body({**BY_KID, "crit": ["b64"], "b64": False}), id="unencoded payload"),
        pytest.param(body({**BY_KID, "b64": True}), id="b64 at all"),
        pytest.param(body({**BY_KID, "crit": []}), id="crit"),
        pytest.param(body({**HEADER}), id="neither jwk nor kid"),
        pytest.param(body({**BY_KID, "jwk": SIGNER.jwk}), id="both jwk and kid"),
        pytest.param(body({**HEADER, "kid": 7}), id="a kid that is no text"),
        pytest.param(body({**HEADER, "kid": ""}), id="an empty kid"),
        pytest.param(body({**HEADER, "kid": "x" * 600}), id="a long kid"),
        pytest.param(body({**HEADER, "jwk": "text"}), id="a jwk that is no object"),
        pytest.param(body({"nonce": "bm9uY2U", "kid": KID}), id="no url"),
        pytest.param(body({**BY_KID, "url": 7}), id="a url that is no text"),
        pytest.param(body({**BY_KID, "url": "https://" + "x" * 3000}), id="a long url"),
        pytest.param(body({**BY_KID, "nonce": "a b"}), id="a nonce that is not base64url"),
        pytest.param(body({**BY_KID, "nonce": "YQ=="}), id="a nonce with padding"),
        pytest.param(body({**BY_KID, "nonce": 7}), id="a nonce that is no text"),
        pytest.param(body({**BY_KID, "nonce": "x" * 600}), id="a long nonce"),
        pytest.param(body({**BY_KID, "alg": 7}), id="an alg that is no text"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, id="deep"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="a number of 5000 digits"),
        pytest.param(b'{"a":NaN}', id="NaN"),
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_request(data, CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.MALFORMED


def test_a_request_that_is_too_large() -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_request(b" " * (MAX_BODY + 1), CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("nonce", [pytest.param({}, id="absent"), pytest.param({"nonce": ""}, id="empty")])
def test_a_request_without_a_nonce_gets_one(nonce: dict[str, object]) -> None:
    with pytest.raises(Rejection) as caught:
        parse_request(body({"url": URL, "kid": KID, **nonce}), CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.BAD_NONCE


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS1", "ES256K", "ML-DSA-44", ""])
def test_algorithms_that_are_not_taken(algorithm: str) -> None:
    with pytest.raises(UnsupportedAlgorithm) as caught:
        parse_request(body({**BY_KID, "alg": algorithm}), CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.UNSUPPORTED_ALGORITHM
    assert caught.value.algorithms == CLASSICAL_ALGORITHMS


def test_an_algorithm_of_another_kind_of_key() -> None:
    request = parse_request(body({**BY_KID, "alg": "RS256"}), CLASSICAL_ALGORITHMS)
    with pytest.raises(UnsupportedAlgorithm):
        check_signature(request, SIGNER.public, CLASSICAL_ALGORITHMS)


def test_a_public_key_is_no_secret_of_hmac() -> None:
    header = {"nonce": "bm9uY2U", "url": URL, "kid": KID}
    forged = json.dumps(flatten_mac(SIGNER.public.spki, "HS256", header, b"{}")).encode()
    with pytest.raises(UnsupportedAlgorithm):
        parse_request(forged, CLASSICAL_ALGORITHMS)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda jws: jws | {"payload": base64url.encode(b'{"a":2}')}, id="another payload"),
        pytest.param(lambda jws: jws | {"signature": base64url.encode(bytes(64))}, id="zeros"),
        pytest.param(lambda jws: jws | {"signature": ""}, id="none"),
        pytest.param(
            lambda jws: jws | {"protected": SIGNER.flatten({**BY_KID, "nonce": "eA"}, b"")["protected"]}, id="another nonce"
        ),
    ],
)
def test_signatures_that_do_not_verify(change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    data = json.dumps(change(SIGNER.flatten(BY_KID, b'{"a":1}'))).encode()
    with pytest.raises(Rejection) as caught:
        check_signature(parse_request(data, CLASSICAL_ALGORITHMS), SIGNER.public, CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(URL + "/", id="a slash"),
        pytest.param(URL.replace("https", "http"), id="another scheme"),
        pytest.param(URL.replace("pki.", "PKI."), id="case"),
        pytest.param(URL.replace("corp", "other"), id="another profile"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_request_counts_only_where_it_was_sent_to(url: str) -> None:
    request = parse_request(body(BY_KID), CLASSICAL_ALGORITHMS)
    with pytest.raises(Rejection) as caught:
        check_url(request, url)
    assert caught.value.reason is Reason.NOT_AUTHORIZED


# External account bindings

SECRET = b"s" * 32
NEW_ACCOUNT = "https://pki.example/acme/corp/new-account"


def binding(
    head: dict[str, object] | None = None, payload: object = None, algorithm: str = "HS256", **changes: object
) -> dict[str, Any]:
    jwk = SIGNER.jwk if payload is None else payload
    made = flatten_mac(SECRET, algorithm, {"kid": "key-1", "url": NEW_ACCOUNT, **(head or {})}, json.dumps(jwk).encode())
    return {**made, **changes}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_binding_is_taken_apart(algorithm: str) -> None:
    raw = binding(algorithm=algorithm)
    found = parse_binding(raw, NEW_ACCOUNT, SIGNER.public)
    assert (found.kid, found.algorithm) == ("key-1", algorithm)
    assert verify_mac(found.algorithm, SECRET, found.signing_input, found.mac)
    assert not verify_mac(found.algorithm, b"t" * 32, found.signing_input, found.mac)
    assert json.loads(found.text) == raw


def test_bindings_compare_keys_by_name() -> None:
    parse_binding(binding(payload={**SIGNER.jwk, "kid": "x", "use": "sig", "alg": "ES256"}), NEW_ACCOUNT, SIGNER.public)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({}, id="empty"),
        pytest.param(binding(payload=OTHER.jwk), id="another key"),
        pytest.param(binding(payload=[]), id="a payload that is no key"),
        pytest.param(binding({"nonce": "bm9uY2U"}), id="a nonce"),
        pytest.param(binding({"url": URL}), id="another url"),
        pytest.param(binding({"kid": ""}), id="an empty kid"),
        pytest.param(binding({"kid": 7}), id="a kid that is no text"),
        pytest.param(binding({"kid": None}), id="no kid"),
        pytest.param(binding({"jwk": SIGNER.jwk}), id="a jwk"),
        pytest.param(binding({"crit": ["exp"]}), id="crit"),
        pytest.param(binding(signature="AQ="), id="padding"),
        pytest.param(binding(signatures=[]), id="the general form"),
    ],
)
def test_malformed_bindings(raw: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        parse_binding(raw, NEW_ACCOUNT, SIGNER.public)


@pytest.mark.parametrize("algorithm", ["ES256", "none", "RS256"])
def test_bindings_are_macs(algorithm: str) -> None:
    with pytest.raises(UnsupportedAlgorithm) as caught:
        parse_binding(binding({"alg": algorithm}), NEW_ACCOUNT, SIGNER.public)
    assert caught.value.algorithms == ("HS256", "HS384", "HS512")


# Key changes

KEY_CHANGE = "https://pki.example/acme/corp/key-change"


def change(header: dict[str, object] | None = None, payload: dict[str, object] | None = None, signer: Signer = OTHER) -> bytes:
    asked = {"account": KID, "oldKey": SIGNER.jwk} if payload is None else payload
    head = {"jwk": OTHER.jwk, "url": KEY_CHANGE, **(header or {})}
    return json.dumps(signer.flatten({k: v for k, v in head.items() if v is not None}, json.dumps(asked).encode())).encode()


def test_a_change_of_keys() -> None:
    found = parse_key_change(change(), KEY_CHANGE, CLASSICAL_ALGORITHMS)
    assert (found.account_url, found.old_thumbprint) == (KID, SIGNER.public.thumbprint)
    assert (found.jwk, found.thumbprint) == (OTHER.public.text, OTHER.public.thumbprint)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"{}", Reason.MALFORMED, id="empty"),
        pytest.param(change({"nonce": "bm9uY2U"}), Reason.MALFORMED, id="a nonce"),
        pytest.param(change({"url": URL}), Reason.MALFORMED, id="another url"),
        pytest.param(change({"url": None}), Reason.MALFORMED, id="no url"),
        pytest.param(change({"kid": KID}), Reason.MALFORMED, id="a kid"),
        pytest.param(change({"jwk": None}), Reason.MALFORMED, id="no jwk"),
        pytest.param(change(payload={"account": KID}), Reason.MALFORMED, id="no old key"),
        pytest.param(change(payload={"oldKey": SIGNER.jwk}), Reason.MALFORMED, id="no account"),
        pytest.param(change(payload={"account": 7, "oldKey": SIGNER.jwk}), Reason.MALFORMED, id="an account that is no text"),
        pytest.param(
            change(payload={"account": KID, "oldKey": {"kty": "oct"}}), Reason.ACCOUNT_KEY, id="an old key that is none"
        ),
        pytest.param(change({"jwk": {"kty": "oct"}}), Reason.ACCOUNT_KEY, id="a new key that is none"),
        pytest.param(change({"jwk": SIGNER.jwk}, signer=SIGNER), None, id="the same key is for others to refuse"),
        pytest.param(
            change({"jwk": OTHER.jwk}, signer=Signer.of(ed25519.Ed25519PrivateKey.generate())),
            Reason.BAD_SIGNATURE,
            id="a stranger",
        ),
        pytest.param(change({"alg": "HS256"}), Reason.UNSUPPORTED_ALGORITHM, id="a MAC"),
        pytest.param(change({"alg": "ES256"}), Reason.UNSUPPORTED_ALGORITHM, id="an algorithm of another kind of key"),
    ],
)
def test_changes_of_keys_that_are_refused(data: bytes, reason: Reason | None) -> None:
    if reason is None:
        parse_key_change(data, KEY_CHANGE, CLASSICAL_ALGORITHMS)
        return
    with pytest.raises(Rejection) as caught:
        parse_key_change(data, KEY_CHANGE, CLASSICAL_ALGORITHMS)
    assert caught.value.reason is reason


def test_a_weak_new_key() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    number = weak.public_key().public_numbers().n
    jwk = {"kty": "RSA", "n": base64url.encode(number.to_bytes(128)), "e": "AQAB"}
    with pytest.raises(Rejection) as caught:
        parse_key_change(change({"jwk": jwk, "alg": "RS256"}), KEY_CHANGE, CLASSICAL_ALGORITHMS)
    assert caught.value.reason is Reason.ACCOUNT_KEY


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"\\udfff":1}', id="a lone surrogate as a name"),
        pytest.param(b'{"a":[[[[[[[[1]]]]]]]]}', id="deep"),
        pytest.param(b'{"a":1,"a":2}', id="a name twice"),
        pytest.param(b'{"b":{"a":1,"a":2}}', id="a name twice inside"),
        pytest.param(b'"text"', id="no object"),
        pytest.param(b"{} x", id="more behind it"),
    ],
)
def test_json_that_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_object(data)


def test_escapes_are_read() -> None:
    assert parse_object(b'{"a":"\\u00e4\\ud83d\\ude00"}') == {"a": "ä😀"}
