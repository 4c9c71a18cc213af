"""CAA records: who may issue for a name, for which account and after which challenge (RFC 8659, RFC 8657)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import structlog

from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.validation.interfaces import ValidationFailed
from gateway.validation.resolve import CaaRecord, DnsFailed, Resolver

log = structlog.get_logger(__name__)

SECONDS = 20.0
"""The whole climb."""
MAX_RECORDS = 100
"""Records of one name; with more of them the name is refused."""

_CRITICAL = 0x80
_UNDERSTOOD = frozenset({"issue", "issuewild", "iodef", "issuemail", "issuevmc"})
"""Tags whose meaning is known, the last three say nothing about certificates for hosts (RFC 8659 §4.4, RFC 9495)."""
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*", re.ASCII)
_VALUE = re.compile(r"[!-:<-~]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asking:
    """For whom the records are judged."""

    identities: Collection[str]
    """Names of this CA, lower case."""
    account_url: str
    challenge: ChallengeType | None
    wildcard: bool


class Caa:
    """Judges records as one profile says."""

    def __init__(self, resolver: Resolver, mode: Literal["off", "log", "enforce"], identities: Collection[str]) -> None:
        self._resolver = resolver
        self._mode = mode
        self._identities = frozenset(name.lower().rstrip(".") for name in identities)

    async def check(self, identifier: Identifier, challenge: ChallengeType | None, account_url: str, *, wildcard: bool) -> None:
        """Find the records that count and judge them; raises ValidationFailed where that is enforced.

        Of a name that a trust mode stands for (`challenge` is None) nothing is looked up only to be logged: such profiles may
        have no DNS at all.
        """
        if self._mode == "off" or identifier.type is not IdentifierType.DNS or (self._mode == "log" and challenge is None):
            return
        name = identifier.value.removeprefix("*.")
        asking = Asking(self._identities, account_url, challenge, wildcard or identifier.wildcard)
        try:
            await self._judge(name, asking)
        except ValidationFailed as failure:
            if self._mode == "enforce":
                raise
            log.warning("CAA records do not permit what is issued", name=name, cause=failure.cause)

    async def _judge(self, name: str, asking: Asking) -> None:
        """Raise ValidationFailed VALIDATION_CAA where the records forbid it, VALIDATION_DNS where they cannot be looked up."""
        try:
            async with asyncio.timeout(SECONDS):
                where, records = await self._climb(name)
        except DnsFailed as error:
            raise ValidationFailed(Reason.VALIDATION_DNS, f"CAA records cannot be looked up: {error}") from None
        except TimeoutError:
            text = f"CAA records of {name} cannot be looked up in time"
            raise ValidationFailed(Reason.VALIDATION_DNS, text) from None
        if (problem := judge_records(records, asking)) is not None:
            raise ValidationFailed(Reason.VALIDATION_CAA, f"CAA records at {where} do not permit it: {problem}")

    async def _climb(self, name: str) -> tuple[str, tuple[CaaRecord, ...]]:
        """Return the records of the name, or of the closest domain above that has any (RFC 8659 §3)."""
        while name and not self._resolver.knows(name):
            if records := await self._resolver.caa(name):
                return name, records
            name = name.partition(".")[2]
        return name, ()


def judge_records(records: Collection[CaaRecord], asking: Asking) -> str | None:
    """Return why these records forbid a certificate, None where they permit it (RFC 8659 §4)."""
    if len(records) > MAX_RECORDS:
        return "there are too many"
    for record in records:
        if record.flags & _CRITICAL and record.tag not in _UNDERSTOOD:
            return "a critical one is of a kind that is not understood here"
    wild = [record for record in records if record.tag == "issuewild"] if asking.wildcard else []
    counting = wild or [record for record in records if record.tag == "issue"]
    if not counting:
        return None
    problems = [_judge_issue(record.value, asking) for record in counting]
    if None in problems:
        return None
    # What came closest is the most useful: a record that names this CA and another account.
    return max((problem for problem in problems if problem is not None), key=lambda problem: problem != _OTHERS)


_OTHERS = "none names this CA"


def _judge_issue(value: bytes, asking: Asking) -> str | None:
    """Judge one issue-value; one that cannot be read permits nobody (RFC 8659 §4.2)."""
    read = read_issue(value)
    if read is None:
        return "one cannot be read"
    domain, parameters = read
    if domain not in asking.identities:
        return _OTHERS
    accounts = [text for tag, text in parameters if tag == "accounturi"]
    if accounts and accounts != [asking.account_url]:
        return "they name another account"
    methods = [text for tag, text in parameters if tag == "validationmethods"]
    if methods and (len(methods) > 1 or asking.challenge is None or asking.challenge not in methods[0].split(",")):
        return "they name other validation methods"
    return None


def read_issue(value: bytes) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """Read an issue-value: the domain, lower case and perhaps empty, and parameters with lower-case tags (RFC 8659 §4.2)."""
    try:
        domain, *rest = value.decode("ascii").split(";")
    except UnicodeDecodeError:
        return None
    domain = domain.strip(" \t")
    if domain and _DOMAIN.fullmatch(domain) is None:
        return None
    if len(rest) == 1 and not rest[0].strip(" \t"):
        return domain.lower(), ()
    parameters = []
    for text in rest:
        tag, equals, content = text.partition("=")
        tag, content = tag.strip(" \t"), content.strip(" \t")
        if not equals or _TAG.fullmatch(tag) is None or _VALUE.fullmatch(content) is None:
            return None
        parameters.append((tag.lower(), content))
    return domain.lower(), tuple(parameters)
