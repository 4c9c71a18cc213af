"""A key in a real TPM 2.0, libtpms in swtpm: its CSR says so in the TPM's own words, and is certified by EST for that."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.asn1.attestation import OID_ATTESTATION, OID_TCG_AIK_CERTIFICATE, OID_TCG_ATTEST_CERTIFY
from gateway.errors import Reason, Rejection
from gateway.pki import der
from gateway.pki.algorithms import signature_oid
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import parse_csr
from gateway.pki.names import format_name, parse_name_text
from gateway.ra.credentials.passwords import hash_password
from gateway.validation.attestation import RequestAttestation
from gateway.validation.attestation.tpm_structures import parse_public_area
from gateway.wire.est import messages
from gateway.wire.est.client import basic_authorization
from tests.attesting import NOW, Maker, Tpm, buffer, leaf_grant
from tests.flow.est.connection import decoded
from tests.flow.est.fleet import EstFleet, Wanted, serving
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.service import make_folder
from tests.software_tpm import LoadedKey, SoftwareTpm, software_tpm

pytestmark = pytest.mark.interop

PASSWORD = "correct horse battery staple"
LOGIN = {"Authorization": basic_authorization("device-1", PASSWORD)}
PLAIN, EXPORTABLE = 0x00040072, 0x00040060


@dataclass(frozen=True)
class Attested(Wanted):
    """A CSR that the TPM signs, with what it certifies of `certified` in it."""

    tpm: SoftwareTpm | None = None
    maker: Maker = field(default_factory=lambda: Maker.create("Attestation"), repr=False)
    loaded: LoadedKey | None = None
    certified: LoadedKey | None = None
    ak: str = "ec"
    sized: bool = False
    """The structures have their sizes in front, as they stand in files of tpm2-tools."""

    @property
    def csr(self) -> bytes:
        assert self.tpm is not None
        assert self.loaded is not None
        attributes = der.sequence(der.oid(OID_ATTESTATION), der.set_of(self.bundle(self.tpm, self.certified or self.loaded)))
        spki = parse_public_area(self.loaded.area).spki
        info = der.sequence(der.integer(0), parse_name_text("").der, spki, der.context(0, attributes))
        null = [der.null()] if self.loaded.kind == "rsa" else []
        algorithm = der.sequence(der.oid(signature_oid(self.loaded.kind, "sha256")), *null)
        return der.sequence(info, algorithm, der.bit_string(self.tpm.sign(self.loaded, hashlib.sha256(info).digest())))

    def bundle(self, tpm: SoftwareTpm, key: LoadedKey) -> bytes:
        ak = tpm.attestation_key(self.ak)
        grant = leaf_grant(sans=Tpm(self.maker).sans, ekus=(OID_TCG_AIK_CERTIFICATE,))
        certificate = self.maker.issue(parse_public_area(ak.area).spki, grant)
        info, signature = tpm.certify(key, ak, b"")
        written = (buffer(info), signature, buffer(key.area)) if self.sized else (info, signature, key.area)
        statement = der.sequence(der.oid(OID_TCG_ATTEST_CERTIFY), der.sequence(*map(der.octet_string, written)))
        return der.sequence(der.sequence(statement), der.sequence(certificate, self.maker.certificate))


@pytest.fixture
def tpm(require_program: Callable[[str, str], str]) -> Iterator[SoftwareTpm]:
    # the path of a socket is at most 107 bytes long
    with TemporaryDirectory(prefix="tpm") as folder, software_tpm(require_program("swtpm", "swtpm"), Path(folder) / "t") as tpm:
        yield tpm


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker.create("Attestation")


@pytest.fixture
async def fleet(tmp_path: Path, maker: Maker) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path / "s")
    (folder / "ca/tpm.pem").write_bytes(maker.pem)
    write_secret(folder / "secrets/users", f"device-1:{hash_password(PASSWORD.encode())}\n".encode())
    profile = {
        "credentials": [{"type": "basic", "users": {"file": "secrets/users"}, "names": "any"}],
        "renewal": {"from": ["devices"], "messages": ["simplereenroll"]},
        "key_attestation": {"tpm_roots": "ca/tpm.pem", "require": True},
        "policy": {"subject": {"template": "CN={attested.permanent_identifier}"}},
    }
    async with serving(folder, {"devices": profile}) as fleet:
        yield fleet


@pytest.mark.parametrize("sized", [False, True], ids=["bare", "with-sizes"])
@pytest.mark.parametrize("ak", ["ec", "rsa"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
async def test_a_key_of_the_tpm_is_certified(
    fleet: EstFleet, tpm: SoftwareTpm, maker: Maker, kind: str, ak: str, sized: bool
) -> None:
    key = tpm.key(kind)
    wanted = Attested(tpm=tpm, maker=maker, loaded=key, ak=ak, sized=sized)
    answer = await fleet.send(None, "devices", messages.SIMPLEENROLL, wanted, LOGIN)
    leaf = parse_certificate(decoded(messages.SIMPLEENROLL, answer).certificates[0])
    assert leaf.public_key.der == parse_public_area(key.area).spki
    assert format_name(leaf.subject) == "CN=TPM-SERIAL-0001"


@pytest.mark.parametrize(
    ("attributes", "certified", "trusted"),
    [
        pytest.param(EXPORTABLE, None, True, id="exportable"),
        pytest.param(PLAIN, "rsa", True, id="another-key-of-the-same-tpm"),
        pytest.param(PLAIN, None, False, id="of-a-ca-that-is-not-trusted"),
    ],
)
async def test_what_is_not_certified(
    fleet: EstFleet, tpm: SoftwareTpm, maker: Maker, attributes: int, certified: str | None, trusted: bool
) -> None:
    key, other = tpm.key(attributes=attributes), None if certified is None else tpm.key(certified)
    vouching = maker if trusted else Maker.create("Attestation")
    wanted = Attested(tpm=tpm, maker=vouching, loaded=key, certified=other)
    assert (await fleet.send(None, "devices", messages.SIMPLEENROLL, wanted, LOGIN)).status == 403
    assert await fleet.certificates() == 0


def test_every_byte_counts(tpm: SoftwareTpm, maker: Maker) -> None:
    """What the TPM made of this very key, with one byte changed."""
    wanted = Attested(tpm=tpm, maker=maker, loaded=tpm.key())
    request, judge = parse_csr(wanted.csr), RequestAttestation(maker.anchors, None)
    assert judge.judge(request, NOW)
    [said] = request.evidence
    fields = der.elements(said.statement, der.read(said.statement)[1])
    for _, _, start, end in fields:
        for position in range(start, end):
            broken = bytearray(said.statement)
            broken[position] ^= 1
            with pytest.raises(Rejection) as refused:
                judge.judge(replace(request, evidence=(replace(said, statement=bytes(broken)),)), NOW)
            assert refused.value.reason is Reason.BAD_ATTESTATION
