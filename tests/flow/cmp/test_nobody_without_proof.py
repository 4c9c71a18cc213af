"""Every body type by everybody who may not have it: no certificate, and no revocation (CVE-2021-40088).

A body is sent with no, wrong, foreign, expired or revoked protection, or by whoever may do something else or somewhere else. For
each of them the world has a certificate that could be revoked, and one that could be polled for, confirmed or rejected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from gateway.asn1 import cmp as asn1
from gateway.cmp import BodyType, ErrorAnswer
from gateway.pki import der
from gateway.pki.names import parse_name_text
from gateway.store.interfaces import LedgerState
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import Identity, MacIdentity
from gateway.wire.cmp.protection import SignatureProtector
from tests.flow.cmp.cmp_world import (
    FOREIGN,
    MAKER,
    OTHER,
    RA_VERIFIED,
    CmpWorld,
    Told,
    authority,
    certify,
    cr,
    genm,
    ir,
    kur,
    maker_device,
    p10cr,
    rr,
    signs,
)
from tests.flow.enrollment.world import PROFILE


@dataclass
class Scene:
    """What there is to be had: a device with its certificate, a secret's certificate that waits to be confirmed."""

    world: CmpWorld
    device: SignatureProtector
    certificate: bytes
    secret: MacIdentity
    waiting: Told


async def prepare(world: CmpWorld) -> Scene:
    device = await world.device("victim")
    [row] = await world.inventory()
    secret = await world.secret("victim's", max_uses=9)
    waiting = await world.send(ir("victim 2"), secret)
    return Scene(world, device, row.der, secret, waiting)


Body = Callable[[Scene], bytes]
BODIES: dict[str, Body] = {
    "ir": lambda _: ir("victim"),
    "cr": lambda _: cr("victim"),
    "p10cr": lambda _: p10cr("victim"),
    "kur": lambda scene: kur("victim", old=scene.certificate),
    "kur without oldCertID": lambda _: kur("victim"),
    "ir with raVerified": lambda _: ir("victim", proof=RA_VERIFIED),
    "rr": lambda scene: rr(scene.certificate),
    "rr that revives": lambda scene: rr(scene.certificate, None),
    "rr of what waits": lambda scene: rr(scene.waiting.certificate),
    "certConf": lambda scene: requests.cert_conf(scene.waiting.certificate),
    "certConf that rejects": lambda scene: requests.cert_conf(scene.waiting.certificate, accepted=False),
    "pollReq": lambda _: requests.poll_req(0),
    "genm": lambda _: genm(asn1.OID_CA_CERTS),
    "nested": lambda scene: requests.nested([scene.waiting.sent.message]),
}
"""Without what asks for nothing."""

Attacker = Callable[[Scene], Awaitable[Identity | None]]


async def nobody(_: Scene) -> None:
    return None


async def guesser(scene: Scene) -> Identity:
    return MacIdentity(scene.secret.reference, b"a guess at the secret")


async def unknown_reference(_: Scene) -> Identity:
    return MacIdentity(b"nobody's", b"a secret of one's own")


async def other_tenants_secret(scene: Scene) -> Identity:
    return await scene.world.secret("theirs", OTHER)


async def other_tenants_secret_of_the_same_name(scene: Scene) -> Identity:
    return await scene.world.secret(scene.secret.reference.decode(), OTHER)


async def expired_secret(scene: Scene) -> Identity:
    return await scene.world.secret("old", ttl=-timedelta(hours=1))


async def revoked_secret(scene: Scene) -> Identity:
    made = await scene.world.secret("ended")
    await scene.world.end_secret("ended")
    return made


async def self_signed(_: Scene) -> Identity:
    return signs(certify(FOREIGN, "mallory", "CN=victim"), "mallory")


async def names_like_a_registration_authority(_: Scene) -> Identity:
    return signs(certify(FOREIGN, "mallory", "CN=ra1", ekus=("cmcRA",)), "mallory")


async def unnamed_registration_authority(_: Scene) -> Identity:
    return authority("CN=ra9")


async def other_tenants_registration_authority(_: Scene) -> Identity:
    return authority("CN=ra2")


async def registration_authority_without_the_purpose(_: Scene) -> Identity:
    return signs(certify("RA CA", "ra", "CN=ra1"), "ra")


async def expired_registration_authority(_: Scene) -> Identity:
    return authority(ended=True)


async def revoked_registration_authority(scene: Scene) -> Identity:
    certificate = certify("RA CA", "ra", "CN=ra1", ekus=("cmcRA",))
    scene.world.revoked = (certificate,)
    return signs(certificate, "ra")


