"""Users of the admin socket are named for the audit trail; a TLS client is known by what its connection or its proxy says."""

import base64
import os
import pwd
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, cast

import pytest
from aiohttp import web
from multidict import CIMultiDict

from gateway.web.peer import MAX_CHAIN, LocalUser, TlsClient, describe_user, see_client
from gateway.web.proxies import Proxies, Shown, TrustedProxy

CA = b"\x30\x02CA"
CERTIFICATE = b"\x30\x03DER"


@dataclass
class Certificate:
    der: bytes

    def public_bytes(self, encoding: int) -> bytes:
        assert encoding == 2
        return self.der


@dataclass
class Inner:
    """As much of `_ssl`'s object as is asked."""

    chain: list[Certificate | None] | None

    def get_unverified_chain(self) -> list[Certificate | None] | None:
        return self.chain


@dataclass
class Tls:
    """As much of an SSLObject as is asked."""

    context: ssl.SSLContext
    certificate: bytes | None = None
    speaks: str = "TLSv1.2"
    session_reused: bool = False
    unique: bytes | None = b"finished"
    sent: list[Certificate | None] | None = None

    @property
    def _sslobj(self) -> Inner:
        return Inner(self.sent)

    def version(self) -> str:
        return self.speaks

    def getpeercert(self, binary_form: bool) -> bytes | None:
        assert binary_form
        return self.certificate

    def get_channel_binding(self, kind: str) -> bytes | None:
        assert kind == "tls-unique"
        return self.unique


class Transport:
    def __init__(self, tls: Tls | None) -> None:
        self._tls = tls

    def get_extra_info(self, name: str) -> Tls | None:
        return {"ssl_object": self._tls}[name]


@dataclass
class Request:
    transport: Transport | None
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    remote: str | None = "192.0.2.1"


def tls(mode: ssl.VerifyMode = ssl.CERT_OPTIONAL, certificate: bytes | None = None, **settings: Any) -> Tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = mode
    return Tls(context, certificate, **settings)


def see(tls: Tls | None, proxies: Proxies | None = None, headers: CIMultiDict[str] | None = None) -> TlsClient:
    request = Request(Transport(tls), headers if headers is not None else CIMultiDict())
    return see_client(cast("web.BaseRequest", request), proxies or Proxies())


@pytest.mark.parametrize(
    ("tls", "certificate", "chain"),
    [
        pytest.param(tls(certificate=CERTIFICATE, sent=[Certificate(CERTIFICATE)]), CERTIFICATE, (), id="shown"),
        pytest.param(
            tls(certificate=CERTIFICATE, sent=[Certificate(CERTIFICATE), Certificate(CA)]), CERTIFICATE, (CA,), id="with-its-ca"
        ),
        pytest.param(tls(certificate=CERTIFICATE, sent=None), CERTIFICATE, (), id="of-a-resumed-session"),
        pytest.param(
            tls(certificate=CERTIFICATE, sent=[Certificate(CERTIFICATE), *[Certificate(CA)] * 50]),
            CERTIFICATE,
            (CA,) * MAX_CHAIN,
            id="with-many-others",
        ),
        pytest.param(tls(sent=[None]), None, (), id="asked-and-not-shown"),
        pytest.param(tls(ssl.CERT_NONE, CERTIFICATE), None, (), id="not-asked"),
        pytest.param(None, None, (), id="no-tls"),
    ],
)
def test_client_certificates(tls: Tls | None, certificate: bytes | None, chain: tuple[bytes, ...]) -> None:
    client = see(tls)
    assert (client.shown.certificate, client.shown.chain) == (certificate, chain)
    assert client.source == "192.0.2.1"
    assert client.encrypted is (tls is not None)


@pytest.mark.parametrize(
    ("tls", "binding", "unbound"),
    [
        pytest.param(tls(), "ZmluaXNoZWQ=", "", id="full-handshake-of-tls-1.2"),
        pytest.param(tls(speaks="TLSv1.3"), None, "TLSv1.3 does not define tls-unique: connect with TLS 1.2", id="tls-1.3"),
        pytest.param(
            tls(session_reused=True), None, "the TLS session was resumed: connect with a full handshake", id="resumed-session"
        ),
        pytest.param(None, None, "this is no TLS connection", id="no-tls"),
    ],
)
def test_what_ties_a_request_to_its_connection(tls: Tls | None, binding: str | None, unbound: str) -> None:
    client = see(tls)
    assert (client.binding, client.unbound) == (binding, unbound)


PROXY = Proxies([TrustedProxy((ip_network("192.0.2.1/32"),), "haproxy", client_address=True)])
SAID = CIMultiDict(
    {
        "X-SSL-Client-Cert": base64.b64encode(CERTIFICATE).decode(),
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
    }
)


@pytest.mark.parametrize("inner", [pytest.param(None, id="http"), pytest.param(tls(certificate=CA), id="its-own-certificate")])
def test_a_proxy_speaks_for_its_client(inner: Tls | None) -> None:
    client = see(inner, PROXY, SAID)
    assert client == TlsClient("203.0.113.9", True, Shown(CERTIFICATE), None, "TLS ends at a proxy")


@pytest.mark.parametrize("scheme", [pytest.param("http", id="http"), pytest.param(None, id="unsaid")])
@pytest.mark.parametrize("inner", [pytest.param(None, id="over-http"), pytest.param(tls(), id="over-tls")])
def test_a_proxy_whose_client_spoke_no_tls(inner: Tls | None, scheme: str | None) -> None:
    said = CIMultiDict(SAID)
    del said["X-Forwarded-Proto"]
    if scheme is not None:
        said["X-Forwarded-Proto"] = scheme
    client = see(inner, PROXY, said)
    assert (client.encrypted, client.shown) == (False, Shown())


@pytest.mark.parametrize("inner", [pytest.param(None, id="http"), pytest.param(tls(), id="tls")])
def test_nobody_else_is_believed(inner: Tls | None) -> None:
    client = see(inner, Proxies([TrustedProxy((ip_network("198.51.100.0/24"),), "haproxy", client_address=True)]), SAID)
    assert (client.shown, client.source, client.encrypted) == (Shown(), "192.0.2.1", inner is not None)


def test_a_user_with_a_name() -> None:
    assert describe_user(0) == "uid:0 (root)"
    assert LocalUser(1, os.getuid(), 0).actor == f"uid:{os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"


def test_a_user_without_a_name() -> None:
    assert describe_user(3_999_999_999) == "uid:3999999999"
