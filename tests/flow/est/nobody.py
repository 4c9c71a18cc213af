"""Profiles of every kind of credential, and for each the proofs that serve and those that almost do, all in the test's hands."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import PrivateKey
from gateway.pki.names import format_name
from gateway.ra.credentials.digest import digest_ha1
from gateway.wire.est import messages
from gateway.wire.est.client import basic_authorization
from tests.flow.est.fleet import EstFleet, Holder, Settings, Wanted, granted
from tests.flow.scep.fleet import challenge_file, static
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.golden_challenges import base64url, claims, issuer_key, sign_challenge

ANCHORS = "token-anchors.pem"
PASSWORD = "correct horse battery staple"
RENEWAL = {"messages": ["simplereenroll"]}
MAKER = {"type": "tls_certificate", "anchors": "ca/makers.pem", "crls": "ca/makers.crl", "names": "any"}
KEYGEN = {"keys": ["ec-p256"]}
PAIRS = ("cmc-signer", "keygen-signer", "mtls")
"""The gateway's own pairs that could pass for a TLS client's, or an RA's, by their extended key usage."""


def audience(profile: str) -> str:
    return f"https://pki.example/est/{profile}"


def basic(profile: str) -> dict[str, Any]:
    return {"type": "basic", "users": {"file": f"secrets/{profile}-users"}, "names": "any"}


def bearer(profile: str) -> dict[str, Any]:
    return {"type": "bearer", "anchors": ANCHORS, "issuer": "mdm", "audience": audience(profile), "names": "any"}


def digest(profile: str) -> dict[str, Any]:
    return {"type": "digest_md5_legacy", "users": {"file": f"secrets/{profile}-digests"}, "names": "any"}


def signed(profile: str) -> dict[str, Any]:
    return {"type": "intune_jws", "anchors": ANCHORS, "audience": audience(profile), "per_device": None}


PROFILES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "static": {"credentials": [static("static")], "scep": True},
        "one-time": {"credentials": [{"type": "one_time"}], "scep": True},
        "signed": {"credentials": [signed("signed")], "scep": True},
        "basic": {"credentials": [basic("basic")]},
        "digest": {"credentials": [digest("digest")]},
        "bearer": {"credentials": [bearer("bearer")]},
        "maker": {"credentials": [MAKER]},
        "other-maker": {"credentials": [{"type": "tls_certificate", "anchors": "ca/others.pem", "names": "any"}]},
        "ra": {
            "credentials": [
                {
                    "type": "ra_certificate",
                    "anchors": "ca/ras.pem",
                    "crls": "ca/ras.crl",
                    "subjects": ["CN=ra-1", *(f"CN={name}" for name in PAIRS)],
                }
            ]
        },
        "both": {"credentials": [{"type": "all_of", "of": [MAKER, basic("both")]}]},
        "token-and-code": {"credentials": [{"type": "all_of", "of": [bearer("token-and-code"), {"type": "one_time"}]}]},
        "renewing": {"credentials": [basic("renewing")], "renewal": {"from": ["renewing"], "grace": "365d"} | RENEWAL},
        "heir": {"renewal": {"from": ["renewing"]} | RENEWAL},
        "by-scep": {
            "credentials": [static("by-scep")],
            "scep": True,
            "renewal": {"from": ["by-scep"], "messages": ["RenewalReq", "PKCSReq"]},
        },
        "migrating": {
            "credentials": [static("migrating")],
            "renewal": {"from": ["migrating"], "anchors": {"certificates": "ca/migrants.pem", "crls": "ca/migrants.crl"}}
            | RENEWAL,
        },
        "manual": {"credentials": [basic("manual")], "approval": "manual"},
        "linked": {"credentials": [basic("linked")], "est": {"pop_linking": "require"}},
        "lenient": {"credentials": [basic("lenient")], "policy": {"subject": {"mode": "warn"}}, "est": {"pop_linking": "off"}},
    }
)
"""Profiles by name; what authenticates here and how. Every anchor is spread as wide as an operator could: own CAs too."""

ALSO_RIGHT: Mapping[str, frozenset[str]] = MappingProxyType({"maker": frozenset({"right proof of both", "RA of a maker"})})
"""What serves at a profile though it was made for another: the maker's certificate is in it."""

