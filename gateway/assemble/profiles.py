"""Compiles one profile: its credential providers, renewal rule, quotas and trust, from what was read and proved before."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.assemble.anchors import ProfileAnchors
from gateway.assemble.credentials import CredentialBuilder, Surroundings
from gateway.config.credentials import OneTimeCredential
from gateway.config.fields import QuotaConfig
from gateway.config.listener_checks import each_credential
from gateway.config.schema import ProfileConfig
from gateway.model import ProfileName, Protocol, UpstreamCAName
from gateway.ra.attestation import AttestationTerms
from gateway.ra.client_certificate import ClientTrust
from gateway.ra.credentials.acme_order import AcmeOrderCredential
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.profile import Profile, Quota, RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.validation.attestation import RequestAttestation


def build_profile(name: ProfileName, profile: ProfileConfig, anchors: ProfileAnchors, around: Surroundings) -> Profile:
    """Return the profile as the registration authority takes it."""
    renewal = _renewal_rule(profile, anchors)
    one_times = (c for _, c in each_credential(profile.credentials) if isinstance(c, OneTimeCredential))
    one_time = next(one_times, OneTimeCredential(type="one_time"))
    return Profile(
        name=name,
        endpoints=frozenset(_protocols(profile)),
        upstream_ca=around.cas[UpstreamCAName(profile.upstream_ca)],
        credentials=_providers(name, profile, renewal, anchors, around),
        policy=profile.policy,
        renewal=renewal,
        per_requester=_quota(profile.limits.per_requester),
        per_profile=_quota(profile.limits.total),
        manual_approval=profile.approval == "manual",
        retransmission_window=profile.retransmission_window,
        challenge_ttl=one_time.ttl,
        challenge_max_ttl=one_time.max_ttl,
        reserved_names=around.reserved_names,
        own_keys=around.own_keys,
        client_trust=_client_trust(profile, anchors, around),
        linking=profile.endpoints.est.pop_linking if profile.endpoints.est else "off",
        acme=around.acme.get(name),
        cmp=around.cmp.get(name),
        key_attestation=_attestation_terms(profile, anchors),
    )


def _attestation_terms(profile: ProfileConfig, anchors: ProfileAnchors) -> AttestationTerms | None:
    if profile.key_attestation is None:
        return None
    judge = RequestAttestation(anchors.attestation.get("tpm_roots"), anchors.attestation.get("step_roots"))
    return AttestationTerms(judge, profile.key_attestation.require)


def _protocols(profile: ProfileConfig) -> Iterator[Protocol]:
    if profile.endpoints.scep is not None:
        yield Protocol.SCEP
    if profile.endpoints.est is not None:
        yield Protocol.EST
    if profile.endpoints.acme is not None:
        yield Protocol.ACME
    if profile.endpoints.cmp is not None:
        yield Protocol.CMP


def _providers(
    name: ProfileName, profile: ProfileConfig, renewal: RenewalRule | None, anchors: ProfileAnchors, around: Surroundings
) -> tuple[CredentialProvider, ...]:
    """Return the providers in the order in which they are asked: what costs no look into the store comes first."""
    numbered = sorted(enumerate(profile.credentials), key=lambda one: _COST.get(one[1].type, 1))
    renews = None if renewal is None else RenewalCredential(renewal, around.store, profile.policy, around.own_keys)
    build = CredentialBuilder(name, profile.retransmission_window, anchors, around, renews)
    providers = [build.provider(("credentials", number), credential) for number, credential in numbered]
    if renews is not None:
        providers.append(renews)
    if profile.endpoints.acme is not None:
        providers.append(AcmeOrderCredential(name))
    return tuple(providers)


_COST = {"static": 0, "one_time": 2, "basic": 3}
"""The shared secret is compared in memory, a one-time challenge is looked up, a password takes 50 ms of a core."""


def _renewal_rule(profile: ProfileConfig, anchors: ProfileAnchors) -> RenewalRule | None:
    renewal = profile.renewal
    if renewal is None:
        return None
    sources = frozenset(ProfileName(name) for name in renewal.from_)
    return RenewalRule(sources, frozenset(renewal.messages), renewal.window, renewal.grace, anchors.renewals)


def _client_trust(profile: ProfileConfig, anchors: ProfileAnchors, around: Surroundings) -> ClientTrust | None:
    scep = profile.endpoints.scep
    if scep is None or scep.client_certificate == "off":
        return None
    if anchors.clients is None:
        raise ValueError("a profile that demands a client certificate has no anchors")
    return ClientTrust(anchors.clients, around.store, around.own_keys)


def _quota(quota: QuotaConfig | None) -> Quota | None:
    return Quota(quota.count, quota.window) if quota else None
