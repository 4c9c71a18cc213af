"""TLS client certificates: what lets a client speak to a profile, and everything that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.pki.certificate import parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.trust import TrustAnchors
from gateway.ra.client_certificate import ClientTrust
from gateway.store.interfaces import InventoryRow, Ledger
from tests.unit.ra.fleet import DAY, NOW, anchors_of, ca_of, enroll, with_the_other_signature
from tests.unit.ra.test_renewal import ROW


@dataclass
class Issued:
    """The one method of a ledger that is used here."""

    row: InventoryRow | None = None
    down: bool = False

    async def find_issued(self, issuer_der: bytes, serial: int) -> InventoryRow | None:
        if self.down:
            raise StoreUnavailable("the disk is full")
        return self.row if self.row and (self.row.issuer_der, self.row.serial) == (issuer_der, serial) else None


def trust(anchors: TrustAnchors | None = None, own_keys: frozenset[bytes] = frozenset(), **ledger: Any) -> ClientTrust:
    return ClientTrust(anchors or anchors_of(), cast("Ledger", Issued(**ledger)), own_keys)


async def refusal(checked: ClientTrust, certificate: bytes | None) -> Rejection:
    with pytest.raises(Rejection) as raised:
        await checked.check(certificate, NOW)
    return raised.value


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="for-clients"),
        pytest.param({"ekus": ()}, id="for-anything"),
        pytest.param({"ekus": (eku_oid("serverAuth"), eku_oid("clientAuth"))}, id="for-both"),
        pytest.param({"not_after": NOW}, id="last-second"),
    ],
)
async def test_accepted(changes: dict[str, Any]) -> None:
    await trust().check(enroll(**changes), NOW)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: None, Reason.CREDENTIAL_MISSING, id="none"),
        pytest.param(lambda: b"", Reason.NOT_AUTHORIZED, id="empty"),
        pytest.param(lambda: b"\x30\x03\x02\x01\x00", Reason.NOT_AUTHORIZED, id="broken"),
        pytest.param(lambda: enroll("Another CA"), Reason.NOT_AUTHORIZED, id="of-another-ca"),
        pytest.param(lambda: ca_of("device"), Reason.NOT_AUTHORIZED, id="self-signed"),
        pytest.param(ca_of, Reason.NOT_AUTHORIZED, id="the-anchor-itself"),
        pytest.param(lambda: enroll(is_ca=True, sans=()), Reason.NOT_AUTHORIZED, id="a-ca-below-the-anchor"),
        pytest.param(lambda: enroll(ekus=(eku_oid("serverAuth"),)), Reason.NOT_AUTHORIZED, id="for-servers"),
        pytest.param(lambda: enroll(ekus=("2.5.29.37.0",)), Reason.NOT_AUTHORIZED, id="any-purpose-is-not-this-one"),
        pytest.param(lambda: enroll(not_before=NOW + DAY), Reason.NOT_AUTHORIZED, id="not-valid-yet"),
        pytest.param(lambda: enroll(not_after=NOW - timedelta(seconds=1)), Reason.CREDENTIAL_EXPIRED, id="expired"),
    ],
)
async def test_refused(make: Callable[[], bytes | None], reason: Reason) -> None:
    assert (await refusal(trust(), make())).reason is reason


async def test_on_the_crl() -> None:
    certificate = enroll()
    assert (await refusal(trust(anchors_of("Old CA", certificate)), certificate)).reason is Reason.CREDENTIAL_REVOKED


async def test_the_gateways_own_keys_authenticate_nobody() -> None:
    own = parse_certificate(enroll(key="gateway")).public_key.sha256
    assert (await refusal(trust(own_keys=frozenset({own})), enroll(key="gateway"))).reason is Reason.NOT_AUTHORIZED
    await trust(own_keys=frozenset({own})).check(enroll(), NOW)


@pytest.mark.parametrize(
    "tamper", [pytest.param(lambda c: c, id="as-issued"), pytest.param(with_the_other_signature, id="other-signature")]
)
async def test_revoked_in_the_inventory(tamper: Callable[[bytes], bytes]) -> None:
    certificate = enroll()
    parsed = parse_certificate(certificate)
    row = replace(ROW, sha256=parsed.sha256, issuer_der=parsed.issuer_der, serial=parsed.serial)
    anchors = anchors_of(crl=False)
    await trust(anchors, row=row).check(tamper(certificate), NOW)
    refused = await refusal(trust(anchors, row=replace(row, revoked_at=NOW)), tamper(certificate))
    assert refused.reason is Reason.CREDENTIAL_REVOKED


async def test_a_store_that_is_down_admits_nobody() -> None:
    with pytest.raises(StoreUnavailable):
        await trust(down=True).check(enroll(), NOW)
