"""An order that is ready, and everybody who has no right to it, at profiles of every mode of trust."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from gateway.audit import AuditEvent
from gateway.pki.keys import generate_private_key
from tests.flow.acme.client import READ, Answer, Client
from tests.flow.acme.signing import Key, b64, bind, sign
from tests.flow.acme.site import PREVALIDATED, Issued, Site, csr_for

_HOSTS = {"mine.demo.test": ["127.0.0.1"], "theirs.demo.test": ["10.0.0.9"]}

PROFILES: Mapping[str, Any] = MappingProxyType(
    {
        "bound": {"external_account": "required"},
        "corp": PREVALIDATED,
        "forward": {"validation": {"mode": "client_ip_forward", "resolver": {"hosts": _HOSTS}}},
        "trusting": {
            "external_account": "required",
            "validation": {"mode": "none", "acknowledge_no_validation": True},
            "policy": {"san": {"dns": {"patterns": [r"mine\.demo\.test"]}, "ip": None, "email": None, "uri": None, "upn": None}},
        },
    }
)
"""Beside `demo`, whose accounts prove their names and may bind an external account."""

MINE: Mapping[str, str] = MappingProxyType({"corp": "mine.corp.test"})
"""A name that the right account gets; else `mine.demo.test`."""

OPERATIONS = (
    "new-account",
    "new-order",
    "new-authz",
    "key-change",
    "revoke-cert",
    "account",
    "orders",
    "order",
    "finalize",
    "authorization",
    "challenge",
    "certificate",
)
WHO = (
    "nobody",
    "no signature",
    "wrong key",
    "other account",
    "other profile",
    "same key at another profile",
    "deactivated",
    "no account",
    "own key as jwk",
    "strange key as jwk",
    "the certificate's key",
    "the key before",
    "external account revoked",
)


@dataclass(frozen=True)
class Target:
    """Who is right, what was issued to it, and an order of it that waits for its CSR."""

    profile: str
    client: Client
    former: Key
    issued: Issued
    order: Answer
    urls: Mapping[str, str]

    def payloads(self, operation: str) -> list[object]:
        """What an operation is asked with: as it should be, and as it should not."""
        csr = {"csr": csr_for(self.order, generate_private_key("ec-p256"))}
        named = {"identifiers": self.order.json["identifiers"], **csr}
        other: dict[str, Any] = {
            "new-account": {"termsOfServiceAgreed": True, "status": "valid"},
            "new-authz": {"identifier": self.order.json["identifiers"][0]},
            "revoke-cert": {"certificate": self.issued.certificate, "reason": 4},
            "authorization": {"status": "valid"},
            "order": {"status": "ready", **csr},
        }
        return [csr, READ, {}, other.get(operation, {"status": "valid"}), named]


async def make_target(site: Site, profile: str) -> Target:
    """Let the right account get one certificate, change its key, and leave another order ready."""
    name = MINE.get(profile, "mine.demo.test")
    client = await site.registered(profile)
    issued = await site.issue(client, name)
    former = client.key
    new = Key()
    inner = sign(new, {"url": client.url("key-change"), "jwk": new.jwk}, {"account": client.kid, "oldKey": former.jwk})
    assert (await client.post("key-change", inner)).status == 200
    client.key = new
    order = await site.ready(client, name)
    location, base = order.header("Location") or order.json["finalize"].removesuffix("/finalize"), site.base(profile)
    [authorization] = order.json["authorizations"]
    [challenge, *_] = (await client.post(authorization)).json["challenges"]
    assert client.kid is not None
    urls = {operation: f"{base}/{operation}" for operation in OPERATIONS} | {
        "account": client.kid,
        "orders": f"{client.kid}/orders",
        "order": location,
        "finalize": order.json["finalize"],
        "authorization": authorization,
        "challenge": challenge["url"],
        "certificate": issued.answer.json["certificate"],
    }
    return Target(profile, client, former, issued, order, urls)


@dataclass(frozen=True)
class Somebody:
    """One who has no right: how requests are signed."""

    client: Client
    how: Mapping[str, Any]
    unsigned: bool = False
    spoils: bool = False

    async def ask(self, url: str, payload: object) -> Answer:
        if self.unsigned:
            body = payload if isinstance(payload, dict) else {}
            return await self.client.post_jws(url, body)
        if self.spoils:
            nonce = await self.client.new_nonce()
            header = {"nonce": nonce, "url": url, "kid": self.client.kid}
            return await self.client.post_jws(url, {**sign(self.client.key, header, payload), "signature": ""})
        return await self.client.post(url, payload, **self.how)


async def somebody(site: Site, target: Target, who: str) -> Somebody:
    """Make one who has no right to the target."""
    mine, profile = target.client, target.profile
    client = site.client(profile)
    match who:
        case "nobody":
            return Somebody(client, {}, unsigned=True)
        case "no signature":
            client.kid, client.key = mine.kid, mine.key
            return Somebody(client, {}, spoils=True)
        case "wrong key" | "no account":
            client.kid = mine.kid if who == "wrong key" else f"{site.base(profile)}/acct/{b64(secrets.token_bytes(16))}"
            return Somebody(client, {})
        case "other account":
            return Somebody(await site.registered(profile), {})
        case "other profile" | "same key at another profile":
            other = site.client("demo" if profile != "demo" else "bound")
            other.key = mine.key if who != "other profile" else other.key
            assert (await site.register(other, "demo" if profile != "demo" else "bound")).status == 201
            return Somebody(other, {})
        case "deactivated":
            client = await site.registered(profile)
            assert (await client.post(client.kid or "", {"status": "deactivated"})).status == 200
            return Somebody(client, {})
        case "own key as jwk":
            return Somebody(mine, {"jwk": True})
        case "strange key as jwk":
            return Somebody(client, {"jwk": True})
        case "the certificate's key":
            return Somebody(client, {"jwk": True, "key": Key(target.issued.key)})
        case "the key before":
            client.kid, client.key = mine.kid, target.former
            return Somebody(client, {})
        case "external account revoked":
            return Somebody(await cut_off(site, profile), {})
        case _:
            raise ValueError(who)


async def cut_off(site: Site, profile: str) -> Client:
    """Return an account whose external account was revoked."""
    kid = f"cut-{secrets.token_hex(8)}"
    secret, client = await site.bind(profile, kid), site.client(profile)
    binding = bind(client.key, kid, secret, f"{site.base(profile)}/new-account")
    made = await client.register(externalAccountBinding=binding)
    if made.status == 201:
        await revoke(site, kid)
    return client


async def revoke(site: Site, kid: str) -> None:
    now = datetime.now(UTC)
    event = AuditEvent(event="acme.external_account.revoked", at=now, actor="test", decision="done")
    assert await site.service.gateway.store.revoke_external_account(kid, now, event) is not None


async def certificates(site: Site) -> int:
    return len(await site.service.run("GET", "/v1/certificates", limit=10000))
