"""Every operation, asked by everybody who has no right, at every mode of trust: no certificate, and nothing is changed."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import generate_private_key
from tests.flow.acme.client import Answer, Client
from tests.flow.acme.nobody import OPERATIONS, PROFILES, WHO, Target, certificates, make_target, revoke, somebody
from tests.flow.acme.signing import bind
from tests.flow.acme.site import Site, csr_for, start_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

ALL = ("demo", *PROFILES)
NO_EXTERNAL_ACCOUNTS = {"forward"}
NEVER_PENDING = {"corp", "forward", "trusting"}
"""Whose names are good at once, or refused."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    site = await start_site(tmp_path_factory.mktemp("nobody") / "s", **PROFILES)
    yield site
    await site.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def targets(site: Site) -> dict[str, Target]:
    return {profile: await make_target(site, profile) for profile in ALL}


def may_revoke(who: str, operation: str) -> bool:
    """RFC 8555 §7.6: whoever has the certificate's key; no account that proved nothing."""
    return who == "the certificate's key" and operation == "revoke-cert"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ALL)
async def test_no_operation_serves_who_has_no_right(site: Site, targets: dict[str, Target], profile: str, who: str) -> None:
    if who == "external account revoked" and profile in NO_EXTERNAL_ACCOUNTS:
        return
    target = targets[profile]
    someone = await somebody(site, target, who)
    before = await certificates(site)
    for operation in OPERATIONS:
        for payload in target.payloads(operation):
            if may_revoke(who, operation):
                continue
            answer = await someone.ask(target.urls[operation], payload)
            assert answer.status < 500, (operation, payload, answer)
            assert b"BEGIN CERTIFICATE" not in answer.body, (operation, payload)
            if operation not in {"new-account", "new-order", "new-authz"}:
                assert answer.status >= 400, (operation, payload, answer)
    assert await certificates(site) == before
    # the order, its certificate and the account are as they were
    assert (await target.client.post(target.urls["order"])).json["status"] == "ready"
    assert (await target.client.post(target.urls["account"])).json["status"] == "valid"
    assert (await target.client.post(target.urls["certificate"])).status == 200


@pytest.mark.parametrize("profile", ALL)
async def test_get_shows_nothing(site: Site, targets: dict[str, Target], profile: str) -> None:
    """Reads are signed (RFC 8555 §6.3)."""
    target = targets[profile]
    for operation in OPERATIONS:
        answer = await target.client.get(target.urls[operation])
        assert (answer.status, answer.problem) == (405, "malformed"), operation


@pytest.mark.parametrize("profile", ALL)
async def test_no_other_name_than_those_of_the_order(site: Site, targets: dict[str, Target], profile: str) -> None:
    """The right account, with a CSR for one name more, for another name, and for none."""
    target, before = targets[profile], await certificates(site)
    identifiers = target.order.json["identifiers"]
    others = [{"type": "dns", "value": "www.other.test"}]
    for asked in ([*identifiers, *others], others, [], [{"type": "dns", "value": f"*.{identifiers[0]['value']}"}]):
        order = Answer(200, {}, target.order.body.replace(_json(identifiers), _json(asked)))
        answer = await target.client.post(target.urls["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
        assert (answer.status, answer.problem) == (400, "badCSR"), asked
    assert await certificates(site) == before
    assert (await target.client.post(target.urls["order"])).json["status"] == "ready"


def _json(identifiers: list[dict[str, str]]) -> bytes:
    return json.dumps(identifiers, separators=(",", ":")).encode()


async def finalize(client: Client, order: Answer) -> Answer:
    return await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})


@pytest.mark.parametrize("profile", ALL)
async def test_nothing_is_certified_that_an_order_does_not_prove(site: Site, profile: str) -> None:
    """Neither attributes of a subject nor a common name that is none of the order's names."""
    client, name = await site.registered(profile), "mine.corp.test" if profile == "corp" else "mine.demo.test"
    order, key = await site.ready(client, name), generate_private_key("ec-p256")
    other = await client.post(order.json["finalize"], {"csr": csr_for(order, key, "CN=ceo.demo.test")})
    assert (other.status, other.problem) == (400, "badCSR")
    asked = csr_for(order, key, f"CN={name},O=Bank,UID=root,serialNumber=HRB1")
    done = await client.post(order.json["finalize"], {"csr": asked})
    assert done.json["status"] == "valid"
    chain = await client.post(done.json["certificate"])
    leaf = parse_certificate(pem_to_ders(chain.body)[0])
    assert [attribute.value for rdn in leaf.subject.rdns for attribute in rdn] == [name]
    assert [san.value for san in leaf.sans] == [name]


