"""An upstream CA that is smallstep's step-ca (its HTTP API: /1.0/sign, /1.0/revoke, /roots, /1.0/crl, /health)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import structlog

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
from gateway.ca.step_grant import CannotCertify, describe_names, describe_template_grant
from gateway.ca.step_token import Provisioner, load_provisioner
from gateway.config.remote_cas import StepCA as Config
from gateway.model import RevocationReason, SanKind
from gateway.pki.certificate import der_to_pem, pem_to_ders
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text

MAX_CHAIN = 8
MAX_TOLD = 300
"""Most characters of step-ca's own words that are passed on."""
SIGN, REVOKE = "/1.0/sign", "/1.0/revoke"

_PROBE = "pki-gateway-probe.invalid"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StepSettings:
    """`audience` is the CA's own address as its tokens name it, without a path; `timeout` is in seconds."""

    audience: str
    template_data: Mapping[str, str]
    grant_template: bool
    keeps_tokens: bool
    timeout: float


class StepCA(RemoteBackend):
    """An `UpstreamCA` that asks step-ca.

    Each request has one token, whose name is made from its identifier: step-ca takes a name once, so whatever is sent again or
    delivered twice yields one certificate. It refuses a used token by the same 401 as a wrong one; which it was, a request that
    can never be granted tells.
    """

    def __init__(self, setup: Setup, settings: StepSettings, provisioner: Provisioner, http: HttpClient) -> None:
        super().__init__(setup)
        self.capabilities = Capability.REVOKE | Capability.CRL
        if settings.keeps_tokens:
            self.capabilities |= Capability.REPEATABLE
        self._settings = settings
        self._provisioner = provisioner
        self._http = http
        self._now = setup.clock
        self._proved = False
        """Whether step-ca took a token since it last refused one."""
        self._probe_csr = _make_probe()

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def not_after_limit(self, now: datetime) -> datetime | None:
        """Return the first notAfter of the chain, and of the certificate that signs tokens: step-ca goes by it."""
        limit = super().not_after_limit(now)
        signer = self._provisioner.certificate
        return limit if signer is None or limit is None else min(limit, signer.not_after)

    async def issue(self, request: IssueRequest) -> UpstreamIssued:
        """Have one certificate signed; raises UpstreamRejected, NotSent, UnknownResult."""
        until = _loop_time() + min(request.timeout, self._settings.timeout)
        self._describe(request)  # which refuses what step-ca cannot certify
        if not self._proved:
            # A token that is refused for its signature is used up all the same: another one is tried first.
            await self._prove(until - _loop_time())
        answer = await self._http.change("POST", SIGN, json_body=self._describe(request), within=until - _loop_time())
        if answer.status == 201:
            return self._issued(answer.json())
        refuse_unavailable(answer)
        if answer.status == 401:
            raise await self._explain_refusal(max(1.0, until - _loop_time()))
        said = _read_refusal(answer)
        log.warning("the upstream CA refused a request", upstream_ca=self.name, request_id=request.request_id, cause=said)
        raise UpstreamRejected(f"the CA refused the request: {said}")

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke; step-ca takes its own time for the moment, and 400 is how it says that it has done so before."""
        token = self._token(REVOKE, str(serial))
        body = {"serial": str(serial), "ott": token, "reasonCode": reason.value, "reason": reason.name.lower(), "passive": True}
        answer = await self._http.change("POST", REVOKE, json_body=body)
        if answer.status == 200:
            return
        refuse_unavailable(answer)
        if answer.status == 401:
            raise AuthFailed("step-ca does not take the provisioner's token for a revocation")
        if answer.status == 501:
            raise UpstreamRejected("the CA keeps no database and revokes nothing")
        said = _read_refusal(answer)
        if answer.status != 400 or "already revoked" not in said:
            raise UpstreamRejected(f"the CA does not revoke it: {said}")

    async def crl(self) -> bytes | None:
        """Fetch the CRL, DER; None where it is not enabled (`crl` in ca.json)."""
        answer = await self._http.read("/1.0/crl", limit=MAX_CRL)
        if answer.status in {404, 501} or (answer.status == 200 and not answer.body):
            return None
        if answer.status != 200:
            raise NotSent(f"the CA answered the question for its CRL with {answer.status}")
        try:
            [crl] = pem_to_ders(answer.body, "X509 CRL")
        except ValueError as error:
            raise NotSent("the CA answered the question for its CRL with what is none") from error
        return crl

    async def health(self) -> None:
        """Ask whether it works; raises NotSent."""
        answer = await self._http.read("/health")
        refuse_unavailable(answer)
        if answer.status != 200 or answer.json().get("status") != "ok":
            raise NotSent(f"step-ca says that it does not work: it answered {answer.status}")

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates that step-ca shows, intermediates first, DER, unproved; raises NotSent.

        Before 0.23 it shows its roots only.
        """
        above = await self._read_certificates("/1.0/intermediates", missing=True)
        return tuple(dict.fromkeys((*above, *await self._read_certificates("/roots"))))

    async def check(self) -> tuple[Trial, ...]:
        """Try connection, root and token; the token goes with a request that can never be granted."""
        try:
            await self.health()
        except UpstreamError as error:
            advice = "look at `url`, `connection` and whether step-ca runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        connection = Trial("connection", good=True, finding="step-ca answers and says that it works")
        return (connection, await self._check_chain(), await self._check_token(), *self._check_signer())

    async def _check_chain(self) -> Trial:
        try:
            shown = await self.fetch_chain()
        except UpstreamError as error:
            return Trial("chain", good=False, finding=str(error))
        if self._chain[-1] in shown or self._chain[0] in shown:
            return Trial("chain", good=True, finding="step-ca shows a CA certificate that is pinned")
        advice = "compare with `pki-gateway upstream chain`, then correct `chain`"
        return Trial("chain", good=False, finding="step-ca shows other CA certificates than those that are pinned", advice=advice)

    async def _check_token(self) -> Trial:
        try:
            await self._prove(self._settings.timeout)
        except AuthFailed as error:
            advice = (
                "compare the provisioner's name and key with step-ca's, both clocks, and the host in `url` with `dnsNames`"
                " of ca.json"
            )
            return Trial("token", good=False, finding=str(error), advice=advice)
        except UpstreamError as error:
            return Trial("token", good=False, finding=str(error))
        return Trial("token", good=True, finding="step-ca takes the provisioner's tokens")

    def _check_signer(self) -> tuple[Trial, ...]:
        signer = self._provisioner.certificate
        if signer is None:
            return ()
        finding = f"the certificate that signs tokens ends at {signer.not_after:%Y-%m-%dT%H:%M:%SZ}: nothing is certified beyond"
        good = self._now() < signer.not_after
        return (Trial("signer", good=good, finding=finding, advice="" if good else "renew it"),)

    def _describe(self, request: IssueRequest) -> dict[str, Any]:
        """Return the body; raises UpstreamRejected where step-ca cannot certify the grant."""
        settings, grant = self._settings, request.grant
        csr = parse_csr(request.request, proof=False)
        try:
            names = describe_names(csr, grant, from_template=settings.grant_template)
            claims: dict[str, Any] = {"sans": names.sans}
            if settings.grant_template:
                claims["grant"] = describe_template_grant(grant)
        except CannotCertify as error:
            cause = str(error)
            log.warning(
                "step-ca cannot certify what was granted", upstream_ca=self.name, request_id=request.request_id, cause=cause
            )
            raise UpstreamRejected(f"the CA cannot certify what was granted: {error}") from error
        body: dict[str, Any] = {
            "csr": der_to_pem(request.request, "CERTIFICATE REQUEST").decode("ascii"),
            "notAfter": grant.not_after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if settings.template_data:
            body["templateData"] = dict(settings.template_data)
        name = self._provisioner.name_of(request.request_id)
        return {**body, "ott": self._token(SIGN, names.subject, name=name, **claims)}

    def _token(self, path: str, subject: str, **more: Any) -> str:
        now = self._now()
        signer = self._provisioner.certificate
        if signer is not None and not signer.not_before <= now < signer.not_after:
            raise AuthFailed("the certificate that signs tokens for step-ca is not valid now")
        return self._provisioner.make_token(self._settings.audience + path, subject, now, **more)

    async def _prove(self, within: float) -> None:
        """Have step-ca judge a token that goes with a request for another name, in the past; raises NotSent, AuthFailed.

        It looks at the token first, and refuses such a request by 403 or 400.
        """
        body = {
            "csr": self._probe_csr,
            "ott": self._token(SIGN, f"other.{_PROBE}", sans=[f"other.{_PROBE}"]),
            "notAfter": "2000-01-01T00:00:00Z",
        }
        answer = await self._http.read(SIGN, method="POST", json_body=body, within=within)
        refuse_unavailable(answer)
        self._proved = answer.status in {400, 403} and _is_refusal(answer)
        if answer.status == 401:
            raise AuthFailed("step-ca does not take the provisioner's tokens")
        if not self._proved:
            raise NotSent(f"step-ca answered {answer.status} to a token that was tried")

    async def _explain_refusal(self, within: float) -> UpstreamError:
        """Return what a 401 for a request means: tokens are not taken at all, or this one has come through before."""
        self._proved = False
        try:
            await self._prove(within)
        except AuthFailed as error:
            return error
        except UpstreamError as error:
            return UnknownResult(f"step-ca refused a token, and then could not be asked why: {error}")
        return UnknownResult("step-ca has taken the token of this request before: what came of it only its log tells")

    def _issued(self, answer: Mapping[str, Any]) -> UpstreamIssued:
        """Read what came back; raises UnknownResult where it is no certificate."""
        listed = answer.get("certChain")
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CHAIN:
            listed = [answer.get("crt"), answer.get("ca")]
        try:
            leaf, *chain = (der for pem in listed if pem for der in pem_to_ders(_text(pem)))
        except ValueError as error:
            raise UnknownResult("step-ca answered with what is no certificate") from error
        return UpstreamIssued(leaf, self.complete(tuple(chain)))

    async def _read_certificates(self, path: str, *, missing: bool = False) -> tuple[bytes, ...]:
        answer = await self._http.read(path)
        if missing and answer.status == 404:
            return ()
        if answer.status not in {200, 201}:
            raise NotSent(f"step-ca answered the question for its certificates with {answer.status}")
        listed = answer.json().get("crts")
        try:
            return tuple(
                der for pem in (listed if isinstance(listed, list) else [])[:MAX_CHAIN] for der in pem_to_ders(_text(pem))
            )
        except ValueError as error:
            raise NotSent("step-ca answered the question for its certificates with what are none") from error


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _text(pem: object) -> bytes:
    if not isinstance(pem, str):
        raise ValueError("no text")  # noqa: TRY004 - what came is wrong, not the caller
    return pem.encode()


def _is_refusal(answer: Response) -> bool:
    """Say whether step-ca itself wrote a refusal, and not something before it: it repeats the status in its JSON."""
    try:
        return answer.json().get("status") == answer.status
    except UpstreamError:
        return False


def _read_refusal(answer: Response) -> str:
    """Return step-ca's words for a request that it did not grant; UnknownResult for everything else."""
    if answer.status not in {400, 403} or not _is_refusal(answer):
        raise UnknownResult(f"step-ca answered {answer.status}")
    text = str(answer.json().get("message", ""))[:MAX_TOLD]
    return "".join(c if c.isprintable() else " " for c in text).strip() or "no reason is given"


def _make_probe() -> str:
    key = generate_private_key("ec-p256")
    csr = build_csr(key, parse_name_text(f"CN={_PROBE}").der, (make_san(SanKind.DNS, _PROBE),))
    return der_to_pem(csr, "CERTIFICATE REQUEST").decode("ascii")


def create(config: Config, setup: Setup) -> StepCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    settings = StepSettings(
        # step-ca compares with `https://` and one of its names, whatever stands before it
        audience=f"https://{urlsplit(config.url).netloc}",
        template_data=config.template_data,
        grant_template=config.grant_template,
        keeps_tokens=config.keeps_tokens,
        timeout=config.connection.timeout.total_seconds(),
    )
    provisioner = load_provisioner(config.provisioner, setup)
    return StepCA(setup, settings, provisioner, setup.connect(config.url, config.connection))
