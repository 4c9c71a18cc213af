"""Compiles one profile: its credential providers, renewal rule, quotas and trust, from what was read and proved before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.assemble.anchors import ProfileAnchors
from gateway.ca.interfaces import UpstreamCA
from gateway.config.credentials import IntuneJwsCredential, OneTimeCredential, StaticCredential
from gateway.config.fields import QuotaConfig
from gateway.config.load import Sources
from gateway.config.schema import ProfileConfig
from gateway.model import ProfileName, Protocol, UpstreamCAName
from gateway.ra.client_certificate import ClientTrust
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.credentials.intune_jws import IntuneJwsCredential as IntuneJwsProvider
from gateway.ra.credentials.one_time import OneTimeCredential as OneTimeProvider
from gateway.ra.credentials.static import StaticCredential as StaticProvider
from gateway.ra.policy.subject import ComparableName
from gateway.ra.profile import Profile, Quota, RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every profile of a generation is compiled with."""

    sources: Sources
    cas: Mapping[UpstreamCAName, UpstreamCA]
    store: Store
    challenge_macs: Callable[[str], tuple[bytes, ...]]
    own_keys: frozenset[bytes]
    """SHA-256 of the SubjectPublicKeyInfo of each of the gateway's own keys."""
    reserved_names: frozenset[ComparableName]


def build_profile(name: ProfileName, profile: ProfileConfig, anchors: ProfileAnchors, around: Surroundings) -> Profile:
    """Return the profile as the registration authority takes it."""
    renewal = _renewal_rule(profile, anchors)
    one_times = (c for c in profile.credentials if isinstance(c, OneTimeCredential))
    one_time = next(one_times, OneTimeCredential(type="one_time"))
    return Profile(
        name=name,
        endpoints=frozenset({Protocol.SCEP} if profile.endpoints.scep else ()),
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
    )


def _providers(
    name: ProfileName, profile: ProfileConfig, renewal: RenewalRule | None, anchors: ProfileAnchors, around: Surroundings
) -> tuple[CredentialProvider, ...]:
    """Return the providers in the order in which they are asked: what costs no look into the store comes first."""
    secrets = (around.sources.secret(c.challenge) for c in profile.credentials if isinstance(c, StaticCredential))
    providers: list[CredentialProvider] = [StaticProvider(name, secret) for secret in secrets]
    for number, credential in enumerate(profile.credentials):
        if isinstance(credential, IntuneJwsCredential):
            exclusive = not credential.with_other_challenges
            providers.append(IntuneJwsProvider(name, anchors.challenges[number], credential, exclusive=exclusive))
    if any(isinstance(credential, OneTimeCredential) for credential in profile.credentials):
        providers.append(OneTimeProvider(name, around.store, around.challenge_macs, profile.retransmission_window))
    if renewal is not None:
        providers.append(RenewalCredential(renewal, around.store, profile.policy, around.own_keys))
    return tuple(providers)


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
