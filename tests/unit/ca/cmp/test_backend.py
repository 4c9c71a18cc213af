"""A CMP server as upstream CA: how requests go there, what each answer means, and what a lost one comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.cmp.backend import CmpBackend
from gateway.ca.cmp.forward import transaction_of
from gateway.ca.cmp.reference import Waiting
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    NotSent,
    Unavailable,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.local import CaUrls
from gateway.ca.verify import verify_issued
from gateway.cmp import (
    BodyType,
    CertAnswer,
    Confirmation,
    Enrollment,
    ErrorAnswer,
    General,
    PkiConf,
    PkiStatus,
    Possession,
    Revocations,
    Revoked,
    StatusInfo,
)
from gateway.config.document import ConfigurationFaults
from gateway.errors import Reason
from gateway.model import RequestForm, RevocationReason
from gateway.pki import crmf_writer
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from tests.unit.ca.answering import BY_STATUS, DEVICE, DROP, Answer, Asked, Peer, answering, chain_of, http, new_request
from tests.unit.ca.cmp.server import (
    ACCEPTED,
    BY_SECRET,
    BY_SIGNATURE,
    MEDIA,
    Server,
    certify,
    key_of,
    make,
    rejection,
    tampered,
)

WAITING = StatusInfo(PkiStatus.WAITING)


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


@pytest.fixture
def server(hierarchy: Hierarchy) -> Server:
    return Server(hierarchy)


@asynccontextmanager
async def upstream(hierarchy: Hierarchy, answer: Answer, **settings: Any) -> AsyncIterator[tuple[CmpBackend, Peer]]:
    async with answering(answer) as peer:
        ca = make(hierarchy, peer.url, **settings)
        await ca.start()
        try:
            yield ca, peer
        finally:
            await ca.close()


AUTHS = pytest.mark.parametrize(
    "auth",
    [
        pytest.param(BY_SIGNATURE, id="signature"),
        pytest.param(BY_SECRET, id="pbm"),
        pytest.param({**BY_SECRET, "mac": "pbmac1"}, id="pbmac1"),
    ],
)


@AUTHS
async def test_issues_what_the_device_asked_for(hierarchy: Hierarchy, server: Server, auth: dict[str, Any]) -> None:
    request = new_request()
    async with upstream(hierarchy, server.answer, auth=auth) as (ca, peer):
        issued = await ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, ca.chain(), datetime.now(UTC), ca.capabilities)
    [asked], [message] = peer.asked, server.seen
    assert asked.line == "POST / HTTP/1.1"
    assert asked.headers["content-type"] == MEDIA
    assert asked.headers["connection"] == "close"
    header = message.header
    assert (message.type, header.pvno, header.implicit_confirm) == (BodyType.P10CR, 2, True)
    assert (header.transaction_id, header.recipient_nonce) == (transaction_of(request), None)
    assert header.recipient_name == parse_certificate(chain_of(hierarchy)[0]).subject
    assert len(header.sender_nonce or b"") == 16
    assert isinstance(message.body, Enrollment)
    assert message.body.requests[0].request.der == request.request


def test_transactions_are_of_one_request() -> None:
    assert transaction_of(new_request(1)) == transaction_of(new_request(1, "challenge"))
    assert transaction_of(new_request(1)) != transaction_of(new_request(2))
    assert len(transaction_of(new_request(1))) == 16


@AUTHS
async def test_confirms_where_it_must(hierarchy: Hierarchy, server: Server, auth: dict[str, Any]) -> None:
    server.implicit = False
    async with upstream(hierarchy, server.answer, auth=auth) as (ca, _):
        issued = await ca.issue(new_request())
    assert isinstance(issued, UpstreamIssued)
    assert server.types == ["p10cr", "certConf"]
    first, second = (message.header for message in server.seen)
    assert first.transaction_id == second.transaction_id
    assert first.sender_nonce != second.sender_nonce
    assert second.recipient_nonce is not None
    confirmed = server.seen[1].body
    assert isinstance(confirmed, Confirmation)
    assert [(one.accepted, one.cert_req_id) for one in confirmed.statuses] == [(True, -1)]


async def test_a_confirmation_that_is_lost_is_said_again(hierarchy: Hierarchy, server: Server) -> None:
    server.implicit, server.loses = False, frozenset({BodyType.CERTCONF})
    request = new_request()
    async with upstream(hierarchy, server.answer) as (ca, _):
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert Waiting.from_text(pending.reference).certificate == server.issued[transaction_of(request)]
        assert await ca.poll(request, pending.reference) == pending
        server.loses = frozenset()
        issued = await ca.poll(request, pending.reference)
    assert isinstance(issued, UpstreamIssued)
    assert server.types == ["p10cr", "certConf", "certConf", "certConf"]
    assert server.count == 1


async def test_what_was_confirmed_before_is_confirmed(hierarchy: Hierarchy, server: Server) -> None:
    server.implicit = False
    server.says[BodyType.CERTCONF] = ErrorAnswer(rejection(Reason.ALREADY_CONFIRMED))
    async with upstream(hierarchy, server.answer) as (ca, _):
        assert isinstance(await ca.issue(new_request()), UpstreamIssued)


async def test_a_confirmation_that_is_refused_leaves_a_doubt(hierarchy: Hierarchy, server: Server) -> None:
    server.implicit = False
    server.says[BodyType.CERTCONF] = ErrorAnswer(rejection(Reason.UNKNOWN_CERTIFICATE))
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UnknownResult, match=r"did not take its confirmation: .*badCertId"):
            await ca.issue(new_request())


async def test_a_certificate_for_another_key_is_rejected(hierarchy: Hierarchy, server: Server) -> None:
    server.implicit = False
    other = certify(hierarchy, public_key_der(key_of("other")), "CN=other")
    server.says[BodyType.P10CR] = CertAnswer(BodyType.CP, -1, ACCEPTED, other)
    async with upstream(hierarchy, server.answer) as (ca, _):
        issued = await ca.issue(new_request())
    assert isinstance(issued, UpstreamIssued)  # which whoever asked finds out and keeps from the device
    confirmed = server.seen[1].body
    assert isinstance(confirmed, Confirmation)
    assert [one.accepted for one in confirmed.statuses] == [False]


@AUTHS
async def test_waits_and_polls(hierarchy: Hierarchy, server: Server, auth: dict[str, Any]) -> None:
    server.waits = True
    request = new_request()
    async with upstream(hierarchy, server.answer, poll_every="90s", auth=auth) as (ca, _):
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert pending.retry_after == 90
        again = await ca.poll(request, pending.reference)
        assert isinstance(again, UpstreamPending)
        assert again.retry_after == 7
        server.waits = False
        assert isinstance(await ca.poll(request, again.reference), UpstreamIssued)
        assert Capability.POLL_SENDS not in ca.capabilities
    assert server.types == ["p10cr", "pollReq", "pollReq", "certConf"]
    assert len({message.header.transaction_id for message in server.seen}) == 1
    assert server.seen[1].header.recipient_nonce != server.seen[2].header.recipient_nonce
    assert server.count == 1


async def test_a_whole_answer_that_is_late(hierarchy: Hierarchy, server: Server) -> None:
    server.says[BodyType.P10CR] = ErrorAnswer(WAITING)
    request = new_request()
    async with upstream(hierarchy, server.answer) as (ca, _):
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        assert isinstance(await ca.poll(request, pending.reference), UpstreamIssued)


async def test_a_poll_that_is_refused_says_nothing_of_the_request(hierarchy: Hierarchy, server: Server) -> None:
    server.waits = True
    request = new_request()
    async with upstream(hierarchy, server.answer) as (ca, _):
        pending = await ca.issue(request)
        assert isinstance(pending, UpstreamPending)
        server.says[BodyType.POLLREQ] = ErrorAnswer(rejection(Reason.UNKNOWN_TRANSACTION))
        with pytest.raises(UnknownResult):
            await ca.poll(request, pending.reference)
        server.says[BodyType.POLLREQ] = CertAnswer(BodyType.CP, -1, rejection(Reason.DENIED))
        with pytest.raises(UpstreamRejected):
            await ca.poll(request, pending.reference)
        with pytest.raises(UnknownResult):
            await ca.poll(request, "x")


async def test_a_lost_answer_is_asked_for_by_the_same_transaction(hierarchy: Hierarchy, server: Server) -> None:
    server.loses = frozenset({BodyType.P10CR})
    now = datetime.now(UTC)
    async with upstream(hierarchy, server.answer, remembers="10m") as (ca, _):
        assert Capability.REPEATABLE in ca.capabilities
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())
        server.loses = frozenset()
        assert isinstance(await ca.issue(new_request(in_doubt_since=now)), UpstreamIssued)
        with pytest.raises(UnknownResult, match="for so long"):
            await ca.issue(new_request(in_doubt_since=now - timedelta(minutes=11)))
    assert server.count == 1
    assert server.types == ["p10cr", "p10cr"]


async def test_a_server_that_remembers_nothing_is_not_asked_twice(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer) as (ca, peer):
        assert not ca.capabilities & (Capability.REPEATABLE | Capability.FIND)
        with pytest.raises(UnknownResult):
            await ca.issue(new_request(in_doubt_since=datetime.now(UTC)))
    assert peer.asked == []


# how requests are forwarded


def crmf_request(**template: Any) -> Any:
    """A device's own CertReqMsg, which asks for another name than was granted."""
    asked = crmf_writer.encode_cert_template(
        subject=parse_name_text("CN=wished").der, public_key=public_key_der(DEVICE), **template
    )
    request = crmf_writer.encode_cert_request(0, asked)
    message = crmf_writer.encode_cert_req_msg(request, crmf_writer.prove_by_signature(request, DEVICE))
    return replace(new_request(), form=RequestForm.CRMF, request=message)


