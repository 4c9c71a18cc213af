"""Keys and a small hierarchy, made once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from gateway.model import UNLIMITED_NOT_AFTER, Grant, SanKind
from gateway.pki.certificate import CA_KEY_USAGE, Issuer, build_certificate, der_to_pem, new_serial, self_signed_ca
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2036, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def key_of() -> Callable[[str], PrivateKey]:
    """Returns one key of a kind, the same all session."""
    return lru_cache(maxsize=None)(generate_private_key)


@dataclass(frozen=True)
class Hierarchy:
    root: bytes
    root_key: PrivateKey
    issuing: bytes
    issuing_key: PrivateKey
    leaf: bytes
    leaf_key: PrivateKey

    @property
    def issuer(self) -> Issuer:
        return Issuer.from_certificate(self.issuing, self.issuing_key)


def grant(subject: str = "CN=dev1,O=Example", **changes: object) -> Grant:
    values: dict[str, object] = {
        "subject_der": parse_name_text(subject).der,
        "sans": (make_san(SanKind.DNS, "dev1.example"), make_san(SanKind.IP, "10.0.0.1")),
        "key_usage": ("digitalSignature", "keyEncipherment"),
        "ekus": ("1.3.6.1.5.5.7.3.2",),
        "not_before": START,
        "not_after": END,
    }
    return Grant(**(values | changes))  # type: ignore[arg-type]


def make_hierarchy(root_key: PrivateKey, issuing_key: PrivateKey, leaf_key: PrivateKey) -> Hierarchy:
    root = self_signed_ca(root_key, "CN=Root,O=Example", START, UNLIMITED_NOT_AFTER)
    ca_grant = grant("CN=Issuing,O=Example", sans=(), key_usage=CA_KEY_USAGE, ekus=())
    issuing = build_certificate(
        Issuer.from_certificate(root, root_key), new_serial(), ca_grant, public_key_der(issuing_key), is_ca=True, path_length=0
    )
    leaf = build_certificate(
        Issuer.from_certificate(issuing, issuing_key),
        new_serial(),
        grant(),
        public_key_der(leaf_key),
        crl_url="http://127.0.0.1:8080/crl/issuing.crl",
        ca_issuers_url="http://127.0.0.1:8080/ca/issuing.crt",
    )
    return Hierarchy(root, root_key, issuing, issuing_key, leaf, leaf_key)


@pytest.fixture(scope="session")
def hierarchy(key_of: Callable[[str], PrivateKey]) -> Hierarchy:
    return make_hierarchy(key_of("ec-p384"), key_of("ec-p256"), key_of("rsa-2048"))


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[..., str]:
    """Runs openssl over files given by keyword (DER or PEM bytes); returns its output, fails when it fails."""

    def run(command: str, **files: bytes) -> str:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data if data.startswith(b"-----") else der_to_pem(data, _label(name)))
        done = subprocess.run(["openssl", *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def _label(name: str) -> str:
    return {"crl": "X509 CRL", "csr": "CERTIFICATE REQUEST"}.get(name, "CERTIFICATE")
