"""`pki-gateway test-enroll` trusts what a careful client would trust."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.enroll_est import EstServer
from gateway.cli.enrollment import DeviceKey, Server, find_leaf, make_folder, verified_chain
from gateway.cli.options import CommandError, ExitCode
from gateway.errors import Rejection
from gateway.model import Grant
from gateway.pki.certificate import (
    Certificate,
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    parse_certificate,
    self_signed_ca,
)
from gateway.pki.keys import KEY_SPECS, PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text

NOW, DAY = datetime.now(UTC), timedelta(days=1)
KEY, OTHER, LEAF = (generate_private_key("ec-p256") for _ in range(3))
ROOT = self_signed_ca(KEY, "CN=root", NOW - 9 * DAY, NOW + 9 * DAY)
IMPOSTOR = self_signed_ca(OTHER, "CN=root", NOW - 9 * DAY, NOW + 9 * DAY)


def make_ra(not_before: datetime = NOW - DAY, not_after: datetime = NOW + DAY) -> Certificate:
    grant = Grant(parse_name_text("CN=RA").der, (), ("digitalSignature",), (), not_before, not_after)
    return parse_certificate(build_certificate(Issuer.from_certificate(ROOT, KEY), new_serial(), grant, public_key_der(LEAF)))


def test_an_ra_certificate_below_the_ca() -> None:
    ra = make_ra()
    assert [c.der for c in verified_chain(ra, (ra.der, ROOT))] == [ROOT]


def test_a_ca_that_is_its_own_ra() -> None:
    assert [c.der for c in verified_chain(parse_certificate(ROOT), (ROOT,))] == [ROOT]


@pytest.mark.parametrize(
    ("ra", "authority", "said"),
    [
        pytest.param(make_ra(not_after=NOW - timedelta(hours=1)), ROOT, "not valid at this time", id="expired"),
        pytest.param(make_ra(not_before=NOW + timedelta(hours=1)), ROOT, "not valid at this time", id="not-yet"),
        pytest.param(make_ra(), IMPOSTOR, "signature", id="signed-by-another"),
    ],
)
def test_an_ra_certificate_that_no_client_trusts(ra: Certificate, authority: bytes, said: str) -> None:
    with pytest.raises(Rejection, match=said):
        verified_chain(ra, (ra.der, authority))


def test_an_ra_certificate_of_an_unknown_ca() -> None:
    with pytest.raises(CommandError, match="CN=RA was issued by CN=root, whose certificate the server does not send"):
        verified_chain(make_ra(), (make_ra().der,))


def test_a_certificate_of_another_key() -> None:
    assert find_leaf((ROOT, make_ra().der), public_key_der(LEAF)).subject == make_ra().subject
    with pytest.raises(CommandError, match="without a certificate for our key"):
        find_leaf((ROOT,), public_key_der(LEAF))


def test_anchors_are_read_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(der_to_pem(ROOT))
    tls = Server.parse("https://localhost/scep/x", tmp_path / "root.pem").tls
    assert isinstance(tls, ssl.SSLContext)
    assert tls.get_ca_certs(binary_form=True) == [ROOT]
    assert Server.parse("http://localhost/scep/x", None).tls is None


@pytest.mark.parametrize("pem", [b"", b"garbage", der_to_pem(b"\x30\x03\x02\x01\x05")], ids=["empty", "garbage", "not-one"])
def test_anchors_that_are_none(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "root.pem").write_bytes(pem)
    with pytest.raises(CommandError, match="--trust") as raised:
        Server.parse("https://localhost/scep/x", tmp_path / "root.pem")
    assert raised.value.code is ExitCode.USAGE


def client_files(folder: Path, key: PrivateKey = LEAF) -> tuple[Path, Path]:
    """Write a client's certificate with its chain, and `key` beside it."""
    (folder / "client.pem").write_bytes(der_to_pem(make_ra().der) + der_to_pem(ROOT))
    (folder / "client.key").write_bytes(serialize_private_key(key))
    return folder / "client.pem", folder / "client.key"


def test_a_client_certificate_is_read(tmp_path: Path) -> None:
    assert Server.parse("https://localhost/scep-mtls/x", None, client_files(tmp_path)).tls is not None


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        pytest.param("http://localhost/scep/x", LEAF, "only https shows a client certificate", id="http"),
        pytest.param("https://localhost/scep/x", OTHER, "the private key does not belong", id="another-key"),
    ],
)
def test_a_client_certificate_that_cannot_be_shown(tmp_path: Path, url: str, key: PrivateKey, said: str) -> None:
    with pytest.raises(CommandError, match=f"--client-cert: {said}") as raised:
        Server.parse(url, None, client_files(tmp_path, key))
    assert raised.value.code is ExitCode.USAGE


def test_every_kind_of_key_can_be_made() -> None:
    assert {kind.value for kind in DeviceKey} == set(KEY_SPECS)


def test_the_folder_is_made_first(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("url", "label"),
    [
        pytest.param("https://localhost", None, id="host"),
        pytest.param("https://localhost/", None, id="slash"),
        pytest.param("https://localhost/.well-known/est", None, id="default"),
        pytest.param("https://localhost/.well-known/est/", None, id="default-slash"),
        pytest.param("https://localhost/.well-known/est/corp", "corp", id="label"),
        pytest.param("https://localhost/.well-known/est/ca%3A1/", "ca:1", id="escaped"),
    ],
)
def test_the_label_of_an_est_service(url: str, label: str | None) -> None:
    assert EstServer.at(Server.parse(url, None)).label == label


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("http://localhost/.well-known/est", "over https only", id="http"),
        pytest.param("https://localhost/scep/x", "no URL of an EST service", id="another-path"),
        pytest.param("https://localhost/.well-known/est/a/b", "no URL of an EST service", id="two-labels"),
        pytest.param("https://localhost/.well-known/estate", "no URL of an EST service", id="longer"),
    ],
)
def test_urls_that_are_no_est_service(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EstServer.at(Server.parse(url, None))
