"""Which request an order serves: a CA gives an open order again to whoever asks for the same names (RFC 8555 §7.4)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import structlog

from gateway.ca.acme.session import loop_time
from gateway.ca.claims import Claims
from gateway.ca.interfaces import NotSent
from gateway.errors import StoreUnavailable

CLAIM_SECONDS = 43_200.0
"""How long an order is a request's without being asked about: longer than a gateway is away, unless it stays away."""
RENEW_SECONDS = 3600.0
"""After this a claim is renewed; before, the store need not be asked."""
MAX_KNOWN = 10_000
"""Claims of this worker's own that are remembered."""
STORE_RETRY = 15

log = structlog.get_logger(__name__)


class OrderOwners:
    """The first request that claims an order has it, whichever worker works on it, until a CA refuses the request."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def claim(self, url: str, request_id: str) -> bool:
        """Say whether an order serves this request and no other; raises NotSent where the store cannot tell."""
        now = loop_time()
        if now < self._known.get((url, request_id), 0.0):
            return True
        try:
            taken = await self._claims.take(claim_name("order", url), request_id, CLAIM_SECONDS)
        except StoreUnavailable as error:
            raise NotSent("the store cannot tell whether an order serves another request", STORE_RETRY) from error
        if taken:
            self._known[url, request_id] = now + RENEW_SECONDS
            self._known.move_to_end((url, request_id))
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return taken

    async def give_back(self, url: str, request_id: str) -> None:
        """Let another request have an order that will never serve this one; where the store is away the claim lapses."""
        self._known.pop((url, request_id), None)
        try:
            await self._claims.give_back(claim_name("order", url), request_id)
        except StoreUnavailable as error:
            log.info("an order stays claimed until its time is over", request_id=request_id, cause=str(error))


def claim_name(what: str, url: str) -> str:
    """Return the name of a claim; URLs of orders are long, and may be secrets (RFC 8555 §10.5)."""
    return f"acme:{what}:{hashlib.sha256(url.encode()).hexdigest()}"
