"""Looks through the certificates that Vault or OpenBao keeps for those of one key: neither can be asked for a request."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.ca.http import MAX_CRL, Response
from gateway.ca.interfaces import NotSent, UnknownResult
from gateway.ca.vault_answers import Denied, read_answer, read_certificates
from gateway.ca.vault_auth import VaultSession
from gateway.errors import Rejection
from gateway.pki.certificate import Certificate, parse_certificate

MAX_STORED = 20_000
"""Certificates in one mount that are looked through; `tidy` keeps them few."""
MAX_READ = 2_000
"""Certificates that one question reads; the next question goes on from there."""
MAX_UNREADABLE = 64
AT_ONCE = 8
_DIGEST_BYTES = 16
_SERIAL = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){0,63}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One certificate of a mount."""

    serial: str
    certificate: Certificate = field(repr=False)
    revoked: bool


class ListRefused(Exception):
    """The token may not list certificates."""


class VaultSearch:
    """Remembers which key each certificate of a mount has, so that each is read once by a worker.

    Certificates are listed by serial number, which is random: there is no way to see the newest only.
    """

    def __init__(self, session: VaultSession, mount: str, clock: Callable[[], float]) -> None:
        self._session = session
        self._mount = mount
        self._clock = clock
        self._keys: dict[str, bytes] = {}
        self._unreadable: dict[str, bytes] = {}

    async def find(self, public_key: bytes, within: float) -> tuple[Stored, ...]:
        """Return all certificates for a SubjectPublicKeyInfo, DER.

        Raises ListRefused, NotSent, and UnknownResult where there are too many or time ran out: then the next question goes on.
        """
        until = self._clock() + within
        serials = await self._list(within)
        if len(serials) > MAX_STORED:
            raise UnknownResult(f"the mount {self._mount} keeps {len(serials)} certificates, of which {MAX_STORED} are searched")
        self._keys = {serial: key for serial, key in self._keys.items() if serial in serials}
        self._unreadable = {serial: data for serial, data in self._unreadable.items() if serial in serials}
        unread = [serial for serial in serials if serial not in self._keys][:MAX_READ]
        for start in range(0, len(unread), AT_ONCE):
            if self._clock() >= until:
                break
            await asyncio.gather(*(self._read(serial, until) for serial in unread[start : start + AT_ONCE]))
        left = sum(serial not in self._keys for serial in serials)
        if left:
            raise UnknownResult(f"{left} of {len(serials)} certificates in the mount {self._mount} are not looked through yet")
        if any(public_key in data for data in self._unreadable.values()):
            raise UnknownResult("the CA keeps a certificate for this key that cannot be read")
        digest = _digest(public_key)
        found = [await self._read(serial, until) for serial, key in self._keys.items() if key == digest]
        return tuple(stored for stored in found if stored is not None and stored.certificate.public_key.der == public_key)

    async def _list(self, within: float) -> frozenset[str]:
        try:
            answer = await self._session.read(f"/v1/{self._mount}/certs?list=true", within, limit=MAX_CRL)
        except Denied as error:
            raise ListRefused(str(error)) from error
        if answer.status == 404:  # what a list of nothing is answered with
            return frozenset()
        data = read_answer(answer).get("data")
        keys = data.get("keys") if isinstance(data, dict) else None
        if not isinstance(keys, list):
            raise NotSent("the CA gave no list of its certificates")
        return frozenset(map(_serial, keys))

    async def _read(self, serial: str, until: float) -> Stored | None:
        """Return one certificate, None where it has gone since it was listed, and remember its key."""
        answer = await self._session.read(f"/v1/{self._mount}/cert/{serial}", max(0.0, until - self._clock()))
        if answer.status == 404:
            self._keys[serial] = b""
            return None
        der, revoked = _open(serial, answer)
        try:
            certificate = parse_certificate(der)
        except Rejection as error:
            if len(self._unreadable) >= MAX_UNREADABLE:
                raise UnknownResult(f"too many certificates in the mount {self._mount} cannot be read") from error
            self._keys[serial], self._unreadable[serial] = b"", der
            return None
        self._keys[serial] = _digest(certificate.public_key.der)
        return Stored(serial, certificate, revoked)


def _open(serial: str, answer: Response) -> tuple[bytes, bool]:
    """Return a certificate, DER, and whether it is revoked."""
    data = read_answer(answer).get("data")
    if not isinstance(data, dict):
        raise NotSent(f"the CA did not give its certificate {serial}")
    try:
        [der] = read_certificates(data, "certificate")
    except ValueError as error:
        raise NotSent(f"the CA's certificate {serial} is no PEM") from error
    revoked = data.get("revocation_time")
    return der, isinstance(revoked, int) and revoked > 0


def _serial(key: object) -> str:
    if not isinstance(key, str) or not _SERIAL.fullmatch(key.lower()):
        raise NotSent("the CA listed what is no serial number")
    return key.lower()


def _digest(public_key: bytes) -> bytes:
    return hashlib.sha256(public_key).digest()[:_DIGEST_BYTES]
