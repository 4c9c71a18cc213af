"""Failed authentications have a bounded number of audit rows by profile and address."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import Reason
from gateway.model import Pending, Rejected, RequestId, Unavailable
from gateway.ra.strangers import MAX_SOURCES, ROWS_A_MINUTE, Strangers

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
FAILED = Rejected(Reason.CREDENTIAL_INVALID, "the challenge is not valid")


def rows(strangers: Strangers, source: str, times: int, profile: str = "corp", now: datetime = NOW) -> int:
    return sum(not strangers.only_counted(FAILED, profile, source, now) for _ in range(times))


def test_rows_are_bounded_for_a_minute() -> None:
    strangers = Strangers()
    assert rows(strangers, "192.0.2.1", 100) == ROWS_A_MINUTE
    assert rows(strangers, "192.0.2.1", 1, now=NOW + timedelta(seconds=59)) == 0
    assert rows(strangers, "192.0.2.1", 1, now=NOW + timedelta(seconds=60)) == 1


def test_a_clock_that_goes_back_begins_a_new_minute() -> None:
    strangers = Strangers()
    assert rows(strangers, "192.0.2.1", 100, now=NOW + timedelta(days=1)) == ROWS_A_MINUTE
    assert rows(strangers, "192.0.2.1", 1) == 1


def test_each_profile_and_address_has_its_own() -> None:
    strangers = Strangers()
    assert rows(strangers, "192.0.2.1", 100) == ROWS_A_MINUTE
    assert rows(strangers, "192.0.2.2", 1) == 1
    assert rows(strangers, "192.0.2.1", 1, profile="lab") == 1


def test_a_host_has_one_ipv6_network() -> None:
    strangers = Strangers()
    assert rows(strangers, "2001:db8::1", 100) == ROWS_A_MINUTE
    assert rows(strangers, "2001:db8::ffff:2", 1) == 0
    assert rows(strangers, "2001:db8:0:1::1", 1) == 1


def test_addresses_that_are_not_kept_share_one_bound() -> None:
    strangers = Strangers()
    for n in range(MAX_SOURCES):
        assert rows(strangers, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1) == 1
    assert sum(rows(strangers, f"198.51.100.{n}", 1) for n in range(200)) == ROWS_A_MINUTE
    assert rows(strangers, "10.0.0.0", 1) == 1


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param(Reason.CREDENTIAL_MISSING, id="no-challenge-or-client-certificate"),
        pytest.param(Reason.CREDENTIAL_MALFORMED, id="not-even-a-signed-challenge"),
        pytest.param(Reason.CREDENTIAL_SIGNATURE, id="challenge-signed-by-nobody-known"),
        pytest.param(Reason.CREDENTIAL_EXPIRED, id="certificate-or-challenge-that-has-ended"),
        pytest.param(Reason.CREDENTIAL_REVOKED, id="certificate-or-challenge-that-was-revoked"),
        pytest.param(Reason.NOT_AUTHORIZED, id="unknown-signer"),
        pytest.param(Reason.UNKNOWN_CERTIFICATE, id="unknown-certificate"),
        pytest.param(Reason.UNKNOWN_TRANSACTION, id="unknown-transaction"),
    ],
)
def test_whoever_has_proved_nothing_is_bounded(reason: Reason) -> None:
    strangers = Strangers()
    refused = Rejected(reason, "no")
    written = sum(not strangers.only_counted(refused, "corp", "192.0.2.1", NOW) for _ in range(ROWS_A_MINUTE * 2))
    assert written == ROWS_A_MINUTE


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        pytest.param(Unavailable(Reason.OVERLOADED, 5), True, id="overloaded"),
        pytest.param(Rejected(Reason.RATE_LIMITED, "later"), True, id="rate-limited"),
        pytest.param(Rejected(Reason.POLICY_KEY, "too short"), False, id="authenticated-and-refused"),
        pytest.param(Rejected(Reason.CREDENTIAL_USED, "used"), False, id="challenge-used-again"),
        pytest.param(Pending(RequestId("r"), 5), False, id="pending"),
    ],
)
def test_what_is_never_or_always_written(outcome: object, counted: bool) -> None:
    strangers = Strangers()
    assert {strangers.only_counted(outcome, "corp", "192.0.2.1", NOW) for _ in range(100)} == {counted}
