"""`openssl cmp` of Debian 13, version 3.5: what Debian 12's cannot ask for, and what both do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc4211

from gateway.pki.certificate import der_to_pem, pem_to_ders, self_signed_ca
from gateway.pki.keys import generate_private_key
from tests.interop.cmp_site import RA, RA_SUBJECT, CmpClient, CmpSite, cmp, running
from tests.interop.debian13 import Root
from tests.interop.observed import approve
from tests.interop.settings import Change

pytestmark = [pytest.mark.interop, pytest.mark.extra, pytest.mark.timeout(600)]

NEW_ROOT = "CN=the next root"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CmpSite]:
    """One server with two workers; `moving` is about to change its root, certProfile `careful` is a profile of its own."""
    state = tmp_path_factory.mktemp("cmp-newest") / "state"
    moving = (_prepare_root(state), cmp("moving", root_update="ca/update.pem"))
    with running(state, *moving, cmp("demo", cert_profiles={"station": "moving"})) as site:
        yield site


def _prepare_root(state: Path) -> Change:
    """Return what writes a change of roots: NewWithNew, NewWithOld and OldWithNew."""

    def change(_: dict[str, Any]) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        old = x509.load_pem_x509_certificate((state / "ca" / "root.pem").read_bytes())
        old_key = load_pem_private_key((state / "secrets" / "root.key").read_bytes(), None)
        new_key = generate_private_key("ec-p384")
        new = self_signed_ca(new_key, NEW_ROOT, now, now + timedelta(days=300))
        parsed = x509.load_der_x509_certificate(new)
        links = (_cross(parsed, old, old_key), _cross(old, parsed, new_key))
        (state / "ca" / "update.pem").write_bytes(b"".join(map(der_to_pem, (new, *links))))

    return change


def _cross(subject: x509.Certificate, issuer: x509.Certificate, key: Any) -> bytes:
    """Certify a root once more, by another one."""
    made = x509.CertificateBuilder(
        issuer.subject, subject.subject, subject.public_key(), x509.random_serial_number(),
        subject.not_valid_before_utc, min(subject.not_valid_after_utc, issuer.not_valid_after_utc),
    )  # fmt: skip
    for extension in subject.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            made = made.add_extension(extension.value, extension.critical)
    above = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)
    return made.add_extension(identifier, critical=False).sign(key, SHA256()).public_bytes(Encoding.DER)


def device_in(root: Root, site: CmpSite, name: str, profile: str = "demo") -> CmpClient:
    """A folder inside the root, where its openssl runs."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return root.run(folder, "/usr/bin/openssl", *arguments)

    return CmpClient(root.folder(f"cmp-{name}"), site, run, profile)


@pytest.fixture
def device(debian13: Root, site: CmpSite, request: pytest.FixtureRequest) -> CmpClient:
    return device_in(debian13, site, "".join(c if c.isalnum() else "-" for c in request.node.name))


def test_enrolls_updates_and_revokes(site: CmpSite, device: CmpClient) -> None:
    own = device.enroll("newest")
    assert "3.5" in device.openssl("version").stdout.decode()
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    assert "received PKICONF" in device.said
    device.keep("updated")
    assert device.cmp("rr", "-cert", "updated.pem", "-key", "updated.key", "-oldcert", "updated.pem"), device.said
    assert len([row for row in site.certificates("newest") if row["revoked_at"]]) == 1


def issuer_of(site: CmpSite) -> str:
    """The name of the CA, as openssl reads it."""
    issuing = x509.load_pem_x509_certificate((site.server.state / "ca" / "issuing.pem").read_bytes())
    return "".join(f"/{rdn.rfc4514_string()}" for rdn in issuing.subject.rdns)


def test_what_is_revoked_is_named_by_its_serial(site: CmpSite, device: CmpClient) -> None:
    """Option -serial with -issuer revokes a certificate that one does not have."""
    device.enroll("newest-serial")
    certificate = x509.load_pem_x509_certificate((device.folder / "own.pem").read_bytes())
    ra = device.write_pair("ra", RA, RA_SUBJECT, ekus=("cmcRA",))
    assert device.cmp("rr", *ra, "-issuer", issuer_of(site), "-serial", str(certificate.serial_number)), device.said
    assert [bool(row["revoked_at"]) for row in site.certificates("newest-serial")] == [True]


def drawn(device: CmpClient) -> None:
    """The key that came is that of the certificate."""
    key = load_pem_private_key((device.folder / "drawn.key").read_bytes(), None)
    assert key.public_key() == device.certificate.public_key()


def test_a_key_is_drawn_under_a_secret(device: CmpClient) -> None:
    """It comes for who knows the secret (pwri), bare: OpenSSL 3.5 reads no AsymmetricKeyPackage."""
    options = ("-centralkeygen", "-newkeyout", "drawn.key", "-subject", "/CN=newest-drawn")
    assert device.cmp("ir", *device.by_secret(), *options), device.said
    drawn(device)


@pytest.mark.parametrize(("kind", "usage"), [("rsa-2048", "keyEncipherment"), ("ec-p256", "keyAgreement")])
def test_a_key_is_drawn_for_a_certificate(device: CmpClient, kind: str, usage: str) -> None:
    """Key transport for RSA, key agreement for EC, which the certificate must allow; kur as well as cr."""
    (device.folder / "ext.cnf").write_text(f"[exts]\nkeyUsage = critical, digitalSignature, {usage}\n")
    options = (*device.by_secret(), "-newkey", device.new_key(kind=kind), "-subject", f"/CN=newest-{kind}")
    assert device.cmp("ir", *options, "-config", "ext.cnf", "-reqexts", "exts"), device.said
    own = device.keep()
    assert device.cmp("kur", *own, "-centralkeygen", "-newkeyout", "drawn.key"), device.said
    drawn(device)


