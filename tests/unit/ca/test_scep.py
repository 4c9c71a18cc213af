"""A SCEP server as upstream CA: whom it is spoken to, what each answer means, and what a lost one comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.ca import scep
from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.interfaces import (
    Capability,
    NotSent,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.local import CaUrls
from gateway.ca.scep import ScepBackend, transaction_of
from gateway.ca.setup import Setup
from gateway.ca.verify import verify_issued
from gateway.config.fields import SecretSource
from gateway.config.load import Sources
from gateway.config.remote_cas import ScepCA
from gateway.errors import ConfigurationError, Reason
from gateway.model import CertificateRequest, UpstreamCAName
from gateway.pki import cms
from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.keys import generate_private_key, load_private_key, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep import operations, pkimessage
from gateway.wire.scep.client import self_signed_signer
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.pkimessage import MessageType
from tests.unit.ca.answering import BY_STATUS, DROP, Answer, Asked, Peer, answering, certify, chain_of, http, new_request

NAME = UpstreamCAName("plant")
CHALLENGE = "theirs-and-nobody-elses"
PKI = operations.MEDIA_PKI_MESSAGE
CAPS = b"AES\nPOSTPKIOperation\nSHA-256\nSCEPStandard\n"


def secret(name: str) -> str:
    return str(SecretSource.model_validate({"file": name}, strict=False))


@cache
def signer_of(name: str = "gateway", spec: str = "rsa-2048") -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, PEM."""
    key, now = generate_private_key(spec), datetime.now(UTC)
    made = self_signed_signer(key, parse_name_text(f"CN={name}").der, now - timedelta(hours=1), now + timedelta(days=90))
    return der_to_pem(made.certificate), serialize_private_key(key)


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(ca="rsa-2048"), CaUrls(), datetime.now(UTC))


@dataclass
class Server:
    """A SCEP server that issues all it is asked for, and lets wait or loses what it is told to."""

    hierarchy: Hierarchy
    ra: RaIdentity
    waits: bool = False
    loses: bool = False
    remembers: bool = True
    refuses: Reason | None = None
    issued: dict[str, bytes] = field(default_factory=dict)
    count: int = 0
    seen: list[pkimessage.PkiMessage] = field(default_factory=list)
    challenges: list[str | None] = field(default_factory=list)

    def answer(self, asked: Asked) -> bytes:
        if "GetCACaps" in asked.line:
            return http(200, CAPS)
        if "GetCACert" in asked.line:
            body, media_type = operations.ca_certificates(self.ra)
            return http(200, body, media_type)
        message = pkimessage.decode_pki_message(asked.body)
        pkimessage.verify_signature(message, self.ra, datetime.now(UTC))
        self.seen.append(message)
        reply = self._reply(message, pkimessage.decode_request(message, self.ra))
        return DROP if self.loses else http(200, reply, PKI)

    def _reply(self, message: pkimessage.PkiMessage, asked: object) -> bytes:
        if self.refuses is not None:
            return pkimessage.encode_failure(message, self.ra, self.refuses, "not you")
        if message.message_type is MessageType.CERT_POLL and message.transaction_id not in self.issued:
            return pkimessage.encode_failure(message, self.ra, Reason.UNKNOWN_TRANSACTION, "unknown")
        if isinstance(asked, CertificateRequest):
            self.challenges.append(asked.challenge_password)
            if message.transaction_id not in self.issued or not self.remembers:
                self.issued[message.transaction_id] = certify(self.hierarchy, asked.der)
                self.count += 1
        if self.waits:
            return pkimessage.encode_pending(message, self.ra)
        return pkimessage.encode_success(message, self.ra, (self.issued[message.transaction_id],))


@pytest.fixture
def server(hierarchy: Hierarchy) -> Server:
    certificate, key = signer_of("their RA")
    return Server(hierarchy, RaIdentity.create(*_ra(certificate, key), chain_of(hierarchy)))


def _ra(certificate: bytes, key: bytes) -> tuple[bytes, Any]:
    return pem_to_ders(certificate)[0], load_private_key(key)


def make(hierarchy: Hierarchy, url: str, signer: tuple[bytes, bytes] | None = None, **settings: Any) -> ScepBackend:
    certificate, key = signer or signer_of()
    raw = {"type": "scep", "url": f"{url}/scep", "chain": ["ca.pem"], "ra": "ra.pem"}
    pair = {"certificate": "signer.pem", "key": {"file": "signer.key"}}
    config = ScepCA.model_validate({**raw, "signer": pair, **settings}, strict=False)
    files = {"signer.pem": certificate, "ra.pem": signer_of("their RA")[0]}
    held = {secret("signer.key"): key, secret("challenge"): CHALLENGE.encode(), secret("bad"): b"two\nlines"}
    setup = Setup(NAME, chain_of(hierarchy), Sources(Path("/etc/gw/profiles.yaml"), "profiles.yaml", b"", files, held))
    made = scep.create(config, setup)
    assert isinstance(made, ScepBackend)
    return made


