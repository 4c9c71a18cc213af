"""An upstream CA that is Cloudflare's cfssl (its HTTP API: /api/v1/cfssl/sign, authsign, info, revoke, crl)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from gateway.ca.cfssl_grant import CannotCertify, Profile, describe_grant, read_profile
from gateway.ca.http import MAX_CRL, HttpClient, Response, refuse_unavailable
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    Trial,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamRejected,
)
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Setup
from gateway.config.remote_cas import CfsslCA as Config
from gateway.model import RevocationReason
from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.csr import parse_csr

PROFILE_KEPT = 300.0
"""Seconds for which what cfssl says of a profile is taken as true."""
MAX_TOLD = 300
MIN_AUTH_KEY = 16
"""Bytes; cfssl itself takes any."""
NOT_STORED = 11_200
"""Its database has no such certificate (cfssl, errors: CertStoreError, RecordNotFound)."""
DEFINITE = frozenset({*range(5_000, 6_000), *range(9_000, 10_000), 1_300, 1_400, 400})
"""Codes of refusals before anything is signed: policy, request, missing serial number; 400 is that of its HTTP layer."""
_API = "/api/v1/cfssl"
_NO_PROFILE = "pki-gateway-no-such-profile"
_AUTH_WORDS = ("invalid token", "authentication required", "no authentication provider")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CfsslSettings:
    """`auth_key` is the profile's, raw; `timeout` is in seconds."""

    profile: str
    label: str | None
    auth_key: bytes | None = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class _Refusal:
    """cfssl's words and the number of its error."""

    code: int
    text: str