async def unexpected_device(_: Scene) -> Identity:
    return maker_device("SN666")


async def expired_device(_: Scene) -> Identity:
    return maker_device(ended=True)


async def revoked_device(scene: Scene) -> Identity:
    certificate = certify(MAKER, "vendor", "CN=device,serialNumber=SN1")
    scene.world.revoked = (certificate,)
    return signs(certificate, "vendor")


async def other_tenants_device(scene: Scene) -> Identity:
    return await scene.world.device("stranger", OTHER)


async def stolen_certificate(scene: Scene) -> Identity:
    """The victim's certificate, and another key."""
    return signs(scene.certificate, "mallory")


async def gateway_itself(scene: Scene) -> Identity:
    """The CMP signer's own certificate authenticates nobody."""
    return signs(scene.world.signer, "cmp signer")


STRANGERS: tuple[Attacker, ...] = (
    nobody,
    guesser,
    unknown_reference,
    other_tenants_secret,
    other_tenants_secret_of_the_same_name,
    expired_secret,
    revoked_secret,
    self_signed,
    names_like_a_registration_authority,
    unnamed_registration_authority,
    other_tenants_registration_authority,
    registration_authority_without_the_purpose,
    expired_registration_authority,
    revoked_registration_authority,
    unexpected_device,
    expired_device,
    revoked_device,
    other_tenants_device,
    stolen_certificate,
    gateway_itself,
)
"""Who has no business with this profile at all: nothing is told either."""


def name(value: object) -> str:
    return getattr(value, "__name__", str(value)).replace("_", " ")


@pytest.mark.parametrize("attacker", STRANGERS, ids=name)
async def test_strangers_get_nothing(world: CmpWorld, attacker: Attacker) -> None:
    scene = await prepare(world)
    identity = await attacker(scene)
    before, rows = await world.certificates(), await states(world)
    issued = len(world.ca.issued())
    for kind in BODIES:
        told = await ask(scene, kind, identity)
        assert told.failed, kind
        assert not told.issued, kind
        assert await world.certificates() == before, kind
        assert len(world.ca.issued()) == issued, kind
        assert await states(world) == rows, kind


def is_following(kind: str) -> bool:
    return kind.startswith(("certConf", "pollReq"))


async def states(world: CmpWorld) -> dict[str, LedgerState]:
    return {row.id: row.state for row in await world.rows()}


async def other_device(scene: Scene) -> Identity:
    """Another device of this profile, which has a certificate."""
    return await scene.world.device("neighbour")


async def other_secret(scene: Scene) -> Identity:
    """Another secret of this profile, which got a certificate."""
    identity = await scene.world.secret("neighbour's")
    await scene.world.send(ir("neighbour 2"), identity)
    return identity


async def other_maker_device(_: Scene) -> Identity:
    return maker_device()


async def enrolling_authority(scene: Scene) -> Identity:
    scene.world.corp.ras = (("CN=ra1", frozenset({"enroll"})),)
    return authority()


async def revoking_authority(scene: Scene) -> Identity:
    scene.world.corp.ras = (("CN=ra1", frozenset({"revoke"})),)
    return authority()


async def updating_authority(scene: Scene) -> Identity:
    scene.world.corp.ras = (("CN=ra1", frozenset({"update"})),)
    return authority()


async def forwarding_authority(scene: Scene) -> Identity:
    scene.world.corp.ras = (("CN=ra1", frozenset({"forward"})),)
    return authority()


ENROLLING = frozenset({"ir", "cr", "p10cr"})
TOLD = frozenset({"genm"})
KNOWN: dict[Attacker, frozenset[str]] = {
    other_device: frozenset(),
    other_secret: frozenset(),
    other_maker_device: ENROLLING,
    enrolling_authority: ENROLLING | {"ir with raVerified"},
    revoking_authority: frozenset({"rr", "rr of what waits"}),
    updating_authority: frozenset({"kur"}),
    forwarding_authority: frozenset({"nested"}),
}
"""Who may do something here, and what that is; each is told what anybody is told who is known."""


async def ask(scene: Scene, kind: str, identity: Identity | None, **options: Any) -> Told:
    """Send one of the bodies; what goes on with a transaction goes on with the one that waits."""
    body = BODIES[kind](scene)
    if is_following(kind):
        return await scene.world.follow(scene.waiting, body, identity, **options)
    return await scene.world.send(body, identity, **options)


