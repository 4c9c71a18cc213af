"""ACME endpoints that contradict themselves, their profile's policy, or the listeners that they are reached by (RFC 8555)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from gateway.config.acme import AcmeEndpoint, AcmeLimits, AcmeValidation, Prevalidated, Resolver, TrustMode
from gateway.config.defaults import DEMO_PROFILE
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import positive
from gateway.config.listener_checks import listeners
from gateway.config.parts import Parts, PolicyRules, ProfileParts
from gateway.config.policy import RuleMode, SanRule
from gateway.config.policy_checks import find_open_names, matches_every_name
from gateway.config.schema import Server

DNS_PORT = 53
FINALIZE_WAIT = (timedelta(seconds=1), timedelta(seconds=25))
"""Clients give up an answer after 30 seconds."""
MAX_TIMEOUT = timedelta(seconds=30)
"""Most that one question to a resolver or a webhook may take: a validation is bounded by it."""
RETRY_AFTER = (timedelta(minutes=1), timedelta(days=1))
"""What clients make of Retry-After when they ask when to renew (RFC 9773 §4.3.2)."""
SPECIAL = tuple(
    map(ip_network, ("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "224.0.0.0/4", "ff00::/8"))
)
"""What is never connected to unless it is named itself: loopback, link-local with cloud metadata, unspecified, multicast."""
_LOOPBACK = SPECIAL[:2]
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*", re.ASCII)
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:]+\](?::[0-9]{1,5})?", re.ASCII)
_UNPROVED: frozenset[TrustMode] = frozenset({"none", "prevalidated"})
"""Modes in which nothing but the external account says who may have a name."""


def check_acme(profile: ProfileParts) -> Iterator[Problem]:
    """Yield what is wrong with the ACME endpoint of one profile; paths begin at the profile."""
    endpoint = profile.endpoints.acme if profile.endpoints is not None else None
    if endpoint is None:
        return
    base: DataPath = ("endpoints", "acme")
    for problem in (*_check_times(endpoint), *_check_validation(endpoint, profile.policy), *_check_urls(endpoint)):
        yield Problem((*base, *problem.path), problem.sentence)
    if profile.policy.san is not None:
        yield from _check_names(endpoint, profile.policy.san)
    yield from _check_idle(profile)


def _check_times(endpoint: AcmeEndpoint) -> Iterator[Problem]:
    yield from positive(("order_lifetime",), endpoint.order_lifetime)
    yield from positive(("authorization_reuse",), endpoint.authorization_reuse)
    yield from positive(("renewal", "before"), endpoint.renewal.before)
    if not FINALIZE_WAIT[0] <= endpoint.finalize_wait <= FINALIZE_WAIT[1]:
        yield Problem(("finalize_wait",), "must be from 1s to 25s: an order must have begun by then, and clients wait no longer")
    if not RETRY_AFTER[0] <= endpoint.renewal.retry_after <= RETRY_AFTER[1]:
        yield Problem(("renewal", "retry_after"), "must be from 1m to 24h: clients take nothing else")
    yield from _check_quotas(endpoint.limits)


def _check_quotas(limits: AcmeLimits) -> Iterator[Problem]:
    for name in AcmeLimits.model_fields:
        quota = getattr(limits, name)
        if quota is not None:
            yield from positive(("limits", name, "window"), quota.window)


def _check_urls(endpoint: AcmeEndpoint) -> Iterator[Problem]:
    for number, alias in enumerate(endpoint.aliases):
        if not alias.startswith("https://"):
            yield Problem(("aliases", number), 'must begin with "https://"')
        elif alias in endpoint.aliases[:number]:
            yield Problem(("aliases", number), "is written twice")
    for number, origin in enumerate(endpoint.cors_origins):
        if origin != "*" and _ORIGIN.fullmatch(origin) is None:
            yield Problem(("cors_origins", number), 'must be "*" or an origin such as "https://app.example.com"')


def _check_validation(endpoint: AcmeEndpoint, rules: PolicyRules) -> Iterator[Problem]:
    found = (
        *_check_challenges(endpoint.validation),
        *_check_mode(endpoint, rules),
        *_check_networks(endpoint.validation),
        *_check_resolver(endpoint.validation.resolver),
        *_check_caa(endpoint.validation),
        *positive(("attempt_every",), endpoint.validation.attempt_every),
    )
    for problem in found:
        yield Problem(("validation", *problem.path), problem.sentence)


def _check_challenges(validation: AcmeValidation) -> Iterator[Problem]:
    for number, challenge in enumerate(validation.challenges):
        if challenge in validation.challenges[:number]:
            yield Problem(("challenges", number), f"{challenge} is written twice")
    attested = "device-attest-01" in validation.challenges or validation.mode == "attestation"
    if attested and not attestation_formats(validation):
        yield Problem(("attestation",), "names no roots, so that no attestation would be good; name apple, tpm or step")
    if "dns-persist-01" in validation.challenges and not validation.caa.identities:
        yield Problem(("caa", "identities"), "must name this CA: a dns-persist-01 record says by it who may issue")


def attestation_formats(validation: AcmeValidation) -> tuple[str, ...]:
    """Return the formats of attestations that have roots."""
    return tuple(name for name in ("apple", "tpm", "step") if getattr(validation.attestation, name) is not None)


def _check_mode(endpoint: AcmeEndpoint, rules: PolicyRules) -> Iterator[Problem]:
    """Yield modes that lack what they rest on; the two that prove nothing rest on external accounts and an allow-list."""
    validation = endpoint.validation
    if validation.mode == "webhook" and validation.webhook is None:
        yield Problem(("mode",), "webhook needs webhook: the service that says so")
    if validation.webhook is not None:
        yield from _check_webhook(validation.webhook.url, validation.webhook.timeout)
    if validation.mode == "prevalidated" and not (validation.prevalidated.dns or validation.prevalidated.ip):
        yield Problem(("mode",), "prevalidated needs prevalidated: the names that are good at once")
    yield from _check_catch_all(validation)
    if validation.mode in _UNPROVED and endpoint.external_account != "required":
        sentence = f"{validation.mode} gives names to whoever asks: set external_account: required, so that you know who that is"
        yield Problem(("mode",), sentence)
    if validation.mode == "none":
        if not validation.acknowledge_no_validation:
            yield Problem(("mode",), "none proves nothing: say acknowledge_no_validation: true if that is meant")
        if rules.san is not None:
            yield from _check_allow_list(rules.san)


def _check_allow_list(rule: SanRule) -> Iterator[Problem]:
    if rule.mode is not RuleMode.ENFORCE:
        yield Problem(("mode",), "none needs an allow-list of names: policy.san.mode must be enforce")
    elif kinds := ", ".join(find_open_names(rule)):
        yield Problem(("mode",), f"none needs an allow-list of names, and policy.san lets every name of type {kinds} through")


def _check_catch_all(validation: AcmeValidation) -> Iterator[Problem]:
    """Yield lists of names that hold everything; said so, they may."""
    if validation.acknowledge_no_validation:
        return
    for path in open_prevalidations(validation.prevalidated):
        sentence = "holds everything, so that nothing is proved any more: narrow it, or say acknowledge_no_validation: true"
        yield Problem(("prevalidated", *path), sentence)


def open_prevalidations(names: Prevalidated) -> Iterator[DataPath]:
    """Yield the places of patterns and networks that let everything through."""
    yield from (("dns", number) for number, pattern in enumerate(names.dns) if matches_every_name(pattern))
    yield from (("ip", number) for number, network in enumerate(names.ip) if network.prefixlen == 0)


def _check_webhook(url: str, timeout: timedelta) -> Iterator[Problem]:
    yield from positive(("webhook", "timeout"), timeout)
    if timeout > MAX_TIMEOUT:
        yield Problem(("webhook", "timeout"), f"must not be longer than {MAX_TIMEOUT.seconds}s")
    if not url.startswith("https://") and not _is_loopback_host(urlsplit(url).hostname or ""):
        yield Problem(("webhook", "url"), 'must begin with "https://": its answers decide who gets a name')


def _is_loopback_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_networks(validation: AcmeValidation) -> Iterator[Problem]:
    for number, network in enumerate(validation.allow_cidrs):
        wider = [str(special) for special in SPECIAL if _contains(network, special) and network != special]
        if wider:
            sentence = f"{network} holds more than {wider[0]}, which is never connected to unless it is named itself"
            yield Problem(("allow_cidrs", number), f"{sentence}; name networks of yours")
    if not allows_loopback(validation):
        for field in ("http01_port", "tlsalpn01_port"):
            if getattr(validation, field) is not None:
                yield Problem((field,), "is for trials on this machine: it needs loopback in allow_cidrs")


def _contains(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return network.version == other.version and network.overlaps(other) and network.prefixlen <= other.prefixlen


def allows_loopback(validation: AcmeValidation) -> bool:
    """Say whether validations may connect to this machine itself."""
    return any(
        network.version == loopback.version and network.overlaps(loopback)
        for network in validation.allow_cidrs
        for loopback in _LOOPBACK
    )


def _check_resolver(resolver: Resolver) -> Iterator[Problem]:
    yield from positive(("resolver", "timeout"), resolver.timeout)
    if resolver.timeout > MAX_TIMEOUT:
        yield Problem(("resolver", "timeout"), f"must not be longer than {MAX_TIMEOUT.seconds}s")
    for number, text in enumerate(resolver.servers):
        if dns_server(text) is None:
            sentence = 'must be an IP address, with a port where it is not 53: "192.0.2.53:5353", "[2001:db8::53]:5353"'
            yield Problem(("resolver", "servers", number), sentence)
    for name, addresses in resolver.hosts.items():
        if _HOST.fullmatch(name) is None:
            yield Problem(("resolver", "hosts", name), "is not a DNS name in lower case, nor one after `*.`")
        if not addresses:
            yield Problem(("resolver", "hosts", name), "has no address")
        for number, text in enumerate(addresses):
            if _address(text) is None:
                yield Problem(("resolver", "hosts", name, number), "is not an IP address")


def dns_server(text: str) -> tuple[str, int] | None:
    """Return address and port of a DNS server as the file writes it; None where it is none."""
    if _address(text) is not None:
        return text, DNS_PORT
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if _address(host) is None or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 1 << 16:
        return None
    return host, int(port)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _check_caa(validation: AcmeValidation) -> Iterator[Problem]:
    for number, name in enumerate(validation.caa.identities):
        if _HOST.fullmatch(name) is None or name.startswith("*"):
            yield Problem(("caa", "identities", number), "is not a DNS name in lower case")


def _check_names(endpoint: AcmeEndpoint, rule: SanRule) -> Iterator[Problem]:
    """Yield a policy by which no order could ever pass."""
    if rule.mode is not RuleMode.ENFORCE:
        return
    if all(getattr(rule, kind, None) is None for kind in ("dns", "ip", "permanent_identifier", "hardware_module")):
        yield Problem(("policy", "san"), "names neither dns nor ip, so that no ACME order would pass; say which names may be had")


def _check_idle(profile: ProfileParts) -> Iterator[Problem]:
    """Yield what no request of a profile that opens ACME alone can bring (RFC 8555 §7.4: its orders are what proves it)."""
    endpoints = profile.endpoints
    if endpoints is None or endpoints.scep is not None or endpoints.est is not None:
        return
    if profile.written.get("credentials"):
        yield Problem(("credentials",), "come by SCEP and EST, which this profile does not open; ACME proves control of names")
    if profile.written.get("renewal") is not None:
        yield Problem(("renewal",), "is for SCEP and EST, which this profile does not open; by ACME a new order renews")


def check_acme_across(parts: Parts) -> Iterator[Problem]:
    """Yield profiles that name others wrongly, and trials that could be reached from elsewhere."""
    aliases: dict[str, str] = {}
    for name, endpoint in _endpoints(parts):
        where: DataPath = ("profiles", name, "endpoints", "acme")
        yield from _check_profiles(where, name, endpoint, parts)
        if parts.server is not None and allows_loopback(endpoint.validation) and name != DEMO_PROFILE:  # which is refused whole
            yield from _check_trial((*where, "validation", "allow_cidrs"), parts.server)
        for number, alias in enumerate(endpoint.aliases):
            if aliases.setdefault(alias, name) != name:
                yield Problem((*where, "aliases", number), f"{alias} is an alias of profile {aliases[alias]} too")


def _check_trial(path: DataPath, server: Server) -> Iterator[Problem]:
    """Yield a profile by which strangers could have this machine's own services asked."""
    reached = next((address for _, address in listeners(server) if not address.is_loopback), None)
    if reached is not None:
        sentence = f"lets clients reach this machine's own services, and {reached} can be reached from elsewhere"
        yield Problem(path, f"{sentence}: loopback is for trials on loopback only")


