"""Fleets that another CA enrolled renew here by the same rules, each certificate for one heir only."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import (
    CertificateRequest,
    CredentialKind,
    EnrollmentRequest,
    ProfileName,
    Protocol,
    Requester,
    RequestForm,
    SanKind,
)
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.names import parse_name_text
from gateway.pki.trust import TrustAnchors
from gateway.ra.profile import RenewalRule
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import RENEWAL, InventoryRow, Ledger
from tests.unit.ra.fleet import DAY, NOW, SANS, SUBJECT, anchors_of, ca_of, enroll, with_the_other_signature
from tests.unit.ra.test_renewal import CORP, NEW, REQUEST, ROW

RULE = RenewalRule(frozenset({CORP}), frozenset({"RenewalReq", "PKCSReq"}), 30 * DAY, DAY, anchors_of())
CSR = CertificateRequest(RequestForm.PKCS10, b"", b"", parse_name_text(SUBJECT), NEW, SANS)


@dataclass
class Inventory:
    """What a ledger says of certificates."""

    row: InventoryRow | None = None
    down: bool = False

    async def find_certificate(self, sha256: bytes) -> InventoryRow | None:
        return self.row if self.row and self.row.sha256 == sha256 else None

    async def find_issued(self, issuer_der: bytes, serial: int) -> InventoryRow | None:
        if self.down:
            raise StoreUnavailable("the disk is full")
        return self.row if self.row and (self.row.issuer_der, self.row.serial) == (issuer_der, serial) else None


def renewal_by(certificate: bytes, **changes: Any) -> EnrollmentRequest:
    return replace(REQUEST, csr=CSR, signer=to_signer(parse_certificate(certificate)), **changes)


async def authenticate(
    request: EnrollmentRequest,
    anchors: TrustAnchors | None = RULE.anchors,
    own_keys: frozenset[bytes] = frozenset(),
    **ledger: Any,
) -> Requester | None:
    provider = RenewalCredential(replace(RULE, anchors=anchors), cast("Ledger", Inventory(**ledger)), None, own_keys)
    return await provider.authenticate(request, NOW)


async def refusal(request: EnrollmentRequest, **more: Any) -> Reason:
    with pytest.raises(Rejection) as raised:
        await authenticate(request, **more)
    return raised.value.reason


async def test_renewal_of_a_migrated_device() -> None:
    certificate = enroll()
    requester = await authenticate(renewal_by(certificate))
    assert requester is not None
    assert requester.kind is CredentialKind.CERTIFICATE
    assert requester.identity == f"certificate:{parse_certificate(certificate).sha256.hex()}"
    assert (requester.renews, requester.owner, requester.vouches_for_sid) == (None, None, False)
    [heir] = requester.reservations
    assert heir.kind == RENEWAL


async def test_one_certificate_has_one_heir_whatever_its_signature_looks_like() -> None:
    certificate = enroll()
    one = await authenticate(renewal_by(certificate))
    other = await authenticate(renewal_by(with_the_other_signature(certificate)))
    foreign = await authenticate(renewal_by(enroll()))
    assert one is not None
    assert other is not None
    assert foreign is not None
    assert one.identity != other.identity
    assert one.reservations == other.reservations != foreign.reservations


REFUSALS = [
    pytest.param(lambda: enroll("Another CA"), Reason.UNKNOWN_CERTIFICATE, id="of-another-ca"),
    pytest.param(lambda: ca_of("device"), Reason.UNKNOWN_CERTIFICATE, id="self-signed"),
    pytest.param(lambda: enroll(not_before=NOW + DAY), Reason.UNKNOWN_CERTIFICATE, id="not-valid-yet"),
    pytest.param(ca_of, Reason.RENEWAL_REFUSED, id="the-anchor-itself"),
    pytest.param(lambda: enroll(is_ca=True), Reason.RENEWAL_REFUSED, id="a-ca-below-the-anchor"),
    pytest.param(lambda: enroll(not_after=NOW + 31 * DAY), Reason.RENEWAL_REFUSED, id="before-the-window"),
    pytest.param(lambda: enroll(not_after=NOW - 2 * DAY), Reason.CREDENTIAL_EXPIRED, id="expired-beyond-grace"),
    pytest.param(lambda: enroll(subject="CN=gate-2,O=Corp"), Reason.RENEWAL_REFUSED, id="another-subject"),
    pytest.param(lambda: enroll(sans=()), Reason.RENEWAL_REFUSED, id="other-names"),
    pytest.param(lambda: enroll(key_usage=("keyEncipherment",)), Reason.RENEWAL_REFUSED, id="a-key-that-may-not-sign"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSALS)
async def test_refused(make: Callable[[], bytes], reason: Reason) -> None:
    assert await refusal(renewal_by(make())) is reason


@pytest.mark.parametrize(("make", "reason"), REFUSALS)
async def test_a_challenge_may_prove_what_the_certificate_does_not(make: Callable[[], bytes], reason: Reason) -> None:
    enrollment = renewal_by(make(), operation="PKCSReq", is_renewal=False, challenge="challenge")
    assert await authenticate(enrollment) is None, reason


async def test_a_first_enrollment_is_no_renewal() -> None:
    assert await authenticate(renewal_by(ca_of("device"), operation="PKCSReq", is_renewal=False)) is None


async def test_only_where_the_rule_has_anchors() -> None:
    assert await refusal(renewal_by(enroll()), anchors=None) is Reason.UNKNOWN_CERTIFICATE


async def test_within_grace_while_a_list_from_before_its_end_is_in_force() -> None:
    late = enroll(not_after=NOW - timedelta(hours=12))
    assert await authenticate(renewal_by(late)) is not None
    newer = anchors_of(this_update=NOW - timedelta(hours=1))
    assert await refusal(renewal_by(late), anchors=newer) is Reason.UNKNOWN_CERTIFICATE


async def test_revoked_by_its_ca() -> None:
    certificate = enroll()
    assert await refusal(renewal_by(certificate), anchors=anchors_of("Old CA", certificate)) is Reason.CREDENTIAL_REVOKED


async def test_the_gateways_own_keys_authenticate_nobody() -> None:
    certificate = enroll()
    own = parse_certificate(certificate).public_key.sha256
    assert await refusal(renewal_by(certificate), own_keys=frozenset({own})) is Reason.RENEWAL_REFUSED


@pytest.mark.parametrize("revoked_at", [pytest.param(None, id="good"), pytest.param(NOW, id="revoked")])
async def test_anchors_say_nothing_of_certificates_that_the_inventory_knows(revoked_at: Any) -> None:
    certificate = enroll()
    parsed = parse_certificate(certificate)
    row = replace(
        ROW,
        sha256=parsed.sha256,
        issuer_der=parsed.issuer_der,
        serial=parsed.serial,
        revoked_at=revoked_at,
        profile=ProfileName("lab"),
    )
    assert await refusal(renewal_by(certificate), row=row) is Reason.RENEWAL_REFUSED
    assert await refusal(renewal_by(with_the_other_signature(certificate)), row=row) is Reason.UNKNOWN_CERTIFICATE


async def test_a_sid_is_not_vouched_for_by_another_ca() -> None:
    sid = (make_san(SanKind.SID, "S-1-5-21-1-2-3-1001"),)
    asked = renewal_by(enroll(sans=sid))
    requester = await authenticate(replace(asked, csr=replace(CSR, sans=sid)))
    assert requester is not None
    assert not requester.vouches_for_sid


async def test_a_store_that_is_down_renews_nothing() -> None:
    with pytest.raises(StoreUnavailable):
        await authenticate(renewal_by(enroll()), down=True)


@pytest.mark.parametrize(
    ("ekus", "over_est"),
    [
        pytest.param(("clientAuth",), True, id="for-clients"),
        pytest.param(("serverAuth", "clientAuth"), True, id="for-both"),
        pytest.param((), True, id="for-anything"),
        pytest.param(("serverAuth",), False, id="for-servers"),
        pytest.param(("codeSigning",), False, id="for-code"),
        pytest.param(("OCSPSigning",), False, id="for-ocsp"),
    ],
)
async def test_over_est_it_is_a_tls_clients(ekus: tuple[str, ...], over_est: bool) -> None:
    """A proxy may let certificates through that TLS here would not; a SCEP message is signed, whatever the certificate is for."""
    certificate = enroll(ekus=tuple(map(eku_oid, ekus)))
    assert await authenticate(renewal_by(certificate))
    est = renewal_by(certificate, protocol=Protocol.EST)
    if over_est:
        assert await authenticate(est)
    else:
        assert await refusal(est) is Reason.RENEWAL_REFUSED
