"""Credentials that come by EST only: TLS certificates, passwords, tokens, and several of them at once (RFC 7030 §3.2.3, §3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from gateway.config.credentials import (
    AllOfCredential,
    BasicCredential,
    BearerCredential,
    DigestCredential,
    Ocsp,
    RaCertificateCredential,
    SingleCredential,
    TlsCertificateCredential,
)
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import check_token_times, positive
from gateway.config.listener_checks import each_credential
from gateway.config.parts import PolicyRules, ProfileParts
from gateway.config.policy import RuleMode, Unlisted
from gateway.config.sentences import choice
from gateway.pki.names import attribute_oid, parse_name_text

EST_ONLY = frozenset({"tls_certificate", "basic", "digest_md5_legacy", "bearer"})
"""Kinds that no SCEP message can carry."""
_MAX_WAIT = timedelta(seconds=30)
"""Most that a responder may be waited for: devices give up by then."""
_PLACES = {
    "static": "challenge",
    "one_time": "challenge",
    "intune_jws": "challenge",
    "basic": "Authorization header",
    "digest_md5_legacy": "Authorization header",
    "bearer": "Authorization header",
    "tls_certificate": "TLS client certificate",
    "ra_certificate": "TLS client certificate",
    "cmp_secret": "CMP protection",
    "vendor_certificate": "CMP protection",
}
"""Where a request carries each kind; it has one place of each sort."""


def check_carriers(profile: ProfileParts) -> Iterator[Problem]:
    """Yield credentials that no endpoint of the profile can carry; paths begin at the profile."""
    if profile.endpoints is None or profile.endpoints.est is not None:
        return
    for path, credential in each_credential(profile.credentials):
        is_ra = credential.type == "ra_certificate"
        if credential.type in EST_ONLY or (is_ra and "of" in path):
            yield Problem(path, f"{credential.type} comes by EST only, which this profile does not open")
        elif is_ra and profile.endpoints.scep is None and profile.endpoints.cmp is None:
            yield Problem(path, "ra_certificate comes by EST, SCEP or CMP, none of which this profile opens")


def check_once(types: tuple[str, ...]) -> Iterator[Problem]:
    """Yield kinds of password that are there twice: of two realms a client is shown both, and knows which is meant of neither."""
    for kind in ("basic", "digest_md5_legacy"):
        if types.count(kind) > 1:
            yield Problem(("credentials",), f"names {kind} twice; put all users into one file")


def check_all_of(credential: AllOfCredential) -> Iterator[Problem]:
    """Yield what one request cannot carry at once; paths begin at the credential."""
    places = Counter(_PLACES[member.type] for member in credential.of)
    for place, count in places.items():
        if count > 1:
            kinds = choice((member.type for member in credential.of if _PLACES[member.type] == place), quote=False)
            yield Problem(("of",), f"asks for more than one {place}, of which a request has one: {kinds}")


def check_est_credential(credential: SingleCredential, rules: PolicyRules) -> Iterator[Problem]:
    """Yield what is wrong within one credential of EST; paths begin at it."""
    match credential:
        case TlsCertificateCredential() | RaCertificateCredential():
            yield from _check_ocsp(credential.ocsp)
            if isinstance(credential, RaCertificateCredential):
                yield from _check_subjects(credential)
            elif credential.names == "serial_number":
                yield from _check_bound("serialNumber", rules)
        case BearerCredential():
            yield from check_token_times(credential.max_age, credential.skew)
            if credential.names == "subject":
                yield from _check_bound("CN", rules)
        case BasicCredential() | DigestCredential():
            if credential.names == "user":
                yield from _check_bound("CN", rules)
        case _:
            return


def _check_ocsp(ocsp: Ocsp | None) -> Iterator[Problem]:
    if ocsp is None:
        return
    yield from positive(("ocsp", "timeout"), ocsp.timeout)
    if ocsp.timeout > _MAX_WAIT:
        yield Problem(("ocsp", "timeout"), f"must not be longer than {_MAX_WAIT.seconds}s; devices wait no longer")


def _check_subjects(credential: RaCertificateCredential) -> Iterator[Problem]:
    for number, text in enumerate(credential.subjects):
        path: DataPath = ("subjects", number)
        try:
            name = parse_name_text(text)
        except ValueError as error:
            yield Problem(path, f"is not an RFC 4514 name: {error}")
            continue
        if not name.rdns:
            yield Problem(path, "is the empty name, which is nobody's")


def _check_bound(name: str, rules: PolicyRules) -> Iterator[Problem]:
    """Yield why an attribute that the credential binds would not be certified as it was asked for.

    What is bound is what was asked; a template or an override that puts something else in its place would unbind it. Both work
    in every mode of the rule.
    """
    rule = rules.subject
    if rule is None:
        return
    oid = attribute_oid(name)
    if any(_oid(overridden) == oid for overridden in rule.override):
        yield Problem(("names",), f"binds {name}, which policy.subject.override replaces by something else")
    elif rule.template is not None:
        if not _copies(rule.template, oid):
            sentence = f"binds {name}, and policy.subject.template does not certify the one that was asked for"
            yield Problem(("names",), f"{sentence}; write {name}={{{name}}} into it, once")
    elif rule.mode is RuleMode.ENFORCE and oid not in {_oid(allowed) for allowed in rule.allow}:
        lost = "refuses" if rule.unlisted is Unlisted.REFUSE else "drops"
        yield Problem(("names",), f"binds {name}, which policy.subject {lost}; add it to allow")


def _copies(template: str, oid: str) -> bool:
    """Say whether a template takes this attribute exactly once, as it was asked for; what cannot be read is told elsewhere."""
    try:
        values = parse_name_text(template).values(oid)
    except ValueError:
        return True
    return len(values) == 1 and values[0][:1] == "{" and values[0][-1:] == "}" and _oid(values[0][1:-1]) == oid


def _oid(name: str) -> str | None:
    try:
        return attribute_oid(name)
    except ValueError:
        return None
