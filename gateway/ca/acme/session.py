"""One account at one ACME CA: directory, registration, signed requests in time, and what refusals mean (RFC 8555 §6-7.3)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway.ca.http import LONGEST_RETRY, HttpClient
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamError, UpstreamRejected
from gateway.errors import Rejection
from gateway.pki.jws_signer import Signer
from gateway.wire.acme.client import AcmeAnswer, AcmeClient, AcmeRefusal, AcmeRequest, ExternalKey, Flow, drive_async

DIRECTORY_SECONDS = 3600.0
"""How long a directory is used before it is fetched again."""
MAX_URL = 1024
MAX_TOLD = 300
"""Most characters of the CA's own words that are passed on."""
MAX_NONCES = 64
MIN_SECONDS = 0.05
"""With less time than this nothing is sent any more."""

ACCOUNT_REFUSALS = frozenset({"accountDoesNotExist", "unauthorized", "userActionRequired", "externalAccountRequired"})
"""Problems that are the account's: they say nothing about the request, and an operator has to look (RFC 8555 §6.7)."""
_TRANSIENT = frozenset({"badNonce", "serverInternal", ""})
_URL = re.compile(r"https?://[\x21-\x7e]+", re.ASCII)

Failure = type[NotSent] | type[UnknownResult]


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks; `external` binds the account where the CA wants that (RFC 8555 §7.3.4)."""

    signer: Signer = field(repr=False)
    contact: tuple[str, ...]
    terms_agreed: bool
    external: ExternalKey | None = field(repr=False)


class AcmeSession:
    """Sends requests of one account, which is looked up or made before the first one; times are those of the event loop."""

    def __init__(self, directory: str, account: Account, http: HttpClient) -> None:
        self.account = account
        self._directory = directory
        self._http = http
        self._origin = urlsplit(directory)[:2]
        self._lock = asyncio.Lock()
        self._fetched_at: float | None = None
        self.client = AcmeClient(directory, account.signer)

    async def open(self, until: float) -> None:
        """Fetch the directory and look the account up, where that is due; raises NotSent, AuthFailed."""
        async with self._lock:
            await self._open_directory(until)
            if self.client.kid is None:
                await self._register(until)

    async def directory(self, until: float) -> Mapping[str, Any]:
        """Return the directory; raises NotSent."""
        async with self._lock:
            await self._open_directory(until)
            return self.client.urls

    async def read(self, url: str, until: float) -> AcmeAnswer:
        """Fetch what belongs to the account (POST-as-GET); raises NotSent, AcmeRefusal."""
        answer: AcmeAnswer = await self.run(self.client.post(url, None), until)
        return answer

    async def run(self, flow: Flow, until: float, failed: Failure = NotSent) -> Any:
        """Run a flow of requests and return what it returns; raises `failed`, AcmeRefusal for what the CA answers, Unavailable.

        With UnknownResult as `failed` a POST may make the CA act: once a byte of it may have left nobody knows what became of it.
        """

        async def send(request: AcmeRequest) -> AcmeAnswer:
            return await self._send(request, until, failed)

        try:
            return await drive_async(flow, send, asyncio.sleep)
        except AcmeRefusal as refusal:
            _raise_unavailable(refusal)
            if refusal.type == "accountDoesNotExist":
                self.client.kid = None
            raise
        except (Rejection, KeyError, TypeError, ValueError, AttributeError) as error:
            raise failed(f"the CA gave an answer that makes no sense: {type(error).__name__}") from error
        finally:
            del self.client.nonces[:-MAX_NONCES]

    async def _send(self, request: AcmeRequest, until: float, failed: Failure) -> AcmeAnswer:
        within = until - loop_time()
        if within < MIN_SECONDS:
            raise NotSent("no time was left to ask the CA")
        url = self.check_url(request.url)
        if request.method == "POST" and failed is UnknownResult:
            answer = await self._http.change("POST", url, headers=request.headers, body=request.body, within=within)
        else:
            body = request.body if request.method == "POST" else None
            answer = await self._http.read(url, method=request.method, headers=request.headers, body=body, within=within)
        return AcmeAnswer(answer.status, answer.headers, answer.body)

    def check_url(self, url: object) -> str:
        """Return what the CA named as a URL; raises NotSent for one on another server: it would be asked in our name."""
        if not isinstance(url, str) or len(url) > MAX_URL or _URL.fullmatch(url) is None or urlsplit(url)[:2] != self._origin:
            raise NotSent("the CA named a URL that is none, or is not on the server of its directory")
        return url

    async def _open_directory(self, until: float) -> None:
        now = loop_time()
        if self._fetched_at is not None and now - self._fetched_at < DIRECTORY_SECONDS:
            return
        try:
            answer = await self.run(self.client.get(self._directory), until)
        except AcmeRefusal as refusal:
            raise NotSent(f"the CA answered {refusal.status} to the question for its directory") from refusal
        try:
            urls = answer.document
        except Rejection as error:
            raise NotSent("what the CA gave for its directory is none") from error
        for name in ("newNonce", "newAccount", "newOrder", "revokeCert"):
            self.check_url(urls.get(name))
        self.client.urls, self._fetched_at = urls, now

    async def _register(self, until: float) -> None:
        """Find the account of our key, or make it; raises NotSent, AuthFailed."""
        account = self.account
        try:
            # External keys are often good for one account only, so an account that is there is not bound again.
            await self.run(self.client.register(terms_agreed=account.terms_agreed, only_existing=True), until)
        except AcmeRefusal as refusal:
            if refusal.type != "accountDoesNotExist":
                raise refuse_account(refusal) from refusal
            await self._create(until)
        if self.client.kid is not None:
            kid, self.client.kid = self.client.kid, None
            self.client.kid = self.check_url(kid)

    async def _create(self, until: float) -> None:
        account, meta = self.account, self.meta
        terms = meta.get("termsOfService")
        if terms and not account.terms_agreed:
            raise AuthFailed(f"the CA has terms of service ({tell(terms)}): read them and set terms_agreed")
        if meta.get("externalAccountRequired") is True and account.external is None:
            raise AuthFailed("the CA binds accounts to customers: set external_account to what it gave you")
        flow = self.client.register(account.contact, terms_agreed=account.terms_agreed, external=account.external)
        try:
            await self.run(flow, until)
        except AcmeRefusal as refusal:
            raise refuse_account(refusal) from refusal

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the directory says about the CA (RFC 8555 §7.1.1); empty before it was fetched."""
        meta = self.client.urls.get("meta")
        return meta if isinstance(meta, Mapping) else {}


