"""Alert rules for Prometheus, written from the metrics that they watch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.errors import Reason
from gateway.metrics import registry as m
from gateway.metrics.registry import CertificateKind, Operation, RestartCause, Result, UpstreamResult, Waiting

DAY = 86400
HOUR = 3600
JOB = "pki-gateway"
"""The scrape job's name in docs/monitoring.md."""


class Severity(StrEnum):
    """Whether somebody is woken."""

    PAGE = "page"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert: `expression` must hold for `hold` (a Prometheus duration) before it fires."""

    name: str
    expression: str
    hold: str
    severity: Severity
    summary: str
    action: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about one thing."""

    name: str
    rules: tuple[Rule, ...]


def _signed(result: str, window: str) -> str:
    return f'sum by (profile) (increase({m.SIGNED_CHALLENGES.name}{{result="{result}"}}[{window}]))'


def _enrolled(selector: str, window: str, offset: str = "") -> str:
    behind = f" offset {offset}" if offset else ""
    return f"sum by (protocol, profile) (increase({m.ENROLLMENTS.name}{{{selector}}}[{window}]{behind}))"


def _refused(reason: Reason, window: str, offset: str = "") -> str:
    behind = f" offset {offset}" if offset else ""
    return f'sum by (profile) (increase({m.AUTH_FAILURES.name}{{reason="{reason}"}}[{window}]{behind}))'


def _left(*kinds: CertificateKind) -> str:
    return f'{m.CERTIFICATE_NOT_AFTER.name}{{kind=~"{"|".join(kinds)}"}} - time()'


def _last_of_a_field(*kinds: CertificateKind) -> str:
    """Seconds until the last certificate of a field ends: those beside it are numbered `#2` and so on."""
    series = f'{m.CERTIFICATE_NOT_AFTER.name}{{kind=~"{"|".join(kinds)}"}}'
    return f'max by (kind, field) (label_replace({series}, "field", "$1", "name", "([^#]*).*")) - time()'


def _upstream_rate(selector: str) -> str:
    return f"sum by (upstream_ca) (rate({m.UPSTREAM_SECONDS.name}_count{{{selector}}}[5m]))"


_ISSUED = f'result="{Result.ISSUED}"'
_UNAVAILABLE = f'result="{Result.UNAVAILABLE}"'
_LIMITED = f'reason="{Reason.RATE_LIMITED}"'
_READ = f'operation!="{Operation.UNKNOWN}"'
_OURS = (CertificateKind.RA, CertificateKind.CA, CertificateKind.TLS)
_ANCHORS = (CertificateKind.CHALLENGE_ANCHOR, CertificateKind.CLIENT_ANCHOR)
_UNANSWERED = f'result=~"{UpstreamResult.NOT_SENT}|{UpstreamResult.AUTH_FAILED}|{UpstreamResult.TIMEOUT}|{UpstreamResult.FAILED}"'

