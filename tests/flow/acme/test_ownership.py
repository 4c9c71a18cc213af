"""What is another account's, or another directory's, is nobody else's: 403 or 404, as if it were not there (RFC 8555 §10.5)."""

from typing import Any

import pytest

from tests.flow.acme.client import READ, Client
from tests.flow.acme.signing import Key
from tests.flow.acme.site import Issued, Site, csr_for
from gateway.pki.keys import generate_private_key

CSR = object()
"""In place of a CSR that would be good for the order."""


@pytest.fixture
async def mine(site: Site) -> Client:
    return await site.registered("corp")


@pytest.fixture
async def issued(site: Site, mine: Client) -> Issued:
    return await site.issue(mine, "www.corp.test")


async def things(site: Site, mine: Client, issued: Issued) -> dict[str, str]:
    """Return the URLs of all that an account has."""
    pending = await mine.order("elsewhere.demo.test")
    ready = await mine.order("ready.corp.test")
    assert (pending.json["status"], ready.json["status"]) == ("pending", "ready")
    [authorization] = pending.json["authorizations"]
    challenges = (await mine.post(authorization)).json["challenges"]
    assert mine.kid is not None
    return {
        "account": mine.kid,
        "orders": f"{mine.kid}/orders",
        "order": issued.order,
        "pending-order": pending.location,
        "finalize": ready.json["finalize"],
        "authorization": authorization,
        "challenge": challenges[0]["url"],
        "certificate": issued.answer.json["certificate"],
        "chain": f"{issued.answer.json['certificate']}/1",
        "issuer": f"{issued.answer.json['certificate']}/up",
    }


REQUESTS: list[tuple[str, object]] = [
    ("account", READ),
    ("account", {"contact": []}),
    ("account", {"status": "deactivated"}),
    ("orders", READ),
    ("order", READ),
    ("pending-order", READ),
    ("finalize", CSR),
    ("authorization", READ),
    ("authorization", {"status": "deactivated"}),
    ("challenge", READ),
    ("challenge", {}),
    ("certificate", READ),
    ("chain", READ),
    ("issuer", READ),
]


def name(value: object) -> str:
    return "csr" if value is CSR else str(value)


@pytest.mark.parametrize(("thing", "payload"), REQUESTS, ids=name)
@pytest.mark.parametrize("who", ["other-account", "other-directory", "no-account", "deactivated", "wrong-key", "jwk"])
async def test_nobody_else_gets_it(site: Site, mine: Client, issued: Issued, thing: str, payload: object, who: str) -> None:
    url = (await things(site, mine, issued))[thing]
    if payload is CSR:
        order = await mine.post(url.removesuffix("/finalize"))
        payload = {"csr": csr_for(order, generate_private_key("ec-p256"))}
    other = await site.registered("demo" if who == "other-directory" else "corp")
    how: dict[str, Any] = {}
    if who == "no-account":
        how["kid"] = f"{site.base('corp')}/acct/nobody"
    if who == "deactivated":
        assert (await other.post(other.kid or "", {"status": "deactivated"})).status == 200
    if who == "wrong-key":
        how["kid"] = mine.kid
    if who == "jwk":
        how["jwk"] = True
    certificates = issued.chain
    answer = await other.post(url, payload, **how)
    expected = {
        "other-account": {(403, "unauthorized"), (404, "malformed")},
        # the directory does not know an account that is not its own
        "other-directory": {(400, "accountDoesNotExist")},
        "no-account": {(400, "accountDoesNotExist")},
        "deactivated": {(401, "unauthorized")},
        "wrong-key": {(400, "malformed")},
        "jwk": {(400, "malformed")},
    }
    assert (answer.status, answer.problem) in expected[who]
    assert certificates[0] not in answer.body
    # nothing was changed
    assert (await mine.post(mine.kid or "")).json["status"] == "valid"
    assert (await mine.post(url.removesuffix("/finalize"))).status == (404 if thing == "chain" else 200)


async def test_other_directory_does_not_have_it(site: Site, mine: Client, issued: Issued) -> None:
    """An account of both, with one key: what was made here is not there."""
    there = site.client("demo")
    there.key = mine.key
    assert (await there.register()).status == 201
    for url in (issued.order, issued.answer.json["certificate"], f"{mine.kid}"):
        answer = await there.post(url.replace("/acme/corp/", "/acme/demo/"))
        assert answer.status in {403, 404}


async def test_unknown_and_foreign_look_the_same(site: Site, mine: Client, issued: Issued) -> None:
    other = await site.registered("corp")
    urls = await things(site, mine, issued)
    for thing in ("order", "authorization", "certificate"):
        foreign = await other.post(urls[thing])
        nothing = await other.post(urls[thing][:-4] + "AAAA")
        assert (foreign.status, foreign.json) == (nothing.status, nothing.json), thing


async def test_lists_of_orders_hold_ones_own(site: Site, mine: Client, issued: Issued) -> None:
    other = await site.registered("corp")
    theirs = await other.order("their.corp.test")
    assert (await other.post(f"{other.kid}/orders")).json["orders"] == [theirs.location]
    assert issued.order in (await mine.post(f"{mine.kid}/orders")).json["orders"]
    foreign = issued.order.rpartition("/")[2]
    assert (await other.post(f"{other.kid}/orders?cursor={foreign}")).json["orders"] in ([], [theirs.location])


async def test_authorizations_serve_their_own_account(site: Site) -> None:
    first, second = await site.registered(), await site.registered()
    await site.ready(first, "www.demo.test")
    order = await second.order("www.demo.test")
    assert order.json["status"] == "pending"
    answer = await second.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    assert (answer.status, answer.problem) == (403, "orderNotReady")


async def test_revocation_needs_a_right_to_it(site: Site, mine: Client, issued: Issued) -> None:
    other = await site.registered("corp")
    payload = {"certificate": issued.certificate}
    refused = await other.post("revoke-cert", payload)
    assert (refused.status, refused.problem) == (403, "unauthorized")
    by_key = await site.client("corp").post("revoke-cert", payload, key=Key(), jwk=True)
    assert (by_key.status, by_key.problem) == (403, "unauthorized")
    by_account_key = await mine.post("revoke-cert", payload, jwk=True)
    assert (by_account_key.status, by_account_key.problem) == (403, "unauthorized")
    assert (await mine.post("revoke-cert", payload)).status == 200
