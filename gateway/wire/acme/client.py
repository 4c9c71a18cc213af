"""The client's side of ACME, sans I/O: flows that yield what is to be sent, and pauses, and take answers (RFC 8555 §7).

client = AcmeClient("https://pki.example.com/acme/corp/directory", Signer.of(key))
drive(client.register(), send, sleep)
chain = drive(client.issue([Identifier(IdentifierType.DNS, "a.example")], csr, http_01), send, sleep)
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.errors import MalformedMessage
from gateway.model import ChallengeType, Identifier, IdentifierType, RevocationReason
from gateway.pki import base64url
from gateway.pki.certificate import pem_to_ders
from gateway.pki.jws import parse_json_object
from gateway.pki.jws_signer import Signer, flatten_mac
from gateway.wire.acme.challenges import key_authorization
from gateway.wire.acme.jws import MEDIA_JOSE
from gateway.wire.acme.objects import format_time
from gateway.wire.acme.problems import NAMESPACE

MAX_NONCE_TRIES = 10
MAX_POLLS = 1200
DEFAULT_PAUSE = 1.0
LONGEST_PAUSE = 600.0
USER_AGENT = "pki-gateway"

_WAITING = frozenset({"pending", "processing"})
_JOSE = {"Content-Type": MEDIA_JOSE, "User-Agent": USER_AGENT}
_PLAIN = {"User-Agent": USER_AGENT}


@dataclass(frozen=True, slots=True)
class AcmeRequest:
    """A request as HTTP takes it, to an absolute URL."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to wait before the flow goes on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AcmeAnswer:
    """An answer; names of `headers` in lower case, values of one that came twice joined by commas."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> AcmeAnswer:
        """Take headers as HTTP libraries give them."""
        found: dict[str, str] = {}
        for name, value in headers:
            low = name.lower()
            found[low] = f"{found[low]}, {value}" if low in found else value
        return cls(status, found, body)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object; raises MalformedMessage where there is none."""
        return parse_json_object(self.body)

    @property
    def location(self) -> str:
        """The URL of what was made; raises MalformedMessage where there is none."""
        if "location" not in self.headers:
            raise MalformedMessage("the answer has no Location")
        return self.headers["location"]

    @property
    def retry_after(self) -> int | None:
        """Seconds of Retry-After; a date is not read."""
        value = self.headers.get("retry-after", "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None

    def links(self, relation: str) -> tuple[str, ...]:
        """Return the URLs of Link headers of one relation (RFC 8288 §3)."""
        found = []
        for link in self.headers.get("link", "").split(","):
            url, _, parameters = link.strip().partition(">")
            if parameters.replace(" ", "").replace('"', "") == f";rel={relation}":
                found.append(url.removeprefix("<"))
        return tuple(found)


class AcmeRefusal(Exception):
    """The server refused: `type` without its namespace, and `detail`, what it says in words."""

    def __init__(self, answer: AcmeAnswer) -> None:
        try:
            self.problem: Mapping[str, Any] = answer.document
        except MalformedMessage:
            self.problem = {}
        self.answer = answer
        self.status = answer.status
        self.type = str(self.problem.get("type", "")).removeprefix(NAMESPACE)
        self.detail = str(self.problem.get("detail", ""))
        super().__init__(f"{self.status} {self.type}: {self.detail}")


class OrderFailed(Exception):
    """An order or an authorization came to nothing; `document` says why."""

    def __init__(self, what: str, document: Mapping[str, Any]) -> None:
        super().__init__(f"the {what} is {document.get('status')}: {_reason(document)}")
        self.document = document


def _reason(document: Mapping[str, Any]) -> str:
    errors = [document.get("error"), *(each.get("error") for each in document.get("challenges", ()))]
    return "; ".join(str(error.get("detail", "")) for error in errors if error) or "no reason is given"


@dataclass(frozen=True, slots=True)
class ExternalKey:
    """What the operator gave out to bind an account (RFC 8555 §7.3.4)."""

    kid: str
    key: bytes = field(repr=False)
    algorithm: str = "HS256"


@dataclass(frozen=True, slots=True)
class Trial:
    """A challenge to be answered: `authorization` is its key authorization, empty where it has no token."""

    identifier: Identifier
    type: ChallengeType
    token: str
    authorization: str
    wildcard: bool
    document: Mapping[str, Any] = field(repr=False)


Flow = Generator[AcmeRequest | Pause, AcmeAnswer | None, Any]
Respond = Callable[[Trial], Mapping[str, object] | None]
"""Makes a challenge come true and returns the payload to send; None where it wants another challenge of the authorization."""


def drive(flow: Flow, send: Callable[[AcmeRequest], AcmeAnswer], sleep: Callable[[float], object]) -> Any:
    """Run a flow to its end and return what it returns."""
    answer: AcmeAnswer | None = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as end:
            return end.value
        answer = send(step) if isinstance(step, AcmeRequest) else None
        if isinstance(step, Pause):
            sleep(step.seconds)


async def drive_async(
    flow: Flow, send: Callable[[AcmeRequest], Awaitable[AcmeAnswer]], sleep: Callable[[float], Awaitable[object]]
) -> Any:
    """Run a flow to its end and return what it returns."""
    answer: AcmeAnswer | None = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as end:
            return end.value
        answer = await send(step) if isinstance(step, AcmeRequest) else None
        if isinstance(step, Pause):
            await sleep(step.seconds)


class AcmeClient:
    """One account at one directory; `urls` are the directory's, `kid` the account's URL when it is known."""

    def __init__(self, directory: str, signer: Signer, kid: str | None = None) -> None:
        self.directory = directory
        self.signer = signer
        self.kid = kid
        self.urls: Mapping[str, Any] = {}
        self.nonces: list[str] = []

    # Requests

    def open(self) -> Flow:
        """Fetch the directory, once; returns it."""
        if not self.urls:
            answer = yield from self.get(self.directory)
            self.urls = answer.document
        return self.urls

    def get(self, url: str) -> Flow:
        """Fetch what is public; returns the answer."""
        answer = yield from self._ask(AcmeRequest("GET", url, _PLAIN))
        return _accepted(answer)

    def post(
        self, url: str, payload: Mapping[str, object] | None, *, signer: Signer | None = None, accept: str | None = None
    ) -> Flow:
        """Send a signed request, again while the nonce is refused; returns the answer or raises AcmeRefusal.

        `payload` None is POST-as-GET. With `signer` another key than the account's signs, and is named by itself (§6.2).
        """
        body = b"" if payload is None else json.dumps(payload, separators=(",", ":")).encode()
        headers = _JOSE if accept is None else {**_JOSE, "Accept": accept}
        tries = 0
        while True:
            nonce = yield from self._nonce()
            answer = yield from self._ask(AcmeRequest("POST", url, headers, self.jose(url, body, nonce, signer=signer)))
            tries += 1
            if tries >= MAX_NONCE_TRIES or not _is_bad_nonce(answer):
                return _accepted(answer)

    def jose(self, url: str, payload: bytes, nonce: str, *, signer: Signer | None = None) -> bytes:
        """Return the body of a signed request (RFC 8555 §6.2)."""
        used = signer or self.signer
        named = {"kid": self.kid} if signer is None and self.kid is not None else {"jwk": used.jwk}
        return json.dumps(used.flatten({**named, "nonce": nonce, "url": url}, payload)).encode("ascii")

    def _nonce(self) -> Flow:
        if not self.nonces:
            urls = yield from self.open()
            answer = yield from self._ask(AcmeRequest("HEAD", urls["newNonce"], _PLAIN))
            if not self.nonces:
                raise AcmeRefusal(answer)
        return self.nonces.pop()

    def _ask(self, request: AcmeRequest) -> Flow:
        answer = yield request
        if answer is None:
            raise TypeError("a request was not answered")
        if "replay-nonce" in answer.headers:
            self.nonces.append(answer.headers["replay-nonce"])
        return answer

    # Accounts

    def register(
        self,
        contact: Sequence[str] = (),
        *,
        terms_agreed: bool = True,
        external: ExternalKey | None = None,
        only_existing: bool = False,
    ) -> Flow:
        """Create the account of this key, or find it; returns the answer (§7.3, §7.3.1)."""
        urls = yield from self.open()
        payload: dict[str, object] = {"termsOfServiceAgreed": terms_agreed}
        if contact:
            payload["contact"] = list(contact)
        if only_existing:
            payload["onlyReturnExisting"] = True
        if external is not None:
            payload["externalAccountBinding"] = bind(external, self.signer, urls["newAccount"])
        answer = yield from self.post(urls["newAccount"], payload, signer=self.signer)
        self.kid = answer.location
        return answer

    def account(self, change: Mapping[str, object] | None = None) -> Flow:
        """Read the account, or change it; returns the answer (§7.3.2, §7.3.6)."""
        return (yield from self.post(self.kid or "", change))

    def change_key(self, new: Signer) -> Flow:
        """Give the account another key (§7.3.5)."""
        urls = yield from self.open()
        url = urls["keyChange"]
        payload = json.dumps({"account": self.kid, "oldKey": self.signer.jwk}).encode()
        answer = yield from self.post(url, new.flatten({"jwk": new.jwk, "url": url}, payload))
        self.signer = new
        return answer

    # Orders

    def order(
        self,
        identifiers: Sequence[Identifier],
        *,
        profile: str | None = None,
        replaces: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Flow:
        """Place an order; returns the answer (§7.4, RFC 9773 §5)."""
        urls = yield from self.open()
        payload: dict[str, object] = {"identifiers": [{"type": i.type.value, "value": i.value} for i in identifiers]}
        if profile is not None:
            payload["profile"] = profile
        if replaces is not None:
            payload["replaces"] = replaces
        if not_before is not None:
            payload["notBefore"] = format_time(not_before)
        if not_after is not None:
            payload["notAfter"] = format_time(not_after)
        return (yield from self.post(urls["newOrder"], payload))

    def authorize(self, url: str, respond: Respond) -> Flow:
        """Answer a challenge of an authorization and wait until it is over; returns it, or raises OrderFailed (§7.5)."""
        document = (yield from self.post(url, None)).document
        if document["status"] == "pending":
            trial, payload = self._choose(document, respond)
            yield from self.post(trial.document["url"], payload)
        document = yield from self.wait(url)
        if document["status"] != "valid":
            raise OrderFailed("authorization", document)
        return document

    def _choose(self, document: Mapping[str, Any], respond: Respond) -> tuple[Trial, Mapping[str, object]]:
        named = document["identifier"]
        for raw in document["challenges"]:
            token = raw.get("token", "")
            authorization = key_authorization(token, self.signer.public.thumbprint) if token else ""
            identifier = Identifier(IdentifierType(named["type"]), named["value"])
            trial = Trial(identifier, ChallengeType(raw["type"]), token, authorization, document.get("wildcard", False), raw)
            payload = respond(trial)
            if payload is not None:
                return trial, payload
        raise OrderFailed("authorization", {"status": "pending", "error": {"detail": "no challenge that can be answered"}})

    def finalize(self, order: AcmeAnswer, csr: bytes, url: str | None = None) -> Flow:
        """Send the CSR, DER, and wait for the certificate; returns the order, or raises OrderFailed (§7.4)."""
        answer = yield from self.post(order.document["finalize"], {"csr": base64url.encode(csr)})
        document = answer.document
        if document["status"] in _WAITING:
            yield Pause(_pause(answer))
            document = yield from self.wait(url or order.location)
        if document["status"] != "valid":
            raise OrderFailed("order", document)
        return document

    def wait(self, url: str) -> Flow:
        """Read an order or an authorization until it waits for nobody; returns its document."""
        polls = 0
        while True:
            answer = yield from self.post(url, None)
            document, polls = answer.document, polls + 1
            if document["status"] not in _WAITING:
                return document
            if polls >= MAX_POLLS:
                raise OrderFailed("object that was polled", document)
            yield Pause(_pause(answer))

    def issue(
        self,
        identifiers: Sequence[Identifier],
        csr: bytes,
        respond: Respond,
        *,
        profile: str | None = None,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> Flow:
        """Order, prove, finalize and fetch; returns the chain, DER, leaf first."""
        order = yield from self.order(identifiers, profile=profile, replaces=replaces, not_after=not_after)
        if order.document["status"] == "pending":
            for url in order.document["authorizations"]:
                yield from self.authorize(url, respond)
        document = yield from self.finalize(order, csr)
        return (yield from self.certificate(document["certificate"]))

    def certificate(self, url: str) -> Flow:
        """Fetch a certificate; returns the chain, DER, leaf first (§7.4.2)."""
        answer = yield from self.post(url, None)
        try:
            return pem_to_ders(answer.body)
        except ValueError as error:
            raise MalformedMessage("the answer is not PEM certificates", str(error)) from None

    def revoke(self, certificate: bytes, reason: RevocationReason | None = None, signer: Signer | None = None) -> Flow:
        """Revoke a certificate, DER; with `signer` by its own key (§7.6)."""
        urls = yield from self.open()
        payload: dict[str, object] = {"certificate": base64url.encode(certificate)}
        if reason is not None:
            payload["reason"] = reason.value
        return (yield from self.post(urls["revokeCert"], payload, signer=signer))

    def renewal_info(self, certificate_id: str) -> Flow:
        """Ask when to renew; returns the answer (RFC 9773 §4)."""
        urls = yield from self.open()
        return (yield from self.get(f"{urls['renewalInfo']}/{certificate_id}"))


def bind(external: ExternalKey, signer: Signer, url: str) -> dict[str, str]:
    """Return an external account binding of the signer's key (§7.3.4)."""
    payload = json.dumps(signer.jwk).encode()
    return flatten_mac(external.key, external.algorithm, {"kid": external.kid, "url": url}, payload)


def _accepted(answer: AcmeAnswer) -> AcmeAnswer:
    if not 200 <= answer.status < 300:
        raise AcmeRefusal(answer)
    return answer


def _is_bad_nonce(answer: AcmeAnswer) -> bool:
    return answer.status == 400 and AcmeRefusal(answer).type == "badNonce"


def _pause(answer: AcmeAnswer) -> float:
    asked = answer.retry_after
    return DEFAULT_PAUSE if asked is None else min(float(asked), LONGEST_PAUSE)
