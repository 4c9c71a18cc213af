"""The RA's certificates and keys, prepared once for every message of a snapshot (RFC 8894 §2.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.errors import MalformedMessage, Rejection
from gateway.model import Name, SanKind
from gateway.pki import cms
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, key_matches
from gateway.pki.names import normalize_name, parse_name, parse_name_text

MIN_RSA_BITS = 2048
DECOY_RSA_BITS = 2048
"""What devices have: verifying the decoy must cost what verifying theirs does, whatever the RA's own key is."""
REFUSAL_SAMPLES = 9
REFUSAL_FACTOR = 5.0
"""A request that fails at its end and then the decoy take twice the decoy; EC and large RSA keys verify more slowly.

The decoy's key, name and objects are known from the last time, a stranger's are not: reading them adds more than half as much.
"""

_SIGNS, _DECRYPTS = "digitalSignature", "keyEncipherment"


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Legacy algorithms that are accepted; RFC 8894 §2.9 makes SHA-1 and 3DES optional and forbids single DES and MD5."""

    sha1: bool = False
    md5: bool = False
    triple_des: bool = False
    single_des: bool = False


@dataclass(frozen=True, slots=True)
class RaPair:
    """A certificate that requests may be encrypted to, and its key; `signer` is None where its key usage lets it sign nothing."""

    certificate: Certificate = field(repr=False)
    key: RSAPrivateKey = field(repr=False)
    signer: cms.Signer | None

    def is_named_by(self, rid: cms.CertificateId) -> bool:
        """Whether a RecipientIdentifier means this certificate; a name that the client encoded anew is compared by meaning."""
        if rid.key_id is not None:
            return rid.key_id == self.certificate.subject_key_id
        if rid.serial != self.certificate.serial:
            return False
        issuer = self.certificate.issuer_der
        return rid.issuer_der == issuer or _same_name(rid.issuer_der, self.certificate.issuer)


@dataclass(frozen=True, slots=True)
class RaIdentity:
    """What clients encrypt to and what signs every CertRep; `chain` is DER, issuing CA first, root last."""

    signer: cms.Signer
    key: RSAPrivateKey = field(repr=False)
    certificate: Certificate = field(repr=False)
    """The certificate that signs; `key` is its key."""
    pairs: tuple[RaPair, ...] = field(repr=False)
    """Every pair that decrypts, the one in force first and previous ones last."""
    certificates: tuple[bytes, ...] = field(repr=False)
    """What GetCACert shows of this RA, DER: what signs, then what requests are encrypted to where that is another."""
    chain: tuple[bytes, ...] = field(repr=False)
    decoy: bytes = field(repr=False)
    """A PKCS#10 with a wrong signature, read when a message holds none, so that every failure takes as long."""
    stopwatch: Callable[[], float] | None = field(default=None, repr=False)
    """Seconds that pass; None measures nothing and lets refusals take what they take."""
    refusal_seconds: float = 0.0
    """How long reading a request that is refused takes at least: more than the slowest way to find out, measured by the decoy."""
    algorithms: Algorithms = field(default_factory=Algorithms)
    """What this RA accepts beside today's algorithms: read by the codec and told by GetCACaps."""
    password: bytes | None = field(default=None, repr=False)
    """The challenge under which messages of devices are encrypted whose keys cannot encrypt; None serves no such device."""
    signing_time_skew: timedelta | None = None
    """How far a signingTime may be from our time; None does not judge it."""

    @classmethod
    def create(
        cls,
        certificate_der: bytes,
        key: PrivateKey,
        chain_ders: tuple[bytes, ...],
        algorithms: Algorithms = Algorithms(),
        *,
        encryption: tuple[bytes, PrivateKey] | None = None,
        previous: tuple[tuple[bytes, PrivateKey], ...] = (),
        password: bytes | None = None,
        signing_time_skew: timedelta | None = None,
        stopwatch: Callable[[], float] | None = None,
    ) -> RaIdentity:
        """Prepare an identity of DER certificates and their keys.

        With `encryption` the certificate only has to sign. `previous` pairs go on decrypting, and sign the answers to what they
        decrypted where they can. With a `stopwatch` every request that is refused takes as long to read as any other.
        ValueError, with a sentence, when a certificate and its key cannot serve SCEP clients.
        """
        if password is not None and not password:
            raise ValueError("the password of the SCEP RA is empty")
        needed = (_SIGNS,) if encryption else (_SIGNS, _DECRYPTS)
        main = _make_pair("the SCEP RA", certificate_der, key, needed)
        pairs = [main] if _may(main.certificate, _DECRYPTS) else []
        certificates = [certificate_der]
        if encryption is not None:
            pairs.insert(0, _make_pair("the SCEP RA encryption", *encryption, (_DECRYPTS,)))
            certificates.append(encryption[0])
        for number, pair in enumerate(previous, start=1):
            pairs.append(_make_pair(f"the previous SCEP RA {number}", *pair, (_DECRYPTS,)))
        decoy = _make_decoy(main.key)
        return cls(
            signer=cms.Signer.create(certificate_der, main.key),
            key=main.key,
            certificate=main.certificate,
            pairs=tuple(pairs),
            certificates=tuple(certificates),
            chain=chain_ders,
            decoy=decoy,
            stopwatch=stopwatch,
            refusal_seconds=_measure_refusal(decoy, stopwatch) if stopwatch else 0.0,
            algorithms=algorithms,
            password=password,
            signing_time_skew=signing_time_skew,
        )

    def find_pair(self, rids: Iterable[cms.CertificateId]) -> tuple[RaPair, int] | None:
        """Return the pair that one of `rids` names, with its position in them; the pair in force goes before previous ones.

        By identifier, never by position: scepclient encrypts to every RSA certificate of the bundle.
        """
        named = tuple(rids)
        for pair in self.pairs:
            for position, rid in enumerate(named):
                if pair.is_named_by(rid):
                    return pair, position
        return None

    def signer_for(self, rids: Iterable[cms.CertificateId]) -> cms.Signer:
        """Return what signs the answer to a message that is encrypted to `rids`.

        Whoever encrypts to a previous certificate knows no other and checks the answer against it.
        """
        found = self.find_pair(rids)
        if found is None or found[0].certificate.der in self.certificates:
            return self.signer
        return found[0].signer or self.signer


