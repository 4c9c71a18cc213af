"""What docs/acme.md prints: its commands, run one after the other in the folder that `init` wrote, with a test's ports."""

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

from gateway.config.acme import AcmeEndpoint, AcmeLimits, AcmeRenewal, AcmeValidation, Attestation, Caa, Prevalidated, Resolver
from gateway.config.load import examine
from tests.conftest import RunningServer, free_port, launch

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "acme.md").read_text()
REFERENCE = (DOCS / "configuration.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROFILE, CERT_MANAGER = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FIRST, CERTBOT, LEGO, EXTERNAL_ACCOUNT, INCIDENT = BLOCKS


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """Where http-01 and tls-alpn-01 are answered, in place of what the page says."""
    return {"5002": str(free_port()), "5001": str(free_port())}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, str]) -> Iterator[RunningServer]:
    server = launch(
        tmp_path_factory.mktemp("acme-page") / "state",
        edit=lambda text: re.sub("(?<=: )(5001|5002)", lambda match: ports[match[0]], text),
    )
    yield server
    assert server.stop() == 0


@pytest.fixture
def run(served: RunningServer, ports: dict[str, str], tmp_path: Path) -> Callable[[str], str]:
    """Run one block as it is printed, but for the ports; returns what it says."""
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
        own = {"8443": str(served.https_port), **ports}
        commands = re.sub("8443|5001|5002", lambda match: own[match[0]], block)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=served.state,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, commands + done.stdout + done.stderr
        return done.stdout

    return execute


def test_the_built_in_client(run: Callable[[str], str]) -> None:
    shown = run(FIRST)
    assert "www.demo.test: valid by http-01" in shown
    assert "DNS:www.demo.test" in shown


@pytest.mark.interop
def test_certbot(run: Callable[[str], str], require_program: Callable[[str, str], str]) -> None:
    require_program("certbot", "certbot")
    assert "cert.pem: OK" in run(CERTBOT)


@pytest.mark.interop
def test_lego(run: Callable[[str], str], require_program: Callable[[str, str], str]) -> None:
    require_program("lego", "lego")
    assert "lego.demo.test.crt: OK" in run(LEGO)


def test_an_external_account(run: Callable[[str], str]) -> None:
    shown = run(EXTERNAL_ACCOUNT)
    assert "a.web.demo.test: valid by http-01" in shown
    assert "team-web" in shown


def test_an_incident_is_tried_first(run: Callable[[str], str]) -> None:
    shown = run(INCIDENT)
    assert "Nothing was done" in shown
    assert "No incidents" in shown


def test_the_profile_is_one(served: RunningServer, tmp_path: Path) -> None:
    data = yaml.safe_load(served.config.read_text())
    data["profiles"] |= yaml.safe_load(PROFILE)["profiles"]
    path = served.state / "with-web.yaml"
    path.write_text(json.dumps(data))
    assert examine(path).problems == ()


def test_the_issuer_of_cert_manager_is_yaml() -> None:
    issuer = yaml.safe_load(CERT_MANAGER)
    assert issuer["spec"]["acme"].keys() >= {"server", "caBundle", "privateKeySecretRef", "solvers"}


@pytest.mark.parametrize(
    "model", [AcmeEndpoint, AcmeValidation, AcmeRenewal, AcmeLimits, Resolver, Caa, Prevalidated, Attestation]
)
def test_every_key_of_the_endpoint_is_in_the_reference(model: type) -> None:
    for name in model.model_fields:  # type: ignore[attr-defined]  # each is a model
        assert f"| `{name}` |" in REFERENCE


@pytest.mark.parametrize(
    "key", ["external_account", "allow_cidrs", "deny_cidrs", "http01_port", "tlsalpn01_port", "aliases", "profiles"]
)
def test_what_is_easily_done_wrong_is_on_the_page(key: str) -> None:
    assert f"`{key}" in PAGE


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (DOCS / target).resolve().is_file()
