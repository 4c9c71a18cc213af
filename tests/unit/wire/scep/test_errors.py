import pytest

from gateway.asn1.scep import FailInfo
from gateway.errors import Reason
from gateway.wire.scep.errors import FAIL_INFO, HTTP_STATUS, fail_info


def test_every_reason_has_exactly_one_spelling() -> None:
    assert set(FAIL_INFO) | set(HTTP_STATUS) == set(Reason)
    assert not set(FAIL_INFO) & set(HTTP_STATUS)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_signed(reason: Reason) -> None:
    assert fail_info(reason) in FailInfo


def test_what_a_decrypting_attacker_could_tell_apart_has_one_code() -> None:
    assert fail_info(Reason.DECRYPTION_FAILED) == fail_info(Reason.BAD_PROOF_OF_POSSESSION)
