"""What has broken clients before other servers, client by client: each would find this one as it wants it."""

import asyncio
import base64
import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.ca.interfaces import IssueRequest, NotSent, UpstreamIssued, UpstreamRejected
from gateway.ca.local import LocalCA
from gateway.pki.certificate import pem_to_ders
from gateway.pki.keys import generate_private_key
from gateway.store.interfaces import LedgerState
from tests.flow.acme.client import READ, Answer, Client
from tests.flow.acme.conftest import NewSite
from tests.flow.acme.signing import Key, b64, bind, sign
from tests.flow.acme.site import PREVALIDATED, Site, csr_for, start_site
from tests.flow.scep.service import make_folder

WWW = "www.corp.test"


class Ca:
    """What the CA does before it signs: waits so many seconds, and raises what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.fault: Exception | None = None
        self.signed = 0
        issue = LocalCA.issue

        async def slow(ca: LocalCA, request: IssueRequest) -> UpstreamIssued:
            await asyncio.sleep(self.seconds)
            if self.fault is not None:
                raise self.fault
            self.signed += 1
            return await issue(ca, request)

        monkeypatch.setattr(LocalCA, "issue", slow)


@pytest.fixture
def ca(monkeypatch: pytest.MonkeyPatch) -> Ca:
    return Ca(monkeypatch)


async def ready(site: Site, profile: str = "corp") -> tuple[Client, Answer, dict[str, str]]:
    """Return a client, an order of it that is ready, and the payload that finalizes it."""
    client = await site.registered(profile)
    order = await client.order(WWW)
    assert order.json["status"] == "ready"
    return client, order, {"csr": csr_for(order, generate_private_key("ec-p256"))}


# acme.sh


async def test_badnonce_detail_acmesh(site: Site) -> None:
    """It tries again only if it finds one of two sentences in the body."""
    client = await site.registered()
    answer = await client.post(client.kid or "", nonce="AAAA")
    assert (answer.status, answer.problem) == (400, "badNonce")
    assert b"JWS has an invalid anti-replay nonce" in answer.body
    assert (await client.post(client.kid or "")).status == 200


async def test_json_by_regular_expressions_acmesh(site: Site) -> None:
    """It takes the first `"url":"…"` beside a type, the first status, and expects no spaces."""
    client = await site.registered()
    order = await client.order("www.demo.test")
    text = order.body.decode()
    assert re.search(r'"status":"([a-z]+)"', text)
    assert re.search(r'"finalize":"([^"]*)"', text)
    assert re.search(r'"authorizations":\["([^"]*)"\]', text)
    authorization = (await client.post(order.json["authorizations"][0])).body.decode()
    entry = re.search(r'\{[^{}]*"type":"http-01"[^{}]*\}', authorization)
    assert entry is not None
    assert set(json.loads(entry[0])) >= {"type", "url", "token", "status"}


async def test_retry_after_is_a_small_number_acmesh(new_site: NewSite, ca: Ca) -> None:
    """A date makes it sleep for days, and more than 600 s ends it."""
    site = await new_site(lab={**PREVALIDATED, "finalize_wait": "1s"})
    client, order, csr = await ready(site, "lab")
    ca.seconds = 2.5
    answer = await client.post(order.json["finalize"], csr)
    assert answer.json["status"] == "processing"
    assert 1 <= int(str(answer.header("Retry-After"))) <= 600
    pending = await (await site.registered()).order("www.demo.test")
    assert pending.json["status"] == "pending"
    for value in (answer.header("Retry-After"), pending.header("Retry-After")):
        assert value is None or value.isdecimal()
    await site.poll(client, order.location, {"processing"})


async def test_ari_refusals_name_replaces_acmesh_and_cert_manager(site: Site) -> None:
    """They order again without it where the detail says `replaces`."""
    client = await site.registered("corp")
    answer = await client.order(WWW, replaces="not a name")
    assert answer.problem == "malformed"
    assert "'replaces'" in answer.json["detail"]


async def test_key_change_acmesh(site: Site) -> None:
    client, new = await site.registered(), Key()
    inner = sign(new, {"url": client.url("key-change"), "jwk": new.jwk}, {"account": client.kid, "oldKey": client.key.jwk})
    assert (await client.post("key-change", inner)).status == 200


# certbot


async def test_nonce_on_every_post_certbot(site: Site) -> None:
    """It ends with MissingNonce where a good answer to a POST has none."""
    client = await site.registered("corp")
    order = await client.order(WWW)
    done = await client.post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
    chain = await client.post(done.json["certificate"])
    der = b64(pem_to_ders(chain.body)[0])
    revoked = await client.post("revoke-cert", {"certificate": der})
    listed = await client.post(f"{client.kid}/orders")
    for answer in (order, done, chain, revoked, listed, await client.post(client.kid or "", {"status": "deactivated"})):
        assert 200 <= answer.status < 300
        assert re.fullmatch(r"[A-Za-z0-9_-]+", answer.nonce)


async def test_challenge_answer_has_link_up_and_the_same_url_certbot(site: Site) -> None:
    client = await site.registered()
    order = await client.order("www.demo.test")
    [url] = order.json["authorizations"]
    [challenge] = [each for each in (await client.post(url)).json["challenges"] if each["type"] == "http-01"]
    answer = await client.post(challenge["url"], {})
    assert answer.links["up"] == [url]
    assert answer.json["url"] == challenge["url"]


async def test_onlyreturnexisting_ignores_contact_certbot(site: Site) -> None:
    client = site.client()
    body = {"onlyReturnExisting": True, "contact": ["mailto:a@example.com"], "termsOfServiceAgreed": True}
    missing = await client.post("new-account", body, jwk=True)
    assert (missing.status, missing.problem) == (400, "accountDoesNotExist")
    made = await client.register()
    found = await client.post("new-account", body, jwk=True)
    assert (found.status, found.location) == (200, made.location)
    assert "contact" not in found.json


async def test_no_conflicts_but_those_that_are_certbot(site: Site) -> None:
    """Any 409 is a ConflictError: a second registration must not be one."""
    client = await site.registered()
    assert (await client.register()).status == 200


async def test_requests_are_held_for_less_than_30_seconds_certbot(new_site: NewSite, ca: Ca) -> None:
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "2s"})
    client, order, csr = await ready(site)
    ca.seconds = 4
    begun = monotonic()
    answer = await client.post(order.json["finalize"], csr)
    assert answer.json["status"] == "processing"
    assert monotonic() - begun < 4
    await site.poll(client, order.location, {"processing"})
    assert monotonic() - begun < 30


async def test_finalize_again_while_ready_certbot(site: Site, ca: Ca) -> None:
    """It finalizes again whenever it sees `ready`."""
    client, order, csr = await ready(site)
    first, second = await client.post(order.json["finalize"], csr), await client.post(order.json["finalize"], csr)
    assert (first.json["status"], second.json["status"]) == ("valid", "valid")
    assert first.json == second.json
    assert ca.signed == 1


async def test_subset_of_names_certbot(site: Site) -> None:
    """--allow-subset-of-names orders again without the names of the subproblems."""
    client = await site.registered("corp")
    refused = await client.order(WWW, {"type": "ip", "value": "8.8.8.8"})
    assert [each["identifier"]["value"] for each in refused.json["subproblems"]] == ["8.8.8.8"]


# golang.org/x/crypto/acme, autocert, cert-manager


async def test_finalize_has_location_golang(site: Site) -> None:
    client, order, csr = await ready(site)
    answer = await client.post(order.json["finalize"], csr)
    assert (order.status, order.location) == (201, answer.location)
    assert (await client.post(answer.location)).location == order.location


async def test_order_is_processing_before_finalize_is_answered_golang(new_site: NewSite, ca: Ca) -> None:
    """WaitOrder stops at `ready`: after finalize an order must never be seen as that again."""
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "1s"})
    client, order, csr = await ready(site)
    ca.seconds = 3
    answer = await client.post(order.json["finalize"], csr)
    assert answer.json["status"] == "processing"
    seen = await site.poll(client, order.location, {"processing"})
    assert seen.json["status"] == "valid"


async def test_finalize_retry_of_a_valid_order_golang(site: Site) -> None:
    """Its answer was lost; the same request again is the certificate, and no 403."""
    client, order, csr = await ready(site)
    assert (await client.post(order.json["finalize"], csr)).json["status"] == "valid"
    again = await client.post(order.json["finalize"], csr)
    assert (again.status, again.json["status"]) == (200, "valid")
    assert again.json["certificate"]


async def test_ca_outage_is_no_4xx_cert_manager(new_site: NewSite, ca: Ca) -> None:
    """A 4xx at finalize is for good; the order is processing until the CA is back."""
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "1s"})
    client, order, csr = await ready(site)
    ca.fault = NotSent("connection refused")
    answer = await client.post(order.json["finalize"], csr)
    assert answer.status in {200, 503}, answer.body
    assert answer.header("Retry-After")
    if answer.status == 200:
        assert answer.json["status"] == "processing"
    ca.fault = None
    site.service.clock.ahead += timedelta(minutes=5)
    done = await site.poll(client, order.location, {"processing", "ready"})
    assert done.json["status"] == "valid"
    assert ca.signed == 1


async def test_refusal_by_the_ca_ends_the_order_with_an_error(new_site: NewSite, ca: Ca) -> None:
    site = await new_site(corp=PREVALIDATED)
    client, order, csr = await ready(site)
    ca.fault = UpstreamRejected("the CA does not like you")
    answer = await client.post(order.json["finalize"], csr)
    assert answer.status in {200, 403}
    ended = await client.post(order.location)
    assert ended.json["status"] == "invalid"
    assert ended.json["error"]["detail"]


async def test_not_after_cert_manager_and_win_acme(site: Site) -> None:
    client = await site.registered("corp")
    end = (datetime.now(UTC) + timedelta(hours=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    issued = await site.issue(client, WWW, notAfter=end)
    assert issued.leaf.not_after.strftime("%Y-%m-%dT%H:%M:%SZ") == end


async def test_profile_is_in_the_directory_cert_manager(new_site: NewSite) -> None:
    site = await new_site(corp={**PREVALIDATED, "profiles": {"short": "an hour"}}, short=PREVALIDATED)
    client = await site.registered("corp")
    for name in (await client.get("directory")).json["meta"]["profiles"]:
        assert (await client.order(WWW, profile=name)).json["profile"] == name


async def test_duplicate_orders_cert_manager(site: Site) -> None:
    client = await site.registered("corp")
    orders = await asyncio.gather(*[client.post("new-order", ordered(), nonce=await client.new_nonce()) for _ in range(4)])
    assert [order.status for order in orders] == [201] * 4
    assert len({order.location for order in orders}) == 4


def ordered() -> dict[str, Any]:
    return {"identifiers": [{"type": "dns", "value": WWW}]}


# lego, Traefik, Caddy


async def test_identifiers_come_back_as_they_were_sent_lego(site: Site) -> None:
    client = await site.registered("corp")
    names = ["b.corp.test", "a.corp.test", "*.corp.test"]
    order = await client.order(*names, "b.corp.test")
    assert [each["value"] for each in order.json["identifiers"]] == names


async def test_order_is_long_polled_lego_and_caddy(new_site: NewSite, ca: Ca) -> None:
    """A read of an order that is processing waits for its end: 30 s are all that lego gives it."""
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "1s"})
    client, order, csr = await ready(site)
    ca.seconds = 3
    assert (await client.post(order.json["finalize"], csr)).json["status"] == "processing"
    answer = await client.post(order.location)
    assert answer.json["status"] == "valid"


async def test_retry_after_wherever_something_is_awaited_acmez(new_site: NewSite, ca: Ca) -> None:
    """Without it Caddy asks four times a second."""
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "1s"}, lab={"validation": {"attempt_every": "2s"}})
    client, order, csr = await ready(site)
    ca.seconds = 3
    assert (await client.post(order.json["finalize"], csr)).header("Retry-After")
    proving = await site.registered("lab")
    [url] = (await proving.order("www.demo.test")).json["authorizations"]
    [challenge] = [each for each in (await proving.post(url)).json["challenges"] if each["type"] == "http-01"]
    tried = await proving.post(challenge["url"], {})
    assert tried.json["status"] == "processing"
    assert tried.header("Retry-After")
    assert (await proving.post(url)).header("Retry-After")
    await site.poll(client, order.location, {"processing"})


# win-acme, simple-acme, Posh-ACME


async def test_slow_ca_is_waited_for_at_finalize_win_acme(site: Site, ca: Ca) -> None:
    """It polls an order four times, two seconds apart: what takes up to 8 s must be over when finalize is answered."""
    client, order, csr = await ready(site)
    ca.seconds = 6
    answer = await client.post(order.json["finalize"], csr)
    assert answer.json["status"] == "valid"


async def test_orders_list_is_read_win_acme(site: Site) -> None:
    client = await site.registered("corp")
    orders = [(await client.order(f"h{number}.corp.test")).location for number in range(3)]
    assert client.kid is not None
    listed = (await client.post((await client.post(client.kid)).json["orders"])).json["orders"]
    assert sorted(listed) == sorted(orders)


async def test_orders_list_has_pages(site: Site) -> None:
    client = await site.registered("corp")
    made = {(await client.order(WWW)).location for _ in range(53)}
    found: list[str] = []
    url = f"{client.kid}/orders"
    while url:
        page = await client.post(url)
        assert page.status == 200
        found += page.json["orders"]
        url = page.links.get("next", [""])[0]
    assert len(found) == 53
    assert set(found) == made


async def test_finalize_url_in_every_view_posh_acme(site: Site) -> None:
    client, order, csr = await ready(site)
    done = await client.post(order.json["finalize"], csr)
    for view in (order, done, await client.post(order.location)):
        assert view.json["finalize"] == order.json["finalize"]


# mod_md, dehydrated, uacme, acme-tiny


async def test_media_types_are_exact_mod_md(site: Site) -> None:
    client, order, csr = await ready(site)
    done = await client.post(order.json["finalize"], csr)
    chain = await client.post(done.json["certificate"])
    assert done.header("Content-Type") == "application/json"
    assert chain.header("Content-Type") == "application/pem-certificate-chain"
    assert (await client.post(order.location, {})).header("Content-Type") == "application/problem+json"


async def test_nonces_live_for_an_hour_dehydrated(site: Site) -> None:
    """0.7.0 has no second try after badNonce."""
    client = await site.registered()
    old = await client.new_nonce()
    site.service.clock.ahead += timedelta(minutes=59)
    assert (await client.post(client.kid or "", nonce=old)).status == 200
    older = await client.new_nonce()
    site.service.clock.ahead += timedelta(minutes=62)
    assert (await client.post(client.kid or "", nonce=older)).problem == "badNonce"


async def test_nonces_survive_a_restart_dehydrated(tmp_path: Path) -> None:
    first = await start_site(tmp_path, corp=PREVALIDATED)
    client = await first.registered("corp")
    unused, used = await client.new_nonce(), await client.new_nonce()
    assert (await client.post(client.kid or "", nonce=used)).status == 200
    await first.close()
    second = await start_site(tmp_path, worker="test:2", corp=PREVALIDATED)
    client.port = second.service.tls_port
    try:
        assert (await client.post(client.kid or "", nonce=used)).problem == "badNonce"
        assert (await client.post(client.kid or "", nonce=unused)).status == 200
        assert (await client.post(client.kid or "", nonce=unused)).problem == "badNonce"
    finally:
        await second.close()


async def test_account_url_by_onlyreturnexisting_dehydrated(site: Site) -> None:
    client = await site.registered()
    found = await client.post("new-account", {"onlyReturnExisting": True}, jwk=True)
    assert (found.status, found.location) == (200, client.kid)


STATUSES = {
    "order": {"pending", "ready", "processing", "valid", "invalid"},
    "authorization": {"pending", "valid", "invalid", "deactivated", "expired", "revoked"},
    "challenge": {"pending", "processing", "valid", "invalid"},
}


async def test_statuses_are_those_of_the_standard_uacme(site: Site) -> None:
    """It stops at what it does not know."""
    client = await site.registered()
    order = await client.order("www.demo.test")
    for _ in range(2):
        authorization = await client.post(order.json["authorizations"][0])
        assert authorization.json["status"] in STATUSES["authorization"]
        assert {each["status"] for each in authorization.json["challenges"]} <= STATUSES["challenge"]
        assert (await client.post(order.location)).json["status"] in STATUSES["order"]
        await site.prove(client, order)


async def test_nonce_before_each_request_by_get_acme_tiny(site: Site) -> None:
    client = site.client()
    client.key = Key(generate_private_key("rsa-2048"))
    for path, payload in (("new-account", {"termsOfServiceAgreed": True}), ("new-account", {})):
        nonce = (await client.get("new-nonce")).nonce
        answer = await client.post(path, payload, jwk=True, nonce=nonce)
        assert answer.status in {200, 201}


# npm acme-client, FortiGate, Proxmox, Synology, Apple


async def test_alternate_chains_acme_client(new_site: NewSite, tmp_path: Path) -> None:
    make_folder(tmp_path)
    chain = (tmp_path / "ca" / "issuing.pem").read_bytes() + (tmp_path / "ca" / "root.pem").read_bytes()
    (tmp_path / "ca" / "alternate.pem").write_bytes(chain)
    site = await new_site(corp={**PREVALIDATED, "alternate_chains": ["ca/alternate.pem"]})
    client = await site.registered("corp")
    issued = await site.issue(client, WWW)
    url = issued.answer.json["certificate"]
    first = await client.post(url)
    [alternate] = first.links["alternate"]
    second = await client.post(alternate)
    assert second.links["alternate"] == [url]
    assert pem_to_ders(second.body)[0] == issued.chain[0]


async def test_common_name_is_a_name_of_the_order_acme_client(site: Site) -> None:
    client = await site.registered("corp")
    order = await client.order(WWW)
    csr = csr_for(order, generate_private_key("ec-p256"), subject=f"CN={WWW}")
    done = await client.post(order.json["finalize"], {"csr": csr})
    assert done.json["status"] == "valid"


async def test_finalize_is_polled_fortigate(new_site: NewSite, ca: Ca) -> None:
    """It asks how far an order is by sending finalize again."""
    site = await new_site(corp={**PREVALIDATED, "finalize_wait": "1s"})
    client, order, csr = await ready(site)
    ca.seconds = 3
    seen: list[str] = []
    while not seen or seen[-1] == "processing":
        answer = await client.post(order.json["finalize"], csr)
        assert answer.status == 200
        seen.append(answer.json["status"])
    assert seen[0] == "processing"
    assert seen[-1] == "valid"
    assert ca.signed == 1
    rows = await site.service.gateway.store.list_rows(frozenset(LedgerState), "corp", 10)
    assert len(rows) == 1


async def test_eab_with_further_jwk_members_proxmox(new_site: NewSite) -> None:
    site = await new_site(corp=PREVALIDATED)
    secret = await site.bind("corp", "kid-p")
    client = site.client("corp")
    inner = bind(client.key, "kid-p", secret, f"{site.base('corp')}/new-account", jwk_extra={"use": "sig", "alg": "ES256"})
    assert (await client.register(externalAccountBinding=inner)).status == 201


async def test_padded_csr_synology(new_site: NewSite) -> None:
    site = await new_site(corp={**PREVALIDATED, "padded_csr": True}, lab=PREVALIDATED)
    for profile, status in (("corp", 200), ("lab", 400)):
        client, order, csr = await ready(site, profile)
        raw = base64.urlsafe_b64decode(csr["csr"] + "==")
        padded = base64.urlsafe_b64encode(raw).decode()
        padded = padded if padded.endswith("=") else padded + "===="
        answer = await client.post(order.json["finalize"], {"csr": padded})
        assert answer.status == status


async def test_urls_are_never_rewritten_apple(site: Site) -> None:
    """Whatever a proxy makes of Host, all URLs are below the configured one."""
    client = await site.registered("corp")
    other = {"Host": "inner.example:8443", "X-Forwarded-Host": "evil.example"}
    directory = await client.send("GET", "directory", headers=other)
    assert directory.json["newOrder"].startswith(client.base)
    order = await client.post("new-order", ordered(), headers=other)
    text = order.body.decode() + order.location + str(order.links)
    assert "inner.example" not in text
    assert "evil.example" not in text


# everybody


async def test_pending_orders_wait_for_a_week(site: Site) -> None:
    client = await site.registered()
    order = await client.order("www.demo.test")
    assert datetime.fromisoformat(order.json["expires"]) - datetime.now(UTC) > timedelta(days=6, hours=23)


async def test_head_of_new_nonce_has_no_body_and_connections_stay(site: Site) -> None:
    client = site.client()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port, ssl=client.tls, server_hostname="localhost")
    try:
        for method in ("HEAD", "GET", "HEAD"):
            writer.write(f"{method} /acme/demo/new-nonce HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async with asyncio.timeout(5):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert "replay-nonce:" in head
            assert "transfer-encoding" not in head
            assert "connection: close" not in head
    finally:
        writer.close()


async def test_fifteen_percent_of_bad_nonces_lose_no_certificate(site: Site) -> None:
    """The client corrupts them on their way, and does what the standard says: once more, with the nonce of the refusal."""
    chance = random.Random(15)
    client = await site.registered("corp")
    refused = 0

    async def post(path: str, payload: object = READ) -> Answer:
        nonlocal refused
        while True:
            answer = await client.post(path, payload)
            if answer.status != 400 or answer.problem != "badNonce":
                return answer
            refused += 1

    client.corrupts = lambda nonce: nonce[:-4] + "AAAA" if chance.random() < 0.15 else nonce
    for _ in range(15):
        order = await post("new-order", ordered())
        assert order.status == 201
        done = await post(order.json["finalize"], {"csr": csr_for(order, generate_private_key("ec-p256"))})
        assert done.json["status"] == "valid"
        assert (await post(done.json["certificate"])).status == 200
    assert refused > 2
