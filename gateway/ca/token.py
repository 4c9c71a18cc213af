"""One PKCS#11 token in this process: one session, used by one thread at a time, opened anew when it is lost (PKCS #11 3.1).

python-pkcs11 tells the module that one thread uses it, and releases the interpreter lock meanwhile: a module that takes it at
its word crashes under two. So every call to one module goes through one lock here. More speed comes from more workers.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from gateway.ca.pin_guard import PinGuard
from gateway.errors import KeyUnavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)

TURN_SECONDS = 10.0
"""How long a caller waits for another thread's call."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Between two attempts to open a session."""
INITIALIZE_ATTEMPTS = 4
"""Two processes that load SoftHSM at once can make one of them fail."""
_INITIALIZE_PAUSE = 0.2
_LOST = frozenset(
    {
        "SessionHandleInvalid",
        "SessionClosed",
        "DeviceRemoved",
        "DeviceError",
        "TokenNotPresent",
        "UserNotLoggedIn",
        "ObjectHandleInvalid",
        "KeyHandleInvalid",
        "SlotIDInvalid",
        "OperationActive",
        "HostMemory",
        "DeviceMemory",
    }
)
"""Failures that say that the session is of no use any more, whatever was asked of it."""
_WRONG_PIN = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "PinExpired"})
MISSING = "python-pkcs11 is not installed, which keys in tokens need: pip install 'pki-gateway[hsm]'"


class TokenFault(ValueError):
    """A key in a token cannot be used before somebody changes something; the text reads on after the key's name."""


@dataclass(frozen=True, slots=True)
class KeyName:
    """How a key is found in its token: by label, identifier, or both."""

    label: str | None
    id: bytes | None


class Module:
    """One PKCS#11 module, loaded once a process; `turn` lets one thread in at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pkcs11 = _import_pkcs11()
        self._lock = threading.RLock()
        self._library: Any = None

    @contextmanager
    def turn(self, seconds: float = TURN_SECONDS) -> Iterator[None]:
        """Wait for the module. Raises KeyUnavailable when another thread's call does not end."""
        if not self._lock.acquire(timeout=seconds):
            raise KeyUnavailable(f"the PKCS#11 module {self.path} does not answer")
        try:
            yield
        finally:
            self._lock.release()

    def library(self) -> Any:
        """Return the loaded module. Raises TokenFault when it is none, or does not begin."""
        if self._library is None:
            self._library = self._load()
        return self._library

    def restart(self) -> None:
        """End and begin the module's own state anew; every session of every token ends. Raises PKCS11Error."""
        if self._library is not None:
            with suppress(self.pkcs11.exceptions.PKCS11Error):
                self._library.finalize()
            self._library.initialize()

    def _load(self) -> Any:
        for attempt in range(1, INITIALIZE_ATTEMPTS + 1):
            try:
                return self.pkcs11.lib(self.path)
            except self.pkcs11.exceptions.PKCS11Error as error:
                if attempt == INITIALIZE_ATTEMPTS:
                    raise TokenFault(f"the PKCS#11 module {self.path} cannot be loaded: {describe(error)}") from error
                time.sleep(_INITIALIZE_PAUSE * attempt)
        raise AssertionError


def _import_pkcs11() -> Any:
    try:
        found = importlib.import_module("pkcs11")
        importlib.import_module("pkcs11.util.ec")
    except ImportError as error:
        raise TokenFault(MISSING) from error
    return found


def describe(error: Exception) -> str:
    """Return what a PKCS#11 error is called; its text too, where the module cannot be loaded at all."""
    name, text = type(error).__name__, str(error)
    return name if not text or name != "PKCS11Error" else text[:200]


