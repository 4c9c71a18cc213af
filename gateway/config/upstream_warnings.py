"""Upstream CAs that work and are often not meant so: open to others, or asked for what they are not told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from gateway.config.credentials import StaticCredential
from gateway.config.document import Problem
from gateway.config.fields import Address
from gateway.config.listener_checks import each_credential
from gateway.config.remote_cas import AcmeCA, CfsslCA, CmpCA, CmpSecret, EstCA, GroupCA, RemoteCA, ScepCA, StepCA, VaultCA
from gateway.config.schema import GatewayConfig
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.config.upstream_checks import is_loopback

_HTTP_PORT = 80
"""Where ACME CAs ask for http-01 (RFC 8555 §8.3)."""
_READS_NO_CHALLENGES = (VaultCA, StepCA, CfsslCA)
"""These are mostly the operator's own, and do not look at a challengePassword; they get it, and may log it."""
_SIGNS_AS_ASKED = (AcmeCA, EstCA, ScepCA)


def warn_of_upstreams(config: GatewayConfig) -> Iterator[Problem]:
    """Yield every warning that upstream CAs give rise to."""
    for name, ca in config.upstream_cas.items():
        for problem in _warn_of_ca(ca, config):
            yield Problem(("upstream_cas", name, *problem.path), problem.sentence)
    yield from _warn_of_pairings(config)
    yield from _warn_of_secrets(config)


def _warn_of_ca(ca: UpstreamCAConfig, config: GatewayConfig) -> Iterator[Problem]:
    if isinstance(ca, RemoteCA) and ca.queue == timedelta(0):
        yield Problem(("queue",), "keeps nothing: requests and revocations are refused while the CA cannot be reached")
    match ca:
        case VaultCA(sign_verbatim=True):
            sentence = "lets the gateway's policy alone decide: no role of Vault's judges names and usages"
            yield Problem(("sign_verbatim",), sentence)
        case CfsslCA(auth_key=None) if ca.connection.client_certificate is None and not is_loopback(ca.url):
            sentence = "is absent, and so is connection.client_certificate: whoever reaches this cfssl gets certificates from it"
            yield Problem(("auth_key",), sentence)
        case AcmeCA(http01=True):
            yield from _warn_of_http01(config)
        case CmpCA(auth=CmpSecret()) if ca.url.startswith("http://") and not is_loopback(ca.url):
            sentence = "protects messages that everybody on the way can try passwords on: let it be 16 random bytes or more"
            yield Problem(("auth", "secret"), sentence)
        case ScepCA(challenge=None):
            yield Problem(("challenge",), "is absent: most SCEP servers issue nothing without one")
        case _:
            return


def _warn_of_http01(config: GatewayConfig) -> Iterator[Problem]:
    """The CA asks at port 80 of every name; what is in front of this server may lead there, of which the file says nothing."""
    url = urlsplit(config.server.external_url.http)
    if Address(url.hostname or "", 0).is_loopback or (url.port or _HTTP_PORT) != _HTTP_PORT:
        sentence = "is answered at port 80 of each name that is certified, and server.external_url.http is elsewhere"
        yield Problem(("http01",), sentence)


def _warn_of_pairings(config: GatewayConfig) -> Iterator[Problem]:
    """Policy that changes a name, and a CA that is not told of it: what comes back is quarantined unless the CA does the same."""
    for name, profile in config.profiles.items():
        rule = profile.policy.subject
        changes = [field for field, value in (("template", rule.template), ("override", rule.override)) if value]
        for ca_name in _signers(profile.upstream_ca, config):
            if not _signs_as_asked(config.upstream_cas[ca_name]):
                continue
            sentence = f"changes what was asked for, and {ca_name} is sent the request as it came: it must write the same name"
            yield from (Problem(("profiles", name, "policy", "subject", field), sentence) for field in changes)


def _signs_as_asked(ca: UpstreamCAConfig) -> bool:
    """Say whether a CA gets the request as the client made it: what policy changes in it, it does not know."""
    return isinstance(ca, _SIGNS_AS_ASKED) or (isinstance(ca, CmpCA) and ca.forward != "ra_verified")


def _warn_of_secrets(config: GatewayConfig) -> Iterator[Problem]:
    """A static challenge stands in the device's own request (RFC 8894 §2.3), which nobody else can sign anew without it."""
    for name, profile in config.profiles.items():
        readers = [
            ca for ca in _signers(profile.upstream_ca, config) if isinstance(config.upstream_cas[ca], _READS_NO_CHALLENGES)
        ]
        if not readers:
            continue
        sentence = f"is in every request, and {', '.join(readers)} gets requests as they came: who runs it, or reads its logs, "
        for path, credential in each_credential(profile.credentials):
            if isinstance(credential, StaticCredential):
                yield Problem(("profiles", name, *path, "challenge"), f"{sentence}could enroll here; use one_time challenges")


def _signers(name: str, config: GatewayConfig) -> tuple[str, ...]:
    ca = config.upstream_cas[name]
    return ca.members if isinstance(ca, GroupCA) else (name,)
