"""A CA that is not the gateway's: issues device certificates and CRLs for tests of trust."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.model import Grant, SanKind
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, self_signed_ca
from gateway.pki.crl import build_crl
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text

DAY = timedelta(days=1)


@dataclass(frozen=True)
class OtherCA:
    """A self-signed CA, or any issuer whose key a test has."""

    certificate: bytes
    key: PrivateKey

    @classmethod
    def create(cls, name: str) -> OtherCA:
        now = datetime.now(UTC).replace(microsecond=0)
        key = generate_private_key("ec-p256")
        return cls(self_signed_ca(key, f"CN={name}", now - 30 * DAY, now + 3650 * DAY), key)

    @property
    def issuer(self) -> Issuer:
        return Issuer.from_certificate(self.certificate, self.key)

    @property
    def pem(self) -> bytes:
        return der_to_pem(self.certificate)

    def issue(
        self,
        key: PrivateKey,
        subject: str,
        *,
        usage: tuple[str, ...] = ("digitalSignature", "keyEncipherment"),
        ekus: tuple[str, ...] = ("clientAuth",),
        begins: timedelta = -DAY,
        ends: timedelta = 300 * DAY,
        san: str = "",
    ) -> bytes:
        """Return a certificate; `begins` and `ends` count from now, `san` is a DNS name."""
        now = datetime.now(UTC).replace(microsecond=0)
        oids = tuple(eku_oid(name) for name in ekus)
        sans = (make_san(SanKind.DNS, san),) if san else ()
        grant = Grant(parse_name_text(subject).der, sans, usage, oids, now + begins, now + ends)
        return build_certificate(self.issuer, new_serial(), grant, public_key_der(key))

    def crl(self) -> bytes:
        """Return a CRL in force that names nothing, PEM."""
        now = datetime.now(UTC).replace(microsecond=0)
        return der_to_pem(build_crl(self.issuer, 1, now - DAY, now + 300 * DAY, ()), "X509 CRL")


def client_context(folder: Path, certificate: bytes, key: PrivateKey) -> ssl.SSLContext:
    """Return what a TLS client needs that trusts the gateway in `folder` and shows a certificate."""
    context = ssl.create_default_context(cafile=str(folder / "ca" / "root.pem"))
    pair = folder.parent / "client.pem"
    pair.touch(0o600)
    pair.write_bytes(serialize_private_key(key) + der_to_pem(certificate))
    context.load_cert_chain(pair)
    return context
