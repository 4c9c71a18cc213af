"""Puts the rules together: verdicts in a fixed order, and the grant where no enforced rule is broken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config.policy import PolicyConfig
from gateway.model import (
    AskedValidity,
    CertificateRequest,
    CredentialKind,
    Decision,
    Grant,
    Name,
    Requester,
    SanKind,
    SubjectAltName,
)
from gateway.pki.names import encode_name
from gateway.ra.policy.binding import judge_binding, judge_certified
from gateway.ra.policy.extensions import judge_extensions
from gateway.ra.policy.keys import judge_key, judge_request_signature
from gateway.ra.policy.sans import comparable_name, dns_from_common_name, judge_san_required, judge_sans
from gateway.ra.policy.subject import COMMON_NAME, ComparableName, Subject, judge_empty_subject, judge_reserved, judge_subject
from gateway.ra.policy.usages import judge_ca_request, judge_ekus, judge_key_usage
from gateway.ra.policy.validity import judge_validity
from gateway.ra.policy.verdicts import Verdicts

_VOUCHES_FOR_NAMES = frozenset({CredentialKind.CERTIFICATE, CredentialKind.INTUNE_JWS})
"""A renewed certificate and a signed challenge vouch for the SID among their names, not for one in an extension."""


@dataclass(frozen=True, slots=True)
class GrantedNames:
    """The names that would be certified, and what the rules said about them; `subject_der` is a Name, DER."""

    subject: Subject
    sans: tuple[SubjectAltName, ...]
    verdicts: Verdicts

    @property
    def subject_der(self) -> bytes:
        """Encode the subject."""
        return encode_name(self.subject.rdns)

    @property
    def refused(self) -> bool:
        """Whether an enforced rule is broken."""
        return any(not v.passed and v.mode == "enforce" for v in self.verdicts)


def decide(
    policy: PolicyConfig,
    request: CertificateRequest,
    requester: Requester,
    now: datetime,
    ca_not_after: datetime | None,
    *,
    ca_not_before: datetime | None = None,
    reserved_names: frozenset[ComparableName] = frozenset(),
    validity: AskedValidity | None = None,
    max_validity: timedelta | None = None,
) -> Decision:
    """Judge a request by every rule of its profile; pure.

    `now` and the CA's own validity (None: not known) are aware UTC times; `reserved_names` are subjects that nobody gets,
    `validity` the times that were asked for, `max_validity` the longest that the credential may have. Names, usages and times of
    the grant are within the configured lists, except where a rule only warns or is off; and never outside what
    `gateway.ra.policy` says no mode lifts.
    """
    names = judge_names(policy, request, requester)
    bindings = (requester.binding, *requester.also_bound)
    key_usage, key_usage_verdicts = judge_key_usage(policy.key_usage, request.key_usage, request.public_key)
    ekus, eku_verdicts = judge_ekus(policy.eku, request.ekus)
    (not_before, not_after), validity_verdicts = judge_validity(
        policy.validity, now, ca_not_before, ca_not_after, validity, max_validity
    )
    vouches = requester.vouches_for_sid and requester.kind not in _VOUCHES_FOR_NAMES
    extensions, extension_verdicts = judge_extensions(policy.extensions, request.extensions, vouches)
    verdicts = (
        *judge_ca_request(request.is_ca, request.key_usage),
        *(verdict for binding in bindings for verdict in judge_binding(binding, request)),
        *judge_key(policy.key, request.public_key),
        *judge_request_signature(policy.key, request.signature_digest),
        *names.verdicts,
        *(verdict for binding in bindings for verdict in judge_certified(binding, names.subject, names.sans)),
        *judge_reserved(names.subject, reserved_names),
        *key_usage_verdicts,
        *eku_verdicts,
        *validity_verdicts,
        *extension_verdicts,
    )
    decision = Decision(verdicts, None)
    if decision.violations:
        return decision
    return Decision(
        verdicts,
        Grant(
            subject_der=names.subject_der,
            sans=names.sans,
            key_usage=key_usage,
            ekus=ekus,
            not_before=not_before,
            not_after=not_after,
            extensions=extensions,
            modified=_is_modified(request, names, key_usage, ekus),
        ),
    )


def judge_names(policy: PolicyConfig, request: CertificateRequest, requester: Requester) -> GrantedNames:
    """Judge subject and subject alternative names, and say which would be certified."""
    sans, san_verdicts = judge_sans(policy.san, request.sans, requester.vouches_for_sid)
    facts = {} if policy.subject.template is None else _facts(sans, requester)
    subject, subject_verdicts = judge_subject(policy.subject, request.subject, facts)
    if policy.san.dns_from_common_name and not request.sans:
        added = dns_from_common_name(policy.san, subject.values(COMMON_NAME))
        if added:
            sans, san_verdicts = judge_sans(policy.san, added, vouched=False)
    return GrantedNames(
        subject,
        sans,
        (
            *subject_verdicts,
            *judge_empty_subject(policy.subject, subject, bool(sans)),
            *san_verdicts,
            *judge_san_required(policy.san, sans),
        ),
    )


def _facts(sans: tuple[SubjectAltName, ...], requester: Requester) -> dict[str, str | None]:
    """Return what a template may say that was not asked for in the subject."""
    dns = next((name.value for name in sans if name.kind is SanKind.DNS), None)
    facts = {"dns": dns, "requester": requester.identity, "owner": requester.owner}
    if requester.proved_by(CredentialKind.VENDOR_CERTIFICATE, CredentialKind.CERTIFICATE, CredentialKind.RA_CERTIFICATE):
        facts["vendor.id"] = requester.claims.get("vendor.id")
    facts |= {f"attested.{name}": value for name, value in requester.attested.items()}
    if requester.proved_by(CredentialKind.ACME_ORDER):
        # The claims of other credentials are other people's words.
        facts |= {f"attested.{name}": value for name, value in requester.claims.items()}
    return facts


def precheck_names(policy: PolicyConfig, sans: tuple[SubjectAltName, ...]) -> Verdicts:
    """Judge names alone, before there is a request that carries them; nobody vouches for a SID here."""
    return (*judge_sans(policy.san, sans, vouched=False)[1], *judge_san_required(policy.san, sans))


def _is_modified(request: CertificateRequest, names: GrantedNames, key_usage: tuple[str, ...], ekus: tuple[str, ...]) -> bool:
    return (
        (request.subject.rdns != names.subject.rdns and _texts(request.subject) != _texts(names.subject))
        or (request.sans != names.sans and _comparable(request.sans) != _comparable(names.sans))
        or (request.key_usage is not None and request.key_usage != frozenset(key_usage))
        or (request.ekus is not None and frozenset(request.ekus) != frozenset(ekus))
    )


def _comparable(sans: tuple[SubjectAltName, ...]) -> set[tuple[SanKind, str]]:
    return {comparable_name(name.kind, name.value) for name in sans}


def _texts(name: Name | Subject) -> list[set[tuple[str, str]]]:
    return [{(a.oid, a.value) for a in rdn} for rdn in name.rdns]
