from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.assemble.certificates import NamedCertificate, Standing
from gateway.config.document import DataPath
from gateway.pki.certificate import parse_certificate, self_signed_ca
from gateway.pki.keys import generate_private_key
from gateway.supervise.monitoring import crl_endings, endings, metrics_folder
from tests.unit.assemble.installation import NOW, Installation

END = datetime(2027, 1, 1, tzinfo=UTC)
CERTIFICATE = parse_certificate(self_signed_ca(generate_private_key("ec-p256"), "CN=any", datetime(2026, 1, 1, tzinfo=UTC), END))
SCEP: DataPath = ("profiles", "corp", "endpoints", "scep")


def test_workers_count_beside_the_admin_socket() -> None:
    assert metrics_folder(Path("/run/pki-gateway/admin.sock")) == Path("/run/pki-gateway/admin.metrics")


@pytest.mark.parametrize(
    ("path", "standing", "kind", "name"),
    [
        pytest.param(("server", "https", "certificate"), Standing.CURRENT, "tls", "server.https.certificate", id="tls"),
        pytest.param((*SCEP, "ra_certificate"), Standing.CURRENT, "ra", "profiles.corp.endpoints.scep.ra_certificate", id="ra"),
        pytest.param(("upstream_cas", "lab", "chain"), Standing.CURRENT, "ca", "upstream_cas.lab.chain", id="ca"),
        pytest.param(
            (*SCEP, "previous_ra", 0, "certificate"),
            Standing.RETIRED,
            "previous_ra",
            "profiles.corp.endpoints.scep.previous_ra[0].certificate",
            id="previous-ra",
        ),
        pytest.param((*SCEP, "next_ca"), Standing.RETIRED, "next_ca", "profiles.corp.endpoints.scep.next_ca", id="next-ca"),
        pytest.param(
            ("profiles", "corp", "credentials", 1, "anchors"),
            Standing.CHALLENGE_ANCHOR,
            "challenge_anchor",
            "profiles.corp.credentials[1].anchors",
            id="challenge-anchor",
        ),
        pytest.param(
            (*SCEP, "client_anchors"),
            Standing.CLIENT_ANCHOR,
            "client_anchor",
            "profiles.corp.endpoints.scep.client_anchors",
            id="client-anchor",
        ),
    ],
)
def test_a_certificate_is_named_by_its_field(path: DataPath, standing: Standing, kind: str, name: str) -> None:
    [ending] = endings([NamedCertificate(path, CERTIFICATE, standing)])
    assert (ending.kind, ending.name, ending.not_after) == (kind, name, END)


def test_certificates_of_one_file_are_numbered() -> None:
    path = (*SCEP, "client_anchors")
    found = endings([NamedCertificate(path, CERTIFICATE, Standing.CLIENT_ANCHOR)] * 3)
    name = "profiles.corp.endpoints.scep.client_anchors"
    assert [ending.name for ending in found] == [name, f"{name}#2", f"{name}#3"]


def test_crls_are_numbered_like_certificates(tmp_path: Path) -> None:
    """One in force, one that has ended, a CA without any: what was judged at the start goes on being shown."""
    installation = Installation.create(tmp_path / "state")
    files = [installation.ca("maker"), installation.ca("mdm"), installation.ca("none")]
    crls = [installation.crl("maker"), installation.crl("mdm", end=NOW - timedelta(hours=1))]
    bundles = [b"".join((installation.folder / name).read_bytes() for name in names) for names in (files, crls)]
    installation.write("all.pem", bundles[0])
    installation.require_client_certificate("all.pem", installation.write("all-crls.pem", bundles[1]))
    installation.profile["renewal"]["anchors"] = {"certificates": "maker.pem", "crls": "maker-crl.pem"}
    judged = installation.judged()
    assert judged.problems == ()
    found = {ending.name: ending.next_update for ending in crl_endings(judged.crls)}
    crls_field = "profiles.demo.endpoints.scep.client_crls"
    assert found == {
        crls_field: NOW + timedelta(days=1),
        f"{crls_field}#2": NOW - timedelta(hours=1),
        f"{crls_field}#3": None,
        "profiles.demo.renewal.anchors.crls": NOW + timedelta(days=1),
    }
