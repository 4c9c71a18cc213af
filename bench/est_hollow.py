"""A server that asks for client certificates as `https_mtls` does and answers every POST with bytes made before.

`python -m bench.est_hollow PORT SIZE FOLDER ANCHORS`: what TLS and HTTP alone cost on the workers' event loop. Several of them
share one port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from gateway.supervise.worker import loop_factory
from gateway.web.tls import mtls_context
from gateway.wire.est.messages import MEDIA_CERTS_ONLY


async def serve(port: int, size: int, folder: Path, anchors: Path) -> None:
    """Answer every POST with `size` bytes until standard input ends."""
    body = bytes(size)

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, headers={"Content-Type": MEDIA_CERTS_ONLY})

    certificate, key = (folder / "tls/server.pem").read_bytes(), (folder / "secrets/tls.key").read_bytes()
    context = mtls_context(certificate, key, "1.2", (anchors.read_bytes(),))
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context, reuse_port=True, shutdown_timeout=1).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
