"""CMP endpoints that contradict themselves, each other, their profile's policy, or what their CA takes (RFC 9810, RFC 9483)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from gateway.cmp import PATH_OPERATIONS
from gateway.config.cmp import CmpEndpoint, CmpKeyGeneration
from gateway.config.credentials import (
    AllOfCredential,
    CmpSecretCredential,
    RaCertificateCredential,
    VendorCertificateCredential,
)
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import positive
from gateway.config.est_checks import may_be_certified
from gateway.config.listener_checks import each_credential
from gateway.config.parts import Parts, PolicyRules, ProfileParts
from gateway.config.policy import KeyRule, RuleMode
from gateway.config.sources import Sources
from gateway.pki.names import attribute_oid, parse_name_text

LEAST_ITERATIONS = 100
"""RFC 9481 §6.1 asks for 1024 of PBM; OpenSSL takes 500 unasked, others 100."""
MOST_PBM_ITERATIONS = 100_000
"""OpenSSL takes no more itself: each is a hash that anybody may ask for."""
MOST_PBMAC1_ITERATIONS = 1_000_000
LONGEST_SKEW = timedelta(days=1)
LONGEST_WAIT = timedelta(days=30)
"""As long as transactions are remembered."""
WELL_KNOWN = ".well-known"
MAX_INVENTORY_LINE = 256
CMP_RENEWALS = frozenset({"kur", "cr", "p10cr"})
"""Messages of CMP that a certificate of ours may sign."""
_TAKEN = ("acme", "ca", "crl", "scep", "scep-mtls")
"""What the first segment of a path means already."""


def check_cmp(profile: ProfileParts) -> Iterator[Problem]:
    """Yield what is wrong with the CMP endpoint of one profile; paths begin at it."""
    endpoint = profile.endpoints.cmp if profile.endpoints is not None else None
    if endpoint is None:
        return
    yield from positive(("message_time_skew",), endpoint.message_time_skew)
    if endpoint.message_time_skew > LONGEST_SKEW:
        yield Problem(("message_time_skew",), "must not be longer than 1d: what was recorded could be sent again for as long")
    yield from positive(("confirmation", "wait"), endpoint.confirmation.wait)
    if endpoint.confirmation.wait > LONGEST_WAIT:
        yield Problem(("confirmation", "wait"), f"must not be longer than {LONGEST_WAIT.days}d")
    yield from _check_window(("mac", "iterations"), endpoint.mac.iterations, MOST_PBM_ITERATIONS)
    yield from _check_window(("mac", "pbmac1_iterations"), endpoint.mac.pbmac1_iterations, MOST_PBMAC1_ITERATIONS)
    if endpoint.key_generation is not None:
        yield from _check_key_generation(endpoint.key_generation, profile)


def _check_window(path: DataPath, window: tuple[int, int], most: int) -> Iterator[Problem]:
    fewest, largest = window
    if not LEAST_ITERATIONS <= fewest <= largest <= most:
        yield Problem(path, f"must be two numbers from {LEAST_ITERATIONS} to {most}, the smaller one first")


def _check_key_generation(generation: CmpKeyGeneration, profile: ProfileParts) -> Iterator[Problem]:
    """Yield kinds of key that policy refuses, and profiles whose requests wait: a key that was drawn is kept nowhere."""
    rule: KeyRule | None = profile.policy.key
    if rule is not None and rule.mode is RuleMode.ENFORCE:
        for number, kind in enumerate(generation.keys):
            if not may_be_certified(kind, rule):
                path: DataPath = ("key_generation", "keys", number)
                yield Problem(path, f"{kind} is refused by policy.key: no certificate would come of it")
    if profile.written.get("approval") == "manual":
        sentence = "hands out a key at once or not at all, and approval: manual makes every request wait"
        yield Problem(("key_generation",), sentence)


def check_cmp_across(parts: Parts) -> Iterator[Problem]:
    """Yield paths that two profiles have, a second default, and profiles named by certProfile that are not served by CMP."""
    default: str | None = None
    paths: dict[str, str] = {}
    for name, endpoint in _endpoints(parts):
        where: DataPath = ("profiles", name, "endpoints", "cmp")
        if endpoint.default and default is not None:
            yield Problem((*where, "default"), f"profile {default} is served at /.well-known/cmp already; only one can be")
        if endpoint.default:
            default = default or name
        for number, alias in enumerate(endpoint.aliases):
            fault = _alias_fault(alias, paths.get(alias))
            if fault is not None:
                yield Problem((*where, "aliases", number), fault)
            paths.setdefault(alias, name)
        for chosen, target in endpoint.cert_profiles.items():
            fault = _chosen_fault(target, parts)
            if fault is not None:
                yield Problem((*where, "cert_profiles", chosen), fault)


def _alias_fault(alias: str, holder: str | None) -> str | None:
    segments = alias.split("/")
    if holder is not None:
        return f"{alias} is a path of profile {holder} already"
    if segments[0] == WELL_KNOWN:
        return f"{alias} is below /.well-known, where every profile has its path (RFC 9811)"
    if segments[0] in _TAKEN:
        return f"/{segments[0]}/ leads to something else here"
    if segments[-1] in PATH_OPERATIONS:
        return f"ends in {segments[-1]}, which says what a message at such a path is for (RFC 9811)"
    if {".", ".."} & set(segments):
        return "must not hold . or .. as a segment: clients resolve them before they ask"
    return None


def _chosen_fault(target: str, parts: Parts) -> str | None:
    chosen = parts.profiles.get(target)
    if chosen is None:
        return f"there is no profile {target}; there are: {', '.join(parts.profiles)}"
    written = chosen.written.get("endpoints")
    opened = isinstance(written, dict) and written.get("cmp") is not None
    return None if opened else f"profile {target} does not open CMP"


def _endpoints(parts: Parts) -> Iterable[tuple[str, CmpEndpoint]]:
    for name, profile in parts.profiles.items():
        if profile.endpoints is not None and profile.endpoints.cmp is not None:
            yield name, profile.endpoints.cmp


def check_cmp_credentials(profile: ProfileParts, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with credentials that CMP alone has; paths begin at the profile."""
    yield from _check_all_of(profile)
    for path, credential in each_credential(profile.credentials):
        match credential:
            case CmpSecretCredential() | VendorCertificateCredential() if not _opens_cmp(profile.written):
                yield Problem(path, f"{credential.type} is for CMP, and this profile does not open it")
            case RaCertificateCredential(may=may) if not _opens_cmp(profile.written) and set(may) != {"enroll"}:
                yield Problem((*path, "may"), "is for CMP beyond enroll, and this profile does not open it")
            case _:
                pass
        match credential:
            case CmpSecretCredential():
                yield from positive((*path, "ttl"), credential.ttl)
                if credential.ttl > credential.max_ttl:
                    yield Problem((*path, "ttl"), "must not be longer than max_ttl")
            case VendorCertificateCredential():
                yield from _check_vendor(path, credential, sources)
                yield from _check_identity(path, credential, profile.policy)
            case _:
                continue


