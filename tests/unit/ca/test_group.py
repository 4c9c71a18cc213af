"""Several CAs behind one name: the next is asked only while nothing was sent, and what one did is asked of all."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.ca.group import GroupCA, create
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    RenewalHint,
    Several,
    Trial,
    Unavailable,
    UnknownResult,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Setup
from gateway.config.load import Sources
from gateway.config.remote_cas import GroupCA as GroupConfig
from gateway.errors import ConfigurationError
from gateway.metrics import worker as metrics
from gateway.model import Grant, RevocationReason, UpstreamCAName
from gateway.pki.certificate import Issuer, build_certificate, new_serial
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from tests.unit.ca.conftest import DAY, NOW, Pair, key_of, make_request, make_root

ROOT = make_root()
ALL = Capability.FIND | Capability.POLL | Capability.REVOKE
HINT = RenewalHint(NOW, NOW + DAY, 3600)
NAME = UpstreamCAName("pair")


def make_ca(label: str, days: int = 100) -> Pair:
    key = key_of("ec-p256", label)
    grant = Grant(parse_name_text(f"CN={label}").der, (), ("keyCertSign",), (), NOW - DAY, NOW + days * DAY)
    issuer = Issuer.from_certificate(ROOT.der, ROOT.key)
    return Pair(build_certificate(issuer, new_serial(), grant, public_key_der(key), is_ca=True, path_length=0), key)


def make_leaf(ca: Pair) -> bytes:
    grant = make_request().grant
    return build_certificate(Issuer.from_certificate(ca.der, ca.key), new_serial(), grant, make_request().public_key)


NORTH, SOUTH = make_ca("north"), make_ca("south", 50)


class Member(RemoteBackend):
    """Answers each operation as told; an exception is raised."""

    def __init__(self, name: str, ca: Pair, capabilities: Capability = ALL, queue: int = 0, **answers: object) -> None:
        sources = Sources(Path("/gw/p.yaml"), "p.yaml", b"", {}, {})
        super().__init__(Setup(UpstreamCAName(name), (ca.der, ROOT.der), sources, timedelta(hours=queue)))
        self.capabilities = capabilities
        self._answers = answers
        self.asked: list[str] = []
        self.seconds = 0.0

    def _answer(self, operation: str) -> object:
        self.asked.append(operation)
        answer = self._answers.get(operation)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        self.seconds = request.timeout
        answer = self._answer("issue")
        assert isinstance(answer, UpstreamIssued | UpstreamPending)
        return answer

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        self.asked.append(reference)
        answer = self._answer("poll")
        assert isinstance(answer, UpstreamIssued | UpstreamPending)
        return answer

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        answer = self._answer("find")
        assert answer is None or isinstance(answer, UpstreamIssued | UpstreamPending)
        return answer

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        self._answer("revoke")

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        self._answer("revive")

    async def health(self) -> None:
        self._answer("health")

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        answer = self._answer("hint")
        assert answer is None or isinstance(answer, RenewalHint)
        return answer

    async def check(self) -> tuple[Trial, ...]:
        return (Trial("chain", good=True, finding="is in force"),)


def group(north: Member, south: Member) -> GroupCA:
    return GroupCA(NAME, (north, south))


ISSUED = UpstreamIssued(b"leaf", (NORTH.der, ROOT.der), "7")
BARE = UpstreamIssued(b"leaf", ())
PENDING = UpstreamPending("job/5", 60)


def failovers(member: str) -> float:
    labels = {"group": NAME, "upstream_ca": member}
    return metrics.REGISTRY.get_sample_value("gateway_upstream_failovers_total", labels) or 0


async def test_the_first_one_is_enough() -> None:
    north, south = Member("north", NORTH, issue=ISSUED), Member("south", SOUTH)
    assert await group(north, south).issue(make_request()) == UpstreamIssued(b"leaf", ISSUED.chain, "north/7")
    assert south.asked == []


@pytest.mark.parametrize(
    "error", [NotSent("no route"), AuthFailed("token"), Unavailable("sealed")], ids=lambda error: type(error).__name__
)
async def test_the_next_one_where_nothing_was_sent(error: NotSent) -> None:
    north, south = Member("north", NORTH, issue=error), Member("south", SOUTH, issue=BARE)
    before = failovers("north")
    with capture_logs() as lines:
        answer = await group(north, south).issue(make_request())
    assert answer == UpstreamIssued(b"leaf", (SOUTH.der, ROOT.der), "south/"), "a leaf without a chain has its member's"
    assert failovers("north") - before == 1
    assert [line["upstream_ca"] for line in lines] == ["north"]
    assert 0 < south.seconds <= north.seconds <= 10


@pytest.mark.parametrize(
    "error",
    [UnknownResult("reset"), UpstreamRejected("no"), OSError("gone"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_no_other_one_where_something_was_sent(error: Exception) -> None:
    north, south = Member("north", NORTH, issue=error), Member("south", SOUTH, issue=ISSUED)
    with pytest.raises(type(error)):
        await group(north, south).issue(make_request())
    assert south.asked == []


async def test_nobody_takes_it() -> None:
    north, south = Member("north", NORTH, issue=NotSent("no route", 7)), Member("south", SOUTH, issue=Unavailable("sealed", 90))
    with capture_logs(), pytest.raises(NotSent, match="no member of the group took the request; the last one: sealed") as raised:
        await group(north, south).issue(make_request())
    assert raised.value.retry_after == 90


async def test_pending_is_asked_of_who_accepted() -> None:
    north, south = Member("north", NORTH, issue=NotSent("no route")), Member("south", SOUTH, issue=PENDING, poll=BARE)
    with capture_logs():
        pending = await group(north, south).issue(make_request())
    assert pending == UpstreamPending("south/job/5", 60)
    assert (await group(north, south).poll(make_request(), "south/job/5")) == UpstreamIssued(b"leaf", south.chain(), "south/")
    assert south.asked == ["issue", "job/5", "poll"]
    assert north.asked == ["issue"]


@pytest.mark.parametrize("reference", ["east/7", "", "7"])
async def test_who_accepted_is_no_member_any_more(reference: str) -> None:
    with pytest.raises(UnknownResult, match="is no member of pair any more"):
        await group(Member("north", NORTH), Member("south", SOUTH)).poll(make_request(), reference)


def test_before_any_has_answered_all_members_may_have_a_request() -> None:
    made = group(Member("north", NORTH), Member("south", SOUTH))
    assert isinstance(made, Several)
    assert made.may_go_to(None) == "north,south/"
    assert made.may_go_to("north,east/") == "north,east,south/"
    assert made.may_go_to("west/job/7") == "west,north,south/"


@pytest.mark.parametrize("reference", ["north,east/", "east/job/7"])
async def test_what_a_member_did_that_is_gone_nobody_can_say(reference: str) -> None:
    request = replace(make_request(), reference=reference)
    with pytest.raises(UnknownResult, match="east may have the request and is no member of pair any more: put it back"):
        await group(Member("north", NORTH), Member("south", SOUTH)).find(request)
    found = await group(Member("north", NORTH), Member("south", SOUTH, find=ISSUED)).find(request)
    assert isinstance(found, UpstreamIssued)


def test_what_a_member_learns_of_itself_the_group_learns() -> None:
    south = Member("south", SOUTH)
    made = group(Member("north", NORTH), south)
    assert Capability.FIND in made.capabilities
    south.capabilities = Capability.POLL | Capability.REVOKE
    assert Capability.FIND not in made.capabilities


NO, FOUND, DOUBT, REFUSED = None, ISSUED, NotSent("no route"), UpstreamRejected("denied")


@pytest.mark.parametrize(
    ("north", "south", "found"),
    [
        pytest.param(NO, NO, None, id="nobody has it"),
        pytest.param(NO, FOUND, "south/7", id="the second has it"),
        pytest.param(DOUBT, FOUND, "south/7", id="one has it, the other cannot be asked"),
        pytest.param(DOUBT, NO, NotSent, id="one cannot be asked"),
        pytest.param(NO, UnknownResult("garbage"), UnknownResult, id="one answers nonsense"),
        pytest.param(REFUSED, NO, UpstreamRejected, id="one refused it"),
        pytest.param(REFUSED, DOUBT, NotSent, id="one refused it, the other cannot be asked"),
        pytest.param(REFUSED, FOUND, "south/7", id="one refused it, the other has it"),
        pytest.param(PENDING, NO, "north/job/5", id="one works on it"),
        pytest.param(PENDING, FOUND, "south/7", id="one works on it, the other has it"),
        pytest.param(FOUND, FOUND, "north/7", id="both have it"),
    ],
)
async def test_what_one_did_is_asked_of_all(north: object, south: object, found: object) -> None:
    asked = group(Member("north", NORTH, find=north), Member("south", SOUTH, find=south))
    with capture_logs() as lines:
        if isinstance(found, type):
            with pytest.raises(found):
                await asked.find(make_request())
        else:
            answer = await asked.find(make_request())
            assert (answer.reference if answer else None) == found
    twice = north is not NO and south is FOUND and not isinstance(north, Exception)
    assert [line["log_level"] for line in lines] == (["error"] if twice else [])


async def test_the_issuer_takes_off_hold() -> None:
    north, south = Member("north", NORTH), Member("south", SOUTH)
    await group(north, south).revive(make_leaf(SOUTH), 1, NOW)
    assert (north.asked, south.asked) == ([], ["revive"])


async def test_the_issuer_revokes() -> None:
    north, south = Member("north", NORTH), Member("south", SOUTH)
    await group(north, south).revoke(make_leaf(SOUTH), 1, RevocationReason.SUPERSEDED, NOW)
    assert (north.asked, south.asked) == ([], ["revoke"])


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        pytest.param(UnknownResult("reset"), ["revoke"], id="the other stands in"),
        pytest.param(None, [], id="one is enough"),
    ],
)
async def test_two_ways_to_one_issuer(first: Exception | None, asked: list[str]) -> None:
    north, too = Member("north", NORTH, revoke=first), Member("north-2", NORTH)
    await group(north, too).revoke(make_leaf(NORTH), 1, RevocationReason.SUPERSEDED, NOW)
    assert too.asked == asked


@pytest.mark.parametrize("certificate", [make_leaf(make_ca("east")), b"junk"], ids=["another CA's", "none"])
async def test_nobody_has_issued_it(certificate: bytes) -> None:
    with pytest.raises(UnknownResult, match="no member of pair has issued this certificate"):
        await group(Member("north", NORTH), Member("south", SOUTH)).revoke(certificate, 1, RevocationReason.SUPERSEDED, NOW)


async def test_a_refused_revocation_is_a_refusal() -> None:
    refused = Member("north", NORTH, revoke=UpstreamRejected("no such serial"))
    with pytest.raises(UpstreamRejected):
        await group(refused, Member("north-2", NORTH)).revoke(make_leaf(NORTH), 1, RevocationReason.SUPERSEDED, NOW)


async def test_the_issuer_says_when_to_renew() -> None:
    hints = ALL | Capability.RENEWAL_HINT
    north, south = Member("north", NORTH), Member("south", SOUTH, hints, hint=HINT)
    asked = group(north, south)
    assert Capability.RENEWAL_HINT in asked.capabilities
    assert await asked.renewal_hint(make_leaf(SOUTH)) == HINT
    assert await asked.renewal_hint(make_leaf(NORTH)) is None
    assert north.asked == []


@pytest.mark.parametrize(
    ("north", "south", "both"),
    [
        pytest.param(ALL, ALL, ALL, id="all"),
        pytest.param(ALL, Capability.FIND, Capability.FIND, id="what both can"),
        pytest.param(ALL, Capability.NONE, Capability.NONE, id="nothing"),
        pytest.param(
            Capability.REPEATABLE, Capability.REPEATABLE, Capability.NONE, id="another one's repetition is no repetition"
        ),
        pytest.param(Capability.CRL, Capability.CRL, Capability.NONE, id="two CRLs are not one"),
    ],
)
def test_capabilities(north: Capability, south: Capability, both: Capability) -> None:
    assert group(Member("north", NORTH, north), Member("south", SOUTH, south)).capabilities == both


async def test_what_it_is() -> None:
    made = group(Member("north", NORTH, queue=1), Member("south", SOUTH, queue=5))
    assert made.chain() == (NORTH.der, ROOT.der, SOUTH.der)
    assert made.not_after_limit(NOW) == NOW + 50 * DAY
    assert made.queue == timedelta(hours=5)
    assert await made.crl() is None
    assert [trial.subject for trial in await made.check()] == ["north: chain", "south: chain"]


async def test_one_that_works_is_enough() -> None:
    await group(Member("north", NORTH, health=NotSent("no route")), Member("south", SOUTH)).health()
    with pytest.raises(NotSent, match="sealed"):
        await group(
            Member("north", NORTH, health=NotSent("no route")), Member("south", SOUTH, health=Unavailable("sealed"))
        ).health()


def test_members_that_could_not_be_made() -> None:
    config = GroupConfig(type="group", members=("north", "south"))
    members = {UpstreamCAName("north"): Member("north", NORTH)}
    with pytest.raises(ConfigurationError) as raised:
        create(NAME, config, members)
    assert raised.value.problems == ()
    assert create(NAME, config, {**members, UpstreamCAName("south"): Member("south", SOUTH)}).name == NAME
