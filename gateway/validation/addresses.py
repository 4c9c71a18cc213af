"""Which IP addresses may be connected to for somebody else: internal targets are the point, this host and its like are not."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
    )
)
"""This host, the link, groups and what is nobody's: only a network of `allow_cidrs` that lies within one opens it."""
METADATA: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Where clouds tell a machine its secrets."""
_LOOPBACK = tuple(ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def canonical(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped one is (RFC 4291 §2.5.5.2), else itself."""
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that packets to an IPv6 address may end at: 6to4, Teredo, NAT64, ISATAP, IPv4-compatible ones."""
    if isinstance(address, IPv4Address):
        return ()
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    found: list[IPv4Address] = []
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64 or address in _NAT64_LOCAL or (address in _COMPATIBLE and int(address) > 1):
        found.append(low)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        found.append(low)
    return tuple(found)


def is_own(address: Address) -> bool:
    """Say whether an address is this machine's: the way to it begins where it ends. No packet is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
    except OSError:
        return False


class AddressPolicy:
    """What one profile says of addresses (`allow_cidrs`, `deny_cidrs`)."""

    def __init__(self, allow: Iterable[Network] = (), deny: Iterable[Network] = ()) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)

    def objection(self, address: Address, refused: Collection[Address] = ()) -> str | None:
        """Say why an address may not be connected to, None where it may.

        `refused` are addresses of this gateway and of its CAs.
        """
        meant = canonical(address)
        forms = {meant, *embedded(meant)}
        if any(_in(form, self._deny) for form in forms):
            return "deny_cidrs names it"
        for form in forms:
            if (why := self._reserved(form, refused)) is not None:
                return why
        if self._allow and not _in(meant, self._allow) and not _in(_translated(meant), self._allow):
            return "allow_cidrs does not name it"
        return None

    def _reserved(self, address: Address, refused: Collection[Address]) -> str | None:
        if _in(address, METADATA) and not self._names(address):
            return "it is a cloud's metadata service"
        for special in SPECIAL:
            if _within(address, special) and not self._opens(address, special):
                return "it is loopback, link-local, multicast or nobody's"
        if _in(address, _LOOPBACK):
            return None
        if (address in refused or is_own(address)) and not self._names(address):
            return "it is this gateway's own, or one of its CAs'"
        return None

    def _opens(self, address: Address, special: Network) -> bool:
        """Whether somebody meant it: 0.0.0.0/0 does not open loopback."""
        return any(_within(address, network) and _subnet(network, special) for network in self._allow)

    def _names(self, address: Address) -> bool:
        return any(_within(address, network) and network.prefixlen == network.max_prefixlen for network in self._allow)


def _translated(address: Address) -> Address:
    """Return the IPv4 address that is reached through NAT64 (RFC 6052 §2.1), else itself."""
    return IPv4Address(int(address) & 0xFFFFFFFF) if _within(address, _NAT64) else address


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _in(address: Address, networks: Iterable[Network]) -> bool:
    return any(_within(address, network) for network in networks)


def _subnet(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