class CfsslCA(RemoteBackend):
    """An `UpstreamCA` that asks cfssl.

    It has no identifiers of requests and cannot be asked what it signed: whatever is in doubt is held. Its profile decides on
    usages and dates, so these are compared with the grant before anything is sent.
    """

    capabilities = Capability.REVOKE | Capability.CRL | Capability.CHOOSES_VALIDITY

    def __init__(self, setup: Setup, settings: CfsslSettings, http: HttpClient) -> None:
        super().__init__(setup)
        self._settings = settings
        self._http = http
        self._now = setup.clock
        self._profile: Profile | None = None
        self._read_at = 0.0

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def issue(self, request: IssueRequest) -> UpstreamIssued:
        """Have one certificate signed; raises UpstreamRejected, NotSent, UnknownResult."""
        until = _loop_time() + min(request.timeout, self._settings.timeout)
        profile = await self._current_profile(until - _loop_time())
        body = {
            "certificate_request": der_to_pem(request.request, "CERTIFICATE REQUEST").decode("ascii"),
            "profile": self._settings.profile,
            **({"label": self._settings.label} if self._settings.label else {}),
            **self._describe(request, profile),
        }
        path, sent = self._authenticate(body)
        answer = await self._http.change("POST", path, json_body=sent, within=until - _loop_time())
        refuse_unavailable(answer)
        refusal = _read_refusal(answer)
        if refusal is None:
            return self._issued(_result(answer))
        if answer.status in {401, 403} or any(word in refusal.text for word in _AUTH_WORDS):
            raise AuthFailed(f"cfssl does not take the request: {refusal.text}")
        if refusal.code not in DEFINITE:
            raise UnknownResult(f"cfssl failed, perhaps after signing: {refusal.code} {refusal.text}")
        log.warning("the upstream CA refused a request", upstream_ca=self.name, request_id=request.request_id, cause=refusal.text)
        raise UpstreamRejected(f"the CA refused the request: {refusal.text}")

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke in cfssl's database, which takes its own time for the moment; a second time it does the same again."""
        key_id = parse_certificate(certificate).authority_key_id or b""
        # cfssl of 2016 wrote no authority key identifier into its database
        for identifier in (key_id.hex(), ""):
            body = {"serial": str(serial), "authority_key_id": identifier, "reason": reason.name.replace("_", "").lower()}
            answer = await self._http.change("POST", f"{_API}/revoke", json_body=body)
            refuse_unavailable(answer)
            if answer.status == 404:
                raise UpstreamRejected("the CA runs without a database and revokes nothing")
            refusal = _read_refusal(answer)
            if refusal is None:
                return
            if refusal.code not in {NOT_STORED, 400}:
                raise UnknownResult(f"cfssl failed to revoke: {refusal.code} {refusal.text}")
        raise UpstreamRejected("the CA has no such certificate in its database")

    async def crl(self) -> bytes | None:
        """Fetch the CRL, DER; None where cfssl has no such path (before 1.3, and without a database)."""
        answer = await self._http.read(f"{_API}/crl", limit=MAX_CRL)
        if answer.status == 404:
            return None
        if _read_refusal(answer) is not None:
            raise NotSent(f"cfssl answered the question for its CRL with {answer.status}")
        result = answer.json().get("result")
        try:
            return base64.b64decode(result, validate=True) if isinstance(result, str) else None
        except binascii.Error as error:
            raise NotSent("cfssl answered the question for its CRL with what is none") from error

    async def health(self) -> None:
        """Ask for the signer's certificate; raises NotSent."""
        await self._ask(self._settings.profile, self._settings.timeout)

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the certificate of the signer, DER, unproved: cfssl shows nothing above it; raises NotSent."""
        result = await self._ask(self._settings.profile, self._settings.timeout)
        try:
            return pem_to_ders(str(result.get("certificate")).encode())
        except ValueError as error:
            raise NotSent("cfssl gave a certificate that is no PEM") from error

    async def check(self) -> tuple[Trial, ...]:
        """Try connection, certificate and profile; cfssl has no dry run, so the auth key is not tried."""
        try:
            shown = await self.fetch_chain()
            profile = await self._read_profile(self._settings.profile)
            other = await self._read_profile(_NO_PROFILE)
        except UpstreamError as error:
            advice = "look at `url`, `connection`, `label` and whether cfssl runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        pinned = self._chain[0] in shown
        return (
            Trial("connection", good=True, finding="cfssl answers"),
            Trial(
                "chain",
                good=pinned,
                finding=f"cfssl signs with {'the' if pinned else 'another certificate than the'} pinned issuing certificate",
                advice="" if pinned else "compare with `pki-gateway upstream chain`, then correct `chain` or `label`",
            ),
            Trial(
                "profile",
                good=profile != other,
                finding=f"profile {self._settings.profile}: {profile.describe()}"
                + (", the same as for a profile that does not exist" if profile == other else ""),
                advice="" if profile != other else "cfssl takes `default` for a profile that it does not know: look at its name",
            ),
        )

    def _describe(self, request: IssueRequest, profile: Profile) -> dict[str, Any]:
        """Return subject and hosts; raises UpstreamRejected where cfssl would certify something else."""
        csr = parse_csr(request.request, proof=False)
        try:
            profile.require(request.grant, self._now())
            return describe_grant(csr, request.grant)
        except CannotCertify as error:
            told = {"upstream_ca": self.name, "request_id": request.request_id, "cause": str(error)}
            log.warning("cfssl cannot certify what was granted", **told)
            raise UpstreamRejected(f"the CA cannot certify what was granted: {error}") from error

    def _authenticate(self, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Return path and body, with a MAC over the request where the profile has a key (cfssl, auth: standard)."""
        key = self._settings.auth_key
        if key is None:
            return f"{_API}/sign", body
        request = json.dumps(body, separators=(",", ":")).encode()
        token = hmac.digest(key, request, hashlib.sha256)
        return f"{_API}/authsign", {"token": _base64(token), "request": _base64(request)}

    async def _current_profile(self, within: float) -> Profile:
        """Return what the profile certifies, asked at most every five minutes; raises NotSent."""
        if self._profile is None or _loop_time() - self._read_at > PROFILE_KEPT:
            self._profile = await self._read_profile(self._settings.profile, within)
            self._read_at = _loop_time()
        return self._profile

    async def _read_profile(self, name: str, within: float | None = None) -> Profile:
        return read_profile(await self._ask(name, within or self._settings.timeout))

    async def _ask(self, profile: str, within: float) -> Mapping[str, Any]:
        """Return what `info` says of signer and profile; raises NotSent."""
        body = {"label": self._settings.label or "", "profile": profile}
        answer = await self._http.read(f"{_API}/info", method="POST", json_body=body, within=within)
        refuse_unavailable(answer)
        refusal = _read_refusal(answer)
        if refusal is not None:
            raise NotSent(f"cfssl says nothing of its signer: {refusal.text}")
        return _result(answer)

    def _issued(self, result: Mapping[str, Any]) -> UpstreamIssued:
        try:
            [leaf] = pem_to_ders(str(result.get("certificate")).encode())
        except ValueError as error:
            raise UnknownResult("cfssl answered with what is no certificate") from error
        return UpstreamIssued(leaf, self._chain)


def _read_refusal(answer: Response) -> _Refusal | None:
    """Return cfssl's error, None for success; what is neither raises what such an answer means."""
    said = answer.json()
    if said.get("success") is True and answer.status == 200:
        return None
    errors = said.get("errors")
    error = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code, text = error.get("code"), error.get("message")
    if not isinstance(code, int) or not isinstance(text, str):
        raise answer.failed(f"cfssl answered {answer.status}")
    return _Refusal(code, "".join(c if c.isprintable() else " " for c in text[:MAX_TOLD]).strip())


def _result(answer: Response) -> Mapping[str, Any]:
    result = answer.json().get("result")
    if not isinstance(result, dict):
        raise answer.failed("cfssl answered without a result")
    return result


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def create(config: Config, setup: Setup) -> CfsslCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    auth_key = None
    if config.auth_key is not None:
        try:
            auth_key = bytes.fromhex(setup.sources.secret(config.auth_key).decode("ascii").strip())
        except ValueError as error:
            raise setup.fault(f"{config.auth_key} does not hold hexadecimal digits", "auth_key") from error
        if len(auth_key) < MIN_AUTH_KEY:
            raise setup.fault(f"{config.auth_key} is shorter than {MIN_AUTH_KEY} bytes", "auth_key")
    settings = CfsslSettings(config.profile, config.label, auth_key, config.connection.timeout.total_seconds())
    return CfsslCA(setup, settings, setup.connect(config.url, config.connection))
