"""JWS compact serialization: what is taken apart, what is refused before any cryptography, and who verifies."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.jws import MAX_JWS, VerificationKey, parse_compact_jws, parse_json_object
from gateway.pki.keys import PrivateKey, public_key_der
from tests.golden_challenges import base64url, claims, sign_challenge

KeyOf = Callable[[str], PrivateKey]
HEADER = base64url(b'{"alg":"RS256"}')


def verifier(key: PrivateKey) -> VerificationKey:
    return VerificationKey.load(public_key_der(key))


def token(header: bytes, payload: bytes = b"{}", signature: bytes = b"s") -> str:
    return ".".join(map(base64url, (header, payload, signature)))


@pytest.mark.parametrize(
    ("spec", "der"),
    [
        pytest.param("rsa-2048", False, id="rs256"),
        pytest.param("rsa-3072", False, id="rs256-3072"),
        pytest.param("ec-p256", False, id="es256-raw"),
        pytest.param("ec-p256", True, id="es256-der"),
    ],
)
def test_signatures_that_verify(spec: str, der: bool, key_of: KeyOf) -> None:
    jws = parse_compact_jws(sign_challenge(key_of(spec), claims(), der=der))
    assert verifier(key_of(spec)).verifies(jws)
    assert parse_json_object(jws.payload) == claims()


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
def test_a_changed_part_does_not_verify(spec: str, part: int, key_of: KeyOf) -> None:
    key = key_of(spec)
    jws = parse_compact_jws(sign_challenge(key, claims()))
    parts = sign_challenge(key, claims(nonce="another"), {"alg": jws.algorithm}).split(".")
    mixed = sign_challenge(key, claims()).split(".")
    mixed[part] = parts[part]
    assert not verifier(key).verifies(parse_compact_jws(".".join(mixed)))


def test_another_key_of_the_kind_does_not_verify(key_of: KeyOf) -> None:
    from gateway.pki.keys import generate_private_key

    for spec in ("rsa-2048", "ec-p256"):
        assert not verifier(generate_private_key(spec)).verifies(parse_compact_jws(sign_challenge(key_of(spec), claims())))


def test_a_key_serves_its_own_algorithm_only(key_of: KeyOf) -> None:
    rsa, ec = key_of("rsa-2048"), key_of("ec-p256")
    for key, alg, other in ((rsa, "ES256", ec), (ec, "RS256", rsa)):
        lying = parse_compact_jws(sign_challenge(key, claims(), {"alg": alg}))
        assert not verifier(key).verifies(lying)
        assert not verifier(other).verifies(lying)


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(b"\x00", id="one-byte"),
        pytest.param(b"\x00" * 64, id="zeros"),
        pytest.param(b"\xff" * 64, id="beyond-the-order"),
        pytest.param(b"\x30\x06\x02\x01\x00\x02\x01\x00", id="der-zeros"),
        pytest.param(b"\x30\x80\x00\x00", id="indefinite-length"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="absurd-length"),
        pytest.param(b"\x01" * 63, id="one-byte-short"),
        pytest.param(b"\x01" * 65, id="one-byte-long"),
        pytest.param(b"\x01" * 256, id="rsa-sized"),
        pytest.param(b"\x01" * 4096, id="huge"),
    ],
)
@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
def test_garbage_for_a_signature_does_not_verify(spec: str, signature: bytes, key_of: KeyOf) -> None:
    algorithm = {"rsa-2048": b"RS256", "ec-p256": b"ES256"}[spec]
    jws = parse_compact_jws(token(b'{"alg":"' + algorithm + b'"}', b"{}", signature))
    assert not verifier(key_of(spec)).verifies(jws)


def test_the_signing_input_is_what_came_over_the_wire(key_of: KeyOf) -> None:
    """Padding is accepted, and is part of what was signed."""
    key = key_of("rsa-2048")
    made = sign_challenge(key, claims(nonce="n"))
    head, payload, signature = made.split(".")
    padded = f"{head}.{payload + '=' * (-len(payload) % 4)}.{signature}"
    assert padded != made
    assert not verifier(key).verifies(parse_compact_jws(padded))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("..", id="three-empty-segments"),
        pytest.param(f"{HEADER}.e30", id="two-segments"),
        pytest.param(f"{HEADER}.e30.cw.cw", id="four-segments"),
        pytest.param(f"{HEADER}.e30.", id="no-signature"),
        pytest.param(f"{HEADER}..cw", id="no-payload"),
        pytest.param(f".{HEADER}.cw", id="no-header"),
        pytest.param(f"{HEADER}.e30.c+w", id="base64-and-not-base64url"),
        pytest.param(f"{HEADER}.e30.c w", id="space"),
        pytest.param(f"{HEADER}.e30.cw\n", id="newline"),
        pytest.param(f"{HEADER}.e30.cw=", id="half-padded"),
        pytest.param(f"{HEADER}.e30.cw===", id="over-padded"),
        pytest.param(f"{HEADER}.e30.c=w=", id="padding-inside"),
        pytest.param(f"{HEADER}.e30.c", id="one-character-too-few"),
        pytest.param(f"{HEADER}.e30.cẃ", id="not-ascii"),
        pytest.param(f"{HEADER}.e30.\ud800w", id="lone-surrogate"),
        pytest.param(f"{HEADER}.e30.{'c' * MAX_JWS}", id="huge"),
        pytest.param(token(b" " * 2048 + b'{"alg":"RS256"}'), id="huge-header"),
        pytest.param(token(b"RS256"), id="header-is-no-json"),
        pytest.param(token(b'["RS256"]'), id="header-is-no-object"),
        pytest.param(token(b'{"alg":"none","alg":"RS256"}'), id="alg-twice"),
        pytest.param(token(b'{"alg":"RS256","crit":["b64"],"b64":false}'), id="crit"),
        pytest.param(token(b'{"alg":"RS256","crit":[]}'), id="crit-that-is-empty"),
        pytest.param(token(b"\xef\xbb\xbf" + b'{"alg":"RS256"}'), id="byte-order-mark"),
    ],
)
def test_tokens_that_are_malformed(text: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_compact_jws(text)


@pytest.mark.parametrize(
    "algorithm",
    ["none", "None", "", "HS256", "HS512", "PS256", "RS384", "RS512", "ES384", "ES256K", "EdDSA", "rs256", "RS256 ", "dir"],
)
def test_other_algorithms_are_refused(algorithm: str) -> None:
    with pytest.raises(Rejection) as refused:
        parse_compact_jws(token(json.dumps({"alg": algorithm}).encode()))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize("header", ["{}", '{"alg":null}', '{"alg":["RS256"]}', '{"alg":{"RS256":1}}', '{"alg":true}'])
def test_an_algorithm_that_is_no_text_is_refused(header: str) -> None:
    with pytest.raises(Rejection) as refused:
        parse_compact_jws(token(header.encode()))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


def test_keys_in_the_header_are_ignored(key_of: KeyOf) -> None:
    """A token that brings its own key is still checked with ours (RFC 8725 §3.10)."""
    from gateway.pki.keys import generate_private_key

    stranger = generate_private_key("ec-p256")
    jws = parse_compact_jws(
        sign_challenge(
            stranger, claims(), {"alg": "ES256", "kid": "ours", "jku": "https://evil.example/", "x5c": ["AA=="], "jwk": {}}
        )
    )
    assert not verifier(key_of("ec-p256")).verifies(jws)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b"{} {}", id="two-objects"),
        pytest.param(b"{'a':1}", id="single-quotes"),
        pytest.param(b'{"a":1,}', id="trailing-comma"),
        pytest.param(b'{"a":NaN}', id="nan"),
        pytest.param(b'{"a":-Infinity}', id="infinity"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="huge-integer"),
        pytest.param(b'{"a":"\xff"}', id="no-utf-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate-in-utf-8"),
        pytest.param('{"a":1}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"a":"\x00"}', id="control-character"),
        pytest.param(b'{"a":1,"a":1}', id="name-twice"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="name-twice-escaped"),
        pytest.param(b'{"a":{"b":1,"b":2}}', id="name-twice-inside"),
        pytest.param(b'{"a":' * 9 + b"1" + b"}" * 9, id="nine-levels"),
        pytest.param(b'{"a":' + b"[" * 5000, id="deep-and-unfinished"),
        pytest.param(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}", id="deep"),
        pytest.param(b'{"' + b'\\"[' * 2000, id="string-without-an-end"),
        pytest.param(b'{"a":"[[[[[[[[[[[[\\', id="string-that-ends-in-a-backslash"),
    ],
)
def test_json_that_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_json_object(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b"{}", {}, id="empty"),
        pytest.param(b' {"a" : [1, 2.5, true, null]}\n', {"a": [1, 2.5, True, None]}, id="spaces"),
        pytest.param(b'{"a":' * 8 + b"1" + b"}" * 8, None, id="eight-levels"),
        pytest.param(b'{"a":"[[[[[[[[[[{{{{{{{{{{"}', {"a": "[[[[[[[[[[{{{{{{{{{{"}, id="brackets-in-text"),
        pytest.param(b'{"a":"\\"[[[[[[[[[[["}', {"a": '"[[[[[[[[[[['}, id="brackets-behind-an-escaped-quote"),
        pytest.param(b'{"a":[[],[],[],[],[],[],[],[],[],[]]}', {"a": [[]] * 10}, id="wide-and-not-deep"),
        pytest.param(b'{"a":1e400}', {"a": float("inf")}, id="number-beyond-floats"),
    ],
)
def test_json_that_is_read(data: bytes, value: object) -> None:
    found = parse_json_object(data)
    assert value is None or found == value


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param("ec-p384", "ec P-384", id="p-384"),
        pytest.param("ec-p521", "ec P-521", id="p-521"),
        pytest.param("ed25519", "ed25519", id="ed25519"),
        pytest.param("ml-dsa-44", "ml-dsa-44", id="ml-dsa"),
    ],
)
def test_keys_that_cannot_check_tokens(spec: str, words: str, key_of: KeyOf) -> None:
    with pytest.raises(ValueError, match=words):
        verifier(key_of(spec))


def test_short_rsa_keys_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    with pytest.raises(ValueError, match="1024 bits is too short"):
        verifier(rsa.generate_private_key(65537, 1024))
    with pytest.raises(ValueError, match="cannot be used"):
        VerificationKey.load(b"\x30\x00")


@given(st.text(alphabet='eyJ.=-_Aw{}[]"\\0\ud800', max_size=200) | st.text(max_size=200))
@example("." * 8192)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Rejection):
        parse_compact_jws(text)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0d8N-1e.', max_size=200).map(str.encode))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    with suppress(MalformedMessage):
        assert isinstance(parse_json_object(data), dict)


def test_nothing_secret_or_long_in_what_is_told(key_of: KeyOf) -> None:
    made = sign_challenge(key_of("ec-p256"), claims())
    assert base64.urlsafe_b64decode(made.split(".")[1] + "==").decode() not in repr(parse_compact_jws(made))
    with pytest.raises(MalformedMessage) as refused:
        parse_json_object(b'{"nonce":"' + b"secret" * 100)
    assert "secret" not in str(refused.value)
