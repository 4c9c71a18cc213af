"""Which names an external account may have, and what an authorization stands for."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.acme import (
    Authorization,
    AuthorizationStatus,
    ExternalAccountPolicy,
    IdentifiersRejected,
    Order,
    OrderStatus,
)
from gateway.config.policy import PolicyConfig
from gateway.model import Identifier, IdentifierType, ProfileName
from gateway.ra.acme.names import base_of, is_below, judge_names
from gateway.ra.acme.orders import as_of, covers

NOW = datetime(2027, 1, 2, tzinfo=UTC)
CORP = ProfileName("corp")
ANY = PolicyConfig.model_validate(
    {"san": {"dns": {"patterns": [".*"], "wildcards": True}, "ip": {"networks": ["0.0.0.0/0", "::/0"]}}}, strict=False
)


def dns(name: str) -> Identifier:
    return Identifier(IdentifierType.DNS, name)


def address(text: str) -> Identifier:
    return Identifier(IdentifierType.IP, text)


def authorization(name: str, *, wildcard: bool = False, subdomains: bool = False) -> Authorization:
    identifier = address(name) if name[0].isdigit() else dns(name)
    status = AuthorizationStatus.VALID
    return Authorization("id", "account", CORP, identifier, wildcard, subdomains, status, (), NOW, NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("policy", "identifier", "allowed"),
    [
        pytest.param(ExternalAccountPolicy(), dns("a.example.com"), True, id="no bounds"),
        pytest.param(ExternalAccountPolicy(dns=(r".*\.example\.com",)), dns("a.example.com"), True, id="in the pattern"),
        pytest.param(ExternalAccountPolicy(dns=(r".*\.example\.com",)), dns("*.a.example.com"), True, id="wildcard of one"),
        pytest.param(ExternalAccountPolicy(dns=(r"a\.example\.com",)), dns("*.a.example.com"), False, id="wildcard of a host"),
        pytest.param(ExternalAccountPolicy(dns=(r"example\.com",)), dns("a.example.com"), False, id="whole name counts"),
        pytest.param(ExternalAccountPolicy(dns=(r"a\.example",)), dns("a.example.com"), False, id="no prefix"),
        pytest.param(ExternalAccountPolicy(dns=(".*",)), address("192.0.2.1"), False, id="names only, an address"),
        pytest.param(ExternalAccountPolicy(ip=("192.0.2.0/24",)), address("192.0.2.1"), True, id="in the network"),
        pytest.param(ExternalAccountPolicy(ip=("192.0.2.0/24",)), address("198.51.100.1"), False, id="outside"),
        pytest.param(ExternalAccountPolicy(ip=("192.0.2.0/24",)), address("2001:db8::1"), False, id="other family"),
        pytest.param(ExternalAccountPolicy(ip=("192.0.2.0/24",)), dns("a.example.com"), False, id="addresses only, a name"),
        pytest.param(ExternalAccountPolicy(wildcards=False), dns("*.a.example.com"), False, id="no wildcards"),
    ],
)
def test_names_of_an_external_account(policy: ExternalAccountPolicy, identifier: Identifier, allowed: bool) -> None:
    if allowed:
        judge_names(ANY, policy, (identifier,))
        return
    with pytest.raises(IdentifiersRejected) as refused:
        judge_names(ANY, policy, (identifier,))
    assert [problem[0] for problem in refused.value.problems] == [identifier]


@pytest.mark.parametrize(
    ("row", "name", "covered"),
    [
        pytest.param(authorization("a.example.com"), "a.example.com", True, id="the name"),
        pytest.param(authorization("a.example.com"), "*.a.example.com", False, id="its wildcard"),
        pytest.param(authorization("a.example.com", wildcard=True), "*.a.example.com", True, id="wildcard"),
        pytest.param(authorization("a.example.com", wildcard=True), "a.example.com", False, id="name of a wildcard"),
        pytest.param(authorization("a.example.com", wildcard=True), "b.a.example.com", False, id="name below a wildcard"),
        pytest.param(authorization("example.com"), "a.example.com", False, id="domain alone"),
        pytest.param(authorization("example.com", subdomains=True), "a.example.com", True, id="subdomain"),
        pytest.param(authorization("example.com", subdomains=True), "*.a.example.com", True, id="wildcard of a subdomain"),
        pytest.param(authorization("example.com", subdomains=True), "example.com", True, id="domain itself"),
        pytest.param(authorization("example.com", subdomains=True), "notexample.com", False, id="no label between"),
        pytest.param(authorization("example.com", subdomains=True), "com", False, id="above"),
        pytest.param(authorization("192.0.2.1"), "192.0.2.1", True, id="address"),
    ],
)
def test_what_an_authorization_stands_for(row: Authorization, name: str, covered: bool) -> None:
    identifier = address(name) if name[0].isdigit() else dns(name)
    assert covers(row, identifier) is covered


def test_base_of_a_wildcard_is_its_domain() -> None:
    assert base_of(dns("*.example.com")) == dns("example.com")
    assert base_of(dns("a.example.com")) == dns("a.example.com")
    assert is_below("a.example.com", "example.com")


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (OrderStatus.PENDING, OrderStatus.INVALID),
        (OrderStatus.READY, OrderStatus.INVALID),
        (OrderStatus.PROCESSING, OrderStatus.PROCESSING),
        (OrderStatus.VALID, OrderStatus.VALID),
    ],
)
def test_order_whose_time_is_over(status: OrderStatus, seen: OrderStatus) -> None:
    order = Order("id", "account", CORP, CORP, None, status, (), (), None, None, None, None, NOW, NOW + timedelta(days=1))
    assert as_of(order, NOW) is order
    assert as_of(order, NOW + timedelta(days=1)).status is seen