STAGES = ("pending", "tried", "given up", "proved by another account", "proved at another profile", "proved for another name")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("profile", [name for name in ALL if name not in NEVER_PENDING])
async def test_no_order_is_finalized_before_it_is_proved(site: Site, profile: str, stage: str) -> None:
    client, name, before = await site.registered(profile), f"{secrets.token_hex(6)}.demo.test", await certificates(site)
    proved = 0
    if stage in {"proved by another account", "proved at another profile"}:
        elsewhere = profile if stage == "proved by another account" else ("bound" if profile == "demo" else "demo")
        other = site.client(elsewhere)
        other.key = client.key if stage == "proved at another profile" else other.key
        assert (await site.register(other, elsewhere)).status == 201
        await site.issue(other, name)
        proved = 1
    if stage == "proved for another name":
        await site.issue(client, f"other.{name}")
        proved = 1
    order = await client.order(name)
    [url] = order.json["authorizations"]
    if stage == "tried":
        [challenge] = [each for each in (await client.post(url)).json["challenges"] if each["type"] == "http-01"]
        site.responder.tokens[challenge["token"]] = f"{challenge['token']}.{'A' * 43}"
        assert (await client.post(challenge["url"], {})).status == 200
    if stage == "given up":
        await site.prove(client, order)
        assert (await client.post(url, {"status": "deactivated"})).json["status"] == "deactivated"
    answer = await finalize(client, order)
    assert answer.status >= 400, answer.body
    assert answer.problem in {"orderNotReady", "malformed", "unauthorized"}
    assert await certificates(site) == before + proved


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ("corp", ["mine.corp.test", "www.demo.test"]),
        ("forward", ["theirs.demo.test"]),
        ("forward", ["mine.demo.test", "theirs.demo.test"]),
        ("forward", ["*.demo.test"]),
        ("trusting", ["www.demo.test"]),
    ],
    ids=str,
)
async def test_trust_ends_where_the_profile_says(site: Site, profile: str, names: list[str]) -> None:
    client, before = await site.registered(profile), await certificates(site)
    order = await client.order(*names)
    if order.status == 201:
        assert order.json["status"] == "pending"
        assert (await finalize(client, order)).status >= 400
    assert await certificates(site) == before


@pytest.mark.parametrize("profile", [name for name in ALL if name not in NO_EXTERNAL_ACCOUNTS])
async def test_nothing_more_once_the_external_account_is_revoked(site: Site, profile: str) -> None:
    """Not even what was ready by then."""
    kid, client = f"late-{secrets.token_hex(6)}", site.client(profile)
    binding = bind(client.key, kid, await site.bind(profile, kid), f"{site.base(profile)}/new-account")
    assert (await client.register(externalAccountBinding=binding)).status == 201
    order = await site.ready(client, "mine.corp.test" if profile == "corp" else "mine.demo.test")
    await revoke(site, kid)
    before = await certificates(site)
    assert (await finalize(client, order)).status >= 400
    assert (await client.order("mine.demo.test")).status >= 400
    assert await certificates(site) == before


async def test_an_order_whose_time_is_over_gets_nothing(tmp_path: Path) -> None:
    site = await start_site(tmp_path / "s")
    try:
        client = await site.registered()
        order = await site.ready(client, "www.demo.test")
        site.service.clock.ahead = timedelta(days=8)
        answer = await finalize(client, order)
        assert answer.status >= 400, answer.body
        assert await certificates(site) == 0
    finally:
        await site.close()


@pytest.mark.parametrize("profile", ALL)
async def test_the_right_account_gets_one(site: Site, targets: dict[str, Target], profile: str) -> None:
    """Which shows that the tests above can fail; the order is the one that they all asked for."""
    target, before = targets[profile], await certificates(site)
    answer = await finalize(target.client, target.order)
    assert answer.status == 200, answer.body
    location = target.urls["order"]
    done = answer if answer.json["status"] == "valid" else await site.poll(target.client, location, {"processing"})
    assert done.json["status"] == "valid"
    assert await certificates(site) == before + 1
