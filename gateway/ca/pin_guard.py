"""Remembers for all processes of a gateway, and over restarts, which PINs a token has refused: no PIN is refused twice.

Tokens lock themselves after a few wrong PINs, often for good. Several workers with one wrong PIN, or a service that is started
again and again, would do that within seconds.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import KeyUnavailable

RECORD = "pkcs11-refused-pins"
MAX_RECORDS = 64
"""Fingerprints that are kept, newest last."""
_LINE = 65
WAIT_SECONDS = 15.0
"""How long to wait for another process that logs in."""
_PAUSE = 0.05


class PinGuard:
    """The record beside the store: keyed digests, of no use to whoever lacks `key`, of PINs that were refused."""

    def __init__(self, folder: Path, key: bytes, wait: float = WAIT_SECONDS) -> None:
        self.path = folder / RECORD
        self._key = key
        self._wait = wait

    def fingerprint(self, token: str, serial: bytes, pin: bytes) -> str:
        """Return what is kept of a PIN of one token."""
        parts = b"".join(len(part).to_bytes(4, "big") + part for part in (b"pkcs11", token.encode(), serial, pin))
        return hmac.digest(self._key, parts, "sha256").hex()

    @contextmanager
    def turn(self) -> Iterator[PinTurn]:
        """Wait until no other process logs in. Raises KeyUnavailable when one takes too long, or the record cannot be kept."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise KeyUnavailable(f"{self.path} cannot be opened, without which no PIN is tried: {error.strerror}") from error
        try:
            self._lock(descriptor)
            _hand_to_owner(descriptor, self.path.parent)
            yield PinTurn(descriptor)
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        until = clock() + self._wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if clock() > until:
                    raise KeyUnavailable("another process of the gateway logs in to a token and does not end") from None
                time.sleep(_PAUSE)
            else:
                return


class PinTurn:
    """The record while no other process may change it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def was_refused(self, fingerprint: str) -> bool:
        """Whether a token has refused this PIN."""
        return fingerprint in self._read()

    def note(self, fingerprint: str) -> None:
        """Remember a refused PIN, durably. Raises KeyUnavailable."""
        kept = [*self._read(), fingerprint][-MAX_RECORDS:]
        try:
            os.pwrite(self._descriptor, "".join(f"{line}\n" for line in kept).encode("ascii"), 0)
            os.ftruncate(self._descriptor, len(kept) * _LINE)
            os.fsync(self._descriptor)
        except OSError as error:
            raise KeyUnavailable(f"a refused PIN cannot be remembered: {error.strerror}") from error

    def _read(self) -> list[str]:
        return os.pread(self._descriptor, (MAX_RECORDS + 1) * _LINE, 0).decode("ascii", "replace").split()


def _hand_to_owner(descriptor: int, folder: Path) -> None:
    """A command that root runs must not leave a record behind that the service cannot open."""
    owner = folder.stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
