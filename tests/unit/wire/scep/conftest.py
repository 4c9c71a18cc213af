"""Recorded messages with the RA that reads them, and a client of our own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.pki import cms
from gateway.pki.certificate import pem_to_ders
from gateway.pki.keys import generate_private_key, load_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.scep.client import self_signed_signer
from gateway.wire.scep.identity import RaIdentity

TESTDATA = Path(__file__).parents[4] / "testdata" / "scep"


@pytest.fixture(scope="session")
def testdata() -> Path:
    return TESTDATA


@pytest.fixture(scope="session")
def ra() -> RaIdentity:
    key = load_private_key((TESTDATA / "ra.key").read_bytes())
    certificate = pem_to_ders((TESTDATA / "ra.pem").read_bytes())[0]
    return RaIdentity.create(certificate, key, pem_to_ders((TESTDATA / "ca.pem").read_bytes()))


@pytest.fixture(scope="session")
def client() -> cms.Signer:
    """A device's first identity: RSA-2048, self-signed."""
    subject = parse_name_text("CN=device-1").der
    return self_signed_signer(
        generate_private_key("rsa-2048"), subject, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
    )


@pytest.fixture(scope="session")
def other_key() -> RSAPrivateKey:
    key = generate_private_key("rsa-2048")
    assert isinstance(key, RSAPrivateKey)
    return key


@pytest.fixture
def openssl() -> Callable[..., bytes]:
    """Run Debian's openssl, which knows nothing of this code, with `data` on standard input."""

    def run(*arguments: str, data: bytes = b"") -> bytes:
        done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run
