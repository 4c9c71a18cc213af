"""What an order and its authorizations say, read under bounds, and which names a request orders (RFC 8555 §7.1.3-7.1.4, §7.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.ca.acme.session import tell
from gateway.ca.interfaces import IssueRequest, UpstreamRejected
from gateway.errors import Rejection
from gateway.model import ChallengeType, Identifier, IdentifierType, SanKind
from gateway.pki.csr import parse_csr
from gateway.pki.names import attribute_oid
from gateway.wire.acme.client import AcmeAnswer
from gateway.wire.acme.identifiers import compare, parse_identifiers

MAX_AUTHORIZATIONS = 100
MAX_CHALLENGES = 32
DEFAULT_PAUSE = 1
"""Seconds before something is asked about again where the CA does not say when."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 600

_TYPES: Mapping[SanKind, IdentifierType] = {SanKind.DNS: IdentifierType.DNS, SanKind.IP: IdentifierType.IP}
_CHALLENGES = frozenset({ChallengeType.HTTP_01, ChallengeType.DNS_01})
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)
_COMMON_NAME = attribute_oid("CN")


class Senseless(ValueError):
    """The CA's answer is not what it should be."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order; `retry_after` in seconds, None where the CA does not say; `reason` why it is invalid where it says so."""

    status: str
    identifiers: frozenset[Identifier]
    authorizations: tuple[object, ...]
    finalize: object
    certificate: object
    reason: str
    retry_after: int | None


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove control of a name."""

    type: ChallengeType
    url: object
    status: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What has to be proved for one name; `name` has its `*.` where it is a wildcard. `reason` is why it is invalid."""

    status: str
    name: Identifier
    challenges: tuple[Challenge, ...]
    reason: str
    retry_after: int | None


def ordered_names(request: IssueRequest) -> tuple[Identifier, ...]:
    """Return the names to order; raises UpstreamRejected where no ACME CA certifies what was granted.

    It certifies what the PKCS#10 asks for, so that must be what was granted: the same hosts and addresses, and nothing else.
    """
    granted = _names((san.kind, san.value) for san in request.grant.sans)
    if not granted:
        raise UpstreamRejected("an ACME CA certifies host names and addresses, and the request has none")
    csr = parse_csr(request.request, proof=False)
    asked = _names((san.kind, san.value) for san in csr.sans)
    common_names = [attribute.value for rdn in csr.subject.rdns for attribute in rdn if attribute.oid == _COMMON_NAME]
    asked |= {name for name in granted if name.value in {text.lower() for text in common_names}}
    if asked != granted:
        raise UpstreamRejected("an ACME CA certifies the names of the request as they are, and others were granted")
    return tuple(sorted(granted))


def _names(sans: Any) -> set[Identifier]:
    try:
        return {compare(Identifier(_TYPES[kind], value)) for kind, value in sans}
    except KeyError:
        raise UpstreamRejected("an ACME CA certifies host names and addresses, and no other kind of name") from None
    except Rejection as error:
        raise UpstreamRejected(f"an ACME CA certifies no such name: {error.detail}") from error


def read_order(answer: AcmeAnswer) -> Order:
    """Return an order; raises Senseless."""
    document = _document(answer)
    authorizations = document.get("authorizations")
    if not isinstance(authorizations, list) or len(authorizations) > MAX_AUTHORIZATIONS:
        raise Senseless("the order has no list of authorizations")
    try:
        identifiers = frozenset(parse_identifiers(document.get("identifiers")))
    except Rejection as error:
        raise Senseless("the order has no names") from error
    return Order(
        status=_status(document),
        identifiers=identifiers,
        authorizations=tuple(authorizations),
        finalize=document.get("finalize"),
        certificate=document.get("certificate"),
        reason=_detail(document),
        retry_after=_pause(answer),
    )


def read_authorization(answer: AcmeAnswer) -> Authorization:
    """Return an authorization with the challenges of it that are understood; raises Senseless."""
    document = _document(answer)
    challenges = document.get("challenges")
    if not isinstance(challenges, list) or len(challenges) > MAX_CHALLENGES:
        raise Senseless("the authorization has no list of challenges")
    try:
        (name,) = parse_identifiers([document.get("identifier")])
    except Rejection as error:
        raise Senseless("the authorization has no name") from error
    if document.get("wildcard") is True:
        name = Identifier(name.type, f"*.{name.value}")
    objects = [raw for raw in challenges if isinstance(raw, Mapping)]
    reasons = filter(None, map(_detail, objects))
    found = tuple(challenge for raw in objects if (challenge := _read_challenge(raw)) is not None)
    return Authorization(_status(document), name, found, "; ".join(reasons), _pause(answer))


def _read_challenge(raw: Mapping[str, Any]) -> Challenge | None:
    kind, token = raw.get("type"), raw.get("token")
    if kind not in _CHALLENGES or not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        return None
    return Challenge(ChallengeType(kind), raw.get("url"), str(raw.get("status"))[:32], token)


def _document(answer: AcmeAnswer) -> Mapping[str, Any]:
    try:
        return answer.document
    except Rejection as error:
        raise Senseless("it is no JSON object") from error


def _status(document: Mapping[str, Any]) -> str:
    status = document.get("status")
    if not isinstance(status, str):
        raise Senseless("it has no status")
    return status[:32]


def _detail(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    return tell(error.get("detail", "")) if isinstance(error, Mapping) else ""


def pauses(asked: int | None) -> Iterator[float]:
    """Yield the seconds to wait before each further question: what the CA asked for, else little first, then more."""
    pause = FIRST_PAUSE
    while True:
        yield pause if asked is None else asked
        pause = min(DEFAULT_PAUSE, pause * 2)


def _pause(answer: AcmeAnswer) -> int | None:
    asked = answer.retry_after
    return None if asked is None else max(DEFAULT_PAUSE, min(asked, LONGEST_PAUSE))
