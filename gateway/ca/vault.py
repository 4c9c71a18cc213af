"""An upstream CA that is the PKI engine of HashiCorp Vault or OpenBao (their API documentation, secret/pki)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog

from gateway.ca.http import MAX_CRL, Response
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
from gateway.ca.vault_answers import Denied, first_error, read_answer, read_certificates
from gateway.ca.vault_auth import FIRST_REST, GivenToken, Login, Method, VaultSession
from gateway.ca.vault_role import DEFAULT_ISSUER, VERBATIM, Role, find_conflicts, for_verbatim, make_body, read_role
from gateway.ca.vault_search import ListRefused, Stored, VaultSearch
from gateway.ca.vault_trials import Place, fetch_chain, read_health, try_vault
from gateway.ca.verify import CLOCK_TOLERANCE
from gateway.config.remote_cas import VaultAppRole, VaultCertificate, VaultKubernetes, VaultToken
from gateway.config.remote_cas import VaultCA as Config
from gateway.config.sources import SourceError, read_file
from gateway.model import RevocationReason
from gateway.pki.certificate import der_to_pem
from gateway.pki.csr import parse_csr

QUIET = 150.0
"""Seconds after which what was sent has ended at the CA: Vault gives up a request after 90 (`default_max_request_duration`)."""
ROLE_KEPT = 300.0
"""Seconds for which what a role says is taken as true."""
MAX_DOUBTS = 10_000
MAX_SERVICE_TOKEN = 65_536

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where in Vault the CA is; every part is quoted for a URL, `timeout` is in seconds."""

    mount: str
    role: str | None
    issuer: str | None
    verbatim: bool
    timeout: float

    @property
    def sign_path(self) -> str:
        """Where requests are signed."""
        issuer = f"/issuer/{self.issuer}" if self.issuer else ""
        action = "/sign-verbatim" if self.verbatim else "/sign"
        return f"/v1/{self.mount}{issuer}{action}" + (f"/{self.role}" if self.role else "")


