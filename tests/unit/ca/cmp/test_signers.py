"""Whose certificate may sign answers: a pinned one, or an authority's below a pinned CA; a device's never."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.ca.cmp.signers import AnswerSigners
from gateway.errors import Rejection
from gateway.model import Grant
from gateway.pki.certificate import Issuer, build_certificate, new_serial, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import public_key_der
from gateway.pki.names import parse_name_text
from tests.unit.ca.conftest import DAY, NOW, Pair, key_of, make_issuing, make_root

ROOT = make_root()
ISSUING = make_issuing(ROOT)
STRANGER = make_root(label="stranger")
RA = (eku_oid("cmcRA"),)


def certify(
    issuer: Pair = ISSUING,
    ekus: tuple[str, ...] = RA,
    usage: tuple[str, ...] = ("digitalSignature",),
    end: timedelta = DAY,
) -> bytes:
    grant = Grant(parse_name_text("CN=server").der, (), usage, ekus, NOW - 2 * DAY, NOW + end)
    public_key = public_key_der(key_of("ec-p256", "server"))
    return build_certificate(Issuer.from_certificate(issuer.der, issuer.key), new_serial(), grant, public_key)


SERVER = certify()
DEVICE = certify(ekus=(eku_oid("clientAuth"),))


@pytest.mark.parametrize(
    ("signer", "trusted", "sent"),
    [
        pytest.param(SERVER, (ISSUING.der, ROOT.der), (), id="below the issuing CA"),
        pytest.param(SERVER, (ROOT.der,), (SERVER, ISSUING.der), id="by way of what came along"),
        pytest.param(certify(ekus=(eku_oid("cmcCA"),)), (ISSUING.der,), (), id="cmcCA"),
        pytest.param(certify(usage=()), (ISSUING.der,), (), id="without key usage"),
        pytest.param(DEVICE, (DEVICE,), (), id="pinned, whatever it says"),
        pytest.param(ISSUING.der, (ISSUING.der, ROOT.der), (), id="the CA itself"),
    ],
)
def test_may_sign(signer: bytes, trusted: tuple[bytes, ...], sent: tuple[bytes, ...]) -> None:
    assert AnswerSigners.create(trusted).authorize(parse_certificate(signer), sent, NOW)


@pytest.mark.parametrize(
    ("signer", "trusted", "sent", "said"),
    [
        pytest.param(DEVICE, (ISSUING.der, ROOT.der), (), "no authority's", id="a device of the same CA"),
        pytest.param(certify(ekus=()), (ISSUING.der,), (), "no authority's", id="without purposes"),
        pytest.param(certify(usage=("keyAgreement",)), (ISSUING.der,), (), "may not sign", id="a key that does not sign"),
        pytest.param(certify(STRANGER), (ISSUING.der, ROOT.der), (STRANGER.der,), "no CA of the bundle", id="of another CA"),
        pytest.param(STRANGER.der, (ISSUING.der, ROOT.der), (STRANGER.der,), "no CA of the bundle", id="another CA"),
        pytest.param(SERVER, (ROOT.der,), (), "no CA of the bundle", id="without what leads to it"),
        pytest.param(SERVER, (DEVICE,), (), "not pinned", id="no CA is pinned"),
        pytest.param(certify(end=-DAY), (ISSUING.der,), (), "not valid", id="expired"),
    ],
)
def test_may_not_sign(signer: bytes, trusted: tuple[bytes, ...], sent: tuple[bytes, ...], said: str) -> None:
    with pytest.raises(Rejection, match=said):
        AnswerSigners.create(trusted).authorize(parse_certificate(signer), sent, NOW)


def test_a_pinned_one_that_expired() -> None:
    old = certify(end=-DAY)
    with pytest.raises(Rejection, match="not valid"):
        AnswerSigners.create((old,)).authorize(parse_certificate(old), (), NOW)