def _make_pair(what: str, certificate_der: bytes, key: PrivateKey, needed: tuple[str, ...]) -> RaPair:
    """Return a pair whose certificate has the key usages `needed`; ValueError with a sentence that begins with `what`."""
    certificate = parse_certificate(certificate_der)
    if not isinstance(key, RSAPrivateKey) or certificate.public_key.algorithm != "rsa":
        raise ValueError(f"{what} key must be RSA: clients encrypt their requests to it")
    if certificate.public_key.bits < MIN_RSA_BITS:
        raise ValueError(f"{what} key has {certificate.public_key.bits} bits; at least {MIN_RSA_BITS} are needed")
    if not key_matches(key, certificate.public_key.der):
        raise ValueError(f"{what} certificate and its key do not belong together")
    missing = sorted(usage for usage in needed if not _may(certificate, usage))
    if missing:
        raise ValueError(f"{what} certificate lacks key usage {' and '.join(missing)}: clients refuse it")
    signer = cms.Signer.create(certificate_der, key) if _may(certificate, _SIGNS) else None
    return RaPair(certificate, key, signer)


def _may(certificate: Certificate, usage: str) -> bool:
    return usage in (certificate.key_usage or ())


def _make_decoy(key: RSAPrivateKey) -> bytes:
    """Return a certification request like a device's whose signature does not verify."""
    like = key if key.key_size == DECOY_RSA_BITS else generate_private_key("rsa-2048")
    name = parse_name_text("CN=decoy.example")
    csr = build_csr(like, name.der, (make_san(SanKind.DNS, "decoy.example"),), "decoy" * 5)
    return csr[:-1] + bytes((csr[-1] ^ 1,))


def _measure_refusal(decoy: bytes, stopwatch: Callable[[], float]) -> float:
    times = []
    for _ in range(REFUSAL_SAMPLES):
        begun = stopwatch()
        with suppress(Rejection):
            parse_csr(decoy)
        times.append(stopwatch() - begun)
    return median(times) * REFUSAL_FACTOR


def _same_name(received: bytes, ours: Name) -> bool:
    """Whether two names mean the same; one that cannot be read names nobody."""
    try:
        return normalize_name(parse_name(received)) == normalize_name(ours)
    except MalformedMessage:
        return False
