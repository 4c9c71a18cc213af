"""The client's side of ACME: what it sends, and what it does with answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gateway.errors import MalformedMessage
from gateway.model import ChallengeType, Identifier, IdentifierType, RevocationReason
from gateway.pki import base64url
from gateway.pki.certificate import der_to_pem
from gateway.pki.jwk import CLASSICAL_ALGORITHMS, load_jwk_text
from gateway.pki.jws import verify_mac
from gateway.pki.jws_signer import Signer
from gateway.wire.acme.client import (
    MAX_NONCE_TRIES,
    AcmeAnswer,
    AcmeClient,
    AcmeRefusal,
    AcmeRequest,
    ExternalKey,
    OrderFailed,
    Trial,
    drive,
    drive_async,
)
from gateway.wire.acme.jws import SignedRequest, check_signature, check_url, parse_key_change, parse_request
from gateway.wire.acme.problems import NAMESPACE
from gateway.wire.acme.requests import parse_account, parse_finalize, parse_order, parse_revocation

BASE = "https://pki.example/acme/corp"
DIRECTORY = {name: f"{BASE}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo")}
A = Identifier(IdentifierType.DNS, "a.example")
KID = f"{BASE}/acct/1"
LEAF, CA = b"\x30\x03\x02\x01\x01", b"\x30\x03\x02\x01\x02"


class Server:
    """Answers by a table of URL to what comes next there; remembers what it was sent, and how long the client slept."""

    def __init__(self, answers: Mapping[str, list[Any]]) -> None:
        self.answers = {f"{BASE}/{name}": list(found) for name, found in answers.items()}
        self.requests: list[tuple[AcmeRequest, SignedRequest | None]] = []
        self.slept: list[float] = []
        self.nonces = 0

    def send(self, request: AcmeRequest) -> AcmeAnswer:
        signed = parse_request(request.body, CLASSICAL_ALGORITHMS) if request.method == "POST" else None
        if signed is not None:
            check_url(signed, request.url)
        self.requests.append((request, signed))
        self.nonces += 1
        headers = {"Replay-Nonce": f"n{self.nonces}"}
        if request.url == f"{BASE}/directory":
            return answer(200, DIRECTORY)
        if request.method == "HEAD":
            return answer(200, None, headers)
        found = self.answers[request.url].pop(0)
        return found if isinstance(found, AcmeAnswer) else answer(200, found, headers)

    def sent(self, number: int = -1) -> dict[str, Any]:
        """Return the payload of a request."""
        signed = self.requests[number][1]
        assert signed is not None
        payload: dict[str, Any] = json.loads(signed.payload)
        return payload

    def drive(self, flow: Any) -> Any:
        return drive(flow, self.send, self.slept.append)


def answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> AcmeAnswer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return AcmeAnswer.of(status, list({"Replay-Nonce": "x1", **(headers or {})}.items()), body)


def problem(type_: str, status: int = 400) -> AcmeAnswer:
    return answer(status, {"type": NAMESPACE + type_, "detail": f"{type_}!"})


def client(**fields: Any) -> AcmeClient:
    return AcmeClient(f"{BASE}/directory", Signer.of(ec.generate_private_key(ec.SECP256R1())), **fields)


def test_register() -> None:
    server, mine = Server({"newAccount": [answer(201, {"status": "valid"}, {"Location": KID})]}), client()
    external = ExternalKey("key-1", b"s" * 32, "HS384")
    server.drive(mine.register(["mailto:a@b.example"], external=external))
    assert mine.kid == KID
    [*_, (request, signed)] = server.requests
    assert request.headers["Content-Type"] == "application/jose+json"
    assert signed is not None
    assert signed.kid is None
    check_signature(signed, mine.signer.public, CLASSICAL_ALGORITHMS)
    asked = parse_account(signed.payload, f"{BASE}/newAccount", mine.signer.public)
    assert (asked.contact, asked.terms_agreed, asked.only_existing) == (("mailto:a@b.example",), True, False)
    assert asked.binding is not None
    assert verify_mac("HS384", b"s" * 32, asked.binding.signing_input, asked.binding.mac)


def test_look_for_an_account() -> None:
    server, mine = Server({"newAccount": [problem("accountDoesNotExist")]}), client()
    with pytest.raises(AcmeRefusal) as caught:
        server.drive(mine.register(only_existing=True))
    assert (caught.value.status, caught.value.type, caught.value.detail) == (400, "accountDoesNotExist", "accountDoesNotExist!")
    assert server.sent()["onlyReturnExisting"] is True
    assert mine.kid is None


def test_requests_of_an_account_are_named_by_its_url() -> None:
    server, mine = Server({"order/1": [{"status": "ready"}]}), client(kid=KID)
    server.drive(mine.post(f"{BASE}/order/1", None))
    [*_, (_, signed)] = server.requests
    assert signed is not None
    assert (signed.kid, signed.is_read) == (KID, True)


def test_a_nonce_serves_once_and_answers_bring_new_ones() -> None:
    server, mine = Server({"order/1": [{}, {}, {}]}), client(kid=KID)
    for _ in range(3):
        server.drive(mine.post(f"{BASE}/order/1", None))
    nonces = [signed.nonce for _, signed in server.requests if signed is not None]
    assert len(set(nonces)) == 3
    assert [request.method for request, _ in server.requests].count("HEAD") == 1


def test_a_refused_nonce_is_no_refusal() -> None:
    server, mine = Server({"order/1": [problem("badNonce"), problem("badNonce"), {"status": "ready"}]}), client(kid=KID)
    assert server.drive(mine.post(f"{BASE}/order/1", None)).document == {"status": "ready"}


def test_nonces_are_not_tried_for_ever() -> None:
    server, mine = Server({"order/1": [problem("badNonce")] * 100}), client(kid=KID)
    with pytest.raises(AcmeRefusal):
        server.drive(mine.post(f"{BASE}/order/1", None))
    assert len(server.answers[f"{BASE}/order/1"]) == 100 - MAX_NONCE_TRIES


def order(status: str, **more: object) -> dict[str, object]:
    return {"status": status, "authorizations": [f"{BASE}/authz/1"], "finalize": f"{BASE}/order/1/finalize", **more}


def authorization(state: str, **more: object) -> dict[str, object]:
    challenges = [
        {"type": "dns-01", "url": f"{BASE}/chall/1", "status": "pending", "token": "t1"},
        {"type": "http-01", "url": f"{BASE}/chall/2", "status": "pending", "token": "t2", **more},
    ]
    return {"identifier": {"type": "dns", "value": "a.example"}, "status": state, "challenges": challenges}


def respond(seen: list[Trial]) -> Callable[[Trial], dict[str, object] | None]:
    def answer_it(trial: Trial) -> dict[str, object] | None:
        seen.append(trial)
        return {} if trial.type is ChallengeType.HTTP_01 else None

    return answer_it


def issuing() -> Server:
    chain = der_to_pem(LEAF) + der_to_pem(CA)
    return Server(
        {
            "newOrder": [answer(201, order("pending"), {"Location": f"{BASE}/order/1"})],
            "authz/1": [
                authorization("pending"),
                answer(200, authorization("pending"), {"Retry-After": "3"}),
                authorization("valid"),
            ],
            "chall/2": [{"status": "processing"}],
            "order/1/finalize": [answer(200, order("processing"), {"Retry-After": "5"})],
            "order/1": [order("processing"), order("valid", certificate=f"{BASE}/cert/1")],
            "cert/1": [answer(200, chain)],
        }
    )


def test_issue() -> None:
    server, mine = issuing(), client(kid=KID)
    seen: list[Trial] = []
    assert server.drive(mine.issue([A], b"csr", respond(seen), profile="tls", replaces="a.b")) == (LEAF, CA)
    by_url = {request.url.removeprefix(f"{BASE}/"): signed.payload for request, signed in server.requests if signed is not None}
    assert json.loads(by_url["newOrder"])["replaces"] == "a.b"
    assert json.loads(by_url["newOrder"])["profile"] == "tls"
    assert by_url["chall/2"] == b"{}"
    assert parse_finalize(by_url["order/1/finalize"]) == b"csr"
    assert server.slept == [3.0, 5.0, 1.0]
    assert [trial.type for trial in seen] == [ChallengeType.DNS_01, ChallengeType.HTTP_01]
    assert seen[1].authorization == f"t2.{mine.signer.public.thumbprint}"


async def test_flows_are_driven_by_either_kind_of_program() -> None:
    server, mine = issuing(), client(kid=KID)

    async def send(request: AcmeRequest) -> AcmeAnswer:
        return server.send(request)

    async def sleep(seconds: float) -> None:
        server.slept.append(seconds)

    assert await drive_async(mine.issue([A], b"csr", respond([])), send, sleep) == (LEAF, CA)


def test_an_authorization_that_fails_says_why() -> None:
    failed = authorization("invalid", status="invalid", error={"detail": "no such record"})
    server, mine = (
        Server({"authz/1": [authorization("pending"), failed], "chall/2": [{"status": "processing"}]}),
        client(kid=KID),
    )
    with pytest.raises(OrderFailed, match="no such record"):
        server.drive(mine.authorize(f"{BASE}/authz/1", respond([])))


def test_no_challenge_that_can_be_answered() -> None:
    server, mine = Server({"authz/1": [authorization("pending")]}), client(kid=KID)
    with pytest.raises(OrderFailed, match="no challenge"):
        server.drive(mine.authorize(f"{BASE}/authz/1", lambda _: None))


def test_an_order_that_fails_says_why() -> None:
    failed = order("invalid", error={"detail": "the CA said no"})
    server, mine = Server({"order/1/finalize": [failed]}), client(kid=KID)
    with pytest.raises(OrderFailed, match="the CA said no"):
        server.drive(mine.finalize(answer(201, order("ready"), {"Location": f"{BASE}/order/1"}), b"csr"))


def test_the_key_of_an_account_changes() -> None:
    server, mine = Server({"keyChange": [{}]}), client(kid=KID)
    old, new = mine.signer, Signer.of(ed25519.Ed25519PrivateKey.generate())
    server.drive(mine.change_key(new))
    assert mine.signer is new
    [*_, (_, signed)] = server.requests
    assert signed is not None
    check_signature(signed, old.public, CLASSICAL_ALGORITHMS)
    change = parse_key_change(signed.payload, f"{BASE}/keyChange", CLASSICAL_ALGORITHMS)
    assert (change.account_url, change.old_thumbprint, change.thumbprint) == (KID, old.public.thumbprint, new.public.thumbprint)


def test_a_certificate_is_revoked_by_its_own_key() -> None:
    server, mine = Server({"revokeCert": [answer(200, b"")]}), client(kid=KID)
    own = Signer.of(ec.generate_private_key(ec.SECP384R1()))
    server.drive(mine.revoke(LEAF, RevocationReason.KEY_COMPROMISE, own))
    [*_, (_, signed)] = server.requests
    assert signed is not None
    assert signed.jwk == own.jwk
    assert load_jwk_text(own.public.text).verifies("ES384", signed.signature, signed.signing_input)
    asked = parse_revocation(signed.payload)
    assert (asked.certificate, asked.reason) == (LEAF, RevocationReason.KEY_COMPROMISE)


def test_renewal_info_is_public() -> None:
    server, mine = Server({"renewalInfo/a.b": [answer(200, {"suggestedWindow": {}}, {"Retry-After": "21600"})]}), client()
    found = server.drive(mine.renewal_info("a.b"))
    assert found.retry_after == 21600
    assert server.requests[-1][0].method == "GET"


def test_orders_say_all_that_was_asked() -> None:
    server, mine = Server({"newOrder": [answer(201, order("pending"), {"Location": f"{BASE}/order/1"})]}), client(kid=KID)
    server.drive(mine.order([A, Identifier(IdentifierType.IP, "::1")]))
    [*_, (_, signed)] = server.requests
    assert signed is not None
    assert parse_order(signed.payload).identifiers == (A, Identifier(IdentifierType.IP, "::1"))


@pytest.mark.parametrize(
    ("header", "relation", "found"),
    [
        pytest.param('<https://x/dir>;rel="index"', "index", ("https://x/dir",), id="one"),
        pytest.param('<https://x/dir>;rel="index", <https://x/up>; rel="up"', "up", ("https://x/up",), id="two"),
        pytest.param(
            "<https://x/1>;rel=alternate, <https://x/2>;rel=alternate", "alternate", ("https://x/1", "https://x/2"), id="bare"
        ),
        pytest.param("", "up", (), id="none"),
    ],
)
def test_links(header: str, relation: str, found: tuple[str, ...]) -> None:
    assert AcmeAnswer.of(200, [("Link", header)], b"").links(relation) == found


def test_headers_that_come_twice_are_joined() -> None:
    links = [("Link", '<a>;rel="index"'), ("link", '<b>;rel="up"')]
    assert AcmeAnswer.of(200, links, b"").links("up") == ("b",)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("5", 5, id="seconds"),
        pytest.param("Fri, 01 Jan 2027 00:00:00 GMT", None, id="date"),
        pytest.param("", None, id="none"),
    ],
)
def test_retry_after(value: str, seconds: int | None) -> None:
    assert AcmeAnswer.of(200, [("Retry-After", value)], b"").retry_after == seconds


def test_answers_that_are_not_what_they_should_be() -> None:
    with pytest.raises(MalformedMessage):
        _ = answer(200, b"<html>").document
    with pytest.raises(MalformedMessage):
        _ = answer(201, {}).location
    server, mine = Server({"cert/1": [answer(200, b"no PEM")]}), client(kid=KID)
    with pytest.raises(MalformedMessage):
        server.drive(mine.certificate(f"{BASE}/cert/1"))
    assert AcmeRefusal(answer(502, b"<html>")).type == ""


def test_padding_is_never_sent() -> None:
    signed = client(kid=KID).signer.flatten({"nonce": "n"}, b"1")
    assert not any("=" in value for value in signed.values())
    assert base64url.decode(signed["payload"]) == b"1"
