"""What ties a request to its TLS connection: checked where it is there, demanded where it must be (RFC 7030 §3.5)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, Linking, Protocol, Requester
from gateway.ra.linking import check_linking
from gateway.ra.profile import LinkingMode
from tests.unit.ra.est import est_request

UNIQUE, OTHER = "dGxzLXVuaXF1ZTEy", "b3RoZXItdW5pcXVl"
TLS_1_3 = "TLS 1.3 has no tls-unique"
MATCHING, MISMATCHED, ABSENT = Linking(UNIQUE, UNIQUE), Linking(OTHER, UNIQUE), Linking(None, UNIQUE)
UNVERIFIABLE, NEITHER = Linking(UNIQUE, None, TLS_1_3), Linking(None, None, TLS_1_3)
BASIC, OTP, RA = (
    Requester(f"{kind}:1", kind) for kind in (CredentialKind.BASIC, CredentialKind.ONE_TIME, CredentialKind.RA_CERTIFICATE)
)


def judge(mode: LinkingMode, linking: Linking | None, requester: Requester = BASIC, **changes: Any) -> str:
    """Why it is refused; empty when it is not."""
    found: Rejection | None = None
    try:
        check_linking(mode, est_request(linking=linking, **changes), requester)
    except Rejection as refused:
        found = refused
    if found is None:
        return ""
    assert found.reason is Reason.BAD_PROOF_OF_POSSESSION
    assert UNIQUE not in found.cause
    assert requester.identity in found.cause
    return found.detail


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"])
@pytest.mark.parametrize(
    ("linking", "off", "if_present", "require"),
    [
        pytest.param(MATCHING, "", "", "", id="matching"),
        pytest.param(Linking(f"{UNIQUE}\n", UNIQUE), "", "", "", id="with-a-line-break"),
        pytest.param(MISMATCHED, "", "another one", "another one", id="another-connections"),
        pytest.param(Linking("", UNIQUE), "", "another one", "another one", id="empty"),
        pytest.param(Linking("\ud800é", UNIQUE), "", "another one", "another one", id="no-base64"),
        pytest.param(Linking(UNIQUE[:-1], UNIQUE), "", "another one", "another one", id="a-part"),
        pytest.param(ABSENT, "", "", "neither estIdentityLinking nor challengePassword", id="absent"),
        pytest.param(UNVERIFIABLE, "", TLS_1_3, TLS_1_3, id="cannot-be-checked"),
        pytest.param(NEITHER, "", "", TLS_1_3, id="cannot-be-made"),
        pytest.param(None, "", "", "says nothing", id="nothing-is-known"),
    ],
)
def test_modes(linking: Linking | None, off: str, if_present: str, require: str, operation: str) -> None:
    said = {"off": off, "if_present": if_present, "require": require}
    for mode in ("off", "if_present", "require"):
        found = judge(mode, linking, operation=operation)
        assert (said[mode] in found, bool(found)) == (True, bool(said[mode])), mode


@pytest.mark.parametrize("kind", [CredentialKind.STATIC, CredentialKind.ONE_TIME, CredentialKind.INTUNE_JWS])
def test_a_secret_that_proved_who_asks_is_no_link(kind: CredentialKind) -> None:
    secret = Requester(f"{kind}:1", kind)
    together = Requester("all_of:1", CredentialKind.ALL_OF, factors=frozenset({CredentialKind.BASIC, kind}))
    for requester in (secret, together):
        assert not judge("if_present", MISMATCHED, requester, challenge=OTHER)
        assert judge("require", MISMATCHED, requester, challenge=OTHER), "and it does not tie the request to anything"
        assert judge("if_present", MISMATCHED, requester, challenge="otp"), "beside otpChallenge, challengePassword is a link"
        assert not judge("require", MATCHING, requester, challenge="otp")


def test_a_secret_that_proved_nothing_is_a_link() -> None:
    assert judge("if_present", MISMATCHED, BASIC, challenge=OTHER)


@pytest.mark.parametrize("linking", [MATCHING, MISMATCHED, ABSENT, UNVERIFIABLE, NEITHER, None])
def test_registration_authorities_are_exempt(linking: Linking | None) -> None:
    together = Requester(
        "all_of:1", CredentialKind.ALL_OF, factors=frozenset({CredentialKind.BASIC, CredentialKind.RA_CERTIFICATE})
    )
    for requester in (RA, together):
        assert not judge("require", linking, requester)


def test_other_protocols_have_no_such_thing() -> None:
    assert not judge("require", None, OTP, protocol=Protocol.SCEP)
