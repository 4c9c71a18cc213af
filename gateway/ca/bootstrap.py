"""Makes a first hierarchy: root, issuing CA, RA, CMP and TLS certificates with their keys (RFC 5280, RFC 8894 §2.1.2)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.ca.local import CaUrls
from gateway.model import Grant, SanKind, SubjectAltName
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, self_signed_ca
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.store.keys import generate_store_key

ROOT_LIFETIME = timedelta(days=7300)
ISSUING_LIFETIME = timedelta(days=3650)
RA_LIFETIME = timedelta(days=1825)
TLS_LIFETIME = timedelta(days=820)
"""Apple's clients refuse TLS certificates that are valid for more than 825 days, of private CAs too."""
BACKDATE = timedelta(hours=1)
TLS_KEY = "ec-p256"
CMP_KEY = "ec-p256"
TLS_NAMES = ((SanKind.DNS, "localhost"), (SanKind.IP, "127.0.0.1"), (SanKind.IP, "::1"))


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """Which keys to make, as `generate_private_key` spells them."""

    ra: str = "rsa-2048"
    ca: str = "ec-p256"

    @property
    def root(self) -> str:
        """The root's key: RSA above an RSA CA, for clients that know nothing else, otherwise P-384.

        It signs the TLS certificate too, which TLS stacks must be able to verify, so it is never ML-DSA or Ed25519.
        """
        return "rsa-3072" if self.ca.startswith("rsa-") else "ec-p384"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """All that a first configuration needs."""

    root: Identity
    issuing: Identity
    ra: Identity
    cmp: Identity
    tls: Identity


@dataclass(frozen=True, slots=True)
class Secrets:
    """What `init` draws at random; text without line end."""

    store_key: str = field(repr=False)
    audit_key: str = field(repr=False)
    challenge: str = field(repr=False)


def create_hierarchy(choice: KeyChoice, urls: CaUrls, now: datetime) -> Hierarchy:
    """Make all keys and certificates; may take seconds for RSA. Raises ValueError for an RA key that is not RSA.

    SCEP clients encrypt to the RA's key, hence RSA. The issuing CA may sign no further CAs (pathLenConstraint 0).
    """
    if not choice.ra.startswith("rsa-"):
        raise ValueError("the RA key must be RSA: SCEP clients encrypt to it (RFC 8894 §3.1)")
    start = now.replace(microsecond=0) - BACKDATE
    label = secrets.token_hex(3).upper()
    root_key, issuing_key = generate_private_key(choice.root), generate_private_key(choice.ca)
    root = self_signed_ca(root_key, f"CN=pki-gateway Root CA {label}", start, start + ROOT_LIFETIME)
    root_issuer = Issuer.from_certificate(root, root_key)
    issuing = build_certificate(
        root_issuer,
        new_serial(),
        _grant(f"CN=pki-gateway Issuing CA {label}", start, ISSUING_LIFETIME, ("keyCertSign", "cRLSign")),
        public_key_der(issuing_key),
        is_ca=True,
        path_length=0,
    )
    return Hierarchy(
        root=_identity(root, root_key),
        issuing=_identity(issuing, issuing_key),
        ra=_create_ra(choice.ra, Issuer.from_certificate(issuing, issuing_key), urls, label, start),
        cmp=_create_cmp(Issuer.from_certificate(issuing, issuing_key), urls, label, start),
        tls=_create_tls(root_issuer, start),
    )


def create_secrets() -> Secrets:
    """Draw 256-bit keys, and a challenge that fits a PrintableString (Windows refuses others) and a password field."""
    return Secrets(generate_store_key(), secrets.token_hex(32), secrets.token_hex(16))


def _create_ra(spec: str, issuer: Issuer, urls: CaUrls, label: str, start: datetime) -> Identity:
    key = generate_private_key(spec)
    usage = ("digitalSignature", "keyEncipherment")
    # Windows takes an RA certificate only with this usage or serverAuth, else it says 0x8010002c.
    ekus = (eku_oid("certificateRequestAgent"),)
    grant = _grant(f"CN=pki-gateway SCEP RA {label}", start, RA_LIFETIME, usage, ekus)
    certificate = build_certificate(
        issuer, new_serial(), grant, public_key_der(key), crl_url=urls.crl, ca_issuers_url=urls.ca_issuers
    )
    return _identity(certificate, key)


def _create_cmp(issuer: Issuer, urls: CaUrls, label: str, start: datetime) -> Identity:
    """What signs CMP answers: an end entity's certificate for digital signatures, of a registration authority (RFC 9810 §8.5)."""
    key = generate_private_key(CMP_KEY)
    grant = _grant(f"CN=pki-gateway CMP {label}", start, RA_LIFETIME, ("digitalSignature",), (eku_oid("cmcRA"),))
    certificate = build_certificate(
        issuer, new_serial(), grant, public_key_der(key), crl_url=urls.crl, ca_issuers_url=urls.ca_issuers
    )
    return _identity(certificate, key)


def _create_tls(issuer: Issuer, start: datetime) -> Identity:
    """Under the root directly: a TLS stack must verify it whatever key the issuing CA has."""
    key = generate_private_key(TLS_KEY)
    sans = tuple(make_san(kind, value) for kind, value in TLS_NAMES)
    grant = _grant("CN=localhost", start, TLS_LIFETIME, ("digitalSignature",), (eku_oid("serverAuth"),), sans)
    return _identity(build_certificate(issuer, new_serial(), grant, public_key_der(key)), key)


def _grant(
    subject: str,
    start: datetime,
    lifetime: timedelta,
    key_usage: tuple[str, ...],
    ekus: tuple[str, ...] = (),
    sans: tuple[SubjectAltName, ...] = (),
) -> Grant:
    return Grant(parse_name_text(subject).der, sans, key_usage, ekus, start, start + lifetime)


def _identity(certificate: bytes, key: PrivateKey) -> Identity:
    return Identity(der_to_pem(certificate), serialize_private_key(key))
