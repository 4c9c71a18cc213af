"""Orders and authorizations as CAs show them."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest

from gateway.ca.acme.order import Senseless, ordered_names, pauses, read_authorization, read_order
from gateway.ca.interfaces import UpstreamRejected
from gateway.model import ChallengeType, Identifier, IdentifierType, SanKind
from gateway.pki.extensions import make_san
from gateway.wire.acme.client import AcmeAnswer
from tests.peers.opening import make_request

NAME = {"type": "dns", "value": "a.example.org"}
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
ORDER: dict[str, Any] = {"status": "pending", "identifiers": [NAME], "authorizations": ["u"], "finalize": "f"}
AUTHORIZATION: dict[str, Any] = {
    "status": "pending",
    "identifier": NAME,
    "challenges": [{"type": "dns-01", "url": "c", "status": "pending", "token": TOKEN}],
}


def answer(document: object, **headers: str) -> AcmeAnswer:
    return AcmeAnswer(200, headers, json.dumps(document).encode())


def dns(name: str) -> Identifier:
    return Identifier(IdentifierType.DNS, name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (((SanKind.DNS, "B.example.org"), (SanKind.DNS, "a.example.org")), ("a.example.org", "b.example.org")),
        (((SanKind.DNS, "*.example.org"),), ("*.example.org",)),
        (((SanKind.IP, "2001:db8::1"),), ("2001:db8::1",)),
    ],
    ids=["sorted", "wildcard", "address"],
)
def test_names_that_are_ordered(names: tuple[tuple[SanKind, str], ...], expected: tuple[str, ...]) -> None:
    request = make_request(subject="CN=x", sans=tuple(make_san(*name) for name in names))
    assert tuple(name.value for name in ordered_names(request)) == expected


def test_a_common_name_counts_where_it_was_granted_as_a_host() -> None:
    sans = (make_san(SanKind.DNS, "a.example.org"),)
    assert ordered_names(make_request(subject="CN=A.example.org", sans=sans, asked=("CN=A.example.org", ()))) == (
        dns("a.example.org"),
    )
    with pytest.raises(UpstreamRejected, match="others were granted"):
        ordered_names(make_request(subject="CN=device 7", sans=sans, asked=("CN=device 7", ())))


@pytest.mark.parametrize(("retry", "expected"), [(None, None), ("0", 1), ("7", 7), ("99999", 600), ("soon", None)])
def test_when_to_ask_again(retry: str | None, expected: int | None) -> None:
    headers = {} if retry is None else {"retry-after": retry}
    assert read_order(answer(ORDER, **headers)).retry_after == expected


def test_pauses_grow_up_to_a_second() -> None:
    assert list(islice(pauses(None), 6)) == [0.1, 0.2, 0.4, 0.8, 1, 1]
    assert list(islice(pauses(5), 2)) == [5, 5]


def test_reasons_are_printable_and_short() -> None:
    order = read_order(answer({**ORDER, "status": "invalid", "error": {"detail": "no\x1b[31m\n" + "x" * 1000}}))
    assert order.reason.isprintable()
    assert len(order.reason) <= 300


@pytest.mark.parametrize(
    "change",
    [
        {"status": None},
        {"status": ["valid"]},
        {"identifiers": []},
        {"identifiers": "a.example.org"},
        {"identifiers": [{"type": "dns"}]},
        {"authorizations": None},
        {"authorizations": ["u"] * 101},
    ],
    ids=str,
)
def test_orders_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(Senseless):
        read_order(answer({**ORDER, **change}))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"a":1,"a":2}', b"[" * 10_000], ids=["empty", "list", "html", "twice", "deep"]
)
def test_what_is_no_object(body: bytes) -> None:
    for read in (read_order, read_authorization):
        with pytest.raises(Senseless):
            read(AcmeAnswer(200, {}, body))


def test_an_authorization() -> None:
    found = read_authorization(answer({**AUTHORIZATION, "wildcard": True}))
    assert found.name == dns("*.a.example.org")
    assert [challenge.type for challenge in found.challenges] == [ChallengeType.DNS_01]


@pytest.mark.parametrize(
    "challenge",
    [
        {"type": "tls-alpn-01", "url": "c", "status": "pending", "token": TOKEN},
        {"type": "dns-01", "url": "c", "status": "pending", "token": "short"},
        {"type": "dns-01", "url": "c", "status": "pending", "token": "../../../../etc/passwd"},
        {"type": "dns-01", "url": "c", "status": "pending", "token": TOKEN + "\n"},
        {"type": "dns-01", "url": "c", "status": "pending"},
        {"type": "unheard-of"},
        "text",
    ],
    ids=str,
)
def test_challenges_that_are_passed_over(challenge: object) -> None:
    assert read_authorization(answer({**AUTHORIZATION, "challenges": [challenge]})).challenges == ()


@pytest.mark.parametrize(
    "change",
    [
        {"identifier": None},
        {"identifier": {"type": "x", "value": "y"}},
        {"challenges": {}},
        {"challenges": [{}] * 33},
        {"status": 1},
    ],
    ids=str,
)
def test_authorizations_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(Senseless):
        read_authorization(answer({**AUTHORIZATION, **change}))
