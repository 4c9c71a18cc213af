import pytest

from gateway.errors import Reason
from gateway.wire.est.errors import HTTP_STATUS, MAX_SENTENCE, http_status, sentence


def test_every_reason_has_a_status() -> None:
    assert set(HTTP_STATUS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_no_refusal_looks_like_success_or_waiting(reason: Reason) -> None:
    assert HTTP_STATUS[reason] >= 400


@pytest.mark.parametrize("reason", Reason)
def test_401_is_said_only_where_a_scheme_is_named(reason: Reason) -> None:
    assert http_status(reason, schemes=True) == HTTP_STATUS[reason]
    assert http_status(reason, schemes=False) != 401
    if HTTP_STATUS[reason] != 401:
        assert http_status(reason, schemes=False) == HTTP_STATUS[reason]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        pytest.param(Reason.BAD_PROOF_OF_POSSESSION, 400, id="a CSR that its key did not sign"),
        pytest.param(Reason.CREDENTIAL_MISSING, 401, id="nobody has said who asks"),
        pytest.param(Reason.RENEWAL_REFUSED, 403, id="a renewal with other names"),
        pytest.param(Reason.CREDENTIAL_REVOKED, 403, id="a revoked certificate: no password makes it good"),
        pytest.param(Reason.POLICY_SAN, 403, id="a name that is not allowed"),
        pytest.param(Reason.UNKNOWN_PROFILE, 404, id="an unknown label"),
        pytest.param(Reason.TOO_LARGE, 413, id="a body that is too long"),
        pytest.param(Reason.RATE_LIMITED, 429, id="too many passwords at once"),
        pytest.param(Reason.STORE_UNAVAILABLE, 503, id="nothing can be recorded"),
    ],
)
def test_statuses_that_clients_act_on(reason: Reason, status: int) -> None:
    assert HTTP_STATUS[reason] == status


@pytest.mark.parametrize(
    ("detail", "body"),
    [
        pytest.param("the key is too short", b"the key is too short\n", id="plain"),
        pytest.param("CN 'a\r\nb' is no name", b"CN 'a  b' is no name\n", id="line breaks stay out"),
        pytest.param("\x1b[31mred", b" [31mred\n", id="so do terminal commands"),
        pytest.param("Zürich", "Zürich\n".encode(), id="letters stay"),
        pytest.param("x" * 2000, b"x" * MAX_SENTENCE + b"\n", id="long"),
    ],
)
def test_sentence_is_one_line(detail: str, body: bytes) -> None:
    assert sentence(detail) == body