class VaultCA(RemoteBackend):
    """An `UpstreamCA` that asks Vault.

    Vault knows no request identifiers. After a doubt its certificates are looked through for the key and the notAfter that it
    was told; that it has none is believed only after `quiet` seconds in which a request on its way would have come to an end.
    """

    def __init__(self, setup: Setup, settings: VaultSettings, session: VaultSession, *, quiet: float = QUIET) -> None:
        super().__init__(setup)
        self._settings = settings
        self._session = session
        self._now = setup.clock
        self._quiet = quiet
        self._search = VaultSearch(session, settings.mount, _loop_time)
        self._role: Role | None = VERBATIM if settings.verbatim and settings.role is None else None
        self._role_read_at: float | None = None
        self._role_lock = asyncio.Lock()
        self._can_list = True
        self._doubts: OrderedDict[str, float] = OrderedDict()

    @property
    def capabilities(self) -> Capability:  # type: ignore[override]
        """FIND goes where the role keeps no certificates, or where the token may not see the role or the certificates."""
        can_find = self._can_list and (self._role_read_at is None or self._role is not None)
        can_find = can_find and not (self._role is not None and self._role.no_store)
        return Capability.REVOKE | Capability.CRL | (Capability.FIND if can_find else Capability.NONE)

    async def start(self) -> None:
        """Open connections and begin to log in."""
        await self._session.start()

    async def close(self) -> None:
        """Give the token back and close."""
        await self._session.close()

    async def issue(self, request: IssueRequest) -> UpstreamIssued:
        """Have one certificate signed."""
        until = _loop_time() + min(request.timeout, self._settings.timeout)
        role = await self._current_role(until)
        self._refuse_conflicts(request, role)
        body = make_body(request.request, request.grant, role, self._now(), verbatim=self._settings.verbatim)
        self._note_doubt(request.request_id, anew=True)
        answer = await self._session.change(self._settings.sign_path, body, until - _loop_time())
        if answer.status == 200:
            return self._issued(read_answer(answer))
        raise self._refusal(answer, request)

    async def find(self, request: IssueRequest) -> UpstreamIssued | None:
        """Look for a certificate of this request; None only when none can come any more."""
        until = _loop_time() + min(request.timeout, self._settings.timeout)
        since = self._note_doubt(request.request_id)
        role = await self._current_role(until)
        if role is None or role.no_store:
            raise UnknownResult(f"Vault's role keeps no certificates, or may not be read: {self.name} cannot be asked")
        try:
            stored = await self._search.find(request.public_key, until - _loop_time())
        except ListRefused as error:
            self._can_list = False
            raise UnknownResult(f"the certificates of upstream CA {self.name} may not be listed") from error
        found = self._choose(stored, request, role)
        if found is not None:
            if found.revoked:
                raise UnknownResult(f"the certificate {found.serial} was issued and has been revoked since")
            return UpstreamIssued(found.certificate.der, self._chain, found.serial)
        waited = _loop_time() - since
        if waited < self._quiet:
            raise UnknownResult(f"no certificate is there yet, and one may still come: asked again after {self._quiet:.0f} s")
        return None

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke; Vault knows no reasons and takes its own time, and answers for a revoked one as for any."""
        path = f"/v1/{self._settings.mount}/revoke"
        if not (self._role is not None and self._role.no_store):
            answer = await self._session.change(path, {"serial_number": _colons(serial)}, self._settings.timeout)
            if answer.status < 300:
                return
            if not (answer.status == 400 and "not found" in first_error(answer)):
                raise _refused_revocation(answer)
        # the engine takes any certificate that one of its issuers signed
        pem = der_to_pem(certificate).decode("ascii")
        answer = await self._session.change(path, {"certificate": pem}, self._settings.timeout)
        if answer.status >= 300:
            raise _refused_revocation(answer)

    async def crl(self) -> bytes | None:
        """Fetch the issuer's CRL, DER; None where it has none."""
        path = f"/v1/{self._settings.mount}/issuer/{await self._issuer_reference()}/crl/der"
        answer = await self._session.read_openly(path, limit=MAX_CRL)
        if answer.status in {204, 404} or (answer.status == 200 and not answer.body):
            return None
        if answer.status != 200:
            raise NotSent(f"the CA answered the question for its CRL with {answer.status}")
        return answer.body

    async def health(self) -> None:
        """Ask whether a node that can sign is there, sealed by nobody; raises NotSent, Unavailable."""
        await read_health(self._session)

    async def check(self) -> tuple[Trial, ...]:
        """Try what can be tried without issuing."""
        return await try_vault(self._session, await self._place(), self._chain, self._now())

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates that Vault names for the issuer, issuing CA first, DER, unproved; raises NotSent."""
        return await fetch_chain(self._session, await self._place())

    async def _place(self) -> Place:
        settings = self._settings
        try:
            issuer = await self._issuer_reference()
        except UpstreamError:
            issuer = settings.issuer or DEFAULT_ISSUER
        return Place(settings.mount, settings.sign_path, settings.role, issuer, settings.verbatim)

    async def _current_role(self, until: float) -> Role | None:
        """Return the role, read at most every five minutes; None where the token may not read it."""
        if self._settings.role is None:
            return self._role
        async with self._role_lock:
            if self._role_read_at is None or _loop_time() - self._role_read_at > ROLE_KEPT:
                await self._read_role(until - _loop_time())
        return self._role

    async def _read_role(self, within: float) -> None:
        path = f"/v1/{self._settings.mount}/roles/{self._settings.role}"
        try:
            answer = await self._session.read(path, within)
        except Denied:
            if self._role_read_at is None:
                log.warning("the role of the upstream CA may not be read: doubts will be held", upstream_ca=self.name)
            self._role, self._role_read_at = None, _loop_time()
            return
        if answer.status == 404:
            raise NotSent(f"Vault has no role {self._settings.role} at {self._settings.mount}")
        data = read_answer(answer).get("data")
        role = read_role(data if isinstance(data, dict) else {})
        self._role = for_verbatim(role) if self._settings.verbatim else role
        self._role_read_at, self._can_list = _loop_time(), True

    async def _issuer_reference(self) -> str:
        if self._settings.issuer is not None:
            return self._settings.issuer
        role = await self._current_role(_loop_time() + self._settings.timeout)
        return quote(role.issuer, safe="") if role is not None else DEFAULT_ISSUER

    def _refuse_conflicts(self, request: IssueRequest, role: Role | None) -> None:
        """Raise UpstreamRejected where the certificate would not be what was granted; an unknown role is tried."""
        if role is None:
            return
        csr = parse_csr(request.request, proof=False)
        conflicts = find_conflicts(csr, request.grant, role, verbatim=self._settings.verbatim)
        if conflicts:
            log.warning(
                "the upstream CA would not certify what was granted",
                upstream_ca=self.name,
                request_id=request.request_id,
                profile=request.profile,
                conflicts=conflicts,
            )
            raise UpstreamRejected(f"the CA cannot certify what was granted: {conflicts[0]}")

    def _refusal(self, answer: Response, request: IssueRequest) -> Exception:
        """Return what a 400 or 404 means, or an answer without content."""
        if answer.status not in {400, 404}:
            return UnknownResult(f"the CA answered {answer.status} without a certificate")
        said = first_error(answer)
        if answer.status == 404 or said.startswith("unknown role"):
            return NotSent(f"Vault has nothing at {self._settings.sign_path}: {said or 'no such path'}")
        log.warning("the upstream CA refused a request", upstream_ca=self.name, request_id=request.request_id, cause=said)
        return UpstreamRejected(f"the CA refused the request: {said}" if said else "the CA refused the request")

    def _issued(self, answer: Mapping[str, Any]) -> UpstreamIssued:
        """Read what came back; raises UnknownResult where it is no certificate."""
        data = answer.get("data")
        if not isinstance(data, dict):
            raise UnknownResult("the CA answered without data")
        try:
            [leaf] = read_certificates(data, "certificate")
            issuing, chain = read_certificates(data, "issuing_ca"), read_certificates(data, "ca_chain")
        except ValueError as error:
            raise UnknownResult("the CA answered with what is no certificate") from error
        serial = data.get("serial_number")
        reference = serial if isinstance(serial, str) and len(serial) <= 200 and serial.isprintable() else None
        if issuing[:1] == self._chain[:1]:
            return UpstreamIssued(leaf, self._chain, reference)
        return UpstreamIssued(leaf, self.complete(chain or issuing), reference)

    def _choose(self, stored: tuple[Stored, ...], request: IssueRequest, role: Role) -> Stored | None:
        """Return the certificate of this request among those of its key; raises UnknownResult where that is not plain.

        Vault puts in the notAfter that it is told, to the second, unless its role or the CA's own end says otherwise.
        """
        grant = request.grant
        newest_first = sorted(stored, key=lambda one: one.certificate.not_before, reverse=True)
        told = grant.not_after.replace(microsecond=0)
        exact = [one for one in newest_first if one.certificate.not_after == told]
        if exact:
            return exact[0]
        limit = self.not_after_limit(grant.not_before)
        if role.takes_not_after and not role.fixed_not_after and (limit is None or told <= limit):
            return None
        earliest = grant.not_before - CLOCK_TOLERANCE - timedelta(seconds=role.backdating)
        near = [one for one in newest_first if one.certificate.not_before >= earliest]
        if not near:
            return None
        if len(near) == 1 and abs(near[0].certificate.not_after - told) <= CLOCK_TOLERANCE:
            return near[0]
        raise UnknownResult(f"{len(near)} certificates for this key are there, and none is plainly that of this request")

    def _note_doubt(self, request_id: str, *, anew: bool = False) -> float:
        """Return since when a request may be on its way, as far as this worker knows; one that it did not send began just now."""
        if anew or request_id not in self._doubts:
            self._doubts[request_id] = _loop_time()
            self._doubts.move_to_end(request_id)
            if len(self._doubts) > MAX_DOUBTS:
                self._doubts.popitem(last=False)
        return self._doubts[request_id]


def create(config: Config, setup: Setup, *, quiet: float = QUIET) -> VaultCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    if config.role is None and not config.sign_verbatim:
        raise setup.fault("is missing: only sign_verbatim needs none", "role")
    settings = VaultSettings(
        mount=_path(config.mount, setup, "mount"),
        role=_segment(config.role, setup, "role"),
        issuer=_segment(config.issuer, setup, "issuer"),
        verbatim=config.sign_verbatim,
        timeout=config.connection.timeout.total_seconds(),
    )
    namespace = config.namespace
    if namespace is not None and not (namespace.isascii() and namespace.isprintable()):
        raise setup.fault("holds characters that no header can carry", "namespace")
    method = _method(config, setup)
    session = VaultSession(setup.connect(config.url, config.connection), method, namespace, setup.name)
    return VaultCA(setup, settings, session, quiet=quiet)


def _method(config: Config, setup: Setup) -> Method:
    match config.auth:
        case VaultToken(token=source):
            return GivenToken(_secret_text(setup, source, "token"))
        case VaultAppRole(role_id=role_id, secret_id=secret_id, mount=mount):
            body = {
                "role_id": _secret_text(setup, role_id, "role_id"),
                "secret_id": _secret_text(setup, secret_id, "secret_id"),
            }
            return Login(_path(mount, setup, "auth", "mount"), lambda: _same(body))
        case VaultCertificate(role=role, mount=mount):
            if config.connection.client_certificate is None:
                raise setup.fault("logs in by a client certificate: connection.client_certificate is missing", "auth", "type")
            body = {"name": role} if role else {}
            return Login(_path(mount, setup, "auth", "mount"), lambda: _same(body))
        case VaultKubernetes(role=role, token=file, mount=mount):
            file_path, service_role = setup.sources.resolve(file), role

            async def credentials() -> Mapping[str, str]:
                # kubelet writes a new one long before the old one ends, within the hour
                try:
                    token = await asyncio.to_thread(read_file, file_path, MAX_SERVICE_TOKEN)
                except SourceError as error:
                    raise AuthFailed(f"the service account's token cannot be used: {error}", FIRST_REST) from error
                return {"role": service_role, "jwt": token.decode("utf-8", "replace").strip()}

            return Login(_path(mount, setup, "auth", "mount"), credentials)


async def _same(body: Mapping[str, str]) -> Mapping[str, str]:
    return body


def _secret_text(setup: Setup, source: Any, field: str) -> str:
    text = setup.sources.secret(source).decode("latin-1").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise setup.fault("holds characters that no token or identifier has", "auth", field)
    return text


def _path(text: str, setup: Setup, *field: str) -> str:
    """Return a mount for a URL; it may have slashes inside."""
    parts = text.strip("/").split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise setup.fault("is no mount such as `pki` or `team/pki`", *field)
    return "/".join(quote(part, safe="") for part in parts)


def _segment(text: str | None, setup: Setup, field: str) -> str | None:
    if text is not None and (text in {".", ".."} or "/" in text):
        raise setup.fault("is a name, without slashes", field)
    return None if text is None else quote(text, safe="")


def _refused_revocation(answer: Response) -> Exception:
    return UpstreamRejected(f"the CA refused the revocation: {first_error(answer)}")


def _colons(serial: int) -> str:
    text = f"{serial:x}"
    text = text.zfill(len(text) + len(text) % 2)
    return ":".join(text[i : i + 2] for i in range(0, len(text), 2))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
