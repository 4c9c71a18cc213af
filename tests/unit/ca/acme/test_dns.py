"""TXT records by signed updates, against a server that checks signatures."""

from __future__ import annotations

from collections.abc import Iterator

import dns.name
import dns.tsig
import pytest

from gateway.ca.acme.create import _split_server
from gateway.ca.acme.dns import DynamicUpdates, UpdateSettings, read_key
from gateway.ca.interfaces import AuthFailed, NotSent
from tests.conftest import free_port
from tests.dns_server import DnsServer
from tests.peers.dns_updates import UpdateServer, update_server

NAME = "_acme-challenge.a.acme.test"


@pytest.fixture
def server() -> Iterator[UpdateServer]:
    with update_server(DnsServer(), "acme.test") as running:
        yield running


def updates(server: UpdateServer, *, zone: str | None = None, secret: bytes | None = None, port: int = 0) -> DynamicUpdates:
    key = read_key("gateway", secret or server.secret, "hmac-sha256")
    name = dns.name.from_text(zone) if zone else None
    return DynamicUpdates(UpdateSettings("localhost", port or server.port, name, key, 0))


@pytest.mark.parametrize("zone", [None, "acme.test"])
async def test_records_come_and_go(server: UpdateServer, zone: str | None) -> None:
    records = updates(server, zone=zone)
    for value in ("one", "two", "two"):
        await records.add(NAME, value)
    assert server.values == {NAME: ["one", "two"]}
    for value in ("one", "one"):
        await records.remove(NAME, value)
    assert server.values == {NAME: ["two"]}
    await records.check()


async def test_another_key_is_refused(server: UpdateServer) -> None:
    records = updates(server, secret=b"c29tZWJvZHkgZWxzZSdzIGtleQ==")
    with pytest.raises(AuthFailed):
        await records.add(NAME, "x")
    with pytest.raises(AuthFailed):
        await records.check()
    assert server.values == {}


@pytest.mark.parametrize(("rcode", "kind"), [("REFUSED", AuthFailed), ("NOTAUTH", AuthFailed), ("SERVFAIL", NotSent)])
async def test_refusals(server: UpdateServer, rcode: str, kind: type[NotSent]) -> None:
    server.rcode = rcode
    with pytest.raises(NotSent, match=rcode) as caught:
        await updates(server).add(NAME, "x")
    assert type(caught.value) is kind


async def test_a_name_in_another_zone(server: UpdateServer) -> None:
    with pytest.raises(AuthFailed, match="is not in the zone"):
        await updates(server, zone="acme.test").add("_acme-challenge.example.org", "x")
    with pytest.raises(AuthFailed, match="has no zone for"):
        await updates(server).add("_acme-challenge.example.org", "x")


async def test_nobody_there(server: UpdateServer) -> None:
    with pytest.raises(NotSent, match="gave no answer"):
        await updates(server, port=free_port()).add(NAME, "x")


@pytest.mark.parametrize("secret", [b"not base64", b"c2Vj=cmV0", "schlüssel".encode()])
def test_keys_that_are_none(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is no base64") as caught:
        read_key("gateway", secret, "hmac-sha256")
    assert secret.decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ns.example.org", ("ns.example.org", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1", ("2001:db8::1", None)),
        ("ns:0", ("ns", None)),
        ("ns:65536", ("ns", None)),
        ("ns:dns", ("ns", None)),
        ("ns:999999999", ("ns", None)),
    ],
)
def test_servers(text: str, expected: tuple[str, int | None]) -> None:
    assert _split_server(text) == expected
