import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.ca.interfaces import NotSent, UnknownResult, UpstreamRejected
from gateway.metrics.registry import UpstreamOperation
from gateway.metrics.worker import REGISTRY
from gateway.ra.upstream import ask


async def answer() -> str:
    return "a certificate"


def failing(error: Exception) -> Callable[[], Awaitable[str]]:
    async def fail() -> str:
        raise error

    return fail


async def hang() -> str:
    await asyncio.Event().wait()
    return ""


def counted(name: str, result: str) -> float:
    labels = {"upstream_ca": name, "operation": "issue", "result": result}
    return REGISTRY.get_sample_value("gateway_upstream_request_duration_seconds_count", labels) or 0.0


@pytest.mark.parametrize(
    ("question", "raised", "result"),
    [
        pytest.param(answer, None, "answered", id="answered"),
        pytest.param(failing(UpstreamRejected("no")), UpstreamRejected, "rejected", id="rejected"),
        pytest.param(failing(NotSent("down")), NotSent, "not_sent", id="not-sent"),
        pytest.param(hang, TimeoutError, "timeout", id="timeout"),
        pytest.param(failing(UnknownResult("broken off")), UnknownResult, "failed", id="unknown"),
        pytest.param(failing(KeyError("a bug")), KeyError, "failed", id="bug"),
    ],
)
async def test_every_answer_is_counted_once(
    question: Callable[[], Awaitable[str]], raised: type[Exception] | None, result: str, request: pytest.FixtureRequest
) -> None:
    upstream: Any = SimpleNamespace(name=f"ca-{request.node.callspec.id}")
    asked = ask(upstream, UpstreamOperation.ISSUE, question(), 0.05)
    if raised is None:
        assert await asked == "a certificate"
    else:
        with pytest.raises(raised):
            await asked
    assert {r: counted(upstream.name, r) for r in ("answered", "rejected", "not_sent", "timeout", "failed")} == {
        **dict.fromkeys(("answered", "rejected", "not_sent", "timeout", "failed"), 0.0),
        result: 1.0,
    }
