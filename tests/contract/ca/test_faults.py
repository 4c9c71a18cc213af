"""Whatever goes wrong around a signing program: at most one certificate for one request, none lost, none wrong."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.interfaces import Capability, NotSent, UnknownResult, UpstreamError, UpstreamIssued
from gateway.ca.verify import verify_issued
from gateway.errors import Reason, Rejection
from gateway.pki.certificate import parse_certificate
from tests.contract.ca.conftest import Lab, NewRequest, judge, make_exec


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("crash before", "ended by signal 9", id="crash before issuing"),
        pytest.param("crash after", "ended by signal 9", id="crash after issuing"),
        pytest.param("reply lost", "is not JSON", id="reply lost after issuing"),
        pytest.param("reply cut", "is not JSON", id="reply cut"),
        pytest.param("status", "ended with status 1", id="answer but a bad status"),
        pytest.param("garbage before", "is not JSON", id="garbage without issuing"),
        pytest.param("garbage", "is not JSON", id="garbage after issuing"),
        pytest.param("deep", "is not JSON", id="endlessly nested JSON"),
        pytest.param("huge", "wrote more than", id="huge output"),
        pytest.param("stall before", "before its deadline", id="stall before issuing"),
        pytest.param("stall after", "before its deadline", id="stall after issuing"),
        pytest.param("ignore sigterm", "before its deadline", id="stall that ignores SIGTERM"),
    ],
)
async def test_unknown_result_is_cleared_up_by_find(
    exec_lab: Lab, new_request: NewRequest, hierarchy: Hierarchy, tmp_path: Path, fault: str, words: str
) -> None:
    request = new_request()
    exec_lab.set_faults(fault)
    began = time.monotonic()
    stalls = "stall" in fault or "ignore" in fault
    with pytest.raises(UnknownResult, match=words):
        await exec_lab.ca.issue(replace(request, timeout=2) if stalls else request)
    assert time.monotonic() - began < 20
    issued = await exec_lab.ca.find(request)
    if issued is None:
        issued = await exec_lab.ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, exec_lab.ca.chain(), datetime.now(UTC))
    judge(tmp_path, hierarchy, issued)
    assert exec_lab.count is not None
    assert exec_lab.count() == 1


async def test_retrying_through_any_number_of_lost_replies_issues_once(exec_lab: Lab, new_request: NewRequest) -> None:
    request = new_request()
    exec_lab.set_faults("reply lost", "status", "crash after", "huge")
    for _ in range(4):
        with pytest.raises(UnknownResult):
            await exec_lab.ca.issue(request)
    assert isinstance(await exec_lab.ca.issue(request), UpstreamIssued)
    assert exec_lab.count is not None
    assert exec_lab.count() == 1


async def test_find_that_fails_says_nothing(exec_lab: Lab, new_request: NewRequest) -> None:
    request = new_request()
    exec_lab.set_faults("reply lost", "garbage before", "crash before")
    for ask in (exec_lab.ca.issue, exec_lab.ca.find, exec_lab.ca.find):
        with pytest.raises(UnknownResult):
            await ask(request)
    assert isinstance(await exec_lab.ca.find(request), UpstreamIssued)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("wrong key", "another key", id="wrong key"),
        pytest.param("wrong names", "subject alternative names", id="names missing"),
        pytest.param("wrong usage", "extended key usage", id="anyExtendedKeyUsage"),
        pytest.param("too long", "notAfter", id="valid too long"),
    ],
)
async def test_wrong_certificate_is_never_accepted(exec_lab: Lab, new_request: NewRequest, fault: str, words: str) -> None:
    request = new_request()
    exec_lab.set_faults(fault)
    issued = await exec_lab.ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    with pytest.raises(Rejection) as refused:
        verify_issued(request, parse_certificate(issued.certificate), issued.chain, exec_lab.ca.chain(), datetime.now(UTC))
    assert refused.value.reason is Reason.UPSTREAM_MISMATCH
    assert words in refused.value.cause
    assert words not in refused.value.detail


async def test_a_child_that_stays_behind_costs_nothing(exec_lab: Lab, new_request: NewRequest) -> None:
    exec_lab.set_faults("child")
    assert isinstance(await exec_lab.ca.issue(new_request()), UpstreamIssued)


@pytest.mark.parametrize("seconds", [0.02, 0.06, 0.09, 0.12, 0.15])
async def test_a_run_that_is_killed_at_any_moment_is_explained_by_find(
    exec_lab: Lab, new_request: NewRequest, seconds: float
) -> None:
    """Cancelling kills the whole process group, as a worker's drain does, wherever openssl is just then."""
    request = new_request()
    task = asyncio.create_task(exec_lab.ca.issue(request))
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    issued = await exec_lab.ca.find(request) or await exec_lab.ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, exec_lab.ca.chain(), datetime.now(UTC))
    assert exec_lab.count is not None
    assert exec_lab.count() == 1


async def test_busy_slots_send_nothing(
    tmp_path: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...], new_request: NewRequest
) -> None:
    lab = make_exec(tmp_path, hierarchy, chain, concurrency=1)
    lab.set_faults("stall before")
    stalled = asyncio.create_task(lab.ca.issue(new_request(timeout=2)))
    await asyncio.sleep(0.05)
    with pytest.raises(NotSent, match="all 1 slots"):
        await lab.ca.issue(new_request(timeout=0.3))
    with pytest.raises(UnknownResult):
        await stalled
    assert isinstance(await lab.ca.issue(new_request()), UpstreamIssued)
    assert lab.count is not None
    assert lab.count() == 1


async def test_an_operation_that_is_not_configured_is_not_tried(
    tmp_path: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...], new_request: NewRequest
) -> None:
    lab = make_exec(tmp_path, hierarchy, chain, capabilities=Capability.NONE)
    for ask in (lab.ca.find(new_request()), lab.ca.poll(new_request(), "x")):
        with pytest.raises(UpstreamError, match="has no operation"):
            await ask
