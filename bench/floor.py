"""What one SCEP enrollment costs in cryptography alone: nothing built on RSA can be faster."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from bench.timing import median_microseconds


def floor_microseconds() -> float:
    """Return the CPU time of an RA's operations on one request: RSA-2048 RA, RSA-2048 device, P-256 CA."""
    key = rsa.generate_private_key(65537, 2048)
    ca = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    data = bytes(1000)
    sealed = public.encrypt(bytes(32), padding.PKCS1v15())
    signature = key.sign(data, padding.PKCS1v15(), SHA256())

    def request() -> None:
        public.verify(signature, data, padding.PKCS1v15(), SHA256())
        key.decrypt(sealed, padding.PKCS1v15())
        public.verify(signature, data, padding.PKCS1v15(), SHA256())
        ca.sign(data, ec.ECDSA(SHA256()))
        public.encrypt(bytes(32), padding.PKCS1v15())
        key.sign(data, padding.PKCS1v15(), SHA256())

    return median_microseconds(request)
