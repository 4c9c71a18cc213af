"""Choices of CMP endpoints that clients of today fail on, or that weaken a profile (RFC 9810, RFC 9483)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.cmp import CmpEndpoint
from gateway.config.cmp_checks import CMP_RENEWALS
from gateway.config.credentials import CmpSecretCredential, RaCertificateCredential, VendorCertificateCredential
from gateway.config.document import DataPath, Problem
from gateway.config.listener_checks import each_credential
from gateway.config.schema import GatewayConfig, ProfileConfig
from gateway.config.upstream_checks import accepted_forms
from gateway.model import RequestForm

OPENSSL_ITERATIONS = 500
"""What OpenSSL's PasswordBasedMac takes unasked."""

_PROVED_BY_MESSAGES = (CmpSecretCredential, VendorCertificateCredential, RaCertificateCredential)


def warn_of_cmp(config: GatewayConfig) -> Iterator[Problem]:
    """Yield every warning that CMP endpoints give rise to."""
    for name, profile in config.profiles.items():
        endpoint = profile.endpoints.cmp
        if endpoint is None:
            continue
        where: DataPath = ("profiles", name)
        at: DataPath = (*where, "endpoints", "cmp")
        for problem in (*_warn_of_mac(profile, endpoint), *_warn_of_roles(profile, endpoint)):
            yield Problem((*at, *problem.path), problem.sentence)
        yield from _warn_of_upstream(where, profile, config)
        yield from _warn_of_credentials(where, profile)


def _warn_of_mac(profile: ProfileConfig, endpoint: CmpEndpoint) -> Iterator[Problem]:
    if not _has(profile, CmpSecretCredential):
        return
    mac = endpoint.mac
    takes_sha1 = endpoint.strictness == "rfc4210" if mac.hmac_sha1 is None else mac.hmac_sha1
    if not takes_sha1:
        sentence = "is not taken, and OpenSSL's cmp uses it unasked: its users must say -mac hmac-sha256"
        yield Problem(("mac", "hmac_sha1"), sentence)
    elif endpoint.strictness == "lightweight":
        yield Problem(("mac", "hmac_sha1"), "is taken although strictness is lightweight, which RFC 9483 has no room for")
    fewest, most = mac.iterations
    if not fewest <= OPENSSL_ITERATIONS <= most:
        yield Problem(("mac", "iterations"), f"leaves out {OPENSSL_ITERATIONS}, which OpenSSL's cmp takes and cannot change")


def _warn_of_roles(profile: ProfileConfig, endpoint: CmpEndpoint) -> Iterator[Problem]:
    """What nobody may do: enroll by CMP at all, or forward what only a registration authority does."""
    renews = profile.renewal is not None and not CMP_RENEWALS.isdisjoint(profile.renewal.messages)
    if not renews and not any(_has(profile, kind) for kind in _PROVED_BY_MESSAGES):
        sentence = "serves nobody: none of the credentials is proved by a message of CMP; add cmp_secret, vendor_certificate"
        yield Problem((), f"{sentence} or ra_certificate, or kur to renewal.messages")
    forwards = any(isinstance(c, RaCertificateCredential) and "forward" in c.may for _, c in each_credential(profile.credentials))
    if "batch" in endpoint.model_fields_set and not forwards:
        sentence = "bounds what a registration authority forwards, and no ra_certificate here may: [forward]"
        yield Problem(("batch",), sentence)


def _warn_of_upstream(where: DataPath, profile: ProfileConfig, config: GatewayConfig) -> Iterator[Problem]:
    """A CRMF request cannot be turned into a PKCS#10: only the device has the key that would sign it (RFC 4211 §3)."""
    if RequestForm.CRMF in accepted_forms(config.upstream_cas[profile.upstream_ca], config.upstream_cas):
        return
    draws = profile.endpoints.cmp is not None and profile.endpoints.cmp.key_generation is not None
    still = "p10cr and keys drawn here are still served" if draws else "p10cr is still served"
    sentence = f"{profile.upstream_ca} takes PKCS#10 only: ir, cr and kur are refused, {still}"
    yield Problem((*where, "upstream_ca"), sentence)


def _warn_of_credentials(where: DataPath, profile: ProfileConfig) -> Iterator[Problem]:
    for path, credential in each_credential(profile.credentials):
        match credential:
            case VendorCertificateCredential(crls=None, ocsp=None):
                sentence = "lets a device in by its maker's certificate: name crls or ocsp, so that a stolen key can be shut out"
                yield Problem((*where, *path), sentence)
            case RaCertificateCredential(crls=None, ocsp=None) if profile.endpoints.est is None:
                sentence = "speaks for others, and who steals its key does too: name crls or ocsp, so that it can be revoked"
                yield Problem((*where, *path), sentence)
            case _:
                continue


def _has(profile: ProfileConfig, kind: type[object]) -> bool:
    return any(isinstance(credential, kind) for _, credential in each_credential(profile.credentials))
