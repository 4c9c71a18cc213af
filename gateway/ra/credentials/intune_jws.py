"""Challenges that are signed JWTs and name their device: the format that docs/intune.md describes (RFC 7515, RFC 7519)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.config import credentials
from gateway.config.duration_checks import MAX_AGE, MAX_SKEW
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import (
    Allowance,
    CredentialKind,
    EnrollmentRequest,
    NameBinding,
    ProfileName,
    Requester,
    Reservation,
    SanKind,
)
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.extensions import SID_PREFIX
from gateway.pki.jws import Jws, VerificationKey, parse_compact_jws, parse_json_object
from gateway.pki.names import format_name

RESERVATION_KIND = "intune_jws"
MIN_CHALLENGE = 200
"""A signed challenge is longer than this many characters, and has exactly two dots."""
MAX_ANCHORS = 32
"""Every one of the right kind is tried in turn."""

_MAX_TEXT = 1024
_MAX_NAMES = 100
_MAX_TIME = 253402300799
"""9999-12-31T23:59:59Z."""
_KEPT_FOR = timedelta(days=1)
_LAST_END = datetime.max.replace(tzinfo=UTC) - MAX_SKEW - _KEPT_FOR
_SAN_CLAIMS: Mapping[str, frozenset[SanKind]] = MappingProxyType(
    {
        "san_dns": frozenset({SanKind.DNS}),
        "san_rfc822": frozenset({SanKind.EMAIL}),
        "san_upn": frozenset({SanKind.UPN}),
        "san_uri": frozenset({SanKind.URI, SanKind.SID}),
        "san_ip": frozenset({SanKind.IP}),
    }
)
"""Claim to the kinds of names that it speaks for; a SID is a URI with a meaning (KB5014754)."""


class ChallengeRefused(Rejection):
    """A signed challenge was looked at and is not good."""


def is_signed_challenge(challenge: str) -> bool:
    """Say whether a challenge has the looks of a signed one."""
    return len(challenge) > MIN_CHALLENGE and challenge.count(".") == 2


def parse_challenge_anchors(pem: bytes) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM bundle whose keys sign challenges; blocks that are no certificates are passed over.

    ValueError, with a sentence, when there is none, there are too many, or one cannot check a challenge. Their validity is
    looked at when a challenge comes.
    """
    ders = tuple(dict.fromkeys(pem_to_ders(pem)))
    if len(ders) > MAX_ANCHORS:
        raise ValueError(f"{len(ders)} certificates are too many; at most {MAX_ANCHORS}")
    return tuple(_parse_anchor(der) for der in ders)


def _parse_anchor(der: bytes) -> Certificate:
    try:
        certificate = parse_certificate(der)
    except MalformedMessage as error:
        raise ValueError(f"not a certificate: {error.cause}") from None
    name = format_name(certificate.subject)
    try:
        VerificationKey.load(certificate.public_key.der)
    except ValueError as error:
        raise ValueError(f"the certificate {name} cannot check challenges: {error}") from None
    if certificate.key_usage is not None and not certificate.key_usage & {"digitalSignature", "nonRepudiation"}:
        raise ValueError(f"the certificate {name} may not sign challenges: its key usage lacks digitalSignature")
    return certificate


@dataclass(frozen=True, slots=True)
class _Anchor:
    key: VerificationKey
    not_before: datetime
    not_after: datetime
    name: str


@dataclass(frozen=True, slots=True)
class _Claims:
    """The claims of one challenge, each of the right type; None and empty where absent."""

    issuer: str
    subject: str
    nonce: str
    issued_at: datetime | None
    not_before: datetime | None
    expires_at: datetime | None
    audiences: tuple[str, ...]
    common_name: str | None
    sans: Mapping[str, tuple[str, ...]]
    payload_sha256: bytes

    @property
    def told(self) -> str:
        """Name device and issuer, for log and audit."""
        return f"device {self.subject or 'without a name'} of issuer {self.issuer or 'without a name'}"


