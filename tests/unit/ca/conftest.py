"""Hierarchies and requests for the CA tests, and openssl as the judge."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from gateway.ca.interfaces import IssueRequest
from gateway.model import Grant, ProfileName, RequestForm, RequestId
from gateway.pki.certificate import Issuer, build_certificate, new_serial, self_signed_ca
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@cache
def key_of(spec: str, label: str = "") -> PrivateKey:
    """One key of a kind for all tests: RSA takes its time."""
    return generate_private_key(spec)


@dataclass(frozen=True)
class Pair:
    """A CA: its certificate, DER, and key."""

    der: bytes
    key: PrivateKey


def make_root(spec: str = "ec-p256", not_after: datetime = NOW + 3650 * DAY, label: str = "root") -> Pair:
    key = key_of(spec, label)
    return Pair(self_signed_ca(key, f"CN=Test {label}", NOW - DAY, not_after), key)


def make_issuing(
    root: Pair,
    spec: str = "ec-p256",
    *,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 365 * DAY,
    usage: tuple[str, ...] = ("keyCertSign", "cRLSign"),
    is_ca: bool = True,
) -> Pair:
    key = key_of(spec, "issuing")
    grant = Grant(parse_name_text("CN=Test issuing").der, (), usage, (), not_before, not_after)
    issuer = Issuer.from_certificate(root.der, root.key)
    der = build_certificate(issuer, new_serial(), grant, public_key_der(key), is_ca=is_ca, path_length=0 if is_ca else None)
    return Pair(der, key)


def make_request(serial: int | None = None, **changes: object) -> IssueRequest:
    fields: dict[str, object] = {
        "subject_der": parse_name_text("CN=device").der,
        "sans": (),
        "key_usage": ("digitalSignature",),
        "ekus": (eku_oid("clientAuth"),),
        "not_before": NOW - timedelta(hours=1),
        "not_after": NOW + 30 * DAY,
    }
    grant = Grant(**{**fields, **changes})  # type: ignore[arg-type] # fields by name
    spki = public_key_der(key_of("ec-p256", "device"))
    return IssueRequest(RequestId("01J0"), ProfileName("demo"), RequestForm.PKCS10, b"", spki, grant, serial, 10)


Judge = Callable[..., str]


@pytest.fixture
def openssl(tmp_path: Path) -> Judge:
    """Run openssl; bytes among the arguments become files."""

    def run(*arguments: str | bytes) -> str:
        command = ["openssl"]
        for number, argument in enumerate(arguments):
            path = tmp_path / f"argument-{number}"
            if isinstance(argument, bytes):
                path.write_bytes(argument)
            command.append(argument if isinstance(argument, str) else str(path))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
