"""Signed challenges under a pinned clock, and the provider that judges them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.config import credentials
from gateway.errors import Rejection
from gateway.model import (
    CertificateRequest,
    EnrollmentRequest,
    ProfileName,
    Protocol,
    PublicKey,
    Requester,
    RequestForm,
)
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.intune_jws import (
    IntuneJwsCredential,
    parse_challenge_anchors,
)
from tests.golden_challenges import (
    AUDIENCE,
    NOW,
    anchor,
    claims,
    issuer_key,
    sign_challenge,
)

PROFILE = ProfileName("devices")
CSR = CertificateRequest(
    RequestForm.PKCS10, b"", b"", parse_name_text("CN=gate-1"), PublicKey(b"", b"k" * 32, "ec", 256, "P-256")
)
REQUEST = EnrollmentRequest(PROFILE, Protocol.SCEP, "PKCSReq", "t", CSR, None, None, "192.0.2.1")
EC, RSA = issuer_key("ec"), issuer_key("rsa")
ANCHORS = parse_challenge_anchors(anchor("ec") + anchor("rsa"))
SECOND = timedelta(seconds=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def provider(*, exclusive: bool = True, profile: ProfileName = PROFILE, **settings: Any) -> IntuneJwsCredential:
    settings = {"type": "intune_jws", "anchors": "anchors.pem", "audience": AUDIENCE, "skew": "0s"} | settings
    config = credentials.IntuneJwsCredential.model_validate(settings, strict=False)
    return IntuneJwsCredential(profile, ANCHORS, config, exclusive=exclusive)


async def ask(challenge: str | None, at: datetime = NOW, **settings: Any) -> Requester:
    requester = await provider(**settings).authenticate(replace(REQUEST, challenge=challenge), at)
    assert requester is not None
    return requester


async def refusal(challenge: str | None, at: datetime = NOW, **settings: Any) -> Rejection:
    with pytest.raises(Rejection) as refused:
        await provider(**settings).authenticate(replace(REQUEST, challenge=challenge), at)
    return refused.value


def signed(payload: dict[str, Any] | bytes | None = None, **changes: Any) -> str:
    return sign_challenge(EC, claims(**changes) if payload is None else payload)
