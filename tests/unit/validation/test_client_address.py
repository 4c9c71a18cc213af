"""Trust by the client's address: the name leads to it, and in reverse it leads to the name as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.config.acme import TrustMode
from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.site import dns_name, ip_name, refused, validation

MODES: tuple[TrustMode, ...] = ("client_ip_forward", "client_ip_reverse")
HOST = dns_name("host.corp.test")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        server.add("host.corp.test", "A", "10.2.3.4", "10.2.3.5")
        server.add("4.3.2.10.in-addr.arpa", "PTR", "host.corp.test.")
        yield server


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", ["10.2.3.4", "::ffff:10.2.3.4"])
async def test_fits(dns: DnsServer, mode: TrustMode, source: str) -> None:
    assert await validation(dns.address, mode).vouch(HOST, source)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", ["10.2.3.9", "127.0.0.1", "", "unix", "2001:db8::1"])
async def test_other_address(dns: DnsServer, mode: TrustMode, source: str) -> None:
    failure = await refused(validation(dns.address, mode).vouch(HOST, source), Reason.VALIDATION_UNAUTHORIZED)
    assert failure.final


async def test_reverse_needs_a_pointer(dns: DnsServer) -> None:
    await refused(validation(dns.address, "client_ip_reverse").vouch(HOST, "10.2.3.5"), Reason.VALIDATION_UNAUTHORIZED)
    assert await validation(dns.address, "client_ip_forward").vouch(HOST, "10.2.3.5")


async def test_pointer_that_does_not_lead_back(dns: DnsServer) -> None:
    """Whoever has a network may write anybody's name into its reverse zone."""
    dns.add("66.2.0.192.in-addr.arpa", "PTR", "host.corp.test.")
    work = validation(dns.address, "client_ip_reverse").vouch(HOST, "192.0.2.66")
    await refused(work, Reason.VALIDATION_UNAUTHORIZED)


@pytest.mark.parametrize("mode", MODES)
async def test_own_address(dns: DnsServer, mode: TrustMode) -> None:
    assert await validation(dns.address, mode).vouch(ip_name("10.2.3.4"), "10.2.3.4")
    await refused(validation(dns.address, mode).vouch(ip_name("10.2.3.4"), "10.2.3.5"), Reason.VALIDATION_UNAUTHORIZED)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "identifier", [dns_name("*.corp.test"), Identifier(IdentifierType.PERMANENT_IDENTIFIER, "serial")], ids=lambda i: i.value
)
async def test_names_that_no_address_proves(dns: DnsServer, mode: TrustMode, identifier: Identifier) -> None:
    dns.add("*.corp.test", "A", "10.2.3.4")
    await refused(validation(dns.address, mode).vouch(identifier, "10.2.3.4"), Reason.VALIDATION_UNAUTHORIZED)


async def test_failures_close(dns: DnsServer) -> None:
    dns.fail("host.corp.test")
    await refused(validation(dns.address, "client_ip_forward").vouch(HOST, "10.2.3.4"), Reason.VALIDATION_DNS)
    dns.fail("host.corp.test", None)
    dns.fail("in-addr.arpa")
    await refused(validation(dns.address, "client_ip_reverse").vouch(HOST, "10.2.3.4"), Reason.VALIDATION_DNS)