def _check_all_of(profile: ProfileParts) -> Iterator[Problem]:
    """A CMP message has one protection, by which one of these alone can be proved."""
    for number, credential in enumerate(profile.credentials):
        if isinstance(credential, AllOfCredential):
            for place, member in enumerate(credential.of):
                if isinstance(member, CmpSecretCredential | VendorCertificateCredential):
                    path: DataPath = ("credentials", number, "of", place)
                    yield Problem(path, f"{member.type} protects a whole CMP message, and cannot be one of several")


def _opens_cmp(written: Mapping[str, Any]) -> bool:
    """Whether a profile opens CMP, or cannot be read well enough to know."""
    endpoints = written.get("endpoints")
    return not isinstance(endpoints, dict) or endpoints.get("cmp") is not None


def _check_vendor(path: DataPath, credential: VendorCertificateCredential, sources: Sources) -> Iterator[Problem]:
    """Without a list of devices, whoever buys one of the maker's is let in: that has to be said."""
    if credential.inventory is None:
        if not credential.any_device:
            yield Problem(path, "lets every device of these makers in: name an inventory, or say any_device: true")
        return
    if credential.any_device:
        yield Problem((*path, "any_device"), "is said beside an inventory, which lets in only the devices that it names")
    data = sources.files.get(credential.inventory)
    fault = None if data is None else _inventory_fault(data)
    if fault is not None:
        yield Problem((*path, "inventory"), f"{credential.inventory}: {fault}")


def _check_identity(path: DataPath, credential: VendorCertificateCredential, rules: PolicyRules) -> Iterator[Problem]:
    """Yield a template that certifies the device's identity nowhere, which the credential then refuses."""
    rule = rules.subject
    if credential.names != "identity" or rule is None or rule.template is None:
        return
    try:
        name = parse_name_text(rule.template)
    except ValueError:
        return  # told elsewhere
    found = {value for attribute in ("CN", "serialNumber") for value in name.values(attribute_oid(attribute))}
    if not found & _IDENTITIES:
        sentence = "binds the device's identity, which policy.subject.template certifies neither as CN nor as serialNumber"
        yield Problem((*path, "names"), f"{sentence}; write serialNumber={{vendor.id}} into it, or names: any")


_IDENTITIES = frozenset({"{vendor.id}", "{CN}", "{serialNumber}"})
"""Values of a template that can be the device's identity alone."""


def _inventory_fault(data: bytes) -> str | None:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return "is not UTF-8"
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_INVENTORY_LINE:
            return f"line {number} is longer than {MAX_INVENTORY_LINE} characters"
    return None
