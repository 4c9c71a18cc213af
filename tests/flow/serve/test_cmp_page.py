"""What docs/cmp.md prints: its commands and profiles, in the folder that `init` wrote, with a test's port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gateway.config.cmp import CmpEndpoint
from tests.conftest import RunningServer, launch

PAGE = (Path(__file__).parents[3] / "docs" / "cmp.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROFILES = [yaml.safe_load(text)["profiles"] for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
ENROLL, UPDATE, PKCS10, DRIVES, MAKE_RA, ASK_AS_RA, MAKE_STATION, ASK_AS_STATION = BLOCKS
Run = Callable[[str], str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = launch(tmp_path_factory.mktemp("cmp-page") / "state")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def run(served: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run one block as it is printed, but for the port; returns what it says."""
    program = tmp_path_factory.mktemp("program") / "pki-gateway"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PKI_GATEWAY_CONFIG": str(served.config),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }

    def execute(block: str) -> str:
        commands = block.replace("8080", str(served.http_port))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=served.state,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, commands + done.stdout + done.stderr
        return done.stdout + done.stderr

    return execute


@pytest.fixture(scope="module")
def profiles(served: RunningServer, run: Run) -> None:
    """Every profile of the page in force, with the files that they name."""
    run("mkdir -p device")
    run(MAKE_RA)
    run(MAKE_STATION)
    config = yaml.safe_load(served.config.read_text())
    for profile in PROFILES:
        config["profiles"] |= profile
    served.config.write_text(yaml.safe_dump(config, sort_keys=False))
    run("pki-gateway reload")


def test_a_device_enrolls_updates_and_revokes(run: Run) -> None:
    assert "device/cmp.pem: OK" in run(ENROLL)
    assert "revocation accepted" in run(UPDATE)


def test_a_pkcs10(run: Run) -> None:
    run("mkdir -p device && openssl rand -hex 16 > device/cmp.secret")
    assert "CN = drive-2" in run(PKCS10)


@pytest.mark.usefixtures("profiles")
def test_a_drive(run: Run) -> None:
    run("openssl rand -hex 16 > device/cmp.secret")
    assert "CN = drive-17" in run(DRIVES)


@pytest.mark.usefixtures("profiles")
def test_a_registration_authority(run: Run) -> None:
    assert "revocation accepted" in run(ASK_AS_RA)


@pytest.mark.usefixtures("profiles")
def test_a_base_station(run: Run, served: RunningServer) -> None:
    assert "CN = SN-4711.towers.example.com" in run(ASK_AS_STATION)
    assert (served.state / "ca/root.pem").read_text().strip() in (served.state / "device/tower-chain.pem").read_text()
    assert (served.state / "device/tower-2.pem").exists()


@pytest.mark.parametrize("key", CmpEndpoint.model_fields)
def test_every_key_of_the_endpoint_is_on_the_page_or_in_the_reference(key: str) -> None:
    reference = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    assert f"`{key}" in PAGE or f"{key}:" in PAGE or f"`{key}`" in reference


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (Path(__file__).parents[3] / "docs" / target).resolve().is_file()
