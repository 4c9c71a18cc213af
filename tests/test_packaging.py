"""Units and image: sandboxed as far as the program can bear, readable by the systemd that is here, without secrets."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.supervise.activation import LISTENERS

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "systemd" / "pki-gateway.service"
SOCKET = ROOT / "systemd" / "pki-gateway.socket"
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


def test_systemd_reads_both_without_a_word(require_program: REQUIRE, tmp_path: Path) -> None:
    analyze = require_program("systemd-analyze", "systemd")
    for unit in (SERVICE, SOCKET):
        # The program is not installed where tests run; systemd looks whether it is there.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/pki-gateway/bin/pki-gateway", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name)],
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
        pytest.param("LoadCredential", "secrets:/etc/pki-gateway/secrets", id="keys"),
    ],
)
def test_what_the_service_relies_on(name: str, value: str) -> None:
    assert settings(SERVICE)[name] == [value]


def test_times_fit_the_program() -> None:
    from gateway.supervise.workers import END_SECONDS, READY_SECONDS

    service = settings(SERVICE)
    drain = 30.0
    assert int(service["TimeoutStopSec"][0].removesuffix("s")) > drain + END_SECONDS
    assert int(service["TimeoutStartSec"][0].removesuffix("min")) * 60 > READY_SECONDS


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
