"""Orders: placed, watched, finalized (RFC 8555 §7.4)."""

from __future__ import annotations

from gateway.acme import Order, OrderStatus
from gateway.metrics.registry import Result
from gateway.ra.acme.authority import AcmeAuthority
from gateway.web.acme.requests import Asked
from gateway.web.acme.responses import Reply
from gateway.wire.acme.objects import encode_order
from gateway.wire.acme.requests import check_empty, parse_finalize, parse_order

MAX_WAITING = 64
"""Reads of orders that may wait in one worker at once; others are answered at once, so that places are left for everybody."""
MAX_NAMES = 5
"""Names of an order that its log line tells."""
_RESULTS = {OrderStatus.VALID: Result.ISSUED, OrderStatus.PROCESSING: Result.PENDING, OrderStatus.INVALID: Result.REJECTED}


class Orders:
    """Answers for orders of every profile, for the whole life of one worker."""

    def __init__(self, authority: AcmeAuthority) -> None:
        self._authority = authority
        self._waiting = 0

    async def new_order(self, asked: Asked) -> Reply:
        """Place an order, 201 (RFC 8555 §7.4)."""
        request = parse_order(asked.payload)
        order = await self._authority.new_order(asked.snapshot, asked.service.profile, asked.owner, request, asked.source)
        return self._show(asked, order, status=201, changed=True)

    async def order(self, asked: Asked) -> Reply:
        """Show an order; one that is processing after a few seconds, in which it may have come to its end (RFC 8555 §7.4)."""
        check_empty(asked.signed)
        about = asked.snapshot, asked.service.profile, asked.owner, asked.at.ids[0]
        wait = self._waiting < MAX_WAITING
        self._waiting += 1
        try:
            order = await self._authority.find_order(*about, wait=wait)
        finally:
            self._waiting -= 1
        return self._show(asked, order)

    async def finalize(self, asked: Asked) -> Reply:
        """Have an order certified; the same CSR may come again and again (RFC 8555 §7.4)."""
        csr = parse_finalize(asked.payload, padded=asked.service.padded_csr)
        order = await self._authority.finalize(
            asked.snapshot, asked.service.profile, asked.owner, asked.at.ids[0], csr, asked.source
        )
        return self._show(asked, order, changed=True, result=_RESULTS.get(order.status, Result.FOUND))

    def _show(
        self, asked: Asked, order: Order, *, status: int = 200, changed: bool = False, result: Result = Result.FOUND
    ) -> Reply:
        """Show an order, always with its own URL: golang's client polls the Location of whatever it was answered."""
        names = [identifier.value for identifier in order.identifiers]
        return Reply(
            status,
            encode_order(order, asked.urls),
            location=asked.urls.order(order.id),
            retry_after=self._authority.retry_after(order),
            changed=changed,
            result=result,
            facts={
                "order": order.id,
                "status": order.status.value,
                "names": ", ".join(names[:MAX_NAMES]) + (" …" if len(names) > MAX_NAMES else ""),
                "request_id": order.request_id,
                "cause": None if order.error is None else order.error.detail,
            },
        )
