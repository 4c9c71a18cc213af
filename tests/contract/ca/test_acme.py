"""An ACME CA, Debian's pebble with external accounts and nonces that it refuses, and faults on the way to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.assemble.claims import StoredClaims
from gateway.ca.acme.backend import AcmeCA
from gateway.ca.acme.proofs import TURN_SECONDS
from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import (
    AuthFailed,
    IssueRequest,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.verify import verify_issued
from gateway.config.document import ConfigurationFaults
from gateway.errors import Rejection
from gateway.model import RevocationReason, SanKind
from gateway.pki import base64url
from gateway.pki.certificate import parse_certificate
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.store.sqlite import SqliteStore, migrate
from gateway.wire.acme.ari import format_certificate_id
from tests.contract.ca import fault_proxy as faults
from tests.contract.ca.fault_proxy import FaultProxy, between
from tests.contract.ca.scripted import Scripted, scripted
from tests.contract.ca.sites import make_server
from tests.flow.enrollment.world import AUDIT_KEY, KEYS, Clock
from tests.peers import pebble
from tests.peers.opening import make_ca, make_request, opened
from tests.peers.pebble import PebblePeer

USAGE = ("digitalSignature", "keyEncipherment")
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def peer(require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PebblePeer]:
    program = require_program(pebble.PROGRAM, pebble.PACKAGE)
    with pebble.running(program, tmp_path_factory.mktemp("pebble") / "ca") as found:
        yield found


@pytest.fixture(scope="module")
def calm(require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PebblePeer]:
    """A pebble that takes every nonce, so that faults meet the request that they are meant for, and proves each name anew."""
    program = require_program(pebble.PROGRAM, pebble.PACKAGE)
    folder = tmp_path_factory.mktemp("pebble") / "ca"
    with pebble.running(program, folder, PEBBLE_WFE_NONCEREJECT="0", PEBBLE_AUTHZREUSE="0") as found:
        yield found


def wanted(*names: str, **more: Any) -> IssueRequest:
    """Return a request for names; pebble's certificates last five years."""
    names = names or ("device-7.acme.test",)
    sans = tuple(make_san(SanKind.IP if name[0].isdigit() else SanKind.DNS, name) for name in names)
    subject = f"CN={names[0]}" if not names[0][0].isdigit() else "CN=x"
    return make_request(subject=subject, sans=sans, usage=USAGE, days=2000, **more)


def judge(ca: GuardedCA, request: IssueRequest, issued: UpstreamIssued) -> None:
    """Judge an answer as the gateway does."""
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)


async def follow(ca: GuardedCA, request: IssueRequest, reference: str) -> UpstreamIssued:
    """Ask about an order until its certificate is there, whatever goes wrong meanwhile."""
    async with asyncio.timeout(40):
        while True:
            try:
                answer = await ca.poll(request, reference)
                if isinstance(answer, UpstreamIssued):
                    judge(ca, request, answer)
                    return answer
            except UpstreamRejected:
                raise
            except (UpstreamError, Rejection):
                await asyncio.sleep(0.1)


async def issue(ca: GuardedCA, request: IssueRequest) -> UpstreamIssued:
    pending = await ca.issue(request)
    assert isinstance(pending, UpstreamPending)
    return await follow(ca, request, pending.reference)


@pytest.mark.parametrize("names", [("a.acme.test",), ("b.acme.test", "*.b.acme.test"), ("*.c.acme.test",)], ids=str)
async def test_dns_01(peer: PebblePeer, names: tuple[str, ...]) -> None:
    async with opened(peer.section()) as ca:
        request = wanted(*names)
        issued = await issue(ca, request)
    assert issued.chain == peer.chain
    assert peer.issued(request.public_key) == [issued.certificate]
    assert peer.updates.values == {}  # every record was removed


async def test_http_01(peer: PebblePeer) -> None:
    async with opened(peer.section(proof="http")) as ca:
        assert isinstance(ca.ca, AcmeCA)
        peer.thumbprint = ca.ca.thumbprint
        issued = await issue(ca, wanted("web.acme.test", "127.0.0.1"))
    assert issued.chain == peer.chain


