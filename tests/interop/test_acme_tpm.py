"""A real implementation of a TPM 2.0, libtpms in swtpm: its key is attested by itself and certified, and leaves it never."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gateway.asn1.attestation import OID_TCG_AIK_CERTIFICATE
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.pki import der
from gateway.pki.algorithms import signature_oid
from gateway.pki.names import parse_name_text
from gateway.validation.attestation import DeviceAttestation
from gateway.validation.attestation.tpm_structures import parse_public_area
from gateway.validation.interfaces import ValidationFailed, ValidationTask
from gateway.wire.acme.client import Trial
from tests.attesting import NOW, Maker, Tpm, envelope, leaf_grant
from tests.flow.acme.driver import Driver, account, device
from tests.flow.acme.site import start_site
from tests.flow.scep.service import make_folder
from tests.software_tpm import LoadedKey, SoftwareTpm, software_tpm

pytestmark = pytest.mark.interop

SERIAL = "TPM-SERIAL-0001"
ALGORITHMS = {"ec": -7, "rsa": -257}
PLAIN, RESTRICTED, EXPORTABLE = 0x00040072, 0x00050072, 0x00040060
"""Attributes: fixed and made here; for the TPM's own words alone; neither fixed to the TPM nor to its parent."""


@pytest.fixture
def tpm(require_program: Callable[[str, str], str]) -> Iterator[SoftwareTpm]:
    # the path of a socket is at most 107 bytes long
    with TemporaryDirectory(prefix="tpm") as folder, software_tpm(require_program("swtpm", "swtpm"), Path(folder) / "t") as tpm:
        yield tpm


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker.create("Attestation")


@pytest.fixture
async def driver(tmp_path: Path, maker: Maker) -> AsyncIterator[Driver]:
    folder = make_folder(tmp_path / "s")
    (folder / "ca" / "tpm.pem").write_bytes(maker.pem)
    validation = {"mode": "attestation", "attestation": {"tpm": "ca/tpm.pem"}}
    san = {"permanent_identifier": {"patterns": ["TPM-SERIAL-[0-9]+"]}}
    policy = {"subject": {"template": "CN={attested.permanent_identifier}"}, "san": san}
    site = await start_site(folder, devices={"validation": validation, "policy": policy})
    async with account(site, "devices") as driver:
        yield driver
    await site.close()


def statement(tpm: SoftwareTpm, maker: Maker, key: LoadedKey, signed_along: bytes, kind: str = "ec") -> dict[str, Any]:
    """Have a key certified by a new attestation key, which the maker's CA has certified."""
    ak = tpm.attestation_key(kind)
    names = Tpm(maker).sans
    certificate = maker.issue(parse_public_area(ak.area).spki, leaf_grant(sans=names, ekus=(OID_TCG_AIK_CERTIFICATE,)))
    info, signature = tpm.certify(key, ak, signed_along)
    return {
        "ver": "2.0",
        "alg": ALGORITHMS[kind],
        "x5c": [certificate, maker.certificate],
        "sig": signature,
        "certInfo": info,
        "pubArea": key.area,
    }


def attesting(tpm: SoftwareTpm, maker: Maker, key: LoadedKey, kind: str = "ec") -> Callable[[Trial], Mapping[str, object] | None]:
    def respond(trial: Trial) -> Mapping[str, object]:
        assert trial.type is ChallengeType.DEVICE_ATTEST_01
        expected = hashlib.sha256(trial.authorization.encode()).digest()
        return envelope({"fmt": "tpm", "attStmt": statement(tpm, maker, key, expected, kind)})

    return respond


def csr(tpm: SoftwareTpm, key: LoadedKey) -> bytes:
    """A CSR that the TPM signs."""
    info = der.sequence(der.integer(0), parse_name_text("").der, parse_public_area(key.area).spki, der.context(0))
    algorithm = der.sequence(der.oid(signature_oid(key.kind, "sha256")), *([der.null()] if key.kind == "rsa" else []))
    return der.sequence(info, algorithm, der.bit_string(tpm.sign(key, hashlib.sha256(info).digest())))


@pytest.mark.parametrize("ak", ["ec", "rsa"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
async def test_a_key_of_the_tpm_is_certified(driver: Driver, tpm: SoftwareTpm, maker: Maker, kind: str, ak: str) -> None:
    key = tpm.key(kind)
    leaf = await driver.issue(device(SERIAL), csr(tpm, key), attesting(tpm, maker, key, ak))
    assert leaf.public_key.der == parse_public_area(key.area).spki
    assert leaf.subject.values("2.5.4.3") == (SERIAL,)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        pytest.param(RESTRICTED, "restricted", id="restricted"),
        pytest.param(EXPORTABLE, "can leave it", id="exportable"),
    ],
)
async def test_other_keys_of_the_tpm_are_refused(
    driver: Driver, tpm: SoftwareTpm, maker: Maker, attributes: int, said: str
) -> None:
    key = tpm.attestation_key() if attributes == RESTRICTED else tpm.key(attributes=attributes)
    order = await driver.run(driver.client.order(device(SERIAL)))
    document = await driver.failed(driver.client.authorize(order.document["authorizations"][0], attesting(tpm, maker, key)))
    assert said in document["challenges"][0]["error"]["detail"]


async def test_every_byte_counts(driver: Driver, tpm: SoftwareTpm, maker: Maker) -> None:
    """What the TPM made, for this very challenge, with one byte changed."""
    key, token, thumbprint = tpm.key(), "token", "thumbprint"
    whole = statement(tpm, maker, key, hashlib.sha256(f"{token}.{thumbprint}".encode()).digest())
    judge = DeviceAttestation(None, maker.anchors, None).judge

    def task(parts: Mapping[str, Any]) -> ValidationTask:
        payload = envelope({"fmt": "tpm", "attStmt": dict(parts)})
        identifier = Identifier(IdentifierType.PERMANENT_IDENTIFIER, SERIAL)
        return ValidationTask(ChallengeType.DEVICE_ATTEST_01, identifier, token, thumbprint, "", "", payload=payload)

    expected = hashlib.sha256(parse_public_area(key.area).spki).digest()
    assert judge(task(whole), NOW).attested_key == expected
    for field in ("certInfo", "sig", "pubArea"):
        for position in range(len(whole[field])):
            broken = bytearray(whole[field])
            broken[position] ^= 1
            with pytest.raises(ValidationFailed):
                judge(task({**whole, field: bytes(broken)}), NOW)
