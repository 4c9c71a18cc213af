"""HTTP Digest with MD5 for clients that know nothing better; what was captured serves for nothing twice (RFC 7616)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, ProfileName, Requester, Reservation
from gateway.ra.credentials.basic import UserNames, user_requester
from gateway.ra.credentials.http_schemes import read_authorization
from gateway.ra.credentials.own_names import Sans
from gateway.ra.credentials.passwords import MAX_PASSWORD, MAX_USERS, is_user_name, read_user_lines
from gateway.store.interfaces import DIGEST

NONCE_LIFETIME = timedelta(minutes=5)
"""How long after it was given out a nonce is taken."""

_SKEW = timedelta(minutes=1)
"""How far another worker's clock may be ahead."""
_KEPT_FOR = timedelta(days=1)
_TIME_BYTES, _RANDOM_BYTES, _MAC_BYTES = 8, 8, 16
_MAX_NONCE = 2 * (_TIME_BYTES + _RANDOM_BYTES + _MAC_BYTES)
_HA1 = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_PARAMETER = re.compile(r'([A-Za-z*]{1,32})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^\s",]*+))[ \t]*(?:,[ \t]*|\Z)', re.ASCII)
_MAX_PARAMETERS = 16
_MAX_HEADER = 2048
_REQUIRED = ("username", "realm", "nonce", "uri", "response", "nc", "cnonce", "qop")


def digest_ha1(user: str, realm: str, password: str) -> str:
    """Return the MD5 of `USER:REALM:PASSWORD` in hex (RFC 7616 §3.4.2); ValueError for a name or password that cannot be."""
    if not is_user_name(user) or not 0 < len(password.encode()) <= MAX_PASSWORD:
        raise ValueError(f"must have 1 to {MAX_PASSWORD} bytes, and the user a printable name without a colon")
    return _md5(f"{user}:{realm}:{password}")


def parse_digest_file(data: bytes) -> Mapping[str, str]:
    """Read lines `NAME:HEX`; ValueError, with a sentence that holds neither names nor hashes, for what cannot be used."""
    found: dict[str, str] = {}
    for number, name, text in read_user_lines(data):
        if _HA1.fullmatch(text) is None:
            raise ValueError(f"line {number} is not NAME:HEX with 32 hex digits as `pki-gateway password digest` makes it")
        if name in found:
            raise ValueError(f"line {number} names a user for the second time")
        found[name] = text.lower()
    if not 0 < len(found) <= MAX_USERS:
        raise ValueError(f"names {len(found)} users; 1 to {MAX_USERS} are possible")
    return MappingProxyType(found)


