"""Tries upstream CAs beside a running service: each is opened by itself, asked what it can be asked, and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.assemble.certificates import SOON
from gateway.ca.interfaces import Capability, Trial, UpstreamCA, UpstreamError
from gateway.ca.local import describe_dates
from gateway.errors import ConfigurationError
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate
from gateway.pki.names import format_name


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one CA."""

    name: UpstreamCAName
    trials: tuple[Trial, ...]
    capabilities: Capability
    """As the backend knows them after it was asked."""


async def try_upstreams(cas: Iterable[UpstreamCA], now: datetime) -> tuple[Tried, ...]:
    """Try all at once; a group's members have to be among them."""
    listed = tuple(cas)
    failed = await asyncio.gather(*(_start(ca) for ca in listed))
    try:
        return tuple(await asyncio.gather(*(_try(ca, fault, now) for ca, fault in zip(listed, failed, strict=True))))
    finally:
        for ca in listed:
            await ca.close()


async def _start(ca: UpstreamCA) -> Trial | None:
    """Open a CA; return what kept it from that."""
    try:
        await ca.start()
    except (UpstreamError, ConfigurationError) as error:
        return Trial("start", good=False, finding=str(error), advice="mend that first")
    return None


async def _try(ca: UpstreamCA, fault: Trial | None, now: datetime) -> Tried:
    trials = (fault,) if fault is not None else await ca.check()
    return Tried(ca.name, (*trials, *_judge_chain(ca, now)), ca.capabilities)


def _judge_chain(ca: UpstreamCA, now: datetime) -> tuple[Trial, ...]:
    """Say of the pinned chain what no CA has to be asked about."""
    found = []
    for certificate in map(parse_certificate, ca.chain()):
        name, wrong = format_name(certificate.subject), describe_dates(certificate, now)
        if wrong is not None:
            found.append(Trial("pinned chain", good=False, finding=f"{name} {wrong}", advice="pin the chain that is in force"))
        elif certificate.not_after - now < SOON:
            left = (certificate.not_after - now).days
            advice = "pin its successor when the CA has one"
            found.append(Trial("pinned chain", good=True, finding=f"{name} ends in {left} days", advice=advice))
    return tuple(found)


def describe_doubt(capabilities: Capability) -> str:
    """Say what becomes of a request whose answer was lost."""
    if Capability.FIND in capabilities:
        return "the CA is asked what it did"
    if Capability.REPEATABLE in capabilities:
        return "the same request is sent again"
    return "it is held until `requests resolve`"


_WORDS = {
    Capability.FIND: "find",
    Capability.POLL: "poll",
    Capability.REVOKE: "revoke",
    Capability.REVIVE: "take off hold",
    Capability.CRL: "crl",
    Capability.RENEWAL_HINT: "renewal hint",
    Capability.REPEATABLE: "repeat",
}


def name_capabilities(capabilities: Capability) -> tuple[str, ...]:
    """Return what a CA can do beyond issuing, in words."""
    return tuple(word for capability, word in _WORDS.items() if capability in capabilities)
