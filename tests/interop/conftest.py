"""Servers that the clients of this folder share."""

from collections.abc import Iterator

import pytest

from tests.conftest import RunningServer, launch
from tests.interop.settings import LEGACY, edit, profile, scep


@pytest.fixture(scope="session")
def rsa_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A hierarchy of RSA keys only; `old` accepts legacy algorithms, `demo` does not, requests at `patient` are approved."""
    running = launch(
        tmp_path_factory.mktemp("rsa-server") / "state",
        init_flags=("--ca-key", "rsa-2048"),
        edit=edit(scep("old", legacy=LEGACY), profile("patient", approval="manual")),
    )
    yield running
    assert running.stop() == 0
