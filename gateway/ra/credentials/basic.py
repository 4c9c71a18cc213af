"""Name and password in the Authorization header (HTTP Basic, RFC 7617; RFC 7030 §3.2.3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Literal

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, Requester
from gateway.ra.credentials.http_schemes import read_authorization
from gateway.ra.credentials.interfaces import Derive
from gateway.ra.credentials.own_names import Sans, own_names
from gateway.ra.credentials.passwords import MAX_PASSWORD, PasswordHash, is_user_name, parse_password_file
from gateway.ra.credentials.remembered import Remembered

UserNames = Literal["user", "any"]

_MAX_TOKEN = 2048
_CONTROL = frozenset({*range(0x20), 0x7F})


class BasicCredential:
    """Recognises users by their password.

    An unknown user costs the time of a known one with a wrong password. With `names` "user" the CN must be the user's name, and
    with `sans` "bound" so must every alternative name. What was good is remembered with the hash that it was good for, here and
    thus for one generation: a password that was changed or taken away is worth nothing from the reload on.
    """

    kind = CredentialKind.BASIC

    def __init__(self, users: bytes, realm: str, names: UserNames, derive: Derive, sans: Sans = "bound") -> None:
        """Take the password file; raises ValueError, with a sentence, where it cannot be used."""
        self._users = parse_password_file(users)
        if names == "user" and "" in self._users:
            raise ValueError("has a user without a name, whom no CN can equal: say names: any if that is meant")
        self._realm = realm
        self._names = names
        self._sans = sans
        self._derive = derive
        self._remembered = Remembered()
        self._stand_ins = tuple(PasswordHash(user.parameters, b"") for user in self._users.values())
        self._stand_in_key = hashlib.sha256(users).digest()

    def www_authenticate(self, now: datetime) -> str:
        """Invite to send name and password (RFC 7617 §2)."""
        return f'Basic realm="{self._realm}", charset="UTF-8"'

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the user.

        None without a header of this scheme. Raises Rejection CREDENTIAL_INVALID for whatever is not a user with his password,
        RATE_LIMITED when too many passwords are being checked.
        """
        sent = read_authorization(request.authorization, "basic")
        if sent is None:
            return None
        user, password = _decode(sent)
        known = self._users.get(user)
        if not await self._is_good(known or self._stand_in(user), user, password, request.source, now):
            raise _invalid("there is no such user" if known is None else f"the password of user {user} is another")
        return self._requester(user)

    async def _is_good(self, expected: PasswordHash, user: str, password: bytes, source: str, now: datetime) -> bool:
        proof = (user.encode(), expected.parameters.salt, expected.derived, password)
        if self._remembered.knows(now, *proof):
            return True
        derived = await self._derive(password, expected.parameters, source)
        if not hmac.compare_digest(derived, expected.derived):
            return False
        self._remembered.remember(now, *proof)
        return True

    def _stand_in(self, user: str) -> PasswordHash:
        """Return costs for an unknown user as some known one has them, the same in every process; no password derives to it.

        Were they the dearest, say, a user with a cheap hash could be told from one who does not exist.
        """
        number = int.from_bytes(hmac.digest(self._stand_in_key, user.encode(), "sha256"))
        return self._stand_ins[number % len(self._stand_ins)]

    def _requester(self, user: str) -> Requester:
        return user_requester(self.kind, user, self._names, self._sans)


def user_requester(kind: CredentialKind, user: str, names: UserNames, sans: Sans) -> Requester:
    """Return a user as requester; one who speaks for himself is one device, however he varies the rest of his subject."""
    if names == "any":
        return Requester(identity=f"{kind}:{user}", kind=kind, owner=user or None)
    device = hashlib.sha256(f"user:{user}".encode()).hexdigest()[:32]
    return Requester(f"{kind}:{user}", kind, own_names(user, sans), owner=user, device=device)


def _decode(sent: str) -> tuple[str, bytes]:
    """Return name and password of `user:password` in base64; the password stays bytes (RFC 7617 §2)."""
    try:
        if len(sent) > _MAX_TOKEN:
            raise _invalid("the Basic credentials are too long")
        name, colon, password = base64.b64decode(sent, validate=True).partition(b":")
        user = name.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise _invalid("the Basic credentials are not base64 of UTF-8") from None
    if not colon or not is_user_name(user) or not 0 < len(password) <= MAX_PASSWORD or not _CONTROL.isdisjoint(password):
        raise _invalid("the Basic credentials are not NAME:PASSWORD")
    return user, password


def _invalid(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_INVALID, "name or password is not valid", cause)