@asynccontextmanager
async def upstream(hierarchy: Hierarchy, answer: Answer, **settings: Any) -> AsyncIterator[tuple[ScepBackend, Peer]]:
    async with answering(answer) as peer:
        ca = make(hierarchy, peer.url, **settings)
        await ca.start()
        try:
            yield ca, peer
        finally:
            await ca.close()


async def test_issues_what_the_device_asked_for(hierarchy: Hierarchy, server: Server) -> None:
    request = new_request()
    async with upstream(hierarchy, server.answer) as (ca, peer):
        issued = await ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
    [asked], [message] = peer.asked, server.seen
    assert asked.line == "POST /scep?operation=PKIOperation HTTP/1.1"
    assert asked.headers["content-type"] == PKI
    assert message.message_type is MessageType.PKCS_REQ
    assert (message.cipher, message.digest, message.legacy) == ("aes-128-cbc", "sha256", ())
    assert message.transaction_id == transaction_of(request) == issued.reference


def test_transactions_are_of_one_request() -> None:
    assert transaction_of(new_request(1)) == transaction_of(new_request(1, "challenge"))
    assert transaction_of(new_request(1)) != transaction_of(new_request(2))


async def test_waits_and_polls(hierarchy: Hierarchy, server: Server) -> None:
    server.waits = True
    request = new_request()
    async with upstream(hierarchy, server.answer, poll_every="90s") as (ca, _):
        pending = await ca.issue(request)
        assert pending == UpstreamPending(transaction_of(request), 90)
        assert await ca.poll(request, pending.reference) == pending
        server.waits = False
        assert isinstance(await ca.poll(request, pending.reference), UpstreamIssued)
        assert Capability.POLL_SENDS not in ca.capabilities
    assert [message.operation for message in server.seen] == ["PKCSReq", "CertPoll", "CertPoll"]
    assert len({message.transaction_id for message in server.seen}) == 1
    assert server.count == 1


async def test_a_lost_answer_is_found(hierarchy: Hierarchy, server: Server) -> None:
    server.loses = True
    async with upstream(hierarchy, server.answer, remembers="10m") as (ca, _):
        assert Capability.FIND in ca.capabilities
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())
        with pytest.raises(NotSent):
            await ca.find(new_request(in_doubt_since=datetime.now(UTC)))
        server.loses = False
        assert isinstance(await ca.find(new_request(in_doubt_since=datetime.now(UTC))), UpstreamIssued)
    assert server.count == 1


async def test_what_never_came_is_nothing_after_a_while(hierarchy: Hierarchy, server: Server) -> None:
    now = datetime.now(UTC)
    async with upstream(hierarchy, server.answer, remembers="10m") as (ca, _):
        with pytest.raises(UnknownResult, match="yet"):
            await ca.find(new_request(in_doubt_since=now))
        assert await ca.find(new_request(in_doubt_since=now - timedelta(minutes=5))) is None
        for since in (now - timedelta(minutes=11), None):
            with pytest.raises(UnknownResult, match="forgotten"):
                await ca.find(new_request(in_doubt_since=since))
    assert server.count == 0


async def test_a_refusal_long_after_is_no_answer(hierarchy: Hierarchy, server: Server) -> None:
    server.refuses = Reason.DENIED
    now = datetime.now(UTC)
    async with upstream(hierarchy, server.answer, remembers="10m") as (ca, _):
        with pytest.raises(UpstreamRejected):
            await ca.find(new_request(in_doubt_since=now))
        with pytest.raises(UnknownResult):
            await ca.find(new_request(in_doubt_since=now - timedelta(hours=1)))


async def test_a_transaction_that_is_lost_while_it_waits_is_a_doubt(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UnknownResult, match="let wait"):
            await ca.poll(new_request(), "x")


async def test_refusals_are_told(hierarchy: Hierarchy, server: Server) -> None:
    server.refuses = Reason.POLICY_SUBJECT
    async with upstream(hierarchy, server.answer) as (ca, _):
        assert Capability.FIND not in ca.capabilities
        with pytest.raises(UpstreamRejected, match=r"^the CA refused the request \(bad_request\): not you$"):
            await ca.issue(new_request())


async def test_only_the_servers_own_challenge_leaves(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer, challenge={"file": "challenge"}) as (ca, peer):
        for challenge in ("ours", None, ""):
            with pytest.raises(UpstreamRejected, match="does not bring the challenge") as raised:
                await ca.issue(new_request(challenge=challenge))
            assert CHALLENGE not in str(raised.value)
        assert peer.asked == []
        assert isinstance(await ca.issue(new_request(challenge=CHALLENGE)), UpstreamIssued)
    assert server.challenges == [CHALLENGE]