class Token:
    """One token by its label; every method may be called from any thread and blocks."""

    def __init__(self, module: Module, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.label = label
        self.module = module
        self._errors = module.pkcs11.exceptions
        self._clock = clock
        self._session: Any = None
        self._keys: dict[KeyName, Any] = {}
        self._pin: bytes | None = None
        self._guard: PinGuard | None = None
        self._next_attempt = 0.0
        self._failures = 0
        self._refusal: str | None = None

    def log_in(self, pin: bytes, guard: PinGuard) -> None:
        """Prove that a PIN is right, also when another one is in use: what is logged in is logged out and in again.

        Raises TokenFault when the token refuses it or has refused it before, KeyUnavailable when it cannot be asked. A PIN that
        was in use goes on being used then.
        """
        with self.module.turn():
            if self._session is not None and pin == self._pin:
                return
            before = self._pin, self._guard, self._refusal
            another = pin != self._pin
            self._drop()
            self._pin, self._guard, self._refusal = pin, guard, None
            try:
                self._open(proving=another)
            except (TokenFault, KeyUnavailable):
                self._pin, self._guard, self._refusal = before
                raise
            self._next_attempt, self._failures = 0.0, 0

    def use(self, name: KeyName, work: Callable[[Any], T], harmless: tuple[str, ...] = ()) -> T:
        """Do something with a key; once more with a new session when the old one is lost.

        Errors whose class is in `harmless` are about the data, and raise ValueError; `*` means all that do not say that the
        session is lost. Raises KeyUnavailable for every other.
        """
        with self.module.turn():
            for last in (False, True):
                key = self._find_again(name)
                try:
                    return work(key)
                except self._errors.PKCS11Error as error:
                    kind = type(error).__name__
                    if kind not in _LOST and ("*" in harmless or kind in harmless):
                        raise ValueError(f"the token refuses: {kind}") from None
                    log.warning("a session with a token is lost", token=self.label, cause=describe(error))
                    self._drop()
                    if last:
                        self._wait()
                        raise KeyUnavailable(f"token {self.label}: {describe(error)}") from error
            raise AssertionError

    def public_attributes(self, name: KeyName, read: Callable[[Any, Any], T]) -> T:
        """Call `read` with the private key and the public key of the same name, or None; raises TokenFault, KeyUnavailable."""
        with self.module.turn():
            private = self._find(name)
            try:
                return read(private, self._public(name, private))
            except self._errors.PKCS11Error as error:
                raise TokenFault(f"the key's public half cannot be read: {describe(error)}") from error

    def _find_again(self, name: KeyName) -> Any:
        """Find a key that was there when the configuration was judged: it may come back."""
        try:
            return self._find(name)
        except TokenFault as error:
            raise KeyUnavailable(f"token {self.label}: {error}", int(LONGEST_PAUSE)) from error

    def _find(self, name: KeyName) -> Any:
        if self._session is None:
            self._reopen()
        if name not in self._keys:
            try:
                self._keys[name] = self._session.get_key(self.module.pkcs11.ObjectClass.PRIVATE_KEY, label=name.label, id=name.id)
            except self._errors.NoSuchKey:
                raise TokenFault("the token has no such private key") from None
            except self._errors.MultipleObjectsReturned:
                raise TokenFault("the token has several such private keys: name it by label and id") from None
            except self._errors.PKCS11Error as error:
                self._drop()
                self._wait()
                raise KeyUnavailable(f"token {self.label}: {describe(error)}") from error
        return self._keys[name]

    def _public(self, name: KeyName, private: Any) -> Any:
        wanted = self.module.pkcs11.ObjectClass.PUBLIC_KEY
        try:
            return self._session.get_key(wanted, label=name.label, id=private.id or name.id)
        except (self._errors.NoSuchKey, self._errors.MultipleObjectsReturned):
            return None

    def _reopen(self) -> None:
        """Open a session with the PIN that was right; with pauses that grow while that fails. Raises KeyUnavailable."""
        if self._refusal is not None:
            raise KeyUnavailable(self._refusal, int(LONGEST_PAUSE))
        left = self._next_attempt - self._clock()
        if left > 0:
            raise KeyUnavailable(f"token {self.label} is away and tried again in {left:.0f} s", max(1, round(left)))
        try:
            if self._failures:
                self._restart_module()
            self._open(proving=False)
        except TokenFault as error:
            self._refusal = f"token {self.label}: {error}"
            raise KeyUnavailable(self._refusal, int(LONGEST_PAUSE)) from error
        except KeyUnavailable:
            self._wait()
            raise
        if self._failures:
            log.info("a token is back", token=self.label)
        self._failures = 0

    def _restart_module(self) -> None:
        try:
            self.module.restart()
        except self._errors.PKCS11Error as error:
            raise KeyUnavailable(f"the PKCS#11 module {self.module.path} does not begin: {describe(error)}") from error

    def _wait(self) -> None:
        self._failures += 1
        self._next_attempt = self._clock() + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 6))

    def _open(self, *, proving: bool) -> None:
        if self._pin is None or self._guard is None:
            raise KeyUnavailable(f"nobody is logged in to token {self.label}")
        pin, guard = self._pin, self._guard
        with guard.turn() as turn:
            token = self._token()
            fingerprint = guard.fingerprint(self.label, bytes(token.serial), pin)
            if turn.was_refused(fingerprint):
                raise TokenFault(
                    "the token has refused this PIN before and it is not tried again, lest the token lock itself: configure"
                    f" another PIN; if the token was given this one since, remove {guard.path}"
                )
            self._check_flags(token)
            try:
                self._session = self._enter(token, pin, proving=proving)
            except UnicodeDecodeError:
                raise TokenFault("the PIN is not UTF-8 text") from None
            except self._errors.PKCS11Error as error:
                if type(error).__name__ in _WRONG_PIN:
                    turn.note(fingerprint)
                    log.error("a token refuses its PIN, which is not tried again", token=self.label)  # noqa: TRY400
                    raise TokenFault(f"the token refuses the PIN ({describe(error)}); it is not tried again") from None
                raise KeyUnavailable(f"token {self.label}: {describe(error)}") from error

    def _enter(self, token: Any, pin: bytes, *, proving: bool) -> Any:
        """Open a session and log in; a lost session may keep us logged in, which proves nothing about a PIN."""
        text = pin.decode("utf-8")
        try:
            return token.open(user_pin=text)
        except self._errors.UserAlreadyLoggedIn:
            if not proving:
                return token.open()
        self._restart_module()
        return self._token().open(user_pin=text)

    def _token(self) -> Any:
        found = self._search()
        if not found:
            # a token that came after the module was loaded may be seen only when the module begins anew
            self._restart_module()
            found = self._search()
        if not found:
            raise KeyUnavailable(f"no token in reach of {self.module.path} has the label {self.label}")
        if len(found) > 1:
            raise TokenFault(f"{len(found)} tokens have the label {self.label}: give them different ones")
        return found[0]

    def _search(self) -> list[Any]:
        try:
            return [token for token in self.module.library().get_tokens() if token.label == self.label]
        except self._errors.PKCS11Error as error:
            raise KeyUnavailable(f"token {self.label}: {describe(error)}") from error

    def _check_flags(self, token: Any) -> None:
        """Never use the last attempt that a token gives."""
        flags = self.module.pkcs11.TokenFlag
        if flags.USER_PIN_LOCKED in token.flags:
            raise TokenFault("the token is locked after wrong PINs: unlock it with the security officer's PIN")
        if flags.USER_PIN_FINAL_TRY in token.flags:
            raise TokenFault("one more wrong PIN locks the token, so none is tried: log in once with the vendor's tool")

    def _drop(self) -> None:
        session, self._session = self._session, None
        self._keys.clear()
        if session is not None:
            with suppress(self._errors.PKCS11Error):
                session.close()


_MODULES: dict[str, Module] = {}
_TOKENS: dict[tuple[str, str], Token] = {}
_REGISTRY = threading.Lock()


def find_token(module: str, label: str) -> Token:
    """Return this process's one `Token` of a module and a label. Raises TokenFault where python-pkcs11 is missing."""
    with _REGISTRY:
        if module not in _MODULES:
            _MODULES[module] = Module(module)
        if (module, label) not in _TOKENS:
            _TOKENS[module, label] = Token(_MODULES[module], label)
        return _TOKENS[module, label]
