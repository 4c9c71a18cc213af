"""Servers that the clients of this folder share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningServer, free_port, launch
from tests.interop.acme_proxy import Spoiler, spoiling
from tests.interop.acme_site import AcmeSite
from tests.interop.acme_site import running as acme_running
from tests.interop.cmp_site import CmpSite
from tests.interop.cmp_site import running as cmp_running
from tests.interop.debian13 import Root, build
from tests.interop.est_site import Site, running
from tests.interop.settings import LEGACY, edit, policy, profile, scep


@pytest.fixture(scope="session")
def rsa_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A hierarchy of RSA keys only; `old` accepts legacy algorithms, `demo` does not, requests at `patient` are approved."""
    running = launch(
        tmp_path_factory.mktemp("rsa-server") / "state",
        init_flags=("--ca-key", "rsa-2048"),
        edit=edit(
            scep("old", legacy=LEGACY),
            policy("old", "key", allow_sha1_signature=True),  # strongSwan signs its CSR with the digest of the message
            profile("patient", approval="manual"),
        ),
    )
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def est_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with EST: `demo` without a label, `linked` and `maker`; nobody changes its configuration."""
    with running(tmp_path_factory.mktemp("est-server") / "state") as site:
        yield site


@pytest.fixture(scope="session")
def cmp_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CmpSite]:
    """A server with CMP; nobody changes its configuration, and each test has names of its own."""
    with cmp_running(tmp_path_factory.mktemp("cmp-server") / "state") as site:
        yield site


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeSite]:
    """A server with ACME; nobody changes its configuration, and each test has names of its own."""
    with acme_running(tmp_path_factory.mktemp("acme-server") / "site") as site:
        yield site


@pytest.fixture(scope="session")
def flaky_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AcmeSite, Spoiler]]:
    """A server with ACME behind a proxy that spoils some nonces."""
    port = free_port()
    with (
        acme_running(tmp_path_factory.mktemp("flaky-server") / "site", url=f"https://localhost:{port}") as site,
        spoiling(port, site.server.https_port, site.server.state) as spoiler,
    ):
        yield site, spoiler


def _installed(*command: str | Path, cwd: Path) -> None:
    """Run what fetches a client; without a registry its tests are skipped, and fail in CI."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        message = f"{command[0]} {command[1]} did not succeed: {done.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def newest_certbot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program of a pinned certbot from PyPI, in an environment of its own."""
    folder = tmp_path_factory.mktemp("certbot")
    pins = Path(__file__).parent / "certbot.txt"
    _installed(sys.executable, "-m", "venv", "venv", cwd=folder)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    _installed(folder / "venv" / "bin" / "python", "-m", "pip", "install", *quiet, "-r", pins, cwd=folder)
    return str(folder / "venv" / "bin" / "certbot")


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str, str], str]) -> Path:
    """The pinned npm package acme-client with all that it needs."""
    require_program("node", "nodejs")
    npm = require_program("npm", "npm")
    folder = tmp_path_factory.mktemp("acme-client")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parent / "acme_client" / name, folder)
    _installed(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    return folder / "node_modules"


@pytest.fixture(scope="session")
def debian13(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Programs of Debian 13, for what is marked extra."""
    return build(tmp_path_factory.mktemp("debian13"))
