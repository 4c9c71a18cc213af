"""What clients say in their templates beside names: times that they ask for, and where their keys are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.asn1.attestation import OID_ATTESTATION
from gateway.asn1.cmp import FailInfo
from gateway.cmp import CertAnswer, PkiStatus
from gateway.config.policy import PolicyConfig
from gateway.model import Evidence, Extension
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import PrivateKey, public_key_der, sign, signature_algorithm
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.attestation import AttestationTerms
from gateway.validation.attestation import RequestAttestation
from gateway.wire.cmp import requests
from tests.attesting import Maker, Tpm, YubiKey
from tests.flow.cmp.cmp_world import DAY, CmpWorld, ir, key_of
from tests.unit.validation.attestation.test_requests import said_by_tpm, said_by_yubikey

CHIPS, KEYS = Maker.create("Chips"), Maker.create("Keys")
TEMPLATE = {"subject": {"template": "CN={attested.permanent_identifier},O={attested.format}"}}


def attests(world: CmpWorld, *, required: bool = True) -> None:
    """Look at what requests say of their keys."""
    terms = AttestationTerms(RequestAttestation(CHIPS.anchors, KEYS.anchors), required)
    world.corp.options |= {"key_attestation": terms}


def bundle(said: Evidence) -> bytes:
    statement = der.sequence(der.oid(said.type), said.statement)
    return der.sequence(der.sequence(statement), der.sequence(*said.certificates))


def saying(said: Evidence) -> bytes:
    return ir(wanted=[Extension(OID_ATTESTATION, False, bundle(said))])


def p10cr_saying(key: PrivateKey, said: Evidence) -> bytes:
    attribute = der.sequence(der.oid(OID_ATTESTATION), der.set_of(bundle(said)))
    info = der.sequence(der.integer(0), parse_name_text("CN=device").der, public_key_der(key), der.context(0, attribute))
    return requests.p10cr(der.sequence(info, signature_algorithm(key), der.bit_string(sign(key, info))))


async def test_times_that_were_asked_for(world: CmpWorld) -> None:
    now = world.clock().replace(microsecond=0)
    begin, end = now + DAY, now + 9 * DAY
    told = await world.send(ir(not_before=begin, not_after=end), await world.secret())
    leaf = parse_certificate(told.certificate)
    assert (leaf.not_before, leaf.not_after) == (begin, end)


async def test_an_end_alone(world: CmpWorld) -> None:
    end = world.clock().replace(microsecond=0) + 9 * DAY
    told = await world.send(ir(not_after=end), await world.secret())
    assert parse_certificate(told.certificate).not_after == end


async def test_a_clock_that_is_behind_ours(world: CmpWorld) -> None:
    """OpenSSL's -days asks for a certificate that begins when its message was made."""
    world.corp.options |= {"policy": PolicyConfig.model_validate({"validity": {"backdate": "0s"}})}
    then = world.clock().replace(microsecond=0) - timedelta(minutes=2)
    told = await world.send(ir(not_before=then, not_after=then + 9 * DAY), await world.secret(), now=then)
    assert parse_certificate(told.certificate).not_before == then


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        pytest.param(0 * DAY, 4000 * DAY, id="for too long"),
        pytest.param(-30 * DAY, 9 * DAY, id="from the past"),
        pytest.param(9 * DAY, 8 * DAY, id="backwards"),
    ],
)
async def test_times_that_cannot_be_given(world: CmpWorld, begins: timedelta, ends: timedelta) -> None:
    now = world.clock().replace(microsecond=0)
    told = await world.send(ir(not_before=now + begins, not_after=now + ends), await world.secret())
    assert told.failed == {FailInfo.BAD_CERT_TEMPLATE}
    assert not world.ca.issued()


@pytest.mark.parametrize("pkcs10", [False, True], ids=["ir", "p10cr"])
async def test_what_was_attested_becomes_the_name(world: CmpWorld, pkcs10: bool) -> None:
    attests(world)
    world.corp.options |= {"policy": PolicyConfig.model_validate(TEMPLATE)}
    rows = {
        "CN=TPM-SERIAL-0001,O=tpm": said_by_tpm(Tpm(CHIPS, key=key_of("device"))),
        "CN=16023607,O=step": said_by_yubikey(YubiKey(KEYS, key=key_of("device"))),
    }
    for number, (name, said) in enumerate(rows.items()):
        body = p10cr_saying(key_of("device"), said) if pkcs10 else saying(said)
        told = await world.send(body, await world.secret(f"ref{number}"))
        leaf = parse_certificate(told.certificate)
        assert format_name(leaf.subject) == name
        assert OID_ATTESTATION not in {e.oid for e in leaf.extensions}
        assert isinstance(told.received.body, CertAnswer)
        assert told.received.body.status.status is PkiStatus.GRANTED_WITH_MODS


async def test_keys_of_which_nothing_good_is_said(world: CmpWorld) -> None:
    attests(world)
    good = said_by_tpm(Tpm(CHIPS, key=key_of("device")))
    rows = {
        "nothing": ir(),
        "of another key": saying(said_by_tpm(Tpm(CHIPS))),
        "by another maker": saying(said_by_tpm(Tpm(Maker.create("Strangers"), key=key_of("device")))),
        "in a broken bundle": ir(wanted=[Extension(OID_ATTESTATION, False, der.null())]),
        "with a byte changed": saying(replace(good, statement=good.statement[:40] + b"?" + good.statement[41:])),
        "of another key, in a PKCS#10": p10cr_saying(key_of("another"), good),
    }
    for number, (name, body) in enumerate(rows.items()):
        told = await world.send(body, await world.secret(f"ref{number}"))
        assert told.failed == {FailInfo.NOT_AUTHORIZED}, name
    assert not world.ca.issued()


async def test_nobody_looks(world: CmpWorld) -> None:
    assert (await world.send(saying(said_by_tpm(Tpm(CHIPS))), await world.secret())).issued
