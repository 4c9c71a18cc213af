"""What is true of every answer, whatever was asked: methods, media types, nonces, links, origins (RFC 8555 §6, §7.1, §7.2)."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.metrics.worker import REGISTRY
from gateway.ra.acme.terms import Busy, RateLimited
from gateway.web.generation import FailureLimit
from gateway.web.proxies import Proxies, TrustedProxy
from tests.flow.acme.client import JOSE, Client
from tests.flow.acme.front import ALIAS, BASE, LIMITS, Front

POSTED = (
    "new-account",
    "new-order",
    "new-authz",
    "revoke-cert",
    "key-change",
    "acct/a1",
    "acct/a1/orders",
    "order/o1",
    "order/o1/finalize",
    "authz/z1",
    "chall/z1/c1",
    "cert/o1",
    "cert/o1/1",
)
READ = ("acct/a1", "acct/a1/orders", "order/o1", "authz/z1", "chall/z1/c1", "cert/o1")
NONCE = re.compile(r"[A-Za-z0-9_-]{16,}")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_directory_needs_no_account(front: Front, method: str) -> None:
    answer = await front.client().send(method, "directory")
    assert answer.status == 200
    assert answer.header("Content-Type") == "application/json"
    assert "index" not in answer.links
    if method == "GET":
        assert answer.json["newNonce"] == f"{BASE}/new-nonce"


async def test_directory_advertises_only_what_answers(front: Front, client: Client) -> None:
    directory = (await client.get("directory")).json
    for name, url in directory.items():
        if name in {"meta", "renewalInfo"}:
            continue
        answer = await client.send("OPTIONS", url)
        assert answer.status == 204, name
    assert (await client.get(f"{directory['renewalInfo']}/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")).status == 200


async def test_head_of_new_nonce_is_200_and_get_204_without_bodies(front: Front) -> None:
    head, get = await front.client().send("HEAD", "new-nonce"), await front.client().get("new-nonce")
    assert (head.status, get.status) == (200, 204)
    assert head.nonce != get.nonce
    for answer in (head, get):
        assert NONCE.fullmatch(answer.nonce)
        assert answer.header("Cache-Control") == "no-store"
        assert answer.links["index"] == [f"{BASE}/directory"]
        assert answer.body == b""
    assert head.header("Content-Length") in {"0", None}


@pytest.mark.parametrize(("path", "status"), [("directory", 200), ("new-nonce", 204)])
async def test_directory_and_new_nonce_are_read_by_post_as_get_too(client: Client, path: str, status: int) -> None:
    answer = await client.post(path)
    assert answer.status == status
    assert answer.nonce


@pytest.mark.parametrize("path", POSTED)
async def test_get_is_405_with_problem_and_nonce(front: Front, path: str) -> None:
    answer = await front.client().get(path)
    assert (answer.status, answer.problem) == (405, "malformed")
    assert answer.header("Allow") == "POST, OPTIONS"
    assert answer.nonce


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "application/jose"])
async def test_other_media_types_are_415_with_nonce(client: Client, content_type: str) -> None:
    answer = await client.post("order/o1", headers={"Content-Type": content_type})
    assert (answer.status, answer.problem) == (415, "malformed")
    assert answer.nonce


async def test_media_type_may_have_parameters(client: Client) -> None:
    assert (await client.post("order/o1", headers={"Content-Type": f"{JOSE}; charset=utf-8"})).status == 200


async def test_large_body_is_413_with_problem_and_nonce(client: Client) -> None:
    answer = await client.post_jws("new-order", b" " * 40000)
    assert (answer.status, answer.problem) == (413, "malformed")
    assert answer.nonce
    assert answer.links["index"] == [f"{BASE}/directory"]


async def test_compressed_body_is_415_with_nonce(client: Client) -> None:
    answer = await client.post_jws("new-order", b"x", {"Content-Encoding": "gzip"})
    assert (answer.status, answer.problem) == (415, "malformed")
    assert answer.nonce


async def test_slow_body_is_a_problem_with_nonce(client: Client) -> None:
    answer = await client.send("POST", "new-order", b"{", {"Content-Type": JOSE, "Content-Length": "100"})
    assert (answer.status, answer.problem) == (408, "malformed")
    assert answer.nonce


@pytest.mark.parametrize("path", ["nothing", "order", "order/o1/finalize/x", "order/o1?x=1", "cert/o1/../o2", "order/%6f1", ""])
async def test_what_there_is_not_is_404_with_nonce(front: Front, path: str) -> None:
    answer = await front.client().get(path)
    assert (answer.status, answer.problem) == (404, "malformed")
    assert f"{BASE}/directory" in answer.json["detail"]
    assert answer.nonce


async def test_unknown_profile_is_404_with_problem(front: Front) -> None:
    answer = await front.client("https://localhost/acme/other").get("directory")
    assert (answer.status, answer.problem) == (404, "malformed")
    assert answer.nonce


async def test_redirects_are_never_sent(front: Front) -> None:
    client = front.client()
    for path in ("directory/", "", "new-nonce/"):
        answer = await client.get(path)
        assert answer.status == 404
        assert answer.header("Location") is None


async def test_http_is_refused_with_a_problem(front: Front) -> None:
    answer = await front.client(encrypted=False).get("directory")
    assert (answer.status, answer.problem) == (403, "malformed")
    assert "TLS" in answer.json["detail"]


async def test_tls_may_end_at_a_listed_proxy() -> None:
    front = Front(proxies=Proxies([TrustedProxy((ip_network("127.0.0.0/8"),), client_address=True)]))
    await front.start()
    client = front.client(encrypted=False)
    secured = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.9"}
    assert (await client.send("GET", "directory", headers=secured)).status == 200
    assert (await client.send("GET", "directory", headers={"X-Forwarded-Proto": "http"})).status == 403
    assert (await client.post("new-account", {}, jwk=True, nonce=front.authority.new_nonce(), headers=secured)).status == 201
    assert next(iter(front.authority.accounts.values())).source == "192.0.2.9"
    await front.close()


@pytest.mark.parametrize("path", [*READ, "new-order", "new-authz", "order/o1/finalize"])
async def test_every_post_gets_nonce_and_index(client: Client, path: str) -> None:
    name = {"type": "dns", "value": "www.example.com"}
    payloads: dict[str, Any] = {
        "new-order": {"identifiers": [name]},
        "new-authz": {"identifier": name},
        "order/o1/finalize": {"csr": "AAAA"},
    }
    answer = await client.post(path, payloads.get(path, b""))
    assert answer.status in {200, 201}
    assert NONCE.fullmatch(answer.nonce)
    assert answer.links["index"] == [f"{BASE}/directory"]
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (Rejection(Reason.POLICY_SAN, "no such name"), 403, "rejectedIdentifier"),
        (RateLimited("too many orders", 77), 429, "rateLimited"),
        (StoreUnavailable("/var/lib/pki-gateway/gateway.db is full"), 503, "serverInternal"),
        (Busy(Reason.OVERLOADED, 3), 503, "serverInternal"),
        (RuntimeError("secret inside"), 500, "serverInternal"),
    ],
    ids=["refused", "limited", "store", "busy", "fault"],
)
async def test_every_refusal_gets_a_nonce(front: Front, client: Client, error: Exception, status: int, problem: str) -> None:
    front.authority.answers["new_order"] = error
    with capture_logs():
        answer = await client.order("www.example.com")
    assert (answer.status, answer.problem) == (status, problem)
    assert NONCE.fullmatch(answer.nonce)
    assert answer.links["index"] == [f"{BASE}/directory"]
    assert b"secret" not in answer.body
    assert b"/var" not in answer.body


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(RateLimited("too many orders", 77), "77"), (Busy(Reason.OVERLOADED, 3), "3"), (StoreUnavailable("x"), "10")],
)
async def test_retry_after_is_in_whole_seconds(front: Front, client: Client, error: Exception, seconds: str) -> None:
    front.authority.answers["new_order"] = error
    assert (await client.order("www.example.com")).header("Retry-After") == seconds


async def test_rate_limit_names_a_page_that_helps(front: Front, client: Client) -> None:
    front.serve(help="https://www.example.com/acme")
    front.authority.answers["new_order"] = RateLimited("too many orders", 77)
    assert (await client.order("www.example.com")).links["help"] == ["https://www.example.com/acme"]


async def test_a_busy_worker_says_so_with_a_nonce(front: Front, client: Client) -> None:
    gate = front.authority.gates["find_order"] = asyncio.Event()
    nonces = [front.authority.new_nonce() for _ in range(LIMITS.in_flight)]
    waiting = [asyncio.create_task(client.post("order/o1", nonce=nonce)) for nonce in nonces]
    while front.authority.nonces.intersection(nonces):
        await asyncio.sleep(0.01)
    answer = await client.get("directory")
    assert (answer.status, answer.problem, answer.header("Retry-After")) == (503, "serverInternal", "1")
    assert answer.nonce
    gate.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


# Cross-origin requests (RFC 8555 §6.1)


async def test_other_origins_may_read_answers(front: Front, client: Client) -> None:
    for answer in (
        await client.send("GET", "directory", headers={"Origin": "https://app.example"}),
        await client.post("order/o1", headers={"Origin": "https://app.example"}),
        await client.send("GET", "order/o1", headers={"Origin": "https://app.example"}),
    ):
        assert answer.header("Access-Control-Allow-Origin") == "*"
        assert answer.header("Access-Control-Expose-Headers") == "Link, Replay-Nonce, Location, Retry-After"
    assert (await client.get("directory")).header("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize(("path", "method"), [("new-order", "POST"), ("directory", "GET"), ("new-nonce", "HEAD")])
async def test_preflight_allows_what_there_is(front: Front, path: str, method: str) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": method}
    answer = await front.client().send("OPTIONS", path, headers=headers)
    assert answer.status == 204
    assert method in str(answer.header("Access-Control-Allow-Methods")).split(", ")
    assert answer.header("Access-Control-Allow-Headers") == "Content-Type"
    assert answer.header("Access-Control-Max-Age") == "86400"
    assert answer.header("Access-Control-Allow-Origin") == "*"


async def test_preflight_does_not_allow_what_there_is_not(front: Front) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    answer = await front.client().send("OPTIONS", "new-order", headers=headers)
    assert answer.header("Access-Control-Allow-Methods") is None
    assert answer.header("Access-Control-Allow-Origin") is None


async def test_origins_may_be_a_list(front: Front) -> None:
    front.serve(cors_origins=("https://app.example",))
    good = await front.client().send("GET", "directory", headers={"Origin": "https://app.example"})
    bad = await front.client().send("GET", "directory", headers={"Origin": "https://evil.example"})
    assert (good.header("Access-Control-Allow-Origin"), good.header("Vary")) == ("https://app.example", "Origin")
    assert bad.header("Access-Control-Allow-Origin") is None


# Other URLs of the same directory


async def test_alias_is_a_directory_of_its_own_urls(front: Front) -> None:
    client = front.client(ALIAS)
    directory = (await client.get("directory")).json
    assert directory["newOrder"] == f"{ALIAS}/new-order"
    made = await client.register()
    assert made.status == 201
    # DNS records name an account by its URL, which must not depend on the way by which it was asked for
    assert made.location == f"{BASE}/acct/a1"
    order = await client.order("www.example.com")
    assert order.location == f"{ALIAS}/order/o1"
    assert order.json["finalize"] == f"{ALIAS}/order/o1/finalize"
    assert order.links["index"] == [f"{ALIAS}/directory"]


async def test_account_may_be_named_below_an_alias(front: Front, client: Client) -> None:
    assert (await client.post("order/o1", kid=f"{ALIAS}/acct/a1")).status == 200


async def test_alias_is_known_by_its_host(front: Front) -> None:
    answer = await front.client("https://other.example.com/acme").get("directory")
    assert answer.status == 404


# Many failures of one address


async def test_address_that_fails_too_often_is_sent_away_with_a_nonce(front: Front, client: Client) -> None:
    front.serve(failure_limit=FailureLimit(3, timedelta(minutes=1)), help="https://www.example.com/acme")
    with capture_logs() as lines:
        for _ in range(3):
            assert (await client.post("order/o1", url="https://evil.example/x")).status == 403
        answer = await client.post("order/o1")
    assert (answer.status, answer.problem) == (429, "rateLimited")
    assert 1 <= int(str(answer.header("Retry-After"))) <= 60
    assert answer.links["help"] == ["https://www.example.com/acme"]
    assert answer.nonce
    assert any(line["event"] == "too many failures of one address" for line in lines)


async def test_bad_nonces_and_unknown_accounts_are_no_failures(front: Front, client: Client) -> None:
    front.serve(failure_limit=FailureLimit(1, timedelta(minutes=1)))
    for _ in range(3):
        assert (await client.post("order/o1", nonce="AAAA")).problem == "badNonce"
        assert (await client.post("order/o1", kid=f"{BASE}/acct/a9")).problem == "accountDoesNotExist"
    assert (await client.get("renewal-info/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")).status == 200
    assert (await client.post("order/o1")).status == 200


# What operators see


def counted(operation: str, result: str, reason: str = "") -> float:
    labels = {"protocol": "acme", "profile": "corp", "operation": operation, "result": result, "reason": reason}
    return REGISTRY.get_sample_value("gateway_enrollments_total", labels) or 0.0


async def test_changes_are_logged_and_counted(front: Front, client: Client) -> None:
    before = counted("newOrder", "found")
    with capture_logs() as lines:
        await client.order("www.example.com")
    [line] = [line for line in lines if line["event"] == "acme"]
    assert line["log_level"] == "info"
    assert {name: line[name] for name in ("profile", "operation", "outcome", "order", "names", "requester", "source")} == {
        "profile": "corp",
        "operation": "newOrder",
        "outcome": "done",
        "order": "o1",
        "names": "www.example.com",
        "requester": "acme:a1",
        "source": "127.0.0.1",
    }
    assert counted("newOrder", "found") == before + 1


async def test_reads_are_not_logged_but_counted(front: Front, client: Client) -> None:
    before = counted("order", "found")
    with capture_logs() as lines:
        await client.post("order/o1")
    assert all(line["log_level"] == "debug" for line in lines if line["event"] == "acme")
    assert counted("order", "found") == before + 1


async def test_refusals_are_logged_counted_and_bounded(front: Front, client: Client) -> None:
    front.authority.answers["new_order"] = Rejection(Reason.POLICY_SAN, "no such name", "dns is not in the list")
    before = counted("newOrder", "rejected", "policy_san")
    with capture_logs() as lines:
        for _ in range(8):
            await client.order("www.example.com")
    told = [line for line in lines if line["event"] == "acme" and line.get("reason") == "policy_san"]
    assert len(told) == 5
    assert told[0]["cause"] == "dns is not in the list"
    assert counted("newOrder", "rejected", "policy_san") == before + 8
    await front.floods.flush()
    assert [(row.reason, row.count) for row in front.rows if row.reason is Reason.POLICY_SAN] == [(Reason.POLICY_SAN, 8)]


async def test_strangers_are_counted_and_not_named(front: Front) -> None:
    before = counted("unknown", "rejected", "malformed")
    answer = await front.client().post_jws("new-order", {"payload": ""})
    assert answer.problem == "malformed"
    assert counted("unknown", "rejected", "malformed") == before + 1


async def test_reload_is_in_force_for_the_next_request(front: Front, client: Client) -> None:
    front.serve(algorithms=("RS256",))
    answer = await client.post("order/o1")
    assert answer.problem == "badSignatureAlgorithm"
    assert answer.json["algorithms"] == ["RS256"]
    assert replace(front.generation.acme[next(iter(front.generation.acme))]).algorithms == ("RS256",)


async def test_bodies_are_compact_and_flat(client: Client) -> None:
    for answer in (await client.get("directory"), await client.post("order/o1"), await client.post("acct/a1", b"", nonce="AAAA")):
        assert answer.body == json.dumps(json.loads(answer.body), separators=(",", ":")).encode()
