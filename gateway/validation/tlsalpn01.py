"""tls-alpn-01: a TLS server shows a certificate that holds the digest of the key authorization (RFC 8737, RFC 8738)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from gateway.asn1.acme import OID_ACME_IDENTIFIER
from gateway.errors import Reason
from gateway.model import Identifier, IdentifierType
from gateway.validation.interfaces import ValidationFailed, ValidationTask
from gateway.validation.reach import Reach, unverified
from gateway.wire.acme.challenges import ALPN_PROTOCOL, alpn_digest, key_authorization, reverse_name

ACME_IDENTIFIER = ObjectIdentifier(OID_ACME_IDENTIFIER)
SECONDS = 15.0
"""The whole attempt."""

_ENCODING_DER = 2
"""What Python's `_ssl` calls DER."""


class TlsAlpn01:
    """Makes attempts as one profile may."""

    def __init__(self, reach: Reach, port: int = 443) -> None:
        self._reach = reach
        self._port = port
        self._tls: ssl.SSLContext | None = None

    async def check(self, task: ValidationTask) -> None:
        """Connect, and judge the certificate that is shown; raises ValidationFailed."""
        if self._tls is None:
            self._tls = unverified(ALPN_PROTOCOL)
        identifier = task.identifier
        name = reverse_name(identifier.value) if identifier.type is IdentifierType.IP else identifier.value
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._reach.connect(identifier.value, self._port, self._tls, name) as connection,
            ):
                tls: ssl.SSLObject = connection.writer.get_extra_info("ssl_object")
                if tls.selected_alpn_protocol() != ALPN_PROTOCOL:
                    raise _wrong(f'the server did not agree to the protocol "{ALPN_PROTOCOL}"')
                chain = _shown(tls)
        except TimeoutError:
            text = f"{identifier.value} port {self._port} did not answer in time"
            raise ValidationFailed(Reason.VALIDATION_CONNECTION, text) from None
        if len(chain) != 1:
            raise _wrong("the server showed no certificate" if not chain else "the server showed more than one certificate")
        judge_certificate(chain[0], identifier, alpn_digest(key_authorization(task.token, task.thumbprint)))


def judge_certificate(der: bytes, identifier: Identifier, digest: bytes) -> None:
    """Say whether a certificate is the one of RFC 8737 §3: self-signed, for exactly this name, with this digest, critical.

    Raises ValidationFailed.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        names = extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        shown = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound as error:
        missing = "acmeIdentifier" if error.oid == ACME_IDENTIFIER else "subjectAltName"
        raise _wrong(f"the certificate has no {missing}") from None
    except (ValueError, TypeError, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise _wrong("the certificate cannot be read") from None
    if not isinstance(names, x509.SubjectAlternativeName) or not _names_only(names, identifier):
        raise _wrong("the certificate's subjectAltName is not exactly this identifier")
    if not shown.critical:
        raise _wrong("the certificate's acmeIdentifier is not critical")
    value = shown.value
    # Authorization ::= OCTET STRING (SIZE (32))
    if not isinstance(value, x509.UnrecognizedExtension) or not compare_digest(value.value, b"\x04\x20" + digest):
        raise _wrong("the certificate's acmeIdentifier is not the digest of the key authorization")
    if not _self_signed(certificate):
        raise _wrong("the certificate is not self-signed")


def _names_only(names: x509.SubjectAlternativeName, identifier: Identifier) -> bool:
    found = list(names)
    if len(found) != 1:
        return False
    name = found[0]
    if identifier.type is IdentifierType.IP:
        return isinstance(name, x509.IPAddress) and name.value == ip_address(identifier.value)
    return isinstance(name, x509.DNSName) and name.value.lower() == identifier.value


def _self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _shown(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates that the server sent: public from Python 3.13 on, before that an attribute within."""
    public: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return tuple(public())
    inner: Any = getattr(tls, "_sslobj", None)
    return tuple(shown.public_bytes(_ENCODING_DER) for shown in inner.get_unverified_chain() or ())


def _wrong(detail: str) -> ValidationFailed:
    return ValidationFailed(Reason.VALIDATION_UNAUTHORIZED, detail)
