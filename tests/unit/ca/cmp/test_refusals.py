"""What each bit of PKIFailureInfo means for a request: whose fault it is, and whether the server may have issued."""

from __future__ import annotations

import pytest

from gateway.asn1.cmp import FailInfo
from gateway.ca.cmp.refusals import error_of, name_of
from gateway.ca.interfaces import AuthFailed, NotSent, Unavailable, UnknownResult, UpstreamError, UpstreamRejected

MEANINGS: dict[FailInfo, type[UpstreamError]] = {
    FailInfo.BAD_MESSAGE_CHECK: AuthFailed,
    FailInfo.WRONG_INTEGRITY: AuthFailed,
    FailInfo.SIGNER_NOT_TRUSTED: AuthFailed,
    FailInfo.SYSTEM_UNAVAIL: Unavailable,
    FailInfo.BAD_TIME: NotSent,
    FailInfo.UNSUPPORTED_VERSION: NotSent,
    FailInfo.BAD_SENDER_NONCE: NotSent,
    FailInfo.SYSTEM_FAILURE: UnknownResult,
    FailInfo.TRANSACTION_ID_IN_USE: UnknownResult,
    FailInfo.DUPLICATE_CERT_REQ: UnknownResult,
}


@pytest.mark.parametrize("bit", FailInfo, ids=lambda bit: bit.name)
def test_every_bit(bit: FailInfo) -> None:
    error = error_of({bit}, "not you\r\nand nobody else")
    assert type(error) is MEANINGS.get(bit, UpstreamRejected)
    assert f"({name_of({bit})}): not you  and nobody else" in str(error)


def test_names_are_the_rfcs() -> None:
    names = {"badPOP", "transactionIdInUse", "duplicateCertReq", "badAlg", "notAuthorized"}
    assert names <= {name_of({bit}) for bit in FailInfo}
    assert name_of({FailInfo.BAD_POP, FailInfo.BAD_ALG}) == "badAlg, badPOP"


def test_no_reason() -> None:
    error = error_of((), "")
    assert type(error) is UpstreamRejected
    assert str(error) == "the CA refused the request (no reason)"


def test_whoever_is_away_has_not_issued() -> None:
    assert type(error_of({FailInfo.BAD_REQUEST, FailInfo.SYSTEM_UNAVAIL}, "")) is Unavailable
