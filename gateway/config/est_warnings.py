"""Choices of EST endpoints that clients of today fail on, or that weaken a profile (RFC 7030)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.credentials import BasicCredential, BearerCredential, DigestCredential, RaCertificateCredential
from gateway.config.document import DataPath, Problem
from gateway.config.listener_checks import each_credential, renews_by_est, sees_certificates, tls_credentials
from gateway.config.schema import GatewayConfig, ProfileConfig, Server


def warn_of_est(config: GatewayConfig) -> Iterator[Problem]:
    """Yield every warning that EST endpoints give rise to."""
    profiles = {name: profile for name, profile in config.profiles.items() if profile.endpoints.est is not None}
    for name, profile in profiles.items():
        where: DataPath = ("profiles", name)
        if renews_by_est(profile.renewal) and not sees_certificates(config.server):
            sentence = "holds simplereenroll, which needs server.https_mtls or a proxy that hands over client certificates"
            yield Problem((*where, "renewal", "messages"), f"{sentence}: nobody renews by EST")
        yield from _warn_of_credentials(where, profile)
        yield from _warn_of_weaker_protocol(where, profile)
    if any(_carries_secrets(profile) for profile in profiles.values()):
        yield from _warn_of_plain_text(config.server)


def _warn_of_credentials(where: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    for path, credential in each_credential(profile.credentials):
        if isinstance(credential, DigestCredential):
            sentence = "rests on MD5, and its file is as good as the passwords; only for clients that know no Basic"
            yield Problem((*where, *path), sentence)
        if isinstance(credential, RaCertificateCredential) and credential.crls is None and credential.ocsp is None:
            sentence = "speaks for others, and who steals its key does too: name crls or ocsp, so that it can be revoked"
            yield Problem((*where, *path), sentence)


def _warn_of_weaker_protocol(where: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    """What SCEP demands beside the challenge, EST does not: who cannot enroll by the one goes to the other."""
    scep = profile.endpoints.scep
    if scep is None or scep.client_certificate != "require":
        return
    for number, credential in enumerate(profile.credentials):
        if not any(True for _ in tls_credentials((credential,))):
            sentence = "is enough by EST, where client_certificate does not count; ask for tls_certificate too, by all_of"
            yield Problem((*where, "credentials", number), sentence)


def _carries_secrets(profile: ProfileConfig) -> bool:
    secret = BasicCredential | BearerCredential | DigestCredential
    return any(isinstance(credential, secret) for _, credential in each_credential(profile.credentials))


def _warn_of_plain_text(server: Server) -> Iterator[Problem]:
    """A proxy elsewhere may forward over the listener without TLS, which is open to it (RFC 7617 §4)."""
    if server.http.is_loopback:
        return
    for number, proxy in enumerate(server.proxies):
        if not all(network.is_loopback for network in proxy.addresses):
            sentence = "hands passwords or tokens over a network: see that it connects to server.https, not to server.http"
            yield Problem(("server", "proxies", number, "addresses"), sentence)
