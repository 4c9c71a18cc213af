"""What no single model can see: names that must exist, addresses and URLs that must agree, parts that call for others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.config.acme_checks import check_acme, check_acme_across
from gateway.config.cmp_checks import CMP_RENEWALS, check_cmp, check_cmp_across, check_cmp_credentials
from gateway.config.credential_checks import check_credentials
from gateway.config.defaults import DEMO_PROFILE
from gateway.config.document import DataPath, Problem
from gateway.config.duration_checks import positive
from gateway.config.est_checks import check_est, check_labels, check_linking, check_proxies
from gateway.config.fields import SecretSource
from gateway.config.listener_checks import EST_RENEWAL, check_client_certificates, check_listeners, listeners
from gateway.config.parts import Parts, ProfileParts
from gateway.config.policy_checks import check_policy
from gateway.config.scep_checks import check_scep
from gateway.config.schema import Endpoints, KeyAttestation, ProfileLimits, Renewal
from gateway.config.sentences import suggest
from gateway.config.sources import Sources
from gateway.config.upstream_checks import check_upstream_across, check_upstream_ca


def check(parts: Parts, sources: Sources) -> tuple[Problem, ...]:
    """Return every disagreement between parts, and within parts that their models let through."""
    found = list(_check_server(parts))
    found += check_client_certificates(parts)
    found += check_labels(parts)
    found += check_linking(parts)
    found += check_acme_across(parts)
    found += check_cmp_across(parts)
    found += check_upstream_across(parts)
    found += _check_store_and_audit(parts)
    for name, upstream_ca in parts.upstream_cas.items():
        found += _under(("upstream_cas", name), check_upstream_ca(upstream_ca))
    for name, profile in parts.profiles.items():
        found += _under(("profiles", name), _check_profile(profile, sources))
        found += _under(("profiles", name), _check_references(profile.written, parts))
    return tuple(found)


def _under(base: DataPath, problems: Iterable[Problem]) -> Iterator[Problem]:
    return (Problem((*base, *problem.path), problem.sentence, problem.mark) for problem in problems)


def _check_server(parts: Parts) -> Iterator[Problem]:
    server = parts.server
    if server is None:
        return
    yield from _under(("server",), check_listeners(server))
    yield from _under(("server",), check_proxies(server))
    if not server.external_url.http.startswith("http://"):
        # A client that fetches a CRL over https to check an https certificate never ends (RFC 5280 §8).
        yield Problem(("server", "external_url", "http"), 'must begin with "http://": CRLs are fetched without TLS')
    if not server.external_url.https.startswith("https://"):
        yield Problem(("server", "external_url", "https"), 'must begin with "https://"')
    yield from positive(("server", "limits", "body_timeout"), server.limits.body_timeout)
    if DEMO_PROFILE in parts.profiles:
        for path, address in listeners(server):
            if not address.is_loopback:
                sentence = f'{address} can be reached from elsewhere, and the profile "{DEMO_PROFILE}" is only for this machine; '
                yield Problem(("server", *path), sentence + "listen on 127.0.0.1 or remove the profile")


def _check_store_and_audit(parts: Parts) -> Iterator[Problem]:
    if parts.audit is None:
        return
    yield from positive(("audit", "head_interval"), parts.audit.head_interval)
    if parts.store is None:
        return
    if parts.store.path == parts.audit.heads:
        yield Problem(("audit", "heads"), "is the same file as store.path")
    if _same_secret(parts.store.key, parts.audit.key):
        yield Problem(("audit", "key"), "is the same secret as store.key; they must be two")


def _same_secret(one: SecretSource, other: SecretSource) -> bool:
    return str(one) == str(other)


def _check_profile(profile: ProfileParts, sources: Sources) -> Iterator[Problem]:
    if profile.endpoints is not None and not _open_protocols(profile.endpoints):
        yield Problem(("endpoints",), "opens no endpoint; name at least one: scep, est, acme, cmp")
    yield from _check_entrance(profile)
    yield from positive(("retransmission_window",), profile.retransmission_window)
    yield from _check_key_attestation(profile.key_attestation)
    if profile.renewal is not None:
        yield from positive(("renewal", "window"), profile.renewal.window)
        yield from _check_messages(profile, profile.renewal)
    if profile.limits is not None:
        yield from _check_quotas(profile.limits)
    if profile.endpoints is not None and profile.endpoints.scep is not None:
        yield from _under(("endpoints", "scep"), check_scep(profile.endpoints.scep))
    yield from _under(("endpoints", "est"), check_est(profile, sources))
    yield from _under(("endpoints", "cmp"), check_cmp(profile))
    yield from check_acme(profile)
    yield from check_credentials(profile, sources)
    yield from check_cmp_credentials(profile, sources)
    yield from _under(("policy",), check_policy(profile.policy))


def _check_key_attestation(attestation: KeyAttestation | None) -> Iterator[Problem]:
    if attestation is not None and attestation.tpm_roots is None and attestation.step_roots is None:
        sentence = "names no roots, so that no statement about a key would be good; name tpm_roots or step_roots"
        yield Problem(("key_attestation",), sentence)


def _open_protocols(endpoints: Endpoints) -> tuple[str, ...]:
    return tuple(name for name in Endpoints.model_fields if getattr(endpoints, name) is not None)


def _check_entrance(profile: ProfileParts) -> Iterator[Problem]:
    """Yield a profile that nobody could enroll at; ACME asks for no credential of the profile's."""
    if not profile.written or profile.written.get("credentials") or profile.written.get("renewal") is not None:
        return
    endpoints = profile.written.get("endpoints")
    written = endpoints if isinstance(endpoints, dict) else {}
    others = [name for name, endpoint in written.items() if name != "acme" and endpoint is not None]
    if others or written.get("acme") is None:
        sentence = 'lets nobody enroll; name "credentials" or "renewal"'
        yield Problem((), sentence if written.get("acme") is None else f"{sentence}, or open ACME alone")


