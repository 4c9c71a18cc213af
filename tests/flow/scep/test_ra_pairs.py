"""RA certificates beside the one that `init` makes: split as NDES has them, and previous ones that devices still know."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.pki.certificate import der_to_pem, pem_to_ders
from gateway.pki.keys import generate_private_key, load_private_key, serialize_private_key
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.service import Device, make_folder

WRONG = "wrong-but-long-enough"


@dataclass(frozen=True)
class RaFolder:
    """A folder of `init`, in which the CA issues further RA certificates."""

    path: Path

    def issue(self, name: str, *usage: str) -> dict[str, Any]:
        """Issue one and return it as the configuration names it."""
        [issuing] = pem_to_ders((self.path / "ca" / "issuing.pem").read_bytes())
        ca = OtherCA(issuing, load_private_key((self.path / "secrets" / "issuing.key").read_bytes()))
        key = generate_private_key("rsa-2048")
        certificate = ca.issue(key, f"CN={name}", usage=usage, ekus=("certificateRequestAgent",))
        (self.path / "ca" / f"{name}.pem").write_bytes(der_to_pem(certificate))
        write_secret(self.path / "secrets" / f"{name}.key", serialize_private_key(key))
        return {"certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}

    def der(self, name: str) -> bytes:
        return pem_to_ders((self.path / "ca" / f"{name}.pem").read_bytes())[0]


@pytest.fixture
def folder(tmp_path: Path) -> RaFolder:
    return RaFolder(make_folder(tmp_path / "s"))


BOTH = ("digitalSignature", "keyEncipherment")


async def test_one_certificate_signs_and_another_decrypts(folder: RaFolder, start: StartService, connect: Connect) -> None:
    signing, decrypting = folder.issue("sign", "digitalSignature"), folder.issue("decrypt", "keyEncipherment")
    scep = {"ra_certificate": signing["certificate"], "ra_key": signing["key"], "ra_encryption": decrypting}
    service = await start(demo={"endpoints": {"scep": scep}})
    client = await connect(service)
    assert (client.ra, client.ra_signer) == (folder.der("decrypt"), folder.der("sign"))
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
    assert (await client.enroll(Device(), WRONG)).status is PkiStatus.FAILURE
    client.ra = folder.der("sign")
    refused = await client.enroll(Device(), service.static_challenge, transaction="to-the-signer")
    assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)


async def test_devices_that_know_the_previous_ra_are_answered_by_it(
    folder: RaFolder, start: StartService, connect: Connect
) -> None:
    new = folder.issue("new", *BOTH)
    previous = {"certificate": "ca/ra.pem", "key": {"file": "secrets/ra.key"}}
    scep = {"ra_certificate": new["certificate"], "ra_key": new["key"], "previous_ra": [previous]}
    service = await start(demo={"endpoints": {"scep": scep}})
    client = await connect(service)
    assert (client.ra, client.ra_signer) == (folder.der("new"), folder.der("new"))
    with capture_logs() as lines:
        assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS
        client.ra = client.ra_signer = folder.der("ra")
        old = Device(subject="CN=device-2")
        assert (await client.enroll(old, service.static_challenge, transaction="T2")).status is PkiStatus.SUCCESS
        assert (await client.enroll(old, WRONG, transaction="T3")).status is PkiStatus.FAILURE
    told = [line["ra"] for line in lines if line["event"] == "scep"]
    assert told == [None, "previous", "previous"]


async def test_a_previous_ra_that_cannot_sign(folder: RaFolder, start: StartService, connect: Connect) -> None:
    previous = folder.issue("old-decrypt", "keyEncipherment")
    service = await start(demo={"endpoints": {"scep": {"previous_ra": [previous]}}})
    client = await connect(service)
    client.ra = folder.der("old-decrypt")
    assert (await client.enroll(Device(), service.static_challenge)).status is PkiStatus.SUCCESS


async def test_a_former_ra_that_is_not_named_any_more(folder: RaFolder, start: StartService, connect: Connect) -> None:
    folder.issue("gone", *BOTH)
    service = await start()
    client = await connect(service)
    client.ra = folder.der("gone")
    refused = await client.enroll(Device(), service.static_challenge)
    assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)