def from_another_ra(server: Server) -> Answer:
    """What somebody between could send: an answer of his own, his certificate beside it."""
    ours = server.ra

    def answer(asked: Asked) -> bytes:
        message = pkimessage.decode_pki_message(asked.body)
        theirs = RaIdentity.create(*_ra(*signer_of("somebody else")), chain_of(server.hierarchy))
        assert isinstance(pkimessage.decode_request(message, ours), CertificateRequest)
        return http(200, pkimessage.encode_success(message, theirs, chain_of(server.hierarchy)), PKI)

    return answer


def replayed(server: Server) -> Answer:
    """The first answer for all that come."""
    kept: list[bytes] = []

    def answer(asked: Asked) -> bytes:
        kept.append(server.answer(asked))
        return kept[0]

    return answer


async def test_answers_of_others(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, from_another_ra(server)) as (ca, _):
        with pytest.raises(UnknownResult, match="no answer to the request"):
            await ca.issue(new_request())


async def test_answers_to_other_requests(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, replayed(server)) as (ca, _):
        assert isinstance(await ca.issue(new_request(1)), UpstreamIssued)
        for number in (1, 2):
            with pytest.raises(UnknownResult, match="no answer to the request"):
                await ca.issue(new_request(number))


async def test_success_with_nothing(hierarchy: Hierarchy, server: Server) -> None:
    def answer(asked: Asked) -> bytes:
        message = pkimessage.decode_pki_message(asked.body)
        return http(200, pkimessage.encode_success(message, server.ra, ()), PKI)

    async with upstream(hierarchy, answer) as (ca, _):
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        *BY_STATUS,
        pytest.param(http(200, b"\x30\x80" * 4000, PKI), UnknownResult, id="deep"),
        pytest.param(http(200, cms.certs_only(()), PKI), UnknownResult, id="unsigned"),
    ],
)
async def test_other_answers(hierarchy: Hierarchy, answer: bytes, error: type[UpstreamError]) -> None:
    async with upstream(hierarchy, lambda _: answer, remembers="10m") as (ca, peer):
        with pytest.raises(error) as raised:
            await ca.issue(new_request())
        assert type(raised.value) is error
        assert len(peer.asked) == 1
        for question in (ca.poll(new_request(), "x"), ca.find(new_request(in_doubt_since=datetime.now(UTC)))):
            with pytest.raises(NotSent):  # a question that failed says nothing of the request
                await question


async def test_check(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer) as (ca, peer):
        await ca.health()
        assert await ca.fetch_chain() == chain_of(hierarchy)
        assert {trial.subject: trial.good for trial in await ca.check()} == {
            "connection": True, "capabilities": True, "chain": True, "ra": True, "signer": True,
        }  # fmt: skip
        certificate, key = signer_of("somebody else")
        other = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
        server.ra = RaIdentity.create(*_ra(certificate, key), chain_of(other))
        assert {trial.subject for trial in await ca.check() if not trial.good} == {"chain", "ra"}
        peer.answer = lambda asked: http(200, b"DES3\n") if "Caps" in asked.line else server.answer(asked)
        assert "capabilities" in {trial.subject for trial in await ca.check() if not trial.good}
        peer.answer = lambda _: http(404)
        assert [trial.subject for trial in await ca.check() if not trial.good] == ["connection"]


async def test_the_issuing_ca_itself(hierarchy: Hierarchy) -> None:
    """Its key usage says that it only signs certificates, and micromdm's server receives requests with it all the same."""
    async with upstream(hierarchy, lambda _: DROP, ra=None) as (ca, peer):
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())
    [recipient] = pkimessage.decode_pki_message(peer.asked[0].body).recipients
    assert cms.is_named_by(chain_of(hierarchy)[0], recipient)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"ra": "signer.pem", "signer_spec": "ec-p256"}, "must be RSA", id="ec-signer"),
        pytest.param({"challenge": {"file": "bad"}}, "one line of printable", id="challenge"),
    ],
)
def test_what_cannot_work(hierarchy: Hierarchy, settings: dict[str, Any], said: str) -> None:
    signer = signer_of("gateway", settings.pop("signer_spec", "rsa-2048"))
    with pytest.raises(ConfigurationError, match=said):
        make(hierarchy, "http://127.0.0.1:1", signer, **settings)


def test_an_ec_ca_needs_an_ra() -> None:
    with pytest.raises(ConfigurationError, match="the issuing CA's key is not RSA"):
        make(create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC)), "http://127.0.0.1:1", ra=None)
