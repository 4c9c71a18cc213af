"""The one exclusive flock beside the database: whoever writes, checkpoints or closes holds it (flock(2))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StoreUnavailable

_RETRY_SECONDS = 0.02


class StoreLock:
    """An open file description on `<database>.lock`; one for each writer.

    SQLite before 3.51.3 can corrupt a WAL file that two connections write and checkpoint at once, and its own busy
    handler is unfair. flock waits in the kernel and is released by it when a process dies.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot open {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def hold(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock; waits for ever, or raises StoreUnavailable after `timeout` seconds."""
        self.wait(timeout)
        try:
            yield
        finally:
            self.release()

    def wait(self, timeout: float | None = None) -> None:
        """Take the lock; waits for ever, or raises StoreUnavailable after `timeout` seconds."""
        try:
            if timeout is None:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            else:
                self._poll(timeout)
        except OSError as error:
            raise StoreUnavailable(f"cannot lock {self.path}: {error.strerror}") from error

    def take(self) -> bool:
        """Take the lock if nobody has it; False when somebody does. Raises StoreUnavailable."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EINTR}:
                return False
            raise StoreUnavailable(f"cannot lock {self.path}: {error.strerror}") from error
        return True

    def release(self) -> None:
        """Let the lock go."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back; the lock goes with it."""
        os.close(self._fd)

    def _poll(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.take():
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"{self.path} was held by another process for {timeout:g} s; stop it or try again")
            time.sleep(_RETRY_SECONDS)


@contextlib.contextmanager
def locked(database: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of a database for one command; raises StoreUnavailable after `timeout` seconds."""
    lock = StoreLock(database)
    try:
        with lock.hold(timeout):
            yield
    finally:
        lock.close()