@pytest.mark.parametrize("attacker", KNOWN, ids=name)
async def test_who_is_known_may_do_nothing_beside_what_is_his(world: CmpWorld, attacker: Attacker) -> None:
    scene = await prepare(world)
    identity = await attacker(scene)
    before, rows = await world.certificates(), await states(world)
    for kind in sorted(BODIES.keys() - KNOWN[attacker] - TOLD):
        told = await ask(scene, kind, identity)
        assert told.failed, kind
        assert not told.issued, kind
        assert await world.certificates() == before, kind
        assert await states(world) == rows, kind
    for kind in sorted(TOLD):
        assert not (await ask(scene, kind, identity)).failed, kind


@pytest.mark.parametrize(
    ("attacker", "kind"),
    [pytest.param(a, kind, id=f"{name(a)}: {kind}") for a, kinds in KNOWN.items() for kind in sorted(kinds)],
)
async def test_who_is_known_may_do_what_is_his(world: CmpWorld, attacker: Attacker, kind: str) -> None:
    scene = await prepare(world)
    assert not (await ask(scene, kind, await attacker(scene))).failed


async def test_what_is_tampered_with_is_worth_nothing(world: CmpWorld) -> None:
    scene = await prepare(world)
    before, rows = await world.certificates(), await states(world)

    def tamper(message: bytes) -> bytes:
        # the recipient, which stands in every header, gets another name of the same length
        assert message.count(b"CN-before") == 1
        return message.replace(b"CN-before", b"CN-behind")

    for kind in BODIES:
        for identity in (scene.secret, scene.device, authority()):
            told = await ask(scene, kind, identity, tamper=tamper, recipient=parse_name_text("CN=CN-before").der)
            assert told.failed == {asn1.FailInfo.BAD_MESSAGE_CHECK}, kind
            assert isinstance(told.received.body, ErrorAnswer), kind
    assert await world.certificates() == before
    assert await states(world) == rows


async def test_another_profile_knows_nothing_of_it(world: CmpWorld) -> None:
    """Whoever may do all this at one profile may not at another one."""
    scene = await prepare(world)
    before, rows = await world.certificates(), await states(world)
    for kind in BODIES:
        for identity in (scene.secret, scene.device, authority()):
            assert (await ask(scene, kind, identity, profile=OTHER)).failed, kind
    assert await world.certificates() == before
    assert await states(world) == rows


async def test_a_profile_without_credentials_serves_nobody(world: CmpWorld) -> None:
    scene = await prepare(world)
    world.corp.ras, world.corp.secrets, world.corp.makers = (), False, False
    before, rows = await world.certificates(), await states(world)
    for kind in BODIES:
        for identity in (scene.secret, authority(), maker_device()):
            assert (await ask(scene, kind, identity)).failed, kind
    assert await world.certificates() == before
    assert await states(world) == rows


async def test_a_registration_authority_of_one_tenant_revokes_nothing_of_another(world: CmpWorld) -> None:
    """CVE-2021-40088: authorized for enrollments, and by that for revocations everywhere."""
    await world.device("theirs", OTHER)
    [row] = await world.inventory()
    for profile, identity in ((PROFILE, authority()), (OTHER, authority())):
        told = await world.send(rr(row.der), identity, profile=profile)
        assert told.failed
    assert await world.certificates() == {row.sha256: False}
    assert not (await world.send(rr(row.der), authority("CN=ra2"), profile=OTHER)).failed
    assert await world.certificates() == {row.sha256: True}


async def test_a_revoked_device_does_nothing_more(world: CmpWorld) -> None:
    scene = await prepare(world)
    assert not (await world.send(rr(scene.certificate), scene.device)).failed
    before = await world.certificates()
    for kind, body in BODIES.items():
        if kind.startswith(("ir", "cr", "p10cr", "kur", "rr", "genm", "nested")):
            told = await world.send(body(scene), scene.device)
            assert told.failed, kind
            assert not told.issued, kind
    assert await world.certificates() == before


@pytest.mark.parametrize("type_", [t for t in BodyType if t not in {BodyType.IR, BodyType.CR, BodyType.KUR, BodyType.P10CR}])
async def test_other_bodies_certify_nothing(world: CmpWorld, type_: BodyType) -> None:
    """The body of an ir under another tag."""

    body = ir()
    relabelled = bytes([0xA0 | type_]) + body[1:]
    assert der.read(relabelled)[2] == len(relabelled)
    told = await world.send(relabelled, await world.secret())
    assert not told.issued
    assert not world.ca.issued()