class IntuneJwsCredential:
    """Recognises challenges that an anchor's key has signed, and binds the request to the names in them.

    `exclusive` says that the profile takes no other challenge. Keys are loaded once; nothing is remembered here: what was used
    is known to the store alone.
    """

    kind = CredentialKind.INTUNE_JWS

    def __init__(
        self,
        profile: ProfileName,
        anchors: tuple[Certificate, ...],
        config: credentials.IntuneJwsCredential,
        *,
        exclusive: bool,
    ) -> None:
        """Take what the configuration says; raises ValueError without anchors and for times out of bounds."""
        if not anchors:
            raise ValueError(f"the signed challenges of profile {profile} have no anchors")
        if not timedelta(0) < config.max_age <= MAX_AGE or config.skew > MAX_SKEW:
            raise ValueError(f"the signed challenges of profile {profile} live too long, or not at all")
        self._profile = profile
        self._anchors = tuple(
            _Anchor(VerificationKey.load(a.public_key.der), a.not_before, a.not_after, format_name(a.subject)) for a in anchors
        )
        self._config = config
        self._required = frozenset(config.required_claims) - (frozenset() if config.audience else {"aud"})
        self._exclusive = exclusive
        # What has to be remembered: a full memory refuses, it does not forget.
        self._memory = Allowance(f"intune_jws:{profile}", config.replay_capacity, config.max_age + 2 * config.skew)

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the device that the challenge names, with the reservation and the allowances that its use takes.

        None without a challenge, and for one that looks otherwise where the profile has other kinds. Raises ChallengeRefused
        CREDENTIAL_MALFORMED, CREDENTIAL_SIGNATURE, CREDENTIAL_VERSION, CREDENTIAL_NOT_YET_VALID, CREDENTIAL_EXPIRED or
        CREDENTIAL_AUDIENCE. One that was used is good here: the store knows by which request.
        """
        challenge = request.challenge
        if not challenge:
            return None
        if not is_signed_challenge(challenge):
            if not self._exclusive:
                return None
            raise _malformed("it is no signed challenge, and this profile takes no other")
        claims = self._verified_claims(challenge, now)
        self._check_time(claims, now)
        self._check_audience(claims)
        self._check_age(claims, now)
        return self._requester(claims, now)

    def _verified_claims(self, challenge: str, now: datetime) -> _Claims:
        """Verify the signature, and only then look at the claims."""
        try:
            jws = parse_compact_jws(challenge)
        except MalformedMessage as error:
            raise _malformed(error.cause) from None
        except Rejection as error:
            raise _unsigned(error.cause) from None
        self._check_signature(jws, now)
        try:
            payload = parse_json_object(jws.payload)
        except MalformedMessage as error:
            raise _malformed(error.cause) from None
        return _read_claims(payload, self._required, hashlib.sha256(jws.payload).digest())

    def _check_signature(self, jws: Jws, now: datetime) -> None:
        """Try every anchor; one that is out of its validity now signs nothing, whenever it was loaded."""
        outdated = []
        for anchor in self._anchors:
            if not anchor.key.verifies(jws):
                continue
            if anchor.not_before <= now <= anchor.not_after:
                return
            outdated.append(anchor.name)
        if outdated:
            raise _unsigned(f"the anchor that signed it is not valid at this time: {outdated[0]}")
        raise _unsigned("no anchor has signed it")

    def _check_time(self, claims: _Claims, now: datetime) -> None:
        skew = self._config.skew
        begins = max(filter(None, (claims.issued_at, claims.not_before)), default=None)
        if begins is not None and now + skew < begins:
            cause = f"it is good from {begins:%Y-%m-%dT%H:%M:%SZ}; {claims.told}"
            raise ChallengeRefused(Reason.CREDENTIAL_NOT_YET_VALID, "the challenge is not yet valid", cause)
        if claims.expires_at is not None and now - skew >= claims.expires_at:
            raise _expired(f"it expired at {claims.expires_at:%Y-%m-%dT%H:%M:%SZ}; {claims.told}")

    def _check_audience(self, claims: _Claims) -> None:
        wanted = self._config.audience
        if wanted is not None and claims.audiences and wanted not in claims.audiences:
            raise ChallengeRefused(
                Reason.CREDENTIAL_AUDIENCE, "the challenge is for another server", f"its aud is not {wanted}; {claims.told}"
            )

    def _check_age(self, claims: _Claims, now: datetime) -> None:
        """Bound the life of a challenge by its `iat`, whatever `exp` its issuer wrote."""
        if claims.issued_at is not None and now - self._config.skew >= claims.issued_at + self._config.max_age:
            raise _expired(f"it was issued at {claims.issued_at:%Y-%m-%dT%H:%M:%SZ}, too long ago; {claims.told}")

    def _requester(self, claims: _Claims, now: datetime) -> Requester:
        used = _digest("nonce", claims.issuer, claims.nonce) if claims.nonce else _digest("payload", claims.payload_sha256.hex())
        device = _digest("device", claims.issuer, claims.subject) if claims.subject else None
        sans = frozenset(_san(name, value) for name, values in claims.sans.items() for value in values)
        return Requester(
            identity=f"intune_jws:{used[:32]}",
            kind=self.kind,
            binding=self._binding(claims, sans),
            owner=claims.subject or None,
            # Only what the signature covers: names of the CSR that no claim speaks for vouch for nothing.
            vouches_for_sid=any(kind is SanKind.SID for kind, _ in sans),
            reservations=(Reservation(RESERVATION_KIND, used, _forgotten_at(claims, now)),),
            allowances=self._allowances(device),
            device=device,
            claims=MappingProxyType({"device": claims.subject, "issuer": claims.issuer}),
        )

    def _binding(self, claims: _Claims, sans: frozenset[tuple[SanKind, str]]) -> NameBinding:
        if self._config.absent_claims == "none":
            return NameBinding(sans=sans, common_name=claims.common_name or "")
        kinds: frozenset[SanKind] = frozenset().union(*(_SAN_CLAIMS[name] for name in claims.sans))
        return NameBinding(sans=sans, common_name=claims.common_name, san_kinds=kinds)

    def _allowances(self, device: str | None) -> tuple[Allowance, ...]:
        """Count what the device gets, and what has to be remembered."""
        per_device = self._config.per_device
        if per_device is None or device is None:
            return (self._memory,)
        return Allowance(f"{self._memory.key}:{device[:32]}", per_device.count, per_device.window), self._memory


def _forgotten_at(claims: _Claims, now: datetime) -> datetime:
    """Return when a used challenge need not be remembered any more, in whichever profile it may be presented.

    Reservations are shared by all profiles, whose own `max_age` and `skew` may be longer than this one's.
    """
    ends = [claims.expires_at] if claims.expires_at else []
    if claims.issued_at:
        ends.append(claims.issued_at + MAX_AGE)
    last = min(ends, default=now + MAX_AGE)
    return min(last, _LAST_END) + MAX_SKEW + _KEPT_FOR


def _digest(*parts: str) -> str:
    """Return SHA-256 in hex of parts that cannot run together."""
    encoded = b""
    for part in parts:
        data = part.encode()
        encoded += len(data).to_bytes(4, "big") + data
    return hashlib.sha256(encoded).hexdigest()


def _san(claim: str, value: str) -> tuple[SanKind, str]:
    """Return one name of a claim as a CSR's is read: the SID tag, in any case, is a SID and no URI."""
    if claim != "san_uri":
        [kind] = _SAN_CLAIMS[claim]
        return kind, value
    if value[: len(SID_PREFIX)].lower() == SID_PREFIX:
        return SanKind.SID, value[len(SID_PREFIX) :]
    return SanKind.URI, value


