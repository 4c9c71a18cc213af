"""`policy explain` says what each rule thinks of a request, from the configuration alone."""

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from gateway.cli.init import init
from gateway.cli.policy import app
from gateway.model import SanKind
from gateway.pki.certificate import der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.csr import build_csr
from gateway.pki.extensions import EKU_OIDS, make_san
from gateway.pki.keys import generate_private_key
from gateway.pki.names import parse_name_text

KEY = generate_private_key("ec-p256")
SID = make_san(SanKind.SID, "S-1-5-21-1-2-3-1001")
GOOD = build_csr(KEY, parse_name_text("CN=gate-1").der, (make_san(SanKind.DNS, "gate-1.corp.example"),), "s3cret-challenge")
BAD = build_csr(KEY, parse_name_text("CN=gate-1").der, (SID,), key_usage=("keyCertSign",), ekus=(EKU_OIDS["OCSPSigning"],))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "var"
    start = Typer()
    start.command()(init)
    assert CliRunner().invoke(start, [str(folder)]).exit_code == 0
    return folder


def explain(state: Path, *arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["explain", *arguments, "--config", str(state / "profiles.yaml")], input=stdin)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD, id="der"),
        pytest.param(der_to_pem(GOOD, "CERTIFICATE REQUEST"), id="pem"),
        pytest.param(b"text before\n" + der_to_pem(GOOD, "NEW CERTIFICATE REQUEST"), id="pem-of-old-tools"),
    ],
)
def test_granted(state: Path, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "request"
    file.write_bytes(data)
    code, out, _ = explain(state, "demo", str(file))
    assert code == 0
    assert "Granted:" in out
    assert "dns:gate-1.corp.example" in out
    assert "s3cret-challenge" not in out


def test_refused_with_every_reason(state: Path) -> None:
    code, out, _ = explain(state, "demo", "-", "--format", "json", stdin=BAD)
    assert code == 1
    said = json.loads(out)
    assert said["granted"] is False
    assert said["grant"] is None
    refused = {v["rule"] for v in said["verdicts"] if v["verdict"] == "refused"}
    assert {"ca_certificate", "dangerous_ekus", "sid"} <= refused


@pytest.mark.parametrize("name", ["ca/root.pem", "ca/issuing.pem", "ca/ra.pem"])
def test_nobody_gets_the_name_of_a_ca_or_an_ra(state: Path, name: str) -> None:
    subject = parse_certificate(pem_to_ders((state / name).read_bytes())[0]).subject
    code, out, _ = explain(state, "demo", "-", "--format", "json", stdin=build_csr(KEY, subject.der))
    assert code == 1
    assert "reserved_subject" in {v["rule"] for v in json.loads(out)["verdicts"] if v["verdict"] == "refused"}


def test_json_holds_the_grant(state: Path) -> None:
    code, out, _ = explain(state, "demo", "-", "--format", "json", stdin=GOOD)
    assert code == 0
    grant = json.loads(out)["grant"]
    assert (grant["subject"], grant["names"]) == ("CN=gate-1", ["dns:gate-1.corp.example"])
    assert (grant["key_usage"], grant["extended_key_usage"]) == (["digitalSignature"], ["clientAuth", "serverAuth"])


def test_table_shows_each_verdict(state: Path) -> None:
    code, out, _ = explain(state, "demo", "-", stdin=BAD)
    assert code == 1
    assert "ca_certificate" in out
    assert "Refused: " in out


def test_as_if_bound_to_a_subject(state: Path) -> None:
    assert explain(state, "demo", "-", "--subject", "CN=gate-1", stdin=GOOD)[0] == 0
    code, out, _ = explain(state, "demo", "-", "--subject", "CN=gate-2", stdin=GOOD)
    assert code == 1
    assert "another subject" in out


@pytest.mark.parametrize(
    ("profile", "stdin", "code", "said"),
    [
        pytest.param("demo", b"no request", 1, "no PEM block", id="neither-pem-nor-der"),
        pytest.param("demo", GOOD[:-3], 1, "refused before policy", id="cut"),
        pytest.param("demo", GOOD[:-1] + bytes([GOOD[-1] ^ 1]), 1, "refused before policy", id="signature-broken"),
        pytest.param("nobody", GOOD, 2, "there is no profile nobody; there are: demo", id="no-such-profile"),
    ],
)
def test_what_cannot_be_explained(state: Path, profile: str, stdin: bytes, code: int, said: str) -> None:
    status, _, err = explain(state, profile, "-", stdin=stdin)
    assert status == code
    assert said in err


def test_missing_file(state: Path, tmp_path: Path) -> None:
    status, _, err = explain(state, "demo", str(tmp_path / "none"))
    assert status == 1
    assert "No such file" in err