@pytest.mark.parametrize("request_", [new_request(), crmf_request()], ids=["pkcs10", "crmf"])
async def test_a_template_of_ours_says_what_was_granted(hierarchy: Hierarchy, server: Server, request_: Any) -> None:
    async with upstream(hierarchy, server.answer, forward="ra_verified") as (ca, _):
        assert ca.accepts == frozenset(RequestForm)
        assert isinstance(await ca.issue(request_), UpstreamIssued)
    [message] = server.seen
    assert isinstance(message.body, Enrollment)
    [asked] = message.body.requests
    grant = request_.grant
    assert (message.type, asked.possession, asked.cert_req_id) == (BodyType.IR, Possession.RA_VERIFIED, 0)
    assert (asked.request.subject.der, asked.request.public_key.der) == (grant.subject_der, request_.public_key)
    assert (asked.request.key_usage, asked.request.ekus) == (frozenset(grant.key_usage), grant.ekus)
    assert asked.validity is not None
    assert (asked.validity.not_before, asked.validity.not_after) == (None, grant.not_after)


async def test_nested_requests_keep_their_own_proof(hierarchy: Hierarchy, server: Server) -> None:
    request = crmf_request()
    async with upstream(hierarchy, server.answer, forward="nested") as (ca, _):
        assert isinstance(await ca.issue(request), UpstreamIssued)
        assert isinstance(await ca.issue(new_request(2)), UpstreamIssued)
    outer, inner = server.wrapped[0].header, server.seen[0].header
    assert (outer.transaction_id, outer.sender_nonce) == (inner.transaction_id, inner.sender_nonce)
    assert [message.protection is not None for message in (*server.wrapped, *server.seen)] == [True] * 4
    assert server.types == ["ir", "p10cr"]
    body = server.seen[0].body
    assert isinstance(body, Enrollment)
    assert body.requests[0].request.der == request.request