# Claims


def _read_claims(payload: Mapping[str, Any], required: frozenset[str], payload_sha256: bytes) -> _Claims:
    """Dispatch on `version`, which says what the other claims mean."""
    version = payload.get("version", "")
    if not isinstance(version, str):
        raise _malformed("version is no string")
    if version not in {"", "v1"}:
        raise ChallengeRefused(
            Reason.CREDENTIAL_VERSION, "the challenge is of a version that is not known here", "version is neither absent nor v1"
        )
    return _read_v1(payload, required, payload_sha256)


def _read_v1(payload: Mapping[str, Any], required: frozenset[str], payload_sha256: bytes) -> _Claims:
    missing = sorted(required - payload.keys())
    if missing:
        raise _malformed(f"it lacks {', '.join(missing)}")
    common_name = payload.get("device_name", None)
    if "device_name" in payload and common_name != "":
        common_name = _text("device_name", common_name)
    return _Claims(
        issuer=_text("iss", payload["iss"]) if "iss" in payload else "",
        subject=_text("sub", payload["sub"]) if "sub" in payload else "",
        nonce=_text("nonce", payload["nonce"]) if "nonce" in payload else "",
        issued_at=_time("iat", payload),
        not_before=_time("nbf", payload),
        expires_at=_time("exp", payload),
        audiences=_audiences(payload),
        common_name=common_name,
        sans={name: _texts(name, payload[name]) for name in _SAN_CLAIMS if name in payload},
        payload_sha256=payload_sha256,
    )


def _text(name: str, value: object) -> str:
    """Return a claim that is stored, logged or compared: honest text, and so no lone surrogate that nothing can write."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise _malformed(f"{name} is no printable text of 1 to {_MAX_TEXT} characters")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_NAMES:
        raise _malformed(f"{name} is no list of at most {_MAX_NAMES} strings")
    return tuple(_text(name, one) for one in value)


def _audiences(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `aud`, one string or a list of them (RFC 7519 §4.1.3)."""
    if "aud" not in payload:
        return ()
    value = payload["aud"]
    found = (_text("aud", value),) if isinstance(value, str) else _texts("aud", value)
    if not found:
        raise _malformed("aud is an empty list")
    return found


def _time(name: str, payload: Mapping[str, Any]) -> datetime | None:
    """Return a NumericDate in whole seconds (RFC 7519 §2); bool is an int to Python, and no time."""
    if name not in payload:
        return None
    value = payload[name]
    if type(value) is not int or not 0 < value <= _MAX_TIME:
        raise _malformed(f"{name} is no whole number of seconds")
    return datetime.fromtimestamp(value, UTC)


def _malformed(cause: str) -> ChallengeRefused:
    return ChallengeRefused(Reason.CREDENTIAL_MALFORMED, "the challenge is malformed", cause)


def _unsigned(cause: str) -> ChallengeRefused:
    return ChallengeRefused(Reason.CREDENTIAL_SIGNATURE, "the challenge is not signed by a trusted issuer", cause)


def _expired(cause: str) -> ChallengeRefused:
    return ChallengeRefused(Reason.CREDENTIAL_EXPIRED, "the challenge has expired", cause)
