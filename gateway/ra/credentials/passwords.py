"""Passwords, kept as scrypt hashes and verified away from the event loop, a few at a time (RFC 7914)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from gateway.errors import Reason, Rejection
from gateway.ra.credentials.interfaces import ScryptParameters
from gateway.ra.strangers import source_network

MAX_USERS = 10000
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_USER = 128
"""Longest user name, in characters."""
MAX_PASSWORD = 1024
"""Longest password, in bytes."""
HASH_BYTES = 32

_DEFAULT_LN = 14
_MAX_LN = 17
_MAX_COST = 1 << 20
"""Of n * r: 128 MB of memory for one derivation."""
_SALT_BYTES = 16
_QUEUE = 8
"""Derivations that may wait, for each that runs; each takes some 50 ms."""
_OF_ONE_SOURCE = 2
"""Derivations of one source, waiting or running: whoever guesses shall not turn others away."""

_HASH = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{11,86})={0,2}\$([A-Za-z0-9+/]{43})=?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password."""

    parameters: ScryptParameters
    derived: bytes = field(repr=False)


def hash_password(password: bytes) -> str:
    """Return a line's hash of a new password, under a fresh salt; ValueError for none and for more than 1024 bytes."""
    if not 0 < len(password) <= MAX_PASSWORD:
        raise ValueError(f"must have 1 to {MAX_PASSWORD} bytes")
    parameters = ScryptParameters(secrets.token_bytes(_SALT_BYTES), 1 << _DEFAULT_LN)
    costs = f"ln={_DEFAULT_LN},r={parameters.r},p={parameters.p}"
    return f"$scrypt${costs}${_unpadded(parameters.salt)}${_unpadded(derive(password, parameters))}"


def parse_password_hash(text: str) -> PasswordHash:
    """Read `$scrypt$ln=14,r=8,p=1$SALT$HASH`, base64 with or without padding; ValueError, without the text, when it is none."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("is no scrypt hash as `pki-gateway password hash` makes it")
    ln, r, p = (int(match[i]) for i in (1, 2, 3))
    if not (_DEFAULT_LN <= ln <= _MAX_LN and r >= 1 and 1 <= p <= 4 and (1 << ln) * r <= _MAX_COST):
        raise ValueError(f"has costs out of bounds: ln is {_DEFAULT_LN} to {_MAX_LN}, p 1 to 4, and 2^ln * r at most 2^20")
    salt, derived = _padded(match[4]), _padded(match[5])
    return PasswordHash(ScryptParameters(salt, 1 << ln, r, p), derived)


def parse_password_file(data: bytes) -> Mapping[str, PasswordHash]:
    """Read lines `NAME:HASH`; ValueError, with a sentence that holds neither names nor hashes, for what cannot be used."""
    found: dict[str, PasswordHash] = {}
    for number, name, text in read_user_lines(data):
        try:
            parsed = parse_password_hash(text)
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from None
        if name in found:
            raise ValueError(f"line {number} names a user for the second time")
        found[name] = parsed
    if not 0 < len(found) <= MAX_USERS:
        raise ValueError(f"names {len(found)} users; 1 to {MAX_USERS} are possible")
    return MappingProxyType(found)


def read_user_lines(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Yield number, name and the rest of every line `NAME:REST`; empty lines and those that begin with # are passed over."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if len(lines) > 2 * MAX_USERS:
        raise ValueError(f"has more than {2 * MAX_USERS} lines")
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon or not is_user_name(name):
            raise ValueError(f"line {number} is not NAME:HASH with a printable name of at most {MAX_USER} characters")
        yield number, name, rest


def is_user_name(name: str) -> bool:
    """Say whether a name can be a user's: printable, no colon; it may be empty (RFC 7030 §3.2.3)."""
    return len(name) <= MAX_USER and name.isprintable() and ":" not in name


def derive(secret: bytes, parameters: ScryptParameters) -> bytes:
    """Return 32 bytes by scrypt, here and now: some 50 ms of one core; OpenSSL runs it without the GIL."""
    memory = 128 * parameters.r * (parameters.n + parameters.p + 2)
    return hashlib.scrypt(
        secret,
        salt=parameters.salt,
        n=parameters.n,
        r=parameters.r,
        p=parameters.p,
        maxmem=memory + 1024 * 1024,
        dklen=HASH_BYTES,
    )


class ScryptPool:
    """Derives keys from passwords on threads of its own: `places` at once, a few wait, the rest is told to come again.

    One instance serves a process, whatever generation is in force: a reload must not double what passwords may cost.
    """

    def __init__(self, places: int) -> None:
        self._places = max(1, places)
        self._threads = ThreadPoolExecutor(max_workers=self._places, thread_name_prefix="scrypt")
        self._taken: Counter[str] = Counter()

    async def __call__(self, secret: bytes, parameters: ScryptParameters, source: str) -> bytes:
        """Return 32 bytes; raises Rejection RATE_LIMITED when too many derivations wait, of all or of this address.

        A place is free again when its derivation has ended, not when its client has gone.
        """
        network = source_network(source)
        taken, own = self._taken.total(), self._taken[network]
        if taken >= self._places * (1 + _QUEUE) or own >= _OF_ONE_SOURCE:
            text = "too many passwords are being checked: try again later"
            raise Rejection(Reason.RATE_LIMITED, text, f"{taken} passwords are being checked, {own} from {network}")
        work = asyncio.get_running_loop().run_in_executor(self._threads, derive, secret, parameters)
        self._taken[network] += 1
        work.add_done_callback(partial(self._give_back, network))
        return await asyncio.shield(work)

    def _give_back(self, network: str, done: asyncio.Future[bytes]) -> None:
        self._taken[network] -= 1
        if not self._taken[network]:
            del self._taken[network]
        if not done.cancelled():
            done.exception()

    def close(self) -> None:
        """Let what runs end, and start nothing that waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _padded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("holds broken base64") from None
