"""One worker process on a shared store: enrolls at full speed and says on standard output what it was told is durable.

Usage: hammer.py DATABASE WORKER COUNT|forever CONCURRENCY
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from gateway.errors import Reason
from gateway.model import RequestId
from gateway.store.interfaces import AlreadyOpen, Opened, OpeningRefused
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore
from tests.contract.store.rows import CHAIN, certificate_of, ledger_row, opening, reservation, transition

KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32


def say(*words: object) -> None:
    """One write a line: whoever kills us must find whole lines."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


async def hammer(path: Path, worker: str, count: int | None, concurrency: int) -> None:
    store = SqliteStore(path, KEYS, AUDIT_KEY, worker, lambda head: say("head", head.to_json()))
    await store.start()
    numbers = iter(itertools.count() if count is None else range(count))

    async def enroll() -> None:
        for number in numbers:
            # Every worker wants the same challenges, in the same order.
            row = ledger_row(id=RequestId(f"{worker}-{number:08}"), worker=worker, transaction_id=f"{worker}-{number}")
            assert await store.find_request(row.request_key, row.created_at) is None
            answer = await store.open(opening(row, (reservation(f"challenge-{number}"),)))
            if answer == OpeningRefused(Reason.CREDENTIAL_USED):
                continue
            assert isinstance(answer, Opened | AlreadyOpen)
            say("opened", row.id, number)
            certificate = certificate_of(row)
            done = await store.transition(transition(row, certificate=certificate, chain=CHAIN))
            assert done is not None
            assert done.certificate == certificate.der
            say("issued", row.id, certificate.sha256.hex())

    await asyncio.gather(*(enroll() for _ in range(concurrency)))
    await store.close()
    say("done")


if __name__ == "__main__":
    asyncio.run(hammer(Path(sys.argv[1]), sys.argv[2], None if sys.argv[3] == "forever" else int(sys.argv[3]), int(sys.argv[4])))
