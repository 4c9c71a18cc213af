"""A configuration as `init` writes it, and commands run as `main` runs them, in this process."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

import gateway.cli
import gateway.cli.serve
from gateway.cli.init import make_files, write_directory
from gateway.cli.options import CONFIG_VARIABLE
from tests.conftest import free_port


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


RunMain = Callable[..., Done]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One installation with an empty store, not to be changed."""
    folder = tmp_path_factory.mktemp("installed") / "state"
    write_directory(folder, make_files("rsa-2048", "ec-p256", free_port(), free_port(), datetime.now(UTC), free_port()))
    return folder


@pytest.fixture
def state(installed: Path, tmp_path: Path) -> Path:
    """A copy of the installation, the test's own."""
    return Path(shutil.copytree(installed, tmp_path / "state"))


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[RunMain]:
    """Run one command line as the program does, in an empty folder; `state` is the installation that it finds."""
    monkeypatch.chdir(tmp_path)
    # Loggers are kept once they are made: what a command sets up would stay for the tests after it.
    for module in (gateway.cli, gateway.cli.serve):
        monkeypatch.setattr(module, "configure_logging", lambda *_: None)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    def run(state: Path, *arguments: str) -> Done:
        monkeypatch.setenv(CONFIG_VARIABLE, str(state / "profiles.yaml"))
        monkeypatch.setattr(sys, "argv", ["pki-gateway", *arguments])
        with pytest.raises(SystemExit) as ended:
            gateway.cli.main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    yield run
    structlog.reset_defaults()
