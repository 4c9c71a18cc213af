"""A Vault that is as far away as a network is: it signs what it is asked to, and answers later.

`python -m bench.upstream_ca CHAIN MILLISECONDS` writes its CA certificates to the file CHAIN, prints its port, and ends with
standard input.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.ca.bootstrap import KeyChoice, create_hierarchy
from gateway.ca.local import CaUrls
from gateway.supervise.worker import loop_factory
from tests.contract.ca.fake_vault import FakeVault

ROLE = "devices"
_ROLE = {"key_usage": ["DigitalSignature", "KeyEncipherment"], "use_csr_common_name": False, "use_csr_sans": False}


async def serve(chain: Path, seconds: float) -> None:
    """Serve until standard input ends."""
    hierarchy = create_hierarchy(KeyChoice(), CaUrls(), datetime.now(UTC))
    chain.write_bytes(hierarchy.issuing.certificate + hierarchy.root.certificate)
    vault = FakeVault(hierarchy)
    await vault.set_role(ROLE, **_ROLE)

    @web.middleware
    async def delay(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await handler(request)

    app = web.Application(middlewares=[delay])
    app.router.add_route("*", "/{path:.*}", vault.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(serve(Path(sys.argv[1]), float(sys.argv[2]) / 1000))
