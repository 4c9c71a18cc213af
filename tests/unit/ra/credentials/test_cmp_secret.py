"""A shared secret of CMP as a credential: by its own profile, for so many certificates, until it ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import (
    CredentialKind,
    EnrollmentRequest,
    MessageProof,
    NameBinding,
    ProfileName,
    Protocol,
    SecretProof,
)
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.ra.credentials.cmp_secret import CmpSecretCredential
from tests.flow.enrollment.world import make_request
from tests.unit.ra.fleet import enroll

NOW = datetime(2027, 6, 1, tzinfo=UTC)
CORP = ProfileName("corp")
BINDING = NameBinding(subject="CN=device")
SECRET = SecretProof("id-1", BINDING, "someone", 1, NOW + timedelta(days=1), NOW - timedelta(days=1), CORP)


def asked(secret: SecretProof | None = SECRET, **changes: Any) -> EnrollmentRequest:
    request = replace(make_request(NOW), protocol=Protocol.CMP, proof=MessageProof(secret, b"t" * 32))
    return replace(request, **changes)


async def test_its_holder_is_recognised() -> None:
    requester = await CmpSecretCredential(CORP).authenticate(asked(), NOW)
    assert requester is not None
    assert (requester.identity, requester.kind) == ("cmp_secret:id-1", CredentialKind.CMP_SECRET)
    assert (requester.binding, requester.owner) == (BINDING, "someone")


async def test_a_single_use_is_reserved_beyond_its_end() -> None:
    requester = await CmpSecretCredential(CORP).authenticate(asked(), NOW)
    assert requester is not None
    [reservation] = requester.reservations
    assert (reservation.kind, reservation.key) == ("cmp_secret", "id-1")
    assert reservation.expires_at > SECRET.expires_at
    assert not requester.allowances


async def test_several_uses_are_counted_for_its_whole_life() -> None:
    requester = await CmpSecretCredential(CORP).authenticate(asked(replace(SECRET, max_uses=7)), NOW)
    assert requester is not None
    [allowance] = requester.allowances
    assert (allowance.key, allowance.count) == ("cmp_secret:id-1", 7)
    assert allowance.window > SECRET.expires_at - SECRET.created_at
    assert not requester.reservations


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(asked(None), id="signed"),
        pytest.param(asked(proof=None), id="nothing proved"),
        pytest.param(asked(protocol=Protocol.SCEP), id="another protocol"),
    ],
)
async def test_what_no_secret_protected(request_: EnrollmentRequest) -> None:
    assert await CmpSecretCredential(CORP).authenticate(request_, NOW) is None


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        pytest.param(asked(replace(SECRET, profile=ProfileName("other"))), Reason.NOT_AUTHORIZED, id="another profile's"),
        pytest.param(asked(profile=ProfileName("other")), Reason.NOT_AUTHORIZED, id="asks another profile"),
        pytest.param(asked(replace(SECRET, expires_at=NOW)), Reason.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param(asked(signer=to_signer(parse_certificate(enroll()))), Reason.NOT_AUTHORIZED, id="signed as well"),
    ],
)
async def test_refusals(request_: EnrollmentRequest, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await CmpSecretCredential(CORP).authenticate(request_, NOW)
    assert refused.value.reason is reason
