"""A signed JWT in the Authorization header (RFC 6750, RFC 7519), told apart from every other kind of JWT (RFC 8725)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gateway.config import credentials as config
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, NameBinding, ProfileName, Requester
from gateway.pki.certificate import Certificate
from gateway.pki.jws import Jws, VerificationKey, parse_compact_jws, parse_json_object
from gateway.pki.names import format_name
from gateway.ra.credentials.http_schemes import read_authorization
from gateway.ra.credentials.own_names import own_names

_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
"""What `typ` may say: nothing, any JWT, or an access token (RFC 9068 §2.1); `dpop+jwt`, `logout+jwt` and their like are none."""
_FOREIGN_CLAIMS = frozenset(
    {"nonce", "at_hash", "c_hash", "events", "device_name", "san_dns", "san_rfc822", "san_upn", "san_uri", "san_ip"}
)
"""What ID tokens (OpenID Connect), security events (RFC 8417) and signed challenges hold: each was made for something else, and
signed challenges bind names and serve once, which would be lost here."""
_MAX_TEXT = 1024
_MAX_AUDIENCES = 100
_MAX_TIME = 253402300799
"""9999-12-31T23:59:59Z."""
_MAX_LIFE = timedelta(days=7)
_MAX_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Anchor:
    key: VerificationKey
    not_before: datetime
    not_after: datetime
    name: str


@dataclass(frozen=True, slots=True)
class _Claims:
    subject: str
    issued_at: datetime
    not_before: datetime | None
    expires_at: datetime


class BearerCredential:
    """Recognises tokens that an anchor's key has signed for this audience in the name of this issuer.

    Whoever has a token may use it, as often as it is good for: its life is bounded by `exp` and `max_age` both. Nothing that the
    token itself says of keys is believed.
    """

    kind = CredentialKind.BEARER

    def __init__(self, profile: ProfileName, anchors: tuple[Certificate, ...], config: config.BearerCredential) -> None:
        """Take what the configuration says; raises ValueError without anchors and for times out of bounds."""
        if not anchors:
            raise ValueError(f"the bearer tokens of profile {profile} have no anchors")
        if not timedelta(0) < config.max_age <= _MAX_LIFE or not timedelta(0) <= config.skew <= _MAX_SKEW:
            raise ValueError(f"the bearer tokens of profile {profile} live too long, or not at all")
        self._anchors = tuple(
            _Anchor(VerificationKey.load(a.public_key.der), a.not_before, a.not_after, format_name(a.subject)) for a in anchors
        )
        self._config = config

    def www_authenticate(self, now: datetime) -> str:
        """Invite to send a token (RFC 6750 §3)."""
        return 'Bearer realm="pki-gateway"'

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return whom the token was made for.

        None without a header of this scheme. Raises Rejection CREDENTIAL_INVALID for a token that is not of this issuer, which
        another credential may know, and CREDENTIAL_EXPIRED, CREDENTIAL_NOT_YET_VALID, CREDENTIAL_AUDIENCE or
        CREDENTIAL_MALFORMED for one that is.
        """
        sent = read_authorization(request.authorization, "bearer")
        if sent is None:
            return None
        claims = self._read(self._verified(sent, now))
        self._check_time(claims, now)
        return self._requester(claims)

    def _verified(self, token: str, now: datetime) -> Mapping[str, Any]:
        """Return the claims once the signature is verified; unsigned they are not looked at."""
        try:
            jws = parse_compact_jws(token)
            kind = _token_type(token.partition(".")[0])
        except Rejection as error:
            raise _invalid(error.cause) from None
        self._check_signature(jws, now)
        if kind not in _TYPES:
            raise _malformed("its typ is that of another kind of token")
        try:
            return parse_json_object(jws.payload)
        except MalformedMessage as error:
            raise _malformed(error.cause) from None

    def _check_signature(self, jws: Jws, now: datetime) -> None:
        outdated = ""
        for anchor in self._anchors:
            if not anchor.key.verifies(jws):
                continue
            if anchor.not_before <= now <= anchor.not_after:
                return
            outdated = anchor.name
        raise _invalid(f"{outdated}, which signed it, is not valid at this time" if outdated else "no anchor has signed it")

    def _read(self, payload: Mapping[str, Any]) -> _Claims:
        if payload.get("iss") != self._config.issuer:
            raise _invalid("its iss is another")
        foreign = sorted(_FOREIGN_CLAIMS & payload.keys())
        if foreign:
            raise _malformed(f"it is another kind of token: it has {foreign[0]}")
        if self._config.audience not in _audiences(payload):
            raise Rejection(Reason.CREDENTIAL_AUDIENCE, "the token is for another server", "its aud is another")
        not_before = _time("nbf", payload) if "nbf" in payload else None
        return _Claims(_subject(payload), _time("iat", payload), not_before, _time("exp", payload))

    def _check_time(self, claims: _Claims, now: datetime) -> None:
        skew = self._config.skew
        if now + skew < max(claims.issued_at, claims.not_before or claims.issued_at):
            raise Rejection(Reason.CREDENTIAL_NOT_YET_VALID, "the token is not yet valid", f"the token of {claims.subject}")
        if now - skew >= claims.expires_at:
            raise _expired(f"the token of {claims.subject} expired at {claims.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        if now - skew - self._config.max_age >= claims.issued_at:
            raise _expired(f"the token of {claims.subject} was issued too long ago, at {claims.issued_at:%Y-%m-%dT%H:%M:%SZ}")

    def _requester(self, claims: _Claims) -> Requester:
        issuer = self._config.issuer
        named = hashlib.sha256(f"{len(issuer)}:{issuer}{claims.subject}".encode()).hexdigest()[:32]
        own = self._config.names == "subject"
        return Requester(
            identity=f"{self.kind}:{named}",
            kind=self.kind,
            binding=own_names(claims.subject, self._config.sans) if own else NameBinding(),
            owner=claims.subject,
            device=named if own else None,
            claims=MappingProxyType({"subject": claims.subject, "issuer": issuer}),
        )


@lru_cache(maxsize=64)
def _token_type(segment: str) -> str:
    """Return `typ` of a header that `parse_compact_jws` has read, lower case; empty where there is none (RFC 8725 §3.11)."""
    bare = segment.rstrip("=")
    try:
        header = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise _malformed("its header is not base64url") from None
    kind = parse_json_object(header).get("typ", "")
    if not isinstance(kind, str):
        raise _malformed("its typ is no text")
    return kind.lower()


def _subject(payload: Mapping[str, Any]) -> str:
    """Return `sub`, which is stored, logged and compared: honest text."""
    value = payload.get("sub")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise _malformed(f"sub is no printable text of 1 to {_MAX_TEXT} characters")
    return value


def _audiences(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `aud`, one string or a list of them (RFC 7519 §4.1.3)."""
    value = payload.get("aud")
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > _MAX_AUDIENCES or not all(isinstance(one, str) for one in found):
        raise _malformed("aud is neither text nor a list of texts")
    return tuple(found)


def _time(name: str, payload: Mapping[str, Any]) -> datetime:
    """Return a NumericDate (RFC 7519 §2), which may have a fraction; bool is an int to Python, and no time."""
    value = payload.get(name)
    if type(value) not in {int, float} or not 0 < value <= _MAX_TIME:  # type: ignore[operator]
        raise _malformed(f"{name} is no number of seconds")
    return datetime.fromtimestamp(int(value), UTC)  # type: ignore[arg-type]


def _invalid(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_INVALID, "the token is not valid", cause)


def _malformed(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_MALFORMED, "the token is malformed", cause)


def _expired(cause: str) -> Rejection:
    return Rejection(Reason.CREDENTIAL_EXPIRED, "the token has expired", cause)
