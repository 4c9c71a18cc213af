"""Whose requests are heard: JWS, nonce, key, signature and URL, each wrong in its turn (RFC 8555 §6.2-6.5)."""

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from gateway.acme import AccountStatus
from gateway.errors import StoreUnavailable
from gateway.model import ProfileName
from gateway.pki.keys import generate_private_key
from tests.flow.acme.client import Client
from tests.flow.acme.front import ALIAS, BASE, PROFILE, Front
from tests.flow.acme.signing import Key, b64, sign


def header(client: Client, nonce: str, **changes: Any) -> dict[str, Any]:
    return {"nonce": nonce, "url": f"{BASE}/order/o1", "kid": client.kid, **changes}


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "ed25519"])
async def test_keys_of_all_kinds_are_heard(front: Front, kind: str) -> None:
    client = front.client()
    client.key = Key(generate_private_key(kind))
    assert (await client.register()).status == 201
    assert (await client.post("order/o1")).status == 200


@pytest.mark.parametrize(
    ("changes", "problem", "status"),
    [
        pytest.param({"alg": "none"}, "badSignatureAlgorithm", 400, id="alg-none"),
        pytest.param({"alg": "HS256"}, "badSignatureAlgorithm", 400, id="alg-hmac"),
        pytest.param({"alg": "RS256"}, "badSignatureAlgorithm", 400, id="alg-not-of-the-key"),
        pytest.param({"alg": "ES384"}, "badSignatureAlgorithm", 400, id="alg-of-another-curve"),
        pytest.param({"alg": None}, "malformed", 400, id="no-alg"),
        pytest.param({"alg": 5}, "malformed", 400, id="alg-no-text"),
        pytest.param({"nonce": None}, "badNonce", 400, id="no-nonce"),
        pytest.param({"nonce": "AAAA"}, "badNonce", 400, id="unknown-nonce"),
        pytest.param({"nonce": "not+base64url"}, "malformed", 400, id="nonce-not-base64url"),
        pytest.param({"nonce": "AAAA=="}, "malformed", 400, id="nonce-padded"),
        pytest.param({"nonce": 1}, "malformed", 400, id="nonce-no-text"),
        pytest.param({"url": None}, "malformed", 400, id="no-url"),
        pytest.param({"url": f"{BASE}/order/o2"}, "unauthorized", 403, id="url-of-another-order"),
        pytest.param({"url": f"{BASE}/order/o1/"}, "unauthorized", 403, id="url-with-a-slash"),
        pytest.param({"url": f"{BASE}/order/o1?x"}, "unauthorized", 403, id="url-with-a-query"),
        pytest.param({"url": "http://localhost/acme/corp/order/o1"}, "unauthorized", 403, id="url-http"),
        pytest.param({"url": "https://LOCALHOST/acme/corp/order/o1"}, "unauthorized", 403, id="url-other-case"),
        pytest.param({"url": "https://localhost:443/acme/corp/order/o1"}, "unauthorized", 403, id="url-with-port"),
        pytest.param({"url": "https://evil.example/acme/corp/order/o1"}, "unauthorized", 403, id="url-of-another-host"),
        pytest.param({"url": "https://localhost/acme/other/order/o1"}, "unauthorized", 403, id="url-of-another-profile"),
        pytest.param({"kid": None}, "malformed", 400, id="neither-kid-nor-jwk"),
        pytest.param({"jwk": Key().jwk}, "malformed", 400, id="both-kid-and-jwk"),
        pytest.param({"kid": None, "jwk": Key().jwk}, "malformed", 400, id="jwk-where-kid"),
        pytest.param({"kid": "a1"}, "accountDoesNotExist", 400, id="kid-no-url"),
        pytest.param({"kid": f"{BASE}/acct/a9"}, "accountDoesNotExist", 400, id="kid-unknown"),
        pytest.param({"kid": f"{BASE}/acct/"}, "accountDoesNotExist", 400, id="kid-empty"),
        pytest.param({"kid": f"{BASE}/acct/a1/orders"}, "accountDoesNotExist", 400, id="kid-of-something-else"),
        pytest.param({"kid": "https://evil.example/acme/corp/acct/a1"}, "accountDoesNotExist", 400, id="kid-elsewhere"),
        pytest.param({"kid": "https://localhost/acme/other/acct/a1"}, "accountDoesNotExist", 400, id="kid-other-profile"),
        pytest.param({"crit": ["exp"]}, "malformed", 400, id="crit"),
        pytest.param({"b64": False}, "malformed", 400, id="b64-false"),
    ],
)
async def test_wrong_header_is_refused(front: Front, client: Client, changes: dict[str, Any], problem: str, status: int) -> None:
    members = {**header(client, front.authority.new_nonce()), **changes}
    answer = await client.post_jws("order/o1", sign(client.key, members, b""))
    assert (answer.problem, answer.status) == (problem, status)
    assert answer.nonce
    assert not front.asked("find_order")


