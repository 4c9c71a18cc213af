"""Every challenge and trust mode through a whole gateway: a certificate where control is proved, and none where it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.pki.keys import generate_private_key
from gateway.wire.acme.challenges import account_label, alpn_digest, dns_value, format_persistent, key_authorization
from tests.conftest import free_port
from tests.dns_server import DnsServer, dns_server
from tests.flow.acme.client import Answer, Client
from tests.flow.acme.conftest import NewSite
from tests.flow.acme.site import Site, csr_for
from tests.unit.validation.certificates import challenge_certificate, server_context
from tests.unit.validation.site import Handler, answering, ok, redirect, serving

CHALLENGES = ["http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01"]
CA = "ca.test"
Prove = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Does what proves a name, given its authorization's domain and the challenge."""


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


def lab(dns: DnsServer, **validation: Any) -> dict[str, Any]:
    """An endpoint that offers every challenge and asks the DNS server of the tests."""
    settings = {
        "challenges": CHALLENGES,
        "resolver": {"servers": [dns.address], "timeout": "3s"},
        "caa": {"mode": "enforce", "identities": [CA]},
        "attempt_every": "1s",
        "attempts": 2,
    }
    return {"validation": settings | validation}


def value_for(client: Client, challenge: dict[str, Any]) -> str:
    return key_authorization(challenge["token"], client.key.thumbprint)


async def challenge_of(client: Client, order: Answer, type_: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return URL and content of an order's only authorization, and its challenge of a type."""
    [url] = order.json["authorizations"]
    authorization = (await client.post(url)).json
    [challenge] = [each for each in authorization["challenges"] if each["type"] == type_]
    return url, authorization, challenge


async def proved(site: Site, client: Client, order: Answer, type_: str, prove: Prove) -> dict[str, Any]:
    """Do what proves the only name of an order and answer the challenge; returns the authorization at its end."""
    url, authorization, challenge = await challenge_of(client, order, type_)
    await prove(authorization["identifier"]["value"], challenge)
    answer = await client.post(challenge["url"], {})
    assert answer.status == 200, answer.body
    return (await site.poll(client, url, {"pending"})).json


async def certified(site: Site, client: Client, order: Answer) -> None:
    """Finalize an order that is ready."""
    done = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert done.status == 200, done.body
    assert (await site.poll(client, order.location, {"processing"})).json["status"] == "valid"


async def refused_finalize(client: Client, order: Answer) -> Answer:
    return await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})


@pytest.mark.parametrize("name", ["host.acme.test", "*.acme.test"])
async def test_dns_01(new_site: NewSite, dns: DnsServer, name: str) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order(name)

    async def prove(domain: str, challenge: dict[str, Any]) -> None:
        dns.add_txt(f"_acme-challenge.{domain}", "left behind", dns_value(value_for(client, challenge)))

    assert (await proved(site, client, order, "dns-01", prove))["status"] == "valid"
    await certified(site, client, order)


