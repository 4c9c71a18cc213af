"""Which key is drawn, for whom, and what is certified with it (RFC 7030 §4.4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from gateway.model import EnrollmentRequest, Extension, ProfileName, Protocol, PublicKey, RequestForm, SanKind
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import SUBJECT_KEY_IDENTIFIER, eku_oid, make_san
from gateway.pki.keys import PrivateKey, describe_public_key, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.ra import server_keys
from gateway.ra.server_keys import KeyMaker, ServerKey, choose_kind, kind_fits

REQUESTER = "basic:device"
ALL = ("ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "rsa-4096")
MUST_STAPLE = Extension("1.3.6.1.5.5.7.1.24", False, b"\x30\x03\x02\x01\x05")


def request(key: PrivateKey, *others: Extension) -> EnrollmentRequest:
    names = (make_san(SanKind.DNS, "device.example"),)
    csr = build_csr(
        key,
        parse_name_text("CN=device").der,
        names,
        "challenge-of-the-device",
        key_usage=("digitalSignature",),
        ekus=(eku_oid("clientAuth"),),
        other_extensions=others,
    )
    return EnrollmentRequest(
        profile=ProfileName("corp"),
        protocol=Protocol.EST,
        operation="serverkeygen",
        transaction_id="",
        csr=parse_csr(csr),
        challenge=None,
        signer=None,
        source="",
    )


@pytest.mark.parametrize(
    ("asked", "allowed", "kind"),
    [
        pytest.param("ec-p384", ALL, "ec-p384", id="exactly"),
        pytest.param("rsa-3072", ALL, "rsa-3072", id="exactly-rsa"),
        pytest.param("rsa-2048", ("ec-p256", "rsa-4096", "rsa-3072"), "rsa-4096", id="of-its-algorithm"),
        pytest.param("ec-p256", ("rsa-2048", "ec-p521"), "ec-p521", id="of-its-algorithm-ec"),
        pytest.param("ed25519", ("rsa-2048", "ec-p256"), "rsa-2048", id="the-first"),
        pytest.param("ec-p256", ("rsa-2048",), "rsa-2048", id="the-only-one"),
    ],
)
def test_the_kind_is_that_of_the_request_where_it_is_allowed(asked: str, allowed: Sequence[str], kind: str) -> None:
    described = describe_public_key(public_key_der(generate_private_key(asked)))
    assert choose_kind(allowed, described) == kind


@pytest.mark.parametrize("kind", ALL[:4])
async def test_what_policy_foresees_is_what_is_drawn(kind: str) -> None:
    key, asked = ServerKey(kind), request(generate_private_key("ed25519"))
    foreseen = key.foresee(asked).csr.public_key
    certified = (await key.certify(asked, KeyMaker(), REQUESTER)).csr.public_key
    assert replace(certified, der=b"", sha256=b"") == foreseen


async def test_the_request_asks_for_the_same_with_another_key() -> None:
    skid = Extension(SUBJECT_KEY_IDENTIFIER, False, b"\x04\x01\x01")
    asked = request(generate_private_key("ec-p256"), MUST_STAPLE, skid)
    key = ServerKey("ec-p256")
    certified = await key.certify(asked, KeyMaker(), REQUESTER)
    rebuilt = parse_csr(certified.csr.der)
    assert (rebuilt.subject, rebuilt.sans) == (asked.csr.subject, asked.csr.sans)
    assert (rebuilt.key_usage, rebuilt.ekus) == (asked.csr.key_usage, asked.csr.ekus)
    assert rebuilt.extensions == certified.csr.extensions == (MUST_STAPLE,), "the identifier was that of the request's key"
    assert rebuilt.challenge_password is certified.csr.challenge_password is None
    assert rebuilt.public_key == certified.csr.public_key
    loaded = load_der_private_key(key.pkcs8(), None)
    assert public_key_der(loaded) == rebuilt.public_key.der  # type: ignore[arg-type]
    assert replace(certified, csr=asked.csr) == asked


async def test_a_template_becomes_a_pkcs10_which_every_ca_takes() -> None:
    """CMP asks by a CRMF template without a key (RFC 9483 §4.1.6)."""
    asked = request(generate_private_key("ec-p256"))
    asked = replace(asked, csr=replace(asked.csr, form=RequestForm.CRMF))
    key = ServerKey("ec-p256")
    assert key.foresee(asked).csr.form is RequestForm.PKCS10
    assert (await key.certify(asked, KeyMaker(), REQUESTER)).csr.form is RequestForm.PKCS10


@pytest.mark.parametrize(
    ("wanted", "fitting"),
    [
        pytest.param(PublicKey(b"", b"", "rsa", 0), ("rsa-2048", "rsa-3072", "rsa-4096"), id="rsa-of-any-size"),
        pytest.param(PublicKey(b"", b"", "rsa", 3072), ("rsa-3072",), id="rsa-of-one-size"),
        pytest.param(PublicKey(b"", b"", "ec", 384, "P-384"), ("ec-p384",), id="curve"),
        pytest.param(PublicKey(b"", b"", "ec", 256, "secp256k1"), (), id="another-curve"),
        pytest.param(PublicKey(b"", b"", "ed25519", 256), (), id="another-algorithm"),
    ],
)
def test_kinds_that_fit(wanted: PublicKey, fitting: Sequence[str]) -> None:
    assert tuple(kind for kind in ALL if kind_fits(kind, wanted)) == tuple(fitting)


async def test_what_a_request_may_not_ask_for_is_still_judged() -> None:
    asked = request(generate_private_key("ec-p256"))
    ca = replace(asked, csr=replace(asked.csr, is_ca=True))
    key = ServerKey("ec-p256")
    assert key.foresee(ca).csr.is_ca
    assert (await key.certify(ca, KeyMaker(), REQUESTER)).csr.is_ca


def test_before_it_was_drawn_there_is_no_key() -> None:
    with pytest.raises(RuntimeError):
        ServerKey("ec-p256").pkcs8()


async def test_one_key_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    loop = asyncio.get_running_loop()

    def count(change: int) -> None:
        nonlocal running, most
        running += change
        most = max(most, running)

    def draw(kind: str) -> PrivateKey:
        loop.call_soon_threadsafe(count, 1)
        made = generate_private_key(kind)
        loop.call_soon_threadsafe(count, -1)
        return made

    monkeypatch.setattr(server_keys, "generate_private_key", draw)
    maker = KeyMaker()
    await asyncio.gather(*(maker.draw("rsa-2048", f"device-{n}") for n in range(4)))
    assert most == 1


async def test_who_waits_no_longer_keeps_nobody_waiting() -> None:
    maker = KeyMaker()
    first = asyncio.create_task(maker.draw("rsa-2048", REQUESTER))
    waiting = [asyncio.create_task(maker.draw("rsa-2048", f"device-{n}")) for n in range(3)]
    await asyncio.sleep(0)
    for task in (first, *waiting[:2]):
        task.cancel()
    assert await waiting[2] is not None
    assert all(maker.has_place(name) for name in (REQUESTER, "device-0", "device-1", "device-2"))
    assert await maker.draw("ec-p256", REQUESTER) is not None


async def test_a_key_that_cannot_be_drawn_gives_its_turn_back() -> None:
    maker = KeyMaker()
    with pytest.raises(ValueError, match="unknown kind"):
        await maker.draw("none", REQUESTER)
    assert await maker.draw("ec-p256", REQUESTER) is not None
