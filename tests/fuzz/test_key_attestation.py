"""Mutations of what requests say of their keys: only Rejections escape, each is cheap, and none is believed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest, Evidence
from gateway.pki import der
from gateway.pki.evidence import read_bundle
from gateway.validation.attestation import RequestAttestation
from tests.attesting import NOW, Maker, Tpm, YubiKey
from tests.fuzz.mutations import MUTATIONS, Mutator, refused_cheaply
from tests.unit.validation.attestation.test_requests import request, said_by_tpm, said_by_yubikey

CHIPS, KEYS = Maker.create("Chips"), Maker.create("Keys")
TPM, YUBIKEY = Tpm(CHIPS), YubiKey(KEYS)
JUDGE = RequestAttestation(CHIPS.anchors, KEYS.anchors)
SAID = {"tpm": (request(TPM.key), said_by_tpm(TPM)), "step": (request(YUBIKEY.key), said_by_yubikey(YUBIKEY))}


def bundle(said: Evidence) -> bytes:
    return der.sequence(der.sequence(der.sequence(der.oid(said.type), said.statement)), der.sequence(*said.certificates))


def judge(asked: CertificateRequest, data: bytes) -> None:
    """Judge as strictly as a profile that wants an attestation."""
    try:
        claims = JUDGE.judge(replace(asked, evidence=read_bundle(data)), NOW)
    except Rejection as refused:
        if refused.reason is not Reason.BAD_ATTESTATION:
            raise AssertionError from refused
        raise
    if claims is None:
        raise MalformedMessage("nothing is said")


@pytest.mark.parametrize("format", SAID)
def test_mutations(format: str) -> None:
    asked, said = SAID[format]
    whole = bundle(said)
    assert not refused_cheaply(partial(judge, asked, whole), "what is whole")
    for number, broken in enumerate(Mutator(whole, format).mutations(MUTATIONS)):
        if not refused_cheaply(partial(judge, asked, broken), f"{format}, mutation {number}"):
            found = {one.statement for one in read_bundle(broken)}
            assert said.statement in found, "what is believed stands there as it was said"
