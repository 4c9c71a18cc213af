"""TLS clients as credentials: whom the path, the purpose and the revocation of a certificate let in, time and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.path_building import Path, find_paths
from gateway.pki.trust import TrustAnchors
from gateway.ra import client_path
from gateway.ra.client_path import ClientCertificates, KnownClient, certificate_id, client_certificate
from gateway.store.interfaces import InventoryRow, Ledger
from tests.unit.pki.test_path_building import LEAF, LOW, MID, ROOT, sub_ca
from tests.unit.pki.test_path_building import device as device_of
from tests.unit.ra.est import est_request
from tests.unit.ra.fleet import DAY, NOW, anchors_of, ca_of, enroll, with_the_other_signature
from tests.unit.ra.test_renewal import ROW


@dataclass
class Issued:
    """The one method of a ledger that is used here."""

    row: InventoryRow | None = None
    down: bool = False
    asked: int = 0

    async def find_issued(self, issuer_der: bytes, serial: int) -> InventoryRow | None:
        self.asked += 1
        if self.down:
            raise StoreUnavailable("the disk is full")
        return self.row if self.row and (self.row.issuer_der, self.row.serial) == (issuer_der, serial) else None


@dataclass
class Responder:
    """Says of every path what it is told to say."""

    refusals: dict[str, Reason] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def check(self, leaf: Certificate, path: Path, now: datetime) -> None:
        top = path[-1].subject.values("2.5.4.3")[0]
        self.asked.append(top)
        if top in self.refusals:
            raise Rejection(self.refusals[top], "no")


def clients(
    anchors: TrustAnchors | None = None,
    ledger: Issued | None = None,
    own_keys: frozenset[bytes] = frozenset(),
    responder: Responder | None = None,
) -> ClientCertificates:
    return ClientCertificates(anchors or anchors_of(), cast("Ledger", ledger or Issued()), own_keys, responder)


async def ask(known: ClientCertificates, certificate: bytes, *sent: bytes, at: datetime = NOW) -> KnownClient:
    return await known.recognise(parse_certificate(certificate), sent, at)


async def refusal(known: ClientCertificates, certificate: bytes, *sent: bytes, at: datetime = NOW) -> Rejection:
    with pytest.raises(Rejection) as raised:
        await ask(known, certificate, *sent, at=at)
    return raised.value


def row_of(certificate: bytes, **changes: Any) -> InventoryRow:
    parsed = parse_certificate(certificate)
    return replace(ROW, sha256=parsed.sha256, issuer_der=parsed.issuer_der, serial=parsed.serial, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="for-clients"),
        pytest.param({"ekus": ()}, id="for-anything"),
        pytest.param({"key_usage": ()}, id="for-any-use"),
        pytest.param({"not_after": NOW}, id="last-second"),
    ],
)
async def test_accepted(changes: dict[str, Any]) -> None:
    assert (await ask(clients(), enroll(**changes))).row is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: enroll("Another CA"), Reason.NOT_AUTHORIZED, id="of-another-ca"),
        pytest.param(lambda: ca_of("device"), Reason.NOT_AUTHORIZED, id="self-signed"),
        pytest.param(ca_of, Reason.NOT_AUTHORIZED, id="the-anchor-itself"),
        pytest.param(lambda: enroll(is_ca=True, sans=()), Reason.NOT_AUTHORIZED, id="a-ca-below-the-anchor"),
        pytest.param(lambda: enroll(ekus=(eku_oid("serverAuth"),)), Reason.NOT_AUTHORIZED, id="for-servers"),
        pytest.param(lambda: enroll(ekus=("2.5.29.37.0",)), Reason.NOT_AUTHORIZED, id="any-purpose-is-not-this-one"),
        pytest.param(lambda: enroll(key_usage=("keyEncipherment",)), Reason.NOT_AUTHORIZED, id="may-not-sign"),
        pytest.param(lambda: enroll(not_before=NOW + DAY), Reason.NOT_AUTHORIZED, id="not-valid-yet"),
        pytest.param(lambda: enroll(not_after=NOW - timedelta(seconds=1)), Reason.CREDENTIAL_EXPIRED, id="expired"),
    ],
)
async def test_refused(make: Callable[[], bytes], reason: Reason) -> None:
    assert (await refusal(clients(), make())).reason is reason


async def test_the_gateways_own_keys_authenticate_nobody() -> None:
    own = parse_certificate(enroll(key="gateway")).public_key.sha256
    assert (await refusal(clients(own_keys=frozenset({own})), enroll(key="gateway"))).reason is Reason.NOT_AUTHORIZED


async def test_certificates_that_came_along_help() -> None:
    known = clients(TrustAnchors.parse(der_to_pem(ROOT)))
    await ask(known, LEAF, LOW, MID)
    await ask(known, LEAF)  # remembered
    assert (await refusal(clients(TrustAnchors.parse(der_to_pem(ROOT))), LEAF)).reason is Reason.NOT_AUTHORIZED


async def test_a_path_is_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[Certificate] = []

    def seek(anchors: TrustAnchors, leaf: Certificate, *rest: Any) -> tuple[Path, ...]:
        sought.append(leaf)
        return find_paths(anchors, leaf, *rest)

    monkeypatch.setattr(client_path, "find_paths", seek)
    ledger = Issued()
    known, certificate = clients(ledger=ledger), enroll()
    for _ in range(3):
        await ask(known, certificate)
    assert (len(sought), ledger.asked) == (1, 3), "the inventory is asked each time"
    await ask(known, enroll(not_after=NOW + 19 * DAY))
    assert len(sought) == 2


async def test_what_is_remembered_ends_with_the_certificate() -> None:
    known, certificate = clients(anchors_of(crl=False)), enroll()
    await ask(known, certificate)
    later = await refusal(known, certificate, at=NOW + 21 * DAY)
    assert later.reason is Reason.CREDENTIAL_EXPIRED
    await ask(known, certificate)
    assert (await refusal(known, certificate, at=NOW - 400 * DAY)).reason is Reason.NOT_AUTHORIZED


async def test_what_is_remembered_ends_with_the_ca() -> None:
    short = sub_ca("Short-lived", "Root", not_after=NOW + DAY / 2)
    known, certificate = clients(TrustAnchors.parse(der_to_pem(ROOT) + der_to_pem(short))), device_of("Short-lived", short)
    await ask(known, certificate)
    assert (await refusal(known, certificate, at=NOW + 0.6 * DAY)).reason is Reason.NOT_AUTHORIZED


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_path, "MAX_KNOWN", 2)
    known = clients()
    for number in range(5):
        await ask(known, enroll(not_after=NOW + DAY * (number + 1)))
    assert len(known._known) == 2


async def test_a_crl_is_looked_at_each_time() -> None:
    """It ends while the path is remembered; nobody vouches for the certificate from then on."""
    known, certificate = clients(anchors_of()), enroll()
    await ask(known, certificate)
    assert (await refusal(known, certificate, at=NOW + 8 * DAY)).reason is Reason.NOT_AUTHORIZED


async def test_on_the_crl() -> None:
    certificate = enroll()
    assert (await refusal(clients(anchors_of("Old CA", certificate)), certificate)).reason is Reason.CREDENTIAL_REVOKED


@pytest.mark.parametrize(
    "tamper", [pytest.param(lambda c: c, id="as-issued"), pytest.param(with_the_other_signature, id="other-signature")]
)
async def test_revoked_in_the_inventory(tamper: Callable[[bytes], bytes]) -> None:
    certificate = enroll()
    ledger = Issued(row_of(certificate))
    known = clients(anchors_of(crl=False), ledger)
    assert (await ask(known, tamper(certificate))).row is ledger.row
    ledger.row = row_of(certificate, revoked_at=NOW)
    assert (await refusal(known, tamper(certificate))).reason is Reason.CREDENTIAL_REVOKED, "remembered or not"


async def test_a_store_that_is_down_admits_nobody() -> None:
    with pytest.raises(StoreUnavailable):
        await ask(clients(ledger=Issued(down=True)), enroll())


async def test_the_responder_is_asked_each_time() -> None:
    responder = Responder()
    known, certificate = clients(responder=responder), enroll()
    await ask(known, certificate)
    responder.refusals["Old CA"] = Reason.CREDENTIAL_REVOKED
    assert (await refusal(known, certificate)).reason is Reason.CREDENTIAL_REVOKED
    responder.refusals["Old CA"] = Reason.UPSTREAM_UNAVAILABLE
    assert (await refusal(known, certificate)).reason is Reason.UPSTREAM_UNAVAILABLE
    assert responder.asked == ["Old CA"] * 3


async def test_no_responder_is_asked_about_what_has_no_path_or_is_on_the_crl() -> None:
    responder, certificate = Responder(), enroll()
    await refusal(clients(responder=responder), enroll("Another CA"))
    await refusal(clients(anchors_of("Old CA", certificate), responder=responder), certificate)
    assert responder.asked == []


async def test_one_good_path_of_several_is_enough() -> None:
    other, cross = ca_of("Other Root"), sub_ca("Mid", "Other Root")
    certificate = device_of("Mid", MID)
    anchors = TrustAnchors.parse(b"".join(map(der_to_pem, (ROOT, other, MID, cross))))
    for revoked in ("Root", "Other Root"):
        await ask(clients(anchors, responder=Responder({revoked: Reason.CREDENTIAL_REVOKED})), certificate)
    both = Responder({"Root": Reason.UPSTREAM_UNAVAILABLE, "Other Root": Reason.CREDENTIAL_REVOKED})
    assert (await refusal(clients(anchors, responder=both), certificate)).reason is Reason.CREDENTIAL_REVOKED


def test_the_certificate_of_a_request() -> None:
    certificate = enroll()
    assert client_certificate(est_request()) is None
    parsed = client_certificate(est_request(client_certificate=certificate))
    assert parsed is not None
    assert parsed.der == certificate
    for broken in (b"", b"\x30\x03\x02\x01\x00", certificate + b"\x00", b"\x00" * 70000):
        with pytest.raises(Rejection) as refused:
            client_certificate(est_request(client_certificate=broken))
        assert refused.value.reason is Reason.NOT_AUTHORIZED


def test_a_certificate_has_one_name_whatever_its_signature() -> None:
    certificate = enroll()
    twin = with_the_other_signature(certificate)
    assert twin != certificate
    assert certificate_id(parse_certificate(twin)) == certificate_id(parse_certificate(certificate))
