"""What the endpoint reads and answers, header by header, whatever the registration authority says (RFC 7030, RFC 8951)."""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from gateway.errors import Reason
from gateway.metrics.worker import REGISTRY
from gateway.model import Issued, Outcome, Pending, Protocol, Rejected, Remarks, RequestId, Unavailable
from gateway.pki.certificate import der_to_pem
from gateway.pki.cms import parse_signed_data
from gateway.ra.requests import RenewalWindow, RenewalWindowOutcome
from gateway.web.generation import FailureLimit
from gateway.web.proxies import CertificateForm, Proxies, TrustedProxy
from gateway.wire.est.renewal_info import format_certificate_id
from tests.flow.est.front import CSR, DEVICE, FLEET, PKCS10, SIMPLEENROLL, Front, converse_twice, exchange_bytes
from tests.flow.scep.raw import RawAnswer, get, post

BODY = base64.b64encode(CSR)
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
MAX_HEAD = 1024


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    front = Front(tmp_path)
    await front.start()
    yield front
    await front.close()


def enroll(target: str = SIMPLEENROLL, headers: str = PKCS10, body: bytes = BODY) -> bytes:
    return post(target, body, headers)


def certificates(answer: RawAnswer) -> tuple[bytes, ...]:
    return parse_signed_data(base64.b64decode(answer.body), max_signers=0).certificates


def head_size(answer: RawAnswer) -> int:
    return sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) + len("HTTP/1.1 200 OK\r\n\r\n")


ISSUED = Issued(DEVICE, (FLEET.certificate,), RequestId("r"))


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/.well-known/est/simpleenroll", id="no-label"),
        pytest.param("/.well-known/est/corp/simpleenroll", id="label"),
        pytest.param("/.well-known/est/a:1/simpleenroll", id="aruba-label"),
        pytest.param("/.well-known/est/a%3A1/simpleenroll", id="escaped-label"),
    ],
)
async def test_enrollment(front: Front, target: str) -> None:
    answer = await front.ask(enroll(target))
    assert answer.status == 200
    assert answer.media_type == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["content-transfer-encoding"] == "base64"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "transfer-encoding" not in answer.headers
    assert head_size(answer) < MAX_HEAD
    assert certificates(answer) == (DEVICE,)
    [asked] = front.authority.asked
    assert (asked.protocol, asked.operation, asked.profile, asked.transaction_id) == (Protocol.EST, "simpleenroll", "corp", "")
    assert (asked.signer, asked.is_renewal, asked.client_certificate, asked.source) == (None, False, None, "127.0.0.1")


async def test_a_renewal_names_the_certificate_that_the_client_showed(front: Front) -> None:
    context = front.client_context(certificate=DEVICE)
    answer = await front.ask(enroll("/.well-known/est/simplereenroll"), context, mtls=True)
    assert answer.status == 200
    [asked] = front.authority.asked
    assert asked.is_renewal
    assert asked.signer is not None
    assert (asked.signer.der, asked.client_certificate, asked.client_chain) == (DEVICE, DEVICE, ())


async def test_an_enrollment_with_a_certificate_renews_nothing(front: Front) -> None:
    await front.ask(enroll(), front.client_context(certificate=DEVICE), mtls=True)
    [asked] = front.authority.asked
    assert (asked.signer, asked.is_renewal, asked.client_certificate) == (None, False, DEVICE)


async def test_a_renewal_without_a_certificate_is_for_the_authority_to_refuse(front: Front) -> None:
    await front.ask(enroll("/.well-known/est/simplereenroll"))
    [asked] = front.authority.asked
    assert (asked.signer, asked.is_renewal) == (None, True)


async def test_the_authorization_header_is_handed_on(front: Front) -> None:
    await front.ask(enroll(headers=f"{PKCS10}Authorization: Basic dTpw\r\n"))
    [asked] = front.authority.asked
    assert asked.authorization == "Basic dTpw"
    assert "Basic" not in repr(asked)


@pytest.mark.parametrize(
    ("version", "bound", "unbound"),
    [
        pytest.param(TLS_1_2, True, "", id="tls-1.2"),
        pytest.param(TLS_1_3, False, "TLSv1.3 does not define tls-unique: connect with TLS 1.2", id="tls-1.3"),
    ],
)
async def test_what_ties_a_request_to_its_connection(front: Front, version: ssl.TLSVersion, bound: bool, unbound: str) -> None:
    await front.ask(enroll(), front.client_context(version))
    [asked] = front.authority.asked
    assert asked.linking is not None
    assert (asked.linking.expected is not None, asked.linking.unavailable) == (bound, unbound)


