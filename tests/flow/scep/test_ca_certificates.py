"""What a profile shows of its RA and its CA: the bundle, the chain alone, and the CA that comes next (RFC 8894 §4.2, §4.7)."""

from pathlib import Path

import pytest

from gateway.errors import Rejection
from gateway.pki import cms
from gateway.pki.certificate import pem_to_ders
from gateway.wire.scep import client as scep
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer, exchange, get
from tests.flow.scep.service import Service, make_folder


async def ask(service: Service, operation: str) -> RawAnswer:
    return await exchange(service.port, get(f"/scep/demo?operation={operation}"))


def ders(folder: Path, *names: str) -> tuple[bytes, ...]:
    return tuple(der for name in names for der in pem_to_ders((folder / "ca" / f"{name}.pem").read_bytes()))


async def test_the_bundle_begins_with_the_ra_and_ends_with_the_root(service: Service) -> None:
    shown = cms.parse_signed_data((await ask(service, "GetCACert")).body).certificates
    assert shown == ders(service.folder, "ra", "issuing", "root")


async def test_the_chain_alone(service: Service) -> None:
    answer = await ask(service, "GetCACertChain")
    assert (answer.status, answer.media_type) == (200, "application/x-x509-ca-ra-cert-chain")
    assert cms.parse_signed_data(answer.body).certificates == ders(service.folder, "issuing", "root")


@pytest.fixture
async def rolling(start: StartService, tmp_path: Path) -> Service:
    """A service whose next CA is known."""
    folder = make_folder(tmp_path / "s")
    (folder / "ca" / "next.pem").write_bytes(OtherCA.create("Next Root").pem)
    return await start(demo={"endpoints": {"scep": {"next_ca": "ca/next.pem"}}})


async def test_the_next_ca_is_signed_by_the_ra_in_force(rolling: Service, connect: Connect) -> None:
    answer = await ask(rolling, "GetNextCACert&message=default")
    assert (answer.status, answer.media_type) == (200, "application/x-x509-next-ca-cert")
    ra = (await connect(rolling)).ra
    assert scep.decode_next_ca_certificates(answer.body, ra) == ders(rolling.folder, "next")
    assert b"GetNextCACert" in (await ask(rolling, "GetCACaps")).body.split()


async def test_the_next_ca_does_not_appear_before_its_time(rolling: Service) -> None:
    [following] = ders(rolling.folder, "next")
    for operation in ("GetCACert", "GetCACertChain"):
        assert following not in cms.parse_signed_data((await ask(rolling, operation)).body).certificates


async def test_a_next_ca_of_somebody_else_is_found_out(rolling: Service) -> None:
    answer = await ask(rolling, "GetNextCACert")
    with pytest.raises(Rejection):
        scep.decode_next_ca_certificates(answer.body, ders(rolling.folder, "issuing")[0])


async def test_without_a_next_ca(service: Service) -> None:
    assert (await ask(service, "GetNextCACert")).status == 501
    assert b"GetNextCACert" not in (await ask(service, "GetCACaps")).body.split()
