"""Users of the admin socket are named for the audit trail; a TLS client's certificate is known where it was asked for."""

import os
import pwd
import ssl
from dataclasses import dataclass
from typing import cast

import pytest
from aiohttp import web

from gateway.web.peer import LocalUser, client_certificate, describe_user

CERTIFICATE = b"\x30\x03DER"


@dataclass
class Tls:
    """As much of an SSLObject as is asked."""

    context: ssl.SSLContext
    certificate: bytes | None

    def getpeercert(self, binary_form: bool) -> bytes | None:
        assert binary_form
        return self.certificate


class Transport:
    def __init__(self, tls: Tls | None) -> None:
        self._tls = tls

    def get_extra_info(self, name: str) -> Tls | None:
        return {"ssl_object": self._tls}[name]


@dataclass
class Request:
    transport: Transport | None


def tls(mode: ssl.VerifyMode, certificate: bytes | None) -> Tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = mode
    return Tls(context, certificate)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(Request(Transport(tls(ssl.CERT_OPTIONAL, CERTIFICATE))), CERTIFICATE, id="shown"),
        pytest.param(Request(Transport(tls(ssl.CERT_OPTIONAL, None))), None, id="asked-and-not-shown"),
        pytest.param(Request(Transport(tls(ssl.CERT_NONE, CERTIFICATE))), None, id="not-asked"),
        pytest.param(Request(Transport(None)), None, id="no-tls"),
        pytest.param(Request(None), None, id="gone"),
    ],
)
def test_client_certificates(request_: Request, expected: bytes | None) -> None:
    assert client_certificate(cast("web.BaseRequest", request_)) == expected


def test_a_user_with_a_name() -> None:
    assert describe_user(0) == "uid:0 (root)"
    assert LocalUser(1, os.getuid(), 0).actor == f"uid:{os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"


def test_a_user_without_a_name() -> None:
    assert describe_user(3_999_999_999) == "uid:3999999999"
