"""Servers that the clients of this folder share."""

from collections.abc import Iterator

import pytest

from tests.conftest import RunningServer, launch
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
def debian13(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Programs of Debian 13, for what is marked extra."""
    return build(tmp_path_factory.mktemp("debian13"))
