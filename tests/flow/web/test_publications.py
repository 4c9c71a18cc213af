"""CRL and CA certificate over HTTP, with the headers that caches obey."""

import asyncio

import aiohttp
import pytest

from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.crl import parse_crl
from tests.flow.scep.service import Client, Device, Service, leaf_of


async def test_the_first_crl_is_waited_for(service: Service) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/crl/local.crl") as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "10")


async def test_crl(service: Service) -> None:
    await service.run("POST", "/v1/crl/publish")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{service.url}/crl/local.crl") as reply:
            crl = parse_crl(await reply.read())
            assert reply.headers["Content-Type"] == "application/pkix-crl"
            assert "Expires" in reply.headers
            assert "Last-Modified" in reply.headers
            seconds = int(reply.headers["Cache-Control"].split("max-age=")[1].split(",")[0])
            etag = reply.headers["ETag"]
        assert crl.number == 1
        assert seconds == 3600, "a revocation must reach caches"
        async with session.get(f"{service.url}/crl/local.crl", headers={"If-None-Match": etag}) as reply:
            assert (reply.status, await reply.read(), reply.headers["ETag"]) == (304, b"", etag)
        async with session.get(f"{service.url}/crl/local.crl", headers={"If-None-Match": '"other"'}) as reply:
            assert reply.status == 200
        async with session.head(f"{service.url}/crl/local.crl") as reply:
            assert (reply.status, reply.headers["ETag"]) == (200, etag)


async def test_a_revocation_is_in_the_crl_when_the_operator_is_answered(service: Service) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(session, f"{service.url}/scep/demo")
        await client.fetch_ra()
        leaf = parse_certificate(leaf_of(await client.enroll(Device(), service.static_challenge)))
        answer = await service.run("POST", f"/v1/certificates/{leaf.sha256.hex()}/revoke", reason="superseded")
        assert answer["crl_number"] == 1
        await asyncio.sleep(1.1)
        async with session.get(f"{service.url}/crl/local.crl") as reply:
            assert leaf.serial in parse_crl(await reply.read()).serials


async def test_ca_certificate(service: Service) -> None:
    issuing = pem_to_ders((service.folder / "ca" / "issuing.pem").read_bytes())[0]
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/ca/local.crt") as reply:
        assert await reply.read() == issuing
        assert reply.headers["Content-Type"] == "application/pkix-cert"


@pytest.mark.parametrize("path", ["/crl/other.crl", "/crl/local.crl/x", "/crl/..%2flocal.crl", "/ca/other.crt"])
async def test_unknown_cas(service: Service, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(service.url + path) as reply:
        assert reply.status == 404


async def test_ops(service: Service) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(service.admin))) as session:
        for path in ("/livez", "/readyz"):
            async with session.get(f"http://localhost{path}") as reply:
                assert (reply.status, await reply.text()) == (200, "ok\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_clients_learn_nothing_of_the_inside(service: Service, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(service.url + path) as reply:
        assert reply.status == 404
