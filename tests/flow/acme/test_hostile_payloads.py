"""No payload that an account may sign ends inside: each is answered by a problem, and never by 500."""

import copy
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.pki.keys import generate_private_key
from tests.flow.acme.client import Client
from tests.flow.acme.signing import Key, bind, sign
from tests.flow.acme.site import Issued, Site, csr_for
from tests.flow.acme.test_issuance import ari_name

WORDS: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    "",
    " ",
    "\x00",
    "é",
    "\ud7ff\U0001f600",
    "a" * 5000,
    "*",
    "*.",
    ".",
    "..",
    "xn--",
    "xn--a",
    "-",
    "1.2.3.4",
    "::ffff:1.2.3.4",
    "fe80::1%eth0",
    "0x7f.1",
    "dns",
    "ip",
    "permanent-identifier",
    "hardware-module",
    "a/1.2.3",
    "9999-12-31T23:59:60Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "AA.AA",
    "AAAA",
    "MAA",
    "deactivated",
    "mailto:a@b.c",
    "https://localhost/",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"a": {"b": {"c": 1}}},
    ["a"] * 2000,
)


def variants(template: object, chance: random.Random, count: int) -> Iterator[object]:
    """Yield copies of a payload with one or two parts replaced, taken away or repeated."""
    for _ in range(count):
        payload = copy.deepcopy(template)
        for _ in range(chance.randint(1, 2)):
            payload = _change(payload, chance)
        yield payload


def _change(payload: object, chance: random.Random) -> object:
    places = list(_places(payload))
    if not places or chance.random() < 0.05:
        return copy.deepcopy(chance.choice(WORDS))
    holder, key = chance.choice(places)
    match chance.random():
        case roll if roll < 0.1:
            del holder[key]
        case roll if roll < 0.2 and isinstance(holder, list):
            holder.extend(holder * 3)
        case _:
            holder[key] = copy.deepcopy(chance.choice(WORDS))
    return payload


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    parts: Iterator[tuple[Any, Any]]
    match value:
        case dict():
            parts = iter(list(value.items()))
        case list():
            parts = iter(list(enumerate(value)))
        case _:
            return
    for key, part in parts:
        yield value, key
        yield from _places(part)


def templates(client: Client, issued: Issued, order: Any, authorization: str, challenge: str) -> dict[str, object]:
    new, soon = Key(), (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert client.kid is not None
    return {
        "new-account": {
            "contact": ["mailto:a@example.com"],
            "termsOfServiceAgreed": True,
            "onlyReturnExisting": False,
            "externalAccountBinding": bind(client.key, "kid", b"k" * 32, client.url("new-account")),
        },
        client.kid: {"contact": ["mailto:a@example.com"], "termsOfServiceAgreed": True, "status": "valid"},
        "new-order": {
            "identifiers": [
                {"type": "dns", "value": "www.corp.test", "ancestorDomain": "corp.test"},
                {"type": "ip", "value": "::1"},
            ],
            "notBefore": soon,
            "notAfter": soon,
            "replaces": ari_name(issued),
            "profile": "corp",
        },
        "new-authz": {"identifier": {"type": "dns", "value": "www.corp.test", "subdomainAuthAllowed": True}},
        authorization: {"status": "deactivated?"},
        challenge: {"attObj": "oWNmbXRjdHBt", "keyAuthorization": "x"},
        order.json["finalize"]: {"csr": csr_for(order, generate_private_key("ec-p256"))},
        "revoke-cert": {"certificate": issued.certificate, "reason": 99},
        "key-change": sign(
            new,
            {"url": client.url("key-change"), "jwk": new.jwk},
            {"account": client.kid, "oldKey": {**client.key.jwk, "x": "AA"}},
        ),
    }


@pytest.mark.parametrize("number", range(9))
async def test_payloads_never_end_inside(site: Site, number: int) -> None:
    client = await site.registered("corp")
    issued = await site.issue(client, "www.corp.test")
    order = await client.order("next.corp.test")
    pending = await client.order("pending.demo.test")
    [authorization] = pending.json["authorizations"]
    challenge = (await client.post(authorization)).json["challenges"][0]["url"]
    path, template = list(templates(client, issued, order, authorization, challenge).items())[number]
    with capture_logs() as lines:
        for payload in variants(template, random.Random(number), 60):
            answer = await client.post(path, payload, jwk=path == "new-account")
            assert answer.status < 500, payload
            assert answer.nonce
            if answer.status >= 400:
                assert answer.problem
    assert not [line for line in lines if line["log_level"] in {"error", "critical"}]


@pytest.mark.parametrize("member", ["alg", "nonce", "url", "kid", "jwk"])
async def test_headers_never_end_inside(site: Site, member: str) -> None:
    client = await site.registered()
    for word in WORDS:
        header = {"nonce": await client.new_nonce(), "url": client.kid, "kid": client.kid}
        if member == "jwk":
            header.pop("kid")
        answer = await client.post_jws(client.kid or "", sign(client.key, {**header, member: word}, b""))
        assert answer.status in {400, 403}, word
        assert answer.problem
    for name in client.key.jwk:
        for word in WORDS:
            jwk = {"nonce": await client.new_nonce(), "url": client.url("new-account"), "jwk": {**client.key.jwk, name: word}}
            answer = await client.post_jws("new-account", sign(client.key, jwk, {}))
            assert answer.status == 400, word
        if member != "jwk":
            break
