"""DNS: profiles' own servers, nothing kept, forged answers, aliases, truncation, failures, and addresses of the file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from dns.name import from_text

from gateway.config import acme as config
from gateway.errors import Reason
from gateway.validation import resolve as module
from gateway.validation.resolve import CaaRecord, DnsFailed, Resolver, is_host_name, parse_server, spell_at_random
from tests.conftest import free_port
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.site import refused


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


def resolver(*servers: str, **fields: Any) -> Resolver:
    given = {"servers": servers, "timeout": "3s"} | fields
    return Resolver(config.Resolver.model_validate_json(json.dumps(given)))


async def test_addresses_ipv6_first(dns: DnsServer) -> None:
    dns.add("both.test", "A", "192.0.2.1", "192.0.2.2")
    dns.add("both.test", "AAAA", "2001:db8::1")
    found = await resolver(dns.address).addresses("both.test")
    assert found[0] == ip_address("2001:db8::1")
    assert set(found[1:]) == {ip_address("192.0.2.1"), ip_address("192.0.2.2")}


async def test_nothing_is_kept(dns: DnsServer) -> None:
    asking = resolver(dns.address)
    dns.add_txt("x.test", "one")
    assert await asking.texts("x.test") == (b"one",)
    dns.remove("x.test", "TXT")
    dns.add_txt("x.test", "two")
    assert await asking.texts("x.test") == (b"two",)


async def test_txt_multi_string(dns: DnsServer) -> None:
    dns.add("x.test", "TXT", '"one" "two"', '"three"')
    assert sorted(await resolver(dns.address).texts("x.test")) == [b"onetwo", b"three"]


async def test_no_such_name_is_no_record(dns: DnsServer) -> None:
    assert await resolver(dns.address).texts("nowhere.test") == ()
    assert await resolver(dns.address).caa("nowhere.test") == ()
    await refused(resolver(dns.address).addresses("nowhere.test"), Reason.VALIDATION_DNS, "nowhere.test has no address")


@pytest.mark.parametrize("follows", [True, False])
async def test_aliases_are_followed(dns: DnsServer, follows: bool) -> None:
    dns.follows = follows
    dns.add("a.test", "CNAME", "b.test.")
    dns.add("b.test", "CNAME", "c.test.")
    dns.add_txt("c.test", "found")
    assert await resolver(dns.address).texts("a.test") == (b"found",)


@pytest.mark.parametrize("follows", [True, False])
async def test_aliases_in_a_circle_end(dns: DnsServer, follows: bool) -> None:
    dns.follows = follows
    dns.add("a.test", "CNAME", "b.test.")
    dns.add("b.test", "CNAME", "a.test.")
    begun = time.monotonic()
    await refused(resolver(dns.address).texts("a.test"), Reason.VALIDATION_DNS)
    assert time.monotonic() - begun < 3


async def test_truncated_answer_is_asked_for_by_tcp(dns: DnsServer) -> None:
    dns.truncate("x.test")
    dns.add_txt("x.test", "long")
    assert await resolver(dns.address).texts("x.test") == (b"long",)
    assert [transport for _, _, transport in dns.queries] == ["udp", "tcp"]


async def test_many_records_are_all_read(dns: DnsServer) -> None:
    dns.add_txt("x.test", *(f"{number:0200}" for number in range(40)))
    assert len(await resolver(dns.address).texts("x.test")) == 40


async def test_answer_that_is_not_spelled_as_asked_does_not_count(dns: DnsServer) -> None:
    name = "a-long-name-so-that-all-lower-case-is-no-accident.test"
    dns.fold(name)
    dns.add_txt(name, "true")
    assert await resolver(dns.address).texts(name) == (b"true",)
    assert [transport for _, _, transport in dns.queries] == ["udp", "tcp"]


async def test_tcp_only(dns: DnsServer) -> None:
    dns.add_txt("x.test", "a")
    assert await resolver(dns.address, tcp=True).texts("x.test") == (b"a",)
    assert [transport for _, _, transport in dns.queries] == ["tcp"]


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR"])
async def test_failures_are_no_empty_answers(dns: DnsServer, rcode: str) -> None:
    dns.fail("x.test", rcode)
    await refused(resolver(dns.address).texts("x.test"), Reason.VALIDATION_DNS, rcode)
    await refused(resolver(dns.address).addresses("x.test"), Reason.VALIDATION_DNS, rcode)
    with pytest.raises(DnsFailed, match=rcode):
        await resolver(dns.address).caa("x.test")


async def test_silence_ends_in_time(dns: DnsServer) -> None:
    dns.ignore("x.test")
    begun = time.monotonic()
    await refused(resolver(dns.address, timeout="1s").texts("x.test"), Reason.VALIDATION_DNS, "in time")
    assert time.monotonic() - begun < 2.5


async def test_another_server_is_asked(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ONE_SERVER", 0.2)
    dns.add_txt("x.test", "a")
    assert await resolver(f"127.0.0.1:{free_port()}", dns.address).texts("x.test") == (b"a",)


async def test_another_server_is_asked_where_one_fails(dns: DnsServer) -> None:
    dns.add_txt("x.test", "a")
    with dns_server() as broken:
        broken.fail("x.test")
        assert await resolver(broken.address, dns.address).texts("x.test") == (b"a",)


async def test_one_kind_of_address_is_enough(dns: DnsServer) -> None:
    dns.add("half.test", "A", "192.0.2.1")
    asking = resolver(dns.address)
    whole = asking._records

    async def half(name: str, kind: Any) -> Any:
        if kind.name == "AAAA":
            raise DnsFailed("no")
        return await whole(name, kind)

    asking._records = half  # type: ignore[method-assign]
    assert await asking.addresses("half.test") == (ip_address("192.0.2.1"),)


async def test_hosts_of_the_file_ask_nobody(dns: DnsServer) -> None:
    given = {"demo.test": ["127.0.0.1"], "*.demo.test": ["127.0.0.2", "::1"], "deep.in.demo.test": ["127.0.0.3"]}
    asking = resolver(dns.address, hosts=given)
    assert await asking.addresses("demo.test") == (ip_address("127.0.0.1"),)
    assert ip_address("127.0.0.2") in await asking.addresses("a.b.demo.test")
    assert await asking.addresses("deep.in.demo.test") == (ip_address("127.0.0.3"),)
    assert await asking.texts("_acme-challenge.demo.test") == ()
    assert await asking.caa("www.demo.test") == ()
    assert dns.queries == []
    assert not asking.knows("notdemo.test")


async def test_caa_records(dns: DnsServer) -> None:
    dns.add("x.test", "CAA", '0 issue "ca.test; accounturi=https://x"', '128 TBS "unknown"')
    found = await resolver(dns.address).caa("x.test")
    assert set(found) == {CaaRecord(0, "issue", b"ca.test; accounturi=https://x"), CaaRecord(128, "tbs", b"unknown")}


async def test_pointers(dns: DnsServer) -> None:
    dns.add("4.3.2.10.in-addr.arpa", "PTR", "Host.Corp.test.")
    assert await resolver(dns.address).pointers(ip_address("10.2.3.4")) == ("host.corp.test",)


@pytest.mark.parametrize("name", ["", ".", "a..b", "-a.test", "a b.test", "a\\.test", "ü.test", "a" * 64 + ".test", "x." * 130])
async def test_what_is_no_host_name_is_not_asked_for(dns: DnsServer, name: str) -> None:
    assert not is_host_name(name)
    await refused(resolver(dns.address).texts(name), Reason.VALIDATION_DNS)
    assert dns.queries == []


def test_spelled_at_random() -> None:
    name = from_text("an-example-name-that-is-quite-long.example.test.")
    spellings = {spell_at_random(name).to_text() for _ in range(20)}
    assert len(spellings) > 15
    assert all(spell_at_random(name) == name for _ in range(5))


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_servers(text: str, server: tuple[str, int]) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text", ["", "dns.test", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:99999", "[::1", "[::1]x", "1.2.3.4:x"]
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match="is not the IP address of a DNS server"):
        parse_server(text)