OFFERED: Mapping[str, Settings] = MappingProxyType(
    {name: {} if name == "manual" else {"server_keygen": KEYGEN} for name in PROFILES}
)
"""Settings of every EST endpoint beside its CMC signer: a key is handed out at once or not at all."""


@dataclass(frozen=True)
class Proof:
    """What one request brings to prove who is asking; the CSR asks for the holder's own names where there is a holder."""

    name: str
    holder: Holder | None = field(default=None, repr=False)
    authorization: Callable[[NobodyFleet, str, str], Awaitable[str]] | str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    otp: str | None = field(default=None, repr=False)
    linked: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    subject: str = ""

    def wanted(self, link: str | None = None) -> Wanted:
        subject = self.subject or (subject_of(self.holder) if self.holder else "CN=device-1")
        return Wanted(subject, password=self.password, otp=self.otp, link=link)


def subject_of(holder: Holder) -> str:
    return format_name(parse_certificate(holder.certificate).subject)


@dataclass
class NobodyFleet:
    """The service and everybody who may come."""

    est: EstFleet
    cas: dict[str, OtherCA] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    """One-time challenges by what is wrong with them."""
    used_digests: dict[str, str] = field(default_factory=dict)
    """Responses of HTTP Digest that have enrolled somebody, by operation."""

    def secret(self, profile: str) -> str:
        return (self.est.folder / challenge_file(profile)).read_text()

    async def try_proof(self, profile: str, operation: str, proof: Proof) -> RawAnswer:
        """Send one request with this proof and a key of its own."""
        headers = dict(proof.headers)
        if callable(proof.authorization):
            headers["Authorization"] = await proof.authorization(self, profile, operation)
        elif proof.authorization is not None:
            headers["Authorization"] = proof.authorization
        link = None
        if proof.linked:
            await self.est.send(proof.holder, profile, operation, proof.wanted())
            link = self.est.connections[proof.holder.name if proof.holder else ""].binding
        return await self.est.send(proof.holder, profile, operation, proof.wanted(link), headers)

    async def gets(self, profile: str, operation: str, proof: Proof) -> bool:
        """Whether this proof gets a certificate, a key or the promise of one."""
        return granted(operation, await self.try_proof(profile, operation, proof)) is not None

    # what serves

    async def right(self, profile: str) -> Proof | None:
        """Return a proof that enrolls at this profile, good for one request; None where there is none."""
        name = f"right proof of {profile}"
        match profile:
            case "static" | "by-scep" | "migrating":
                return Proof(name, password=self.secret(profile))
            case "one-time":
                return Proof(name, password=await self.est.service.new_challenge(profile))
            case "signed":
                return Proof(name, password=self.challenge(profile), subject="CN=device-1")
            case "basic" | "manual" | "lenient" | "renewing":
                return Proof(name, authorization=self.user(profile))
            case "linked":
                return Proof(name, authorization=self.user(profile), linked=True)
            case "digest":
                return Proof(name, authorization=digest_response)
            case "bearer":
                return Proof(name, authorization=self.token(profile))
            case "maker" | "other-maker" | "ra":
                return Proof(name, holder=self.holders[profile])
            case "both":
                return Proof(name, holder=self.holders["maker"], authorization=self.user(profile))
            case "token-and-code":
                code = await self.est.service.new_challenge(profile)
                return Proof(name, authorization=self.token(profile), otp=code)
            case _:
                return None

    def user(self, profile: str, password: str = PASSWORD, name: str | None = None) -> str:
        return basic_authorization(name or f"user-of-{profile}", password)

    def token(self, profile: str, key: PrivateKey | None = None, **changes: Any) -> str:
        now = int(self.est.service.clock().timestamp())
        payload = {"iss": "mdm", "sub": "device-1", "aud": audience(profile), "iat": now, "exp": now + 3000} | changes
        return "Bearer " + sign_challenge(key or issuer_key("ec"), {k: v for k, v in payload.items() if v is not None})

    def challenge(self, profile: str, key: PrivateKey | None = None, **changes: Any) -> str:
        """Return a signed challenge for the device."""
        now = int(self.est.service.clock().timestamp())
        names = {"device_name": "device-1", "san_dns": None, "san_rfc822": None, "nonce": secrets.token_hex(16)}
        times = {"aud": audience(profile), "iat": now, "exp": now + 3000}
        return sign_challenge(key or issuer_key("ec"), claims(**{**names, **times, **changes}))

    # what does not

    async def bad(self, profile: str) -> list[Proof]:
        """Return every proof that must not enroll at this profile: other profiles' right ones, near misses, certificates."""
        found = [Proof("nothing")]
        rights = [await self.right(other) for other in PROFILES if other != profile]
        found += [right for right in rights if right is not None]
        found += self._near_misses(profile)
        found += [Proof(name, holder=h) for name, h in self.holders.items() if name != profile]
        found += _forged(self.holders["maker"]) + _forged(self.holders["ra"])
        return [proof for proof in found if proof.name not in ALSO_RIGHT.get(profile, ())]

    def _near_misses(self, profile: str) -> Iterator[Proof]:
        kinds = {c["type"] for c in PROFILES[profile].get("credentials", ())}
        if "static" in kinds:
            yield from self._wrong_secrets(profile)
        if kinds & {"one_time"}:
            yield from (Proof(f"{what} code", password=code) for what, code in self.codes.items())
            yield from (Proof(f"{what} code as OTP", otp=code) for what, code in self.codes.items())
        if "intune_jws" in kinds:
            yield from self._wrong_challenges(profile)
        if "basic" in kinds:
            yield from self._wrong_users(profile)
        if "digest_md5_legacy" in kinds:
            yield from _wrong_digests()
        if "bearer" in kinds:
            yield from self._wrong_tokens(profile)
        if profile == "both":
            yield from self._halves(profile)
        if profile == "token-and-code":
            yield Proof("token alone", authorization=self.token(profile))
            yield Proof("token and a used code", authorization=self.token(profile), otp=self.codes["used"])
            yield Proof("token and another profile's code", authorization=self.token(profile), otp=self.codes["another device's"])
        if profile == "linked":
            yield Proof("password without a link", authorization=self.user(profile))
            yield Proof(
                "password and another's link", authorization=self.user(profile), password=base64.b64encode(b"x" * 12).decode()
            )

    def _wrong_secrets(self, profile: str) -> Iterator[Proof]:
        secret = self.secret(profile)
        yield Proof("secret with another last character", password=secret[:-1] + ("0" if secret[-1] != "0" else "1"))
        yield Proof("first half of the secret", password=secret[: len(secret) // 2])
        yield Proof("empty secret", password="")
        yield Proof("secret as password", authorization=basic_authorization("", secret))
        yield Proof("secret as token", authorization=f"Bearer {secret}")

    def _wrong_challenges(self, profile: str) -> Iterator[Proof]:
        now = int(self.est.service.clock().timestamp())
        yield Proof("challenge of another issuer", password=self.challenge(profile, issuer_key("other")))
        yield Proof("expired challenge", password=self.challenge(profile, iat=now - 7200, exp=now - 3600))
        yield Proof("challenge for others", password=self.challenge(profile, aud=audience("another")))
        yield Proof("challenge for another device", password=self.challenge(profile, device_name="device-2"))
        yield Proof("challenge as token", authorization=f"Bearer {self.challenge(profile)}")

    def _wrong_users(self, profile: str) -> Iterator[Proof]:
        yield Proof("wrong password", authorization=self.user(profile, PASSWORD[:-1]))
        yield Proof("empty password", authorization=self.user(profile, ""))
        yield Proof("unknown user", authorization=self.user(profile, name="nobody"))
        yield Proof(
            "hash as password", authorization=self.user(profile, (self.est.folder / f"secrets/{profile}-users").read_text())
        )
        yield Proof("password as challenge", password=PASSWORD)
        yield Proof("password as OTP", otp=PASSWORD)
        yield Proof("password under another scheme", authorization=self.user(profile).replace("Basic", "Bearer"))

    def _wrong_tokens(self, profile: str) -> Iterator[Proof]:
        now = int(self.est.service.clock().timestamp())
        yield Proof("token of another issuer's key", authorization=self.token(profile, issuer_key("other")))
        yield Proof("token of another issuer", authorization=self.token(profile, iss="another"))
        yield Proof("expired token", authorization=self.token(profile, iat=now - 7200, exp=now - 3600))
        yield Proof("token without an end", authorization=self.token(profile, exp=None))
        yield Proof("token of tomorrow", authorization=self.token(profile, iat=now + 86400, exp=now + 90000))
        yield Proof("token for others", authorization=self.token(profile, aud=audience("another")))
        yield Proof("signed challenge as token", authorization=f"Bearer {self.challenge(profile)}")
        head, body, _ = self.token(profile).removeprefix("Bearer ").split(".")
        none = base64url(b'{"alg":"none"}')
        yield Proof("token without a signature", authorization=f"Bearer {none}.{body}.")
        yield Proof("token with an empty signature", authorization=f"Bearer {head}.{body}.")
        yield Proof("token as challenge", password=self.token(profile).removeprefix("Bearer "))

    def _halves(self, profile: str) -> Iterator[Proof]:
        yield Proof("password alone", authorization=self.user(profile))
        for what in ("expired maker's", "revoked maker's", "other-maker", "device of renewing"):
            yield Proof(f"password and {what}", holder=self.holders[what], authorization=self.user(profile))
        yield Proof("certificate and a wrong password", holder=self.holders["maker"], authorization=self.user(profile, "wrong"))
        other = self.user("basic")
        yield Proof("certificate and another profile's user", holder=self.holders["maker"], authorization=other)


async def digest_response(
    fleet: NobodyFleet, profile: str, operation: str, password: str = PASSWORD, uri: str | None = None, nonce_of: str = "digest"
) -> str:
    """Answer a fresh challenge of HTTP Digest (RFC 7616 §3.4); the nonce is always one that the server gave out."""
    asked = await fleet.est.send(None, nonce_of, messages.SIMPLEENROLL, Wanted())
    found = re.search(r'nonce="([0-9a-f]+)"', asked.headers["www-authenticate"])
    assert found
    return respond(found[1], uri or f"/.well-known/est/{profile}/{operation}", password)


def respond(nonce: str, uri: str, password: str = PASSWORD) -> str:
    user, realm = "user-of-digest", "pki-gateway"
    fields = (digest_ha1(user, realm, password), nonce, "00000001", "c0ffee", "auth", _md5(f"POST:{uri}"))
    return (
        f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", qop=auth, nc=00000001, '
        f'cnonce="c0ffee", response="{_md5(":".join(fields))}"'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _wrong_digests() -> Iterator[Proof]:
    async def wrong_password(fleet: NobodyFleet, profile: str, operation: str) -> str:
        return await digest_response(fleet, profile, operation, password="wrong")

    async def other_uri(fleet: NobodyFleet, profile: str, operation: str) -> str:
        return await digest_response(fleet, profile, operation, uri=f"/.well-known/est/{profile}/cacerts")

    async def own_nonce(_fleet: NobodyFleet, profile: str, operation: str) -> str:
        return respond(secrets.token_hex(40), f"/.well-known/est/{profile}/{operation}")

    async def used(fleet: NobodyFleet, _profile: str, operation: str) -> str:
        return fleet.used_digests.get(operation, "")

    for made in (wrong_password, other_uri, own_nonce, used):
        yield Proof(f"digest: {made.__name__}", authorization=made)


def _forged(holder: Holder) -> list[Proof]:
    """What a proxy would say of a TLS client, from a peer that is no proxy."""
    value = base64.b64encode(holder.certificate).decode()
    escaped = der_to_pem(holder.certificate).decode().replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B")
    spoken = {
        "RFC 9440": {"Client-Cert": f":{value}:"},
        "nginx": {"X-SSL-Client-Cert": escaped},
        "envoy": {"X-Forwarded-Client-Cert": f'Hash={hashlib.sha256(holder.certificate).hexdigest()};Cert="{escaped}"'},
        "haproxy": {"X-SSL-Client-Cert": value},
    }
    more = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1;proto=https"}
    subject = subject_of(holder)
    return [Proof(f"{kind} header: {holder.name}", headers={**named, **more}, subject=subject) for kind, named in spoken.items()]
