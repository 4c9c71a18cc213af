"""Compliance checks: each of them has a veto, and so has each failure."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import EnrollmentRequest, Requester
from gateway.ra.compliance import check_compliance
from tests.unit.ra.test_renewal import NOW
from tests.unit.ra.test_transactions import REQUEST, REQUESTER


@dataclass
class Check:
    answer: str | Exception | None
    asked: int = 0

    async def find_fault(self, request: EnrollmentRequest, requester: Requester, now: datetime) -> str | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Stuck:
    async def find_fault(self, request: EnrollmentRequest, requester: Requester, now: datetime) -> str | None:
        await asyncio.Event().wait()
        return None


async def test_nobody_finds_fault() -> None:
    checks = [Check(None), Check(None)]
    await check_compliance(checks, REQUEST, REQUESTER, NOW, 5)
    assert [check.asked for check in checks] == [1, 1]


async def test_the_first_that_finds_fault_denies() -> None:
    checks = [Check(None), Check("its disk is not encrypted"), Check(None)]
    with pytest.raises(Rejection) as refused:
        await check_compliance(checks, REQUEST, REQUESTER, NOW, 5)
    assert (refused.value.reason, refused.value.detail) == (Reason.NOT_COMPLIANT, "the device is not compliant")
    assert refused.value.cause == "its disk is not encrypted"
    assert [check.asked for check in checks] == [1, 1, 0]


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(Check(ConnectionError("token=secret")), id="unreachable"),
        pytest.param(Check(StoreUnavailable("down")), id="store-down"),
        pytest.param(Check(""), id="says-nothing"),
        pytest.param(Stuck(), id="never-answers"),
    ],
)
async def test_a_check_that_fails_denies(check: Check | Stuck) -> None:
    with pytest.raises(Rejection) as refused, capture_logs() as logs:
        await check_compliance([check], REQUEST, REQUESTER, NOW, 0.01)
    assert refused.value.reason is Reason.NOT_COMPLIANT
    assert "secret" not in refused.value.cause + repr(logs)
