"""A CA's certificate and Debian's openssl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.pki.certificate import pem_to_ders

SCEP = Path(__file__).parents[4] / "testdata" / "scep"


@pytest.fixture(scope="session")
def certificates() -> tuple[bytes, bytes]:
    """Two certificates, DER."""
    return pem_to_ders((SCEP / "ra.pem").read_bytes())[0], pem_to_ders((SCEP / "ca.pem").read_bytes())[0]


@pytest.fixture
def openssl() -> Callable[..., bytes]:
    """Run Debian's openssl, which knows nothing of this code, with `data` on standard input."""

    def run(*arguments: str, data: bytes = b"") -> bytes:
        done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run
