from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import Examination, examine

MINIMAL: dict[str, Any] = {
    "server": {
        "https": {"listen": "127.0.0.1:8443", "certificate": "tls.pem", "key": {"file": "tls.key"}},
        "external_url": {"http": "http://localhost:8080", "https": "https://localhost:8443"},
    },
    "store": {"type": "sqlite", "key": {"file": "store.key"}},
    "audit": {"key": {"file": "audit.key"}},
    "upstream_cas": {"issuing": {"type": "local", "certificate": "ca.pem", "key": {"file": "ca.key"}}},
    "profiles": {
        "corp": {
            "endpoints": {"scep": {"ra_certificate": "ra.pem", "ra_key": {"file": "ra.key"}}},
            "upstream_ca": "issuing",
            "credentials": [{"type": "one_time"}],
        }
    },
}
"""JSON is YAML: what tests change is changed as data."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file that MINIMAL names."""
    for name in ("tls.pem", "ca.pem", "ra.pem", "tls.key", "ca.key", "ra.key", "store.key", "audit.key", "challenge"):
        path = tmp_path / name
        path.write_text(f"content of {name}\n")
        path.chmod(0o644 if name.endswith(".pem") else 0o600)
    return tmp_path


@pytest.fixture
def minimal() -> dict[str, Any]:
    return copy.deepcopy(MINIMAL)


@pytest.fixture
def judge(folder: Path) -> Callable[[Any], Examination]:
    """Write data (or text) as the configuration of `folder` and examine it, with one environment variable set."""

    def run(data: Any) -> Examination:
        path = folder / "profiles.yaml"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return examine(path, {"PRESENT": "a challenge from outside"})

    return run


@pytest.fixture
def complaints(judge: Callable[[Any], Examination]) -> Callable[[Any], list[str]]:
    """Examine, and return what is said as `field: sentence`."""
    return lambda data: [f"{problem.field}: {problem.sentence}" for problem in judge(data).problems]
