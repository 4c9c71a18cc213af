"""Base stations come with their maker's certificate and leave with the operator's (3GPP TS 33.310 clause 9)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.asn1.cmp import FailInfo
from gateway.cmp import BodyType
from gateway.config.credentials import VendorCertificateCredential as VendorConfig
from gateway.config.policy import PolicyConfig
from gateway.errors import Reason
from gateway.model import CredentialKind, Grant, Rejected
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate
from gateway.pki.keys import public_key_der
from gateway.pki.names import format_name, parse_name_text
from gateway.pki.trust import TrustAnchors
from gateway.ra.client_path import ClientCertificates
from gateway.ra.credentials.vendor_certificate import VendorCertificateCredential
from gateway.ra.profile import RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import LedgerState
from gateway.wire.cmp import requests
from gateway.wire.cmp.protection import SignatureProtector
from tests.flow.cmp.cmp_world import DAY, MAKER, CmpWorld, Told, ca_of, cr, ir, key_of, kur, maker_device, p10cr, signs

STATION = "CN={vendor.id},OU=base stations,O=Operator"


@pytest.fixture
def network(world: CmpWorld) -> CmpWorld:
    """An operator who names stations himself and gives them his root."""
    subject = {"template": STATION, "allow_empty": True}
    world.corp.config = {"confirmation": {"implicit": "refuse"}}
    world.corp.devices = frozenset({"SN1", "SN2"})
    world.corp.secrets = False
    world.corp.options = {"policy": PolicyConfig.model_validate({"subject": subject})}
    world.corp.terms = {"extra_certificates": (world.ca.chain()[-1],)}
    return world


def factory(name: str = MAKER) -> tuple[bytes, str]:
    """A maker's CA below its root, and whose key it has."""
    now = datetime.now(UTC).replace(microsecond=0)
    key = f"{name} factory"
    grant = Grant(parse_name_text(f"CN={key}").der, (), ("keyCertSign",), (), now - 30 * DAY, now + 300 * DAY)
    issuer = Issuer.from_certificate(ca_of(name), key_of(name))
    return build_certificate(issuer, new_serial(), grant, public_key_der(key_of(key)), is_ca=True), key


def made_in(factory_: tuple[bytes, str], number: str, *, chain: bool = True) -> SignatureProtector:
    """A station whose certificate comes from a factory, with that CA's certificate beside it or without."""
    certificate, key = factory_
    now = datetime.now(UTC).replace(microsecond=0)
    subject = parse_name_text(f"CN=station,serialNumber={number},O=Maker").der
    grant = Grant(subject, (), ("digitalSignature",), (), now - 30 * DAY, now + 300 * DAY)
    issuer = Issuer.from_certificate(certificate, key_of(key))
    leaf = build_certificate(issuer, new_serial(), grant, public_key_der(key_of("vendor")))
    return signs(leaf, "vendor", *((certificate,) if chain else ()))


async def enrolled(world: CmpWorld, station: SignatureProtector, **template: Any) -> Told:
    """ir, ip, certConf, pkiConf."""
    told = await world.send(ir("station", **{"subject": "", **template}), station)
    assert told.type is BodyType.IP, told.received
    assert (await world.confirm(told, station)).type is BodyType.PKICONF
    return told


async def test_a_station_enrolls_and_updates(network: CmpWorld) -> None:
    station = maker_device("SN1")
    told = await enrolled(network, station)
    certificate = parse_certificate(told.certificate)
    assert format_name(certificate.subject) == "CN=SN1,OU=base stations,O=Operator", "whatever the station calls itself"
    assert certificate.public_key.der == public_key_der(key_of("station"))
    [row] = await network.rows()
    assert (row.state, row.requester, row.owner) == (LedgerState.CONFIRMED, f"{CredentialKind.VENDOR_CERTIFICATE}:SN1", "SN1")
    own = signs(told.certificate, "station")
    named = format_name(certificate.subject)
    updated = await network.send(kur("station", "next", subject=named, old=told.certificate), own)
    assert updated.type is BodyType.KUP, updated.received
    assert (await network.confirm(updated, own)).type is BodyType.PKICONF
    assert parse_certificate(updated.certificate).subject == certificate.subject
    again = await network.send(
        kur("station", "after", subject=named, old=updated.certificate), signs(updated.certificate, "next")
    )
    assert parse_certificate(again.certificate).subject == certificate.subject


