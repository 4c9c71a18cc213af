"""Devices that enroll: their requests, made before anything is measured, and the check of what they are answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import combinations, islice

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.asn1.scep import PkiStatus
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from gateway.wire.scep import client
from gateway.wire.scep.operations import MEDIA_CA_RA_CERT

EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class Device:
    """One request and what is needed to check its answer."""

    request: client.ScepRequest
    signer: Signer
    ra: bytes

    def is_granted(self, answer: bytes) -> bool:
        """Whether an answer is a CertRep SUCCESS."""
        return client.decode_cert_rep(answer, self.request, self.signer, self.ra).status is PkiStatus.SUCCESS


def make_devices(ca_certificates: bytes, challenge: str, count: int, prefix: str = "bench-") -> list[Device]:
    """Return devices with a key, a name and a transaction each; `ca_certificates` is the answer to GetCACert."""
    ra = _receiver(ca_certificates)
    now = datetime.now(UTC)
    return [_make_device(key, f"{prefix}{number}", ra, challenge, now) for number, key in enumerate(_keys(count))]


def _make_device(key: rsa.RSAPrivateKey, name: str, ra: bytes, challenge: str, now: datetime) -> Device:
    subject = parse_name_text(f"CN={name}").der
    signer = client.self_signed_signer(key, subject, now - timedelta(hours=1), now + timedelta(days=1))
    csr = build_csr(key, subject, challenge_password=challenge)
    transaction = client.transaction_id(public_key_der(key))
    return Device(client.encode_request(csr, signer, ra, transaction=transaction), signer, ra)


def _receiver(ca_certificates: bytes) -> bytes:
    """Return whom requests are encrypted to: of a bundle the RA, else the CA itself, whatever its key usage says."""
    if ca_certificates[4:5] == b"\x30":  # a certificate begins with its to-be-signed part, a bundle with an OID
        return ca_certificates
    return client.choose_ra_certificate(client.decode_ca_certificates(ca_certificates, MEDIA_CA_RA_CERT))


@lru_cache(maxsize=1)
def _keys(count: int) -> list[rsa.RSAPrivateKey]:
    """Return different RSA-2048 keys, each two of a few primes: generating all of them would take minutes."""
    primes: list[int] = []
    while len(primes) * (len(primes) - 1) // 2 < count:
        numbers = rsa.generate_private_key(EXPONENT, 2048).private_numbers()
        primes += (numbers.p, numbers.q)
    return list(islice(_combine(primes), count))


def _combine(primes: list[int]) -> Iterator[rsa.RSAPrivateKey]:
    for p, q in combinations(primes, 2):
        d = pow(EXPONENT, -1, (p - 1) * (q - 1))
        numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(EXPONENT, p * q))
        yield numbers.private_key(unsafe_skip_rsa_key_validation=True)
