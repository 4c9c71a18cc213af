"""Whatever happens on the way to a CA and back: at most one certificate for one request, and its client gets that one or none.

A whole registration authority stands before each kind of CA. What the CA did is looked up at the CA itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.audit import verify_chain
from gateway.ca.bootstrap import Hierarchy
from gateway.ca.verify import CLOCK_TOLERANCE
from gateway.config.policy import PolicyConfig, ValidityRule
from gateway.errors import Reason
from gateway.model import EnrollmentRequest, Issued, Outcome, Pending, Rejected, SanKind, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text
from gateway.ra.authority import RegistrationAuthority
from gateway.store.interfaces import LedgerState
from tests.contract.ca import fault_proxy as faults
from tests.contract.ca.sites import (
    PROGRAM,
    WIRE,
    Open,
    Site,
    acme_site,
    cfssl_site,
    cmp_site,
    est_site,
    program_site,
    scep_site,
    step_site,
    vault_site,
)
from tests.contract.store.rows import audit_rows
from tests.flow.enrollment.world import AUDIT_KEY, QUICK, Clock, World
from tests.peers import cfssl, pebble, step_ca
from tests.peers import gateway as other

pytestmark = pytest.mark.timeout(300)
KINDS = (
    "program",
    "vault",
    "cfssl",
    "step-ca",
    "step-ca with tokens kept",
    "est",
    "scep",
    "acme",
    "cmp",
    "cmp that is confirmed",
)
PURPOSES = ("serverAuth", "clientAuth")
POLICY = PolicyConfig.model_validate({"san": {"dns": {"patterns": (".*",)}}, "eku": {"allow": PURPOSES, "default": PURPOSES}})
DAYS = {"step-ca": 90, "step-ca with tokens kept": 90, "acme": 2000}
"""For how long policy grants: the other gateway certifies for a year, step-ca for 200 days at most, pebble for five years."""
ROUNDS = 40
PAUSE = timedelta(minutes=1)
"""What passes between looks at what rests, at first."""


@pytest.fixture(scope="module")
def step_peer(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[step_ca.StepPeer]:
    with step_ca.running(step_ca.require(pytestconfig), tmp_path_factory.mktemp("step") / "ca") as peer:
        yield peer


@pytest.fixture(scope="module")
def cfssl_peer(require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[cfssl.CfsslPeer]:
    program = require_program(cfssl.PROGRAM, cfssl.PACKAGE)
    with cfssl.running(program, tmp_path_factory.mktemp("cfssl") / "ca") as peer:
        yield peer


@pytest.fixture(scope="module")
def gateway_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[other.GatewayPeer]:
    with other.running(tmp_path_factory.mktemp("other") / "state") as peer:
        yield peer


@pytest.fixture(scope="module")
def pebble_peer(
    require_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[pebble.PebblePeer]:
    program = require_program(pebble.PROGRAM, pebble.PACKAGE)
    folder = tmp_path_factory.mktemp("pebble") / "ca"
    with pebble.running(program, folder, PEBBLE_WFE_NONCEREJECT="0", PEBBLE_AUTHZREUSE="0") as peer:
        yield peer


@pytest.fixture
def open_site(request: pytest.FixtureRequest, kind: str, hierarchy: Hierarchy) -> Open:
    """The kind of CA; real ones serve all tests of this module."""
    match kind:
        case "program":
            return program_site(hierarchy)
        case "vault":
            return vault_site(hierarchy)
        case "cfssl":
            return cfssl_site(request.getfixturevalue("cfssl_peer"))
        case "step-ca":
            return step_site(request.getfixturevalue("step_peer"))
        case "step-ca with tokens kept":
            return step_site(request.getfixturevalue("step_peer"), keeps_tokens=True)
        case "est":
            return est_site(request.getfixturevalue("gateway_peer"))
        case "cmp":
            return cmp_site(request.getfixturevalue("gateway_peer"))
        case "cmp that is confirmed":
            return cmp_site(request.getfixturevalue("gateway_peer"), other.CAREFUL)
        case "acme":
            return acme_site(request.getfixturevalue("pebble_peer"))
        case _:
            return scep_site(request.getfixturevalue("gateway_peer"))


@dataclass
class Stage:
    """A registration authority, the CA beneath it, and one device."""

    world: World
    site: Site
    authority: RegistrationAuthority
    request: EnrollmentRequest
    kind: str

    def new_request(self, name: str) -> EnrollmentRequest:
        """Return the request of another device."""
        return new_request(self.world, name, self.kind)

    def issued(self) -> list[bytes]:
        """What the CA issued to the device."""
        return self.site.issued(self.request.csr.public_key.der)

    async def enroll(self, request: EnrollmentRequest | None = None) -> Outcome:
        return await self.authority.enroll(self.world.snapshot, request or self.request)

    async def wait(self, request: EnrollmentRequest | None = None) -> Outcome:
        """Let time pass, with another look at what rests now and then, until the request is ended or held."""
        for round_ in range(ROUNDS):
            assert len(self.issued()) <= 1
            outcome = await self.enroll(request)
            if not isinstance(outcome, Pending) or await self.is_held():
                return outcome
            self.world.clock.advance(PAUSE if round_ < 10 else QUICK.longest_rest)
            await self.authority.recover(self.world.snapshot)
        return await self.enroll(request)

    async def is_held(self) -> bool:
        """Whether only an operator can end the request."""
        rows = await self.world.rows([LedgerState.UNKNOWN])
        return any(row.lease_until - self.world.clock() > QUICK.longest_rest + PAUSE for row in rows)


def new_request(world: World, name: str, kind: str) -> EnrollmentRequest:
    """Return the request of a device; pebble certifies what its DNS server knows, and with usages of RSA."""
    name = name.replace("example.org", pebble.ZONE) if kind == "acme" else name
    key = generate_private_key("rsa-2048" if kind == "acme" else "ec-p256")
    csr = build_csr(key, parse_name_text(f"CN={name}").der, (make_san(SanKind.DNS, name),))
    return replace(world.request(transaction=name), csr=parse_csr(csr))


@asynccontextmanager
async def staged(folder: Path, open_site: Open, kind: str, seconds: float = 10.0) -> AsyncIterator[Stage]:
    """Give a stage; the audit trail is whole at its end. A call to the CA may take so many seconds."""
    clock = Clock()
    days = f"{DAYS.get(kind, 365)}d"
    policy = POLICY.model_copy(update={"validity": ValidityRule.model_validate({"default": days, "max": days})})
    (folder / "site").mkdir()
    async with open_site(folder / "site", clock) as site:
        world = World(folder, site.ca, timing=replace(QUICK, issue_within=seconds, answer_within=15.0), clock=clock)
        world.profile_options["policy"] = policy
        try:
            authority = await world.start()
            yield Stage(world, site, authority, new_request(world, "device-7.example.org", kind), kind)
            assert not verify_chain(audit_rows(world.store), AUDIT_KEY, ()).problems
        finally:
            await world.close()


def rows(*which: str) -> list[object]:
    """All kinds of CA with the faults that can befall them."""
    return [
        pytest.param(kind, fault, id=f"{kind}: {fault}")
        for kind in KINDS
        for fault in which
        if kind != "program" or fault in PROGRAM
    ]


@pytest.mark.parametrize(("kind", "fault"), rows(*(fault for fault in WIRE if fault not in faults.BUSY + faults.HARMLESS)))
async def test_a_doubt_never_ends_in_two(tmp_path: Path, open_site: Open, kind: str, fault: str) -> None:
    """Where the CA can tell or be asked again its client gets the one certificate; else an operator is called and ends it."""
    async with staged(tmp_path, open_site, kind, 1.5 if fault == "stall" else 10.0) as stage:
        if fault == faults.FOREIGN and kind != "program":
            assert isinstance(await stage.wait(stage.new_request("device-6.example.org")), Issued)
        stage.site.spoil(fault)
        with capture_logs() as logs:
            outcomes = await asyncio.gather(*(stage.enroll() for _ in range(3)))
            assert [outcome for outcome in outcomes if isinstance(outcome, Rejected | Unavailable)] == []
            if kind != "acme":  # whose order is there, and says what became of it
                assert stage.site.is_spoilt()
            if fault != "redirect" and kind != "acme":  # which some take for a word that nothing was done
                assert "enrollment.unknown" in await stage.world.events()
            outcome = await stage.wait()
            assert stage.site.is_spoilt()
        if not ends_by_itself(kind, fault):
            assert isinstance(outcome, Pending)
            assert [line for line in logs if line["log_level"] == "error" and "requests resolve" in line.get("command", "")]
            await resolve(stage, outcome)
            outcome = await stage.enroll()
        issued = stage.issued()
        assert len(issued) <= 1
        if issued:
            assert isinstance(outcome, Issued)
            assert issued == [outcome.certificate]
        else:
            assert isinstance(outcome, Rejected)


def ends_by_itself(kind: str, fault: str) -> bool:
    """Whether the client gets its certificate without an operator."""
    match kind:
        case "vault" | "est" | "scep" | "acme" | "cmp" | "cmp that is confirmed":
            return True
        case "program":  # what it finds is what it signed: a certificate for another key
            return fault != faults.FOREIGN
        case "step-ca with tokens kept":  # a token is good for one certificate, which cannot be fetched later
            return fault in faults.LOST_BEFORE
        case _:
            return False


async def resolve(stage: Stage, held: Pending) -> None:
    """Do what the alert tells an operator to: attach what the CA has issued, end the request where it has nothing."""
    administration = stage.world.administration()
    if issued := stage.issued():
        row = await administration.attach(held.request_id, issued[0], "uid:0 (root)")
        assert row.state is LedgerState.DELIVERED
    else:
        row = await administration.fail(held.request_id, "uid:0 (root)")
        assert row.reason is Reason.DENIED


@pytest.mark.parametrize(("kind", "fault"), rows(*faults.BUSY))
async def test_what_a_busy_ca_did_not_take_is_sent_again(tmp_path: Path, open_site: Open, kind: str, fault: str) -> None:
    async with staged(tmp_path, open_site, kind) as stage:
        stage.site.spoil(fault)
        assert isinstance(await stage.enroll(), Pending)
        assert stage.issued() == []
        outcome = await stage.wait()
        assert isinstance(outcome, Issued)
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_requests_wait_for_a_ca_that_is_away(tmp_path: Path, open_site: Open, kind: str) -> None:
    async with staged(tmp_path, open_site, kind) as stage:
        await stage.site.leave()
        for _ in range(3):
            assert isinstance(await stage.enroll(), Pending)
            stage.world.clock.advance(PAUSE)
            await stage.authority.recover(stage.world.snapshot)
        await stage.site.come_back()
        outcome = await stage.wait()
        assert isinstance(outcome, Issued)
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_a_request_ends_that_waited_too_long(tmp_path: Path, open_site: Open, kind: str) -> None:
    async with staged(tmp_path, open_site, kind) as stage:
        await stage.site.leave()
        assert isinstance(await stage.enroll(), Pending)
        stage.world.clock.advance(timedelta(minutes=31))
        await stage.authority.recover(stage.world.snapshot)
        [row] = await stage.world.rows()
        assert (row.state, row.reason) == (LedgerState.REJECTED, Reason.UPSTREAM_TIMEOUT)
        await stage.site.come_back()
        assert stage.issued() == []
        stage.world.clock.advance(PAUSE)
        outcome = await stage.wait()  # all was given back, so the device may begin anew
        assert isinstance(outcome, Issued)
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize(("kind", "fault"), rows(*faults.HARMLESS))
async def test_an_answer_that_is_late_or_lacks_its_chain_is_good(tmp_path: Path, open_site: Open, kind: str, fault: str) -> None:
    async with staged(tmp_path, open_site, kind) as stage:
        stage.site.spoil(fault)
        outcome = await stage.wait()
        assert isinstance(outcome, Issued)
        assert outcome.chain[-1] == stage.site.ca.chain()[-1]
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize("kind", ["cmp that is confirmed"])
@pytest.mark.parametrize("fault", [*faults.BUSY, *faults.LOST_BEFORE, *faults.LOST_AFTER])
async def test_a_confirmation_is_said_until_it_is_heard(tmp_path: Path, open_site: Open, kind: str, fault: str) -> None:
    async with staged(tmp_path, open_site, kind, 1.5 if fault == "stall" else 10.0) as stage:
        stage.site.spoil("", fault)
        assert isinstance(await stage.enroll(), Pending)
        assert stage.site.is_spoilt()
        outcome = await stage.wait()
        assert isinstance(outcome, Issued)
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize("kind", ["step-ca", "est", "scep", "acme", "cmp", "cmp that is confirmed"])
async def test_a_request_that_the_network_delivers_twice(tmp_path: Path, open_site: Open, kind: str) -> None:
    """Vault, cfssl and programs sign whatever comes to them; these CAs know a request that they had."""
    async with staged(tmp_path, open_site, kind) as stage:
        stage.site.spoil(faults.TWICE)
        outcome = await stage.wait()
        assert len(stage.issued()) == 1
        if isinstance(outcome, Pending):
            await resolve(stage, outcome)
            outcome = await stage.enroll()
        assert isinstance(outcome, Issued)
        assert stage.issued() == [outcome.certificate]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead", [timedelta(minutes=-3), timedelta(minutes=3), timedelta(days=-2), timedelta(days=2)])
async def test_clocks_that_differ(tmp_path: Path, open_site: Open, kind: str, ahead: timedelta) -> None:
    """Within minutes nothing happens; beyond, a certificate that is not what was granted is no client's, and is the only one."""
    async with staged(tmp_path, open_site, kind) as stage:
        stage.world.clock.advance(ahead)
        outcome = await stage.wait()
        issued = stage.issued()
        assert len(issued) <= 1
        if isinstance(outcome, Issued):
            assert issued == [outcome.certificate]
            leaf = parse_certificate(outcome.certificate)
            assert leaf.not_before - CLOCK_TOLERANCE <= stage.world.clock() <= leaf.not_after
        else:
            assert abs(ahead) > timedelta(hours=1)


@pytest.mark.parametrize("kind", KINDS)
async def test_many_devices_through_a_bad_network(tmp_path: Path, open_site: Open, kind: str) -> None:
    """Faults of every sort, none often enough in a row for the CA to be left alone."""
    which = ["reset after", "", "page", "", "reset before", "", "cut", "", "bad gateway", "", "empty"]
    async with staged(tmp_path, open_site, kind) as stage:
        requests = [stage.new_request(f"device-{number}.example.org") for number in range(len(which))]
        for request, fault in zip(requests, which, strict=True):
            if fault:
                stage.site.spoil(fault)
            stage.request = request
            assert not isinstance(await stage.enroll(), Rejected | Unavailable)
        for request in requests:
            stage.request = request
            outcome = await stage.wait()
            issued = stage.issued()
            assert len(issued) <= 1
            assert not isinstance(outcome, Issued) or issued == [outcome.certificate]
            assert isinstance(outcome, Issued | Pending)