def _check_profiles(where: DataPath, name: str, endpoint: AcmeEndpoint, parts: Parts) -> Iterator[Problem]:
    for other in endpoint.profiles:
        path = (*where, "profiles", other)
        if other == name:
            yield Problem(path, "is this profile itself, which orders get without a name")
        elif other not in parts.profiles:
            yield Problem(path, f"there is no profile {other}; there are: {', '.join(parts.profiles)}")
        else:
            endpoints = parts.profiles[other].endpoints
            if endpoints is not None:
                yield from _check_offered(path, other, endpoint, endpoints.acme)


def _check_offered(path: DataPath, other: str, endpoint: AcmeEndpoint, offered: AcmeEndpoint | None) -> Iterator[Problem]:
    """Yield a profile that no order at this directory could get; who may order there is judged by that profile as well."""
    if offered is None:
        yield Problem(path, f"profile {other} does not open ACME; add endpoints.acme to it")
    elif offered.external_account == "required" and endpoint.external_account == "off":
        sentence = f"profile {other} is for accounts with an external account, and none can be bound here"
        yield Problem(path, f"{sentence}; set external_account: optional")


def _endpoints(parts: Parts) -> Iterable[tuple[str, AcmeEndpoint]]:
    for name, profile in parts.profiles.items():
        if profile.endpoints is not None and profile.endpoints.acme is not None:
            yield name, profile.endpoints.acme