def test_no_key_is_sent_to_a_certificate_that_only_signs(device: CmpClient) -> None:
    own = device.enroll("newest-signs")
    assert not device.cmp("cr", *own, "-centralkeygen", "-newkeyout", "drawn.key", "-subject", "/CN=newest-signs")
    assert "its key usage lacks keyAgreement" in device.said


def test_the_kind_of_key_can_be_asked_for(device: CmpClient) -> None:
    device.new_key()
    device.openssl("pkey", "-in", "new.key", "-pubout", "-out", "like.pub")
    options = ("-centralkeygen", "-newkeyout", "drawn.key", "-subject", "/CN=newest-kind", "-newkey")
    assert device.cmp("ir", *device.by_secret(), *options, "like.pub"), device.said
    drawn(device)
    assert device.certificate.signature_algorithm_oid is not None
    device.new_key(kind="ed25519")
    device.openssl("pkey", "-in", "new.key", "-pubout", "-out", "unlike.pub")
    assert not device.cmp("ir", *device.by_secret(), *options, "unlike.pub")
    assert "badCertTemplate" in device.said


def test_the_template_of_requests(device: CmpClient) -> None:
    assert device.cmp("genm", *device.by_secret(), "-infotype", "certReqTemplate", "-template", "template.der"), device.said
    template, rest = decode((device.folder / "template.der").read_bytes(), rfc4211.CertTemplate())
    assert rest == b""
    assert template["extensions"].isValue


def test_ca_certificates(site: CmpSite, device: CmpClient) -> None:
    assert device.cmp("genm", *device.by_secret(), "-infotype", "caCerts", "-cacertsout", "cas.pem"), device.said
    told = pem_to_ders((device.folder / "cas.pem").read_bytes())
    assert set(told) == {
        der for name in ("issuing.pem", "root.pem") for der in pem_to_ders((site.server.state / "ca" / name).read_bytes())
    }


def test_the_crl(device: CmpClient) -> None:
    """It is told where it is newer than the one that the client has."""
    device.enroll("newest-crl")
    asks = ("genm", *device.by_secret(), "-infotype", "crlStatusList", "-crlcert", "own.pem", "-crlout", "crl.der")
    assert device.cmp(*asks), device.said
    crl = x509.load_der_x509_crl((device.folder / "crl.der").read_bytes())
    assert crl.issuer == x509.load_pem_x509_certificate((device.folder / "own.pem").read_bytes()).issuer
    (device.folder / "crl.der").rename(device.folder / "had.der")
    device.cmp(*asks, "-oldcrl", "had.der")
    assert not (device.folder / "crl.der").exists(), device.said


def test_no_root_comes_next(device: CmpClient) -> None:
    device.cmp("genm", *device.by_secret(), "-infotype", "rootCaCert", "-oldwithold", "root.pem", "-newwithnew", "new.pem")
    assert "no root CA certificate update available" in device.said


def test_the_next_root(debian13: Root, site: CmpSite) -> None:
    """OpenSSL verifies NewWithOld under the root that it has, and OldWithNew under the next one."""
    device = device_in(debian13, site, "next-root", "moving")
    files = ("-newwithnew", "nn.pem", "-newwithold", "no.pem", "-oldwithnew", "on.pem")
    options = (*device.by_secret(), "-infotype", "rootCaCert", "-oldwithold", "root.pem", *files)
    assert device.cmp("genm", *options), device.said
    new, by_old, by_new = (
        x509.load_pem_x509_certificate((device.folder / name).read_bytes()) for name in ("nn.pem", "no.pem", "on.pem")
    )
    assert new.subject.rfc4514_string() == NEW_ROOT
    assert by_old.public_key() == new.public_key()
    assert by_new.issuer == new.subject


def test_a_profile_by_its_name(site: CmpSite, device: CmpClient) -> None:
    """The certProfile of the header chooses `moving`, whose secret it takes."""
    secret = site.secret("moving")
    options = ("-newkey", device.new_key(), "-subject", "/CN=newest-profile", "-profile")
    assert device.cmp("ir", *device.by_secret(secret), *options, "station"), device.said
    assert [row["profile"] for row in site.certificates("newest-profile")] == ["moving"]
    assert not device.cmp("ir", *device.by_secret(), *options, "nobody")
    assert "badRequest" in device.said


def test_a_lightweight_profile(debian13: Root, site: CmpSite) -> None:
    """It keeps RFC 9483 under signatures; under a secret its sender is the subject, which RFC 9483 §3.1 forbids."""
    device = device_in(debian13, site, "lightweight", "careful")
    ra = device.write_pair("ra", RA, RA_SUBJECT, ekus=("cmcRA",))
    options = ("-newkey", device.new_key(), "-subject", "/CN=newest-careful")
    assert not device.cmp("cr", *ra, *options), "it names the CA of its own certificate"
    assert device.cmp("cr", *ra, *options, "-issuer", issuer_of(site)), device.said
    own = device.keep()
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    careless = ("-newkey", device.new_key(), "-subject", "/CN=newest-careless", "-unprotected_errors")
    assert not device.cmp("ir", *device.by_secret(), *careless)


def test_waits_for_approval(debian13: Root, site: CmpSite) -> None:
    device = device_in(debian13, site, "waits", "waiting")
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=newest-waits")
    assert not device.cmp("ir", *options, "-total_timeout", "2")
    approve(site.server)
    assert [row["subject"] for row in site.certificates("newest-waits")] == ["CN=newest-waits"]
