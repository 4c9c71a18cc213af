"""Registration authorities that ask for others: only those that are named, for this purpose, below these anchors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, NameBinding, Protocol
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.extensions import eku_oid
from gateway.ra.credentials.ra_certificate import RaCertificateCredential
from tests.unit.ra.est import est_request
from tests.unit.ra.fleet import DAY, NOW, anchors_of, enroll
from tests.unit.ra.test_client_path import Issued, clients, row_of

NAME = "CN=ra1,O=Example"
RA_EKUS = (eku_oid("clientAuth"), eku_oid("cmcRA"))


def authority(ca: str = "Old CA", **changes: Any) -> bytes:
    return enroll(ca, "ra", **({"subject": NAME, "ekus": RA_EKUS, "sans": ()} | changes))


def provider(*subjects: str, **options: Any) -> RaCertificateCredential:
    return RaCertificateCredential(clients(**options), subjects or (NAME,))


@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll", "serverkeygen", "fullcmc"])
async def test_one_that_is_named(operation: str) -> None:
    request = est_request("CN=somebody", operation=operation, client_certificate=authority())
    requester = await provider("CN=ra0", NAME).authenticate(request, NOW)
    assert requester is not None
    assert requester.kind is CredentialKind.RA_CERTIFICATE
    assert (requester.binding, requester.device, requester.owner) == (NameBinding(), None, None)
    assert not requester.vouches_for_sid


async def test_one_that_was_issued_here() -> None:
    """RFC 7030 §3.7: its certificate is of the EST CA."""
    certificate = authority()
    credential = provider(anchors=anchors_of(crl=False), ledger=Issued(row_of(certificate)))
    assert await credential.authenticate(est_request(client_certificate=certificate), NOW)


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(None, id="none"),
        pytest.param(authority(subject="CN=ra2,O=Example"), id="another-subject"),
        pytest.param(authority(subject="CN=RA1,O=Example"), id="another-case"),
        pytest.param(authority(subject="CN=ra1,O=Example,C=CH"), id="more-of-a-subject"),
        pytest.param(authority(subject="O=Example,CN=ra1"), id="another-order"),
        pytest.param(authority(ekus=(eku_oid("clientAuth"),)), id="not-for-this"),
        pytest.param(authority(ekus=()), id="for-anything"),
        pytest.param(authority(ekus=(eku_oid("clientAuth"), "2.5.29.37.0")), id="any-purpose"),
    ],
)
async def test_no_authority(certificate: bytes | None) -> None:
    assert await provider().authenticate(est_request(client_certificate=certificate), NOW) is None


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        pytest.param(authority("Another CA"), Reason.NOT_AUTHORIZED, id="of-another-ca"),
        pytest.param(authority(not_after=NOW - DAY), Reason.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param(authority(ekus=(eku_oid("cmcRA"),)), Reason.NOT_AUTHORIZED, id="not-for-clients"),
        pytest.param(authority(is_ca=True), Reason.NOT_AUTHORIZED, id="a-ca"),
        pytest.param(b"\x30\x00", Reason.NOT_AUTHORIZED, id="broken"),
    ],
)
async def test_refused(certificate: bytes, reason: Reason) -> None:
    with pytest.raises(Rejection) as refused:
        await provider().authenticate(est_request(client_certificate=certificate), NOW)
    assert refused.value.reason is reason


async def test_revoked() -> None:
    certificate = authority()
    with pytest.raises(Rejection) as refused:
        await provider(anchors=anchors_of("Old CA", certificate)).authenticate(est_request(client_certificate=certificate), NOW)
    assert refused.value.reason is Reason.CREDENTIAL_REVOKED


def by_scep(signer: bytes | None, **changes: Any) -> EnrollmentRequest:
    """A SCEP message, whoever's connection it came by."""
    signed = to_signer(parse_certificate(signer)) if signer is not None else None
    return replace(est_request(operation="PKCSReq", **changes), protocol=Protocol.SCEP, signer=signed)


async def test_by_scep_it_is_the_one_that_signed() -> None:
    requester = await provider().authenticate(by_scep(authority()), NOW)
    assert requester is not None
    assert requester.kind is CredentialKind.RA_CERTIFICATE


@pytest.mark.parametrize("signer", [None, authority(subject="CN=ra2,O=Example")], ids=["nobody", "another"])
async def test_by_scep_the_connection_proves_nothing(signer: bytes | None) -> None:
    assert await provider().authenticate(by_scep(signer, client_certificate=authority()), NOW) is None


async def test_by_scep_of_another_ca() -> None:
    with pytest.raises(Rejection) as refused:
        await provider().authenticate(by_scep(authority("Another CA")), NOW)
    assert refused.value.reason is Reason.NOT_AUTHORIZED


@pytest.mark.parametrize("subjects", [(), ("",), (NAME, " "), ("garbage",)])
def test_who_must_be_named(subjects: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"subject|TYPE=value"):
        RaCertificateCredential(clients(), subjects)
