import pytest
from pyasn1_alt_modules import rfc9810

from gateway.asn1.cmp import FailInfo
from gateway.errors import Reason
from gateway.wire.cmp.errors import FAIL_INFO, fail_info_text


def test_every_reason_has_a_bit() -> None:
    assert set(FAIL_INFO) == set(Reason)


def test_bits_and_names_are_the_rfcs() -> None:
    named = dict(rfc9810.PKIFailureInfo.namedValues.items())
    assert {fail_info_text(info): info.value for info in FailInfo} == named


@pytest.mark.parametrize(
    ("reason", "bit"),
    [
        pytest.param(Reason.BAD_MESSAGE_CHECK, FailInfo.BAD_MESSAGE_CHECK, id="a wrong MAC"),
        pytest.param(Reason.BAD_SIGNATURE, FailInfo.BAD_MESSAGE_CHECK, id="a wrong signature"),
        pytest.param(Reason.WRONG_INTEGRITY, FailInfo.WRONG_INTEGRITY, id="kur under a MAC"),
        pytest.param(Reason.BAD_NONCE, FailInfo.BAD_SENDER_NONCE, id="a short senderNonce"),
        pytest.param(Reason.BAD_RECIPIENT_NONCE, FailInfo.BAD_RECIPIENT_NONCE, id="a foreign recipNonce"),
        pytest.param(Reason.BAD_PROOF_OF_POSSESSION, FailInfo.BAD_POP, id="a key that did not sign"),
        pytest.param(Reason.BAD_TEMPLATE, FailInfo.BAD_CERT_TEMPLATE, id="a template without subject"),
        pytest.param(Reason.UNKNOWN_CERTIFICATE, FailInfo.BAD_CERT_ID, id="an unknown certificate"),
        pytest.param(Reason.ALREADY_CONFIRMED, FailInfo.CERT_CONFIRMED, id="a second certConf"),
        pytest.param(Reason.TRANSACTION_IN_USE, FailInfo.TRANSACTION_ID_IN_USE, id="a transactionID that was used"),
        pytest.param(Reason.UNSUPPORTED_VERSION, FailInfo.UNSUPPORTED_VERSION, id="pvno 1"),
        pytest.param(Reason.UPSTREAM_UNAVAILABLE, FailInfo.SYSTEM_UNAVAIL, id="no CA"),
    ],
)
def test_bits_that_clients_act_on(reason: Reason, bit: FailInfo) -> None:
    assert FAIL_INFO[reason] is bit
