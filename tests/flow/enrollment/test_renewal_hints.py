"""What CAs say about when to renew: passed on, within bounds, and never waited for long (RFC 9773)."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.acme import CertificateId, RenewalInfo
from gateway.ca.interfaces import Capability, IssueRequest, RenewalHint, UpstreamIssued, UpstreamPending
from gateway.model import Issued, RevocationReason
from gateway.pki.certificate import Certificate, parse_certificate, to_signer
from gateway.pki.renewal_window import opening_window, suggest_window
from gateway.ra import hints
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.ra.requests import RenewalWindow
from tests.flow.enrollment.acme_world import AcmeWorld, account, csr, finalize, ready
from tests.flow.enrollment.conftest import NewAcmeWorld, NewWorld
from tests.flow.enrollment.test_renewal_windows import about, certify, rule
from tests.flow.enrollment.world import PROFILE, FaultyCA, World

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
HINTS = Capability.RENEWAL_HINT
URL = "https://ca.example.com/why"


class HintingCA(FaultyCA):
    """Says of each certificate when to renew it."""

    hint: RenewalHint | None = None
    told: bytes | None = None
    """What the last request renews, as far as it was told."""
    asked = 0
    slow: asyncio.Event | None = None

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        self.told = request.renews
        return await super().issue(request)

    async def renewal_hint(self, certificate: bytes) -> RenewalHint | None:
        self.asked += 1
        if self.slow is not None:
            await self.slow.wait()
        self._refuse_while_down()
        return self.hint


def hint(world: World, start: timedelta = DAY, end: timedelta = 2 * DAY, retry_after: int = 7200, **more: Any) -> RenewalHint:
    now = world.clock().replace(microsecond=0)
    return RenewalHint(now + start, now + end, retry_after, **more)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    world = new_world()
    world.ca = HintingCA(world.folder / "ca", HINTS)
    return world


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints.Hints.__init__, "__defaults__", (0.1,))


async def look_up(world: World, authority: RegistrationAuthority, certificate: Certificate, **options: Any) -> RenewalWindow:
    found = await authority.look_up_renewal(world.make_snapshot(renewal=rule(**options)), about(certificate))
    assert isinstance(found, RenewalWindow)
    return found


def our_own(certificate: Certificate, window: timedelta | None = None) -> RenewalWindow:
    return RenewalWindow(*opening_window(certificate.not_before, certificate.not_after, window))


async def test_hint_is_told_and_asked_for_only_as_often_as_the_ca_wants(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    first = world.ca.hint = hint(world)
    assert await look_up(world, authority, certificate) == RenewalWindow(first.start, first.end)
    world.ca.hint = hint(world, 3 * DAY, 4 * DAY)
    world.clock.advance(HOUR)
    assert await look_up(world, authority, certificate) == RenewalWindow(first.start, first.end)
    assert world.ca.asked == 1
    world.clock.advance(2 * HOUR)
    assert await look_up(world, authority, certificate) == RenewalWindow(world.ca.hint.start, world.ca.hint.end)
    assert world.ca.asked == 2


@pytest.mark.parametrize("capabilities", [HINTS, Capability.NONE])
async def test_ca_that_says_when_to_renew_is_told_what_is_renewed(world: World, capabilities: Capability) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    assert world.ca.told is None
    world.ca.capabilities = capabilities
    renewing = RenewalRule(frozenset({PROFILE}), frozenset({"RenewalReq"}), None, timedelta(0))
    snapshot = world.make_snapshot(renewal=renewing, credentials=(RenewalCredential(renewing, world.store),))
    request = world.request(challenge=None, operation="RenewalReq", signer=to_signer(certificate), transaction="2")
    assert isinstance(await authority.enroll(snapshot, replace(request, is_renewal=True)), Issued)
    assert world.ca.told == (certificate.der if capabilities else None)


async def test_ca_without_the_capability_is_not_asked(world: World) -> None:
    world.ca.capabilities = Capability.NONE
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint = hint(world)
    assert await look_up(world, authority, certificate) == our_own(certificate)
    assert world.ca.asked == 0


async def test_ca_that_says_nothing_is_asked_again_later(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    for _ in range(3):
        assert await look_up(world, authority, certificate) == our_own(certificate)
    assert world.ca.asked == 1
    world.clock.advance(hints.WITHOUT_HINT)
    await look_up(world, authority, certificate)
    assert world.ca.asked == 2


async def test_hint_serves_while_the_ca_is_down_but_not_for_ever(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    known = world.ca.hint = hint(world)
    await look_up(world, authority, certificate)
    world.ca.down = True
    world.clock.advance(3 * HOUR)
    for _ in range(3):
        assert await look_up(world, authority, certificate) == RenewalWindow(known.start, known.end)
    assert world.ca.asked == 2
    world.clock.advance(hints.STALE)
    assert await look_up(world, authority, certificate) == our_own(certificate)


async def test_slow_ca_costs_little_and_serves_the_next(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint, world.ca.slow = hint(world), asyncio.Event()
    found = await asyncio.gather(*(look_up(world, authority, certificate) for _ in range(5)))
    assert set(found) == {our_own(certificate)}
    assert world.ca.asked == 1
    world.ca.slow.set()
    await asyncio.sleep(0.01)
    assert await look_up(world, authority, certificate) == RenewalWindow(world.ca.hint.start, world.ca.hint.end)
    assert world.ca.asked == 1


async def test_few_questions_are_open_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "AT_ONCE", 2)
    authority = await world.start()
    issued = [await authority.enroll(world.snapshot, world.request(f"d{n}", transaction=str(n))) for n in range(5)]
    certificates = [parse_certificate(one.certificate) for one in issued if isinstance(one, Issued)]
    world.ca.hint, world.ca.slow = hint(world), asyncio.Event()
    found = await asyncio.gather(*(look_up(world, authority, one) for one in certificates))
    assert found == [our_own(one) for one in certificates]
    assert world.ca.asked == 2
    await authority.drain(0)
    await asyncio.sleep(0.01)


async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "KEPT", 2)
    authority = await world.start()
    world.ca.hint = hint(world)
    issued = [await authority.enroll(world.snapshot, world.request(f"d{n}", transaction=str(n))) for n in range(3)]
    certificates = [parse_certificate(one.certificate) for one in issued if isinstance(one, Issued)]
    for one in (*certificates, certificates[2], certificates[0]):
        await look_up(world, authority, one)
    assert world.ca.asked == 4


NEVER = timedelta(days=4000)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(DAY, DAY, id="no length"),
        pytest.param(2 * DAY, DAY, id="ends before it begins"),
        pytest.param(NEVER, 2 * NEVER, id="begins after the certificate"),
    ],
)
async def test_hint_that_makes_no_sense_is_none(world: World, start: timedelta, end: timedelta) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint = hint(world, start, end)
    assert await look_up(world, authority, certificate) == our_own(certificate)


async def test_hint_without_a_time_zone_is_none(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint = RenewalHint(datetime(2026, 1, 1), datetime(2027, 1, 1), 60)  # noqa: DTZ001
    assert await look_up(world, authority, certificate) == our_own(certificate)


async def test_window_ends_with_the_certificate(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint = hint(world, DAY, NEVER)
    assert (await look_up(world, authority, certificate)).end == certificate.not_after


@pytest.mark.parametrize(
    ("wish", "pause"),
    [(0, hints.SHORTEST), (-(10**9), hints.SHORTEST), (10**12, hints.LONGEST)],
    ids=["at once", "past", "never"],
)
async def test_wish_when_to_ask_again_is_kept_within_bounds(world: World, wish: int, pause: timedelta) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    world.ca.hint = hint(world, retry_after=wish)
    await look_up(world, authority, certificate)
    world.clock.advance(pause - timedelta(seconds=5))
    await look_up(world, authority, certificate)
    assert world.ca.asked == 1
    world.clock.advance(timedelta(seconds=10))
    await look_up(world, authority, certificate)
    assert world.ca.asked == 2


async def test_nobody_is_sent_before_the_profile_lets_it_renew(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    window = 20 * DAY
    left = certificate.not_after - world.clock()
    world.ca.hint = hint(world, left - 30 * DAY, left - 10 * DAY)
    found = await look_up(world, authority, certificate, window=window)
    assert found == RenewalWindow(certificate.not_after - window, world.ca.hint.end.replace(microsecond=0))
    other = parse_certificate(_issued(await authority.enroll(world.snapshot, world.request("other", transaction="2"))))
    world.ca.hint = hint(world, DAY, 2 * DAY)
    assert await look_up(world, authority, other, window=window) == our_own(other, window)


def _issued(outcome: object) -> bytes:
    assert isinstance(outcome, Issued)
    return outcome.certificate


async def test_revoked_certificate_is_to_be_replaced_whatever_the_ca_says(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)
    await world.administration().revoke_certificate(certificate.sha256.hex(), RevocationReason.SUPERSEDED, "test")
    world.ca.hint = hint(world)
    assert (await look_up(world, authority, certificate)).end <= world.clock() + timedelta(seconds=1)
    assert world.ca.asked == 0


async def test_bug_in_a_backend_costs_nothing(world: World) -> None:
    authority = await world.start()
    certificate = await certify(world, authority)

    async def fail(_certificate: bytes) -> RenewalHint:
        raise KeyError("suggestedWindow")

    world.ca.renewal_hint = fail
    assert await look_up(world, authority, certificate) == our_own(certificate)


@pytest.fixture
async def acme_world(new_acme_world: NewAcmeWorld) -> AcmeWorld:
    world = new_acme_world()
    world.ca = HintingCA(world.folder / "ca", HINTS)
    return world


async def certified(world: AcmeWorld) -> tuple[AcmeAuthority, Certificate]:
    acme = await world.worker()
    who = await account(world, acme)
    order = await ready(world, acme, who, "www.example.com")
    await finalize(world, acme, who, order, csr("www.example.com"))
    leaf, *_ = await acme.certificate(world.snapshot, PROFILE, who, order.id)
    return acme, parse_certificate(leaf)


async def info(world: AcmeWorld, acme: AcmeAuthority, certificate: Certificate) -> RenewalInfo:
    named = CertificateId("", certificate.authority_key_id or b"", certificate.serial)
    return await acme.renewal_info(world.snapshot, PROFILE, named)


async def test_acme_passes_a_hint_on(acme_world: AcmeWorld) -> None:
    acme, certificate = await certified(acme_world)
    told = acme_world.ca.hint = hint(acme_world, retry_after=600, explanation_url=URL)
    assert await info(acme_world, acme, certificate) == RenewalInfo(told.start, told.end, URL, 600)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://ca.example.com/" + "a" * 600,
        "https://ca.example.com/\r\nSet-Cookie: a",
        "https://cä.example",
    ],
    ids=["script", "too long", "header", "no ASCII"],
)
async def test_acme_passes_no_strange_url_on(acme_world: AcmeWorld, url: str) -> None:
    acme, certificate = await certified(acme_world)
    acme_world.ca.hint = hint(acme_world, explanation_url=url)
    assert (await info(acme_world, acme, certificate)).explanation_url is None


async def test_acme_suggests_a_window_where_the_ca_is_down(acme_world: AcmeWorld) -> None:
    acme, certificate = await certified(acme_world)
    acme_world.ca.down = True
    found = await info(acme_world, acme, certificate)
    assert (found.start, found.end) == suggest_window(certificate.not_before, certificate.not_after)


async def test_acme_incident_goes_before_what_the_ca_says(acme_world: AcmeWorld) -> None:
    acme, certificate = await certified(acme_world)
    acme_world.ca.hint = replace(hint(acme_world), explanation_url=URL)
    await acme_world.administration().revoke_certificate(certificate.sha256.hex(), RevocationReason.SUPERSEDED, "test")
    assert (await info(acme_world, acme, certificate)).end <= acme_world.clock() + timedelta(seconds=1)
