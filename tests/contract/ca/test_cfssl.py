"""cfssl, Debian's of 2016, and a scripted one for what a real one does seldom."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.ca.circuit import GuardedCA
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamIssued,
    UpstreamRejected,
)
from gateway.ca.verify import verify_issued
from gateway.config.document import ConfigurationFaults
from gateway.errors import Rejection
from gateway.model import Extension, RevocationReason, SanKind
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import generate_private_key
from tests.contract.ca.scripted import Scripted, scripted
from tests.peers import cfssl
from tests.peers.cfssl import CfsslPeer
from tests.peers.opening import make_ca, make_request, opened

DNS = make_san(SanKind.DNS, "device-7.example.org")
API = "/api/v1/cfssl"


@pytest.fixture(scope="module")
def peer(require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CfsslPeer]:
    program = require_program(cfssl.PROGRAM, cfssl.PACKAGE)
    with cfssl.running(program, tmp_path_factory.mktemp("cfssl") / "ca") as found:
        yield found


def judge(ca: GuardedCA, request: IssueRequest, issued: UpstreamIssued) -> None:
    """Judge an answer as the gateway does."""
    now = datetime.now(UTC)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca.chain(), now, ca.capabilities)


async def issue(ca: GuardedCA, request: IssueRequest) -> UpstreamIssued:
    issued = await ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    judge(ca, request, issued)
    return issued


# a real one


@pytest.mark.parametrize("profile", ["devices", "guarded"])
async def test_issue_and_revoke(peer: CfsslPeer, profile: str) -> None:
    sans = (DNS, make_san(SanKind.IP, "192.0.2.7"), make_san(SanKind.IP, "2001:db8::7"), make_san(SanKind.EMAIL, "a@example.org"))
    async with opened(peer.section(profile)) as ca:
        request = make_request(sans=sans)
        issued = await issue(ca, request)
        assert issued.chain == peer.chain
        assert peer.issued(request.public_key) == [issued.certificate]
        serial = parse_certificate(issued.certificate).serial
        for reason in (RevocationReason.CESSATION_OF_OPERATION, RevocationReason.KEY_COMPROMISE):
            await ca.revoke(issued.certificate, serial, reason, datetime.now(UTC))
        assert ("revoked", issued.certificate) in peer.rows()
        with pytest.raises(UpstreamRejected, match="no such certificate"):
            await ca.revoke(issued.certificate, 7, RevocationReason.UNSPECIFIED, datetime.now(UTC))


@pytest.mark.parametrize("reason", RevocationReason)
async def test_reasons(peer: CfsslPeer, reason: RevocationReason) -> None:
    async with opened(peer.section()) as ca:
        issued = await issue(ca, make_request())
        await ca.revoke(issued.certificate, parse_certificate(issued.certificate).serial, reason, datetime.now(UTC))
        assert ("revoked", issued.certificate) in peer.rows()


async def test_a_doubt_is_never_repeated(peer: CfsslPeer) -> None:
    async with opened(peer.section()) as ca:
        assert not ca.capabilities & (Capability.REPEATABLE | Capability.FIND)
        with pytest.raises(UnknownResult, match="cannot be asked"):
            await ca.find(make_request())


async def test_names_of_the_grant_replace_those_of_the_request(peer: CfsslPeer) -> None:
    request = make_request(
        subject="serialNumber=4711,CN=Gerät 7,OU=a,OU=b,O=Example AG,L=Bern,ST=BE,C=CH",
        asked=("CN=wished,O=Wished", (make_san(SanKind.DNS, "wished.example.org"), make_san(SanKind.IP, "192.0.2.1"))),
    )
    async with opened(peer.section()) as ca:
        # Go writes several values of a kind into one place, which is another name
        with pytest.raises(UpstreamRejected, match="several values"):
            await ca.issue(request)
        request = make_request(
            subject="serialNumber=4711,CN=Gerät 7,OU=a,O=Example AG,L=Bern,ST=BE,C=CH", asked=("CN=wished,O=Wished", (DNS,))
        )
        await issue(ca, request)


async def test_rsa_request(peer: CfsslPeer) -> None:
    async with opened(peer.section()) as ca:
        await issue(ca, make_request(key=generate_private_key("rsa-2048")))


async def test_uris_become_something_else_and_are_found_out(peer: CfsslPeer) -> None:
    """cfssl of 2016 takes them for DNS names; newer ones certify them."""
    async with opened(peer.section()) as ca:
        request = make_request(sans=(DNS, make_san(SanKind.URI, "urn:example:7")))
        issued = await ca.issue(request)
        assert isinstance(issued, UpstreamIssued)
        with pytest.raises(Rejection) as caught:
            judge(ca, request, issued)
    assert "subject alternative names are not the granted ones" in caught.value.cause


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(make_request, subject="O=Example AG,CN=device"), "in the order C, ST, L, O, OU"),
        (partial(make_request, subject="O=Example AG+CN=device"), "several attributes in one place"),
        (partial(make_request, subject="CN=device,OU=b,OU=a"), "several values"),
        (partial(make_request, subject="UID=7,CN=device"), "in subjects only"),
        (partial(make_request, subject="CN=a,CN=b"), "several values"),
        (partial(make_request, subject="", asked=("CN=wished", (DNS,))), "add CN from the request"),
        (partial(make_request, sans=(), asked=("CN=device-7.example.org", (DNS,))), "alternative names of the request"),
        (partial(make_request, sans=(make_san(SanKind.UPN, "device@example.org"),)), "DNS names, addresses"),
        (partial(make_request, ekus=(eku_oid("clientAuth"),)), "extended key usage clientAuth, serverAuth"),
        (partial(make_request, usage=("keyAgreement",)), "key usage digitalSignature"),
        (partial(make_request, days=29), "for 30 days, 0:00:00, which is longer"),
        (partial(make_request, extensions=(Extension("1.3.6.1.4.1.99999.7", False, b"\x05\0"),)), "no further extensions"),
    ],
    ids=[
        "order",
        "place",
        "values",
        "attribute",
        "common-names",
        "adds-cn",
        "adds-names",
        "upn",
        "eku",
        "usage",
        "longer",
        "extension",
    ],
)
async def test_what_cfssl_would_not_certify_is_not_sent(peer: CfsslPeer, make: Callable[[], IssueRequest], sentence: str) -> None:
    request = make()  # now: a profile's expiry is compared with the time that a grant has left
    async with opened(peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match=sentence):
            await ca.issue(request)
    assert peer.issued(request.public_key) == []


async def test_a_shorter_life_is_taken(peer: CfsslPeer) -> None:
    async with opened(peer.section()) as ca:
        await issue(ca, make_request(days=60))


async def test_no_names_at_all(peer: CfsslPeer) -> None:
    async with opened(peer.section()) as ca:
        await issue(ca, make_request(sans=()))


async def test_a_profile_that_does_not_exist(peer: CfsslPeer) -> None:
    """cfssl takes `default` instead: its usages are other ones than granted, and `check` says so."""
    async with opened(peer.section("no-such")) as ca:
        with pytest.raises(UpstreamRejected, match="extended key usage clientAuth"):
            await ca.issue(make_request())
        [trial] = [trial for trial in await ca.check() if not trial.good]
    assert trial.subject == "profile"
    assert "the same as for a profile that does not exist" in trial.finding


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"profile": "guarded", "auth_key": None}, "authentication required"),
        ({"profile": "devices", "auth_key": cfssl.AUTH_KEY}, "no authentication provider"),
        ({"profile": "guarded", "auth_key": "00" * 16}, "invalid token"),
    ],
    ids=["missing", "needless", "wrong"],
)
async def test_auth_keys_that_are_not_taken(peer: CfsslPeer, tmp_path: Path, section: dict[str, Any], sentence: str) -> None:
    made = {name: value for name, value in peer.section(section["profile"]).items() if name != "auth_key"}
    if section["auth_key"] is not None:
        (tmp_path / "key").touch(0o600)
        (tmp_path / "key").write_text(section["auth_key"])
        made["auth_key"] = {"file": str(tmp_path / "key")}
    request = make_request()
    async with opened(made) as ca:
        with pytest.raises(AuthFailed, match=sentence):
            await ca.issue(request)
    assert peer.issued(request.public_key) == []


async def test_check(peer: CfsslPeer) -> None:
    async with opened(peer.section()) as ca:
        await ca.health()
        assert await ca.crl() is None  # 1.2 has none
        trials = await ca.check()
        backend: Any = ca.ca
        assert await backend.fetch_chain() == peer.chain[:1]
    assert [(trial.subject, trial.good) for trial in trials] == [("connection", True), ("chain", True), ("profile", True)]
    assert "digitalSignature; clientAuth, serverAuth; for 30 days" in trials[2].finding


async def test_it_is_down_and_comes_back(require_program: Callable[[str, str], str], tmp_path: Path) -> None:
    with cfssl.running(require_program(cfssl.PROGRAM, cfssl.PACKAGE), tmp_path / "ca") as peer:
        async with opened(peer.section()) as ca:
            await issue(ca, make_request())
            peer.stop()
            await asyncio.sleep(0.1)  # for its closed connections to be seen
            with pytest.raises(NotSent):
                await ca.issue(make_request())
            assert [(trial.subject, trial.good) for trial in await ca.check()] == [("connection", False)]
            peer.start()
            await issue(ca, make_request())
        assert len(peer.issued()) == 2


# configuration


@pytest.mark.parametrize(
    ("key", "sentence"), [("no hex", "hexadecimal"), ("0011", "shorter than 16 bytes"), ("001", "hexadecimal")], ids=str
)
def test_auth_keys_that_cannot_be_used(peer: CfsslPeer, tmp_path: Path, key: str, sentence: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(key)
    with pytest.raises(ConfigurationFaults) as caught:
        make_ca({**peer.section(), "auth_key": {"file": str(tmp_path / "key")}})
    [problem] = caught.value.problems
    assert problem.startswith("upstream_cas.there.auth_key: ")
    assert sentence in problem
    assert "no hex" not in problem.removesuffix("hexadecimal digits")


# a scripted one

INFO: dict[str, Any] = {
    "success": True,
    "result": {"certificate": "", "usages": cfssl.USAGES, "expiry": "720h"},
    "errors": [],
    "messages": [],
}
OK = {"success": True, "result": {}, "errors": [], "messages": []}


def error(code: int, message: str = "said") -> dict[str, Any]:
    return {"success": False, "result": None, "errors": [{"code": code, "message": message}], "messages": []}


@asynccontextmanager
async def play(peer: CfsslPeer, *answers: Any, **more: Any) -> AsyncIterator[tuple[Scripted, GuardedCA]]:
    async with scripted() as server:
        server.answers = {f"{API}/info": [(200, INFO)], f"{API}/sign": list(answers), f"{API}/authsign": list(answers)}
        async with opened(peer.section(url=server.url, **more)) as ca:
            yield server, ca


@pytest.mark.parametrize(
    "answer",
    [
        (400, error(11_100, "Insertion failed")),
        (400, error(11_000)),
        (400, error(2_000)),
        (400, error(1_000)),
        (400, error(7_500)),
        (400, error(10_100)),
        (500, error(0)),
        (500, b"<html>"),
        (502, b""),
        (200, b"<html>Welcome</html>"),
        (200, {}),
        (200, []),
        (200, OK),
        (200, {"success": True, "result": None}),
        (200, {"success": True, "result": {"certificate": 7}}),
        (200, {"success": True, "result": {"certificate": "no PEM"}}),
        (200, {"success": False, "errors": "none"}),
        (200, {"success": False, "errors": [7]}),
        (500, {"success": True, "result": {"certificate": ""}}),
        (404, b"404 page not found"),
        (302, b"", {"Location": "/elsewhere"}),
        (200, b" " * 300_000),
        (0, b""),
    ],
    ids=lambda answer: f"{answer[0]}-{str(answer[1])[:40]}",
)
async def test_answers_that_leave_a_doubt(peer: CfsslPeer, answer: Any) -> None:
    async with play(peer, answer) as (server, ca):
        with pytest.raises(UnknownResult):
            await ca.issue(make_request())
    assert len(server.bodies(f"{API}/sign")) == 1


async def test_two_certificates_for_one_request(peer: CfsslPeer) -> None:
    both = "".join(der_to_pem(der).decode() for der in peer.chain)
    async with play(peer, (200, {**OK, "result": {"certificate": both}})) as (_, ca):
        with pytest.raises(UnknownResult, match="no certificate"):
            await ca.issue(make_request())


@pytest.mark.parametrize("code", [5_100, 5_200, 9_002, 9_300, 1_300, 1_400, 400])
async def test_definite_refusals(peer: CfsslPeer, code: int) -> None:
    async with play(peer, (400, error(code, "not\nthat"))) as (_, ca):
        with pytest.raises(UpstreamRejected, match=r"^the CA refused the request: not that$"):
            await ca.issue(make_request())


@pytest.mark.parametrize("status", [429, 503])
async def test_answers_that_promise_that_nothing_was_done(peer: CfsslPeer, status: int) -> None:
    async with play(peer, (status, b"", {"Retry-After": "7"})) as (_, ca):
        with pytest.raises(Unavailable) as caught:
            await ca.issue(make_request())
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    "answer", [(500, b""), (200, b"<html>"), (200, {}), (400, error(7_100)), (404, b""), (503, b""), (0, b"")]
)
async def test_no_request_is_sent_to_a_profile_that_says_nothing(peer: CfsslPeer, answer: Any) -> None:
    async with play(peer, (200, OK)) as (server, ca):
        server.answers[f"{API}/info"] = [answer]
        with pytest.raises(NotSent):
            await ca.issue(make_request())
    assert server.bodies(f"{API}/sign") == []


@pytest.mark.parametrize(
    "info",
    [
        {"usages": ["digital signature", "what is this"], "expiry": "720h"},
        {"usages": None, "expiry": None},
        {"usages": [7, *cfssl.USAGES], "expiry": ""},
        {"usages": ["any"] * 100, "expiry": "a long time"},
        {},
    ],
    ids=str,
)
async def test_what_a_profile_does_not_say_is_judged_afterwards(peer: CfsslPeer, info: dict[str, Any]) -> None:
    leaf = der_to_pem(peer.chain[0]).decode()
    async with play(peer, (200, {**OK, "result": {"certificate": leaf}})) as (server, ca):
        server.answers[f"{API}/info"] = [(200, {**INFO, "result": info})]
        assert await ca.issue(make_request()) == UpstreamIssued(peer.chain[0], peer.chain)


async def test_a_profile_is_asked_for_now_and_then_only(peer: CfsslPeer) -> None:
    leaf = der_to_pem(peer.chain[0]).decode()
    async with play(peer, (200, {**OK, "result": {"certificate": leaf}}), label="second") as (server, ca):
        for _ in range(3):
            await ca.issue(make_request())
    assert server.bodies(f"{API}/info") == [{"label": "second", "profile": "devices"}]
    assert {body["label"] for body in server.bodies(f"{API}/sign")} == {"second"}


async def test_what_authsign_is_sent(peer: CfsslPeer) -> None:
    leaf = der_to_pem(peer.chain[0]).decode()
    section = peer.section("guarded")
    async with play(peer, (200, {**OK, "result": {"certificate": leaf}}), auth_key=section["auth_key"]) as (server, ca):
        await ca.issue(make_request())
    [sent] = server.bodies(f"{API}/authsign")
    request = base64.b64decode(sent["request"])
    assert hmac.digest(bytes.fromhex(cfssl.AUTH_KEY), request, hashlib.sha256) == base64.b64decode(sent["token"])
    assert json.loads(request)["hosts"] == [DNS.value]


@pytest.mark.parametrize(
    ("answers", "error_"),
    [
        ([(200, OK)], None),
        ([(400, error(11_200)), (200, OK)], None),
        ([(400, error(11_200))], UpstreamRejected),
        ([(404, b"404 page not found")], UpstreamRejected),
        ([(400, error(11_000))], UnknownResult),
        ([(500, b"<html>")], UnknownResult),
        ([(200, b"<html>")], UnknownResult),
        ([(503, b"")], Unavailable),
        ([(0, b"")], UnknownResult),
    ],
    ids=str,
)
async def test_answers_to_a_revocation(peer: CfsslPeer, answers: list[Any], error_: type[Exception] | None) -> None:
    async with play(peer) as (server, ca):
        server.answers[f"{API}/revoke"] = answers
        if error_ is None:
            await ca.revoke(peer.chain[0], 7, RevocationReason.AA_COMPROMISE, datetime.now(UTC))
        else:
            with pytest.raises(error_):
                await ca.revoke(peer.chain[0], 7, RevocationReason.AA_COMPROMISE, datetime.now(UTC))
    key_id = parse_certificate(peer.chain[0]).authority_key_id
    assert key_id is not None
    assert server.bodies(f"{API}/revoke")[0] == {"serial": "7", "authority_key_id": key_id.hex(), "reason": "aacompromise"}


async def test_crls(peer: CfsslPeer) -> None:
    async with play(peer) as (server, ca):
        assert await ca.crl() is None
        server.answers[f"{API}/crl"] = [(200, {**OK, "result": base64.b64encode(b"\x30\0").decode()})]
        assert await ca.crl() == b"\x30\0"
        for answer in ((200, {**OK, "result": "=!"}), (400, error(11_000)), (500, b""), (200, b"<html>")):
            server.answers[f"{API}/crl"] = [answer]
            with pytest.raises(NotSent):
                await ca.crl()


async def test_another_signer(peer: CfsslPeer) -> None:
    async with play(peer) as (server, ca):
        server.answers[f"{API}/info"] = [
            (200, {**INFO, "result": {**INFO["result"], "certificate": der_to_pem(peer.chain[1]).decode()}})
        ]
        assert [(trial.subject, trial.good) for trial in await ca.check()][1] == ("chain", False)
        server.answers[f"{API}/info"] = [(200, INFO)]
        assert [(trial.subject, trial.good) for trial in await ca.check()] == [("connection", False)]