async def test_an_update_may_leave_its_subject_out(network: CmpWorld) -> None:
    """The template makes the same name of it (TS 33.310 §9.5.4.5)."""
    told = await enrolled(network, maker_device("SN1"))
    own = signs(told.certificate, "station")
    policy = network.profile(network.corp).policy
    rule = RenewalRule(frozenset({network.corp.name}), frozenset({"kur"}), None, timedelta(0))
    network.corp.options |= {"credentials": (RenewalCredential(rule, network.store, policy),)}
    updated = await network.send(kur("station", "next", subject="", old=told.certificate), own)
    assert parse_certificate(updated.certificate).subject == parse_certificate(told.certificate).subject


async def test_the_operators_root_comes_beside_the_certificate(network: CmpWorld) -> None:
    """A station that was told no root takes it from extraCerts of ip, and of nothing else (TS 33.310 §9.5.4.3)."""
    told = await enrolled(network, maker_device("SN1"))
    assert network.ca.chain()[-1] in told.received.extra_certs
    assert told.received.body.ca_pubs == ()  # type: ignore[union-attr]


async def test_implicit_confirmation_is_not_granted(network: CmpWorld) -> None:
    told = await network.send(ir("station", subject=""), maker_device("SN1"), implicit_confirm=True)
    assert told.received.header.implicit_confirm is None


def without_crls(world: CmpWorld) -> VendorCertificateCredential:
    """Makers whose CRLs nobody has: with them a factory's CA would need one as well."""
    trusted = ClientCertificates(TrustAnchors.parse(der_to_pem(ca_of(MAKER))), world.store, frozenset())
    config = VendorConfig.model_validate({"type": "vendor_certificate", "anchors": "makers.pem", "names": "any"})
    return VendorCertificateCredential(trusted, config, world.corp.devices)


async def test_a_factorys_ca_may_come_with_the_request(network: CmpWorld) -> None:
    network.corp.options |= {"credentials": (without_crls(network),)}
    await enrolled(network, made_in(factory(), "SN2"))
    alone = await network.send(ir("station", subject=""), made_in(factory(), "SN1", chain=False))
    assert not alone.issued


@pytest.mark.parametrize("body", [ir, cr, p10cr])
async def test_every_first_request_is_for_listed_stations(network: CmpWorld, body: Any) -> None:
    told = await network.send(body("station"), maker_device("SN9"))
    assert told.failed == {FailInfo.NOT_AUTHORIZED}
    outcome = told.answer.outcome
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.NOT_AUTHORIZED
    assert network.ca.issued() == []


@pytest.mark.parametrize(
    "station",
    [
        pytest.param(lambda: made_in(factory("Somebody"), "SN1"), id="another-maker"),
        pytest.param(lambda: maker_device("SN1", ended=True), id="ended"),
        pytest.param(lambda: maker_device("SN1,serialNumber=SN2"), id="two-serial-numbers"),
        pytest.param(lambda: signs(maker_leaf(), "somebody else's key"), id="without-its-key"),
    ],
)
async def test_others_are_refused(network: CmpWorld, station: Any) -> None:
    told = await network.send(ir("station", subject=""), station())
    assert told.failed
    assert not told.issued
    assert network.ca.issued() == []


def maker_leaf() -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    grant = Grant(parse_name_text("serialNumber=SN1").der, (), ("digitalSignature",), (), now - DAY, now + DAY)
    issuer = Issuer.from_certificate(ca_of(MAKER), key_of(MAKER))
    return build_certificate(issuer, new_serial(), grant, public_key_der(key_of("vendor")))


async def test_a_revoked_station_is_refused(network: CmpWorld) -> None:
    leaf = maker_leaf()
    network.revoked = (leaf,)
    told = await network.send(ir("station", subject=""), signs(leaf, "vendor"))
    assert told.failed == {FailInfo.CERT_REVOKED}
    assert network.ca.issued() == []


async def test_the_makers_certificate_updates_and_revokes_nothing(network: CmpWorld) -> None:
    station = maker_device("SN1")
    told = await enrolled(network, station)
    parsed = parse_certificate(told.certificate)
    update = await network.send(kur("station", "next", subject="", old=told.certificate), station)
    revocation = await network.send(requests.rr(parsed.issuer_der, parsed.serial, None), station)
    assert update.failed
    assert revocation.failed
    assert await network.certificates() == {parsed.sha256: False}


async def test_the_operators_certificate_enrolls_nothing_new(network: CmpWorld) -> None:
    """It is updated and no more: a second ir is the maker's key's affair."""
    own = signs((await enrolled(network, maker_device("SN1"))).certificate, "station")
    told = await network.send(ir("station", "another", subject=""), own)
    assert not told.issued


async def test_stations_are_named_by_what_the_maker_certifies(network: CmpWorld) -> None:
    """What the template of the request says of names does not count."""
    told = await enrolled(network, maker_device("SN1"), subject="CN=SN2,O=Operator")
    assert format_name(parse_certificate(told.certificate).subject).startswith("CN=SN1,")
