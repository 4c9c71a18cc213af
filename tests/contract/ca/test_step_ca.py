"""step-ca, a real one built from Debian's packages, and a scripted one for what a real one does seldom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.ca.bootstrap import KeyChoice, create_hierarchy
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
from gateway.ca.local import CaUrls
from gateway.ca.verify import verify_issued
from gateway.config.document import ConfigurationFaults
from gateway.model import Extension, RevocationReason, SanKind
from gateway.pki import base64url
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.jwe import decrypt_jwe
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.pki.names import format_name
from tests.contract.ca.scripted import Scripted, scripted
from tests.peers import step_ca
from tests.peers.opening import make_ca, make_request, opened
from tests.peers.step_ca import StepPeer

pytestmark = pytest.mark.timeout(900)
DNS = make_san(SanKind.DNS, "device-7.example.org")
PROVISIONERS = ("gateway", "granting", "x5c")


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> Path:
    return step_ca.require(pytestconfig)


@pytest.fixture(scope="module")
def peer(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepPeer]:
    with step_ca.running(program, tmp_path_factory.mktemp("step") / "ca") as found:
        yield found


async def issue(ca: GuardedCA, request: IssueRequest) -> UpstreamIssued:
    """Issue, and have the answer judged as the gateway does."""
    issued = await ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    now = datetime.now(UTC)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca.chain(), now, ca.capabilities)
    return issued


# a real one


@pytest.mark.parametrize("provisioner", PROVISIONERS)
async def test_issue_and_revoke(peer: StepPeer, provisioner: str) -> None:
    sans = (DNS, make_san(SanKind.IP, "192.0.2.7"), make_san(SanKind.EMAIL, "a@example.org"), make_san(SanKind.URI, "urn:x:7"))
    async with opened(peer.section(provisioner)) as ca:
        request = make_request(sans=sans)
        issued = await issue(ca, request)
        assert issued.chain == peer.chain
        assert peer.issued(request.public_key) == [issued.certificate]
        serial = parse_certificate(issued.certificate).serial
        for reason in (RevocationReason.SUPERSEDED, RevocationReason.KEY_COMPROMISE):
            await ca.revoke(issued.certificate, serial, reason, datetime.now(UTC))


@pytest.mark.parametrize("provisioner", PROVISIONERS)
async def test_one_request_yields_one_certificate_whatever_is_sent_again(peer: StepPeer, provisioner: str) -> None:
    request = make_request()
    async with opened(peer.section(provisioner)) as ca, opened(peer.section(provisioner)) as another_worker:
        await issue(ca, request)
        for again in (ca, another_worker):
            with pytest.raises(UnknownResult, match="has taken the token of this request before"):
                await again.issue(request)
        assert len(peer.issued(request.public_key)) == 1
        await issue(ca, make_request())


async def test_sent_twice_at_once(peer: StepPeer) -> None:
    request = make_request()
    async with opened(peer.section()) as ca:
        results = await asyncio.gather(*(ca.issue(request) for _ in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["UnknownResult"] * 3 + ["UpstreamIssued"]
    assert len(peer.issued(request.public_key)) == 1


async def test_used_tokens_outlive_step_ca(program: Path, tmp_path: Path) -> None:
    request = make_request()
    with step_ca.running(program, tmp_path / "ca") as peer:
        async with opened(peer.section(keeps_tokens=True)) as ca:
            assert Capability.REPEATABLE in ca.capabilities
            await issue(ca, request)
            peer.stop()
            await asyncio.sleep(0.1)  # for its closed connections to be seen
            with pytest.raises(NotSent):
                await ca.issue(make_request())
            peer.start()
            with pytest.raises(UnknownResult, match="before"):
                await ca.issue(request)
        assert len(peer.issued(request.public_key)) == 1


async def test_without_a_database_nothing_is_repeated_nor_revoked(program: Path, tmp_path: Path) -> None:
    with step_ca.running(program, tmp_path / "ca", database=False) as peer:
        async with opened(peer.section()) as ca:
            assert Capability.REPEATABLE not in ca.capabilities
            issued = await issue(ca, make_request())
            serial = parse_certificate(issued.certificate).serial
            with pytest.raises(UpstreamRejected, match="keeps no database"):
                await ca.revoke(issued.certificate, serial, RevocationReason.UNSPECIFIED, datetime.now(UTC))


async def test_rsa_request(peer: StepPeer) -> None:
    async with opened(peer.section()) as ca:
        await issue(ca, make_request(key=generate_private_key("rsa-2048"), usage=("digitalSignature", "keyEncipherment")))


async def test_everything_granted_is_certified_by_the_template(peer: StepPeer) -> None:
    """The request asks for other names, usages are the grant's, and there is an extension of nobody's."""
    sans = (DNS, make_san(SanKind.UPN, "device@example.org"), make_san(SanKind.SID, "S-1-5-21-1-2-3-4"))
    request = make_request(
        subject="DC=org,DC=example,O=Example AG,OU=b,OU=a,CN=Gerät 7,emailAddress=a@example.org,serialNumber=4711",
        sans=sans,
        asked=("CN=wished,O=Wished", (make_san(SanKind.DNS, "wished.example.org"), make_san(SanKind.IP, "192.0.2.1"))),
        usage=("digitalSignature", "keyAgreement"),
        ekus=(eku_oid("clientAuth"), eku_oid("smartcardLogon")),
        extensions=(Extension("1.3.6.1.4.1.99999.7", True, b"\x0c\x05hello"),),
    )
    async with opened(peer.section("granting")) as ca:
        leaf = parse_certificate((await issue(ca, request)).certificate)
        assert "wished" not in format_name(leaf.subject)
        await issue(ca, make_request(subject="", sans=sans, asked=("CN=wished", ())))
        await issue(ca, make_request(sans=(DNS,), usage=(), ekus=()))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (make_request(subject="O=Example AG,CN=device"), "one common name"),
        (make_request(subject=""), "one common name"),
        (make_request(sans=()), "without alternative names"),
        (make_request(sans=(make_san(SanKind.UPN, "device@example.org"),)), "DNS names, addresses"),
        (make_request(ekus=(eku_oid("clientAuth"),)), "serverAuth and clientAuth"),
        (make_request(usage=("digitalSignature", "keyEncipherment")), "digitalSignature"),
        (make_request(extensions=(Extension("1.3.6.1.4.1.99999.7", False, b"\x05\0"),)), "no further extensions"),
    ],
    ids=["subject", "no-subject", "no-names", "upn", "eku", "usage", "extension"],
)
async def test_what_the_default_template_would_not_certify_is_not_sent(
    peer: StepPeer, request_: IssueRequest, sentence: str
) -> None:
    async with opened(peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match=sentence):
            await ca.issue(request_)
    assert peer.issued(request_.public_key) == []


async def test_several_attributes_in_one_place_are_not_sent(peer: StepPeer) -> None:
    async with opened(peer.section("granting")) as ca:
        with pytest.raises(UpstreamRejected, match="several attributes in one place"):
            await ca.issue(make_request(subject="O=Example AG+CN=device"))


@pytest.mark.parametrize(
    ("wished", "sentence"),
    [
        ({"asked": ("CN=wished", (DNS,))}, "common name"),
        ({"asked": ("", (make_san(SanKind.DNS, "wished.example.org"),))}, "DNS names"),
        ({"days": 300}, "more than the authorized maximum"),
        ({"days": 0.001}, "less than the authorized minimum"),
    ],
    ids=["common-name", "names", "too-long", "too-short"],
)
async def test_refusals_of_step_ca(peer: StepPeer, wished: dict[str, Any], sentence: str) -> None:
    request_ = make_request(**wished)
    async with opened(peer.section()) as ca:
        with pytest.raises(UpstreamRejected, match=f"the CA refused the request: .*{sentence}"):
            await ca.issue(request_)
        await issue(ca, make_request())
    assert peer.issued(request_.public_key) == []


async def test_a_provisioner_with_another_key(peer: StepPeer) -> None:
    section = peer.section()
    section["provisioner"] = {**section["provisioner"], "name": "granting"}
    async with opened(section) as ca:
        for _ in range(2):
            with pytest.raises(AuthFailed, match="does not take the provisioner's tokens"):
                await ca.issue(make_request())
        [trial] = [trial for trial in await ca.check() if not trial.good]
        assert (trial.subject, trial.finding) == ("token", "step-ca does not take the provisioner's tokens")
        with pytest.raises(AuthFailed):
            await ca.revoke(b"", 7, RevocationReason.UNSPECIFIED, datetime.now(UTC))


async def test_a_clock_that_is_wrong(peer: StepPeer) -> None:
    """Tokens of the past are refused; once the clock is right the same request is issued."""
    wrong = timedelta(hours=-1)

    def clock() -> datetime:
        return datetime.now(UTC) + wrong

    request = make_request()
    async with opened(peer.section(), clock=clock) as ca:
        with pytest.raises(AuthFailed):
            await ca.issue(request)
        wrong = timedelta(0)
        await issue(ca, request)


@pytest.mark.parametrize("provisioner", PROVISIONERS)
async def test_check(peer: StepPeer, provisioner: str) -> None:
    async with opened(peer.section(provisioner)) as ca:
        trials = await ca.check()
        await ca.health()
        assert await ca.crl() is None  # 0.19 has none
    assert all(trial.good for trial in trials)
    subjects = [trial.subject for trial in trials]
    assert subjects == ["connection", "chain", "token", *(["signer"] if provisioner == "x5c" else [])]


async def test_check_of_another_chain(peer: StepPeer, tmp_path: Path) -> None:
    other = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    (tmp_path / "issuing.pem").write_bytes(other.issuing.certificate)
    (tmp_path / "root.pem").write_bytes(other.root.certificate)
    async with opened(peer.section(chain=[str(tmp_path / "issuing.pem"), str(tmp_path / "root.pem")])) as ca:
        [trial] = [trial for trial in await ca.check() if not trial.good]
    assert trial.subject == "chain"


async def test_nobody_there(peer: StepPeer) -> None:
    async with opened(peer.section(url="https://localhost:9")) as ca:
        with pytest.raises(NotSent):
            await ca.issue(make_request())
        assert [(trial.subject, trial.good) for trial in await ca.check()] == [("connection", False)]


async def test_the_end_of_the_certificate_that_signs_tokens(peer: StepPeer) -> None:
    """Nothing is certified beyond it, and once it has come nothing is sent."""
    now = datetime.now(UTC)
    later = timedelta(0)
    async with opened(peer.section("x5c"), clock=lambda: now + later) as ca:
        limit = ca.not_after_limit(now)
        assert limit is not None
        assert timedelta(days=199) < limit - now < timedelta(days=201)
        with pytest.raises(UpstreamRejected, match="after the expiration of the provisioning credential"):
            await ca.issue(make_request(days=199.99999 + 1))
        later = timedelta(days=201)
        with pytest.raises(AuthFailed, match="not valid now"):
            await ca.issue(make_request())
    async with opened(peer.section()) as ca:
        assert (ca.not_after_limit(now) or now) > now + timedelta(days=3000)


# configuration


def write_secret(path: Path, text: str) -> dict[str, Any]:
    path.touch(0o600)
    path.write_text(text)
    return {"file": str(path)}


def fault_of(section: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationFaults) as caught:
        make_ca(section)
    [problem] = caught.value.problems
    return problem


def test_a_plain_jwk(peer: StepPeer, tmp_path: Path) -> None:
    plain = decrypt_jwe(json.dumps(peer.provisioners["gateway"]["full"]), step_ca.PASSWORD.encode()).decode()
    section = peer.section()
    section["provisioner"] = {"type": "jwk", "name": "gateway", "key": write_secret(tmp_path / "key", plain)}
    make_ca(section)
    section["provisioner"]["password"] = write_secret(tmp_path / "password", "x")
    assert "upstream_cas.there.provisioner.password: is given, but" in fault_of(section)


def test_faults_of_a_jwk(peer: StepPeer, tmp_path: Path) -> None:
    section = peer.section()
    right = section["provisioner"]
    section["provisioner"] = {name: value for name, value in right.items() if name != "password"}
    assert "upstream_cas.there.provisioner.password: is missing: file " in fault_of(section)
    section["provisioner"] = {**right, "password": write_secret(tmp_path / "password", "wrong")}
    assert fault_of(section).endswith("cannot be decrypted: the password is another one")
    section["provisioner"] = {"type": "jwk", "name": "x", "key": write_secret(tmp_path / "key", '{"kty":"EC"}')}
    assert fault_of(section).endswith("holds no private key")
    section["provisioner"] = {"type": "jwk", "name": "x", "key": write_secret(tmp_path / "umlaut", "ä")}
    assert fault_of(section).endswith("it is not ASCII text")


def test_faults_of_a_signer(peer: StepPeer, tmp_path: Path) -> None:
    section = peer.section("x5c")
    signer = section["provisioner"]["signer"]
    key = write_secret(tmp_path / "key", serialize_private_key(generate_private_key("ec-p256")).decode())
    section["provisioner"] = {**section["provisioner"], "signer": {**signer, "key": key}}
    assert "provisioner.signer.key" in fault_of(section)
    section["provisioner"]["signer"] = {
        "certificate": str(peer.folder / "issuing.pem"),
        "key": {"file": str(peer.folder / "issuing.key")},
    }
    assert fault_of(section).endswith("may not sign: its key usage lacks digitalSignature")


# a scripted one

REFUSED = {"status": 403, "message": "no"}
SIGN, REVOKE = "/1.0/sign", "/1.0/revoke"


@asynccontextmanager
async def play(peer: StepPeer, *answers: Any, **more: Any) -> AsyncIterator[tuple[Scripted, GuardedCA]]:
    """Give a server that answers a token that is tried with 403, and then so."""
    async with scripted() as server:
        server.answers[SIGN] = [(403, REFUSED), *answers]
        async with opened(peer.section(url=server.url, **more)) as ca:
            yield server, ca


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"status": 500, "message": "The certificate authority encountered an Internal Server Error."}),
        (502, b"<html>Bad Gateway</html>"),
        (504, b""),
        (200, b"<html>Welcome</html>"),
        (201, b"<html>Welcome</html>"),
        (201, {}),
        (201, []),
        (201, {"certChain": [7]}),
        (201, {"certChain": ["no PEM"]}),
        (201, {"crt": "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----"}),
        (201, {"certChain": []}),
        (403, b"<html>Forbidden by a firewall</html>"),
        (403, {"status": 400, "message": "not step-ca"}),
        (404, b"404 page not found"),
        (302, b"", {"Location": "/elsewhere"}),
        (201, b" " * 300_000),
        (201, b"[" * 100_000),
        (0, b""),
    ],
    ids=lambda answer: f"{answer[0]}-{str(answer[1])[:24]}",
)
async def test_answers_that_leave_a_doubt(peer: StepPeer, answer: Any) -> None:
    async with play(peer, answer) as (server, ca):
        with pytest.raises(UnknownResult):
            await ca.issue(make_request())
    assert len(server.bodies(SIGN)) == 2


@pytest.mark.parametrize(("status", "seconds"), [(429, 7), (503, 30)])
async def test_answers_that_promise_that_nothing_was_done(peer: StepPeer, status: int, seconds: int) -> None:
    headers = {"Retry-After": "7"} if status == 429 else {}
    async with play(peer, (status, b"", headers)) as (_, ca):
        with pytest.raises(Unavailable) as caught:
            await ca.issue(make_request())
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("answer", [(500, b""), (200, b"<html>"), (403, b"<html>"), (404, b""), (0, b""), (401, b"")])
async def test_a_token_that_is_tried_sends_no_request(peer: StepPeer, answer: Any) -> None:
    async with scripted() as server, opened(peer.section(url=server.url)) as ca:
        server.answers[SIGN] = [answer]
        with pytest.raises(NotSent):
            await ca.issue(make_request())
        assert len(server.bodies(SIGN)) == 1
        assert server.bodies(SIGN)[0]["notAfter"] == "2000-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("then", "error"),
    [((401, b""), AuthFailed), ((403, REFUSED), UnknownResult), ((500, b""), UnknownResult), ((0, b""), UnknownResult)],
)
async def test_a_request_that_is_unauthorized(peer: StepPeer, then: Any, error: type[Exception]) -> None:
    """The same 401 is for a used token and for a wrong one: another token is tried, and failing that the doubt stays."""
    async with play(peer, (401, {"status": 401, "message": "see the logs"}), then) as (_, ca):
        with pytest.raises(error) as caught:
            await ca.issue(make_request())
        assert type(caught.value) is error


async def test_what_is_sent(peer: StepPeer) -> None:
    issued = [der_to_pem(der).decode() for der in (peer.chain[0], peer.chain[0], peer.chain[1])]
    request = make_request()
    more = {"template_data": {"site": "north"}}
    async with play(peer, (201, {"certChain": issued, "crt": "ignored"}), **more) as (server, ca):
        answer = await ca.issue(request)
        assert isinstance(answer, UpstreamIssued)
        assert answer.chain == peer.chain
        await ca.issue(request)
        await ca.issue(make_request())
    _, first, again, other = server.bodies(SIGN)
    assert first["templateData"] == {"site": "north"}
    assert "notBefore" not in first
    assert first["notAfter"] == request.grant.not_after.strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens = [read_token(body["ott"]) for body in (first, again, other)]
    names = [token["jti"] for token in tokens]
    assert names[0] == names[1] != names[2]
    assert request.request_id not in str(tokens)
    assert tokens[0]["aud"] == f"https://127.0.0.1:{server.port}/1.0/sign"
    assert (tokens[0]["iss"], tokens[0]["sub"], tokens[0]["sans"]) == ("gateway", "device-7.example.org", [DNS.value])
    assert tokens[0]["exp"] - tokens[0]["iat"] == 300


def read_token(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1]))
    return claims


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, {"status": "ok"}), None),
        ((400, {"status": 400, "message": "certificate with serial number '7' is already revoked"}), None),
        ((400, {"status": 400, "message": "reasonCode out of bounds"}), UpstreamRejected),
        ((400, b"is already revoked, says a proxy"), UnknownResult),
        ((401, b""), AuthFailed),
        ((403, {"status": 403, "message": "error revoking certificate"}), UpstreamRejected),
        ((500, b""), UnknownResult),
        ((501, b""), UpstreamRejected),
        ((503, b""), Unavailable),
        ((0, b""), UnknownResult),
    ],
    ids=str,
)
async def test_answers_to_a_revocation(peer: StepPeer, answer: Any, error: type[Exception] | None) -> None:
    async with play(peer) as (server, ca):
        server.answers[REVOKE] = [answer]
        if error is None:
            await ca.revoke(b"", 7, RevocationReason.KEY_COMPROMISE, datetime.now(UTC))
        else:
            with pytest.raises(error):
                await ca.revoke(b"", 7, RevocationReason.KEY_COMPROMISE, datetime.now(UTC))
    [body] = server.bodies(REVOKE)
    assert (body["serial"], body["reasonCode"], body["passive"]) == ("7", 1, True)
    assert read_token(body["ott"])["sub"] == "7"


async def test_crls(peer: StepPeer) -> None:
    crl = b"\x30\x03\x02\x01\x07"
    async with play(peer) as (server, ca):
        for content in (crl, der_to_pem(crl, "X509 CRL")):
            server.answers["/1.0/crl"] = [(200, content)]
            assert await ca.crl() == crl
        for answer in ((404, b""), (501, b""), (200, b"")):
            server.answers["/1.0/crl"] = [answer]
            assert await ca.crl() is None
        for answer in ((500, b""), (200, b"<html>")):
            server.answers["/1.0/crl"] = [answer]
            with pytest.raises(NotSent):
                await ca.crl()


async def test_chains(peer: StepPeer) -> None:
    issuing, root = (der_to_pem(der).decode() for der in peer.chain)
    async with play(peer) as (server, guarded):
        ca: Any = guarded.ca
        server.answers["/roots"] = [(201, {"crts": [root]})]
        assert await ca.fetch_chain() == (peer.chain[1],)
        server.answers["/1.0/intermediates"] = [(201, {"crts": [issuing]})]
        assert await ca.fetch_chain() == peer.chain
        for answer in ((500, b""), (200, b"<html>"), (200, {"crts": ["x"]}), (200, {"crts": [7]})):
            server.answers["/roots"] = [answer]
            with pytest.raises(NotSent):
                await ca.fetch_chain()


@pytest.mark.parametrize("answer", [(500, b""), (200, b"<html>"), (200, {"status": "sick"}), (0, b"")], ids=str)
async def test_sickness(peer: StepPeer, answer: Any) -> None:
    async with play(peer) as (server, ca):
        server.answers["/health"] = [answer]
        with pytest.raises(NotSent):
            await ca.health()
