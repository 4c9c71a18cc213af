"""A plan of a service that is not started."""

import os
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.config.load import read
from gateway.supervise.plan import Plan
from tests.unit.assemble.installation import Installation


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    Installation.create(tmp_path / "state")
    path = tmp_path / "state" / "profiles.yaml"
    config, sources = read(path)
    return Plan(path, config, sources, cast("Any", None), workers=1, log_format=None, log_level="info", environ=os.environ)
