"""Requests over EST, with whatever proves who is asking."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from gateway.model import EnrollmentRequest, ProfileName, Protocol, SubjectAltName
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.names import parse_name_text
from tests.unit.ra.fleet import key_of

CORP = ProfileName("corp")


@cache
def _csr(subject: str, sans: tuple[SubjectAltName, ...]) -> bytes:
    return build_csr(key_of("new"), parse_name_text(subject).der, sans=sans)


def est_request(
    subject: str = "CN=gate-1,O=Corp", sans: tuple[SubjectAltName, ...] = (), operation: str = "simpleenroll", **changes: Any
) -> EnrollmentRequest:
    """A request of EST; a renewal has its client certificate as signer, as the endpoint gives it."""
    values: dict[str, Any] = {
        "profile": CORP,
        "protocol": Protocol.EST,
        "operation": operation,
        "transaction_id": "",
        "csr": parse_csr(_csr(subject, sans)),
        "challenge": None,
        "signer": None,
        "source": "192.0.2.1",
        "is_renewal": operation == "simplereenroll",
        **changes,
    }
    certificate = values.get("client_certificate")
    if values["is_renewal"] and certificate is not None:
        values["signer"] = to_signer(parse_certificate(certificate))
    return EnrollmentRequest(**values)


def basic(user: str, password: str | bytes) -> str:
    """The Authorization header of HTTP Basic."""
    secret = password if isinstance(password, bytes) else password.encode()
    return "Basic " + base64.b64encode(user.encode() + b":" + secret).decode()