def _check_messages(profile: ProfileParts, renewal: Renewal) -> Iterator[Problem]:
    """Yield a rule that no endpoint has a message for."""
    endpoints = profile.endpoints
    opened = [name for name in _RENEWALS if endpoints is not None and getattr(endpoints, name) is not None]
    if opened and not any(_RENEWALS[name] & set(renewal.messages) for name in opened):
        spoken = " and ".join(name.upper() for name in opened)
        sentence = f"names no message of {spoken}, by which alone this profile is reached"
        yield Problem(("renewal", "messages"), f"{sentence}: {', '.join(_USUAL_RENEWAL[name] for name in opened)}")


_RENEWALS: Mapping[str, frozenset[str]] = {
    "scep": frozenset({"RenewalReq", "PKCSReq"}),
    "est": frozenset({EST_RENEWAL}),
    "cmp": CMP_RENEWALS,
}
_USUAL_RENEWAL: Mapping[str, str] = {"scep": "RenewalReq", "est": EST_RENEWAL, "cmp": "kur"}


def _unknown(name: str, what: str, known: Iterable[str]) -> str:
    meant = suggest(name, known)
    return f"there is no {what} {name}{meant or '; there are: ' + (', '.join(known) or 'none')}"


def _check_references(written: Mapping[str, Any], parts: Parts) -> Iterator[Problem]:
    """Judge what a profile, as plain data, refers to; values of another type are the models' business."""
    upstream_ca, renewal = written.get("upstream_ca"), written.get("renewal")
    if isinstance(upstream_ca, str) and upstream_ca not in parts.upstream_cas:
        yield Problem(("upstream_ca",), _unknown(upstream_ca, "upstream CA", parts.upstream_cas))
    names = renewal.get("from") if isinstance(renewal, dict) else None
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in parts.profiles:
            yield Problem(("renewal", "from", number), _unknown(name, "profile", parts.profiles))


def _check_quotas(limits: ProfileLimits) -> Iterator[Problem]:
    for name in ("per_requester", "total", "failures_per_address"):
        quota = getattr(limits, name)
        if quota is not None:
            yield from positive(("limits", name, "window"), quota.window)