async def test_wildcard_is_offered_no_challenge_of_one_host(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order("*.acme.test")
    [url] = order.json["authorizations"]
    authorization = (await client.post(url)).json
    assert authorization["wildcard"] is True
    assert authorization["identifier"]["value"] == "acme.test"
    assert {each["type"] for each in authorization["challenges"]} == {"dns-01", "dns-account-01", "dns-persist-01"}


async def test_dns_account_01(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    assert client.kid is not None
    label = account_label(client.kid)

    async def prove(domain: str, challenge: dict[str, Any]) -> None:
        dns.add_txt(f"{label}._acme-challenge.{domain}", dns_value(value_for(client, challenge)))

    assert (await proved(site, client, order, "dns-account-01", prove))["status"] == "valid"
    await certified(site, client, order)


async def test_dns_persist_01(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    assert client.kid is not None
    dns.add("_validation-persist.acme.test", "TXT", f'"{format_persistent(CA, client.kid, wildcard=True)}"')
    for name in ("acme.test", "*.acme.test", "acme.test"):
        order = await client.order(name)

        async def prove(_: str, challenge: dict[str, Any]) -> None:
            assert challenge["issuer-domain-names"] == [CA]
            assert "token" not in challenge

        assert (await proved(site, client, order, "dns-persist-01", prove))["status"] == "valid"
        await certified(site, client, order)


async def test_dns_persist_01_of_another_account(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns))
    owner, thief = await site.registered("lab"), await site.registered("lab")
    assert owner.kid is not None
    dns.add("_validation-persist.acme.test", "TXT", f'"{format_persistent(CA, owner.kid)}"')
    order = await thief.order("acme.test")

    async def prove(_: str, __: dict[str, Any]) -> None:
        pass

    ended = await proved(site, thief, order, "dns-persist-01", prove)
    assert ended["status"] == "invalid"
    assert (await refused_finalize(thief, order)).status == 403


@asynccontextmanager
async def tls_server(folder: Path, port: int, name: str, digest: bytes) -> AsyncIterator[None]:
    async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    certificate = challenge_certificate([name], b"\x04\x20" + digest)
    async with serving(idle, port=port, ssl=server_context(folder, chain=[certificate], alpn=["acme-tls/1"])):
        yield


@pytest.mark.parametrize("name", ["host.acme.test", "127.0.0.1"])
async def test_tls_alpn_01(new_site: NewSite, dns: DnsServer, tmp_path: Path, name: str) -> None:
    port = free_port()
    site = await new_site(lab=lab(dns, tlsalpn01_port=port))
    client = await site.registered("lab")
    order = await client.order(name if name.endswith("test") else {"type": "ip", "value": name})
    url, _, challenge = await challenge_of(client, order, "tls-alpn-01")
    async with tls_server(tmp_path, port, name, alpn_digest(value_for(client, challenge))):
        assert (await client.post(challenge["url"], {})).status == 200
        assert (await site.poll(client, url, {"pending"})).json["status"] == "valid"
    await certified(site, client, order)


async def test_tls_alpn_01_of_another_account(new_site: NewSite, dns: DnsServer, tmp_path: Path) -> None:
    port = free_port()
    site = await new_site(lab=lab(dns, tlsalpn01_port=port))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    url, _, challenge = await challenge_of(client, order, "tls-alpn-01")
    digest = alpn_digest(key_authorization(challenge["token"], site.client("lab").key.thumbprint))
    async with tls_server(tmp_path, port, "host.acme.test", digest):
        await client.post(challenge["url"], {})
        ended = (await site.poll(client, url, {"pending"})).json
    assert ended["status"] == "invalid"
    assert ended["challenges"][0]["error"]["type"].endswith(":unauthorized")


async def http_order(site: Site, client: Client, handler: Handler, port: int, name: str = "host.acme.test") -> dict[str, Any]:
    """Order a name, and answer http-01 while `handler` serves; returns the authorization at its end."""
    order = await client.order(name)
    url, _, challenge = await challenge_of(client, order, "http-01")
    async with serving(handler, port=port):
        assert (await client.post(challenge["url"], {})).status == 200
        return (await site.poll(client, url, {"pending"})).json


async def test_http_01_of_another_account(new_site: NewSite, dns: DnsServer) -> None:
    """A server that answers with a thumbprint of its own proves control for that account alone (RFC 8555 §8.1)."""
    port = free_port()
    site = await new_site(lab=lab(dns, http01_port=port))
    client, other = await site.registered("lab"), site.client("lab")

    async def stateless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = (await reader.readuntil(b"\r\n\r\n")).split()[1].rpartition(b"/")[2].decode()
        writer.write(ok(key_authorization(token, other.key.thumbprint)).encode())
        await writer.drain()

    ended = await http_order(site, client, stateless, port)
    assert ended["status"] == "invalid"
    assert ended["challenges"][0]["error"]["type"].endswith(":incorrectResponse")


async def test_what_was_fetched_is_told_to_nobody(new_site: NewSite, dns: DnsServer) -> None:
    port = free_port()
    site = await new_site(lab=lab(dns, http01_port=port))
    client = await site.registered("lab")
    ended = await http_order(site, client, answering(ok("root:x:0:0:secret")), port)
    assert ended["status"] == "invalid"
    assert "secret" not in str(ended)
    assert not [line for line in await site.audited() if "secret" in line]


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "http://127.0.0.1:22/", "http://10.0.0.1/", "file:///etc/x"]
)
async def test_redirects_into_the_inside(new_site: NewSite, dns: DnsServer, location: str) -> None:
    port = free_port()
    site = await new_site(lab=lab(dns, http01_port=port))
    client = await site.registered("lab")
    ended = await http_order(site, client, answering(redirect(location)), port)
    assert ended["status"] == "invalid"
    assert ended["challenges"][0]["error"]["type"].endswith(":connection")


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "0.0.0.0"])
async def test_names_of_the_inside(new_site: NewSite, dns: DnsServer, address: str) -> None:
    dns.add("inner.test", "A", address)
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    ended = await http_order(site, client, answering(ok()), free_port(), "inner.test")
    assert ended["status"] == "invalid"
    assert address not in str(ended["challenges"])


