"""Keys that are drawn for devices that cannot draw their own (RFC 7030 §4.4, RFC 9483 §4.1.6): never stored, never logged,
handed out once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.model import CredentialKind, EnrollmentRequest, PublicKey, Requester, RequestForm
from gateway.pki.csr import build_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER
from gateway.pki.keys import PrivateKey, default_digest, describe_public_key, generate_private_key, public_key_der
from gateway.ra.devices import digest_of_names

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


def place_of(request: EnrollmentRequest, requester: Requester) -> str:
    """Name whom a key is drawn for: a registration authority asks for many devices, everybody else for one at a time."""
    if not requester.proved_by(CredentialKind.RA_CERTIFICATE):
        return requester.identity
    return f"{requester.identity}:{digest_of_names(request.csr)}"


def choose_kind(allowed: Sequence[K], asked: PublicKey) -> K:
    """Return the kind of key to draw: like the one in the request, else of its algorithm, else the first.

    The request's own key is a placeholder (RFC 7030 §4.4.1); its kind is all that a client can say about what it wants.
    """
    wanted = [kind for kind in allowed if _KINDS[kind].algorithm == asked.algorithm]
    exact = [kind for kind in wanted if (_KINDS[kind].bits, _KINDS[kind].curve) == (asked.bits, asked.curve)]
    return (*exact, *wanted, *allowed)[0]


def kind_fits(kind: str, wanted: PublicKey) -> bool:
    """Whether a kind of key is what `wanted` names; 0 bits: of any size."""
    described = _KINDS[kind]
    return (described.algorithm, described.curve) == (wanted.algorithm, wanted.curve) and wanted.bits in {0, described.bits}


class KeyMaker:
    """Draws keys off the event loop, one at a time in a worker; workers are one a core."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._served: set[str] = set()

    def has_place(self, requester: str) -> bool:
        """Whether `requester` may come: none of its keys is drawn or waited for, and not too many others wait."""
        return requester not in self._served and len(self._served) <= MAX_WAITING

    async def draw(self, kind: str, requester: str) -> PrivateKey:
        """Return a new key of one of `pki.keys.KEY_SPECS`; whoever waits no longer leaves its turn to the next.

        A key that is being drawn is drawn to its end, and keeps the place of `requester` until then, whoever is gone.
        """
        self._served.add(requester)
        try:
            await self._turn.acquire()
        except asyncio.CancelledError:
            self._served.discard(requester)
            raise
        drawing = asyncio.get_running_loop().run_in_executor(None, generate_private_key, kind)
        drawing.add_done_callback(lambda _: self._leave(requester))
        return await asyncio.shield(drawing)

    def _leave(self, requester: str) -> None:
        self._served.discard(requester)
        self._turn.release()


class ServerKey:
    """The key of one request, of a kind that is known from the start; the key itself is there once it was drawn."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._key: PrivateKey | None = None

    def foresee(self, request: EnrollmentRequest) -> EnrollmentRequest:
        """Return the request as policy will see it, for a judgement before the work of drawing a key."""
        key = _KINDS[self.kind]
        return replace(request, csr=replace(request.csr, form=RequestForm.PKCS10, public_key=key, signature_digest="none"))

    async def certify(self, request: EnrollmentRequest, maker: KeyMaker, requester: str) -> EnrollmentRequest:
        """Draw the key and return the request with a PKCS#10 of its own, which asks for all else that `request` does.

        What was the device's affair (its challenge, its identifiers of keys) stays out of what goes to the upstream CA.
        """
        key = self._key = await maker.draw(self.kind, requester)
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
            form=RequestForm.PKCS10,
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