async def test_unsupported_algorithm_names_those_that_are(front: Front, client: Client) -> None:
    answer = await client.post("order/o1", alg="none")
    assert answer.json["algorithms"] == list(front.generation.acme[PROFILE].algorithms)


def broken(jws: dict[str, Any], how: str) -> object:
    match how:
        case "array":
            return [jws]
        case "text":
            return b'"x"'
        case "no-json":
            return b"{"
        case "empty":
            return b""
        case "not-utf-8":
            return b'{"protected": "\xff"}'
        case "member-twice":
            return json.dumps(jws).replace('{"protected"', '{"payload": "", "protected"').encode()
        case "deep":
            return b'{"a":' * 50 + b"1" + b"}" * 50
        case "general":
            return {"payload": jws["payload"], "signatures": [{"protected": jws["protected"], "signature": jws["signature"]}]}
        case "unprotected-header":
            return {**jws, "header": {"kid": "x"}}
        case "compact":
            return f"{jws['protected']}.{jws['payload']}.{jws['signature']}".encode()
        case "detached":
            return {name: value for name, value in jws.items() if name != "payload"}
        case "padded-payload":
            return {**jws, "payload": "e30="}
        case "padded-signature":
            return {**jws, "signature": jws["signature"] + "=="}
        case "standard-alphabet":
            return {**jws, "signature": jws["signature"][:-2] + "+/"}
        case "payload-not-ascii":
            return {**jws, "payload": "é"}
        case "lone-surrogate":
            return {**jws, "payload": "\ud800"}
        case "signature-number":
            return {**jws, "signature": 5}
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "array",
        "text",
        "no-json",
        "empty",
        "not-utf-8",
        "member-twice",
        "deep",
        "general",
        "unprotected-header",
        "compact",
        "detached",
        "padded-payload",
        "padded-signature",
        "standard-alphabet",
        "payload-not-ascii",
        "lone-surrogate",
        "signature-number",
    ],
)
async def test_what_is_no_flattened_jws_is_malformed_and_keeps_its_nonce(front: Front, client: Client, how: str) -> None:
    nonce = front.authority.new_nonce()
    jws = sign(client.key, header(client, nonce), b"")
    answer = await client.post_jws("order/o1", broken(jws, how))
    assert (answer.status, answer.problem) == (400, "malformed")
    assert nonce in front.authority.nonces


async def test_nonce_is_used_up_even_where_the_signature_fails(front: Front, client: Client) -> None:
    nonce = front.authority.new_nonce()
    jws = sign(client.key, header(client, nonce), b"")
    other = sign(Key(), header(client, nonce), b"")
    assert (await client.post_jws("order/o1", {**jws, "signature": other["signature"]})).problem == "malformed"
    assert nonce not in front.authority.nonces
    assert (await client.post_jws("order/o1", jws)).problem == "badNonce"


async def test_same_request_again_is_bad_nonce(front: Front, client: Client) -> None:
    jws = sign(client.key, header(client, front.authority.new_nonce()), b"")
    assert (await client.post_jws("order/o1", jws)).status == 200
    assert (await client.post_jws("order/o1", jws)).problem == "badNonce"


async def test_nonce_serves_one_of_two_requests_at_once(front: Front, client: Client) -> None:
    nonce = front.authority.new_nonce()
    answers = await asyncio.gather(*(client.post("order/o1", nonce=nonce) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 5


@pytest.mark.parametrize("part", ["protected", "payload"])
async def test_signature_covers_header_and_payload(front: Front, client: Client, part: str) -> None:
    jws = sign(client.key, header(client, front.authority.new_nonce()), b"")
    other = header(client, front.authority.new_nonce(), extra=1)
    jws[part] = b64(json.dumps({"alg": "ES256", **other}).encode()) if part == "protected" else b64(b"{}")
    answer = await client.post_jws("order/o1", jws)
    assert (answer.status, answer.problem) == (400, "malformed")
    assert not front.asked("find_order")


async def test_another_accounts_key_does_not_sign_for_this_one(front: Front, client: Client) -> None:
    other = await front.registered()
    answer = await client.post("order/o1", key=other.key)
    assert (answer.status, answer.problem) == (400, "malformed")
    assert not front.asked("find_order")


@pytest.mark.parametrize("status", [AccountStatus.DEACTIVATED, AccountStatus.REVOKED])
async def test_account_that_has_ended_is_401(front: Front, client: Client, status: AccountStatus) -> None:
    front.authority.accounts["a1"] = replace(front.authority.accounts["a1"], status=status)
    for path in ("order/o1", "acct/a1", "new-order", "revoke-cert", "directory"):
        answer = await client.post(path)
        assert (answer.status, answer.problem) == (401, "unauthorized"), path


async def test_that_an_account_has_ended_is_told_to_its_key_alone(front: Front, client: Client) -> None:
    front.end(client)
    assert (await client.post("order/o1", key=Key())).problem == "malformed"


async def test_account_of_another_directory_does_not_exist(front: Front, client: Client) -> None:
    front.authority.accounts["a1"] = replace(front.authority.accounts["a1"], profile=ProfileName("other"))
    assert (await client.post("order/o1")).problem == "accountDoesNotExist"


@pytest.mark.parametrize("path", ["order/o1", "cert/o1", "acct/a1/orders", "directory", "new-nonce"])
@pytest.mark.parametrize("payload", [b"{}", b" ", b"null", b'""'], ids=["object", "blank", "null", "text"])
async def test_only_an_empty_payload_reads(client: Client, path: str, payload: bytes) -> None:
    answer = await client.post(path, payload)
    assert (answer.status, answer.problem) == (400, "malformed")
    assert answer.nonce


@pytest.mark.parametrize("path", ["new-order", "new-authz", "key-change", "order/o1/finalize", "revoke-cert"])
@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"5", b"\xff", b'{"a":1,"a":2}'], ids=["empty", "array", "number", "utf-8", "twice"]
)
async def test_payload_must_be_an_object(client: Client, path: str, payload: bytes) -> None:
    answer = await client.post(path, payload)
    assert (answer.status, answer.problem) == (400, "malformed")


