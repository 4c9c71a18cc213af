"""Choices of ACME endpoints that clients of today fail on, or that prove less than they seem to (RFC 8555)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.acme import AcmeEndpoint, AcmeValidation
from gateway.config.acme_checks import attestation_formats, open_prevalidations
from gateway.config.document import DataPath, Problem
from gateway.config.policy import EkuRule, RuleMode, SubjectRule
from gateway.config.schema import GatewayConfig, ProfileConfig, Server
from gateway.pki.extensions import eku_oid

_SERVER_AUTH = eku_oid("serverAuth")
_BY_ADDRESS = frozenset({"client_ip_forward", "client_ip_reverse"})


def warn_of_acme(config: GatewayConfig) -> Iterator[Problem]:
    """Yield every warning that ACME endpoints give rise to."""
    for name, profile in config.profiles.items():
        endpoint = profile.endpoints.acme
        if endpoint is not None:
            yield from _warn_of_validation(("profiles", name, "endpoints", "acme", "validation"), endpoint, config.server)
            yield from _warn_of_policy(("profiles", name, "policy"), profile)


def _warn_of_validation(where: DataPath, endpoint: AcmeEndpoint, server: Server) -> Iterator[Problem]:
    validation = endpoint.validation
    if validation.mode == "none":
        yield Problem((*where, "mode"), "proves nothing: whoever has an external account gets any name that policy lets through")
    for path in open_prevalidations(validation.prevalidated):
        yield Problem((*where, "prevalidated", *path), "holds everything: nothing is proved")
    if validation.mode in _BY_ADDRESS and any(not proxy.client_address for proxy in server.proxies):
        sentence = f"{validation.mode} judges by the client's address, and a proxy in server.proxies does not say it"
        yield Problem((*where, "mode"), f"{sentence}: set client_address: true there, or its clients get no name, or the proxy's")
    if validation.caa.mode == "enforce" and not validation.caa.identities:
        sentence = "names nobody: a name that has any CAA record is refused, since none can permit this CA"
        yield Problem((*where, "caa", "identities"), sentence)
    yield from _warn_of_idle(where, validation)


def _warn_of_idle(where: DataPath, validation: AcmeValidation) -> Iterator[Problem]:
    """Yield what is configured and never used."""
    used = "device-attest-01" in validation.challenges or validation.mode == "attestation"
    if attestation_formats(validation) and not used:
        yield Problem((*where, "attestation"), "has roots, and challenges do not name device-attest-01")
    if validation.http01_port is not None and "http-01" not in validation.challenges:
        yield Problem((*where, "http01_port"), "is set, and challenges do not name http-01")
    if validation.tlsalpn01_port is not None and "tls-alpn-01" not in validation.challenges:
        yield Problem((*where, "tlsalpn01_port"), "is set, and challenges do not name tls-alpn-01")


def _warn_of_policy(where: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    """Clients of ACME leave the subject empty, ask for no usage, and want a certificate of a server."""
    if _refuses_empty(profile.policy.subject):
        sentence = "refuses an empty subject, which Caddy, lego and others ask for"
        yield Problem((*where, "subject", "allow_empty"), f"{sentence}; set allow_empty: true")
    if _names_servers(profile) and not _serves(profile.policy.eku):
        sentence = "lacks serverAuth, and ACME clients ask for no usage: their certificates would be no server's"
        yield Problem((*where, "eku", "default"), sentence)


def _refuses_empty(rule: SubjectRule) -> bool:
    return rule.mode is RuleMode.ENFORCE and not rule.allow_empty and rule.template is None and not rule.override


def _names_servers(profile: ProfileConfig) -> bool:
    return profile.policy.san.dns is not None or profile.policy.san.ip is not None


def _serves(rule: EkuRule) -> bool:
    return rule.mode is RuleMode.OFF or _SERVER_AUTH in map(eku_oid, rule.default)