@pytest.mark.parametrize(
    ("user_agent", "mode", "lines"),
    [
        pytest.param("", "auto", False, id="old-strongswan-sends-none"),
        pytest.param("User-Agent: libest 3.2.0p\r\n", "auto", True, id="libest"),
        pytest.param("", "always", True, id="always"),
        pytest.param("User-Agent: libest 3.2.0p\r\n", "never", False, id="never"),
    ],
)
@pytest.mark.parametrize("what", ["cacerts", "simpleenroll"])
async def test_line_breaks(front: Front, user_agent: str, mode: str, lines: bool, what: str) -> None:
    front.serve(base64_wrap=mode)
    target = f"/.well-known/est/{what}"
    request = get(target, headers=user_agent) if what == "cacerts" else enroll(target, PKCS10 + user_agent)
    answer = await front.ask(request)
    assert (max(map(len, answer.body.split(b"\n"))) <= 64) is lines


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("operation", "media_type"), [("cacerts", "application/pkcs7-mime"), ("csrattrs", "application/csrattrs")]
)
async def test_what_is_the_same_for_everybody(front: Front, operation: str, media_type: str, method: str) -> None:
    answer = await front.ask(get(f"/.well-known/est/{operation}").replace(b"GET", method.encode(), 1))
    assert (answer.status, answer.media_type) == (200, media_type)
    assert answer.headers["content-transfer-encoding"] == "base64"
    assert int(answer.headers["content-length"]) > 0
    assert bool(answer.body) is (method == "GET")
    assert head_size(answer) < MAX_HEAD


async def test_ca_certificates(front: Front) -> None:
    assert certificates(await front.ask(get("/.well-known/est/cacerts"))) == (FLEET.certificate,)


async def test_no_attributes_to_tell(front: Front) -> None:
    front.serve(csr_attributes=None)
    assert (await front.ask(get("/.well-known/est/csrattrs"))).status == 404


BASIC = ('Basic realm="pki"', 'Digest realm="pki", nonce="n", qop="auth"')


@pytest.mark.parametrize(
    ("outcome", "schemes", "status", "headers"),
    [
        pytest.param(Unavailable(Reason.UPSTREAM_UNAVAILABLE, 60), (), 503, {"retry-after": "60"}, id="unavailable"),
        pytest.param(Unavailable(Reason.INTERNAL, 5), (), 503, {"retry-after": "5"}, id="internal"),
        pytest.param(Rejected(Reason.RATE_LIMITED, "too many"), (), 429, {"retry-after": "10"}, id="rate-limited"),
        pytest.param(Rejected(Reason.CREDENTIAL_INVALID, "who?"), BASIC, 401, {}, id="unknown-credential"),
        pytest.param(Rejected(Reason.CREDENTIAL_MISSING, "who?"), (), 403, {}, id="missing-certificate"),
        pytest.param(Rejected(Reason.POLICY_SAN, "not this name"), BASIC, 403, {}, id="policy"),
        pytest.param(Rejected(Reason.MALFORMED, "broken"), (), 400, {}, id="malformed"),
    ],
)
async def test_refusals(front: Front, outcome: Outcome, schemes: tuple[str, ...], status: int, headers: dict[str, str]) -> None:
    front.serve(challenges=lambda _now: schemes)
    front.authority.outcomes = [outcome]
    answer = await front.ask(enroll())
    assert answer.status == status
    assert (answer.media_type, answer.headers["cache-control"]) == ("text/plain", "no-store")
    assert {name: answer.headers[name] for name in headers} == headers
    assert ("retry-after" in answer.headers) is bool(headers)
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert head_size(answer) < MAX_HEAD
    if isinstance(outcome, Rejected):
        assert answer.body.decode() == f"{outcome.detail}\n"


async def test_an_invitation_to_log_in_has_no_body(front: Front) -> None:
    """Bouncy Castle fails on any."""
    front.serve(challenges=lambda _now: BASIC)
    front.authority.outcomes = [Rejected(Reason.CREDENTIAL_MISSING, "who?")] * 2
    answer = await front.ask(enroll())
    assert (answer.status, answer.body, answer.headers["content-length"]) == (401, b"", "0")
    assert answer.headers["cache-control"] == "no-store"
    assert "content-type" not in answer.headers
    answer = await front.ask(enroll(headers=f"{PKCS10}Authorization: Basic x\r\n"))
    assert (answer.status, answer.body) == (401, b"who?\n")


