"""A dashboard for Grafana, written from the metrics that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.metrics import registry as m
from gateway.metrics.registry import Family, Kind, Result

UID = "pki-gateway"
_WIDTH, _HEIGHT = 8, 8
_PER_LINE = 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_RATE = "$__rate_interval"
_PROFILE = 'instance=~"$instance", profile=~"$profile"'
_INSTANCE = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, or table; `legend` is a template of labels, `unit` one of Grafana's."""

    title: str
    expression: str
    legend: str
    unit: str = "short"
    kind: str = "timeseries"


def _rate(family: Family, by: str, selector: str) -> str:
    name = f"{family.name}_count" if family.kind is Kind.HISTOGRAM else family.name
    return f"sum by ({by}) (rate({name}{{{selector}}}[{_RATE}]))"


def _quantile(share: float, family: Family, by: str, selector: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({family.name}_bucket{{{selector}}}[{_RATE}])))"


def _increase(family: Family, by: str, selector: str) -> str:
    return f"sum by ({by}) (increase({family.name}{{{selector}}}[{_RATE}]))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Enrollments",
        (
            Panel("Answers by result", _rate(m.ENROLLMENTS, "result", _PROFILE), "{{result}}", "reqps"),
            Panel(
                "Certificates by profile",
                _rate(m.ENROLLMENTS, "profile", f'{_PROFILE}, result="{Result.ISSUED}"'),
                "{{profile}}",
                "reqps",
            ),
            Panel("Refusals by reason", _rate(m.ENROLLMENTS, "reason", f'{_PROFILE}, reason!=""'), "{{reason}}", "reqps"),
            Panel("Messages by operation", _rate(m.ENROLLMENTS, "protocol, operation", _PROFILE), "{{operation}}", "reqps"),
            Panel("Time to answer, median", _quantile(0.5, m.REQUEST_SECONDS, "operation", _PROFILE), "{{operation}}", "s"),
            Panel(
                "Time to answer, 99th percentile",
                _quantile(0.99, m.REQUEST_SECONDS, "operation", _PROFILE),
                "{{operation}}",
                "s",
            ),
        ),
    ),
    (
        "Who asks",
        (
            Panel("Refused for who asked", _increase(m.AUTH_FAILURES, "profile, reason", _PROFILE), "{{profile}} {{reason}}"),
            Panel(
                "Signed challenges",
                _increase(m.SIGNED_CHALLENGES, "profile, result", _PROFILE),
                "{{profile}} {{result}}",
            ),
            Panel(
                "Legacy algorithms in use",
                _increase(m.LEGACY_ALGORITHMS, "profile, algorithm", _PROFILE),
                "{{profile}} {{algorithm}}",
            ),
        ),
    ),
    (
        "Upstream CAs",
        (
            Panel(
                "Answers",
                _rate(m.UPSTREAM_SECONDS, "upstream_ca, operation, result", _INSTANCE),
                "{{upstream_ca}} {{operation}} {{result}}",
                "reqps",
            ),
            Panel(
                "Time to answer, 95th percentile",
                _quantile(0.95, m.UPSTREAM_SECONDS, "upstream_ca, operation", _INSTANCE),
                "{{upstream_ca}} {{operation}}",
                "s",
            ),
            Panel(
                "Workers that leave a CA alone",
                f"sum by (upstream_ca) ({m.UPSTREAM_CIRCUIT_OPEN.name}{{{_INSTANCE}}})",
                "{{upstream_ca}}",
            ),
            Panel(
                "Requests that a member of a group did not take",
                _increase(m.UPSTREAM_FAILOVERS, "group, upstream_ca", _INSTANCE),
                "{{group}} {{upstream_ca}}",
            ),
            Panel(
                "Requests that wait",
                f"max by (waiting_for) ({m.PENDING_REQUESTS.name}{{{_INSTANCE}}})",
                "{{waiting_for}}",
            ),
            Panel("Unfinished work of ACME", f"max by (work) ({m.ACME_UNFINISHED.name}{{{_INSTANCE}}})", "{{work}}"),
            Panel(
                "Revocations that CAs have not been told of",
                f"max by (upstream_ca) ({m.PENDING_REVOCATIONS.name}{{{_INSTANCE}}})",
                "{{upstream_ca}}",
            ),
        ),
    ),
    (
        "Certificates",
        (
            Panel(
                "Time left of certificates",
                f"sort(min by (kind, name) ({m.CERTIFICATE_NOT_AFTER.name}{{{_INSTANCE}}}) - time())",
                "{{kind}} {{name}}",
                "s",
                "table",
            ),
            Panel(
                "Time left of CRLs",
                f"min by (upstream_ca) ({m.CRL_NEXT_UPDATE.name}{{{_INSTANCE}}}) - time()",
                "{{upstream_ca}}",
                "s",
            ),
            Panel(
                "Time left of clients' CRLs",
                f"min by (name) ({m.CLIENT_CRL_NEXT_UPDATE.name}{{{_INSTANCE}}}) - time()",
                "{{name}}",
                "s",
            ),
            Panel("Used challenges remembered", f"max by (kind) ({m.RESERVATIONS.name}{{{_INSTANCE}}})", "{{kind}}"),
        ),
    ),
    (
        "Service",
        (
            Panel("Ready", f"{m.READY.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel("Configuration in force", f"{m.CONFIG_GENERATION.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel("Last reload succeeded", f"{m.CONFIG_LAST_RELOAD_SUCCESSFUL.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel(
                "Time since the last reload", f"time() - {m.CONFIG_LAST_RELOAD_SUCCESS.name}{{{_INSTANCE}}}", "{{instance}}", "s"
            ),
            Panel("Workers", f"{m.WORKERS.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel("Workers replaced", _increase(m.WORKER_RESTARTS, "instance, cause", _INSTANCE), "{{instance}} {{cause}}"),
            Panel("Requests in flight", f"{m.IN_FLIGHT.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel("Open connections", f"{m.CONNECTIONS.name}{{{_INSTANCE}}}", "{{instance}}"),
            Panel(
                "Writes made durable, 99th percentile",
                _quantile(0.99, m.STORE_COMMIT_SECONDS, "instance, result", _INSTANCE),
                "{{instance}} {{result}}",
                "s",
            ),
            Panel(
                "Answers withheld for want of audit rows",
                _increase(m.AUDIT_WRITE_FAILURES, "instance", _INSTANCE),
                "{{instance}}",
            ),
            Panel(
                "Processor time",
                _rate(m.WORKER_CPU_SECONDS, "instance, worker", _INSTANCE),
                "{{instance}} {{worker}}",
                "percentunit",
            ),
            Panel("Resident memory", f"{m.WORKER_RESIDENT_MEMORY.name}{{{_INSTANCE}}}", "{{instance}} {{worker}}", "bytes"),
            Panel("Open file descriptors", f"{m.WORKER_OPEN_FILES.name}{{{_INSTANCE}}}", "{{instance}} {{worker}}"),
            Panel("Versions", f"{m.BUILD_INFO.name}{{{_INSTANCE}}}", "{{instance}} {{version}}, Python {{python}}"),
        ),
    ),
)


def dashboard_document() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it, before it is written as JSON."""
    return {
        "uid": UID,
        "title": "pki-gateway",
        "tags": ["pki"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("instance", m.BUILD_INFO, "Gateway"),
                _variable("profile", m.ENROLLMENTS, "Profile"),
            ]
        },
        "panels": _panels(),
    }


def _variable(label: str, family: Family, title: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "label": title,
        "datasource": _SOURCE,
        "query": {"query": f"label_values({family.name}, {label})", "refId": label},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> list[dict[str, Any]]:
    """Lay the panels out, row by row."""
    laid: list[dict[str, Any]] = []
    top = 0
    for title, panels in ROWS:
        laid.append(
            {
                "id": len(laid) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": _place(0, top, 24, 1),
            }
        )
        top += 1
        for number, panel in enumerate(panels):
            left = number % _PER_LINE * _WIDTH
            laid.append(_panel(len(laid) + 1, panel, _place(left, top + number // _PER_LINE * _HEIGHT, _WIDTH, _HEIGHT)))
        top += -(-len(panels) // _PER_LINE) * _HEIGHT
    return laid


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(id: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    target = {"refId": "A", "datasource": _SOURCE, "expr": panel.expression, "legendFormat": panel.legend}
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0} if not table else {"unit": panel.unit}, "overrides": []},
        "options": {"showHeader": True} if table else {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [{**target, "instant": True, "format": "table"} if table else target],
    }
