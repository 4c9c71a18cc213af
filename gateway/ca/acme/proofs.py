"""Proves control of an order's names: http-01 by the gateway's own listener, dns-01 by records (RFC 8555 §7.5, §8.3-8.4)."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

import structlog

from gateway.ca.acme.dns import Records
from gateway.ca.acme.order import Authorization, Challenge, Order, Senseless, pauses, read_authorization
from gateway.ca.acme.owners import STORE_RETRY, claim_name
from gateway.ca.acme.session import AcmeSession, judge, loop_time
from gateway.ca.claims import Claims
from gateway.ca.interfaces import AuthFailed, NotSent, UpstreamError, UpstreamRejected
from gateway.errors import StoreUnavailable
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.wire.acme.challenges import DNS_LABEL, dns_value, key_authorization
from gateway.wire.acme.client import AcmeRefusal

PROOF_SECONDS = 900.0
"""How long the CA may take to look, all names together; then the order is begun with anew by the next question about it."""
CLOSE_SECONDS = 10.0
"""How long records that were added may take to be removed at the end."""
TURN_SECONDS = 60.0
"""How long an order stays with a worker that does not renew its turn: after a crash another one takes it then."""
TELLS = 2
TELL_PAUSE = 1.0
"""How often the CA is told again that a challenge is answered, and how long after, in seconds."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Turn:
    """One worker's time with an order."""

    lost: bool = False
    """Whether another worker has the order by now, and needs the records that are there."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """One authorization on its way."""

    url: str
    challenge: Challenge
    record: tuple[str, str] | None = field(repr=False)
    """Name and value of the TXT record that it needs."""


class Prover:
    """Works on the authorizations of orders in the background: hooks and zones may take longer than a question.

    One worker works on an order at a time, for two would take each other's records away. An order whose work was broken off (its
    process ended) is begun with anew: records are added twice, which changes nothing.
    """

    def __init__(self, session: AcmeSession, claims: Claims, *, http: bool, records: Records | None) -> None:
        self._session = session
        self._claims = claims
        self._holder = secrets.token_hex(8)
        self._http = http
        self._records = records
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def prove(self, url: str, order: Order, until: float) -> bool:
        """Work on an order that is pending, until the time is over; says whether its authorizations have come to an end.

        They have not while another worker is at it. Raises UpstreamRejected where a name cannot be proved, NotSent.
        """
        self._tasks = {known: task for known, task in self._tasks.items() if known == url or not task.done()}
        if url not in self._tasks and not await self._take_turn(url):
            return False
        task = self._tasks.get(url)
        if task is None:
            task = self._tasks[url] = asyncio.create_task(self._work(url, order))
            task.add_done_callback(_take_error)
        done, _ = await asyncio.wait((task,), timeout=max(0.0, until - loop_time()))
        if not done:
            return False
        if self._tasks.get(url) is task:
            del self._tasks[url]
        if task.cancelled():
            raise NotSent("the gateway is about to end, or another worker has taken the order over")
        await task
        return True

    async def close(self) -> None:
        """Break off what is under way, and remove its records."""
        tasks = tuple(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    async def _work(self, url: str, order: Order) -> None:
        """Prove an order for as long as it is ours."""
        turn, work = _Turn(), asyncio.current_task()
        keeper = asyncio.create_task(self._keep_turn(url, turn, work))
        try:
            await self._prove(order, turn)
        finally:
            keeper.cancel()
            if not turn.lost:
                await self._end_turn(url)

    async def _take_turn(self, url: str) -> bool:
        """Have an order for `TURN_SECONDS`; raises NotSent where the store cannot tell whose it is."""
        try:
            return await self._claims.take(claim_name("proof", url), self._holder, TURN_SECONDS)
        except StoreUnavailable as error:
            raise NotSent("the store cannot tell whether another worker proves the order", STORE_RETRY) from error

    async def _keep_turn(self, url: str, turn: _Turn, work: asyncio.Task[None] | None) -> None:
        """Renew a turn until cancelled, and break the work off when it is over all the same."""
        until = loop_time() + TURN_SECONDS
        while True:
            await asyncio.sleep(TURN_SECONDS / 4)
            try:
                ours, until = await self._take_turn(url), loop_time() + TURN_SECONDS
            except NotSent:
                ours = loop_time() < until - TURN_SECONDS / 4
            if not ours:
                break
        turn.lost = True
        if work is not None:
            work.cancel()

    async def _end_turn(self, url: str) -> None:
        """Let another worker have the order; where the store is away the turn ends by itself."""
        try:
            await self._claims.give_back(claim_name("proof", url), self._holder)
        except StoreUnavailable as error:
            log.info("the turn of an order ends by itself", cause=str(error))

    async def _prove(self, order: Order, turn: _Turn) -> None:
        until = loop_time() + PROOF_SECONDS
        placed: list[tuple[str, str]] = []
        try:
            proofs = [proof for url in order.authorizations if (proof := await self._begin(url, order.identifiers, until))]
            for record in dict.fromkeys(proof.record for proof in proofs if proof.record is not None):
                placed.append(record)
                await self._place(record)
            if placed and self._records is not None:
                await asyncio.sleep(self._records.wait)
            for proof in proofs:
                await self._answer(proof, until)
            for proof in proofs:
                await self._await(proof.url, until)
        finally:
            # whoever has taken the order over needs them, and removes them
            for record in placed if not turn.lost else ():
                await self._remove(record)

    async def _begin(self, url: object, names: frozenset[Identifier], until: float) -> _Proof | None:
        """Choose a challenge; None where the authorization has come to an end already."""
        where = self._session.check_url(url)
        authorization = await self.read(where, until)
        if authorization.name not in names:
            raise NotSent("the CA wants a name proved that was not ordered")
        if authorization.status != "pending":
            return None
        challenge = self._choose(authorization)
        if challenge.type is ChallengeType.HTTP_01:
            return _Proof(where, challenge, None)
        name = f"{DNS_LABEL}.{authorization.name.value.removeprefix('*.')}"
        thumbprint = self._session.account.signer.public.thumbprint
        return _Proof(where, challenge, (name, dns_value(key_authorization(challenge.token, thumbprint))))

    def _choose(self, authorization: Authorization) -> Challenge:
        name = authorization.name
        wanted = []
        if self._http and not name.wildcard:
            wanted.append(ChallengeType.HTTP_01)
        if self._records is not None and name.type is IdentifierType.DNS:
            wanted.append(ChallengeType.DNS_01)
        for kind in wanted:
            for challenge in authorization.challenges:
                if challenge.type is kind:
                    return challenge
        raise UpstreamRejected(f"the CA offers no way to prove {name.value} that is configured here")

    async def _place(self, record: tuple[str, str]) -> None:
        if self._records is not None:
            await self._records.add(*record)

    async def _answer(self, proof: _Proof, until: float) -> None:
        """Tell the CA to look, unless it does so already; where nobody knows whether it heard that, it is told again.

        It may be looking by then, so the records have to stay.
        """
        if proof.challenge.status != "pending":
            return
        for _ in range(TELLS):
            try:
                await self._tell(proof, until)
            except AuthFailed:
                raise
            except UpstreamError as error:
                log.info("the CA may not know that a challenge is answered", cause=str(error))
            else:
                return
            await asyncio.sleep(TELL_PAUSE)
            if (await self.read(proof.url, until)).status != "pending":
                return
        await self._tell(proof, until)

    async def _tell(self, proof: _Proof, until: float) -> None:
        try:
            await self._session.run(self._session.client.post(self._session.check_url(proof.challenge.url), {}), until)
        except AcmeRefusal as refusal:
            # Another worker may have told it; what has become of the authorization is read next.
            error = judge(refusal)
            if not isinstance(error, UpstreamRejected):
                raise error from refusal

    async def _await(self, url: str, until: float) -> None:
        authorization = await self.read(url, until)
        for pause in pauses(authorization.retry_after):
            if authorization.status != "pending":
                return
            if loop_time() + pause >= until:
                raise NotSent("the CA has not looked whether its challenges are answered")
            await asyncio.sleep(pause)
            authorization = await self.read(url, until)

    async def read(self, url: str, until: float) -> Authorization:
        """Read one authorization; raises NotSent."""
        try:
            return read_authorization(await self._session.read(url, until))
        except Senseless as error:
            raise NotSent(f"the CA gave an authorization that makes no sense: {error}") from error
        except AcmeRefusal as refusal:
            raise _unreadable(refusal) from refusal

    async def _remove(self, record: tuple[str, str]) -> None:
        """Remove a record; where that fails it is left, and harmless: it is good for one challenge that is over."""
        if self._records is None:
            return
        try:
            await self._records.remove(*record)
        except UpstreamError as error:
            log.warning("a TXT record of a challenge could not be removed", name=record[0], cause=str(error))


def _take_error(task: asyncio.Task[None]) -> None:
    """Look at the error of a task that nobody may ask about any more: another worker has the order by now."""
    if not task.cancelled():
        task.exception()


def _unreadable(refusal: AcmeRefusal) -> UpstreamError:
    error = judge(refusal)
    return error if isinstance(error, AuthFailed) else NotSent(f"the CA does not show an authorization: {refusal.status}")
