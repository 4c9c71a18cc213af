"""CAs that take a public key with a template (CRMF) certify what was granted to that key, as they do for a PKCS#10."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.exec import ExecCA, ExecSettings
from gateway.ca.interfaces import Capability, UpstreamIssued
from gateway.ca.setup import Setup
from gateway.ca.verify import verify_issued
from gateway.model import RequestForm
from gateway.pki import crmf_writer
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import PrivateKey
from gateway.pki.names import parse_name_text
from tests.contract.ca.conftest import NAME, NO_SOURCES, Lab, NewRequest, judge, make_local

FORMS = frozenset(RequestForm)
# signs what was granted to the public key, whatever form it came in
PROGRAM = """
import base64, json, os, sys
from datetime import datetime
from pathlib import Path
from gateway.model import Extension, Grant, SanKind, SubjectAltName
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, pem_to_ders
from gateway.pki.crmf import parse_cert_req_msg
from gateway.pki.keys import load_private_key

folder = Path(os.environ["CA_DIR"])
asked = json.load(sys.stdin)
grant = asked["grant"]
key = pem_to_ders(asked["public_key"].encode(), "PUBLIC KEY")[0]
if asked["form"] == "crmf":
    assert asked["csr"] is None
    assert parse_cert_req_msg(base64.b64decode(asked["crmf"])).request.public_key.der == key
granted = Grant(
    base64.b64decode(grant["subject_der"]),
    tuple(SubjectAltName(SanKind(san["type"]), san["value"], base64.b64decode(san["der"])) for san in grant["sans"]),
    tuple(grant["key_usage"]),
    tuple(grant["ekus"]),
    datetime.fromisoformat(grant["not_before"]),
    datetime.fromisoformat(grant["not_after"]),
    tuple(Extension(one["oid"], one["critical"], base64.b64decode(one["value"])) for one in grant["extensions"]),
)
issuer = Issuer.from_certificate(
    pem_to_ders((folder / "ca.pem").read_bytes())[0], load_private_key((folder / "ca.key").read_bytes())
)
certificate = build_certificate(issuer, new_serial(), granted, key)
json.dump({"status": "issued", "certificate": der_to_pem(certificate).decode()}, sys.stdout)
"""


def make_program(folder: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...]) -> Lab:
    (folder / "ca.pem").write_bytes(hierarchy.issuing.certificate)
    (folder / "ca.key").write_bytes(hierarchy.issuing.key)
    program = folder / "sign"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(stat.S_IRWXU)
    settings = ExecSettings((str(program),), 60, 2, Capability.NONE, {"CA_DIR": str(folder)}, FORMS)
    return Lab(ExecCA(Setup(NAME, chain, NO_SOURCES), settings), folder)


@pytest.fixture(params=["local", "exec"])
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, hierarchy: Hierarchy, chain: tuple[bytes, ...]
) -> AsyncIterator[Lab]:
    make = {"local": make_local, "exec": make_program}[request.param]
    made = make(tmp_path, hierarchy, chain)
    await made.ca.start()
    yield made
    await made.ca.close()


@pytest.mark.parametrize("form", RequestForm)
async def test_what_was_granted_is_certified(
    lab: Lab, new_request: NewRequest, device_key: PrivateKey, hierarchy: Hierarchy, tmp_path: Path, form: RequestForm
) -> None:
    assert lab.ca.accepts == FORMS
    request = lab.numbered(new_request())
    if form is RequestForm.CRMF:
        template = crmf_writer.encode_cert_template(subject=parse_name_text("CN=wished").der, public_key=request.public_key)
        asked = crmf_writer.encode_cert_request(0, template)
        message = crmf_writer.encode_cert_req_msg(asked, crmf_writer.prove_by_signature(asked, device_key))
        request = replace(request, form=form, request=message)
    issued = await lab.ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    leaf = parse_certificate(issued.certificate)
    verify_issued(request, leaf, issued.chain, lab.ca.chain(), datetime.now(UTC))
    text = judge(tmp_path, hierarchy, issued)
    assert "Subject: O=Example AG,CN=Gerät 7/3\\, Süd" in text
    assert "wished" not in text
