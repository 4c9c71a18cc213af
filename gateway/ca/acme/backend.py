"""An upstream CA that speaks ACME (RFC 8555, RFC 9773, draft-ietf-acme-profiles)."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from gateway.ca.acme.dns import Records
from gateway.ca.acme.hints import read_hint
from gateway.ca.acme.order import DEFAULT_PAUSE, Order, Senseless, ordered_names, pauses, read_order
from gateway.ca.acme.owners import OrderOwners
from gateway.ca.acme.proofs import Prover
from gateway.ca.acme.session import Account, AcmeSession, describe, judge, loop_time
from gateway.ca.acme.trials import try_acme
from gateway.ca.http import HttpClient
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    RenewalHint,
    Trial,
    UnknownResult,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Setup
from gateway.config.remote_cas import AcmeCA as Config
from gateway.errors import Rejection
from gateway.model import Identifier, RevocationReason
from gateway.pki import base64url
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.names import attribute_oid
from gateway.wire.acme.ari import format_certificate_id
from gateway.wire.acme.client import AcmeAnswer, AcmeRefusal

CALL_SECONDS = 60.0
"""The most that one question works on an order: less than whoever asks allows, so that it ends with an answer."""
SPARE_SECONDS = 1.0
MAX_CHAIN = 8
MAX_ALTERNATES = 8
BUSY_RETRY = 30
"""Seconds after which a request may come again whose order serves another one."""
_COMMON_NAME = attribute_oid("CN")
_SUPERSEDED = "badRevocationReason"

log = structlog.get_logger(__name__)


class AcmeCA(RemoteBackend):
    """An `UpstreamCA` behind ACME.

    `issue` places an order, by which nothing is certified, and its URL is stored; proofs, finalization and the certificate come
    with `poll` and `find`, which read the order first. An order yields one certificate at most however often it is finalized, and
    a request goes to another order only where its first one can yield none: so nothing is ever in doubt for good.
    """

    capabilities = (
        Capability.FIND
        | Capability.POLL
        | Capability.REVOKE
        | Capability.RENEWAL_HINT
        | Capability.CHOOSES_VALIDITY
        | Capability.CHOOSES_COMMON_NAME
    )

    def __init__(self, setup: Setup, config: Config, account: Account, records: Records | None, http: HttpClient) -> None:
        super().__init__(setup)
        self._config = config
        self._http = http
        self._records = records
        self._session = AcmeSession(config.directory, account, http)
        self._owners = OrderOwners(setup.claims)
        self._prover = Prover(self._session, setup.claims, http=config.http01, records=records)
        self.thumbprint = account.signer.public.thumbprint if config.http01 else None
        """What http-01 is answered with after the token and a dot (RFC 8555 §8.1); None where it is not answered here."""

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        await self._prover.close()
        await self._http.close()

    async def issue(self, request: IssueRequest) -> UpstreamPending:
        """Place an order; raises UpstreamRejected, NotSent: an order that nobody finalizes yields nothing."""
        names = ordered_names(request)
        until = _until(request)
        await self._session.open(until)
        try:
            answer = await self._order(request, names, until)
            order, url = read_order(answer), self._session.check_url(answer.headers.get("location"))
        except AcmeRefusal as refusal:
            raise self._told(request, judge(refusal)) from refusal
        except Senseless as error:
            raise NotSent(f"the CA gave an order that makes no sense: {error}") from error
        if order.identifiers != frozenset(names):
            raise NotSent("the CA gave an order for other names")
        if order.status not in {"pending", "ready"} or not await self._owners.claim(url, request.request_id):
            # CAs give an order again for the same names as long as it is open: never is it used for two requests.
            raise NotSent("the CA gave an order that serves another request", BUSY_RETRY)
        return UpstreamPending(url, DEFAULT_PAUSE)

    async def _order(self, request: IssueRequest, names: tuple[Identifier, ...], until: float) -> AcmeAnswer:
        """Order, in place of the certificate that is renewed where the CA takes that; raises AcmeRefusal, NotSent.

        A CA may refuse for the certificate's sake (replaced already, another account's), and then it is ordered as any
        (RFC 9773 §5).
        """
        client, profile = self._session.client, self._config.profile
        answer: AcmeAnswer
        if (replaces := self._replaced(request)) is not None:
            try:
                answer = await self._session.run(client.order(names, profile=profile, replaces=replaces), until)
            except AcmeRefusal as refusal:
                if not 400 <= refusal.status < 500:
                    raise
                cause = describe(refusal)
                log.info("the CA takes no order in place of a certificate", upstream_ca=self.name, cause=cause)
            else:
                return answer
        answer = await self._session.run(client.order(names, profile=profile), until)
        return answer

    def _replaced(self, request: IssueRequest) -> str | None:
        """Return how the CA calls the certificate that a request renews (RFC 9773 §4.1); None where it is not this CA's."""
        if request.renews is None or not isinstance(self._session.client.urls.get("renewalInfo"), str):
            return None
        leaf = parse_certificate(request.renews)
        if leaf.authority_key_id is None or leaf.issuer_der not in {issuer.subject.der for issuer in self._certificates}:
            return None
        return format_certificate_id(leaf.authority_key_id, leaf.serial)

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Go on with the order; raises UpstreamRejected where it can yield nothing, NotSent, UnknownResult."""
        until = _until(request)
        await self._session.open(until)
        url = self._session.check_url(reference)
        if not await self._owners.claim(url, request.request_id):
            raise UnknownResult("the order of this request serves another one")
        try:
            return await self._follow(request, url, until)
        except UpstreamRejected:
            # a CA may give an order that is still open to the next request for these names
            await self._owners.give_back(url, request.request_id)
            raise

    async def _follow(self, request: IssueRequest, url: str, until: float) -> UpstreamIssued | UpstreamPending:
        names = frozenset(ordered_names(request))
        order = await self._read(url, until)
        for pause in pauses(order.retry_after):
            if order.identifiers != names:
                raise UnknownResult("the CA shows an order for other names under the URL of this request's")
            answer = await self._step(request, url, order, until)
            if answer is not None:
                return answer
            before, order = order, await self._read(url, until)
            if order.status == before.status:
                if loop_time() + pause >= until:
                    break
                await asyncio.sleep(pause)
                order = await self._read(url, until)
        return UpstreamPending(url, order.retry_after or DEFAULT_PAUSE)

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Go on with the order of a request; None where it has none on record: nothing can have been finalized."""
        if request.reference is None:
            return None
        return await self.poll(request, request.reference)

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Revoke by the account's key; a reason that the CA does not take is left out."""
        until = loop_time() + self._http.settings.timeout
        await self._session.open(until)
        try:
            await self._revoke(certificate, reason, until)
        except AcmeRefusal as refusal:
            if refusal.type == "alreadyRevoked":
                return
            if refusal.type == "accountDoesNotExist":
                raise AuthFailed("the CA does not know our account any more") from refusal
            if refusal.type == "unauthorized":
                raise UpstreamRejected(f"the CA does not revoke it: {describe(refusal)}") from refusal
            raise judge(refusal, UnknownResult) from refusal

    async def _revoke(self, certificate: bytes, reason: RevocationReason, until: float) -> None:
        client = self._session.client
        try:
            await self._session.run(client.revoke(certificate, reason), until, UnknownResult)
        except AcmeRefusal as refusal:
            if refusal.type != _SUPERSEDED:
                raise
            await self._session.run(client.revoke(certificate), until, UnknownResult)

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        """Ask when a certificate should be renewed (RFC 9773 §4); None where the CA does not say. Raises NotSent."""
        until = loop_time() + self._http.settings.timeout
        urls = await self._session.directory(until)
        leaf = parse_certificate(certificate)
        if not isinstance(urls.get("renewalInfo"), str) or leaf.authority_key_id is None:
            return None
        try:
            name = format_certificate_id(leaf.authority_key_id, leaf.serial)
            return read_hint(await self._session.run(self._session.client.renewal_info(name), until))
        except AcmeRefusal as refusal:
            if refusal.status == 404:
                return None
            raise NotSent(f"the CA answered {refusal.status} to the question when to renew") from refusal

    async def health(self) -> None:
        """Fetch what is public; raises NotSent."""
        answer = await self._http.read(self._config.directory)
        if answer.status != 200 or "newOrder" not in answer.json():
            raise NotSent(f"the CA answered {answer.status} to the question for its directory, or with what is none")

    async def check(self) -> tuple[Trial, ...]:
        """Try directory, account and the way to DNS; nothing is ordered."""
        try:
            await self.health()
        except UpstreamError as error:
            advice = "look at `directory`, `connection` and whether the CA runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        found = Trial("connection", good=True, finding="the CA shows its directory")
        return (found, *await try_acme(self._session, self._config, self._records))

    async def _read(self, url: str, until: float) -> Order:
        try:
            return read_order(await self._session.read(url, until))
        except Senseless as error:
            raise NotSent(f"the CA gave an order that makes no sense: {error}") from error
        except AcmeRefusal as refusal:
            meant = judge(refusal)
            if isinstance(meant, UpstreamRejected):
                # what became of it can be read nowhere else
                raise UnknownResult(f"the CA does not show the order any more: {describe(refusal)}") from refusal
            raise meant from refusal

    async def _step(self, request: IssueRequest, url: str, order: Order, until: float) -> UpstreamIssued | UpstreamPending | None:
        """Do what an order waits for; None where it is to be read again at once."""
        match order.status:
            case "valid":
                return await self._fetch(order, until)
            case "invalid":
                reason = order.reason or await self._explain(order, until)
                raise self._told(request, UpstreamRejected(f"the CA has ended the order: {reason}"))
            case "ready":
                await self._finalize(request, url, order, until)
                return None
            case "pending":
                ended = await self._prover.prove(url, order, until)
                return None if ended else UpstreamPending(url, order.retry_after or DEFAULT_PAUSE)
            case "processing":
                return None
            case _:
                raise UnknownResult("the CA gives the order a status that does not exist")

    async def _finalize(self, request: IssueRequest, url: str, order: Order, until: float) -> None:
        """Send the PKCS#10; raises UpstreamRejected where the CA does not take it, UnknownResult."""
        csr = base64url.encode(request.request)
        flow = self._session.client.post(self._session.check_url(order.finalize), {"csr": csr})
        try:
            await self._session.run(flow, until, UnknownResult)
        except AcmeRefusal as refusal:
            error = judge(refusal, UnknownResult)
            if not isinstance(error, UpstreamRejected):
                raise error from refusal
            # An earlier sending may have come through: then the order has gone on, whatever is said about this one.
            after = await self._read(url, until)
            if after.status in {"pending", "ready"} and refusal.type != "orderNotReady":
                raise self._told(request, error) from refusal
            if after.status == "ready":
                raise NotSent("the CA says that an order is ready, and then that it is not") from refusal

    async def _fetch(self, order: Order, until: float) -> UpstreamIssued:
        url = self._session.check_url(order.certificate)
        try:
            answer = await self._session.read(url, until)
            chains = [_read_chain(answer)]
            others = answer.links("alternate")[:MAX_ALTERNATES] if not self._is_wanted(chains[0]) else ()
            for other in others:
                chains += [_read_chain(await self._session.read(self._session.check_url(other), until))]
        except AcmeRefusal as refusal:
            error = judge(refusal)
            if isinstance(error, UpstreamRejected):
                raise NotSent(f"the CA does not give the certificate: {describe(refusal)}") from refusal
            raise error from refusal
        leaf, *chain = next(filter(self._is_wanted, chains), chains[0])
        return UpstreamIssued(leaf, self.complete(tuple(chain)), url)

    def _is_wanted(self, chain: tuple[bytes, ...]) -> bool:
        """Say whether a chain leads to a pinned certificate, and has the preferred issuer in it.

        Names do not tell: below several roots an issuing CA has one name, one key and several certificates.
        """
        try:
            parsed = tuple(map(parse_certificate, chain))
            if self.complete(chain[1:])[-1] not in self._chain:
                return False
        except (Rejection, UnknownResult):
            return False
        preferred = self._config.preferred_chain
        issuers = (a.value for each in parsed for rdn in each.issuer.rdns for a in rdn if a.oid == _COMMON_NAME)
        return preferred is None or preferred in issuers

    async def _explain(self, order: Order, until: float) -> str:
        """Return why the CA ended an order, by its authorizations."""
        for url in order.authorizations:
            try:
                found = await self._prover.read(self._session.check_url(url), until)
            except UpstreamError:
                break
            if found.status != "valid":
                return f"{found.name.value}: {found.reason or f'its authorization is {found.status}'}"
        return "no reason is given"

    def _told(self, request: IssueRequest, error: UpstreamError) -> UpstreamError:
        if isinstance(error, UpstreamRejected):
            log.warning(
                "the upstream CA refused a request", upstream_ca=self.name, request_id=request.request_id, cause=str(error)
            )
        return error


def _until(request: IssueRequest) -> float:
    """Return the time of the event loop until which an answer is worked on."""
    return loop_time() + max(SPARE_SECONDS, min(request.timeout - SPARE_SECONDS, CALL_SECONDS))


def _read_chain(answer: AcmeAnswer) -> tuple[bytes, ...]:
    """Return the certificates of an answer, DER, leaf first; raises NotSent, by which it is fetched again."""
    try:
        chain = pem_to_ders(answer.body)
    except ValueError as error:
        raise NotSent("the CA gave what are no certificates") from error
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise NotSent("the CA gave no certificate, or a chain without end")
    return tuple(chain)
