"""What docs/est.md prints: its commands, run one after the other in the folder that `init` wrote, with a test's ports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import RunningServer, free_port, launch

PAGE = (Path(__file__).parents[3] / "docs" / "est.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[LISTENER] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENROLL, ADD_USER, RENEW, KEYGEN = BLOCKS


@pytest.fixture(scope="module")
def mtls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, mtls_port: int) -> Iterator[RunningServer]:
    def configure(text: str) -> str:
        data = yaml.safe_load(text)
        data["server"] |= yaml.safe_load(LISTENER.replace("9443", str(mtls_port)))["server"]
        data["profiles"]["demo"]["renewal"]["messages"].append("simplereenroll")
        data["profiles"]["demo"]["endpoints"]["est"]["server_keygen"] = {}
        return json.dumps(data)

    server = launch(tmp_path_factory.mktemp("est-page") / "state", edit=configure)
    yield server
    assert server.stop() == 0


@pytest.fixture
def run(
    served: RunningServer, mtls_port: int, require_program: Callable[[str, str], str], tmp_path: Path
) -> Callable[[str], str]:
    """Run one block as it is printed, but for the ports; returns what it says."""
    require_program("curl", "curl")
    program = tmp_path / "pki-gateway"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PKI_GATEWAY_CONFIG": str(served.config),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }

    def execute(block: str) -> str:
        ports = {"8443": str(served.https_port), "9443": str(mtls_port)}
        commands = re.sub("8443|9443", lambda match: ports[match[0]], block)
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
        return done.stdout

    return execute


@pytest.mark.interop
def test_a_device_enrolls_and_renews(run: Callable[[str], str]) -> None:
    assert "device/device.pem: OK" in run(ENROLL)
    assert "CN = device-1" in run(RENEW)


@pytest.mark.interop
def test_a_new_user_may_enroll(run: Callable[[str], str], served: RunningServer) -> None:
    run(ADD_USER)
    enroll = ENROLL.replace("$(cat secrets/demo-est-password)", "a long password").replace('"demo:', '"router-1:')
    assert enroll.count("router-1:a long password") == 1
    assert "OK" in run(enroll)


@pytest.mark.interop
def test_a_key_is_drawn(run: Callable[[str], str], served: RunningServer) -> None:
    run("mkdir -p device")
    run(KEYGEN)
    assert (served.state / "device" / "drawn.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_every_key_of_the_endpoint_is_on_the_page_or_in_the_reference() -> None:
    for key in ("label", "default", "pop_linking", "csrattrs", "rollover", "server_keygen", "cmc", "renewal_info"):
        assert key in PAGE


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (Path(__file__).parents[3] / "docs" / target).resolve().is_file()