async def test_new_account_is_for_keys_and_not_for_accounts(client: Client) -> None:
    answer = await client.post("new-account", {}, kid=client.kid)
    assert (answer.status, answer.problem) == (400, "malformed")


@pytest.mark.parametrize(
    "path", ["new-order", "new-authz", "key-change", "acct/a1", "order/o1", "cert/o1", "authz/z1", "chall/z1/c1"]
)
async def test_jwk_is_refused_where_an_account_has_to_sign(client: Client, path: str) -> None:
    answer = await client.post(path, {}, jwk=True)
    assert (answer.status, answer.problem) == (400, "malformed")


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        pytest.param({"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB"}, "badPublicKey", id="rsa-1024"),
        pytest.param({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, "badPublicKey", id="curve"),
        pytest.param({"kty": "oct", "k": "AAAA"}, "badPublicKey", id="symmetric"),
        pytest.param({"kty": "EC", "crv": "P-256", "x": b64(bytes(32)), "y": b64(bytes(32))}, "badPublicKey", id="no-point"),
        pytest.param({**Key().jwk, "d": "AAAA"}, "badPublicKey", id="private"),
    ],
)
async def test_bad_keys_are_named(front: Front, jwk: dict[str, Any], problem: str) -> None:
    client = front.client()
    members = {"nonce": front.authority.new_nonce(), "url": f"{BASE}/new-account", "jwk": jwk}
    answer = await client.post_jws("new-account", sign(client.key, members, {}))
    assert (answer.status, answer.problem) == (400, problem)


async def test_signed_url_may_be_that_of_an_alias(front: Front, client: Client) -> None:
    answer = await client.post("order/o1", url=f"{ALIAS}/order/o1")
    assert answer.status == 200
    assert answer.location == f"{ALIAS}/order/o1"


async def test_query_is_part_of_the_signed_url(client: Client) -> None:
    assert (await client.post("acct/a1/orders?cursor=o9")).status == 200
    assert (await client.post("acct/a1/orders?cursor=o9", url=f"{BASE}/acct/a1/orders")).problem == "unauthorized"


async def test_host_header_does_not_count(client: Client) -> None:
    assert (await client.post("order/o1", headers={"Host": "evil.example"})).status == 200
    assert (
        await client.post("order/o1", url="https://evil.example/acme/corp/order/o1", headers={"Host": "evil.example"})
    ).problem == ("unauthorized")


async def test_store_that_is_down_is_no_refusal(front: Front, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(_nonce: str) -> bool:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(front.authority, "redeem_nonce", down)
    answer = await client.post("order/o1")
    assert (answer.status, answer.problem, answer.header("Retry-After")) == (503, "serverInternal", "10")
    assert answer.nonce


async def test_client_that_retries_bad_nonces_loses_no_request(front: Front, client: Client) -> None:
    """15 % of all nonces are corrupted on their way."""
    chance = random.Random(8555)
    corrupted = 0

    def corrupt(nonce: str) -> str:
        nonlocal corrupted
        if chance.random() >= 0.15:
            return nonce
        corrupted += 1
        return nonce[::-1]

    client.corrupts = corrupt
    for _ in range(120):
        answer = await client.order("www.example.com")
        while answer.status == 400:
            assert answer.problem == "badNonce"
            answer = await client.order("www.example.com")
        assert answer.status == 201
    assert corrupted > 10
    assert len(front.asked("new_order")) == 120