@pytest.mark.parametrize(
    "proof",
    [
        pytest.param(crmf_writer.RA_VERIFIED, id="raVerified"),
        pytest.param(crmf_writer.KEY_ENCIPHERMENT, id="encrCert"),
        pytest.param(None, id="none"),
    ],
)
async def test_nested_requests_whose_proof_means_nothing_there(hierarchy: Hierarchy, server: Server, proof: bytes | None) -> None:
    asked, _ = crmf_writer.split_cert_req_msg(crmf_request().request)
    request = replace(crmf_request(), request=crmf_writer.encode_cert_req_msg(asked, proof))
    async with upstream(hierarchy, server.answer, forward="nested") as (ca, _):
        assert isinstance(await ca.issue(request), UpstreamIssued)
    body = server.seen[0].body
    assert isinstance(body, Enrollment)
    assert body.requests[0].possession is Possession.RA_VERIFIED
    assert crmf_writer.split_cert_req_msg(body.requests[0].request.der)[0] == asked


async def test_a_template_is_no_pkcs10(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer) as (ca, peer):
        assert ca.accepts == frozenset({RequestForm.PKCS10})
        with pytest.raises(UpstreamRejected, match=r"PKCS#10"):
            await ca.issue(crmf_request())
    assert peer.asked == []


