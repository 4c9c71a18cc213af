"""One-time challenges: whose they are, how long they last, and what is reserved so that each serves once."""

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import (
    CertificateRequest,
    EnrollmentRequest,
    NameBinding,
    ProfileName,
    Protocol,
    PublicKey,
    RequestForm,
    RequestId,
    SanKind,
)
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.one_time import OneTimeCredential, new_challenge
from gateway.store.interfaces import ChallengeRow, Ledger

NOW = datetime(2027, 1, 2, tzinfo=UTC)
CORP = ProfileName("corp")
CHALLENGE = new_challenge()
CSR = CertificateRequest(
    RequestForm.PKCS10, b"", b"", parse_name_text("CN=gate-1"), PublicKey(b"", b"k" * 32, "ec", 256, "P-256")
)
REQUEST = EnrollmentRequest(CORP, Protocol.SCEP, "PKCSReq", "t", CSR, CHALLENGE, None, "192.0.2.1")


def macs(challenge: str) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(key + challenge.encode()).digest() for key in (b"new", b"old"))


ROW = ChallengeRow("c1", CORP, macs(CHALLENGE)[0], NOW, NOW + timedelta(hours=1), "uid:0 (root)")


class Challenges:
    """The one method of a ledger that this provider may use."""

    def __init__(self, *rows: ChallengeRow) -> None:
        self.rows = rows
        self.asked = 0

    async def find_challenge(self, mac: bytes) -> ChallengeRow | None:
        self.asked += 1
        return next((row for row in self.rows if row.mac == mac), None)


def provider(*rows: ChallengeRow) -> OneTimeCredential:
    return OneTimeCredential(CORP, cast("Ledger", Challenges(*rows)), macs, timedelta(hours=1))


async def test_the_challenge_of_this_profile() -> None:
    row = replace(ROW, subject="CN=gate-1", sans=frozenset({(SanKind.DNS, "a")}), owner="alice")
    requester = await provider(row).authenticate(REQUEST, NOW)
    assert requester is not None
    assert (requester.identity, requester.owner) == ("one_time:c1", "alice")
    assert requester.binding == NameBinding("CN=gate-1", row.sans)
    assert [(r.kind, r.key) for r in requester.reservations] == [("one_time", "c1")]
    assert not requester.vouches_for_sid


async def test_a_challenge_under_an_older_store_key() -> None:
    assert await provider(replace(ROW, mac=macs(CHALLENGE)[1])).authenticate(REQUEST, NOW) is not None


async def test_without_a_challenge_the_store_is_not_asked() -> None:
    challenges = Challenges(ROW)
    one_time = OneTimeCredential(CORP, cast("Ledger", challenges), macs)
    assert await one_time.authenticate(replace(REQUEST, challenge=None), NOW) is None
    for challenge in ("short", "x" * 129, "ü" * 20, "with space in it, long"):
        with pytest.raises(Rejection):
            await one_time.authenticate(replace(REQUEST, challenge=challenge), NOW)
    assert challenges.asked == 0


@pytest.mark.parametrize(
    ("changes", "after", "reason"),
    [
        pytest.param({"mac": b"another"}, timedelta(0), Reason.CREDENTIAL_INVALID, id="unknown"),
        pytest.param({"profile": "other"}, timedelta(0), Reason.CREDENTIAL_INVALID, id="foreign-profile"),
        pytest.param({"revoked_at": NOW}, timedelta(0), Reason.CREDENTIAL_REVOKED, id="revoked"),
        pytest.param({}, timedelta(hours=1), Reason.CREDENTIAL_EXPIRED, id="expired-to-the-second"),
        pytest.param({"used_by": RequestId("r")}, timedelta(hours=2), Reason.CREDENTIAL_EXPIRED, id="used-and-long-expired"),
        pytest.param({"profile": "other", "revoked_at": NOW}, timedelta(0), Reason.CREDENTIAL_INVALID, id="foreign-says-no-more"),
    ],
)
async def test_refused(changes: dict[str, Any], after: timedelta, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await provider(replace(ROW, **changes)).authenticate(REQUEST, NOW + after)
    assert refused.value.reason is reason
    assert CHALLENGE not in str(refused.value)
    assert "other" not in refused.value.detail, "the client is not told whose it is"


async def test_a_used_challenge_still_proves_its_retransmission() -> None:
    used = provider(replace(ROW, used_by=RequestId("r")))
    late = NOW + timedelta(minutes=90)
    assert await used.authenticate(REQUEST, late) is not None


@pytest.mark.parametrize("used_by", [None, RequestId("r")], ids=["unused", "used"])
async def test_the_reservation_outlives_every_moment_at_which_the_challenge_is_good(used_by: RequestId | None) -> None:
    one_time = provider(replace(ROW, used_by=used_by))
    for minutes in range(180):
        now = NOW + timedelta(minutes=minutes)
        try:
            requester = await one_time.authenticate(REQUEST, now)
        except Rejection:
            continue
        assert requester is not None
        assert requester.reservations[0].expires_at > ROW.expires_at + timedelta(hours=1)


def test_new_challenges() -> None:
    many = {new_challenge() for _ in range(200)}
    assert len(many) == 200
    assert all(re.fullmatch("[A-Z2-9]{26,}", challenge) for challenge in many)
