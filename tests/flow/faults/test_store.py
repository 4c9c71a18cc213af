"""A store that takes no write under a gateway that runs: nothing is granted without its audit row, and no restart is needed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gateway.asn1.scep import PkiStatus
from gateway.audit import verify_chain
from gateway.audit.chain import parse_audit_key
from gateway.pki.certificate import parse_certificate
from gateway.store.interfaces import CertificateFilter
from gateway.store.sqlite import connection
from gateway.store.sqlite.store import SqliteStore
from gateway.web.ops import Readiness
from tests.contract.store.rows import audit_rows
from tests.flow.scep.service import Client, Device, Service, leaf_of, start_service

DEVICES = 12


@dataclass
class Disk:
    """Fails while `failing`, after `spared` more groups that it takes."""

    failing: bool = False
    spared: int = 0

    def fails(self) -> bool:
        if self.failing and self.spared:
            self.spared -= 1
            return False
        return self.failing


def read_only(patch: pytest.MonkeyPatch, disk: Disk) -> None:
    """What a file system that was remounted read-only is to a write."""
    begin = connection.begin

    def begin_read_only(writer: sqlite3.Connection, patience: float) -> None:
        writer.execute(f"PRAGMA query_only={int(disk.fails())}")
        begin(writer, patience)

    patch.setattr(connection, "begin", begin_read_only)


def sync_fails(patch: pytest.MonkeyPatch, disk: Disk) -> None:
    commit = connection.commit

    def commit_without_sync(writer: sqlite3.Connection) -> None:
        if disk.fails():
            raise sqlite3.OperationalError("disk I/O error")
        commit(writer)

    patch.setattr(connection, "commit", commit_without_sync)


def sync_fails_though_written(patch: pytest.MonkeyPatch, disk: Disk) -> None:
    """The pages reached the disk all the same: whoever was told that nothing was written finds it there."""
    commit = connection.commit

    def commit_and_fail(writer: sqlite3.Connection) -> None:
        commit(writer)
        if disk.fails():
            raise sqlite3.OperationalError("disk I/O error")

    patch.setattr(connection, "commit", commit_and_fail)


FAULTS = [read_only, sync_fails, sync_fails_though_written]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    disk = Disk()
    with pytest.MonkeyPatch.context() as patch:
        request.param(patch, disk)
        yield disk


async def enroll_all(service: Service) -> tuple[dict[str, bytes], int]:
    """Enroll every device at once; returns the certificates by subject, and how many were told to come again."""
    async with aiohttp.ClientSession() as session:
        client = Client(session, f"{service.url}/scep/demo")
        await client.fetch_ra()
        granted: dict[str, bytes] = {}
        again = 0

        async def enroll(number: int) -> None:
            nonlocal again
            device = Device(subject=f"CN=device-{number}")
            request, signer = device.request(client.ra, service.static_challenge, transaction=f"t-{number}")
            status, body, _ = await client.post(request.message)
            if status == 503:
                again += 1
                return
            assert status == 200, body
            reply = client.read(body, request, signer)
            if reply.status is PkiStatus.PENDING:
                again += 1
                return
            assert reply.status is PkiStatus.SUCCESS, reply.fail_info_text
            granted[device.subject] = leaf_of(reply)

        await asyncio.gather(*(enroll(number) for number in range(DEVICES)))
    return granted, again


async def check_books(service: Service, granted: dict[str, bytes]) -> None:
    """Every certificate that a client has is in the inventory, and has its audit row; the chain is whole."""
    assert isinstance(service.gateway.store, SqliteStore)
    rows = [json.loads(body) for body in await service.audit()]
    issued = Counter(row["serial"] for row in rows if row["event"] == "enrollment.issued")
    known = {row.der for row in await service.gateway.store.list_certificates(CertificateFilter())}
    assert set(granted.values()) <= known
    assert {f"{parse_certificate(der).serial:x}" for der in known} == set(issued)
    assert set(issued.values()) <= {1}
    key = parse_audit_key((service.folder / "secrets" / "audit.key").read_bytes())
    assert not verify_chain(audit_rows(service.gateway.store), key).problems


@pytest.mark.parametrize("spared", [0, 1, 2, 3])
async def test_nothing_is_granted_that_is_not_on_record(tmp_path: Path, disk: Disk, spared: int) -> None:
    """`spared` groups are taken before the disk fails: while requests are opened, or recorded, or told in the audit trail."""
    service = await start_service(tmp_path)
    try:
        disk.failing, disk.spared = True, spared
        async with asyncio.TaskGroup() as group:
            group.create_task(mend(service, disk))
            first = group.create_task(enroll_all(service))
        granted, again = first.result()
        await check_books(service, granted)
        assert await Readiness(service.gateway.probes()).failures() == ()
        later, left = await enroll_all(service)
        assert (left, len(later)) == (0, DEVICES)
        assert granted.items() <= later.items()
        assert again + len(granted) == DEVICES
        await check_books(service, later)
    finally:
        await service.close()


async def mend(service: Service, disk: Disk) -> None:
    """Put the disk right once it has failed, and readiness says so."""
    while await Readiness(service.gateway.probes()).failures() != ("store",):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    disk.failing = False
