"""The TLS context of the https listener: server authentication only, no tickets, no renegotiation (RFC 8446, RFC 5246)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

from gateway.config.document import ConfigurationFaults, Problem
from gateway.errors import Rejection
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import load_private_key
from gateway.pki.trust import check_pair

CERTIFICATE = ("server", "https", "certificate")
KEY = ("server", "https", "key")
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(certificate_pem: bytes, key_pem: bytes, min_version: str) -> ssl.SSLContext:
    """Build the context from a PEM chain, leaf first, and its PEM key.

    No tickets: nothing that a client keeps may outlive the generation that gave it.
    Raises ConfigurationFaults when key and certificate cannot be read or do not belong together.
    """
    faults = tuple(_find_faults(certificate_pem, key_pem))
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
        raise ConfigurationFaults(Problem(CERTIFICATE, sentence)) from error
    return context


def _find_faults(certificate_pem: bytes, key_pem: bytes) -> Iterator[Problem]:
    """Yield what can be said in plain words, before OpenSSL says it in its own."""
    leaf = key = None
    try:
        leaf, *_ = [parse_certificate(der).der for der in pem_to_ders(certificate_pem)]
    except (Rejection, ValueError):
        yield Problem(CERTIFICATE, "the file does not hold readable PEM certificates")
    try:
        key = load_private_key(key_pem)
        if leaf is not None:
            check_pair(leaf, key)
    except ValueError as error:
        encrypted = b"ENCRYPTED" in key_pem
        yield Problem(KEY, "the private key is encrypted; store it without a password" if encrypted else str(error))


def _load(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Load from memory: OpenSSL's API takes file names only, so both go through an anonymous file that no other process sees."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key_pem + b"\n" + certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