async def test_a_template_that_cannot_be_read(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer, forward="nested") as (ca, peer):
        with pytest.raises(UpstreamRejected, match="cannot be read"):
            await ca.issue(replace(crmf_request(), request=b"\x30\x00"))
    assert peer.asked == []


# refusals


@AUTHS
@pytest.mark.parametrize(
    ("reason", "error"),
    [
        pytest.param(Reason.POLICY_SUBJECT, UpstreamRejected, id="badCertTemplate"),
        pytest.param(Reason.BAD_MESSAGE_CHECK, AuthFailed, id="badMessageCheck"),
        pytest.param(Reason.UPSTREAM_UNAVAILABLE, Unavailable, id="systemUnavail"),
        pytest.param(Reason.TRANSACTION_IN_USE, UnknownResult, id="transactionIdInUse"),
    ],
)
@pytest.mark.parametrize("kind", ["error", "cp"])
async def test_refusals_are_told(
    hierarchy: Hierarchy, server: Server, auth: dict[str, Any], reason: Reason, error: type[UpstreamError], kind: str
) -> None:
    status = rejection(reason)
    server.says[BodyType.P10CR] = ErrorAnswer(status) if kind == "error" else CertAnswer(BodyType.CP, -1, status)
    async with upstream(hierarchy, server.answer, auth=auth) as (ca, _):
        with pytest.raises(error, match=r": not you") as raised:
            await ca.issue(new_request())
        assert type(raised.value) is error


async def test_refusals_that_nothing_protects(hierarchy: Hierarchy, server: Server) -> None:
    server.mute = True
    server.says[BodyType.P10CR] = ErrorAnswer(rejection(Reason.DENIED))
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UnknownResult, match="nothing protects what it said"):
            await ca.issue(new_request())


@AUTHS
async def test_a_certificate_that_nothing_protects(hierarchy: Hierarchy, server: Server, auth: dict[str, Any]) -> None:
    server.mute = True
    async with upstream(hierarchy, server.answer, auth=auth) as (ca, _):
        with pytest.raises(UnknownResult, match="is not protected"):
            await ca.issue(new_request())


async def test_answers_of_a_device_of_the_same_ca(hierarchy: Hierarchy, server: Server) -> None:
    key = key_of("device")
    server.signer = certify(hierarchy, public_key_der(key), "CN=device", ()), key
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UnknownResult, match="no authority's"):
            await ca.issue(new_request())


async def test_answers_of_another_ca(hierarchy: Hierarchy, server: Server) -> None:
    other, key = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC)), key_of("server")
    server.signer = certify(other, public_key_der(key), "CN=server"), key
    async with upstream(hierarchy, server.answer, auth=BY_SECRET) as (ca, _):
        assert isinstance(await ca.issue(new_request()), UpstreamIssued)  # the secret is enough
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UnknownResult):
            await ca.issue(new_request())


async def test_a_pinned_signer_is_enough(hierarchy: Hierarchy, server: Server) -> None:
    other, key = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC)), key_of("server")
    signer = certify(other, public_key_der(key), "CN=server", ())
    server.signer = signer, key
    async with answering(server.answer) as peer:
        ca = make(hierarchy, peer.url, {"server.pem": der_to_pem(signer)}, signers="server.pem")
        await ca.start()
        try:
            assert isinstance(await ca.issue(new_request()), UpstreamIssued)
        finally:
            await ca.close()


def replayed(server: Server) -> Answer:
    """The first answer for all that come."""
    kept: list[bytes] = []

    def answer(asked: Asked) -> bytes:
        kept.append(server.answer(asked))
        return kept[0]

    return answer


