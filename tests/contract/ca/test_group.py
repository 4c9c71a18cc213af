"""Two signing programs behind one name: whatever goes wrong with either, both together make at most one certificate a request."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.ca.bootstrap import Hierarchy, KeyChoice, create_hierarchy
from gateway.ca.circuit import GuardedCA
from gateway.ca.group import GroupCA
from gateway.ca.interfaces import NotSent, UnknownResult, UpstreamIssued
from gateway.ca.local import CaUrls
from gateway.ca.verify import verify_issued
from gateway.model import RevocationReason, UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from tests.contract.ca.conftest import Lab, NewRequest, judge, make_exec


@pytest.fixture(scope="module")
def other_hierarchy() -> Hierarchy:
    return create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))


class Two:
    """A group of two programs with keys of their own, and what a test may know behind their backs."""

    def __init__(self, folder: Path, first: Hierarchy, second: Hierarchy) -> None:
        self.labs = tuple(self._make(folder / name, name, made) for name, made in (("first", first), ("second", second)))
        self.ca = GroupCA(UpstreamCAName("either"), tuple(GuardedCA(lab.ca) for lab in self.labs))

    @staticmethod
    def _make(folder: Path, name: str, hierarchy: Hierarchy) -> Lab:
        folder.mkdir()
        chain = (*pem_to_ders(hierarchy.issuing.certificate), *pem_to_ders(hierarchy.root.certificate))
        lab = make_exec(folder, hierarchy, chain)
        lab.ca.name = UpstreamCAName(name)
        return lab

    def counts(self) -> list[int]:
        return [lab.count() for lab in self.labs if lab.count is not None]

    def take_away(self, number: int) -> None:
        """Make one program's CA unable to answer: it says that it did nothing."""
        self.labs[number].set_faults(*["not sent"] * 100)


@pytest.fixture
def two(tmp_path: Path, hierarchy: Hierarchy, other_hierarchy: Hierarchy) -> Two:
    return Two(tmp_path, hierarchy, other_hierarchy)


def check(two: Two, request: object, issued: object) -> UpstreamIssued:
    assert isinstance(issued, UpstreamIssued)
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, two.ca.chain(), datetime.now(UTC))  # type: ignore[arg-type]
    return issued


async def test_the_second_stands_in(two: Two, new_request: NewRequest, other_hierarchy: Hierarchy, tmp_path: Path) -> None:
    two.take_away(0)
    request = new_request()
    with capture_logs():
        issued = check(two, request, await two.ca.issue(request))
    assert (issued.reference or "").startswith("second/")
    judge(tmp_path, other_hierarchy, issued)
    assert two.counts() == [0, 1]
    await two.ca.revoke(
        issued.certificate, parse_certificate(issued.certificate).serial, RevocationReason.SUPERSEDED, datetime.now(UTC)
    )


@pytest.mark.parametrize("fault", ["crash before", "crash after", "reply lost", "status", "garbage", "huge"])
@pytest.mark.parametrize("away", [False, True], ids=["first fails", "second fails while the first is away"])
async def test_a_lost_answer_is_looked_for_everywhere(two: Two, new_request: NewRequest, fault: str, away: bool) -> None:
    if away:
        two.labs[0].set_faults("not sent")
    two.labs[1 if away else 0].set_faults(fault)
    request = new_request()
    with capture_logs():
        with pytest.raises(UnknownResult):
            await two.ca.issue(request)
        found = await two.ca.find(request)
        if found is None:
            found = await two.ca.issue(request)
    check(two, request, found)
    assert sum(two.counts()) == 1


async def test_one_that_cannot_be_asked_leaves_the_doubt(two: Two, new_request: NewRequest) -> None:
    two.labs[0].set_faults("reply lost", "not sent")
    request = new_request()
    with pytest.raises(UnknownResult):
        await two.ca.issue(request)
    with pytest.raises(NotSent):
        await two.ca.find(request)
    check(two, request, await two.ca.find(request))
    assert two.counts() == [1, 0]


async def test_both_away(two: Two, new_request: NewRequest) -> None:
    two.take_away(0)
    two.take_away(1)
    with capture_logs(), pytest.raises(NotSent, match="no member of the group took the request"):
        await two.ca.issue(new_request())
    assert two.counts() == [0, 0]
