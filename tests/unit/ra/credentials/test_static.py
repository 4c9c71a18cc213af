"""One shared challenge: recognised in constant time, never kept, and one identity for each subject."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, EnrollmentRequest, ProfileName, Protocol, PublicKey, RequestForm
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.static import StaticCredential

NOW = datetime(2027, 1, 2, tzinfo=UTC)
CSR = CertificateRequest(
    RequestForm.PKCS10, b"", b"", parse_name_text("CN=gate-1"), PublicKey(b"", b"k" * 32, "ec", 256, "P-256")
)
REQUEST = EnrollmentRequest(ProfileName("corp"), Protocol.SCEP, "PKCSReq", "t", CSR, "s3cret", None, "192.0.2.1")


@pytest.fixture
def provider() -> StaticCredential:
    return StaticCredential(ProfileName("corp"), b"s3cret")


async def test_right_challenge(provider: StaticCredential) -> None:
    requester = await provider.authenticate(REQUEST, NOW)
    assert requester is not None
    assert requester.identity.startswith("static:corp:")
    assert requester.kind is provider.kind
    assert requester.reservations == ()
    assert not requester.vouches_for_sid


@pytest.mark.parametrize("challenge", [None, ""], ids=["absent", "empty"])
async def test_no_challenge_is_somebody_elses_matter(provider: StaticCredential, challenge: str | None) -> None:
    assert await provider.authenticate(replace(REQUEST, challenge=challenge), NOW) is None


@pytest.mark.parametrize(
    "challenge",
    [
        pytest.param("wrong", id="wrong"),
        pytest.param("s3cret ", id="trailing-space"),
        pytest.param("s3cret\x00", id="trailing-nul"),
        pytest.param("S3CRET", id="other-case"),
        pytest.param("s3cre", id="prefix"),
        pytest.param("\ud800", id="lone-surrogate"),
        pytest.param("s3cret" * 1000, id="huge"),
    ],
)
async def test_wrong_challenge(provider: StaticCredential, challenge: str) -> None:
    with pytest.raises(Rejection) as refused:
        await provider.authenticate(replace(REQUEST, challenge=challenge), NOW)
    assert refused.value.reason is Reason.CREDENTIAL_INVALID
    assert challenge not in str(refused.value) + refused.value.detail


@pytest.mark.parametrize("secret", [b"", b" ", b"\n"])
def test_empty_secret_is_no_secret(secret: bytes) -> None:
    with pytest.raises(ValueError, match="empty"):
        StaticCredential(ProfileName("corp"), secret)


async def test_identity_is_the_subject_as_names_compare(provider: StaticCredential) -> None:
    async def identity(subject: str) -> str:
        requester = await provider.authenticate(replace(REQUEST, csr=replace(CSR, subject=parse_name_text(subject))), NOW)
        assert requester is not None
        return requester.identity

    assert await identity("CN=gate-1") == await identity("cn=GATE-1")
    assert await identity("CN=gate-1") != await identity("CN=gate-2")


def test_secret_is_not_kept(provider: StaticCredential) -> None:
    assert b"s3cret" not in vars(provider).values()
    assert "s3cret" not in repr(provider) + repr(vars(provider)) + repr(REQUEST)