async def test_a_request_that_waits(front: Front) -> None:
    """Bouncy Castle fails on any body."""
    front.authority.outcomes = [Pending(RequestId("r"), 30)]
    answer = await front.ask(enroll())
    assert (answer.status, answer.body, answer.headers["retry-after"], answer.headers["content-length"]) == (202, b"", "30", "0")
    assert answer.headers["cache-control"] == "no-store"
    assert "content-type" not in answer.headers


async def test_every_scheme_is_a_header_of_its_own(front: Front) -> None:
    front.serve(challenges=lambda _now: BASIC)
    front.authority.outcomes = [Rejected(Reason.CREDENTIAL_INVALID, "wrong")]
    port = front.https.getsockname()[1]
    received = await exchange_bytes(port, enroll(), front.client_context())
    assert received.count(b"WWW-Authenticate: ") == 2


@pytest.mark.parametrize(
    ("headers", "schemes", "status"),
    [
        pytest.param("", BASIC, 401, id="curl-digest-asks-first"),
        pytest.param("", (), 400, id="nothing-to-log-in-by"),
        pytest.param("Authorization: Basic dTpw\r\n", BASIC, 400, id="has-logged-in"),
    ],
)
async def test_an_empty_request(front: Front, headers: str, schemes: tuple[str, ...], status: int) -> None:
    front.serve(challenges=lambda _now: schemes, failure_limit=FailureLimit(1, timedelta(minutes=1)))
    answer = await front.ask(enroll(headers=PKCS10 + headers, body=b""))
    assert answer.status == status
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert not front.authority.asked
    assert (await front.ask(enroll())).status == (200 if status == 401 else 429)


@pytest.mark.parametrize(
    ("request_", "status", "allow"),
    [
        pytest.param(get(SIMPLEENROLL), 405, "POST", id="get"),
        pytest.param(get(SIMPLEENROLL).replace(b"GET", b"HEAD", 1), 405, "POST", id="head"),
        pytest.param(get(SIMPLEENROLL).replace(b"GET", b"DELETE", 1), 405, "POST", id="delete"),
        pytest.param(enroll("/.well-known/est/cacerts"), 405, "GET, HEAD", id="post-to-cacerts"),
        pytest.param(enroll("/.well-known/est/csrattrs"), 405, "GET, HEAD", id="post-to-csrattrs"),
        pytest.param(enroll("/.well-known/est/other/simpleenroll"), 404, None, id="unknown-label"),
        pytest.param(enroll("/.well-known/est/CORP/simpleenroll"), 404, None, id="label-in-upper-case"),
        pytest.param(enroll("/.well-known/est/corp%2Fsimpleenroll/simpleenroll"), 404, None, id="escaped-slash"),
        pytest.param(enroll("/.well-known/est//simpleenroll"), 404, None, id="empty-label"),
        pytest.param(enroll("/.well-known/est/%2E%2E/simpleenroll"), 404, None, id="dots"),
        pytest.param(enroll("/.well-known/est/%ff%00/simpleenroll"), 404, None, id="control-characters"),
        pytest.param(enroll("/.well-known/est/simpleenroll/"), 404, None, id="trailing-slash"),
        pytest.param(enroll("/.well-known/est/a/b/simpleenroll"), 404, None, id="two-labels"),
        pytest.param(enroll("/.well-known/est/enroll"), 404, None, id="unknown-operation"),
        pytest.param(enroll("/.well-known/est/SimpleEnroll"), 404, None, id="operation-in-upper-case"),
        pytest.param(enroll("/.well-known/est/serverkeygen"), 404, None, id="serverkeygen-not-offered"),
        pytest.param(enroll("/.well-known/est/fullcmc"), 404, None, id="fullcmc-not-offered"),
        pytest.param(enroll(headers=""), 415, None, id="no-media-type"),
        pytest.param(enroll(headers="Content-Type: application/x-www-form-urlencoded\r\n"), 415, None, id="curl-without-header"),
        pytest.param(enroll(headers="Content-Type: application/pkcs7-mime\r\n"), 415, None, id="another-operation's"),
        pytest.param(enroll(headers="Content-Type: \xff\xfe\r\n"), 415, None, id="no-ascii"),
        pytest.param(enroll(headers=f"{PKCS10}Content-Encoding: gzip\r\n"), 415, None, id="content-encoding"),
        pytest.param(enroll(body=b"A" * 70_000), 413, None, id="large"),
        pytest.param(enroll(body=b""), 400, None, id="empty"),
        pytest.param(enroll(body=b"\xff" * 100), 400, None, id="no-base64"),
        pytest.param(enroll(body=base64.b64encode(DEVICE)), 400, None, id="a-certificate"),
        pytest.param(enroll(body=base64.b64encode(CSR[:-1] + bytes([CSR[-1] ^ 1]))), 400, None, id="broken-signature"),
    ],
)
async def test_what_is_refused_unasked(front: Front, request_: bytes, status: int, allow: str | None) -> None:
    answer = await front.ask(request_)
    assert (answer.status, answer.headers.get("allow")) == (status, allow), answer
    assert answer.media_type.startswith("text/plain")
    assert not front.authority.asked
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(PKCS10, b"\r\n".join([BODY[at : at + 64] for at in range(0, len(BODY), 64)]), id="64-columns"),
        pytest.param(PKCS10, der_to_pem(CSR, "CERTIFICATE REQUEST"), id="pem"),
        pytest.param(PKCS10, CSR, id="der"),
        pytest.param("content-type: Application/PKCS10; charset=x\r\n", BODY, id="media-type-with-parameter"),
        pytest.param(f"{PKCS10}Content-Transfer-Encoding: binary\r\n", BODY, id="transfer-encoding-is-not-read"),
        pytest.param(f"{PKCS10}Expect: 100-continue\r\n", BODY, id="waits-for-leave"),
    ],
)
async def test_what_clients_send(front: Front, headers: str, body: bytes) -> None:
    assert (await front.ask(enroll(headers=headers, body=body))).status == 200


