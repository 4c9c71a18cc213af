"""What HTTP statuses of a CMP server mean, with TLS and without."""

from __future__ import annotations

import pytest

from gateway.ca.cmp.dialogue import _check_status
from gateway.ca.http import Response
from gateway.ca.interfaces import NotSent, UnknownResult, UpstreamError, UpstreamRejected


@pytest.mark.parametrize(
    ("believed", "failed", "error"),
    [
        pytest.param(True, UnknownResult, UpstreamRejected, id="by TLS"),
        pytest.param(False, UnknownResult, UnknownResult, id="anybody's word"),
        pytest.param(True, NotSent, NotSent, id="of a question"),
    ],
)
def test_a_refusal(believed: bool, failed: type[NotSent] | type[UnknownResult], error: type[UpstreamError]) -> None:
    with pytest.raises(error) as raised:
        _check_status(Response(400, {}, b"", failed), believed=believed)
    assert type(raised.value) is error