ENROLLMENT = Group(
    "pki-gateway-enrollment",
    (
        Rule(
            "PkiGatewayNoSuccess",
            f"{_enrolled(_ISSUED, '30m')} == 0 and {_enrolled(_ISSUED, '1d', '30m')} > 0 and {_enrolled(_READ, '30m')} > 0",
            "10m",
            Severity.PAGE,
            "Profile {{ $labels.profile }} enrolls nobody, though it did and is asked to.",
            "Look at the reasons of its refusals, at its upstream CA and at what was changed last (config diff).",
        ),
        Rule(
            "PkiGatewaySilent",
            f"{_enrolled(_ISSUED, '1d')} == 0 and {_enrolled(_ISSUED, '7d', '1d')} > 0",
            "1h",
            Severity.NOTIFY,
            "Profile {{ $labels.profile }} has enrolled nobody for a day, though it did before.",
            "See whether devices reach the gateway: DNS, proxy, firewall, the URL in the MDM.",
        ),
        Rule(
            "PkiGatewayUnavailable",
            f"{_enrolled(_UNAVAILABLE, '10m')} > 0.05 * {_enrolled('', '10m')}",
            "10m",
            Severity.NOTIFY,
            "More than one request in twenty of profile {{ $labels.profile }} is told to come again.",
            "Look at the reason: an upstream CA that does not answer, a store that is down, or too much load.",
        ),
        Rule(
            "PkiGatewayRateLimited",
            f"{_enrolled(_LIMITED, '1h')} > 1",
            "0m",
            Severity.NOTIFY,
            "Limits of profile {{ $labels.profile }} are met more than once an hour.",
            "The audit trail names the device: raise the limit for wipes, investigate otherwise.",
        ),
        Rule(
            "PkiGatewayReplaysRise",
            f"{_refused(Reason.CREDENTIAL_USED, '1h')} > 3 and "
            f"{_refused(Reason.CREDENTIAL_USED, '1h')} > 2 * {_refused(Reason.CREDENTIAL_USED, '1h', '1h')}",
            "0m",
            Severity.NOTIFY,
            "More and more used challenges come again to profile {{ $labels.profile }}.",
            "Look at where they come from: clients that do not keep their certificate, or somebody who has seen challenges.",
        ),
        Rule(
            "PkiGatewayChallengeSignatures",
            f"{_signed('signature_invalid', '5m')} > 0",
            "5m",
            Severity.PAGE,
            "Signed challenges of profile {{ $labels.profile }} do not verify.",
            "The issuer has probably changed its key: put the new anchor into the bundle and reload.",
        ),
        Rule(
            "PkiGatewayChallengeClaims",
            f"{_signed('claim_mismatch', '1h')} > 0",
            "1h",
            Severity.NOTIFY,
            "Devices of profile {{ $labels.profile }} ask for other names than their challenges say.",
            "Compare both in the log: often a subject alternative name that the MDM profile lacks.",
        ),
    ),
)
CERTIFICATES = Group(
    "pki-gateway-certificates",
    (
        Rule(
            "PkiGatewayCertificateEnds",
            f"{_left(*_OURS)} < {30 * DAY}",
            "1h",
            Severity.NOTIFY,
            "The certificate of {{ $labels.name }} ends in {{ $value | humanizeDuration }}.",
            "Renew it and reload.",
        ),
        Rule(
            "PkiGatewayCertificateEndsThisWeek",
            f"{_left(*_OURS)} < {7 * DAY}",
            "1h",
            Severity.PAGE,
            "The certificate of {{ $labels.name }} ends in {{ $value | humanizeDuration }}.",
            "Renew it and reload; after its end nobody can enroll by it.",
        ),
        Rule(
            "PkiGatewayAnchorEnds",
            f"{_left(*_ANCHORS)} < {30 * DAY} and {_left(*_ANCHORS)} > 0",
            "1h",
            Severity.NOTIFY,
            "A trust anchor of {{ $labels.name }} ends in {{ $value | humanizeDuration }}.",
            "Put its successor into the bundle beside it and reload.",
        ),
        Rule(
            "PkiGatewayLastAnchorEnds",
            f"{_last_of_a_field(*_ANCHORS)} < {7 * DAY}",
            "1h",
            Severity.PAGE,
            "The last trust anchor of {{ $labels.field }} ends in {{ $value | humanizeDuration }}.",
            "Put its successor into the bundle and reload; after its end all is refused that it has signed.",
        ),
        Rule(
            "PkiGatewayCrlEnds",
            f"{m.CRL_NEXT_UPDATE.name} - time() < 3600",
            "10m",
            Severity.PAGE,
            "The CRL of {{ $labels.upstream_ca }} ends in {{ $value | humanizeDuration }} and has no successor.",
            "The log says why it is not signed; pki-gateway crl publish signs one at once.",
        ),
        Rule(
            "PkiGatewayClientCrlEnds",
            f"{m.CLIENT_CRL_NEXT_UPDATE.name} - time() < {6 * HOUR}",
            "10m",
            Severity.NOTIFY,
            "A CRL of {{ $labels.name }} ends in {{ $value | humanizeDuration }}.",
            "Fetch the CA's new CRL into the file and reload.",
        ),
        Rule(
            "PkiGatewayClientCrlEndsNow",
            f"{m.CLIENT_CRL_NEXT_UPDATE.name} - time() < {HOUR}",
            "10m",
            Severity.PAGE,
            "A CRL of {{ $labels.name }} ends in {{ $value | humanizeDuration }}.",
            "Fetch the CA's new CRL into the file and reload; after its end all is refused that this CA has issued.",
        ),
    ),
)
SERVICE = Group(
    "pki-gateway-service",
    (
        Rule(
            "PkiGatewayAbsent",
            f"absent({m.BUILD_INFO.name})",
            "5m",
            Severity.PAGE,
            "No pki-gateway is heard of.",
            "See whether the service runs, and whether Prometheus reaches server.monitoring.",
        ),
        Rule(
            "PkiGatewayDown",
            f'up{{job="{JOB}"}} == 0',
            "5m",
            Severity.PAGE,
            "{{ $labels.instance }} does not answer.",
            "See whether the service runs there, and whether Prometheus reaches its server.monitoring.",
        ),
        Rule(
            "PkiGatewayNotReady",
            f"{m.READY.name} == 0",
            "2m",
            Severity.PAGE,
            "{{ $labels.instance }} is not ready.",
            "The log says what fails: the store makes no write durable, an RA key does not sign or its certificate has ended, "
            "a worker does not answer.",
        ),
        Rule(
            "PkiGatewayAuditWrites",
            f"sum by (instance) (increase({m.AUDIT_WRITE_FAILURES.name}[5m])) > 0",
            "0m",
            Severity.PAGE,
            "{{ $labels.instance }} gives no answers for want of audit rows.",
            "Look at the disk of the store.",
        ),
        Rule(
            "PkiGatewayReloadFailed",
            f"{m.CONFIG_LAST_RELOAD_SUCCESSFUL.name} == 0",
            "5m",
            Severity.NOTIFY,
            "{{ $labels.instance }} refused its configuration and goes on with the one before.",
            "pki-gateway config check says what is wrong with it.",
        ),
        Rule(
            "PkiGatewayWorkersDie",
            f'sum by (instance) (increase({m.WORKER_RESTARTS.name}{{cause="{RestartCause.DIED}"}}[15m])) > 2',
            "0m",
            Severity.PAGE,
            "Workers of {{ $labels.instance }} die.",
            "The log says with which status; SIGKILL is often the kernel for want of memory.",
        ),
        Rule(
            "PkiGatewayStoreSlow",
            f"histogram_quantile(0.99, sum by (instance, le) (rate({m.STORE_COMMIT_SECONDS.name}_bucket[5m]))) > 0.5",
            "10m",
            Severity.NOTIFY,
            "The store of {{ $labels.instance }} takes {{ $value | humanizeDuration }} for a write.",
            "Look at the disk: what else writes to it, and whether it is about to fail.",
        ),
        Rule(
            "PkiGatewayUpstreamFails",
            f"{_upstream_rate(_UNANSWERED)} > 0.5 * {_upstream_rate('')}",
            "5m",
            Severity.PAGE,
            "Upstream CA {{ $labels.upstream_ca }} leaves most requests without an answer.",
            "Only the profiles that it signs for are concerned; the log says what became of each request.",
        ),
        Rule(
            "PkiGatewayUpstreamCircuitOpen",
            f"sum by (instance, upstream_ca) ({m.UPSTREAM_CIRCUIT_OPEN.name}) > 0",
            "5m",
            Severity.PAGE,
            "Upstream CA {{ $labels.upstream_ca }} has failed again and again: {{ $value }} workers leave it alone.",
            "Its clients are told to come later; it is tried again on its own. The log says how it failed.",
        ),
        Rule(
            "PkiGatewayUpstreamRefusesUs",
            f'sum by (upstream_ca) (increase({m.UPSTREAM_SECONDS.name}_count{{result="{UpstreamResult.AUTH_FAILED}"}}[10m])) > 0',
            "0m",
            Severity.PAGE,
            "Upstream CA {{ $labels.upstream_ca }} does not take the gateway's credentials.",
            "pki-gateway upstream test says which; give it others and reload.",
        ),
        Rule(
            "PkiGatewayUpstreamSlow",
            f"histogram_quantile(0.95, sum by (upstream_ca, le) (rate({m.UPSTREAM_SECONDS.name}_bucket[10m]))) > 10",
            "15m",
            Severity.NOTIFY,
            "Upstream CA {{ $labels.upstream_ca }} takes {{ $value | humanizeDuration }} for an answer.",
            "Clients wait, or are told to come again.",
        ),
        Rule(
            "PkiGatewayRequestsInDoubt",
            f'max by (instance) ({m.PENDING_REQUESTS.name}{{waiting_for="{Waiting.DOUBT}"}}) > 0',
            "15m",
            Severity.NOTIFY,
            "Of {{ $value }} requests it is not known what the upstream CA did.",
            "pki-gateway requests list --state unknown shows them, requests resolve ends those that nobody can ask about.",
        ),
        Rule(
            "PkiGatewayRequestsQueued",
            f'max by (instance) ({m.PENDING_REQUESTS.name}{{waiting_for="{Waiting.QUEUE}"}}) > 0',
            "15m",
            Severity.NOTIFY,
            "{{ $value }} requests wait for an upstream CA that cannot be reached.",
            "They are sent when it is back, and ended when they have waited for `queue`; requests list --state open shows them.",
        ),
        Rule(
            "PkiGatewayRevocationsWait",
            f"max by (instance, upstream_ca) ({m.PENDING_REVOCATIONS.name}) > 0",
            "1h",
            Severity.NOTIFY,
            "Upstream CA {{ $labels.upstream_ca }} has not been told of {{ $value }} revocations: its CRL and OCSP lack them.",
            "pki-gateway certs untold says why; it is tried again until it takes them. Revoke there by hand what cannot wait.",
        ),
        Rule(
            "PkiGatewayApprovalsWait",
            f'max by (instance) ({m.PENDING_REQUESTS.name}{{waiting_for="{Waiting.APPROVAL}"}}) > 0',
            "4h",
            Severity.NOTIFY,
            "{{ $value }} requests wait for approval.",
            "pki-gateway requests list --state pending shows them.",
        ),
    ),
)
GROUPS = (ENROLLMENT, CERTIFICATES, SERVICE)


def rules_document() -> dict[str, Any]:
    """Return the rules as Prometheus reads them, before they are written as YAML."""
    return {"groups": [{"name": group.name, "rules": [_plain(rule) for rule in group.rules]} for group in GROUPS]}


def _plain(rule: Rule) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": rule.expression,
        "for": rule.hold,
        "labels": {"severity": rule.severity.value},
        "annotations": {"summary": rule.summary, "description": rule.action},
    }