async def test_http_01_proves_no_wildcard(peer: PebblePeer) -> None:
    async with opened(peer.section(proof="http")) as ca:
        request = wanted("*.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        with pytest.raises(UpstreamRejected, match=r"no way to prove \*\.acme\.test that is configured"):
            await ca.poll(request, pending.reference)


async def test_a_hook_puts_the_records(peer: PebblePeer, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ $1 = add ] && echo "$3" >> {tmp_path}/$2 || rm {tmp_path}/$2\n')
    hook.chmod(0o755)
    peer.dns.folders.append(tmp_path)
    section = peer.section(dns={"type": "hook", "command": [str(hook)]})
    async with opened(section) as ca:
        assert [trial.good for trial in await ca.check()] == [True, True, True]
        await issue(ca, wanted("hook.acme.test"))
    peer.dns.folders.remove(tmp_path)
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [(call[0], call[1]) for call in calls] == [(verb, "_acme-challenge.hook.acme.test") for verb in ("add", "remove")]


@pytest.mark.parametrize("body", ["exit 3", "exec sleep 5"], ids=["fails", "stalls"])
async def test_a_hook_that_fails_lets_the_request_wait(calm: PebblePeer, tmp_path: Path, body: str) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\n{body}\n")
    hook.chmod(0o755)
    async with opened(calm.section(dns={"type": "hook", "command": [str(hook)], "timeout": "1s"})) as ca:
        request = wanted("no-hook.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        with pytest.raises(NotSent, match="the program for DNS"):
            await ca.poll(request, pending.reference)


async def test_a_name_that_is_not_proved_ends_the_request(peer: PebblePeer) -> None:
    peer.thumbprint = "of-somebody-else"
    async with opened(peer.section(proof="http")) as ca:
        request = wanted("other.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        with pytest.raises(UpstreamRejected, match=r"^the CA has ended the order: "):
            await follow(ca, request, pending.reference)
    assert peer.issued(request.public_key) == []


async def test_an_order_is_asked_about_by_its_url(peer: PebblePeer) -> None:
    async with opened(peer.section()) as ca:
        request = wanted("found.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert await ca.find(request) is None  # whose URL is not on record, nobody finalizes
    async with opened(peer.section()) as ca:  # another process
        recorded = replace(request, reference=pending.reference)
        found = await ca.find(recorded)
        assert isinstance(found, UpstreamIssued)
        assert await ca.find(recorded) == found
    assert peer.issued(request.public_key) == [found.certificate]


async def test_many_at_once_have_one_certificate_each(peer: PebblePeer) -> None:
    async with opened(peer.section()) as ca:
        requests = [wanted(f"many-{number}.acme.test") for number in range(8)]
        issued = await asyncio.gather(*(issue(ca, request) for request in requests))
    for request, one in zip(requests, issued, strict=True):
        assert peer.issued(request.public_key) == [one.certificate]


@asynccontextmanager
async def several_workers(folder: Path, section: dict[str, Any], clock: Clock, count: int = 2) -> AsyncIterator[list[GuardedCA]]:
    """Give a CA as each of several workers has it: with connections of its own, and one store."""
    migrate(folder / "gateway.db", KEYS, AUDIT_KEY)
    async with AsyncExitStack() as stack:
        workers = []
        for number in range(count):
            store = SqliteStore(folder / "gateway.db", KEYS, AUDIT_KEY, f"w{number}", lambda _: None)
            await store.start()
            stack.push_async_callback(store.close)
            workers.append(await stack.enter_async_context(opened(section, claims=StoredClaims(store, clock))))
        yield workers


def make_hook(folder: Path, body: str = "") -> dict[str, Any]:
    """Return the section of a hook that notes when it is called."""
    hook = folder / "hook"
    hook.write_text(
        f'#!/bin/sh\n{body}\necho "$@" >> {folder}/calls\n[ $1 = add ] && echo "$3" >> {folder}/$2 || rm {folder}/$2\n'
    )
    hook.chmod(0o755)
    return {"type": "hook", "command": [str(hook)]}


def calls_of(folder: Path) -> list[str]:
    """Return what a hook was called for."""
    return [line.partition(" ")[0] for line in (folder / "calls").read_text().splitlines()]


async def test_one_of_two_workers_proves_an_order(peer: PebblePeer, tmp_path: Path) -> None:
    peer.dns.folders.append(tmp_path)
    section = peer.section(dns=make_hook(tmp_path, "sleep 0.5"))
    async with several_workers(tmp_path, section, Clock()) as (one, other):
        request = wanted("two.acme.test")
        pending = await one.issue(request)
        assert isinstance(pending, UpstreamPending)
        found = await asyncio.gather(*(follow(ca, request, pending.reference) for ca in (one, other)))
    peer.dns.folders.remove(tmp_path)
    assert found[0] == found[1]
    assert peer.issued(request.public_key) == [found[0].certificate]
    assert calls_of(tmp_path) == ["add", "remove"]


async def test_a_worker_goes_on_with_what_another_began_and_left(
    calm: PebblePeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn ends when nobody renews it; its records stay for whoever has the order now."""
    calm.dns.folders.append(tmp_path)
    section, clock = calm.section(dns=make_hook(tmp_path)), Clock()
    async with several_workers(tmp_path, section, clock) as (one, other):
        request = wanted("left.acme.test")
        pending = await one.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert isinstance(one.ca, AcmeCA)
        gate = asyncio.Event()
        monkeypatch.setattr(one.ca._prover, "_answer", lambda *_: gate.wait())
        standing = asyncio.create_task(one.poll(replace(request, timeout=3), pending.reference))
        while not (tmp_path / "calls").exists():
            await asyncio.sleep(0.02)
        assert isinstance(await other.poll(request, pending.reference), UpstreamPending)
        clock.advance(timedelta(seconds=TURN_SECONDS + 1))
        await follow(other, request, pending.reference)
        await standing
    calm.dns.folders.remove(tmp_path)
    assert len(calm.issued(request.public_key)) == 1


@pytest.mark.parametrize("again", ["another worker", "after a restart"])
async def test_an_order_that_the_ca_gives_again_serves_one_request(calm: PebblePeer, tmp_path: Path, again: str) -> None:
    async with spoiled(calm, tmp_path, "/order-plz") as (_, proxy):
        connection = {"anchors": str(tmp_path / "proxy.pem")}
        section = calm.section(f"{proxy.url}/dir", connection=connection)
        clock = Clock()
        async with several_workers(tmp_path, section, clock) as (one, other):
            first, second = wanted("shared.acme.test"), wanted("shared.acme.test")
            pending = await one.issue(first)
            assert isinstance(pending, UpstreamPending)
            if again == "after a restart":
                await one.close()
            proxy.faults.append(faults.FOREIGN)
            with pytest.raises(NotSent, match="serves another request"):
                await other.issue(second)
            with pytest.raises(UnknownResult, match="serves another one"):
                await other.poll(second, pending.reference)
            issued = [await follow(other, first, pending.reference), await issue(other, second)]
    for request, one_ in zip((first, second), issued, strict=True):
        assert calm.issued(request.public_key) == [one_.certificate]


async def test_an_order_of_a_request_that_was_refused_serves_the_next(calm: PebblePeer, tmp_path: Path) -> None:
    async with several_workers(tmp_path, calm.section(), Clock()) as (one, other):
        first, second = wanted("next.acme.test"), wanted("next.acme.test")
        pending = await one.issue(first)
        assert isinstance(pending, UpstreamPending)
        with pytest.raises(UpstreamRejected):
            await follow(one, replace(first, request=wanted("else.acme.test").request), pending.reference)
        await follow(other, second, pending.reference)
    assert len(calm.issued(second.public_key)) == 1


async def test_revokes_once_and_again(peer: PebblePeer) -> None:
    async with opened(peer.section()) as ca:
        issued = await issue(ca, wanted("gone.acme.test"))
        leaf = parse_certificate(issued.certificate)
        for _ in range(2):
            await ca.revoke(issued.certificate, leaf.serial, RevocationReason.SUPERSEDED, NOW)
    assert peer.status(leaf.serial) == "Revoked"


async def test_what_another_account_has_is_not_revoked(peer: PebblePeer, tmp_path: Path) -> None:
    async with opened(peer.section()) as ca:
        issued = await issue(ca, wanted("mine.acme.test"))
    leaf = parse_certificate(issued.certificate)
    async with opened(peer.section(account_key=_new_key(tmp_path))) as other:
        with pytest.raises(UpstreamRejected, match=r"^the CA does not revoke it: unauthorized"):
            await other.revoke(issued.certificate, leaf.serial, RevocationReason.SUPERSEDED, NOW)
    assert peer.status(leaf.serial) == "Valid"


def _new_key(folder: Path) -> dict[str, str]:
    key = generate_private_key("ec-p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pebble.write_key(folder / "other.key", key)
    return {"file": str(folder / "other.key")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"terms_agreed": False}, "the CA has terms of service .*: read them and set terms_agreed"),
        ({"external_account": None}, "set external_account"),
        ({"external_account": {"kid": "kid-9"}}, "the CA does not take our account: "),
    ],
    ids=["terms", "no-binding", "wrong-binding"],
)
async def test_an_account_that_the_ca_does_not_take(
    peer: PebblePeer, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    if change.get("external_account"):
        change["external_account"]["key"] = peer.section()["external_account"]["key"]
    async with opened(peer.section(account_key=_new_key(tmp_path), **change)) as ca:
        with pytest.raises(AuthFailed, match=sentence):
            await ca.issue(wanted())
        trials = {trial.subject: trial for trial in await ca.check()}
        assert not trials["account"].good
        assert "terms_agreed" in trials["account"].advice


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (make_request(subject="CN=x", sans=()), "host names and addresses, and the request has none"),
        (make_request(sans=(make_san(SanKind.URI, "urn:x:1"),)), "no other kind of name"),
        (
            make_request(asked=("CN=x", (make_san(SanKind.DNS, "else.example.org"),))),
            "the names of the request as they are, and others were granted",
        ),
    ],
    ids=["none", "uri", "others"],
)
async def test_what_no_acme_ca_certifies_is_refused_before_anything_is_sent(
    peer: PebblePeer, request_: IssueRequest, sentence: str
) -> None:
    async with opened(peer.section(directory="https://localhost:1/dir")) as ca:
        with pytest.raises(UpstreamRejected, match=sentence):
            await ca.issue(request_)


async def test_a_name_that_the_ca_refuses(peer: PebblePeer) -> None:
    async with opened(peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match=r"^the CA refused the request: "):
            await ca.issue(wanted("under_score.acme.test"))


async def test_check_and_renewal_hint(peer: PebblePeer) -> None:
    async with opened(peer.section(profile="tlsserver")) as ca:
        trials = {trial.subject: trial for trial in await ca.check()}
        assert {name: trial.good for name, trial in trials.items()} == {
            "connection": True,
            "account": True,
            "profile": False,
            "dns": True,
        }
        assert "it has no profiles" in trials["profile"].finding
        assert await ca.renewal_hint(peer.chain[0]) is None  # this pebble has no ARI


async def test_dns_that_refuses_us_lets_the_request_wait(peer: PebblePeer) -> None:
    peer.updates.rcode = "REFUSED"
    async with opened(peer.section()) as ca:
        request = wanted("late.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        with pytest.raises(AuthFailed, match="the DNS server answered REFUSED"):
            await ca.poll(request, pending.reference)
        peer.updates.rcode = None
        await follow(ca, request, pending.reference)
    assert len(peer.issued(request.public_key)) == 1


# Faults on the way


@asynccontextmanager
async def spoiled(calm: PebblePeer, folder: Path, *paths: str) -> AsyncIterator[tuple[GuardedCA, FaultProxy]]:
    """Give the CA behind a proxy that spoils requests to `paths`; pebble makes its URLs from the host that it is asked by."""
    tls, anchors = make_server(folder)

    def acts(request: web.Request) -> bool:
        return request.method == "POST" and request.path.startswith(paths)

    target = f"https://localhost:{calm.port}"
    async with between(target, acts, tls=tls, anchors=calm.folder / "tls.pem") as proxy:
        connection = {"anchors": str(anchors), "timeout": "1s", "connect_timeout": "1s"}
        async with opened(calm.section(f"{proxy.url}/dir", connection=connection)) as ca:
            yield ca, proxy


@pytest.mark.parametrize("fault", [*faults.BUSY, *faults.LOST_BEFORE, *faults.LOST_AFTER, faults.TWICE])
async def test_a_spoiled_finalization_ends_with_one_certificate(calm: PebblePeer, tmp_path: Path, fault: str) -> None:
    async with spoiled(calm, tmp_path, "/finalize-order/") as (ca, proxy):
        request = wanted("device-8.acme.test")
        proxy.faults.append(fault)
        issued = await issue(ca, request)
    assert not proxy.faults
    assert calm.issued(request.public_key) == [issued.certificate]


@pytest.mark.parametrize("fault", [*faults.BUSY, *faults.LOST_BEFORE, *faults.LOST_AFTER])
async def test_a_spoiled_order_is_safe_to_place_again(calm: PebblePeer, tmp_path: Path, fault: str) -> None:
    async with spoiled(calm, tmp_path, "/order-plz") as (ca, proxy):
        request = wanted("device-9.acme.test")
        proxy.faults.append(fault)
        with pytest.raises(NotSent) as caught:
            await ca.issue(request)
        assert isinstance(caught.value, Unavailable) == (fault in faults.BUSY)
        issued = await issue(ca, request)
    assert calm.issued(request.public_key) == [issued.certificate]


@pytest.mark.parametrize("path", ["/my-order/", "/certZ/", "/authZ/", "/chalZ/"])
@pytest.mark.parametrize("fault", ["reset after", "page", "garbled", "empty", "redirect", "busy 503"])
async def test_answers_that_are_spoiled_are_asked_for_again(calm: PebblePeer, tmp_path: Path, path: str, fault: str) -> None:
    async with spoiled(calm, tmp_path, path) as (ca, proxy):
        request = wanted("device-10.acme.test")
        proxy.faults.append(fault)
        issued = await issue(ca, request)
    assert not proxy.faults
    assert calm.issued(request.public_key) == [issued.certificate]


async def test_anothers_certificate_is_no_answer(calm: PebblePeer, tmp_path: Path) -> None:
    async with spoiled(calm, tmp_path, "/certZ/") as (ca, proxy):
        await issue(ca, wanted("first.acme.test"))
        request = wanted("second.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        proxy.faults.append(faults.FOREIGN)
        answer = await ca.poll(request, pending.reference)
        assert isinstance(answer, UpstreamIssued)
        with pytest.raises(Rejection):
            judge(ca, request, answer)
        found = await ca.find(replace(request, reference=pending.reference))
        assert isinstance(found, UpstreamIssued)
        judge(ca, request, found)
    assert calm.issued(request.public_key) == [found.certificate]


async def test_a_ca_that_is_away_gets_nothing(calm: PebblePeer, tmp_path: Path) -> None:
    async with spoiled(calm, tmp_path, "/finalize-order/") as (ca, proxy):
        request = wanted("away.acme.test")
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        await proxy.leave()
        with pytest.raises(NotSent):
            await ca.poll(request, pending.reference)
        with pytest.raises(NotSent):
            await ca.health()
        await proxy.listen()
        await follow(ca, request, pending.reference)
    assert len(calm.issued(request.public_key)) == 1


# What a CA is told of the certificate that is renewed (RFC 9773 §5)


def answer_orders(server: Scripted, *orders: Any, ari: bool = True) -> None:
    """Have a server answer as a CA with an account does, and orders so."""
    nonce = {"Replay-Nonce": "bm9uY2U"}
    names = {"newNonce": "/nonce", "newAccount": "/account", "newOrder": "/order", "revokeCert": "/revoke"}
    urls = {name: server.url + path for name, path in (names | ({"renewalInfo": "/ari"} if ari else {})).items()}
    server.answers |= {
        "/dir": [(200, urls)],
        "/nonce": [(200, b"", nonce)],
        "/account": [(200, {"status": "valid"}, nonce | {"Location": f"{server.url}/account/1"})],
        "/order": [(status, body, nonce | {"Location": f"{server.url}/order/1"}) for status, body in orders],
    }


def ordered(server: Scripted) -> list[Any]:
    """Return what orders were to replace."""
    return [json.loads(base64url.decode(body["payload"])).get("replaces") for body in server.bodies("/order")]


ORDER = {
    "status": "pending",
    "identifiers": [{"type": "dns", "value": "device-7.acme.test"}],
    "authorizations": [],
    "finalize": "https://localhost/f",
}


def problem(kind: str) -> dict[str, str]:
    return {"type": f"urn:ietf:params:acme:error:{kind}", "detail": "no"}


@pytest.mark.parametrize(
    ("answers", "replaced"),
    [
        pytest.param([(201, ORDER)], [True], id="taken"),
        pytest.param([(409, problem("alreadyReplaced")), (201, ORDER)], [True, False], id="replaced already"),
        pytest.param([(403, problem("unauthorized")), (201, ORDER)], [True, False], id="another account's"),
        pytest.param([(400, problem("malformed")), (201, ORDER)], [True, False], id="not understood"),
    ],
)
async def test_an_order_says_what_it_renews(peer: PebblePeer, answers: list[Any], replaced: list[bool]) -> None:
    async with opened(peer.section()) as ca:
        renewed = (await issue(ca, wanted())).certificate
    leaf = parse_certificate(renewed)
    assert leaf.authority_key_id is not None
    name = format_certificate_id(leaf.authority_key_id, leaf.serial)
    async with scripted() as server:
        answer_orders(server, *answers)
        async with opened(peer.section(f"{server.url}/dir", connection={})) as ca:
            assert isinstance(await ca.issue(replace(wanted(), renews=renewed)), UpstreamPending)
        assert ordered(server) == [name if said else None for said in replaced]


@pytest.mark.parametrize("why", ["nothing is renewed", "no ARI", "another CA's", "the CA is busy"])
async def test_an_order_that_renews_nothing_the_ca_knows(peer: PebblePeer, why: str) -> None:
    async with opened(peer.section()) as ca:
        renewed: bytes | None = (await issue(ca, wanted())).certificate
    if why == "another CA's":
        renewed = peer.chain[1]
    async with scripted() as server:
        answers = [(429, problem("rateLimited"))] if why == "the CA is busy" else [(201, ORDER)]
        answer_orders(server, *answers, ari=why != "no ARI")
        async with opened(peer.section(f"{server.url}/dir", connection={})) as ca:
            request = replace(wanted(), renews=None if why == "nothing is renewed" else renewed)
            if why == "the CA is busy":
                with pytest.raises(Unavailable):
                    await ca.issue(request)
            else:
                assert isinstance(await ca.issue(request), UpstreamPending)
        assert len(ordered(server)) == 1
        assert ordered(server)[0] is None or why == "the CA is busy"


# A hostile CA


@pytest.mark.parametrize(
    "directory",
    [
        b"<html>",
        [],
        {"newNonce": "x"},
        {name: f"https://elsewhere.example/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert")},
        {"newNonce": {"a": 1}, "newAccount": 7, "newOrder": None, "revokeCert": []},
    ],
    ids=["html", "list", "short", "other-server", "no-texts"],
)
async def test_directories_that_are_none(peer: PebblePeer, directory: object) -> None:
    async with scripted() as server:
        server.answers["/dir"] = [(200, directory)]
        async with opened(peer.section(f"{server.url}/dir", connection={})) as ca:
            with pytest.raises(NotSent):
                await ca.issue(wanted())
            assert not all(trial.good for trial in (await ca.check())[:2])
    assert {path for path, _ in server.asked} == {"/dir"}


@pytest.mark.parametrize(
    ("field", "file", "sentence"),
    [
        ("account_key", b"nonsense", "account_key"),
        ("external_account", b"not base64url!", "does not hold base64url"),
        ("dns", b"not base64!", "is no base64"),
    ],
)
def test_keys_that_cannot_be_used(peer: PebblePeer, tmp_path: Path, field: str, file: bytes, sentence: str) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(file)
    section = json.loads(json.dumps(peer.section()))
    if field == "account_key":
        section[field] = {"file": str(path)}
    else:
        section[field]["key"] = {"file": str(path)}
    with pytest.raises(ConfigurationFaults) as caught:
        make_ca(section)
    assert sentence in " ".join(map(str, caught.value.problems))
    assert file.decode() not in str(caught.value)
