"""Questions to an upstream CA, bounded in time and measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from gateway.ca.interfaces import AuthFailed, NotSent, Several, UpstreamCA, UpstreamRejected
from gateway.metrics import worker as metrics
from gateway.metrics.registry import UpstreamOperation, UpstreamResult
from gateway.tracing import span

T = TypeVar("T")


def destination(upstream: UpstreamCA, earlier: str | None = None) -> str | None:
    """Return what a request is called upstream while it is being sent; None where its CA is one, which the row names."""
    return upstream.may_go_to(earlier) if isinstance(upstream, Several) else None


async def ask(upstream: UpstreamCA, operation: UpstreamOperation, question: Awaitable[T], within: float) -> T:
    """Return the answer. Raises TimeoutError after `within` seconds, and whatever the backend raises."""
    begun = perf_counter()
    result = UpstreamResult.FAILED
    try:
        with span(f"upstream.{operation.value}"):
            async with asyncio.timeout(within):
                answer = await question
        result = UpstreamResult.ANSWERED
    except UpstreamRejected:
        result = UpstreamResult.REJECTED
        raise
    except AuthFailed:
        result = UpstreamResult.AUTH_FAILED
        raise
    except NotSent:
        result = UpstreamResult.NOT_SENT
        raise
    except TimeoutError:
        result = UpstreamResult.TIMEOUT
        raise
    finally:
        metrics.observe_upstream(upstream.name, operation, result, perf_counter() - begun)
    return answer