async def test_a_request_in_chunks(front: Front) -> None:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(BODY[at : at + 100]), BODY[at : at + 100]) for at in range(0, len(BODY), 100))
    head = f"POST {SIMPLEENROLL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{PKCS10}Transfer-Encoding: chunked\r\n\r\n"
    assert (await front.ask(head.encode() + pieces + b"0\r\n\r\n")).status == 200


async def test_http_1_0(front: Front) -> None:
    assert (await front.ask(post(SIMPLEENROLL, BODY, PKCS10, version="1.0"))).status == 200


@pytest.mark.parametrize(
    "request_", [pytest.param(get("/.well-known/est/cacerts"), id="cacerts"), pytest.param(enroll(), id="enroll")]
)
async def test_nothing_is_served_without_tls(front: Front, request_: bytes) -> None:
    answer = await front.ask_http(request_)
    assert (answer.status, answer.body) == (403, b"EST is spoken over TLS only\n")
    assert not front.authority.asked


LOOPBACK = (ip_network("127.0.0.0/8"),)


def behind(form: CertificateForm | None, *, client_address: bool = True) -> Proxies:
    return Proxies([TrustedProxy(LOOPBACK, form, client_address)])


SHOWN = {
    "rfc9440": f"Client-Cert: :{base64.b64encode(DEVICE).decode()}:\r\n",
    "nginx": f"X-SSL-Client-Cert: {quote(der_to_pem(DEVICE))}\r\n",
    "haproxy": f"X-SSL-Client-Cert: {base64.b64encode(DEVICE).decode()}\r\n",
    "envoy": f'X-Forwarded-Client-Cert: Hash={hashlib.sha256(DEVICE).hexdigest()};Cert="{quote(der_to_pem(DEVICE))}"\r\n',
}
FORWARDED = "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"


@pytest.mark.parametrize("form", list(SHOWN))
@pytest.mark.parametrize("over", ["http", "https"])
async def test_a_listed_proxy(front: Front, form: CertificateForm, over: str) -> None:
    front.generation = replace(front.generation, proxies=behind(form))
    request = enroll("/.well-known/est/simplereenroll", PKCS10 + SHOWN[form] + FORWARDED)
    answer = await (front.ask_http(request) if over == "http" else front.ask(request))
    assert answer.status == 200
    [asked] = front.authority.asked
    assert asked.signer is not None
    assert (asked.signer.der, asked.client_certificate, asked.source) == (DEVICE, DEVICE, "203.0.113.9")
    assert asked.linking is not None
    assert (asked.linking.expected, asked.linking.unavailable) == (None, "TLS ends at a proxy")