async def test_answers_to_other_requests(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, replayed(server)) as (ca, _):
        assert isinstance(await ca.issue(new_request(1)), UpstreamIssued)
        for number in (1, 2):
            with pytest.raises(UnknownResult, match="no answer to the request"):
                await ca.issue(new_request(number))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(CertAnswer(BodyType.CP, -1, ACCEPTED), "did not send it in clear", id="no certificate"),
        pytest.param(CertAnswer(BodyType.CP, -1, ACCEPTED, b"\x30\x00"), "cannot be read", id="broken certificate"),
        pytest.param(CertAnswer(BodyType.IP, -1, ACCEPTED), "no answer to the request", id="ip"),
        pytest.param(PkiConf(), "no answer to the request", id="pkiconf"),
        pytest.param(General(()), "no answer to the request", id="genp"),
        pytest.param(
            CertAnswer(BodyType.CP, -1, StatusInfo(PkiStatus.REVOCATION_WARNING)), "the CA refused", id="another status"
        ),
    ],
)
async def test_answers_that_say_nothing(hierarchy: Hierarchy, server: Server, body: Any, said: str) -> None:
    server.says[BodyType.P10CR] = body
    async with upstream(hierarchy, server.answer) as (ca, _):
        with pytest.raises(UpstreamError, match=said):
            await ca.issue(new_request())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        *BY_STATUS,
        pytest.param(http(200, b"", MEDIA), UnknownResult, id="empty"),
        pytest.param(http(200, b"\x30\x80" * 4000, MEDIA), UnknownResult, id="deep"),
        pytest.param(http(200, b"\x30\x00", MEDIA), UnknownResult, id="no-message"),
    ],
)
async def test_other_answers(hierarchy: Hierarchy, answer: bytes, error: type[UpstreamError]) -> None:
    async with upstream(hierarchy, lambda _: answer, remembers="10m") as (ca, peer):
        with pytest.raises(error) as raised:
            await ca.issue(new_request())
        assert type(raised.value) is error
        assert len(peer.asked) == 1
        with pytest.raises(NotSent):  # a question that failed says nothing of the request
            await ca.poll(new_request(), Waiting(-1, bytes(16)).to_text())


# revocation


async def revoke(ca: CmpBackend, certificate: bytes) -> None:
    serial = parse_certificate(certificate).serial
    await ca.revoke(certificate, serial, RevocationReason.KEY_COMPROMISE, datetime.now(UTC))


@AUTHS
async def test_revokes(hierarchy: Hierarchy, server: Server, auth: dict[str, Any]) -> None:
    certificate = certify(hierarchy, public_key_der(DEVICE), "CN=device")
    async with upstream(hierarchy, server.answer, auth=auth) as (ca, _):
        assert Capability.REVOKE in ca.capabilities
        for _ in range(2):
            await revoke(ca, certificate)
    body, again = (message.body for message in server.seen)
    assert isinstance(body, Revocations)
    [details] = body.details
    parsed = parse_certificate(certificate)
    assert (details.issuer, details.serial, details.reason) == (parsed.issuer_der, parsed.serial, RevocationReason.KEY_COMPROMISE)
    assert body == again
    assert len({message.header.transaction_id for message in server.seen}) == 2


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(Revoked((rejection(Reason.ALREADY_REVOKED),)), None, id="revoked before"),
        pytest.param(ErrorAnswer(rejection(Reason.ALREADY_REVOKED)), None, id="revoked before, an error"),
        pytest.param(Revoked((StatusInfo(PkiStatus.REVOCATION_NOTIFICATION),)), None, id="notification"),
        pytest.param(Revoked((rejection(Reason.UNKNOWN_CERTIFICATE),)), UpstreamRejected, id="unknown"),
        pytest.param(ErrorAnswer(rejection(Reason.NOT_AUTHORIZED)), UpstreamRejected, id="not allowed"),
        pytest.param(ErrorAnswer(rejection(Reason.UPSTREAM_UNAVAILABLE)), Unavailable, id="away"),
        pytest.param(ErrorAnswer(rejection(Reason.BAD_MESSAGE_CHECK)), AuthFailed, id="not us"),
    ],
)
async def test_revocations_that_are_refused(
    hierarchy: Hierarchy, server: Server, body: Any, error: type[UpstreamError] | None
) -> None:
    server.says[BodyType.RR] = body
    certificate = certify(hierarchy, public_key_der(DEVICE), "CN=device")
    async with upstream(hierarchy, server.answer) as (ca, _):
        if error is None:
            await revoke(ca, certificate)
        else:
            with pytest.raises(error):
                await revoke(ca, certificate)


