"""Which addresses may be connected to: internal ones, and never this host, the link, or a cloud's metadata unasked."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from gateway.validation.addresses import AddressPolicy, canonical, is_own

OPEN = AddressPolicy()

REFUSED = {
    "loopback": "127.0.0.1",
    "loopback_above_one": "127.8.9.1",
    "loopback_v6": "::1",
    "unspecified": "0.0.0.0",
    "this_network": "0.1.2.3",
    "unspecified_v6": "::",
    "link_local": "169.254.1.1",
    "metadata": "169.254.169.254",
    "metadata_v6": "fd00:ec2::254",
    "metadata_of_google_v6": "fd20:ce::254",
    "metadata_of_alibaba": "100.100.100.200",
    "metadata_of_azure": "168.63.129.16",
    "metadata_of_oracle": "192.0.0.192",
    "link_local_v6": "fe80::1",
    "multicast": "224.0.0.1",
    "multicast_v6": "ff02::1",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.1",
    "mapped_loopback": "::ffff:127.0.0.1",
    "mapped_metadata": "::ffff:169.254.169.254",
    "compatible_loopback": "::127.0.0.1",
    "6to4_loopback": "2002:7f00:1::1",
    "6to4_metadata": "2002:a9fe:a9fe::1",
    "nat64_loopback": "64:ff9b::7f00:1",
    "nat64_metadata": "64:ff9b::a9fe:a9fe",
    "nat64_local_use": "64:ff9b:1::7f00:1",
    "teredo_client_loopback": "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "teredo_server_loopback": "2001:0:7f00:1:8000:63bf:3fff:fdd2",
    "isatap_loopback": "2001:db8::5efe:7f00:1",
    "isatap_global_bit": "2001:db8::200:5efe:7f00:1",
}


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_never_connected_to_unasked(address: str) -> None:
    assert OPEN.objection(ip_address(address)) is not None


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_everything_allowed_opens_none_of_them(address: str) -> None:
    policy = AddressPolicy([ip_network("0.0.0.0/0"), ip_network("::/0")])
    assert policy.objection(ip_address(address)) is not None


@pytest.mark.parametrize("address", ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.51.100.7", "fd12::1", "2a00::1"])
def test_internal_and_public_targets_are_the_point(address: str) -> None:
    assert OPEN.objection(ip_address(address)) is None


@pytest.mark.parametrize(
    ("allow", "address", "allowed"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "10.0.0.1", False),
        ("::1/128", "::1", True),
        ("126.0.0.0/7", "127.0.0.1", False),
        ("169.254.0.0/16", "169.254.7.7", True),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254/32", "169.254.169.254", True),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "64:ff9b::a00:1", True),
        ("2001:db8::/32", "10.0.0.1", False),
    ],
)
def test_allow_cidrs(allow: str, address: str, allowed: bool) -> None:
    assert (AddressPolicy([ip_network(allow)]).objection(ip_address(address)) is None) is allowed


@pytest.mark.parametrize("address", ["10.6.6.6", "::ffff:10.6.6.6", "2002:a06:606::1", "64:ff9b::a06:606"])
def test_deny_cidrs_count_before_allow_cidrs(address: str) -> None:
    policy = AddressPolicy([ip_network("10.0.0.0/8"), ip_network("::/0")], [ip_network("10.6.0.0/16")])
    assert policy.objection(ip_address(address)) == "deny_cidrs names it"


def test_addresses_of_the_gateway_and_its_cas() -> None:
    ca = ip_address("192.0.2.9")
    assert OPEN.objection(ca, {ca}) is not None
    assert AddressPolicy([ip_network("192.0.2.0/24")]).objection(ca, {ca}) is not None
    assert AddressPolicy([ip_network("192.0.2.9/32")]).objection(ca, {ca}) is None
    assert OPEN.objection(ip_address("::ffff:192.0.2.9"), {ca}) is not None


def test_loopback_that_is_opened_is_open_where_the_gateway_listens_there() -> None:
    here = ip_address("127.0.0.1")
    assert AddressPolicy([ip_network("127.0.0.0/8")]).objection(here, {here}) is None


def own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def test_this_machine_knows_itself() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("192.0.2.77"))
    assert not is_own(ip_address("2001:db8::77"))
    if (own := own_address()) is not None:
        assert is_own(ip_address(own))
        assert OPEN.objection(ip_address(own)) is not None
        assert AddressPolicy([ip_network("0.0.0.0/0")]).objection(ip_address(own)) is not None
        assert AddressPolicy([ip_network(f"{own}/32")]).objection(ip_address(own)) is None


@pytest.mark.parametrize(
    ("address", "meant"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_canonical(address: str, meant: str) -> None:
    assert canonical(ip_address(address)) == ip_address(meant)
