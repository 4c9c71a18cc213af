"""Puts TXT records into DNS and takes them out again: by dynamic updates (RFC 2136, RFC 8945), or by a program."""

from __future__ import annotations

import asyncio
import binascii
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from gateway.ca.exec import DEFAULT_ENVIRONMENT
from gateway.ca.interfaces import AuthFailed, NotSent
from gateway.ca.program import ProgramStartError, run_program

TTL = 60
"""Seconds; nobody but the CA asks for these records."""
ONE_QUESTION = 5.0
"""Seconds that one question to the server may take."""
MAX_OUTPUT = 65_536
_REFUSALS = frozenset({dns.rcode.REFUSED, dns.rcode.NOTAUTH, dns.rcode.BADSIG, dns.rcode.BADKEY, dns.rcode.BADTIME})


class Records(Protocol):
    """Changes one TXT record; both raise NotSent, and AuthFailed where we may not. What is done twice is done once."""

    wait: float
    """Seconds until all servers of the zone know a record."""

    async def add(self, name: str, value: str) -> None:
        """Add a record beside those that are there."""

    async def remove(self, name: str, value: str) -> None:
        """Remove this record and no other."""


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """A primary server and the key that it knows us by; `zone` None: it is asked for."""

    host: str
    port: int
    zone: dns.name.Name | None
    key: dns.tsig.Key = field(repr=False)
    wait: float


class DynamicUpdates:
    """Records by dynamic updates over TCP, signed with TSIG."""

    def __init__(self, settings: UpdateSettings) -> None:
        self.wait = settings.wait
        self._settings = settings

    async def add(self, name: str, value: str) -> None:
        """Add a record beside those that are there."""
        zone, owner = await self._zone(name)
        update = dns.update.UpdateMessage(zone)
        update.add(owner, TTL, dns.rdatatype.TXT, f'"{value}"')
        await self._change(update)

    async def remove(self, name: str, value: str) -> None:
        """Remove this record and no other."""
        zone, owner = await self._zone(name)
        update = dns.update.UpdateMessage(zone)
        update.delete(owner, dns.rdatatype.TXT, f'"{value}"')
        await self._change(update)

    async def check(self) -> None:
        """Ask something, signed; raises NotSent, AuthFailed."""
        await self._ask(dns.message.make_query(self._settings.zone or dns.name.root, dns.rdatatype.SOA))

    async def _zone(self, name: str) -> tuple[dns.name.Name, dns.name.Name]:
        """Return the zone that holds a name, and the name: the answer for SOA tells, whether the name is there or not."""
        owner = dns.name.from_text(name)
        if self._settings.zone is not None:
            if not owner.is_subdomain(self._settings.zone):
                raise AuthFailed(f"{name} is not in the zone {self._settings.zone.to_text(omit_final_dot=True)}")
            return self._settings.zone, owner
        answer = await self._ask(dns.message.make_query(owner, dns.rdatatype.SOA))
        for section in (answer.answer, answer.authority):
            for found in section:
                if found.rdtype == dns.rdatatype.SOA and owner.is_subdomain(found.name):
                    return found.name, owner
        raise AuthFailed(f"the DNS server has no zone for {name}")

    async def _change(self, update: dns.update.UpdateMessage) -> None:
        code = (await self._ask(update)).rcode()
        if code != dns.rcode.NOERROR:
            raise _refusal(code)

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        """Send a message, signed, and return the answer, whose signature was verified."""
        message.use_tsig(self._settings.key)
        try:
            async with asyncio.timeout(ONE_QUESTION):
                address = await _resolve(self._settings.host, self._settings.port)
                return await dns.asyncquery.tcp(message, address, timeout=ONE_QUESTION, port=self._settings.port)
        except (dns.tsig.BadSignature, dns.tsig.PeerError) as error:
            raise AuthFailed(f"the DNS server does not take the TSIG key: {type(error).__name__}") from error
        except dns.exception.FormError as error:
            raise AuthFailed("the DNS server gave an answer that is not signed with the TSIG key") from error
        except (dns.exception.DNSException, OSError, EOFError, TimeoutError) as error:
            raise NotSent(f"the DNS server gave no answer: {type(error).__name__}") from error


def _refusal(code: dns.rcode.Rcode) -> NotSent:
    """Return what it means that the server answered by this code."""
    kind = AuthFailed if code in _REFUSALS else NotSent
    return kind(f"the DNS server answered {dns.rcode.to_text(code)}")


async def _resolve(host: str, port: int) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def read_key(name: str, secret: bytes, algorithm: str) -> dns.tsig.Key:
    """Return a TSIG key; ValueError, with a sentence and nothing of the key, where it is none."""
    try:
        return dns.tsig.Key(name, binascii.a2b_base64(secret.strip(), strict_mode=True), algorithm)
    except (binascii.Error, ValueError, dns.exception.DNSException):
        raise ValueError("is no base64, or the key's name is none") from None


class HookRecords:
    """Records by a program, run as `COMMAND add|remove NAME VALUE`; its end with status 0 says that it is done."""

    def __init__(self, command: tuple[str, ...], timeout: timedelta, wait: float) -> None:
        self.wait = wait
        self.command = command
        self._seconds = timeout.total_seconds()
        self._environment: Mapping[str, str] = DEFAULT_ENVIRONMENT

    async def add(self, name: str, value: str) -> None:
        """Add a record beside those that are there."""
        await self._run("add", name, value)

    async def remove(self, name: str, value: str) -> None:
        """Remove this record and no other."""
        await self._run("remove", name, value)

    async def _run(self, *arguments: str) -> None:
        try:
            result = await run_program((*self.command, *arguments), self._environment, b"", self._seconds, MAX_OUTPUT)
        except ProgramStartError as error:
            raise NotSent(f"the program for DNS could not be started: {error}") from error
        if result.timed_out:
            raise NotSent("the program for DNS did not end in time")
        if result.status != 0 or result.overflowed:
            raise NotSent(f"the program for DNS ended with status {result.status}")
