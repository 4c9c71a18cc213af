"""Keys that are drawn for devices that cannot draw their own (RFC 7030 §4.4): never stored, never logged, handed out once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.model import EnrollmentRequest, PublicKey
from gateway.pki.csr import build_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER
from gateway.pki.keys import PrivateKey, default_digest, describe_public_key, generate_private_key, public_key_der

MAX_WAITING = 16
"""Keys that wait for their turn; RSA-4096 takes up to a second, and more would wait longer than clients do."""

_KINDS = MappingProxyType(
    {
        "ec-p256": PublicKey(b"", b"", "ec", 256, "P-256"),
        "ec-p384": PublicKey(b"", b"", "ec", 384, "P-384"),
        "ec-p521": PublicKey(b"", b"", "ec", 521, "P-521"),
        "rsa-2048": PublicKey(b"", b"", "rsa", 2048),
        "rsa-3072": PublicKey(b"", b"", "rsa", 3072),
        "rsa-4096": PublicKey(b"", b"", "rsa", 4096),
    }
)
"""What policy judges of a key before it is drawn."""

K = TypeVar("K", bound=str)


def choose_kind(allowed: Sequence[K], asked: PublicKey) -> K:
    """Return the kind of key to draw: like the one in the request, else of its algorithm, else the first.

    The request's own key is a placeholder (RFC 7030 §4.4.1); its kind is all that a client can say about what it wants.
    """
    wanted = [kind for kind in allowed if _KINDS[kind].algorithm == asked.algorithm]
    exact = [kind for kind in wanted if (_KINDS[kind].bits, _KINDS[kind].curve) == (asked.bits, asked.curve)]
    return (*exact, *wanted, *allowed)[0]


class KeyMaker:
    """Draws keys off the event loop, one at a time in a worker; workers are one a core."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether too many wait already."""
        return self._waiting >= MAX_WAITING

    async def draw(self, kind: str) -> PrivateKey:
        """Return a new key of one of `pki.keys.KEY_SPECS`; whoever waits no longer leaves its turn to the next."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        drawing = asyncio.get_running_loop().run_in_executor(None, generate_private_key, kind)
        drawing.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(drawing)


class ServerKey:
    """The key of one request, of a kind that is known from the start; the key itself is there once it was drawn."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._key: PrivateKey | None = None

    def foresee(self, request: EnrollmentRequest) -> EnrollmentRequest:
        """Return the request as policy will see it, for a judgement before the work of drawing a key."""
        return replace(request, csr=replace(request.csr, public_key=_KINDS[self.kind], signature_digest="none"))

    async def certify(self, request: EnrollmentRequest, maker: KeyMaker) -> EnrollmentRequest:
        """Draw the key and return the request with a PKCS#10 of its own, which asks for all else that `request` does.

        What was the device's affair (its challenge, its identifiers of keys) stays out of what goes to the upstream CA.
        """
        key = self._key = await maker.draw(self.kind)
        asked = request.csr
        # it would name the key of the request
        others = tuple(e for e in asked.extensions if e.oid != SUBJECT_KEY_IDENTIFIER)
        der = build_csr(
            key,
            asked.subject.der,
            asked.sans,
            key_usage=asked.key_usage or (),
            ekus=asked.ekus or (),
            other_extensions=others,
        )
        rebuilt = replace(
            asked,
            der=der,
            public_key=describe_public_key(public_key_der(key)),
            extensions=others,
            challenge_password=None,
            signature_digest=default_digest(key),
        )
        return replace(request, csr=rebuilt)

    def pkcs8(self) -> bytes:
        """Return the key as PKCS#8 DER (RFC 5958); RuntimeError before it was drawn."""
        if self._key is None:
            raise RuntimeError("no key was drawn")
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
