"""A maker's certificate enrolls: for which names, and for nothing where it was issued here."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, NameBinding, Requester, SanKind
from gateway.pki.extensions import make_san
from gateway.ra.credentials.own_names import Sans
from gateway.ra.credentials.tls_certificate import Names, TlsCertificateCredential
from gateway.ra.policy.binding import judge_binding
from tests.unit.ra.est import est_request
from tests.unit.ra.fleet import NOW, SANS, SUBJECT, anchors_of, enroll
from tests.unit.ra.test_client_path import Issued, clients, row_of

MAKERS = "serialNumber=4711,O=Maker"


def provider(names: Names = "same", **options: Any) -> TlsCertificateCredential:
    return TlsCertificateCredential(clients(**options), names)


async def ask(names: Names, certificate: bytes | None, subject: str = SUBJECT, sans: Any = SANS) -> Requester | None:
    return await provider(names).authenticate(est_request(subject, sans, client_certificate=certificate), NOW)


async def test_nothing_to_look_at() -> None:
    assert await ask("any", None) is None


async def test_who_it_is() -> None:
    requester = await ask("same", enroll())
    assert requester is not None
    assert requester.kind is CredentialKind.TLS_CERTIFICATE
    assert requester.identity.startswith("tls_certificate:")
    assert (requester.owner, requester.renews, requester.reservations) == (SUBJECT, None, ())
    assert not requester.vouches_for_sid


@pytest.mark.parametrize(
    ("subject", "sans", "good"),
    [
        pytest.param(SUBJECT, SANS, True, id="its-own"),
        pytest.param("CN=gate-2,O=Corp", SANS, False, id="another-subject"),
        pytest.param("CN=GATE-1,O=Corp", SANS, False, id="another-case"),
        pytest.param(SUBJECT, (), False, id="fewer-names"),
        pytest.param(SUBJECT, (*SANS, make_san(SanKind.DNS, "admin.corp.example")), False, id="more-names"),
        pytest.param(SUBJECT, (make_san(SanKind.DNS, "GATE-1.corp.example"),), True, id="host-names-have-no-case"),
    ],
)
async def test_the_same_names(subject: str, sans: Any, good: bool) -> None:
    requester = await ask("same", enroll(), subject, sans)
    assert requester is not None
    verdicts = judge_binding(requester.binding, est_request(subject, sans).csr)
    assert all(v.passed for v in verdicts) is good


async def test_the_same_names_of_a_certificate_without_subject() -> None:
    requester = await ask("same", enroll(subject=""), "", SANS)
    assert requester is not None
    assert requester.binding.subject == ""
    assert not all(v.passed for v in judge_binding(requester.binding, est_request("CN=x", SANS).csr))


@pytest.mark.parametrize(("sans", "allowed"), [("bound", frozenset((n.kind, n.value) for n in SANS)), ("policy", None)])
async def test_its_serial_number(sans: Sans, allowed: Any) -> None:
    credential = TlsCertificateCredential(clients(), "serial_number", sans)
    requester = await credential.authenticate(est_request("CN=x", client_certificate=enroll(subject=MAKERS)), NOW)
    assert requester is not None
    assert requester.binding == NameBinding(serial_number="4711", allowed_sans=allowed, certified=True)
    assert requester.device


@pytest.mark.parametrize("held", ["O=Maker", "serialNumber=1,serialNumber=2", "serialNumber=1+serialNumber=2"])
async def test_no_serial_number_of_its_own(held: str) -> None:
    with pytest.raises(Rejection) as refused:
        await ask("serial_number", enroll(subject=held), held)
    assert refused.value.reason is Reason.NAME_NOT_BOUND


async def test_any_name_is_one_device() -> None:
    certificate = enroll()
    one, other = await ask("any", certificate, "CN=a"), await ask("any", certificate, "CN=b")
    assert one is not None
    assert other is not None
    assert one.device
    assert one.device == other.device
    assert one.binding == NameBinding()


@pytest.mark.parametrize("names", ["same", "serial_number", "any"])
async def test_issued_here_it_renews_and_enrolls_nothing(names: Names) -> None:
    certificate = enroll(subject=MAKERS)
    credential = provider(names, anchors=anchors_of(crl=False), ledger=Issued(row_of(certificate)))
    with pytest.raises(Rejection) as refused:
        await credential.authenticate(est_request(MAKERS, SANS, client_certificate=certificate), NOW)
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    assert "issued here under profile corp" in refused.value.cause


@pytest.mark.parametrize("certificate", [b"", b"\x30\x00"])
async def test_what_cannot_be_read(certificate: bytes) -> None:
    with pytest.raises(Rejection) as refused:
        await ask("any", certificate)
    assert refused.value.reason is Reason.NOT_AUTHORIZED