async def test_takes_off_hold(hierarchy: Hierarchy, server: Server) -> None:
    certificate = certify(hierarchy, public_key_der(DEVICE), "CN=device")
    serial = parse_certificate(certificate).serial
    async with upstream(hierarchy, server.answer) as (ca, _):
        assert Capability.REVIVE in ca.capabilities
        await ca.revive(certificate, serial, datetime.now(UTC))
        for refusal in (Reason.ALREADY_REVOKED, Reason.UNKNOWN_CERTIFICATE):
            server.says[BodyType.RR] = Revoked((rejection(refusal),))
            with pytest.raises(UpstreamRejected):
                await ca.revive(certificate, serial, datetime.now(UTC))
    body = server.seen[0].body
    assert isinstance(body, Revocations)
    assert [(one.reason, one.revive, one.serial) for one in body.details] == [(None, True, serial)]


# trials


async def test_check(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer) as (ca, _):
        await ca.health()
        assert await ca.fetch_chain() == chain_of(hierarchy)
        found = {trial.subject: trial.good for trial in await ca.check()}
        assert found == {"connection": True, "auth": True, "chain": True, "signer": True}


async def test_check_of_a_server_that_does_not_know_us(hierarchy: Hierarchy, server: Server) -> None:
    server.says[BodyType.GENM] = ErrorAnswer(rejection(Reason.BAD_MESSAGE_CHECK))
    async with upstream(hierarchy, server.answer) as (ca, _):
        found = {trial.subject: trial.good for trial in await ca.check()}
        assert found["auth"] is False
        with pytest.raises(AuthFailed):
            await ca.health()


async def test_check_of_a_server_that_has_no_ca_certificates_to_show(hierarchy: Hierarchy, server: Server) -> None:
    server.says[BodyType.GENM] = ErrorAnswer(rejection(Reason.UNSUPPORTED_MESSAGE))
    server.change = lambda answer: tampered(answer, extra_certs=chain_of(hierarchy))
    async with upstream(hierarchy, server.answer) as (ca, _):
        await ca.health()
        assert await ca.fetch_chain() == chain_of(hierarchy)
        assert all(trial.good for trial in await ca.check())


async def test_check_of_nobody(hierarchy: Hierarchy) -> None:
    async with upstream(hierarchy, lambda _: DROP) as (ca, _):
        [trial] = await ca.check()
        assert (trial.subject, trial.good) == ("connection", False)
        for question in (ca.health(), ca.fetch_chain()):
            with pytest.raises(NotSent):
                await question


# configuration


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"auth": {**BY_SECRET, "secret": {"file": "empty"}}}, "auth.secret: is empty", id="empty secret"),
        pytest.param({"recipient": "nobody"}, "recipient: is not a name", id="recipient"),
        pytest.param({"signers": "junk.pem"}, "signers: junk.pem does not hold readable PEM", id="signers"),
        pytest.param(
            {"auth": {"type": "signature", "signer": {"certificate": "weak.pem", "key": {"file": "gateway.key"}}}},
            "auth.signer.certificate: may not sign messages",
            id="a key that does not sign",
        ),
        pytest.param(
            {"auth": {"type": "signature", "signer": {"certificate": "other.pem", "key": {"file": "gateway.key"}}}},
            "auth.signer.key: file gateway.key",
            id="another key",
        ),
    ],
)
def test_what_cannot_work(hierarchy: Hierarchy, settings: dict[str, Any], said: str) -> None:
    issuing = chain_of(hierarchy)[0]
    files = {"junk.pem": b"junk", "weak.pem": weak(hierarchy), "other.pem": der_to_pem(issuing)}
    with pytest.raises(ConfigurationFaults) as raised:
        make(hierarchy, "http://127.0.0.1:1", files, **settings)
    texts = [f"{'.'.join(map(str, fault.path[2:]))}: {fault.sentence}" for fault in raised.value.faults]
    assert any(text.startswith(said) for text in texts), texts


def weak(hierarchy: Hierarchy) -> bytes:
    return der_to_pem(certify(hierarchy, public_key_der(key_of("gateway")), "CN=gateway", usage=("keyAgreement",)))


async def test_the_recipient_that_is_named(hierarchy: Hierarchy, server: Server) -> None:
    async with upstream(hierarchy, server.answer, recipient="CN=CA,O=Example") as (ca, _):
        await ca.health()
    assert server.seen[0].header.recipient_name == parse_name_text("CN=CA,O=Example")
