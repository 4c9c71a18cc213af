import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gateway.metrics.alerts import GROUPS, JOB
from gateway.metrics.dashboard import dashboard_document
from gateway.metrics.documents import documents
from gateway.metrics.registry import FAMILIES, Kind
from gateway.ra.credentials.challenge_labels import ChallengeLabel

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "monitoring"
RULES = [rule for group in GROUPS for rule in group.rules]
LABELS = {family.name: set(family.labels) for family in FAMILIES}
LABELS |= {f"{f.name}_{part}": {*f.labels, "le"} for f in FAMILIES if f.kind is Kind.HISTOGRAM for part in ("bucket", "count")}


def expressions() -> Iterator[str]:
    yield from (rule.expression for rule in RULES)
    for panel in dashboard_document()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


@pytest.mark.parametrize("name", list(documents()))
def test_documents_are_as_the_metrics_are(name: str) -> None:
    said = "run `python -m gateway.metrics.documents docs/monitoring`"
    assert (FOLDER / name).read_text() == documents()[name], said


def test_nothing_else_lies_beside_them() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(documents())


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_expressions_ask_for_declared_metrics_and_labels(expression: str) -> None:
    found = re.findall(r"(gateway_\w+)(?:\{([^}]*)\})?", expression)
    # What Prometheus itself says of a scrape is no metric of ours.
    assert found or expression == f'up{{job="{JOB}"}} == 0'
    for name, selector in found:
        asked = set(re.findall(r"(\w+)(?:!=|=~|=)", selector)) - {"instance"}
        assert asked <= LABELS[name]


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(target["expr"] for panel in dashboard_document()["panels"] for target in panel.get("targets", ()))
    assert [family.name for family in FAMILIES if not re.search(rf"\b{family.name}(_bucket|_count)?\b", shown)] == []


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(documents()["dashboard.json"])["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_speak_of_challenges_in_their_own_words() -> None:
    words = re.findall(r'signed_challenges_total\{result="(\w+)"', " ".join(rule.expression for rule in RULES))
    assert words
    assert set(words) <= set(ChallengeLabel)


def test_alerts_have_names_of_their_own_and_say_what_to_do() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.summary.endswith((".", "}}.")) and rule.action.endswith(".") for rule in RULES)


def run(program: str, *arguments: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scrape_job_has_the_name_that_is_watched() -> None:
    assert f"job_name: {JOB}\n" in (ROOT / "docs" / "monitoring.md").read_text()


@pytest.mark.interop
def test_prometheus_takes_the_rules(require_program: Callable[[str, str], str]) -> None:
    run(require_program("promtool", "prometheus"), "check", "rules", str(FOLDER / "alerts.yaml"))


@pytest.mark.interop
def test_rules_fire_when_they_should(require_program: Callable[[str, str], str], tmp_path: Path) -> None:
    cases = yaml.safe_load(Path(__file__).with_name("alerts.test.yaml").read_text())
    cases["rule_files"] = [str(FOLDER / "alerts.yaml")]
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump(cases))
    run(require_program("promtool", "prometheus"), "test", "rules", str(path))
