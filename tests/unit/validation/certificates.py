"""Certificates that TLS servers of these tests show."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.wire.acme.challenges import alpn_digest
from tests.unit.validation.site import KEY_AUTHORIZATION

DIGEST = alpn_digest(KEY_AUTHORIZATION)
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def challenge_certificate(
    names: Iterable[x509.GeneralName | str] = ("www.acme.test",),
    value: bytes | None = b"\x04\x20" + DIGEST,
    *,
    critical: bool = True,
    signer: ec.EllipticCurvePrivateKey = KEY,
    issuer: str = "challenge",
) -> x509.Certificate:
    """Return a certificate as tls-alpn-01 wants it, or nearly so."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "challenge")])
    begun = datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begun)
        .not_valid_after(begun + timedelta(days=3))
    )
    if sans := [general(name) if isinstance(name, str) else name for name in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, value), critical=critical)
    return builder.sign(signer, hashes.SHA256())


def server_context(
    folder: Path, *names: str, chain: Iterable[x509.Certificate] | None = None, alpn: Iterable[str] = ()
) -> ssl.SSLContext:
    """Return the context of a server that shows these certificates, or one of its own for `names`."""
    shown = list(chain) if chain is not None else [challenge_certificate(names)]
    path = folder / "server.pem"
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in shown))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if protocols := list(alpn):
        context.set_alpn_protocols(protocols)
    return context