def refuse_account(refusal: AcmeRefusal) -> UpstreamError:
    """Return what a refusal of newAccount means."""
    if 400 <= refusal.status < 500 and refusal.type not in _TRANSIENT:
        return AuthFailed(f"the CA does not take our account: {describe(refusal)}")
    return NotSent(f"the CA answered {refusal.status} to the question for our account")


def judge(refusal: AcmeRefusal, failed: Failure = NotSent) -> UpstreamError:
    """Return what a refusal of a request means: about the account, about the request, or nothing that can be relied upon."""
    if refusal.type in ACCOUNT_REFUSALS:
        return AuthFailed(f"the CA does not take our account's request: {describe(refusal)}")
    if 400 <= refusal.status < 500 and refusal.type not in _TRANSIENT:
        return UpstreamRejected(f"the CA refused the request: {describe(refusal)}")
    return failed(f"the CA answered {refusal.status}")


def describe(refusal: AcmeRefusal) -> str:
    """Return type and words of a problem, fit for logs and clients."""
    parts = [tell(refusal.type), tell(refusal.detail)]
    subproblems = refusal.problem.get("subproblems")
    if isinstance(subproblems, list):
        parts += [tell(each["detail"]) for each in subproblems[:3] if isinstance(each, Mapping) and "detail" in each]
    return ": ".join(part for part in parts if part)[: 2 * MAX_TOLD]


def tell(text: object) -> str:
    """Return what the CA said, printable and short."""
    return "".join(c if c.isprintable() else " " for c in str(text)[:MAX_TOLD]).strip()


def loop_time() -> float:
    """Return the time of the event loop, in seconds."""
    return asyncio.get_running_loop().time()


def _raise_unavailable(refusal: AcmeRefusal) -> None:
    """Raise Unavailable for what says that nothing was done (RFC 8555 §6.6)."""
    if refusal.status in {429, 503} or refusal.type == "rateLimited":
        seconds = max(1, min(refusal.answer.retry_after or 60, LONGEST_RETRY))
        raise Unavailable(f"the CA wants to be asked later: {refusal.status} {describe(refusal)}".rstrip(), seconds) from refusal
