"""Targets of the Makefile that decide something themselves."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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


def test_every_extra_test_is_listed() -> None:
    marked = [p for p in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.extra" in p.read_text() and p != Path(__file__)]
    listed = (ROOT / "tests" / "interop" / "README.md").read_text().partition("## Extra")[2]
    assert marked
    assert [p.name for p in marked if p.name not in listed] == []


def test_extra_tests_are_left_out_of_the_required_ones() -> None:
    targets = (ROOT / "Makefile").read_text()
    assert "$(BIN)/python .ci/tests.py" in targets
    assert '"pytest", "-m", "not extra"' in (ROOT / ".ci" / "tests.py").read_text()
    assert "pytest -m extra" in targets


def test_every_test_is_in_one_part() -> None:
    parts = runpy.run_path(str(ROOT / ".ci" / "tests.py"))["PARTS"]
    named = [path for part in parts for pattern in part for path in ROOT.glob(pattern)]
    files = [file for path in named for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
    assert sorted(files) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_packages_of_the_required_clients_are_installed() -> None:
    """Those of a client that needs Java only where there is Java; npm only where there is none of whatever origin."""
    every = [line for line in (ROOT / "Makefile").read_text().splitlines() if ".ci/apt" in line]
    lines = [line for line in every if "command -v npm" not in line]
    assert len(every) == len(lines) + 1
    required = (ROOT / "tests" / "interop" / "README.md").read_text().partition("## Required")[2].partition("## Extra")[0]
    table = required[required.index("| client | Debian packages") :].partition("\n\n")[0]
    rows = [row.split("|") for row in table.splitlines()][2:]
    named = {package.strip() for row in rows for package in row[2].split(",")}
    installed = {line: set(line.partition(".ci/apt")[2].split()) for line in lines}
    assert named == set().union(*installed.values())
    [conditional] = [line for line in lines if "javac" in line]
    assert {package for package in named if package.endswith("-java")} == installed[conditional]


@pytest.mark.parametrize("java", [True, False])
def test_java_packages_are_asked_for_where_there_is_java(tmp_path: Path, java: bool) -> None:
    [line] = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if ".ci/apt" in line and "javac" in line]
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "apt").write_text('echo "$@"')
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", *(["javac"] if java else [])):
        (programs / name).symlink_to("/bin/sh")
    command = ["/bin/sh", "-c", line.removeprefix("@")]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": str(programs)}, capture_output=True, text=True, check=True)
    assert ("libbcpkix-java" in done.stdout) is java
