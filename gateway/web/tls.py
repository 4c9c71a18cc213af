"""The TLS context of the https listener: server authentication only, no tickets, no renegotiation (RFC 8446, RFC 5246)."""

from __future__ import annotations

import os
import ssl

from gateway.errors import ConfigurationError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(certificate_pem: bytes, key_pem: bytes, min_version: str) -> ssl.SSLContext:
    """Build the context from a PEM chain, leaf first, and its PEM key.

    No tickets: nothing that a client keeps may outlive the generation that gave it.
    Raises ConfigurationError when key and certificate do not load or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[min_version]
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load(context, certificate_pem, key_pem)
    except ssl.SSLError as error:
        raise ConfigurationError(
            (f"server.https: certificate and key cannot be used together: {error.reason or error}",)
        ) from error
    return context


def _load(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Load from memory: OpenSSL's API takes file names only, so both go through an anonymous file that no other process sees."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key_pem + b"\n" + certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_refuse_password)
    finally:
        os.close(descriptor)


def _refuse_password() -> str:
    """Answer an encrypted key with an error instead of a prompt on the terminal."""
    raise ConfigurationError(("server.https.key: the private key is encrypted; store it without a password",))
