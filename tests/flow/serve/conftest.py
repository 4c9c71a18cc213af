"""A server whose processes fail where a test wants them to."""

from pathlib import Path

import pytest

from tests.flow.serve.processes import FAULTS


class Faults:
    """Lays out what goes wrong; each strikes once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lay(self, name: str) -> None:
        (self._folder / name).touch()

    def struck(self, name: str) -> bool:
        return not (self._folder / name).exists()


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Make servers that are started afterwards heed faults, with short patience."""
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("GATEWAY_TEST_FAULTS", str(folder))
    return Faults(folder)
