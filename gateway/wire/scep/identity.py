"""The RA's certificate and key, prepared once for every message of a snapshot (RFC 8894 §2.1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.model import Name, SanKind
from gateway.pki import cms
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, key_matches
from gateway.pki.names import normalize_name, parse_name, parse_name_text

MIN_RSA_BITS = 2048
DECOY_RSA_BITS = 2048
"""What devices have: verifying the decoy must cost what verifying theirs does, whatever the RA's own key is."""
_REQUIRED_KEY_USAGE = frozenset({"digitalSignature", "keyEncipherment"})


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Legacy algorithms that are accepted; RFC 8894 §2.9 makes SHA-1 and 3DES optional and forbids single DES and MD5."""

    sha1: bool = False
    triple_des: bool = False
    single_des: bool = False


@dataclass(frozen=True, slots=True)
class RaIdentity:
    """What clients encrypt to and what signs every CertRep; `chain` is DER, issuing CA first, root last."""

    signer: cms.Signer
    key: RSAPrivateKey = field(repr=False)
    certificate: Certificate = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    decoy: bytes = field(repr=False)
    """A PKCS#10 with a wrong signature, read when a message holds none, so that every failure takes as long."""
    algorithms: Algorithms = field(default_factory=Algorithms)
    """What this RA accepts beside today's algorithms: read by the codec and told by GetCACaps."""

    @classmethod
    def create(
        cls,
        certificate_der: bytes,
        key: PrivateKey,
        chain_ders: tuple[bytes, ...],
        algorithms: Algorithms = Algorithms(),
    ) -> RaIdentity:
        """Prepare an identity; ValueError with a sentence when certificate and key cannot serve SCEP clients."""
        certificate = parse_certificate(certificate_der)
        if not isinstance(key, RSAPrivateKey) or certificate.public_key.algorithm != "rsa":
            raise ValueError("the SCEP RA key must be RSA: clients encrypt their requests to it")
        if certificate.public_key.bits < MIN_RSA_BITS:
            raise ValueError(f"the SCEP RA key has {certificate.public_key.bits} bits; at least {MIN_RSA_BITS} are needed")
        if not key_matches(key, certificate.public_key.der):
            raise ValueError("the SCEP RA certificate and its key do not belong together")
        missing = _REQUIRED_KEY_USAGE - (certificate.key_usage or frozenset())
        if missing:
            raise ValueError(f"the SCEP RA certificate lacks key usage {' and '.join(sorted(missing))}: clients refuse it")
        return cls(cms.Signer.create(certificate_der, key), key, certificate, chain_ders, _make_decoy(key), algorithms)

    def is_named_by(self, rid: cms.CertificateId) -> bool:
        """Whether a RecipientIdentifier means this certificate; a name that the client encoded anew is compared by meaning."""
        if rid.key_id is not None:
            return rid.key_id == self.certificate.subject_key_id
        if rid.serial != self.certificate.serial:
            return False
        issuer = self.certificate.issuer_der
        return rid.issuer_der == issuer or _same_name(parse_name(rid.issuer_der), parse_name(issuer))


def _make_decoy(key: RSAPrivateKey) -> bytes:
    """Return a certification request like a device's whose signature does not verify."""
    like = key if key.key_size == DECOY_RSA_BITS else generate_private_key("rsa-2048")
    name = parse_name_text("CN=decoy.example")
    csr = build_csr(like, name.der, (make_san(SanKind.DNS, "decoy.example"),), "decoy" * 5)
    return csr[:-1] + bytes((csr[-1] ^ 1,))


def _same_name(one: Name, other: Name) -> bool:
    return normalize_name(one) == normalize_name(other)
