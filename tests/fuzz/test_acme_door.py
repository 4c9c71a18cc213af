"""Broken requests at the door of ACME: each is answered with a problem and a fresh nonce, and nothing fails inside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from gateway.pki import base64url
from gateway.wire.acme.client import AcmeAnswer, AcmeRequest
from gateway.wire.acme.jws import MEDIA_JOSE
from tests.flow.acme.driver import Driver, account, dns
from tests.flow.acme.site import Site, start_site
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.test_acme_messages import ODD, PAYLOADS, broken_texts, paths, replaced

CAP = 32768
"""Longer odd values are for the parsers alone: bodies are bounded before them."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    settings = {"authorization_reuse": "1h", "subdomains": True, "limits": {"orders_per_account": None}}
    site = await start_site(tmp_path_factory.mktemp("door") / "s", fuzz=settings)
    yield site
    await site.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def driver(site: Site) -> AsyncIterator[Driver]:
    async with account(site, "fuzz") as driver:
        yield driver


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def resources(driver: Driver) -> dict[str, tuple[str, dict[str, Any]]]:
    """A URL of each kind, with the payload that belongs there."""
    urls = await driver.run(driver.client.open())
    order = await driver.run(driver.client.order(dns("www.demo.test")))
    [authorization] = order.document["authorizations"]
    document = (await driver.run(driver.client.post(authorization, None))).document
    identifiers = {"identifiers": [{"type": "dns", "value": "a.demo.test", "ancestorDomain": "demo.test"}]}
    return {
        "new-account": (urls["newAccount"], PAYLOADS["account"]),
        "account": (driver.client.kid or "", PAYLOADS["account_change"] | {"contact": []}),
        "new-order": (urls["newOrder"], PAYLOADS["order"] | identifiers),
        "new-authorization": (urls["newAuthz"], PAYLOADS["authorization"]),
        "order": (order.location, {}),
        "authorization": (authorization, {"status": "valid"}),
        "challenge": (f"{document['challenges'][0]['url']}x", PAYLOADS["challenge"]),
        "finalize": (order.document["finalize"], PAYLOADS["finalize"]),
        "key-change": (urls["keyChange"], {"protected": "e30", "payload": "e30", "signature": "AA"}),
        "revocation": (urls["revokeCert"], PAYLOADS["revocation"]),
        "orders": (f"{driver.client.kid}/orders", {}),
    }


KINDS = (
    "new-account",
    "account",
    "new-order",
    "new-authorization",
    "order",
    "authorization",
    "challenge",
    "finalize",
    "key-change",
    "revocation",
    "orders",
)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def nonce(driver: Driver) -> str:
    if not driver.client.nonces:
        answer = await driver.send(AcmeRequest("HEAD", driver.client.urls["newNonce"], {}))
        driver.client.nonces.append(answer.headers["replay-nonce"])
    return driver.client.nonces.pop()


async def send(driver: Driver, url: str, body: bytes) -> AcmeAnswer:
    """Send a body, whose answer must be one of ACME: a success, or a problem and never one of ours."""
    answer = await driver.send(AcmeRequest("POST", url, {"Content-Type": MEDIA_JOSE}, body))
    assert answer.status < 500, (url, body[:300], answer)
    assert "replay-nonce" in answer.headers, (url, body[:300], answer)
    driver.client.nonces[:] = [answer.headers["replay-nonce"]]
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.document["type"].startswith("urn:ietf:params:acme:error:")
        assert answer.document["detail"]
    return answer


def quiet(lines: list[Any]) -> bool:
    return [line for line in lines if line["log_level"] in {"error", "critical"}] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_odd_payloads_that_are_signed(driver: Driver, resources: dict[str, tuple[str, dict[str, Any]]], kind: str) -> None:
    url, payload = resources[kind]
    named = {"jwk": driver.client.signer.jwk} if kind == "new-account" else {"kid": driver.client.kid}
    with capture_logs() as lines:
        for path in paths(payload):
            for odd in ODD:
                data = json.dumps(replaced(payload, path, odd)).encode()
                if len(data) > CAP or (odd == {} and path == () and kind == "account"):
                    continue
                header = {**named, "nonce": await nonce(driver), "url": url}
                await send(driver, url, json.dumps(driver.client.signer.flatten(header, data)).encode())
    assert quiet(lines)


@pytest.mark.parametrize("kind", KINDS)
async def test_broken_bodies(driver: Driver, resources: dict[str, tuple[str, dict[str, Any]]], kind: str) -> None:
    url, payload = resources[kind]
    with capture_logs() as lines:
        header = {"kid": driver.client.kid, "nonce": await nonce(driver), "url": url}
        body = json.dumps(driver.client.signer.flatten(header, json.dumps(payload).encode())).encode()
        for data in broken_texts(body, f"door-{kind}", MUTATIONS // 20):
            answer = await send(driver, url, data)
            assert answer.status >= 400 or data == body
    assert quiet(lines)


async def test_broken_headers_that_are_signed(driver: Driver, resources: dict[str, tuple[str, dict[str, Any]]]) -> None:
    url, _ = resources["order"]
    signer = driver.client.signer
    with capture_logs() as lines:
        for name in ("alg", "kid", "jwk", "nonce", "url", "crit"):
            for odd in ODD:
                header = {"alg": signer.algorithm, "kid": driver.client.kid, "nonce": await nonce(driver), "url": url, name: odd}
                protected = base64url.encode(json.dumps(header).encode())
                if len(protected) > CAP:
                    continue
                signature = base64url.encode(signer.sign(f"{protected}.".encode()))
                body = json.dumps({"protected": protected, "payload": "", "signature": signature}).encode()
                answer = await send(driver, url, body)
                assert answer.status >= 400 or (name, odd) == ("jwk", None), (name, odd, answer)
    assert quiet(lines)


async def test_the_account_has_survived(driver: Driver) -> None:
    assert (await driver.run(driver.client.account())).document["status"] == "valid"
