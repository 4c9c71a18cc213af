"""`openssl cmp` of Debian 12: every command that it has, under shared secrets and signatures, against a real server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.interop.cmp_site import RA, RA_SUBJECT, VENDOR, CmpClient, CmpSite, refused
from tests.interop.observed import approve, audit_rows

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@pytest.fixture
def device(cmp_site: CmpSite, tmp_path: Path) -> CmpClient:
    return CmpClient(tmp_path, cmp_site)


def common_name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def reasons(cmp_site: CmpSite, name: str) -> list[str | None]:
    """Why the certificates of a subject were revoked; None for one that is good."""
    return [row["revocation_reason"] for row in cmp_site.certificates(name)]


# Enrollment


def test_ir_under_a_secret(cmp_site: CmpSite, device: CmpClient) -> None:
    """PasswordBasedMac with HMAC-SHA1, as OpenSSL does unasked; certConf follows."""
    key = device.new_key()
    options = ("-newkey", key, "-subject", "/CN=ossl-ir", "-extracertsout", "extra.pem", "-cacertsout", "roots.pem")
    assert device.cmp("ir", *device.by_secret(), *options), device.said
    assert "received PKICONF" in device.said
    assert common_name(device.certificate) == "CN=ossl-ir"
    assert device.certificate.public_key() == load_pem_private_key((device.folder / key).read_bytes(), None).public_key()
    issuing, root = ((cmp_site.server.state / "ca" / name).read_bytes() for name in ("issuing.pem", "root.pem"))
    assert x509.load_pem_x509_certificate(issuing) in read_certificates(device, "extra.pem")
    assert read_certificates(device, "roots.pem") == [x509.load_pem_x509_certificate(root)]
    events = [row["event"] for row in audit_rows(cmp_site.server) if row.get("subject") == "CN=ossl-ir"]
    assert events[-1] == "enrollment.confirmed"


def read_certificates(device: CmpClient, name: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates((device.folder / name).read_bytes())


@pytest.mark.parametrize(("mac", "digest"), [("hmac-sha1", "sha384"), ("hmacWithSHA256", "sha256"), ("hmacWithSHA512", "sha512")])
def test_macs(device: CmpClient, mac: str, digest: str) -> None:
    options = ("-newkey", device.new_key(), "-subject", f"/CN=ossl-{mac}-{digest}", "-mac", mac, "-digest", digest)
    assert device.cmp("ir", *device.by_secret(), *options), device.said


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p384", "ec-p521"])
def test_kinds_of_keys(device: CmpClient, kind: str) -> None:
    """The new key signs its proof of possession; then it protects messages itself."""
    own = device.enroll(f"ossl-{kind}", kind)
    assert device.cmp("kur", *own, "-newkey", device.new_key(kind=kind)), device.said
    assert common_name(device.certificate) == f"CN=ossl-{kind}"


def test_a_key_that_openssl_certifies_and_does_not_protect_with(device: CmpClient) -> None:
    options = ("-newkey", device.new_key(kind="ed25519"), "-subject", "/CN=ossl-ed25519")
    assert device.cmp("ir", *device.by_secret(), *options), device.said


def test_names_and_usages_of_the_template(device: CmpClient) -> None:
    (device.folder / "ext.cnf").write_text("[exts]\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n")
    options = ("-newkey", device.new_key(), "-subject", "/CN=ossl-names", "-sans", "ossl.example.test 10.0.0.7", "-days", "20")
    done = device.cmp("ir", *device.by_secret(), *options, "-config", "ext.cnf", "-reqexts", "exts")
    assert done, device.said
    names = device.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ossl.example.test"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    usage = device.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    lifetime = device.certificate.not_valid_after_utc - device.certificate.not_valid_before_utc
    assert lifetime.days in {19, 20}


def test_implicit_confirm(cmp_site: CmpSite, device: CmpClient) -> None:
    options = ("-newkey", device.new_key(), "-subject", "/CN=ossl-implicit", "-implicit_confirm")
    assert device.cmp("ir", *device.by_secret(), *options), device.said
    assert "CERTCONF" not in device.said


def test_implicit_confirm_that_is_not_granted(cmp_site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, cmp_site, profile="vendor")
    maker = device.write_pair("maker", VENDOR, "serialNumber=BS-1,CN=station")
    options = (*maker, "-newkey", device.new_key(), "-subject", "/serialNumber=BS-1", "-implicit_confirm")
    assert device.cmp("ir", *options), device.said
    assert "received PKICONF" in device.said


def test_p10cr(device: CmpClient) -> None:
    device.new_key()
    options = ("-csr", device.new_csr("/CN=ossl-p10cr"), "-newkey", "new.key")
    assert device.cmp("p10cr", *device.by_secret(), *options), device.said
    assert "received PKICONF" in device.said
    assert common_name(device.certificate) == "CN=ossl-p10cr"


@pytest.mark.parametrize("command", ["cr", "p10cr"])
def test_renewal_by_other_bodies(device: CmpClient, command: str) -> None:
    own = device.enroll(f"ossl-renews-by-{command}")
    options = ("-newkey", device.new_key(), "-subject", f"/CN=ossl-renews-by-{command}")
    if command == "p10cr":
        options = ("-newkey", "new.key", "-csr", device.new_csr(f"/CN=ossl-renews-by-{command}"))
    assert device.cmp(command, *own, *options), device.said


def test_kur(cmp_site: CmpSite, device: CmpClient) -> None:
    own = device.enroll("ossl-kur")
    old = x509.load_pem_x509_certificate((device.folder / "own.pem").read_bytes())
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    assert device.certificate.subject == old.subject
    assert device.certificate.public_key() != old.public_key()
    assert cmp_site.rows()[-1]["operation"] == "certConf"


def test_kur_of_what_was_updated(device: CmpClient) -> None:
    """The first certificate was renewed with another key: it renews nothing any more."""
    own = device.enroll("ossl-kur-twice")
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    assert not device.cmp("kur", *own, "-newkey", device.new_key("other.key"))
    assert not device.cmp("kur", *own, "-newkey", "own.key"), "the same key"


def test_kur_under_a_secret(device: CmpClient) -> None:
    """An update is signed with the key of the certificate that it updates."""
    device.enroll("ossl-kur-mac")
    options = (*device.by_secret(), "-oldcert", "own.pem", "-newkey", device.new_key())
    assert not device.cmp("kur", *options)
    assert "wrongIntegrity" in device.said


# Revocation


@pytest.mark.parametrize(("code", "reason"), [(None, "unspecified"), (1, "key_compromise"), (5, "cessation_of_operation")])
def test_rr(cmp_site: CmpSite, device: CmpClient, code: int | None, reason: str) -> None:
    own = device.enroll(f"ossl-rr-{reason}")
    because = () if code is None else ("-revreason", str(code))
    assert device.cmp("rr", *own, "-oldcert", "own.pem", *because), device.said
    assert reasons(cmp_site, f"ossl-rr-{reason}") == [reason]
    assert not device.cmp("rr", *own, "-oldcert", "own.pem", *because)
    assert "certRevoked" in device.said
    assert not device.cmp("kur", *own, "-newkey", device.new_key()), "it is revoked"


def test_rr_of_anothers_certificate(cmp_site: CmpSite, device: CmpClient) -> None:
    device.enroll("ossl-rr-other")
    (device.folder / "own.pem").rename(device.folder / "other.pem")
    own = device.enroll("ossl-rr-mine")
    assert not device.cmp("rr", *own, "-oldcert", "other.pem")
    assert reasons(cmp_site, "ossl-rr-other") == [None]


def test_rr_by_a_registration_authority(cmp_site: CmpSite, device: CmpClient) -> None:
    device.enroll("ossl-rr-by-ra")
    ra = device.write_pair("ra", RA, RA_SUBJECT, ekus=("cmcRA",))
    assert device.cmp("rr", *ra, "-oldcert", "own.pem", "-revreason", "4"), device.said
    assert reasons(cmp_site, "ossl-rr-by-ra") == ["superseded"]


# Information


TYPES = ("caCerts", "signKeyPairTypes", "encKeyPairTypes", "preferredSymmAlg", "currentCRL", "certReqTemplate", "suppLangTags")


@pytest.mark.parametrize("type", TYPES)
def test_genm(device: CmpClient, type: str) -> None:
    assert device.cmp("genm", *device.by_secret(), "-infotype", type), device.said
    assert f"genp contains ITAV of type: id-it-{type}" in device.said


def test_genm_without_a_question(device: CmpClient) -> None:
    assert device.cmp("genm", *device.by_secret()), device.said


# Waiting


def test_polling(cmp_site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, cmp_site, profile="waiting")
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-waits")
    common = ["openssl", "cmp", "-config", "", "-batch", "-cmd", "ir", "-trusted", "root.pem", "-out_trusted", "root.pem"]
    where = ["-server", f"127.0.0.1:{cmp_site.server.http_port}/.well-known/cmp/p/waiting", "-certout", "cert.pem"]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([*common, *where, *options], cwd=tmp_path, stdout=said, stderr=said)
        try:
            approve(cmp_site.server)
            assert process.wait(120) == 0, (tmp_path / "said").read_text()
        finally:
            process.kill()
    assert "received POLLREP" in (tmp_path / "said").read_text()
    assert common_name(device.certificate) == "CN=ossl-waits"


def test_waiting_too_long(cmp_site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, cmp_site, profile="waiting")
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-waits-in-vain", "-total_timeout", "2")
    assert not device.cmp("ir", *options)
    assert cmp_site.certificates("ossl-waits-in-vain") == []


# Possession


def test_a_certificate_that_comes_encrypted(cmp_site: CmpSite, device: CmpClient) -> None:
    """Option -popo 2: decrypting the certificate, and confirming it, proves possession of an RSA key (RFC 4210 §5.2.8.2)."""
    options = (*device.by_secret(), "-newkey", device.new_key(kind="rsa-2048"), "-subject", "/CN=ossl-encrypted", "-popo", "2")
    assert device.cmp("ir", *options, "-implicit_confirm", "-rspout", "rsp.der pkiconf.der"), device.said
    assert "received PKICONF" in device.said, "it must be confirmed"
    assert common_name(device.certificate) == "CN=ossl-encrypted"
    plain = (device.folder / "cert.pem").read_bytes()
    encoded = x509.load_pem_x509_certificate(plain).tbs_certificate_bytes
    assert encoded not in (device.folder / "rsp.der").read_bytes()


def test_ra_verified_is_for_registration_authorities(device: CmpClient) -> None:
    options = ("-newkey", device.new_key(), "-subject", "/CN=ossl-ra-verified", "-popo", "0")
    assert not device.cmp("ir", *device.by_secret(), *options)
    assert "notAuthorized" in device.said or "badPOP" in device.said
    ra = device.write_pair("ra", RA, RA_SUBJECT, ekus=("cmcRA",))
    assert device.cmp("cr", *ra, *options), device.said
    assert common_name(device.certificate) == "CN=ossl-ra-verified"


def test_without_proof_of_possession(device: CmpClient) -> None:
    public = device.new_key()
    assert not device.cmp("ir", *device.by_secret(), "-newkey", public, "-subject", "/CN=ossl-no-pop", "-popo", "-1")
    assert "badPOP" in device.said


# Transport


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/cmp",
        "/.well-known/cmp/",
        "/.well-known/cmp/initialization",
        "/.well-known/cmp/p/demo/",
        "//.well-known/cmp/p/demo/initialization",
        "/pkix",
        "/ejbca/publicweb/cmp/demo",
    ],
)
def test_paths(device: CmpClient, path: str) -> None:
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-path", "-implicit_confirm")
    assert device.cmp("ir", *options, "-path", path, server=f"127.0.0.1:{device.site.server.http_port}"), device.said


def test_an_operation_that_the_body_is_not(device: CmpClient) -> None:
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-other-path")
    assert "badRequest" in refused(device, "ir", *options, "-path", "/.well-known/cmp/p/demo/revocation")


@pytest.mark.parametrize("path", ["/.well-known/cmp/p/nobody", "/.well-known/cmp/p/demo/dance", "/cmp"])
def test_paths_of_nothing(device: CmpClient, path: str) -> None:
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-nowhere")
    assert "404" in refused(device, "ir", *options, "-path", path)


def test_https(cmp_site: CmpSite, device: CmpClient) -> None:
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-https", "-tls_used")
    server = f"https://localhost:{cmp_site.server.https_port}/.well-known/cmp/p/demo"
    assert device.cmp("ir", *options, "-tls_trusted", "root.pem", server=server), device.said
    assert "received PKICONF" in device.said


def test_the_connection_is_kept(device: CmpClient) -> None:
    """Option -keep_alive 2 fails where the server closes."""
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-kept", "-keep_alive", "2")
    assert device.cmp("ir", *options), device.said


def test_many_transactions_on_one_run(cmp_site: CmpSite, device: CmpClient) -> None:
    secret = cmp_site.new_secret("demo", "--uses", "3")
    options = (*device.by_secret(secret), "-newkey", device.new_key(), "-subject", "/CN=ossl-repeats", "-repeat", "3")
    assert device.cmp("ir", *options), device.said
    assert len(cmp_site.certificates("ossl-repeats")) == 3


def test_the_signer_can_be_pinned(cmp_site: CmpSite, device: CmpClient) -> None:
    own = device.enroll("ossl-pins")
    pinned = (cmp_site.server.state / "ca" / "cmp-signer.pem").read_bytes()
    (device.folder / "signer.pem").write_bytes(pinned)
    options = ("-srvcert", "signer.pem", "-newkey", device.new_key(), "-out_trusted", "root.pem")
    assert device.cmp("kur", *own, *options), device.said


# Base stations (3GPP TS 33.310 clause 9)


def test_a_base_station_gets_the_operators_certificate(cmp_site: CmpSite, tmp_path: Path) -> None:
    """Signed with the maker's key; openssl takes the operator's root from extraCerts, as 3GPP lets it, and updates then."""
    device = CmpClient(tmp_path, cmp_site, profile="vendor")
    maker = device.write_pair("maker", VENDOR, "serialNumber=BS-2,CN=station")
    options = (*maker, "-newkey", device.new_key(), "-subject", "/serialNumber=BS-2", "-extracertsout", "extra.pem")
    assert device.cmp("ir", *options), device.said
    root = x509.load_pem_x509_certificate(cmp_site.root.read_bytes())
    assert root in read_certificates(device, "extra.pem")
    own = device.keep()
    assert device.cmp("kur", *own, "-newkey", device.new_key()), device.said
    refused(device, "ir", *maker, "-newkey", device.new_key(), "-subject", "/serialNumber=BS-7")


def test_a_station_that_the_operator_does_not_know(cmp_site: CmpSite, tmp_path: Path) -> None:
    device = CmpClient(tmp_path, cmp_site, profile="vendor")
    maker = device.write_pair("maker", VENDOR, "serialNumber=BS-9,CN=station")
    refused(device, "ir", *maker, "-newkey", device.new_key(), "-subject", "/serialNumber=BS-9")


def test_the_log_tells_what_was_done(cmp_site: CmpSite, device: CmpClient) -> None:
    device.enroll("ossl-logged")
    asked = [(row["operation"], row["outcome"]) for row in cmp_site.rows() if "ossl-logged" in (row.get("subject") or "")]
    assert ("ir", "issued") in asked
    assert not re.search("pass:|BEGIN", cmp_site.server.log.read_text())
