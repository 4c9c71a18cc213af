"""Asks DNS for what a profile validates: its own servers, nothing kept, names spelled at random against forged answers."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.reversename
import dns.rrset

from gateway.config import acme as config
from gateway.config.acme_checks import dns_server
from gateway.errors import Reason
from gateway.validation.addresses import Address
from gateway.validation.interfaces import ValidationFailed

MAX_CHAIN = 8
"""CNAMEs that are followed one by one, where a server does not follow them itself."""
MAX_ADDRESSES = 32
"""Addresses of one name that are looked at."""
MAX_NAME = 253

_PAYLOAD = 1232
"""Bytes of an answer by UDP (DNS flag day 2020)."""
_ONE_SERVER = 2.0
"""Longest that one server is waited for, in seconds, before another is asked."""
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_SETTLED = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


class DnsFailed(Exception):
    """No server gave an answer that counts; the text is public."""


@dataclass(frozen=True, slots=True)
class CaaRecord:
    """One CAA record (RFC 8659 §4.1)."""

    flags: int
    tag: str
    value: bytes


def parse_server(text: str) -> tuple[str, int]:
    """Return address and port of a server as the file writes it. Raises ValueError."""
    server = dns_server(text)
    if server is None:
        raise ValueError(f"{text} is not the IP address of a DNS server")
    return server


def system_servers() -> tuple[tuple[str, int], ...]:
    """Return the servers that /etc/resolv.conf names; none where it cannot be read."""
    try:
        found = dns.resolver.Resolver().nameservers
    except (dns.exception.DNSException, OSError):
        return ()
    return tuple((server, 53) for server in found if isinstance(server, str) and "://" not in server)


class Hosts:
    """Addresses that the configuration gives; `*.example.test` is every name below, a name itself comes first."""

    def __init__(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        self._hosts = {
            name.lower().rstrip("."): tuple(ip_address(address) for address in addresses) for name, addresses in hosts.items()
        }

    def find(self, name: str) -> tuple[Address, ...] | None:
        """Return the addresses of a name; None where the configuration does not speak of it."""
        if (found := self._hosts.get(name)) is not None:
            return found
        rest = name
        while rest:
            rest = rest.partition(".")[2]
            if (found := self._hosts.get(f"*.{rest}")) is not None:
                return found
        return None


class Resolver:
    """Answers of the DNS servers of one profile, asked anew each time."""

    def __init__(self, settings: config.Resolver) -> None:
        """Raises ValueError for a server or an address that cannot be read."""
        self._servers = tuple(map(parse_server, settings.servers)) or system_servers()
        self._hosts = Hosts(settings.hosts)
        self._seconds = settings.timeout.total_seconds()
        self._tcp = settings.tcp

    def knows(self, name: str) -> bool:
        """Whether the configuration itself gives the addresses of this name, so that no server is asked for anything of it."""
        return self._hosts.find(name) is not None

    async def addresses(self, name: str) -> tuple[Address, ...]:
        """Return the addresses of a host, IPv6 first. Raises ValidationFailed VALIDATION_DNS where it has none."""
        if (known := self._hosts.find(name)) is not None:
            return known
        six, four = await asyncio.gather(
            self._records(name, dns.rdatatype.AAAA), self._records(name, dns.rdatatype.A), return_exceptions=True
        )
        found: list[Address] = []
        problems: list[str] = []
        for answer in (six, four):
            if isinstance(answer, DnsFailed):
                problems.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += [ip_address(record.address) for record in answer][:MAX_ADDRESSES]
        if not found:
            raise ValidationFailed(Reason.VALIDATION_DNS, problems[0] if problems else f"{name} has no address")
        return tuple(found)

    async def texts(self, name: str) -> tuple[bytes, ...]:
        """Return the TXT records of a name, the strings of each joined (RFC 7208 §3.3).

        Raises ValidationFailed VALIDATION_DNS.
        """
        if self.knows(name):
            return ()
        try:
            records = await self._records(name, dns.rdatatype.TXT)
        except DnsFailed as error:
            raise ValidationFailed(Reason.VALIDATION_DNS, str(error)) from None
        return tuple(b"".join(record.strings) for record in records)

    async def caa(self, name: str) -> tuple[CaaRecord, ...]:
        """Return the CAA records of exactly this name, or of what it is an alias of. Raises DnsFailed."""
        if self.knows(name):
            return ()
        records = await self._records(name, dns.rdatatype.CAA)
        return tuple(CaaRecord(record.flags, record.tag.decode("ascii", "replace").lower(), record.value) for record in records)

    async def pointers(self, address: Address) -> tuple[str, ...]:
        """Return the names that an address has, lower case; raises DnsFailed."""
        records = await self._records(dns.reversename.from_address(str(address)).to_text(), dns.rdatatype.PTR)
        return tuple(record.target.to_text(omit_final_dot=True).lower() for record in records)

    async def _records(self, name: str, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | tuple[()]:
        """Return the records of a name, empty where there are none; CNAMEs are followed. Raises DnsFailed."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(_read_name(name), kind)
        except TimeoutError:
            raise DnsFailed(f"no DNS server answered in time for {kind.name} of {name}") from None

    async def _follow(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | tuple[()]:
        for _ in range(MAX_CHAIN):
            response = await self._ask(name, kind)
            try:
                chain = response.resolve_chaining()
            except dns.exception.DNSException as error:
                raise DnsFailed(f"the DNS answer for {kind.name} of {_show(name)} makes no sense") from error
            if chain.answer is not None:
                return chain.answer
            if not chain.cnames or response.rcode() == dns.rcode.NXDOMAIN or chain.canonical_name == name:
                return ()
            name = chain.canonical_name
        raise DnsFailed(f"{_show(name)} is an alias of an alias, too many times")

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        """Ask one server after the other until one says yes or no; silent ones are asked again while time is left."""
        if not self._servers:
            raise DnsFailed("no DNS server is known")
        while True:
            silent, said = False, ""
            for host, port in self._servers:
                try:
                    response = await self._ask_server(host, port, name, kind)
                except (dns.exception.Timeout, TimeoutError):
                    silent = True
                except (dns.exception.DNSException, OSError, EOFError) as error:
                    said = type(error).__name__
                else:
                    if response.rcode() in _SETTLED:
                        return response
                    said = dns.rcode.to_text(response.rcode())
            if not silent:
                raise DnsFailed(f"DNS said {said} for {kind.name} of {_show(name)}")

    async def _ask_server(
        self, host: str, port: int, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage:
        """Ask one server: by UDP, and by TCP where the answer was cut or does not spell the name as we did."""
        spelled = spell_at_random(name)
        query = dns.message.make_query(spelled, kind, use_edns=0, payload=_PAYLOAD)
        wait = min(_ONE_SERVER, self._seconds)
        if not self._tcp:
            try:
                answer = await dns.asyncquery.udp(
                    query,
                    host,
                    timeout=wait,
                    port=port,
                    ignore_unexpected=True,
                    ignore_errors=True,
                    raise_on_truncation=True,
                )
                if _spelled_alike(answer, spelled) and isinstance(answer, dns.message.QueryMessage):
                    return answer
            except dns.message.Truncated:
                pass
        answer = await dns.asyncquery.tcp(query, host, timeout=wait, port=port)
        if not isinstance(answer, dns.message.QueryMessage):
            raise dns.exception.FormError
        return answer


def spell_at_random(name: dns.name.Name) -> dns.name.Name:
    """Return the name with each letter in upper or lower case at random, which who forges an answer would have to guess."""
    return dns.name.Name(bytes(_flip(octet) for octet in label) for label in name.labels)


def _flip(octet: int) -> int:
    return octet ^ 0x20 if chr(octet).isalpha() and octet < 0x80 and secrets.randbits(1) else octet


def _spelled_alike(answer: dns.message.Message, spelled: dns.name.Name) -> bool:
    return len(answer.question) == 1 and answer.question[0].name.labels == spelled.labels


def _read_name(name: str) -> dns.name.Name:
    """Read a name of letters, digits, hyphens and underscores; whoever redirects may write what he likes."""
    text = name.rstrip(".").lower()
    if not is_host_name(text):
        raise DnsFailed("this is not a host name")
    return dns.name.from_text(f"{text}.")


def is_host_name(text: str) -> bool:
    """Say whether a lower-case name without final dot can be asked for at all."""
    return 0 < len(text) <= MAX_NAME and all(_LABEL.fullmatch(label) for label in text.split("."))


def _show(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
