"""`pki-gateway test-enroll --protocol acme`: what it answers to validations, and what it says when a server refuses."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Generator, Mapping
from contextlib import closing
from time import monotonic
from typing import Any

import pytest

from gateway.cli.enroll_acme import LOOPBACK, Responder, _describe, _Walk
from gateway.cli.enrollment import Server
from gateway.cli.options import CommandError
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import generate_private_key
from gateway.wire.acme.client import AcmeAnswer, AcmeClient, AcmeRefusal, AcmeRequest, OrderFailed, Pause, Trial
from tests.conftest import free_port

BASE = "https://localhost:8443/acme/demo"
SIGNER = Signer.of(generate_private_key("ec-p256"))


def trial(kind: ChallengeType) -> Trial:
    return Trial(Identifier(IdentifierType.DNS, "a.test"), kind, "token", "token.thumbprint", False, {})


def ask(port: int, path: str, method: str = "GET", host: str = LOOPBACK) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_only_what_is_expected_is_answered() -> None:
    responder = Responder(LOOPBACK, free_port())
    assert responder.respond(trial(ChallengeType.HTTP_01)) == {}
    with responder.running():
        assert ask(responder.port, "/.well-known/acme-challenge/token") == (200, b"token.thumbprint")
        assert ask(responder.port, "/.well-known/acme-challenge/other")[0] == 404
        assert ask(responder.port, "/")[0] == 404
        assert ask(responder.port, "/.well-known/acme-challenge/token", "POST")[0] == 501
    with pytest.raises(ConnectionRefusedError):
        ask(responder.port, "/")


def test_every_address_is_answered_where_the_server_may_come_from_anywhere() -> None:
    responder = Responder("", free_port())
    with responder.running():
        assert ask(responder.port, "/")[0] == 404
        if socket.has_ipv6:
            assert ask(responder.port, "/", host="::1")[0] == 404


@pytest.mark.parametrize("kind", [kind for kind in ChallengeType if kind is not ChallengeType.HTTP_01])
def test_other_challenges_are_left_alone(kind: ChallengeType) -> None:
    responder = Responder(LOOPBACK, 1)
    assert responder.respond(trial(kind)) is None
    assert responder.answers == {}


def test_a_port_that_somebody_has() -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(CommandError, match=f"http-01 cannot be answered at port {port}: .*--http-port"),
            Responder(LOOPBACK, port).running(),
        ):
            pass


@pytest.mark.parametrize(
    ("challenges", "said"),
    [
        pytest.param([{"type": "http-01", "status": "valid"}, {"type": "dns-01"}], "a.test: valid by http-01", id="challenge"),
        pytest.param([], "a.test: valid by nothing", id="vouched"),
    ],
)
def test_what_is_said_of_a_name(challenges: list[dict[str, str]], said: str) -> None:
    assert _describe({"identifier": {"type": "dns", "value": "a.test"}, "status": "valid", "challenges": challenges}) == said


def walk(seconds: float = 60) -> _Walk:
    server = Server.parse(f"{BASE}/directory", None)
    return _Walk(AcmeClient(f"{BASE}/directory", SIGNER), server, server.connect(), monotonic() + seconds)


def raising(error: Exception) -> Generator[AcmeRequest | Pause, AcmeAnswer | None, Any]:
    raise error
    yield Pause(0)


def answer(status: int, document: Mapping[str, object]) -> AcmeAnswer:
    return AcmeAnswer.of(status, [("Content-Type", "application/problem+json")], json.dumps(document).encode())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(
            AcmeRefusal(answer(403, {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no"})),
            "The server refused: 403 rejectedIdentifier: no$",
            id="refused",
        ),
        pytest.param(
            AcmeRefusal(answer(403, {"type": "x", "detail": "no", "subproblems": [{"detail": "a"}, {"detail": "b"}, 7]})),
            r"no \(a; b\)$",
            id="names",
        ),
        pytest.param(AcmeRefusal(AcmeAnswer(502, {}, b"<html>")), "The server refused: 502", id="no-acme"),
        pytest.param(
            OrderFailed("authorization", {"status": "invalid", "challenges": [{"error": {"detail": "no address"}}]}),
            "The server refused: the authorization is invalid: no address",
            id="not-proved",
        ),
    ],
)
def test_refusals(error: Exception, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        walk().run(raising(error))


def pausing() -> Generator[AcmeRequest | Pause, AcmeAnswer | None, Any]:
    yield Pause(60)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        pytest.param({"status": "processing"}, "The order is still pending: give it more time", id="order"),
        pytest.param(
            {"challenges": [{"type": "http-01"}, {"error": {"detail": "no address"}}]},
            "The name is not proved, and is still tried: no address",
            id="challenge",
        ),
    ],
)
def test_when_it_takes_too_long(seen: Mapping[str, Any], said: str) -> None:
    found = walk(seconds=1)
    found.seen.append(seen)
    with pytest.raises(CommandError, match=said):
        found.run(pausing())


@pytest.mark.parametrize("url", ["https://elsewhere.test/acme/demo/new-nonce", "http://localhost:8443/acme/demo/new-nonce"])
def test_a_server_that_leads_elsewhere_is_not_followed(url: str) -> None:
    def leading() -> Generator[AcmeRequest | Pause, AcmeAnswer | None, Any]:
        yield AcmeRequest("GET", url, {})

    with pytest.raises(CommandError, match="The server leads elsewhere"):
        walk().run(leading())


def test_nobody_answers() -> None:
    port = free_port()
    server = Server(Server.parse(f"https://localhost:{port}/acme/demo/directory", None).url, ssl.create_default_context())
    client = AcmeClient(server.url.geturl(), SIGNER)
    with pytest.raises(CommandError, match="does not answer"):
        _Walk(client, server, server.connect(), monotonic() + 5).run(client.open())
