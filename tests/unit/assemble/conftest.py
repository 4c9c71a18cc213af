from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.assemble.installation import Installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation.create(tmp_path / "state")
