"""Targets of the Makefile that decide something themselves."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        pytest.param(0, 0, "", id="passed"),
        pytest.param(5, 0, "There are no extra tests yet.\n", id="nothing collected"),
        pytest.param(1, 2, "", id="failed"),
    ],
)
def test_extra_tests(tmp_path: Path, status: int, code: int, said: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexit {status}\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / ".dev").touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.dev", "test-extra"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL"}},
    )
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_run_serves_what_init_made_and_does_not_say_to(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    program = tmp_path / ".venv" / "bin" / "pki-gateway"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    (tmp_path / ".venv" / ".run").touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.run", "run", "STATE=a b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.stdout.splitlines() == [
        "init a b --no-next --http-port 8080 --https-port 8443 --monitoring-port 9464",
        "serve --config a b/profiles.yaml",
    ], done.stderr


def test_the_list_of_extra_tests_is_true() -> None:
    marked = [p for p in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.extra" in p.read_text() and p != Path(__file__)]
    assert ("There is none yet" in (ROOT / "tests" / "interop" / "README.md").read_text()) == (not marked)
