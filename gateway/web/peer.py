"""Who is at the other end of a connection: an address, a TLS client's certificate, a user on the admin socket (SO_PEERCRED)."""

from __future__ import annotations

import pwd
import socket
import ssl
import struct
from dataclasses import dataclass

from aiohttp import web

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


def client_certificate(request: web.BaseRequest) -> bytes | None:
    """Return the certificate, DER, whose key the TLS client proved to hold; None where it showed none or was not asked for one.

    TLS has found it below some anchor of some profile; whether that is one of this profile's is for the registration authority
    to say (RFC 8446 §4.4.2.4).
    """
    tls: ssl.SSLObject | None = request.transport.get_extra_info("ssl_object") if request.transport else None
    if tls is None or tls.context.verify_mode is ssl.CERT_NONE:
        return None
    return tls.getpeercert(binary_form=True)


def local_user(request: web.BaseRequest) -> LocalUser | None:
    """Return the user at the other end of a unix socket, None on any other connection."""
    sock: socket.socket | None = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    return LocalUser(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
