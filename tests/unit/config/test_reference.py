from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from pydantic import BaseModel

from gateway.config.document import dotted, read_document
from gateway.config.fields import SecretSource
from gateway.config.load import examine
from gateway.config.reference import json_schema, reference
from gateway.config.schema import GatewayConfig
from gateway.config.shape import alternatives, models, walk
from gateway.config.sources import find_named
from gateway.config.warnings import warn

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "profiles.example.yaml"


def all_models(annotation: Any = GatewayConfig) -> Iterator[type[BaseModel]]:
    for model in models(annotation):
        yield model
        for field in model.model_fields.values():
            yield from all_models(field.annotation)
    for member in alternatives(annotation):
        if get_origin(member) in {dict, tuple}:
            for argument in member.__args__:
                yield from all_models(argument)


def test_the_committed_reference_is_what_the_models_say() -> None:
    committed = (ROOT / "docs/configuration.md").read_text()
    assert committed == reference(), "run: python -m gateway.config.reference > docs/configuration.md"


def test_every_field_is_explained() -> None:
    unexplained = [
        f"{model.__name__}.{name}"
        for model in all_models()
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert unexplained == []
    assert all(model.__doc__ for model in all_models())


def test_the_reference_names_every_key() -> None:
    text = reference()
    for model in all_models():
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in text


def test_links_in_the_reference_lead_somewhere() -> None:
    text = reference()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).resolve().is_file()
    assert "\n## Secrets\n" in text


def test_the_schema_is_closed_and_serializable() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values() if part.get("type") == "object")
    assert set(schema["$defs"]["Renewal"]["properties"]) == {"from", "messages", "window", "grace", "anchors"}
    assert schema["$defs"]["OneTimeCredential"]["properties"]["ttl"]["default"] == "1h"


def lay_out(folder: Path, environ: dict[str, str]) -> Path:
    """Copy the example into `folder` with every file, variable and credential that it names."""
    path = folder / "profiles.yaml"
    path.write_bytes(EXAMPLE.read_bytes())
    credentials = folder / "credentials"
    environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    for _, named in find_named(read_document(EXAMPLE.read_bytes()).data, GatewayConfig):
        if isinstance(named, SecretSource) and named.env is not None:
            environ[named.env] = "a secret from outside"
            continue
        target = credentials / named.credential if isinstance(named, SecretSource) and named.credential else None
        target = target or folder / str(named.file if isinstance(named, SecretSource) else named)
        target.parent.mkdir(exist_ok=True)
        target.write_text("00" * 16 if target.name.endswith("-wrapping-key") else "not empty, and long enough")
        target.chmod(0o600)
    return path


def test_the_example_loads(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    found = examine(lay_out(tmp_path, environ), environ)
    assert [str(problem) for problem in found.problems] == []


def test_the_example_serves_what_it_shows(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    found = examine(lay_out(tmp_path, environ), environ)
    assert found.config is not None
    assert found.sources is not None
    assert [dotted(problem.path) for problem in warn(found.config, found.sources)] == ["profiles.routers.credentials[1]"]


def test_the_example_is_what_other_yaml_readers_read_too() -> None:
    assert read_document(EXAMPLE.read_bytes()).data == yaml.safe_load(EXAMPLE.read_bytes())


def test_the_example_shows_every_key() -> None:
    data = read_document(EXAMPLE.read_bytes()).data
    shown: dict[type[BaseModel], set[str]] = {}
    for node in walk(GatewayConfig, data):
        for model in models(node.annotation):
            if isinstance(node.data, dict):
                shown.setdefault(model, set()).update(node.data)
    missing = {
        f"{model.__name__}.{field.alias or name}"
        for model in all_models()
        for name, field in model.model_fields.items()
        if not any((field.alias or name) in shown.get(known, set()) for known in model.__mro__)
    }
    # Every rule takes `mode`, `unlisted` and `max`: shown where they say most.
    assert {name for name in missing if not re.search(r"\.(mode|unlisted|max)$", name)} == set()


@pytest.mark.parametrize("count", [1, 2])
def test_a_typo_in_any_key_of_the_example_is_found(tmp_path: Path, count: int) -> None:
    environ: dict[str, str] = {}
    path = lay_out(tmp_path, environ)
    data = read_document(EXAMPLE.read_bytes()).data
    tried = 0
    for node in walk(GatewayConfig, data):
        model = next(iter(models(node.annotation)), None)
        if not isinstance(node.data, dict) or model is None:
            continue
        for key in list(node.data)[:count]:
            broken = copy.deepcopy(data)
            parent = broken
            for part in node.path:
                parent = parent[part]
            parent[f"{key}x"] = parent.pop(key)
            path.write_text(json.dumps(broken))
            assert any(problem.field.endswith(f"{key}x") or key == "type" for problem in examine(path, environ).problems)
            tried += 1
    assert tried > 40
