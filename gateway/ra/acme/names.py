"""Which names an account may order, and how each may be proved (RFC 8555 §7.4, RFC 8738, RFC 9444)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

from gateway.acme import ExternalAccountPolicy, IdentifiersRejected
from gateway.config.acme import AcmeEndpoint, TrustMode
from gateway.config.patterns import LinearPattern
from gateway.config.policy import PolicyConfig
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType, SubjectAltName
from gateway.pki.identifiers import to_san
from gateway.ra.policy import precheck_names
from gateway.ra.policy.sans import judge_sans

_BY_DNS = (ChallengeType.DNS_01, ChallengeType.DNS_ACCOUNT_01, ChallengeType.DNS_PERSIST_01)
"""They prove control of a domain and not of one host in it: they alone stand for other names (RFC 8555 §7.1.3, RFC 9444 §4)."""
_BY_HOST = (ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01)
_NO_CHALLENGE = "no challenge of this directory proves control of such a name"


def base_of(identifier: Identifier) -> Identifier:
    """Return what an authorization of an identifier names: a wildcard's domain (RFC 8555 §7.1.4)."""
    return Identifier(identifier.type, identifier.value.removeprefix("*.")) if identifier.wildcard else identifier


def is_below(name: str, domain: str) -> bool:
    """Say whether a DNS name is a domain or below it."""
    return name == domain or name.endswith(f".{domain}")


def refuse(refusals: Sequence[tuple[Identifier, Reason, str]]) -> IdentifiersRejected:
    """Return one refusal of all that is wrong with single names (RFC 8555 §6.7.1)."""
    identifier, reason, detail = refusals[0]
    rest = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return IdentifiersRejected(reason, f"{identifier.value}: {detail}{rest}", tuple(refusals))


def judge_names(policy: PolicyConfig, external: ExternalAccountPolicy, identifiers: Sequence[Identifier]) -> None:
    """Judge names by the profile's policy and by the external account's, before anything is proved.

    Raises IdentifiersRejected with what is wrong with each name. A name that policy would drop is refused: an order is for all of
    its names or for none.
    """
    found = [(one, Reason.POLICY_SAN, problem) for one in identifiers if (problem := _external_problem(external, one))]
    if not found:
        found = list(_policy_problems(policy, identifiers))
    if found:
        raise refuse(found)


def _policy_problems(policy: PolicyConfig, identifiers: Sequence[Identifier]) -> Iterable[tuple[Identifier, Reason, str]]:
    sans = []
    for identifier in identifiers:
        try:
            sans.append(to_san(identifier))
        except ValueError:
            return [(identifier, Reason.POLICY_SAN, "it is no name that can be certified")]
    granted, _ = judge_sans(policy.san, tuple(sans), vouched=False)
    broken = [v for v in precheck_names(policy, tuple(sans)) if not v.passed and v.mode == "enforce"]
    if not broken and len(granted) == len(sans):
        return []
    alone = [(one, problem) for one, san in zip(identifiers, sans, strict=True) if (problem := _alone(policy, san))]
    if alone:
        return [(one, Reason.POLICY_SAN, problem) for one, problem in alone]
    first = broken[0] if broken else None
    return [(identifiers[0], first.reason if first else Reason.POLICY_SAN, first.message if first else "it may not be certified")]


def _alone(policy: PolicyConfig, san: SubjectAltName) -> str | None:
    """Say what is wrong with one name by itself."""
    granted, verdicts = judge_sans(policy.san, (san,), vouched=False)
    broken = [v.message for v in verdicts if not v.passed and v.mode == "enforce"]
    return broken[0] if broken else None if granted else f"names of type {san.kind} are not allowed"


def _external_problem(policy: ExternalAccountPolicy, identifier: Identifier) -> str | None:
    """Say why an external account may not have a name; None where it may."""
    if identifier.wildcard and not policy.wildcards:
        return "the external account may have no wildcards"
    if not policy.dns and not policy.ip:
        return None
    match identifier.type:
        case IdentifierType.DNS:
            name = base_of(identifier).value
            inside = any(_pattern(text).matches(name) for text in policy.dns)
        case IdentifierType.IP:
            address = ipaddress.ip_address(identifier.value)
            inside = any(address in _network(text) for text in policy.ip)
        case _:
            inside = False
    return None if inside else "the external account may not have this name"


@lru_cache(maxsize=1024)
def _pattern(text: str) -> LinearPattern:
    return LinearPattern.compile(text)


@lru_cache(maxsize=1024)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def challenges_for(
    config: AcmeEndpoint,
    mode: TrustMode,
    external: ExternalAccountPolicy,
    identifier: Identifier,
    *,
    wildcard: bool,
    subdomains: bool,
) -> tuple[ChallengeType, ...]:
    """Return the challenges that can prove an identifier here, in the order of the configuration; none: it cannot be ordered."""
    match identifier.type:
        case IdentifierType.DNS:
            fit: tuple[ChallengeType, ...] = _BY_DNS if wildcard or subdomains else (*_BY_HOST, *_BY_DNS)
        case IdentifierType.IP:
            fit = _BY_HOST
        case _:
            fit = (ChallengeType.DEVICE_ATTEST_01,)
    offered = [ChallengeType(name) for name in config.validation.challenges]
    if mode == "attestation":
        offered = [ChallengeType.DEVICE_ATTEST_01]
    return tuple(c for c in offered if c in fit and (external.challenges is None or c in external.challenges))


def unprovable(identifier: Identifier) -> tuple[Identifier, Reason, str]:
    """Return the refusal of a name that no challenge here can prove."""
    return identifier, Reason.UNSUPPORTED_IDENTIFIER, _NO_CHALLENGE
