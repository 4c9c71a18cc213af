"""Who is at the other end of a connection: an address, a TLS client's certificate, a user on the admin socket (SO_PEERCRED)."""

from __future__ import annotations

import base64
import pwd
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.web.proxies import NOTHING, Proxies, Shown, is_encrypted, read_certificate

MAX_CHAIN = 10
"""Certificates that a TLS client may send beside its own; more are not looked at."""

_ENCODING_DER = 2
"""What Python's `_ssl` calls DER."""
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class LocalUser:
    """The process that connected to a unix socket, as the kernel says."""

    pid: int
    uid: int
    gid: int

    @property
    def actor(self) -> str:
        """The name for audit rows: `uid:0 (root)`."""
        return describe_user(self.uid)


def describe_user(uid: int) -> str:
    """Return `uid:0 (root)`, or `uid:4711` for a user without a name."""
    try:
        return f"uid:{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid:{uid}"


def source_address(request: web.BaseRequest) -> str:
    """Return the address that the connection came from, empty when it is gone."""
    return request.remote or ""


@dataclass(frozen=True, slots=True)
class TlsClient:
    """Whoever sent a request, as its TLS connection says, or a listed proxy that ends TLS for it."""

    source: str
    encrypted: bool
    """It spoke TLS, to this server or to the proxy."""
    shown: Shown
    binding: str | None = field(repr=False)
    """base64 of the connection's tls-unique (RFC 5929 §3); None: there is none."""
    unbound: str = ""
    """Why there is none, for the client."""


def see_client(request: web.BaseRequest, proxies: Proxies) -> TlsClient:
    """Return who sent a request; raises MalformedMessage where a proxy says it in a form that is not the configured one.

    What others than listed proxies say in a proxy's headers is not read at all. A proxy's own certificate is not its client's.
    """
    peer = source_address(request)
    proxy = proxies.find(peer)
    tls = _tls_of(request)
    if proxy is not None:
        encrypted = is_encrypted(request.headers)
        shown = read_certificate(proxy, request.headers) if encrypted else NOTHING
        return TlsClient(proxies.client_address(peer, request.headers), encrypted, shown, None, "TLS ends at a proxy")
    if tls is None:
        return TlsClient(peer, False, NOTHING, None, "this is no TLS connection")
    unbound = _why_unbound(tls)
    return TlsClient(peer, True, _shown_in(tls), None if unbound else _binding(tls), unbound)


def _tls_of(request: web.BaseRequest) -> ssl.SSLObject | None:
    return request.transport.get_extra_info("ssl_object") if request.transport else None


def _why_unbound(tls: ssl.SSLObject) -> str:
    """Say why tls-unique ties nothing to this connection; empty where it does.

    TLS 1.3 does not define it, though Python returns a value (RFC 8446 Appendix C.5), and a resumed session has the one of a
    handshake in which the certificate was not shown (RFC 7627 §1).
    """
    if tls.version() != "TLSv1.2":
        return f"{tls.version()} does not define tls-unique: connect with TLS 1.2"
    return "the TLS session was resumed: connect with a full handshake" if tls.session_reused else ""


def _binding(tls: ssl.SSLObject) -> str | None:
    unique = tls.get_channel_binding("tls-unique")
    return base64.b64encode(unique).decode("ascii") if unique else None


def _shown_in(tls: ssl.SSLObject) -> Shown:
    """Return the client's certificate and what it sent beside it; a resumed session keeps the first alone.

    TLS has found it below some anchor of some profile; whether that is one of this profile's is for the registration authority
    to say (RFC 8446 §4.4.2.4).
    """
    if tls.context.verify_mode is ssl.CERT_NONE:
        return NOTHING
    leaf = tls.getpeercert(binary_form=True)
    return NOTHING if leaf is None else Shown(leaf, _chain_of(tls, leaf))


def _chain_of(tls: ssl.SSLObject, leaf: bytes) -> tuple[bytes, ...]:
    """Return what the client sent beside its leaf: public from Python 3.13 on, before that an attribute within."""
    public: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        sent = public()
    else:
        inner: Any = getattr(tls, "_sslobj", None)
        sent = [c.public_bytes(_ENCODING_DER) for c in (inner and inner.get_unverified_chain()) or () if c is not None]
    return tuple(der for der in sent[: MAX_CHAIN + 1] if der != leaf)[:MAX_CHAIN]


def local_user(request: web.BaseRequest) -> LocalUser | None:
    """Return the user at the other end of a unix socket, None on any other connection."""
    sock: socket.socket | None = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    return LocalUser(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
