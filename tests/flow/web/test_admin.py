"""The admin socket: operators' operations, by whom the kernel names."""

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.supervise.sockets import bind_unix
from tests.flow.scep.service import Service


@pytest.fixture
async def admin(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(service.admin))) as session:
        yield session


async def test_the_kernel_names_the_actor(service: Service, admin: aiohttp.ClientSession) -> None:
    async with admin.post("/v1/challenges", json={"profile": "demo", "actor": "uid:4711 (mallory)"}) as reply:
        made = await reply.json()
    assert len(made["challenge"]) >= 26
    [row] = [json.loads(body) for body in await service.audit() if "challenge.created" in body]
    assert row["actor"].startswith(f"uid:{os.getuid()} (")
    assert made["challenge"] not in json.dumps(row)


async def test_list_and_revoke(admin: aiohttp.ClientSession) -> None:
    async with admin.post("/v1/challenges", json={"profile": "demo"}) as reply:
        made = await reply.json()
    async with admin.get("/v1/challenges", params={"profile": "demo"}) as reply:
        [row] = await reply.json()
    assert row["id"] == made["id"]
    assert "challenge" not in row
    async with admin.post(f"/v1/challenges/{made['id']}/revoke") as reply:
        assert reply.status == 200
    async with admin.post(f"/v1/challenges/{made['id']}/revoke") as reply:
        assert reply.status == 404
        assert "no unused challenge" in (await reply.json())["error"]


async def test_status_and_configuration(admin: aiohttp.ClientSession) -> None:
    async with admin.get("/v1/status") as reply:
        assert (await reply.json())["profiles"] == ["demo"]
    async with admin.get("/v1/config") as reply:
        shown = await reply.json()
    assert shown["profiles"]["demo"]["upstream_ca"] == "local"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("GET", "/v1/nope", b"", 404, id="unknown-operation"),
        pytest.param("DELETE", "/v1/challenges", b"", 404, id="other-method"),
        pytest.param("POST", "/v1/challenges", b"{", 400, id="not-json"),
        pytest.param("POST", "/v1/challenges", b"[]", 400, id="no-object"),
        pytest.param("POST", "/v1/challenges", b"[" * 100000, 400, id="deep"),
        pytest.param("POST", "/v1/challenges", b"{}", 400, id="no-profile"),
        pytest.param("POST", "/v1/challenges", b'{"profile": 5}', 400, id="number-for-text"),
        pytest.param("POST", "/v1/challenges", b'{"profile": "nope"}', 404, id="unknown-profile"),
        pytest.param("POST", "/v1/challenges", b'{"profile": "demo", "ttl": 0}', 400, id="no-ttl"),
        pytest.param("POST", "/v1/challenges", b'{"profile": "demo", "ttl": 99999999}', 409, id="long-ttl"),
        pytest.param("POST", "/v1/challenges", b'{"profile": "demo", "sans": ["x"]}', 400, id="san-without-kind"),
        pytest.param("POST", "/v1/challenges", b'{"profile": "demo", "sans": ["ip:x"]}', 409, id="bad-ip"),
        pytest.param("GET", "/v1/requests?state=asleep", b"", 400, id="unknown-state"),
        pytest.param("GET", "/v1/requests/nope", b"", 404, id="unknown-request"),
        pytest.param("POST", "/v1/requests/nope/attach", b'{"certificate": "x"}', 400, id="no-certificate"),
        pytest.param("GET", "/v1/certificates?limit=0", b"", 400, id="no-limit"),
        pytest.param("GET", "/v1/certificates?revoked=maybe", b"", 400, id="no-flag"),
        pytest.param("GET", "/v1/certificates?expires_before=soon", b"", 400, id="no-time"),
        pytest.param("GET", "/v1/certificates?serial=xyz", b"", 400, id="no-serial"),
        pytest.param("GET", "/v1/certificates/ff", b"", 404, id="unknown-certificate"),
        pytest.param("POST", "/v1/certificates/ff/revoke", b'{"reason": "boredom"}', 400, id="unknown-reason"),
        pytest.param("POST", "/v1/crl/publish", b'{"upstream_ca": "nope"}', 404, id="unknown-ca"),
    ],
)
async def test_refusals(admin: aiohttp.ClientSession, method: str, path: str, body: bytes, status: int) -> None:
    async with admin.request(method, path, data=body) as reply:
        assert reply.status == status, await reply.text()
        assert (await reply.json())["error"]


async def test_the_network_has_no_admin_operations(service: Service) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/v1/status") as reply:
        assert reply.status == 404


def test_the_socket_is_closed_to_others(tmp_path: Path) -> None:
    sock = bind_unix(tmp_path / "run" / "admin.sock")
    try:
        assert stat.S_IMODE((tmp_path / "run" / "admin.sock").stat().st_mode) == 0o660
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750
    finally:
        sock.close()


def test_a_dead_servers_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    bind_unix(path).close()
    assert path.is_socket()
    again = bind_unix(path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
    again.close()
