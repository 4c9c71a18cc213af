"""The TLS contexts of the listeners, with and without client certificates; no tickets, no renegotiation (RFC 8446, RFC 5246)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

from gateway.config.document import ConfigurationFaults, Problem
from gateway.errors import Rejection
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import load_private_key
from gateway.pki.trust import check_pair

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python passes on and has no name for."""


def server_context(certificate_pem: bytes, key_pem: bytes, min_version: str, listener: str = "https") -> ssl.SSLContext:
    """Build the context from a PEM chain, leaf first, and its PEM key; `listener` is the configuration section to name in faults.

    No tickets: nothing that a client keeps may outlive the context that gave it. A TLS 1.2 session can still be resumed by its
    identifier, which Python cannot switch off; it lives in this context and keeps the client's certificate (see `unresumable`).
    Raises ConfigurationFaults when key and certificate cannot be read or do not belong together.
    """
    faults = tuple(_find_faults(certificate_pem, key_pem, listener))
    if faults:
        raise ConfigurationFaults(*faults)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[min_version]
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load(context, certificate_pem, key_pem)
    except ssl.SSLError as error:
        sentence = "cannot be used for TLS on this machine: the key is too short, or its kind is not spoken here"
        raise ConfigurationFaults(Problem(("server", listener, "certificate"), sentence)) from error
    return context


def mtls_context(
    certificate_pem: bytes, key_pem: bytes, min_version: str, anchors_pem: tuple[bytes, ...], listener: str = "https_mtls"
) -> ssl.SSLContext:
    """Build the context of a listener that asks for a client certificate; `anchors_pem` are the bundles of all its profiles.

    TLS only collects: a client may show none, and what it shows has been found below some certificate of some profile, of any
    date and not looked up in any CRL. All of that is judged anew by the profile that is asked, on every request, where a refusal
    has an answer and an audit row. What lies below no anchor, or has an extended key usage without clientAuth, ends in a TLS
    alert: OpenSSL cannot be told to let it pass.
    Raises ConfigurationFaults as `server_context` does, and for anchors that cannot be read.
    """
    context = server_context(certificate_pem, key_pem, min_version, listener)
    context.verify_mode = ssl.CERT_OPTIONAL
    # an issuing CA alone may be an anchor, without its root
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        anchors = {der for pem in anchors_pem for der in pem_to_ders(pem)}
        context.load_verify_locations(cadata=b"".join(sorted(anchors)))
    except (Rejection, ValueError, ssl.SSLError) as error:
        sentence = "the client_anchors of its profiles cannot be read as PEM certificates"
        raise ConfigurationFaults(Problem(("server", listener), sentence)) from error
    return context


def unresumable(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context for one connection that is as `context`, and whose session nobody resumes.

    OpenSSL keeps sessions with the context that a connection began with. This one is empty, and hands over to `context` when the
    client has said hello, with a server name or without: 0.2 ms a connection.
    """
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bare.minimum_version = context.minimum_version
    bare.options |= context.options
    bare.num_tickets = context.num_tickets
    bare.verify_mode = context.verify_mode
    bare.verify_flags = context.verify_flags

    def hand_over(tls: ssl.SSLObject | ssl.SSLSocket, _server_name: str | None, _bare: ssl.SSLContext) -> None:
        tls.context = context

    bare.sni_callback = hand_over
    return bare


def _find_faults(certificate_pem: bytes, key_pem: bytes, listener: str) -> Iterator[Problem]:
    """Yield what can be said in plain words, before OpenSSL says it in its own."""
    leaf = key = None
    try:
        leaf, *_ = [parse_certificate(der).der for der in pem_to_ders(certificate_pem)]
    except (Rejection, ValueError):
        yield Problem(("server", listener, "certificate"), "the file does not hold readable PEM certificates")
    try:
        key = load_private_key(key_pem)
        if leaf is not None:
            check_pair(leaf, key)
    except ValueError as error:
        encrypted = b"ENCRYPTED" in key_pem
        yield Problem(
            ("server", listener, "key"), "the private key is encrypted; store it without a password" if encrypted else str(error)
        )


def _load(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Load from memory: OpenSSL's API takes file names only, so both go through an anonymous file that no other process sees."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key_pem + b"\n" + certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
