"""What is allowed and yet often not meant: choices of the file that clients of today fail on, or that weaken a profile."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.config.acme_warnings import warn_of_acme
from gateway.config.cmp_warnings import warn_of_cmp
from gateway.config.credentials import BearerCredential, IntuneJwsCredential, StaticCredential
from gateway.config.document import DataPath, Problem
from gateway.config.est_warnings import warn_of_est
from gateway.config.fields import Address
from gateway.config.listener_checks import each_credential, listeners
from gateway.config.policy import RuleMode
from gateway.config.schema import GatewayConfig, ProfileConfig, ScepEndpoint, Server
from gateway.config.sources import Sources
from gateway.config.upstream_warnings import warn_of_upstreams
from gateway.pki.certificate import pem_to_ders

_PRINTABLE = re.compile(rb"[A-Za-z0-9 '()+,./:=?-]*")
"""X.680 §41.4."""


def warn(config: GatewayConfig, sources: Sources) -> tuple[Problem, ...]:
    """Return every warning that the file itself gives rise to; none of them keeps a service from starting."""
    found = [*_warn_of_tls(config), *_warn_of_urls(config.server)]
    for name, profile in config.profiles.items():
        where: DataPath = ("profiles", name)
        if profile.endpoints.scep is not None:
            at = (*where, "endpoints", "scep")
            found += _warn_of_legacy(at, profile.endpoints.scep)
            found += _warn_of_pwri((*at, "pwri"), profile)
            found += _warn_of_keys((*where, "policy", "key", "rsa"), profile)
        if profile.policy.key.allow_md5_signature:
            sentence = "MD5 signatures can be forged: what such a request asks for, its sender may not have signed"
            found.append(Problem((*where, "policy", "key", "allow_md5_signature"), sentence))
        found += _warn_of_challenges((*where, "credentials"), profile, sources)
    found += warn_of_est(config)
    found += warn_of_acme(config)
    found += warn_of_cmp(config)
    found += warn_of_upstreams(config)
    found += _warn_of_shared_anchors(config, sources)
    return tuple(found)


def _warn_of_tls(config: GatewayConfig) -> Iterator[Problem]:
    """Windows says 0x80072f8f where TLS 1.2 is not spoken; libest, and strongSwan as it is built by default, speak none newer."""
    shut_out = []
    if any(profile.endpoints.scep is not None for profile in config.profiles.values()):
        shut_out.append("Windows enrolls by SCEP over TLS 1.2 only (0x80072f8f)")
    if any(profile.endpoints.est is not None for profile in config.profiles.values()):
        shut_out.append("libest and strongSwan enroll by EST over TLS 1.2 only")
    for name, listener in (("https", config.server.https), ("https_mtls", config.server.https_mtls)):
        if shut_out and listener is not None and listener.min_version == "1.3":
            yield Problem(("server", name, "min_version"), f'{", ".join(shut_out)}: write "1.2"')


def _warn_of_urls(server: Server) -> Iterator[Problem]:
    """A URL of this machine goes into certificates, where nobody else can use it."""
    if all(address.is_loopback for _, address in listeners(server)):
        return
    for name in ("http", "https"):
        url = getattr(server.external_url, name)
        if Address(urlsplit(url).hostname or "", 0).is_loopback:
            yield Problem(("server", "external_url", name), f"{url} leads clients to themselves, and this server has others")


def _warn_of_legacy(at: DataPath, endpoint: ScepEndpoint) -> Iterator[Problem]:
    """RFC 8894 §2.9 forbids both; SHA-1 and 3DES it lets pass."""
    if endpoint.legacy.md5:
        yield Problem(
            (*at, "legacy", "md5"), "RFC 8894 forbids MD5: its signatures can be forged; only for clients that know no other"
        )
    if endpoint.legacy.des:
        sentence = "RFC 8894 forbids single DES: who records a message can read it; only for clients that know no other"
        yield Problem((*at, "legacy", "des"), sentence)


def _warn_of_pwri(path: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    key = profile.policy.key
    if profile.endpoints.scep is not None and profile.endpoints.scep.pwri and not (key.ec or key.eddsa or key.ml_dsa):
        yield Problem(path, "serves devices whose keys cannot encrypt, and policy.key allows RSA keys only")


def _warn_of_keys(path: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    """A SCEP reply is encrypted to the key that asks, which only RSA keys can decrypt (RFC 8894 §3.1)."""
    key, endpoint = profile.policy.key, profile.endpoints.scep
    refuses_rsa = key.rsa is None and key.mode is RuleMode.ENFORCE
    if endpoint is not None and profile.credentials and refuses_rsa and not endpoint.pwri:
        sentence = "refuses RSA keys, and no other key can decrypt a reply: nobody enrolls by SCEP"
        yield Problem(path, f"{sentence}; allow RSA keys, or set endpoints.scep.pwri: true")


def _warn_of_challenges(at: DataPath, profile: ProfileConfig, sources: Sources) -> Iterator[Problem]:
    for number, credential in enumerate(profile.credentials):
        match credential:
            case StaticCredential():
                if not _PRINTABLE.fullmatch(sources.secret(credential.challenge)):
                    sentence = "holds a character that is none of a PrintableString: Windows refuses to send it (0x2ab0003)"
                    yield Problem((*at, number, "challenge"), sentence)
            case IntuneJwsCredential():
                required = (*at, number, "required_claims")
                yield from (Problem(required, sentence) for sentence in _missing_claims(credential))
            case _:
                continue


def _missing_claims(credential: IntuneJwsCredential) -> Iterator[str]:
    """Say what a challenge is good for when it lacks a claim."""
    claims = credential.required_claims
    if credential.audience is not None and "aud" not in claims:
        yield 'lacks "aud": a challenge for nobody in particular passes, although audience is set'
    if "iat" not in claims:
        yield 'lacks "iat": max_age does not bound a challenge that does not say when it was issued'
    if "iss" not in claims:
        yield 'lacks "iss": issuers who name none are one, and use up the nonces and the per_device of each other'
    if "nonce" not in claims:
        yield 'lacks "nonce": two challenges of the same content are one, and the second is refused as used'
    if credential.per_device is not None and "sub" not in claims:
        yield 'lacks "sub": a challenge that names no device is not counted by per_device'


def _warn_of_shared_anchors(config: GatewayConfig, sources: Sources) -> Iterator[Problem]:
    """One issuer for two profiles: only the audience says for which of them a challenge or a token was made."""
    signed = [
        (name, (*place, "anchors"), credential.audience, _certificates(sources.file(credential.anchors)))
        for name, profile in config.profiles.items()
        for place, credential in each_credential(profile.credentials)
        if isinstance(credential, IntuneJwsCredential | BearerCredential)
    ]
    for (one, at, first, anchors), (other, there, second, others) in itertools.combinations(signed, 2):
        told_apart = first is not None and second is not None and first != second
        if one == other or told_apart or not anchors & others:
            continue
        for name, place, sibling in ((one, at, other), (other, there, one)):
            sentence = f"profile {sibling} trusts one of these too: without an audience for each, a challenge is good in both"
            yield Problem(("profiles", name, *place), sentence)


def _certificates(pem: bytes) -> frozenset[bytes]:
    """Return the certificates of a bundle as DER; what cannot be read is told elsewhere."""
    try:
        return frozenset(pem_to_ders(pem))
    except ValueError:
        return frozenset()
