"""One process that publishes CRLs as fast as it can: STORE CERTIFICATE KEY NAME COUNT."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.ca.crl import CrlPublisher, CrlSchedule
from gateway.ca.local import CaUrls, LocalCA
from gateway.model import UpstreamCAName
from gateway.pki.certificate import pem_to_ders
from gateway.pki.keys import load_private_key
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore


async def publish(path: Path, certificate: Path, key: Path, worker: str, count: int) -> None:
    chain = pem_to_ders(certificate.read_bytes())
    ca = LocalCA(UpstreamCAName("local"), load_private_key(key.read_bytes()), chain, CaUrls())
    store = SqliteStore(path, KeyRing((bytes(range(32)),)), b"a" * 32, worker, lambda _: None)
    await store.start()
    schedule = CrlSchedule(timedelta(days=7), timedelta(days=1))
    publisher = CrlPublisher(store, ca, lambda: datetime.now(UTC), worker, schedule)
    try:
        for _ in range(count):
            await publisher.publish(force=True)
    finally:
        await store.close()
        await ca.close()


if __name__ == "__main__":
    asyncio.run(publish(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
