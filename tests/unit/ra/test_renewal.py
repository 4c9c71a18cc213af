"""A certificate is no passport: every condition under which one may be renewed, and each of them missing."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason, Rejection
from gateway.model import (
    UNLIMITED_NOT_AFTER,
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    Name,
    ProfileName,
    Protocol,
    PublicKey,
    RequestForm,
    RequestId,
    SanKind,
    SignerCertificate,
    UpstreamCAName,
)
from gateway.pki.extensions import make_san
from gateway.pki.names import parse_name_text
from gateway.ra.profile import RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import InventoryRow, Ledger

NOW = datetime(2027, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CORP = ProfileName("corp")
OLD, NEW = PublicKey(b"o", b"o" * 32, "rsa", 2048), PublicKey(b"n", b"n" * 32, "rsa", 2048)
SUBJECT, SANS = parse_name_text("CN=gate-1,O=Corp"), (make_san(SanKind.DNS, "gate-1.corp.example"),)
SIGNER = SignerCertificate(b"c", b"s" * 32, b"i", 7, SUBJECT, SANS, OLD, NOW - 300 * DAY, NOW + 20 * DAY, False)
CSR = CertificateRequest(RequestForm.PKCS10, b"", b"", SUBJECT, NEW, SANS)
REQUEST = EnrollmentRequest(CORP, Protocol.SCEP, "RenewalReq", "t", CSR, None, SIGNER, "192.0.2.1", is_renewal=True)
RULE = RenewalRule(frozenset({CORP}), frozenset({"RenewalReq", "PKCSReq"}), 30 * DAY, DAY)
ROW = InventoryRow(
    sha256=SIGNER.sha256,
    der=b"c",
    upstream_ca=UpstreamCAName("ca"),
    issuer_der=b"i",
    serial=7,
    profile=CORP,
    protocol="scep",
    requester="one_time:1",
    owner="alice",
    request_id=RequestId("r"),
    request_sha256=b"",
    public_key_sha256=OLD.sha256,
    subject="",
    sans=(),
    not_before=SIGNER.not_before,
    not_after=SIGNER.not_after,
    issued_at=SIGNER.not_before,
)


@dataclass
class Certificates:
    """The one method of a ledger that this provider may use."""

    row: InventoryRow | None
    asked: int = 0

    async def find_certificate(self, sha256: bytes) -> InventoryRow | None:
        self.asked += 1
        return self.row if self.row and self.row.sha256 == sha256 else None


def provider(row: InventoryRow | None = ROW, rule: RenewalRule = RULE, **more: Any) -> RenewalCredential:
    return RenewalCredential(rule, cast("Ledger", Certificates(row)), **more)


async def test_renewal() -> None:
    requester = await provider().authenticate(REQUEST, NOW)
    assert requester is not None
    assert requester.kind is CredentialKind.CERTIFICATE
    assert requester.identity == f"certificate:{SIGNER.sha256.hex()}"
    assert (requester.renews, requester.owner, requester.vouches_for_sid) == (SIGNER.sha256, "alice", False)


def signer(**changes: Any) -> EnrollmentRequest:
    return replace(REQUEST, signer=replace(SIGNER, **changes))


def csr(**changes: Any) -> EnrollmentRequest:
    return replace(REQUEST, csr=replace(CSR, **changes))


REFUSALS = [
    pytest.param(replace(REQUEST, signer=None), ROW, Reason.UNKNOWN_CERTIFICATE, id="no-signer"),
    pytest.param(signer(self_signed=True, sha256=b"z" * 32), ROW, Reason.UNKNOWN_CERTIFICATE, id="self-signed"),
    pytest.param(REQUEST, None, Reason.UNKNOWN_CERTIFICATE, id="not-in-the-inventory"),
    pytest.param(REQUEST, replace(ROW, profile=ProfileName("lab")), Reason.RENEWAL_REFUSED, id="another-profile"),
    pytest.param(REQUEST, replace(ROW, protocol="acme"), Reason.RENEWAL_REFUSED, id="came-by-acme"),
    pytest.param(REQUEST, replace(ROW, revoked_at=NOW), Reason.CREDENTIAL_REVOKED, id="revoked"),
    pytest.param(REQUEST, replace(ROW, renewed_by=b"x" * 32), Reason.RENEWAL_REFUSED, id="renewed-by-another-key"),
    pytest.param(REQUEST, replace(ROW, public_key_sha256=b"x" * 32), Reason.RENEWAL_REFUSED, id="key-not-the-inventorys"),
    pytest.param(signer(not_after=NOW - 2 * DAY), ROW, Reason.CREDENTIAL_EXPIRED, id="expired-beyond-grace"),
    pytest.param(signer(not_after=NOW + 31 * DAY), ROW, Reason.RENEWAL_REFUSED, id="before-the-window"),
    pytest.param(signer(not_before=NOW + DAY), ROW, Reason.RENEWAL_REFUSED, id="not-valid-yet"),
    pytest.param(csr(subject=parse_name_text("CN=gate-2,O=Corp")), ROW, Reason.RENEWAL_REFUSED, id="another-subject"),
    pytest.param(csr(subject=parse_name_text("CN=GATE-1,O=Corp")), ROW, Reason.RENEWAL_REFUSED, id="subject-in-other-case"),
    pytest.param(csr(subject=parse_name_text("CN=gate-1")), ROW, Reason.RENEWAL_REFUSED, id="less-subject"),
    pytest.param(csr(sans=()), ROW, Reason.RENEWAL_REFUSED, id="no-names"),
    pytest.param(csr(sans=(*SANS, make_san(SanKind.DNS, "x"))), ROW, Reason.RENEWAL_REFUSED, id="more-names"),
]


@pytest.mark.parametrize(("request_", "row", "reason"), REFUSALS)
async def test_refused(request_: EnrollmentRequest, row: InventoryRow | None, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await provider(row).authenticate(request_, NOW)
    assert refused.value.reason is reason


@pytest.mark.parametrize(("request_", "row", "reason"), REFUSALS)
async def test_a_challenge_may_prove_what_the_certificate_does_not(
    request_: EnrollmentRequest, row: InventoryRow | None, reason: Reason
) -> None:
    enrollment = replace(request_, operation="PKCSReq", is_renewal=False, challenge="challenge")
    assert await provider(row).authenticate(enrollment, NOW) is None, reason


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(signer(not_after=NOW - DAY), id="within-grace"),
        pytest.param(signer(self_signed=True), id="issued-here-with-the-name-of-its-issuer"),
        pytest.param(signer(not_after=NOW + 30 * DAY), id="window-begins"),
        pytest.param(
            csr(subject=Name(tuple(tuple(replace(a, tag=19) for a in r) for r in SUBJECT.rdns), b"")), id="other-strings"
        ),
        pytest.param(csr(sans=(make_san(SanKind.DNS, "GATE-1.corp.example"),)), id="name-in-other-case"),
        pytest.param(csr(public_key=OLD), id="same-key"),
        pytest.param(replace(REQUEST, operation="PKCSReq", is_renewal=False, challenge="left over"), id="as-new-with-challenge"),
    ],
)
async def test_accepted(request_: EnrollmentRequest) -> None:
    assert await provider().authenticate(request_, NOW) is not None


async def test_retransmission_by_the_key_that_renewed() -> None:
    assert await provider(replace(ROW, renewed_by=NEW.sha256)).authenticate(REQUEST, NOW) is not None


async def test_certificate_without_end() -> None:
    endless = signer(not_after=UNLIMITED_NOT_AFTER)
    assert await provider(rule=replace(RULE, window=None)).authenticate(endless, NOW) is not None
    with pytest.raises(Rejection):
        await provider().authenticate(endless, NOW)


async def test_messages_that_are_not_named() -> None:
    only_renewals = replace(RULE, messages=frozenset({"RenewalReq"}))
    request = replace(REQUEST, operation="PKCSReq", is_renewal=False)
    assert await provider(rule=only_renewals).authenticate(request, NOW) is None


async def test_a_first_enrollment_is_no_renewal() -> None:
    first = replace(signer(self_signed=True, sha256=b"z" * 32), operation="PKCSReq", is_renewal=False)
    assert await provider().authenticate(first, NOW) is None


async def test_the_gateways_own_certificates_authenticate_nobody() -> None:
    with pytest.raises(Rejection):
        await provider(own_keys=frozenset({OLD.sha256})).authenticate(REQUEST, NOW)


async def test_names_that_the_policy_made() -> None:
    policy = PolicyConfig.model_validate({"subject": {"override": {"O": "Corp"}}, "san": {"unlisted": "drop"}}, strict=False)
    asked = replace(
        signer(sans=(), subject=parse_name_text("CN=gate-1,O=Corp")),
        csr=replace(CSR, subject=parse_name_text("CN=gate-1"), sans=SANS),
    )
    assert await provider(policy=policy).authenticate(asked, NOW) is not None
    made = replace(asked, csr=replace(asked.csr, subject=parse_name_text("CN=gate-2")))
    with pytest.raises(Rejection):
        await provider(policy=policy).authenticate(made, NOW)


async def test_sid_of_the_renewed_certificate_is_vouched_for() -> None:
    sid = (make_san(SanKind.SID, "S-1-5-21-1-2-3-1001"),)
    requester = await provider().authenticate(replace(signer(sans=sid), csr=replace(CSR, sans=sid)), NOW)
    assert requester is not None
    assert requester.vouches_for_sid
    with pytest.raises(Rejection):
        await provider().authenticate(csr(sans=sid), NOW)
