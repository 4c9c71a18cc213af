"""GetCert and GetCRL: what a signer may see, and everybody who sees nothing (RFC 8894 §3.3.4)."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from gateway.audit import AuditEvent
from gateway.errors import Reason
from gateway.model import Issued, ProfileName, Protocol, Rejected, RevocationReason, SignerCertificate, Unavailable
from gateway.pki.certificate import parse_certificate, self_signed_ca, to_signer
from gateway.pki.names import parse_name_text
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.look_up import MAX_SIGNED_CRL
from gateway.ra.profile import Snapshot
from gateway.ra.requests import Found, LookUpRequest, Sought
from gateway.ra.strangers import ROWS_A_MINUTE
from gateway.store.interfaces import CRLRow
from gateway.store.sqlite import SqliteStore
from tests.flow.enrollment.conftest import NewWorld
from tests.flow.enrollment.world import CA_NAME, PROFILE, QUICK, FlakyStore, World, device_key

LAB = ProfileName("lab")
ISSUER = parse_name_text("CN=Test CA").der


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()


def snapshot_of(world: World, **options: Any) -> Snapshot:
    """Two profiles of one CA."""
    one = world.make_snapshot(**options)
    [corp] = one.profiles.values()
    return replace(one, profiles=MappingProxyType({PROFILE: corp, LAB: replace(corp, name=LAB)}))


async def certify(world: World, authority: RegistrationAuthority, name: str = "device", **changes: Any) -> SignerCertificate:
    """Enroll a device; its certificate then signs the queries."""
    issued = await authority.enroll(snapshot_of(world), world.request(name, **changes))
    assert isinstance(issued, Issued)
    return to_signer(parse_certificate(issued.certificate))


def query(signer: SignerCertificate | None, target: SignerCertificate | None = None, **changes: Any) -> LookUpRequest:
    sought = LookUpRequest(
        profile=PROFILE,
        protocol=Protocol.SCEP,
        operation="GetCert",
        sought=Sought.CERTIFICATE,
        source="192.0.2.7",
        issuer_der=ISSUER,
        serial=target.serial if target else 1,
        signer=signer,
        transaction_id="SSCEP transactionId",
    )
    return replace(sought, **changes)


async def publish_crl(world: World, der: bytes = b"crl") -> None:
    now = world.clock()
    event = AuditEvent(event="crl.published", at=now, actor="worker", decision="done")
    await world.store.list_revoked(CA_NAME, now)
    assert await world.store.put_crl(CRLRow(CA_NAME, 1, der, now, now + timedelta(days=1)), event)


async def test_own_certificate_is_shown_and_recorded(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    assert await authority.look_up(snapshot_of(world), query(signer, signer)) == Found((signer.der,))
    event = (await world.audit())[-1]
    assert (event["event"], event["decision"]) == ("look_up.answered", "done")
    assert event["actor"] == f"certificate:{signer.sha256.hex()}"
    assert (event["serial"], event["subject"]) == (format(signer.serial, "x"), "CN=device")


async def test_certificates_of_the_same_key_or_subject_are_shown(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    same_key = await certify(world, authority, "renamed", key="device", transaction="2")
    same_subject = await certify(world, authority, "device", key="new key", transaction="3")
    for target in (same_key, same_subject):
        assert await authority.look_up(snapshot_of(world), query(signer, target)) == Found((target.der,))


async def test_issuer_is_compared_as_names_are(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    printable = parse_name_text("cn=TEST CA").der
    assert isinstance(await authority.look_up(snapshot_of(world), query(signer, signer, issuer_der=printable)), Found)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"issuer_der": b"", "serial": 0}, id="unreadable"),
        pytest.param({"issuer_der": b""}, id="no-issuer"),
        pytest.param({"issuer_der": b"\x30\x80"}, id="broken-issuer"),
        pytest.param({"issuer_der": parse_name_text("CN=Another CA").der}, id="another-issuer"),
        pytest.param({"serial": None}, id="no-serial"),
        pytest.param({"serial": -1}, id="negative-serial"),
        pytest.param({"serial": 1 << 500}, id="unknown-serial"),
    ],
)
async def test_what_is_not_there_has_one_refusal(world: World, changes: dict[str, Any]) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    refused = await authority.look_up(snapshot_of(world), query(signer, signer, **changes))
    assert refused == Rejected(Reason.UNKNOWN_CERTIFICATE, "there is nothing here that this signer may see")


async def test_certificates_of_others_are_refused_alike(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    foreign = [
        await certify(world, authority, "other", transaction="2"),
        await certify(world, authority, profile=LAB, transaction="3"),
    ]
    for target in foreign:
        refused = await authority.look_up(snapshot_of(world), query(signer, target))
        assert refused == Rejected(Reason.UNKNOWN_CERTIFICATE, "there is nothing here that this signer may see")


@dataclass
class Signers:
    """Whom the tests of refused signers try."""

    world: World
    authority: RegistrationAuthority
    good: SignerCertificate

    async def nobody(self) -> None:
        return None

    async def self_signed(self) -> SignerCertificate:
        now = self.world.clock().replace(microsecond=0)
        der = self_signed_ca(device_key("device"), "CN=device", now - timedelta(days=1), now + timedelta(days=1))
        return to_signer(parse_certificate(der))

    async def ra_or_ca_certificate(self) -> SignerCertificate:
        return to_signer(parse_certificate(self.world.ca.chain()[0]))

    async def of_another_profile(self) -> SignerCertificate:
        return await certify(self.world, self.authority, profile=LAB, transaction="lab")

    async def revoked(self) -> SignerCertificate:
        now = self.world.clock()
        event = AuditEvent(event="certificate.revoked", at=now, actor="admin", decision="done")
        await self.world.store.mark_revoked(self.good.sha256, now, RevocationReason.SUPERSEDED, event)
        return self.good

    async def expired(self) -> SignerCertificate:
        self.world.clock.advance(timedelta(days=5000))
        return self.good

    async def of_another_key(self) -> SignerCertificate:
        return replace(self.good, public_key=replace(self.good.public_key, sha256=b"\3" * 32))


BAD_SIGNERS = [name for name in vars(Signers) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("sought", "who"),
    [(Sought.CERTIFICATE, who) for who in BAD_SIGNERS] + [(Sought.CRL, who) for who in BAD_SIGNERS if who != "nobody"],
)
async def test_signers_that_may_see_nothing(world: World, sought: Sought, who: str) -> None:
    authority = await world.start()
    good = await certify(world, authority)
    await publish_crl(world)
    signer = await getattr(Signers(world, authority, good), who)()
    refused = await authority.look_up(snapshot_of(world), query(signer, good, sought=sought))
    assert refused == Rejected(Reason.NOT_AUTHORIZED, "the signer may not look up anything here")
    event = (await world.audit())[-1]
    assert (event["event"], event["actor"], event["reason"]) == ("look_up.rejected", "unauthenticated", "not_authorized")


async def test_the_gateways_own_certificate_sees_nothing_though_it_was_issued_here(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    own = snapshot_of(world, own_keys=frozenset({signer.public_key.sha256}))
    assert getattr(await authority.look_up(own, query(signer, signer)), "reason", None) is Reason.NOT_AUTHORIZED


async def test_crl_is_shown_to_signers_that_name_the_ca(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    asked = query(signer, None, operation="GetCRL", sought=Sought.CRL)
    missing = Rejected(Reason.UNKNOWN_CERTIFICATE, "there is nothing here that this signer may see")
    assert await authority.look_up(snapshot_of(world), asked) == missing
    await publish_crl(world)
    assert await authority.look_up(snapshot_of(world), asked) == Found((b"crl",))
    assert (await world.audit())[-1]["actor"] == f"certificate:{signer.sha256.hex()}"
    for issuer in (b"", parse_name_text("CN=Another CA").der):
        assert await authority.look_up(snapshot_of(world), replace(asked, issuer_der=issuer)) == missing


async def test_a_crl_that_is_too_long_is_fetched_elsewhere(world: World) -> None:
    authority = await world.start()
    signer = await certify(world, authority)
    await publish_crl(world, b"c" * (MAX_SIGNED_CRL + 1))
    answer = await authority.look_up(snapshot_of(world), query(signer, None, operation="GetCRL", sought=Sought.CRL))
    assert isinstance(answer, Rejected)
    assert "distribution point" in answer.detail
    assert isinstance(await authority.look_up(snapshot_of(world), query(None, sought=Sought.CRL)), Found)


async def test_public_look_ups_leave_no_row(world: World) -> None:
    authority = await world.start()
    await publish_crl(world)
    before = await world.events()
    chain = await authority.look_up(snapshot_of(world), query(None, sought=Sought.CA_CERTIFICATES))
    assert chain == Found(world.ca.chain())
    assert await authority.look_up(snapshot_of(world), query(None, sought=Sought.CRL)) == Found((b"crl",))
    assert await world.events() == before


async def test_strangers_have_a_bounded_number_of_rows(world: World) -> None:
    authority = await world.start()
    signer = await Signers(world, authority, await certify(world, authority)).self_signed()
    before = len(await world.events())
    for _ in range(ROWS_A_MINUTE + 5):
        assert isinstance(await authority.look_up(snapshot_of(world), query(signer)), Rejected)
    assert len(await world.events()) == before + ROWS_A_MINUTE


@dataclass
class Listening:
    """A store that notes which methods were called."""

    store: SqliteStore
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self.store, name)


@pytest.mark.parametrize("sought", [Sought.CERTIFICATE, Sought.CRL])
async def test_an_unreadable_query_costs_the_store_what_any_other_does(world: World, sought: Sought) -> None:
    listening = Listening(await world.open_store("w1"))
    authority = await world.start("w1", listening)
    signer = await certify(world, authority)
    calls = []
    for changes in ({}, {"issuer_der": b"", "serial": 0}):
        listening.calls.clear()
        await authority.look_up(snapshot_of(world), query(signer, signer, sought=sought, **changes))
        calls.append(tuple(listening.calls))
    assert calls[0] == calls[1]
    assert len(calls[0]) == 3


@pytest.mark.parametrize("method", ["find_certificate", "find_serial", "append_audit"])
async def test_a_store_that_fails_shows_nothing(world: World, method: str) -> None:
    store = FlakyStore(await world.open_store("w1"))
    authority = await world.start("w1", store)
    signer = await certify(world, authority)
    store.faults[method] = ["before"]
    outcome = await authority.look_up(snapshot_of(world), query(signer, signer))
    assert outcome == Unavailable(Reason.STORE_UNAVAILABLE, QUICK.busy_retry)
