"""Units and image: sandboxed as far as the program can bear, readable by the systemd that is here, without secrets."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.supervise.activation import LISTENERS

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "systemd" / "pki-gateway.service"
SOCKET = ROOT / "systemd" / "pki-gateway.socket"
BACKUP = ROOT / "systemd" / "pki-gateway-backup.service"
TIMER = ROOT / "systemd" / "pki-gateway-backup.timer"
MOST_EXPOSURE = 1.5
REQUIRE = Callable[[str, str], str]


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def instructions(path: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", "", path.read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_exposure(require_program: REQUIRE) -> None:
    analyze = require_program("systemd-analyze", "systemd")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(SERVICE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"Overall exposure level for pki-gateway.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE, done.stdout


def test_systemd_reads_all_without_a_word(require_program: REQUIRE, tmp_path: Path) -> None:
    analyze = require_program("systemd-analyze", "systemd")
    units = (SERVICE, SOCKET, BACKUP, TIMER)
    for unit in units:
        # The program is not installed where tests run; systemd looks whether it is there.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/pki-gateway/bin/pki-gateway", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert [line for line in (done.stdout + done.stderr).splitlines() if "pki-gateway" in line] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("Type", "notify", id="says-when-it-is-ready"),
        pytest.param("NotifyAccess", "main", id="only-the-supervisor-speaks"),
        pytest.param("KillMode", "mixed", id="the-supervisor-ends-its-workers"),
        pytest.param("OOMPolicy", "continue", id="one-worker-without-memory-ends-nothing"),
        pytest.param("RestartPreventExitStatus", "2 3", id="wrong-configuration-stays-down"),
        pytest.param("StartLimitIntervalSec", "0", id="tried-again-for-ever"),
        pytest.param("LoadCredential", "secrets:/etc/pki-gateway/secrets", id="keys"),
    ],
)
def test_what_the_service_relies_on(name: str, value: str) -> None:
    assert settings(SERVICE)[name] == [value]


def test_times_fit_the_program() -> None:
    from gateway.cli.reload import PATIENCE_SECONDS
    from gateway.supervise.workers import END_SECONDS, READY_SECONDS, SILENT_SECONDS

    service = settings(SERVICE)
    drain = 30.0
    assert int(service["TimeoutStopSec"][0].removesuffix("s")) > drain + END_SECONDS
    start = int(service["TimeoutStartSec"][0].removesuffix("min")) * 60
    assert start > READY_SECONDS
    # ExecReload= is bound by it too.
    assert start > PATIENCE_SECONDS
    assert int(service["WatchdogSec"][0].removesuffix("s")) >= 2 * SILENT_SECONDS


def test_short_turns_are_allowed_behind_what_is_denied() -> None:
    """@resources denies it; the last line that names a call counts (systemd.exec(5))."""
    allowed, denied, again = settings(SERVICE)["SystemCallFilter"]
    assert (allowed, denied[0], again) == ("@system-service", "~", "sched_setattr")


def test_commands_of_the_unit_need_no_readable_configuration() -> None:
    from gateway.cli.options import ADMIN_SOCKET_VARIABLE

    [variable] = settings(SERVICE)["Environment"]
    name, _, path = variable.partition("=")
    [folder] = settings(SERVICE)["RuntimeDirectory"]
    assert (name, path) == (ADMIN_SOCKET_VARIABLE, f"/run/{folder}/admin.sock")
    assert "admin_socket: /run/pki-gateway/" in (ROOT / "docs" / "production.md").read_text()


def test_copies_of_the_store(tmp_path: Path) -> None:
    """The command as systemd would hand it to the shell, with a stand-in for the program; old copies go, other files stay."""
    unit = settings(BACKUP)
    place, program = tmp_path / "copies", tmp_path / "pki-gateway"
    place.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\necho copy > "$last"\n')
    program.chmod(0o700)
    old, other = place / "gateway-20260101T000000Z.db", place / "gateway-before-upgrade.db"
    for path in (old, other):
        path.touch()
        os.utime(path, (0, 0))
    for name in ("ExecStart", "ExecStartPost"):
        [line] = unit[name]
        line = line.replace("$$", "$").replace("%%", "%")
        for there, here in (("/opt/pki-gateway/bin/pki-gateway", program), ("/var/backups/pki-gateway", place)):
            line = line.replace(there, str(here))
        subprocess.run(shlex.split(line), check=True, timeout=30)
    [copy] = set(place.iterdir()) - {other}
    assert re.fullmatch(r"gateway-2\d{7}T\d{6}Z\.db", copy.name)
    assert copy.read_text() == "copy\n"


def test_a_reload_waits_for_its_end() -> None:
    [reload] = settings(SERVICE)["ExecReload"]
    [start] = settings(SERVICE)["ExecStart"]
    assert reload.split()[:2] == [start.split()[0], "reload"]
    assert reload.split("--config ")[1] == start.split("--config ")[1].split()[0]


def test_operators_are_known_by_name() -> None:
    """In a user namespace SO_PEERCRED would give `nobody` for everybody who comes to the admin socket."""
    assert "PrivateUsers" not in settings(SERVICE)


def test_sockets_are_known_by_their_addresses() -> None:
    unit = settings(SOCKET)
    assert len(unit["ListenStream"]) > 1
    assert unit["FileDescriptorName"][0] not in LISTENERS
    assert (unit["SocketMode"], "Accept" in unit) == (["0660"], False)


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = instructions(ROOT / "Containerfile")
    last = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in last if line.startswith("USER ")]
    assert users == ["65532:65532"]
    assert [line for line in last if line.startswith("COPY ")] == ["COPY --from=build /opt/pki-gateway /opt/pki-gateway"]


def test_nothing_but_the_program_goes_into_the_image() -> None:
    lines = instructions(ROOT / "Containerfile")
    sources = {word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]}
    assert sources == {"pyproject.toml", "README.md", ".ci/constraints.txt", "gateway"}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == sources
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("ARG ", "ADD "))]