async def test_record_that_comes_late(new_site: NewSite, dns: DnsServer) -> None:
    """The client sees `processing` with the error of the attempt, and a whole Retry-After (RFC 8555 §8.2)."""
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    url, _, challenge = await challenge_of(client, order, "dns-01")
    answer = await client.post(challenge["url"], {})
    assert answer.json["status"] == "processing"
    assert answer.json["error"]["type"].startswith("urn:ietf:params:acme:error:")
    assert (answer.header("Retry-After") or "").isdigit()
    dns.add_txt("_acme-challenge.host.acme.test", dns_value(value_for(client, challenge)))
    assert (await site.poll(client, url, {"pending"})).json["status"] == "valid"


async def test_asking_again_is_trying_now(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns, attempt_every="1h"))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    url, _, challenge = await challenge_of(client, order, "dns-01")
    assert (await client.post(challenge["url"], {})).json["status"] == "processing"
    dns.add_txt("_acme-challenge.host.acme.test", dns_value(value_for(client, challenge)))
    assert (await client.post(challenge["url"], {})).json["status"] == "valid"
    assert (await client.post(url)).json["status"] == "valid"


async def test_slow_server_does_not_hold_the_client(new_site: NewSite, dns: DnsServer) -> None:
    port = free_port()
    site = await new_site(lab=lab(dns, http01_port=port))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    _, _, challenge = await challenge_of(client, order, "http-01")

    async def idle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(60)

    async with serving(idle, port=port):
        begun = time.monotonic()
        assert (await client.post(challenge["url"], {})).json["status"] == "processing"
        assert time.monotonic() - begun < 6


@pytest.mark.parametrize(
    ("record", "words"), [('0 issue ";"', "none names this CA"), ('0 issue "ca.test; accounturi=https://x"', "another account")]
)
async def test_caa_forbids(new_site: NewSite, dns: DnsServer, record: str, words: str) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    dns.add("acme.test", "CAA", record)

    async def prove(domain: str, challenge: dict[str, Any]) -> None:
        dns.add_txt(f"_acme-challenge.{domain}", dns_value(value_for(client, challenge)))

    ended = await proved(site, client, order, "dns-01", prove)
    assert ended["status"] == "invalid"
    error = ended["challenges"][0]["error"]
    assert error["type"].endswith(":caa")
    assert words in error["detail"]


async def test_caa_for_this_account_and_method(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns))
    client = await site.registered("lab")
    order = await client.order("host.acme.test")
    dns.add("acme.test", "CAA", f'0 issue "{CA}; accounturi={client.kid}; validationmethods=dns-01"')

    async def prove(domain: str, challenge: dict[str, Any]) -> None:
        dns.add_txt(f"_acme-challenge.{domain}", dns_value(value_for(client, challenge)))

    assert (await proved(site, client, order, "dns-01", prove))["status"] == "valid"
    await certified(site, client, order)


async def test_client_address(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns, mode="client_ip_forward"))
    client = await site.registered("lab")
    await site.issue(client, "me.acme.test", {"type": "ip", "value": "127.0.0.1"})
    dns.add("other.test", "A", "10.0.0.9")
    for name in ("other.test", "nowhere.test", "*.acme.test", {"type": "ip", "value": "10.0.0.9"}):
        assert (await client.order(name)).status >= 400


async def test_client_address_in_reverse(new_site: NewSite, dns: DnsServer) -> None:
    site = await new_site(lab=lab(dns, mode="client_ip_reverse"))
    client = await site.registered("lab")
    assert (await client.order("me.acme.test")).status == 403
    dns.add("1.0.0.127.in-addr.arpa", "PTR", "me.acme.test.")
    await site.issue(client, "me.acme.test")
    assert (await client.order("other.acme.test")).status == 403


@pytest.mark.parametrize(("word", "status"), [("true", 201), ("false", 403), ("null", 403)])
async def test_webhook(new_site: NewSite, dns: DnsServer, monkeypatch: pytest.MonkeyPatch, word: str, status: int) -> None:
    monkeypatch.setenv("HOOK", "hook secret of these tests, long enough")
    requests: list[str] = []
    body = f'{{"allow": {word}}}'
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    async with serving(answering(answer, requests=requests)) as port:
        hook = {"url": f"http://127.0.0.1:{port}/allow", "secret": {"env": "HOOK"}}
        site = await new_site(lab=lab(dns, mode="webhook", webhook=hook))
        client = await site.registered("lab")
        order = await client.order("host.acme.test")
        assert order.status == status
        assert "X-Gateway-Signature: " in requests[0]
        if status == 201:
            assert order.json["status"] == "ready"
            await certified(site, client, order)
