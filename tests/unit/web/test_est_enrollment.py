"""A certificate that is to be renewed is parsed once, and remembered only where it is small."""

import pytest

from gateway.errors import MalformedMessage
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import generate_private_key
from gateway.web.est_enrollment import MAX_REMEMBERED, _remember_signer, _renewed
from tests.flow.scep.other_ca import OtherCA

CA = OtherCA.create("Fleet")
KEY = generate_private_key("ec-p256")


def certificate(subject: str) -> bytes:
    return CA.issue(KEY, subject)


@pytest.mark.parametrize(
    ("leaf", "remembered"),
    [
        pytest.param(certificate("CN=small"), True, id="small"),
        pytest.param(certificate(",".join(f"OU={'x' * 60}{number}" for number in range(60))), False, id="large"),
    ],
)
def test_what_is_remembered(leaf: bytes, remembered: bool) -> None:
    assert (len(leaf) <= MAX_REMEMBERED) is remembered
    before = _remember_signer.cache_info().currsize
    first, second = _renewed(leaf), _renewed(leaf)
    assert first is not None
    assert first == second
    assert first.sha256 == parse_certificate(leaf).sha256
    assert (first is second) is remembered
    assert _remember_signer.cache_info().currsize == before + remembered


def test_no_certificate() -> None:
    assert _renewed(None) is None


def test_what_is_no_certificate() -> None:
    with pytest.raises(MalformedMessage):
        _renewed(b"\x30\x03abc")
