"""The ceiling: what an enrollment costs where nothing but its cryptography and its HTTP are done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time_ns
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256

from tests.conftest import free_port

ANSWER_BYTES = 3000
"""A CertRep with a certificate and its chain."""


class Cryptography:
    """RSA-2048 decrypt and sign, three RSA public operations, and the CA's signature."""

    def __init__(self, ca: PrivateKeyTypes) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self._public = self._key.public_key()
        self._sign = _certifier(ca)
        self._sealed = self._public.encrypt(bytes(32), padding.PKCS1v15())
        self._signature = self._key.sign(bytes(1000), padding.PKCS1v15(), SHA256())

    def microseconds(self, rounds: int) -> float:
        """Return the mean CPU time of one enrollment's operations."""
        begun = thread_time_ns()
        for _ in range(rounds):
            self._operate(bytes(1000))
        return (thread_time_ns() - begun) / rounds / 1000

    def _operate(self, data: bytes) -> None:
        self._public.verify(self._signature, data, padding.PKCS1v15(), SHA256())
        self._key.decrypt(self._sealed, padding.PKCS1v15())
        self._public.verify(self._signature, data, padding.PKCS1v15(), SHA256())
        self._sign(data)
        self._public.encrypt(bytes(32), padding.PKCS1v15())
        self._key.sign(data, padding.PKCS1v15(), SHA256())


def _certifier(ca: PrivateKeyTypes) -> Callable[[bytes], Any]:
    if isinstance(ca, rsa.RSAPrivateKey):
        return lambda data: ca.sign(data, padding.PKCS1v15(), SHA256())
    if isinstance(ca, ec.EllipticCurvePrivateKey):
        return lambda data: ca.sign(data, ec.ECDSA(SHA256()))
    raise TypeError(f"no ceiling is known for {type(ca).__name__}")


class HollowServer:
    """A server that takes a POST and answers bytes, in its own process; see `bench.hollow`."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.hollow", str(port), str(ANSWER_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        if self.process.stdout is None or not self.process.stdout.readline():
            raise RuntimeError("the hollow server does not start")

    def stop(self) -> None:
        """End it."""
        self.process.communicate(timeout=30)
