"""Makers' certificates: of devices that are expected, for a first enrollment by CMP, bound to what the maker calls them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.config.credentials import VendorCertificateCredential as VendorConfig
from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, MessageProof, NameBinding, Protocol
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.names import parse_name_text
from gateway.ra.credentials.vendor_certificate import VendorCertificateCredential
from gateway.ra.policy.binding import judge_certified
from gateway.ra.policy.subject import Subject
from tests.flow.enrollment.world import make_request
from tests.unit.ra.fleet import DAY, NOW, anchors_of, enroll
from tests.unit.ra.test_client_path import Issued, clients, row_of

NAME = "CN=station,serialNumber=SN1"
DEVICES = frozenset({"SN1", "station"})


def maker(ca: str = "Old CA", **changes: Any) -> bytes:
    return enroll(ca, "station", **({"subject": NAME, "ekus": (), "sans": ()} | changes))


def provider(devices: frozenset[str] | None = DEVICES, *, ledger: Any = None, **config: Any) -> VendorCertificateCredential:
    values = {"type": "vendor_certificate", "anchors": "makers.pem", "any_device": devices is None, **config}
    known = clients() if ledger is None else clients(anchors=anchors_of(crl=False), ledger=ledger)
    return VendorCertificateCredential(known, VendorConfig.model_validate(values), devices)


def signed(certificate: bytes | None, **changes: Any) -> EnrollmentRequest:
    signer = None if certificate is None else to_signer(parse_certificate(certificate))
    request = replace(make_request(NOW), protocol=Protocol.CMP, operation="ir", signer=signer)
    return replace(request, **({"proof": MessageProof(None, b"t" * 32)} | changes))


@pytest.mark.parametrize(
    ("identity_from", "devices", "name"),
    [
        pytest.param("serial_number", DEVICES, "SN1", id="serial number"),
        pytest.param("common_name", DEVICES, "station", id="common name"),
        pytest.param("serial_number", None, "SN1", id="any device"),
    ],
)
async def test_a_device_that_is_expected(identity_from: str, devices: frozenset[str] | None, name: str) -> None:
    requester = await provider(devices, identity_from=identity_from).authenticate(signed(maker()), NOW)
    assert requester is not None
    assert (requester.identity, requester.kind) == (f"vendor_certificate:{name}", CredentialKind.VENDOR_CERTIFICATE)
    assert requester.claims["vendor.id"] == name
    assert requester.owner == name
    assert not requester.vouches_for_sid


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(signed(None), id="unsigned"),
        pytest.param(signed(maker(), protocol=Protocol.SCEP), id="SCEP"),
        pytest.param(signed(maker(), protocol=Protocol.EST), id="EST"),
        pytest.param(signed(maker(), proof=None), id="nothing proved"),
        pytest.param(signed(maker(), is_renewal=True, operation="kur"), id="an update"),
    ],
)
async def test_what_it_does_not_judge(request_: EnrollmentRequest) -> None:
    assert await provider().authenticate(request_, NOW) is None


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        pytest.param(maker("Another CA"), Reason.SIGNER_NOT_TRUSTED, id="another maker"),
        pytest.param(maker(subject="CN=station,serialNumber=SN2"), Reason.NOT_AUTHORIZED, id="not expected"),
        pytest.param(maker(subject="CN=station"), Reason.NAME_NOT_BOUND, id="no serial number"),
        pytest.param(maker(subject="CN=station,serialNumber=SN1,serialNumber=SN2"), Reason.NAME_NOT_BOUND, id="two of them"),
        pytest.param(maker(not_after=NOW - DAY), Reason.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param(maker(key_usage=("keyEncipherment",)), Reason.SIGNER_NOT_TRUSTED, id="cannot sign"),
        pytest.param(maker(is_ca=True), Reason.SIGNER_NOT_TRUSTED, id="a CA"),
    ],
)
async def test_refusals(certificate: bytes, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await provider().authenticate(signed(certificate), NOW)
    assert refused.value.reason is reason


async def test_what_was_issued_here_enrolls_nothing() -> None:
    certificate = maker()
    with pytest.raises(Rejection) as refused:
        await provider(ledger=Issued(row_of(certificate))).authenticate(signed(certificate), NOW)
    assert refused.value.reason is Reason.NOT_AUTHORIZED


def test_no_list_of_devices_must_be_said() -> None:
    config = VendorConfig.model_validate({"type": "vendor_certificate", "anchors": "makers.pem"})
    with pytest.raises(ValueError, match="any_device"):
        VendorCertificateCredential(clients(), config, None)


@pytest.mark.parametrize(
    ("names", "bound"),
    [
        pytest.param("any", NameBinding(), id="any"),
        pytest.param("same", NameBinding("CN=station,serialNumber=SN1", frozenset()), id="same"),
    ],
)
async def test_names(names: str, bound: NameBinding) -> None:
    requester = await provider(names=names).authenticate(signed(maker()), NOW)
    assert requester is not None
    assert requester.binding == bound


@pytest.mark.parametrize(
    ("subject", "good"),
    [
        pytest.param("CN=SN1", True, id="as its CN"),
        pytest.param("CN=anything,serialNumber=SN1", True, id="as its serialNumber"),
        pytest.param("CN=SN2", False, id="another CN"),
        pytest.param("CN=sn1", False, id="in another case"),
        pytest.param("CN=SN1,CN=admin", False, id="beside another CN"),
        pytest.param("O=SN1", False, id="as something else"),
    ],
)
async def test_what_is_certified_names_the_device(subject: str, good: bool) -> None:
    requester = await provider().authenticate(signed(maker()), NOW)
    assert requester is not None
    verdicts = judge_certified(requester.binding, _made(subject), ())
    assert all(verdict.passed for verdict in verdicts) is good


def _made(text: str) -> Subject:
    return Subject(parse_name_text(text).rdns)