@pytest.mark.parametrize("headers", [pytest.param(header, id=form) for form, header in SHOWN.items()])
async def test_nobody_else_speaks_for_a_client(front: Front, headers: str) -> None:
    front.generation = replace(
        front.generation,
        proxies=Proxies(TrustedProxy((ip_network("192.0.2.0/24"),), form, True) for form in SHOWN),  # type: ignore[arg-type]
    )
    await front.ask(enroll(headers=PKCS10 + headers + FORWARDED))
    [asked] = front.authority.asked
    assert (asked.client_certificate, asked.source) == (None, "127.0.0.1")
    assert (await front.ask_http(enroll(headers=PKCS10 + headers + FORWARDED))).status == 403


async def test_the_certificate_of_the_proxy_itself_is_nobodys(front: Front) -> None:
    front.generation = replace(front.generation, proxies=behind("rfc9440"))
    await front.ask(enroll(headers=PKCS10 + FORWARDED), front.client_context(certificate=DEVICE), mtls=True)
    [asked] = front.authority.asked
    assert (asked.client_certificate, asked.client_chain) == (None, ())


async def test_a_proxy_that_cannot_be_understood(front: Front) -> None:
    front.generation = replace(front.generation, proxies=behind("rfc9440"))
    answer = await front.ask_http(enroll(headers=f"{PKCS10}{FORWARDED}Client-Cert: garbage\r\n"))
    assert answer.status == 400
    assert not front.authority.asked


@pytest.mark.parametrize("said", [pytest.param("X-Forwarded-Proto: http\r\n", id="http"), pytest.param("", id="unsaid")])
async def test_a_proxy_whose_client_spoke_no_tls(front: Front, said: str) -> None:
    front.generation = replace(front.generation, proxies=behind("rfc9440"))
    answer = await front.ask_http(enroll(headers=f"{PKCS10}{SHOWN['rfc9440']}{said}"))
    assert answer.status == 403
    assert not front.authority.asked


LIMIT = FailureLimit(2, timedelta(minutes=1))


@pytest.mark.parametrize(
    ("outcome", "headers", "counts"),
    [
        pytest.param(Rejected(Reason.CREDENTIAL_INVALID, "wrong"), "Authorization: Basic dTpw\r\n", True, id="wrong-password"),
        pytest.param(Rejected(Reason.CREDENTIAL_REVOKED, "no"), "", True, id="revoked"),
        pytest.param(Rejected(Reason.POLICY_SAN, "no"), "", False, id="policy"),
        pytest.param(Rejected(Reason.RATE_LIMITED, "no"), "", False, id="full-quota"),
        pytest.param(Rejected(Reason.OVERLOADED, "no"), "", False, id="busy"),
        pytest.param(Rejected(Reason.UPSTREAM_UNAVAILABLE, "no"), "", False, id="silent-responder"),
        pytest.param(Rejected(Reason.UPSTREAM_REJECTED, "no"), "", False, id="refused-by-the-ca"),
        pytest.param(Rejected(Reason.CREDENTIAL_MISSING, "who?"), "", False, id="asks-how-to-log-in"),
        pytest.param(Rejected(Reason.CREDENTIAL_MISSING, "who?"), "Authorization: Basic x\r\n", True, id="sent-something"),
        pytest.param(Unavailable(Reason.UPSTREAM_UNAVAILABLE, 1), "", False, id="unavailable"),
        pytest.param(Pending(RequestId("r"), 1), "", False, id="pending"),
        pytest.param(ISSUED, "", False, id="issued"),
    ],
)
async def test_failures_of_an_address(front: Front, outcome: Outcome, headers: str, counts: bool) -> None:
    front.serve(failure_limit=LIMIT, challenges=lambda _now: BASIC)
    front.authority.outcomes = [outcome] * 2
    for _ in range(2):
        await front.ask(enroll(headers=PKCS10 + headers))
    answer = await front.ask(enroll())
    assert answer.status == (429 if counts else 200)
    assert ("retry-after" in answer.headers) is counts


async def test_what_cannot_be_read_is_a_failure_too(front: Front) -> None:
    front.serve(failure_limit=LIMIT)
    for _ in range(2):
        await front.ask(enroll(body=b"!"))
    assert (await front.ask(enroll())).status == 429


