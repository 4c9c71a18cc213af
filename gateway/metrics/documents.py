"""What operators get beside the metrics themselves: a reference, alert rules and a dashboard.

`python -m gateway.metrics.documents docs/monitoring` writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import yaml

from gateway.errors import Reason
from gateway.metrics.alerts import GROUPS, rules_document
from gateway.metrics.dashboard import dashboard_document
from gateway.metrics.registry import (
    FAMILIES,
    AcmeWork,
    CertificateKind,
    CommitResult,
    Family,
    LegacyAlgorithm,
    Operation,
    RestartCause,
    Result,
    UpstreamOperation,
    UpstreamResult,
    Waiting,
)
from gateway.model import Protocol

_WRITTEN = "Written from gateway/metrics by `python -m gateway.metrics.documents docs/monitoring`."
_SETS: Mapping[str, type[StrEnum]] = {
    "protocol": Protocol,
    "reason": Reason,
    "result": Result,
    "operation": Operation,
    "algorithm": LegacyAlgorithm,
    "cause": RestartCause,
    "waiting_for": Waiting,
    "work": AcmeWork,
    "gateway_upstream_request_duration_seconds operation": UpstreamOperation,
    "gateway_upstream_request_duration_seconds result": UpstreamResult,
    "gateway_store_commit_seconds result": CommitResult,
    "gateway_certificate_not_after_timestamp_seconds kind": CertificateKind,
}
_WORDS: Mapping[str, str] = {
    "profile": "a profile of the configuration",
    "upstream_ca": "an upstream CA of the configuration",
    "group": "an upstream CA of type `group`",
    "name": "the configuration field that names the file; `#2` and so on for the following ones of one file",
    "kind": "`one_time`, `intune_jws`, `cmp_secret`",
    "worker": "1 to the number of workers",
    "version": "of pki-gateway",
    "python": "of Python",
    "gateway_signed_challenges_total result": "`success`, or why not: the words of the field `challenge` in the log",
}
"""What labels hold that are no closed set of this package."""


def documents() -> Mapping[str, str]:
    """Return every document by the name of its file."""
    rules = yaml.safe_dump(rules_document(), sort_keys=False, width=1000, allow_unicode=True)
    return {
        "metrics.md": _reference(),
        "alerts.yaml": f"# {_WRITTEN}\n{rules}",
        "dashboard.json": json.dumps(dashboard_document(), indent=2) + "\n",
    }


def _reference() -> str:
    lines = ["# Metrics", "", _WRITTEN, "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    lines += ["", "## Labels", "", "Values come from closed sets and from names of the configuration; no client can add one.", ""]
    lines += ["| metric | label | values |", "|---|---|---|"]
    lines += [f"| `{family.name}` | `{label}` | {_values(family, label)} |" for family in FAMILIES for label in family.labels]
    lines += ["", "## Alerts", "", "| alert | severity | when | what to do |", "|---|---|---|---|"]
    for group in GROUPS:
        for rule in group.rules:
            summary = rule.summary.replace("{{ $labels.", "").replace("{{ $value", "VALUE").replace(" }}", "").replace("|", "\\|")
            lines.append(f"| {rule.name} | {rule.severity} | {summary} | {rule.action} |")
    return "\n".join(lines) + "\n"


def _values(family: Family, label: str) -> str:
    for key in (f"{family.name} {label}", label):
        if key in _WORDS:
            return _WORDS[key]
        if key in _SETS:
            return ", ".join(f"`{member.value}`" for member in _SETS[key])
    raise KeyError(f"{family.name} {label}")


def main(folder: Path) -> None:
    """Write all documents into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