class DigestCredential:
    """Recognises users by a response that only their password makes (RFC 7616 §3.4).

    A nonce holds the time of its making and a MAC under `store.key` over it and the profile, so that every worker knows it and
    none keeps it; `macs` returns the MACs under every current key, newest first. Its count may be used for one request only,
    which the store sees to. The response covers method, nonce and URI, not the body: the URI must be this operation's.
    """

    kind = CredentialKind.DIGEST

    def __init__(
        self,
        profile: ProfileName,
        users: bytes,
        realm: str,
        names: UserNames,
        macs: Callable[[bytes], tuple[bytes, ...]],
        sans: Sans = "bound",
    ) -> None:
        """Take the file of users; raises ValueError, with a sentence, where it cannot be used."""
        self._users = parse_digest_file(users)
        if names == "user" and "" in self._users:
            raise ValueError("has a user without a name, whom no CN can equal: say names: any if that is meant")
        self._profile = profile
        self._realm = realm
        self._names = names
        self._sans = sans
        self._macs = macs

    def www_authenticate(self, now: datetime) -> str:
        """Invite to send a response to a fresh nonce (RFC 7616 §3.3).

        No algorithm means MD5; Bouncy Castle cannot read the name without quotes, which others could not read with them.
        """
        made = int(now.timestamp()).to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_RANDOM_BYTES)
        nonce = (made + self._nonce_macs(made)[0]).hex()
        return f'Digest realm="{self._realm}", qop="auth", nonce="{nonce}"'

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the user, with the reservation that uses nonce and count up.

        None without a header of this scheme; raises Rejection CREDENTIAL_INVALID for whatever else.
        """
        sent = read_authorization(request.authorization, "digest")
        if sent is None:
            return None
        fields = _read_fields(sent)
        self._check_fields(fields, request.operation)
        expires_at = self._check_nonce(fields["nonce"], now)
        known = self._users.get(fields["username"])
        expected = _response(known or "0" * 32, fields)
        if not hmac.compare_digest(expected, fields["response"].lower().encode("utf-8", "replace")) or known is None:
            raise _invalid("there is no such user" if known is None else f"the response of user {fields['username']} is wrong")
        used = hashlib.sha256(f"{fields['nonce']}:{int(fields['nc'], 16)}".encode()).hexdigest()
        taken = (Reservation(DIGEST, used, expires_at + _SKEW + _KEPT_FOR),)
        return replace(user_requester(self.kind, fields["username"], self._names, self._sans), reservations=taken)

    def _check_fields(self, fields: Mapping[str, str], operation: str) -> None:
        path = fields["uri"].partition("?")[0]
        checks = (
            (fields["realm"] == self._realm, "its realm is another"),
            (fields.get("algorithm", "MD5").upper() == "MD5", "its algorithm is not MD5"),
            (fields["qop"].lower() == "auth", "its qop is not auth"),
            (re.fullmatch(r"[0-9a-fA-F]{8}", fields["nc"]) is not None, "its nonce count is no 8 hex digits"),
            (is_user_name(fields["username"]), "its user name cannot be one"),
            ("/.well-known/est/" in path and path.rsplit("/", 1)[-1] == operation, f"its uri is not that of {operation}"),
        )
        for holds, cause in checks:
            if not holds:
                raise _invalid(f"Digest: {cause}")

    def _check_nonce(self, nonce: str, now: datetime) -> datetime:
        """Return when the nonce ends; it is ours, this profile's and not too old."""
        try:
            data = bytes.fromhex(nonce) if len(nonce) <= _MAX_NONCE else b""
        except ValueError:
            data = b""
        made, mac = data[: _TIME_BYTES + _RANDOM_BYTES], data[_TIME_BYTES + _RANDOM_BYTES :]
        if len(mac) != _MAC_BYTES or not any(hmac.compare_digest(mac, known) for known in self._nonce_macs(made)):
            raise _invalid("Digest: the nonce is not of this profile")
        given_at = datetime.fromtimestamp(int.from_bytes(made[:_TIME_BYTES], "big"), UTC)
        if not given_at - _SKEW <= now < given_at + NONCE_LIFETIME:
            raise _invalid("Digest: the nonce is too old, or from the future")
        return given_at + NONCE_LIFETIME

    def _nonce_macs(self, made: bytes) -> tuple[bytes, ...]:
        profile = self._profile.encode()
        return tuple(mac[:_MAC_BYTES] for mac in self._macs(len(profile).to_bytes(2, "big") + profile + made))


def _read_fields(sent: str) -> Mapping[str, str]:
    """Return the parameters of the header by name in lower case (RFC 9110 §11.2); each may be there once."""
    found: dict[str, str] = {}
    position = 0
    while position < len(sent) <= _MAX_HEADER:
        match = _PARAMETER.match(sent, position)
        if match is None or match[1].lower() in found or len(found) >= _MAX_PARAMETERS:
            raise _invalid("Digest: the header cannot be read")
        found[match[1].lower()] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        position = match.end()
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise _invalid(f"Digest: it lacks {missing[0]}")
    return found


def _response(ha1: str, fields: Mapping[str, str]) -> bytes:
    """Return what the response has to be (RFC 7616 §3.4.1); EST credentials come with POST alone."""
    ha2 = _md5(f"POST:{fields['uri']}")
    return _md5(f"{ha1}:{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}:{ha2}").encode("ascii")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _invalid(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_INVALID, "name or password is not valid", cause)