async def test_an_answer_is_logged_counted_and_keeps_secrets(front: Front) -> None:
    labels = {"protocol": "est", "profile": "corp", "operation": "simpleenroll", "result": "rejected", "reason": "policy_key"}
    before = REGISTRY.get_sample_value("gateway_enrollments_total", labels) or 0
    refused = Rejected(Reason.POLICY_KEY, "no such key", Remarks(requester="basic:u", cause="bits"))
    front.authority.outcomes = [refused]
    with capture_logs() as lines:
        await front.ask(enroll(headers=f"{PKCS10}Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n"))
    [line] = [line for line in lines if line["event"] == "est"]
    assert {
        key: line[key] for key in ("profile", "operation", "outcome", "reason", "cause", "subject", "requester", "source")
    } == {
        "profile": "corp",
        "operation": "simpleenroll",
        "outcome": "rejected",
        "reason": "policy_key",
        "cause": "bits",
        "subject": "CN=device-1",
        "requester": "basic:u",
        "source": "127.0.0.1",
    }
    assert "c2VjcmV0" not in str(lines)
    assert REGISTRY.get_sample_value("gateway_enrollments_total", labels) == before + 1


async def test_floods_are_counted_not_logged(front: Front) -> None:
    with capture_logs() as lines:
        for _ in range(8):
            await front.ask(enroll(body=b"!"))
            await front.ask(enroll("/.well-known/est/nobody/simpleenroll"))
    assert len(lines) == 5
    await front.floods.flush()
    assert {(row.profile, row.reason, row.count) for row in front.rows} == {
        ("corp", Reason.MALFORMED, 8),
        ("", Reason.UNKNOWN_PROFILE, 8),
    }


async def test_an_answer_keeps_the_generation_in_which_it_began(front: Front) -> None:
    occupancy = front.generation.snapshot.occupancy
    await front.ask(enroll())
    await occupancy.end()


CERTIFICATE_ID = format_certificate_id(b"key", 0xABCDEF)
RENEWAL_INFO = f"/.well-known/est/renewal-info/{CERTIFICATE_ID}"
WINDOW = RenewalWindow(datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    "target", [RENEWAL_INFO, f"/.well-known/est/a:1/renewal-info/{CERTIFICATE_ID}"], ids=["default", "label"]
)
async def test_when_to_renew(front: Front, target: str) -> None:
    front.serve(renewal_info=True)
    front.authority.window = WINDOW
    answer = await front.ask(get(target))
    assert (answer.status, answer.media_type, answer.headers["retry-after"]) == (200, "application/json", "21600")
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.body) == {"suggestedWindow": {"start": "2027-01-01T00:00:00Z", "end": "2027-01-02T00:00:00Z"}}
    [asked] = front.authority.sought
    assert (asked.profile, asked.protocol, asked.authority_key_id, asked.serial) == ("corp", Protocol.EST, b"key", 0xABCDEF)


@pytest.mark.parametrize(
    ("offered", "window", "request_", "status"),
    [
        pytest.param(False, WINDOW, get(RENEWAL_INFO), 404, id="not-offered"),
        pytest.param(True, Rejected(Reason.UNKNOWN_CERTIFICATE, "x"), get(RENEWAL_INFO), 404, id="unknown"),
        pytest.param(True, Unavailable(Reason.STORE_UNAVAILABLE, 5), get(RENEWAL_INFO), 503, id="unavailable"),
        pytest.param(True, WINDOW, get("/.well-known/est/renewal-info/nonsense"), 400, id="no-name"),
        pytest.param(True, WINDOW, get("/.well-known/est/renewal-info"), 404, id="no-certificate"),
        pytest.param(True, WINDOW, enroll(RENEWAL_INFO), 405, id="post"),
    ],
)
async def test_when_to_renew_is_not_told(
    front: Front, offered: bool, window: RenewalWindowOutcome, request_: bytes, status: int
) -> None:
    front.serve(renewal_info=offered)
    front.authority.window = window
    answer = await front.ask(request_)
    assert answer.status == status
    assert ("retry-after" in answer.headers) is (status == 503)


async def test_both_ends_have_the_same_link_until_the_session_is_resumed(front: Front) -> None:
    seen = await asyncio.to_thread(converse_twice, front, enroll(), TLS_1_2)
    assert seen.reused
    first, second = front.authority.asked
    assert first.linking is not None
    assert first.linking.expected == seen.bindings[0]
    assert second.linking is not None
    assert second.linking.expected is None
    assert second.linking.unavailable == "the TLS session was resumed: connect with a full handshake"
    assert first.client_certificate == second.client_certificate == DEVICE


async def test_tls_1_3_sessions_are_not_resumed(front: Front) -> None:
    assert not (await asyncio.to_thread(converse_twice, front, enroll(), TLS_1_3)).reused
